"""`sessionwatch audit`: a node is asked again for what the database counts as covered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from indexer.chain.bulk import StateRead, read_state_or_none
from indexer.chain.head import fetch_headers
from indexer.chain.logs import RangeSize, fetch_logs_in_range
from indexer.chain.rpc import Node
from indexer.chain.slots import FALLBACK_HANDLER_SLOT, address_in, implementation_slot
from indexer.chain.state import manager_kind, read_code
from indexer.core.audit import Tally
from indexer.core.audit_claims import (
    Claims,
    Covered,
    Everyone,
    LogRow,
    Skipped,
    accounts_in,
    log_rows,
)
from indexer.core.merkle import root_slot
from indexer.core.passes import ACCOUNTS, hex_of, roots_pass
from indexer.core.settings import ChainSettings
from indexer.core.types import Address
from indexer.errors import RangeTooLargeError, RetryableError, UsageError
from indexer.filters import Contracts, decode
from indexer.log import get_logger
from indexer.store.audit import StoredChunk, StoredSlots, read_chunk, read_covered
from indexer.store.copying import MAX_UNDECODED_BYTES
from indexer.store.pool import Database

log = get_logger()
T = TypeVar("T")

GIVE_UP_SECONDS = 60.0
"""How long a node or a database that is away is waited for."""
PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class AuditReport:
    """What was asked for, and what was found of it so far.

    Blocks `first` to `last` are looked at, those beyond the start block and the finalized one
    left out. `audited_to` is the last block that has been compared, None before the first;
    `finished` says that nothing is left.
    """

    chain: str
    asked_first: int | None
    asked_last: int | None
    first: int = 0
    last: int = -1
    start_block: int = 0
    finalized_block: int = -1
    audited_to: int | None = None
    finished: bool = False
    skipped: list[Skipped] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)


async def patiently(
    work: Callable[[], Awaitable[T]],
    what: str,
    give_up_seconds: float,
    *,
    event: str = "audit_waits",
) -> T:
    """Repeat what can be repeated until it works; what failed last is raised after so long.

    A node that wants a narrower range is not asked for the same one again.
    """
    loop = asyncio.get_running_loop()
    deadline, told = loop.time() + give_up_seconds, False
    while True:
        try:
            return await work()
        except RangeTooLargeError:
            raise
        except RetryableError as error:
            if loop.time() + PAUSE_SECONDS > deadline:
                raise
            if not told:
                log.warning(event, what=what, reason=str(error), remedy=error.remedy)
                told = True
            await asyncio.sleep(PAUSE_SECONDS)


async def run_audit(
    report: AuditReport,
    database: Database,
    settings: ChainSettings,
    *,
    progress: Callable[[int, int], None],
    give_up_seconds: float = GIVE_UP_SECONDS,
) -> None:
    """Compare the blocks that the report names, and fill the report in as they are compared.

    `progress` is told the blocks done and those to be done. Raises UsageError where nothing can
    be compared, WrongChainError, and RetryableError if node or database stay away.
    """

    async def try_for_long(work: Callable[[], Awaitable[T]], what: str) -> T:
        return await patiently(work, what, give_up_seconds)

    async with Node(settings) as node:
        covered = await try_for_long(
            lambda: read_covered(database, settings.chain_id), "the database"
        )
        covered = _limits(report, covered)
        await try_for_long(node.verify_chain, "the node")
        may_log = [
            manager
            for manager in settings.managers
            if manager_kind(
                await try_for_long(
                    lambda manager=manager: read_code(node, manager),  # type: ignore[misc]
                    "the node",
                )
            )
            != "v1"
        ]
        claims = Claims(settings, may_log, covered.within(report.first, report.last))
        report.skipped = claims.skipped(report.first, report.last)
        stretches = claims.stretches()
        if not stretches:
            raise UsageError(
                f"nothing of {settings.name} is covered from block {report.first} to "
                f"{report.last}, so there is nothing to compare",
                remedy="see `sessionwatch status`; let `sessionwatch run` index these blocks first",
            )
        auditor = _Auditor(database, node, Contracts(settings, frozenset(may_log)), claims)
        size = RangeSize()
        done, total = 0, sum(last - first + 1 for first, last in stretches)
        for start, end in stretches:
            first = start
            while first <= end:
                span = (first, min(end, first + size.blocks - 1))
                try:
                    tally = await try_for_long(
                        lambda span=span: auditor.chunk(span),  # type: ignore[misc]
                        f"blocks {span[0]} to {span[1]}",
                    )
                except RangeTooLargeError as error:
                    if span[0] == span[1]:
                        raise
                    size.narrow(error)
                    continue
                report.tally.add(tally)
                report.audited_to = span[1]
                done += span[1] - span[0] + 1
                progress(done, total)
                first = span[1] + 1
                size.grow(span[1] - span[0] + 1)
        report.finished = True


def _limits(report: AuditReport, covered: Covered | None) -> Covered:
    """Set which blocks are looked at; UsageError where none is left."""
    if covered is None:
        raise UsageError(
            f"nothing of {report.chain} is indexed, so there is nothing to compare",
            remedy="see `sessionwatch status`",
        )
    start, final = covered.start_block, covered.finalized_number
    report.start_block, report.finalized_block = start, final
    report.first = start if report.asked_first is None else max(report.asked_first, start)
    report.last = final if report.asked_last is None else min(report.asked_last, final)
    if report.first > report.last:
        raise UsageError(
            f"no block that was asked for lies between the start block {start} and the "
            f"finalized block {final} of {report.chain}",
            remedy="only final blocks can be compared: choose --from and --to among them",
        )
    return covered


@dataclass(frozen=True, slots=True)
class _Auditor:
    """Compares one chunk of blocks after the other."""

    database: Database
    node: Node
    contracts: Contracts
    claims: Claims

    async def chunk(self, span: tuple[int, int]) -> Tally:
        """Ask the node and the database for the same blocks, and compare."""
        found = await self._logs(span)
        accounts = {a for row in found for a in accounts_in(row)}
        stored = await read_chunk(
            self.database, self.contracts.settings.chain_id, span, sorted(accounts)
        )
        tally = Tally()
        await self._blocks(stored, tally)
        tally.compare_logs(found, stored.rows, self.claims, stored.members)
        await self._roots(stored, tally)
        await self._slots(stored.slots, tally)
        return tally

    async def _logs(self, span: tuple[int, int]) -> list[LogRow]:
        """Decode what the daemon would ask for to cover these blocks, of every account."""
        passes = self.claims.passes_in(*span)
        with_accounts = any(p.name == "logs" and p.filter == ACCOUNTS for p in passes)
        watch = self.contracts.log_filter([p for p in passes if p.name == "logs"], Everyone())
        managers = [m for m in watch.event_managers if roots_pass(m) in passes]
        watch = replace(watch, event_managers=frozenset(managers))
        requests = self.contracts.log_requests(watch, with_accounts=with_accounts)
        if not requests:
            return []
        answer = await fetch_logs_in_range(self.node, *span, requests)
        decoded = decode(answer.logs, watch, with_accounts=with_accounts)
        return log_rows(decoded, max_undecoded_bytes=MAX_UNDECODED_BYTES)

    async def _blocks(self, stored: StoredChunk, tally: Tally) -> None:
        headers = await fetch_headers(self.node, list(stored.blocks))
        for (number, hash_), header in zip(stored.blocks.items(), headers, strict=True):
            found = None if header is None else {"hash": header.hash}
            tally.compare("block", (number, None), "", {"hash": hash_}, found)

    async def _roots(self, stored: StoredChunk, tally: Tally) -> None:
        reads = [StateRead(r.block_hash, r.manager, root_slot(r.account)) for r in stored.roots]
        words = await read_state_or_none(self.node, reads)
        for seen, word in zip(stored.roots, words, strict=True):
            about = f" of {hex_of(seen.account)} in {hex_of(seen.manager)}"
            found: dict[str, Any] | None = None if word is None else {"root": word}
            place = (seen.block_number, None)
            tally.compare("root_observation", place, about, {"root": seen.root}, found)

    async def _slots(self, stored: Sequence[StoredSlots], tally: Tally) -> None:
        reads = [
            StateRead(seen.block_hash, seen.account, slot)
            for seen in stored
            for slot in (implementation_slot(seen.account), FALLBACK_HANDLER_SLOT)
        ]
        words = iter(await read_state_or_none(self.node, reads))
        for seen in stored:
            code, handler = next(words), next(words)
            found: dict[str, Address] | None = None
            if code is not None and handler is not None:
                found = {
                    "implementation": address_in(code),
                    "fallback_handler": address_in(handler),
                }
            tally.compare(
                "account_observation",
                (seen.block_number, None),
                f" of {hex_of(seen.account)}",
                {
                    "implementation": seen.implementation,
                    "fallback_handler": seen.fallback_handler,
                },
                found,
            )
