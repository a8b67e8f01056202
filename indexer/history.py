"""The history lane: ranges at or below finality, one after the other, until nothing is owed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import assert_never

from indexer.chain.head import fetch_headers
from indexer.chain.logs import LogRequest, RangeSize, fetch_logs_by_hash, fetch_logs_in_range
from indexer.chain.rpc import Node
from indexer.core.debt import Ledger, Span, Task, missing_blocks, next_task
from indexer.core.passes import (
    ACCOUNTS,
    LOGS_ACCOUNTS,
    Pass,
    account_passes,
    all_passes,
    erc1155_passes,
    factory_passes,
)
from indexer.core.roots import (
    USER_OPERATION,
    RootObservation,
    by_account,
    event_hints,
)
from indexer.core.topics import MANAGER_TOPICS, TRIGGER_EVENTS
from indexer.core.types import Address, BlockHeader
from indexer.core.watchlist import CohortWatch, WatchList
from indexer.errors import NodeAnswerError, RangeTooLargeError, StatePrunedError
from indexer.ingest import (
    Contracts,
    Listener,
    Look,
    Operation,
    attributions_of,
    decode,
    fetch_bodies,
    keep_stepping,
    observe,
    only_of_manager,
)
from indexer.log import get_logger
from indexer.store import history as store
from indexer.store.pool import Database
from indexer.store.rows import BlockRows
from indexer.store.watched import read_watched

log = get_logger()

IDLE_SECONDS = 0.5
LOOKS_PER_REQUEST = 50
MAX_TRIGGERS = 5000
"""Of one range whose inputs or roots are read: what is in memory at once is bounded."""
# State that was pruned may come back with another node: asked again after this long.
PRUNED_RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class _Lost:
    """A stretch whose state the node did not have a moment ago; asked again `until` then."""

    pass_: Pass
    cohort: int
    span: Span
    until: float


@dataclass(slots=True)
class Historian:
    """The history lane of one chain."""

    database: Database
    node: Node
    contracts: Contracts
    epoch: int
    listener: Listener
    size: RangeSize = field(default_factory=RangeSize)
    _lost: list[_Lost] = field(default_factory=list)

    async def run(self) -> None:
        """Pay debt for ever; only cancellation, fencing and fatal errors end it."""
        await keep_stepping("history", self.step, self._rest, self.listener)

    async def _rest(self) -> None:
        await asyncio.sleep(IDLE_SECONDS)

    def _next(self, ledger: Ledger) -> Task | None:
        settings = self.contracts.settings
        now = asyncio.get_running_loop().time()
        # One at a time: while the oldest is still lost so are the others, and asking for all of
        # them again would leave no time for what is new.
        if self._lost and self._lost[0].until <= now:
            del self._lost[0]
        for lost in self._lost:
            ledger = ledger.with_covered(lost.pass_, lost.cohort, lost.span)
        return next_task(
            ledger,
            factory=factory_passes(settings),
            account=account_passes(settings),
            erc1155=erc1155_passes(settings),
            max_blocks=self.size.blocks,
        )

    async def step(self) -> bool:
        """Pay one range; return whether there was one."""
        settings = self.contracts.settings
        ledger = await store.read_ledger(self.database, settings.chain_id)
        if ledger is None:
            return False
        passes = all_passes(settings)
        self.listener.debt_known(
            {
                name: missing_blocks(ledger, [p for p in passes if p.name == name])
                for name in {p.name for p in passes}
            }
        )
        task = self._next(ledger)
        if task is None:
            return False
        if task.kind in {"bodies", "roots"}:
            last = await store.cut_range(
                self.database, settings.chain_id, task.first, task.last, MAX_TRIGGERS
            )
            task = replace(task, last=last)
        try:
            rows = await self._pay(task)
        except RangeTooLargeError as error:
            if task.first == task.last:
                raise
            self.size.narrow(error)
            return True
        if rows is not None:
            self.listener.rows_committed(rows)
            log.info(
                "range_committed",
                chain=settings.name,
                kind=task.kind,
                passes=[f"{p.name} {p.filter}" for p in task.passes],
                cohort=task.cohort,
                first_block=task.first,
                last_block=task.last,
            )
        return True

    async def _pay(self, task: Task) -> BlockRows | None:
        match task.kind:
            case "factory" | "logs":
                return await self._logs(task)
            case "bodies":
                return await self._bodies(task)
            case "roots":
                return await self._roots(task)
            case _:
                assert_never(task.kind)

    async def _logs(self, task: Task) -> BlockRows:
        settings = self.contracts.settings
        with_accounts = any(p.filter == ACCOUNTS for p in task.passes)
        watch = self.contracts.log_filter(
            task.passes, await self._accounts(task.cohort) if with_accounts else WatchList()
        )
        # Events of managers are paid with their roots: a manager added later owes both.
        watch = replace(watch, event_managers=frozenset())
        requests = self.contracts.log_requests(watch, with_accounts=with_accounts)
        answer = await fetch_logs_in_range(self.node, task.first, task.last, requests)
        decoded = decode(answer.logs, watch, with_accounts=with_accounts)
        rows = BlockRows(decoded=decoded, hints=event_hints(decoded))
        numbers = rows.block_numbers()
        headers = await self._our_headers(numbers)
        hash_of = {log_.block_number: log_.block_hash for log_ in answer.logs}
        for header in headers:
            if hash_of.get(header.number, header.hash) != header.hash:
                raise NodeAnswerError(f"block {header.number} came with two hashes")
        await store.apply_range(
            self.database, settings.chain_id, self.epoch, task, headers, rows, ()
        )
        self.size.grow()
        return rows

    async def _accounts(self, cohort: int) -> WatchList | CohortWatch:
        chain_id = self.contracts.settings.chain_id
        watched = await read_watched(self.database, chain_id, 0)
        if cohort:
            mine = [row for row in watched if row.cohort_id == cohort]
            adopted = mine[0].adopted_block if mine else None
            return CohortWatch((row.account for row in mine), -1 if adopted is None else adopted)
        return WatchList(
            (row.account for row in watched if row.adopted_block is None),
            {r.account: r.adopted_block for r in watched if r.adopted_block is not None},
        )

    async def _headers(self, numbers: list[int]) -> list[BlockHeader]:
        headers = await fetch_headers(self.node, numbers)
        found = [header for header in headers if header is not None]
        if len(found) != len(numbers):
            raise NodeAnswerError("the node has logs of blocks whose headers it does not have")
        return found

    async def _our_headers(self, numbers: set[int]) -> list[BlockHeader]:
        """Return headers, of a node that has our finalized block at this moment.

        Asked for after the logs: a node that has left our chain must not pay our debt.
        """
        chain_id = self.contracts.settings.chain_id
        final_number, final_hash = await store.read_marker(self.database, chain_id)
        headers = await self._headers(sorted(numbers | {final_number}))
        if headers[-1].hash != final_hash:
            raise NodeAnswerError(f"the node's block {final_number} is not ours, which is final")
        return [header for header in headers if header.number in numbers]

    async def _bodies(self, task: Task) -> BlockRows:
        settings = self.contracts.settings
        operations = await store.read_operations(
            self.database, settings.chain_id, task, USER_OPERATION
        )
        headers = {
            h.number: h
            for h in await self._headers(sorted({o.trigger.block_number for o in operations}))
        }
        bodies, hints = await fetch_bodies(
            self.node,
            settings,
            [
                Operation(
                    o.trigger,
                    o.entry_point,
                    headers[o.trigger.block_number].hash,
                    o.transaction_index,
                )
                for o in operations
            ],
        )
        rows = BlockRows(bodies=bodies, hints=hints)
        await store.apply_range(
            self.database, settings.chain_id, self.epoch, task, headers.values(), rows, ()
        )
        return rows

    async def _roots(self, task: Task) -> BlockRows | None:
        settings = self.contracts.settings
        (pass_,) = task.passes
        manager = Address(bytes.fromhex(pass_.name.removeprefix("roots/0x")))
        if manager in self.contracts.event_managers:
            await self._manager_events(task, manager)
        stored = await store.read_triggers(
            self.database,
            settings.chain_id,
            task,
            trigger_events=sorted(TRIGGER_EVENTS),
            operation_event=USER_OPERATION,
        )
        grouped = by_account(stored.triggers)
        looks: dict[int, tuple[set[Address], set[Address]]] = {}
        for (number, account), triggers in grouped.items():
            accounts, slots = looks.setdefault(number, (set(), set()))
            accounts.add(account)
            if any(trigger.may_change_slots for trigger in triggers):
                slots.add(account)
        rows = BlockRows()
        headers = dict(stored.headers)
        wanted = [
            Look(headers[number], frozenset(accounts), frozenset(slots))
            for number, (accounts, slots) in sorted(looks.items())
        ]
        try:
            for start in range(0, len(wanted), LOOKS_PER_REQUEST):
                roots, slots_read = await observe(
                    self.node, settings, wanted[start : start + LOOKS_PER_REQUEST], [manager]
                )
                rows.roots += roots
                rows.accounts += slots_read
            await self._silent_changes(task, manager, rows, headers)
        except StatePrunedError as error:
            until = asyncio.get_running_loop().time() + PRUNED_RETRY_SECONDS
            span = (task.first, task.last)
            self._lost = [replace(lost, until=until) for lost in self._lost]
            self._lost.append(_Lost(pass_, task.cohort, span, until))
            await store.mark_unobserved(
                self.database, settings.chain_id, self.epoch, manager, span, str(error)[:500]
            )
            log.warning(
                "state_pruned",
                chain=settings.name,
                manager="0x" + manager.hex(),
                first_block=task.first,
                last_block=task.last,
                remedy="add an endpoint with archive state to see these roots",
            )
            return None
        rows.attributions = attributions_of(rows.roots, grouped, stored.hints)
        used = rows.block_numbers()
        # Before the range counts as paid: after a kill in between it is read once more.
        await store.clear_unobserved(
            self.database, settings.chain_id, self.epoch, manager, (task.first, task.last)
        )
        await store.apply_range(
            self.database,
            settings.chain_id,
            self.epoch,
            task,
            [header for number, header in headers.items() if number in used],
            rows,
            {(manager, observation.account) for observation in rows.roots},
        )
        return rows

    async def _manager_events(self, task: Task, manager: Address) -> None:
        """Store what a manager logged of the cohort's accounts, before its triggers are read.

        The blocks are then read whole: other logs say which operation an event belongs to. Done
        again after a kill, it finds its rows.
        """
        asked = LogRequest((manager,), tuple(sorted(MANAGER_TOPICS)))
        answer = await fetch_logs_in_range(self.node, task.first, task.last, [asked])
        numbers = {log_.block_number for log_ in answer.logs}
        if not numbers:
            return
        headers = await self._our_headers(numbers)
        watch = replace(
            self.contracts.log_filter([LOGS_ACCOUNTS], await self._accounts(task.cohort)),
            event_managers=frozenset({manager}),
        )
        requests = self.contracts.log_requests(watch, with_accounts=True)
        logs = await fetch_logs_by_hash(self.node, headers, requests)
        decoded = only_of_manager(decode(logs, watch, with_accounts=True), manager)
        rows = BlockRows(decoded=decoded, hints=event_hints(decoded))
        used = [header for header in headers if header.number in rows.block_numbers()]
        chain_id, unpaid = self.contracts.settings.chain_id, replace(task, passes=())
        await store.apply_range(self.database, chain_id, self.epoch, unpaid, used, rows, ())
        self.listener.rows_committed(rows)

    async def _silent_changes(
        self, task: Task, manager: Address, rows: BlockRows, headers: dict[int, BlockHeader]
    ) -> None:
        """Find changes that left no log: of tainted accounts, between the range's ends.

        Read at both ends and bisected where they differ. A root that changed and changed back
        between two reads is not seen; nothing but a trace of every block would.
        """
        database, chain_id = self.database, self.contracts.settings.chain_id
        tainted = set(await store.tainted_before(database, chain_id, task.last))
        tainted |= {o.account for o in rows.accounts if o.tainted}
        if not tainted:
            return
        members = await self._accounts(task.cohort)
        for account in sorted(tainted):
            if not members.watched(account, task.last):
                continue
            known = {o.block_number: o for o in rows.roots if o.account == account}
            stops = sorted({task.first, task.last, *known})
            for number in stops:
                if number not in known:
                    known[number] = await self._read_at(number, account, manager, headers)
            for first, last in pairwise(stops):
                await self._bisect(first, last, known, account, manager, headers)
            kept = {o.block_number for o in rows.roots if o.account == account}
            rows.roots += [o for number, o in sorted(known.items()) if number not in kept]

    async def _bisect(
        self,
        first: int,
        last: int,
        known: dict[int, RootObservation],
        account: Address,
        manager: Address,
        headers: dict[int, BlockHeader],
    ) -> None:
        while last - first > 1 and known[first].root != known[last].root:
            middle = (first + last) // 2
            known[middle] = await self._read_at(middle, account, manager, headers)
            if known[middle].root == known[first].root:
                first = middle
            else:
                await self._bisect(middle, last, known, account, manager, headers)
                last = middle

    async def _read_at(
        self, number: int, account: Address, manager: Address, headers: dict[int, BlockHeader]
    ) -> RootObservation:
        if number not in headers:
            headers[number] = (await self._headers([number]))[0]
        look = Look(headers[number], frozenset({account}), frozenset())
        roots, _ = await observe(self.node, self.contracts.settings, [look], [manager])
        return roots[0]
