"""The live lane: one step is one plan, one answer of the node, one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from indexer import metrics
from indexer.chain.head import fetch_head, fetch_headers
from indexer.chain.rpc import Node
from indexer.core.passes import (
    BY_ACCOUNT,
    account_passes,
    all_passes,
    erc1155_passes,
    factory_passes,
    hex_of,
)
from indexer.core.reorg import (
    Extend,
    Inconsistent,
    NeedTail,
    Restart,
    Rewind,
    Step,
    Tail,
    Violation,
    Wait,
    plan_step,
)
from indexer.core.types import Address, BlockHeader, ChainHead, Hash32
from indexer.core.verdict_values import Settings as VerdictSettings
from indexer.core.watchlist import WatchList
from indexer.errors import FinalityViolationError, NodeAnswerError
from indexer.filters import Contracts
from indexer.finality import last_agreed, shown_again
from indexer.gather import gather, gather_silent
from indexer.ingest import Listener, keep_stepping
from indexer.log import get_logger
from indexer.store import live, verdicts, watched
from indexer.store.chain_row import NEVER, Connection
from indexer.store.live_view import (
    LiveView,
    read_live,
    read_tail_roots,
    with_blocks,
    with_tail,
)
from indexer.store.pool import Database
from indexer.store.rows import BlockRows
from indexer.supervisor import attended

log = get_logger()

MAX_BLOCKS_PER_STEP = 50
REORG_LOOKS_BLOCKS = (64, 640, None)
"""How deep the tail is looked into for what both branches share: first so far, then all of it."""


@dataclass(slots=True)
class Follower:
    """The live lane of one chain."""

    database: Database
    node: Node
    contracts: Contracts
    epoch: int
    verdict_settings: VerdictSettings
    listener: Listener
    watch: WatchList
    _last_seq: int = 0
    _watch_tip: Hash32 | None = None
    """The tip that the watch list belongs to: another one says that rows were taken back."""
    _violated: FinalityViolationError | None = None
    _polled: frozenset[tuple[Address, int]] = frozenset()
    """What was seen tainted, with its block, since when the tail was read for it at every block."""
    _said_finished: bool = False

    async def run(self) -> None:
        """Follow for ever; only cancellation, fencing and fatal errors end it."""
        with attended(self.contracts.settings.name):
            await keep_stepping("live", self.step, self._poll, self.listener)

    async def _poll(self) -> None:
        await asyncio.sleep(self.contracts.settings.poll_seconds)

    async def step(self) -> bool:
        """Do one step; return whether another should follow at once."""
        chain_id = self.contracts.settings.chain_id
        view = await read_live(self.database, chain_id, self.epoch)
        if view.chain.indexed_hash != self._watch_tip:
            self._forget_watch(view.chain.indexed_hash)
        if view.tail is not None and view.tail.finalized.number == self._end_block(view):
            return await self._finished(view, view.tail.tip)
        settings = self.contracts.settings
        head = await fetch_head(self.node, settings.finality_depth, settings.end_block)
        if view.tail is None:
            return await self._start(view, head.finalized)
        match await self._plan(view.tail, head):
            case Wait(_, confirmed):
                await live.confirm_head(self.database, view, head.latest, confirmed=confirmed)
                if confirmed:
                    self.listener.head_confirmed(head, view.tail.tip, view.tail.finalized.number)
                    if not view.tainted_in_tail <= self._polled:
                        await self._read_tail(view, view.tail)
                        return True
                    return await self._activate(view)
                self.listener.node_behind(head, view.tail.tip, view.tail.finalized.number)
                return False
            case NeedTail():
                # The node contradicts us but lacks headers that would show where: it lags.
                return False
            case Extend() if not view.tainted_in_tail <= self._polled:
                # Before any of its blocks becomes final without having been read.
                await self._read_tail(view, view.tail)
                return True
            case Extend() as step:
                await self._extend(view, head, step)
                tip = step.headers[-1] if step.headers else view.tail.tip
                if tip.number < head.latest.number:
                    return True
                if view.accounts_live or not view.discovered:
                    return False
                # Not left to a step that finds no new block: a fast chain may never have one.
                return await self._activate(await read_live(self.database, chain_id, self.epoch))
            case Rewind(keep):
                await self._rewind(view, view.tail, keep, head)
                return True
            case Restart(finalized):
                return await self._start(view, finalized)
            case Violation() as step:
                await self._violation(view, step)
                return False
            case Inconsistent(reason):
                raise NodeAnswerError(f"the node moved while it answered: {reason}")
            case _ as never:
                assert_never(never)

    async def _plan(self, tail: Tail, head: ChainHead) -> Step:
        """Plan on the tail's ends, which is enough but for a reorg: then on ever more of it.

        Most reorgs are shallow, and the whole tail may be thousands of blocks long.
        """
        chain_id = self.contracts.settings.chain_id
        asked = (head.latest.number, head.finalized.number)
        tail = await with_blocks(self.database, chain_id, tail, asked)
        first = tail.tip.number
        step = await self._plan_from(tail, head, first)
        for depth in REORG_LOOKS_BLOCKS:
            if not isinstance(step, NeedTail) or first == tail.finalized.number:
                return step
            first = tail.finalized.number
            if depth is not None:
                first = max(first, min(tail.tip.number, head.latest.number) - depth)
            tail = await with_tail(self.database, chain_id, tail, first)
            step = await self._plan_from(tail, head, first)
        return step

    async def _plan_from(self, tail: Tail, head: ChainHead, first: int) -> Step:
        canonical = await self._canonical(tail, head, first)
        return plan_step(tail, head, canonical, max_blocks=MAX_BLOCKS_PER_STEP)

    async def _canonical(
        self, tail: Tail, head: ChainHead, first: int
    ) -> Mapping[int, BlockHeader]:
        last = min(head.latest.number, tail.tip.number + MAX_BLOCKS_PER_STEP)
        found = await fetch_headers(self.node, range(first, last + 1)) if first <= last else []
        canonical = {header.number: header for header in found if header is not None}
        if head.latest.number <= last:
            kept = canonical.setdefault(head.latest.number, head.latest)
            if kept.hash != head.latest.hash:
                raise NodeAnswerError("the node moved to another branch while it answered")
        return canonical

    def _end_block(self, view: LiveView) -> int | None:
        """Return the chain's last block; None while it has none, or contradicts what is final."""
        violated = view.chain.finality_violation is not None
        return None if violated else self.contracts.settings.end_block

    async def _finished(self, view: LiveView, end: BlockHeader) -> bool:
        """Go on without the node: nothing comes after a last block that is final.

        So the database's clock alone settles grace, and verdicts are given even when the
        archive has been switched off.
        """
        await live.confirm_head(self.database, view, end, confirmed=True)
        self.listener.head_confirmed(ChainHead(end, end), end, end.number)
        if not self._said_finished:
            self._said_finished = True
            self.listener.chain_finished()
            log.info("chain_finished", chain=self.contracts.settings.name, end_block=end.number)
        return await self._activate(view)

    async def _start(self, view: LiveView, finalized: BlockHeader) -> bool:
        chain_id = self.contracts.settings.chain_id
        await shown_again(self.node, finalized)
        await live.start_tail(self.database, chain_id, self.epoch, finalized)
        log.info(
            "tail_started",
            chain=self.contracts.settings.name,
            finalized_block=finalized.number,
            previous_block=view.chain.indexed_number,
        )
        return True

    async def _activate(self, view: LiveView) -> bool:
        """Keep accounts' logs as soon as discovery has named every account.

        Those of the tail are fetched now, in one transaction with the decision to keep them;
        what is below finality is the history lane's debt.
        """
        if view.accounts_live or view.tail is None or not view.discovered:
            return False
        settings = self.contracts.settings
        # Whole: of what two lanes learnt at once, the later number may have been committed first.
        self._forget_watch(view.chain.indexed_hash)
        await self._load_new()
        finalized = view.tail.finalized.number
        headers = (await with_tail(self.database, settings.chain_id, view.tail, finalized)).headers[
            1:
        ]
        # With the creations, whose blocks are where slots and roots are read first; they are
        # stored already, as is what could not be decoded of the factories.
        discovery = factory_passes(settings)
        tokens = [p for p in erc1155_passes(settings) if p.filter in BY_ACCOUNT]
        passes = [*account_passes(settings), *discovery, *tokens]
        # The tail is read again from its start: what is known of its end says nothing of that.
        blank = replace(view, polled_roots={})
        rows = await gather(self.node, self.contracts, self.watch, blank, headers, passes)
        if discovery and rows.decoded is not None:
            kept = [r for r in rows.decoded.undecoded if r.at.address not in settings.factories]
            rows.decoded = replace(rows.decoded, creations=(), undecoded=tuple(kept))
        changes: list[verdicts.VerdictChange] = []
        await live.add_to_tail(
            self.database,
            view,
            headers,
            rows,
            self._decider(view.chain.confirmed_at, headers, rows, changes),
            activate=True,
        )
        self._polled |= {(s.account, s.block_number) for s in rows.accounts if s.tainted}
        self.listener.rows_committed(rows.counts())
        self.listener.verdicts_changed(changes)
        log.info(
            "accounts_followed",
            chain=settings.name,
            accounts=len(self.watch),
            above_block=finalized,
        )
        return True

    async def _read_tail(self, view: LiveView, tail: Tail) -> None:
        """Read the tail's roots of accounts that were taken for clean while it was followed."""
        settings = self.contracts.settings
        late = view.tainted_in_tail - self._polled
        new = {account for account, _ in late}
        tail = await with_tail(self.database, settings.chain_id, tail, tail.finalized.number)
        if len(tail.headers) > 1:
            known = await read_tail_roots(
                self.database, settings.chain_id, new, tail.finalized.number
            )
            rows = await gather_silent(self.node, settings, tail.headers, new, known)
            headers = tail.headers[1:]
            changes: list[verdicts.VerdictChange] = []
            decide = self._decider(view.chain.confirmed_at, headers, rows, changes)
            await live.add_to_tail(self.database, view, headers, rows, decide, activate=False)
            self.listener.rows_committed(rows.counts())
            self.listener.verdicts_changed(changes)
        self._polled |= late

    def _forget_watch(self, tip: Hash32 | None) -> None:
        self.watch = WatchList()
        self._polled = frozenset()
        self._last_seq = 0
        self._watch_tip = tip

    async def _load_new(self) -> None:
        rows = await watched.read_watched(
            self.database, self.contracts.settings.chain_id, self._last_seq
        )
        if rows:
            self._last_seq = rows[-1].seq
            self.watch.add_created(row.account for row in rows if row.adopted_block is None)
            self.watch.add_adopted(
                {row.account: row.adopted_block for row in rows if row.adopted_block is not None}
            )

    async def _extend(self, view: LiveView, head: ChainHead, step: Extend) -> None:
        settings = self.contracts.settings
        await self._load_new()
        passes = [
            p for p in all_passes(settings) if view.accounts_live or p.filter not in BY_ACCOUNT
        ]
        rows = await gather(self.node, self.contracts, self.watch, view, step.headers, passes)
        changes: list[verdicts.VerdictChange] = []
        assert view.tail is not None
        tip = step.headers[-1] if step.headers else view.tail.tip
        # Grace is settled by a head that was asked for after it, and only when that is reached.
        reached = tip.hash == head.latest.hash
        confirmed_at = view.asked_at if reached else view.chain.confirmed_at
        extension = live.Extension(step.headers, step.finalized, head.latest, rows, confirmed_at)
        with metrics.COMMIT_SECONDS.labels(chain=settings.name).time():
            await live.apply_extension(
                self.database,
                view,
                extension,
                self._decider(confirmed_at, step.headers, rows, changes),
            )
        self._watch_tip = tip.hash
        self._polled |= {(s.account, s.block_number) for s in rows.accounts if s.tainted}
        self.listener.rows_committed(rows.counts())
        self.listener.verdicts_changed(changes)
        self.listener.head_confirmed(head, tip, step.finalized.number)
        if step.headers:
            log.info(
                "blocks_committed",
                chain=settings.name,
                first_block=step.headers[0].number,
                last_block=tip.number,
                finalized_block=step.finalized.number,
                roots_read=len(rows.roots),
                verdicts_changed=len(changes),
            )

    def _decider(
        self,
        confirmed_at: datetime | None,
        headers: Sequence[BlockHeader],
        rows: BlockRows,
        changes: list[verdicts.VerdictChange],
    ) -> Callable[[Connection], Awaitable[None]]:
        """Return what decides, inside the step's transaction, every key the step has read."""
        settings = self.contracts.settings
        touched: dict[int, set[tuple[Address, Address]]] = {}
        for seen in rows.roots:
            touched.setdefault(seen.block_number, set()).add((seen.manager, seen.account))
        for slots in rows.accounts:
            keys = touched.setdefault(slots.block_number, set())
            keys |= {(manager, slots.account) for manager in settings.managers}

        async def decide(connection: Connection) -> None:
            decided = await verdicts.decide_touched(
                connection,
                chain_id=settings.chain_id,
                confirmed_at=confirmed_at or NEVER,
                settings=self.verdict_settings,
                touched=[
                    (header.number, header.timestamp, frozenset(touched[header.number]))
                    for header in headers
                    if header.number in touched
                ],
                taken=(),
                brief=True,
            )
            changes.extend(decided)

        return decide

    async def _rewind(self, view: LiveView, tail: Tail, keep: BlockHeader, head: ChainHead) -> None:
        settings = self.contracts.settings
        depth = tail.tip.number - keep.number

        async def withdraw(connection: Connection) -> None:
            await verdicts.withdraw(connection, settings.chain_id)

        touched = await live.rewind(self.database, view, keep, head.latest, withdraw)
        self.listener.rewound(depth)
        self.listener.verdicts_counted(await verdicts.count_open(self.database, settings.chain_id))
        log.warning(
            "blocks_rewound",
            chain=settings.name,
            common_ancestor=keep.number,
            depth_blocks=depth,
            old_tip=hex_of(tail.tip.hash),
            accounts_touched=len(touched),
        )

    async def _violation(self, view: LiveView, step: Violation) -> None:
        text = (
            f"block {step.number} is final here as {hex_of(step.ours.hash)}, "
            f"but the node has {hex_of(step.theirs.hash)}"
        )
        if view.chain.finality_violation != text:
            await live.set_finality_violation(self.database, view, text)
        if self._violated is None or str(self._violated) != text:
            chain_id = self.contracts.settings.chain_id
            keep = await last_agreed(self.database, self.node, chain_id, step.number)
            self._violated = FinalityViolationError(
                text,
                remedy="find out which is right; if the node is: sessionwatch rewind "
                f"--chain {self.contracts.settings.name} --to {keep} --below-finality",
            )
        self.listener.violation_found(self._violated)
