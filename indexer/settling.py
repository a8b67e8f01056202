"""Settles with traces who changed a root, where logs and inputs could not; only if configured.

It runs beside the lanes and changes no root: state has said what it is. What traces add is who
set it, by which module, in which user operation, and the roots that stood only inside a block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from indexer.chain.rpc import Node
from indexer.chain.traces import fetch_traces, fetch_transaction_hashes
from indexer.core.settings import ChainSettings
from indexer.core.traces import TracedCall, root_writes
from indexer.core.types import Hash32
from indexer.errors import BlockUnknownError, NodeError, NodeUnreachableError
from indexer.ingest import Listener, keep_stepping
from indexer.log import get_logger
from indexer.store import settling as store
from indexer.store.pool import Database
from indexer.store.rows import RowCounts

log = get_logger()

QUESTIONS_PER_STEP = 20
MAX_TRANSACTIONS = 1_000
"""In a block without any log of the account so many are traced, and no more."""
PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class Settler:
    """The traces of one chain; it does nothing where `traces` is off."""

    database: Database
    node: Node
    settings: ChainSettings
    epoch: int
    listener: Listener
    _traced: dict[Hash32, list[TracedCall]] = field(default_factory=dict)

    async def run(self) -> None:
        """Settle whatever waits, for ever; only cancellation, fencing and fatal errors end it."""
        if self.settings.traces != "off":
            await keep_stepping("traces", self.step, self._pause, self.listener)

    async def _pause(self) -> None:
        await asyncio.sleep(PAUSE_SECONDS)

    async def step(self) -> bool:
        """Settle some of what waits; return whether there was any."""
        if self.settings.traces == "off":
            return False
        chain_id = self.settings.chain_id
        questions = await store.read_questions(self.database, chain_id, QUESTIONS_PER_STEP)
        answers: list[store.Answer] = []
        self._traced.clear()
        waits: NodeError | None = None
        for question in questions:
            try:
                answers.append(store.Answer(question, await self._writes(question)))
            except (BlockUnknownError, NodeUnreachableError) as error:
                # A node that lags or is away, or a reorg that is not written yet: later.
                waits = error
            except NodeError as error:
                # A node that does not trace, or not this: logs and inputs have had their say.
                await store.note_failure(self.database, chain_id, question)
                log.warning(
                    "trace_unavailable",
                    chain=self.settings.name,
                    block=question.block_number,
                    reason=str(error),
                    remedy="use a node that traces, or set traces to off",
                )
        settled, disagreements = await store.settle(self.database, chain_id, self.epoch, answers)
        self.listener.rows_committed(RowCounts(disagreements=disagreements))
        if settled:
            log.info("roots_traced", chain=self.settings.name, changes=settled)
        if waits is not None:
            raise waits
        return bool(questions)

    async def _writes(self, question: store.Question) -> tuple[store.TraceWrite, ...]:
        """Return every root that the account set in the manager, in the order of the block.

        Looked for in the transactions that are named; if what state shows is not found there, in
        the whole block.
        """
        in_block = await fetch_transaction_hashes(self.node, question.block_hash)
        named = [h for h in in_block if h in question.transactions]
        writes = await self._writes_in(question, in_block, named)
        if not writes or writes[-1].root != question.root:
            everything = in_block[:MAX_TRANSACTIONS]
            writes = await self._writes_in(question, in_block, everything)
        return writes

    async def _writes_in(
        self, question: store.Question, in_block: Sequence[Hash32], asked: Sequence[Hash32]
    ) -> tuple[store.TraceWrite, ...]:
        settings = self.settings
        new = [h for h in asked if h not in self._traced]
        self._traced |= await fetch_traces(self.node, settings.traces, question.block_hash, new)
        places = {transaction_hash: place for place, transaction_hash in enumerate(in_block)}
        return tuple(
            store.TraceWrite(
                places[transaction_hash],
                write.write_index,
                transaction_hash,
                write.root,
                write.module,
                write.user_op_hash,
                by_session=write.by_session,
                sender=calls[0].caller,
                called=calls[0].to,
            )
            for transaction_hash in asked
            if (calls := self._traced[transaction_hash])
            for write in root_writes(
                calls, settings.managers, settings.entry_points, settings.routers
            )
            if (write.account, write.manager) == (question.account, question.manager)
        )
