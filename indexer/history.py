"""The history lane: ranges at or below finality, several in flight, until nothing is owed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from indexer.chain.logs import RangeSize
from indexer.chain.rpc import Node, metered
from indexer.core.debt import (
    Ledger,
    Task,
    Wanted,
    blocks_in,
    lost_tasks,
    missing_blocks,
    next_logs,
    next_state,
    unreadable_blocks,
    without,
)
from indexer.core.passes import BY_ACCOUNT
from indexer.errors import RangeTooLargeError, RetryableError
from indexer.filters import Contracts
from indexer.history_logs import fetch_logs_of
from indexer.history_state import fetch_bodies_of, fetch_roots_of
from indexer.ingest import HistoryListener, keep_stepping, say_owed_again
from indexer.log import get_logger
from indexer.store import history as store
from indexer.store import watched
from indexer.store.history import Pace, Payment, manager_of
from indexer.store.pool import Database
from indexer.store.triggers import cut_range

log = get_logger()

IDLE_SECONDS = 0.5
LOGS_IN_FLIGHT = 3
STATE_IN_FLIGHT = 2
MAX_TRIGGERS = 2_000
"""Of one range whose inputs or roots are read: what is in memory at once is bounded."""
MAX_RANGE_BLOCKS = 200_000
ROUND_RANGES = 200
"""After so many an end is put to a round: what went wrong long ago is then forgotten."""
# State that was pruned may come back with another node: asked again after this long.
LOST_RETRY_SECONDS = 300.0


async def rest() -> None:
    """Wait before looking for debt again."""
    await asyncio.sleep(IDLE_SECONDS)


@dataclass(slots=True)
class Historian:
    """The history lane of one chain.

    Several ranges are fetched at once, one is written: fetching waits for the node, and writers
    beside each other would wait for each other's balances. Logs and the state behind them have
    places of their own, so that neither holds the other up.
    """

    database: Database
    node: Node
    contracts: Contracts
    epoch: int
    listener: HistoryListener
    sizes: dict[str, RangeSize] = field(
        default_factory=lambda: {
            **{name: RangeSize() for name in ("factory", "logs", "cohort")},
            **{name: RangeSize(MAX_RANGE_BLOCKS, MAX_RANGE_BLOCKS) for name in ("bodies", "roots")},
        }
    )
    wanted: Wanted = field(init=False)
    _busy: list[Task] = field(default_factory=list)
    _begun: set[tuple[int, str, str]] = field(default_factory=set)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _failures: list[RetryableError] = field(default_factory=list)
    _ask_lost_at: float = 0.0
    _probes: int = 0
    _probe: Task | None = None
    """The range that was lost before and is asked for again: it decides about the others."""
    _paid_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wanted = Wanted.of(self.contracts.settings)

    async def run_until_paid(self) -> None:
        """Pay until nothing can be begun; only cancellation, fencing and fatal errors end it."""
        await keep_stepping("history", self.step, rest, self.listener, until_idle=True)

    async def step(self) -> bool:
        """Pay ranges until none can be begun, or many are paid; return whether there was one.

        A range that fails ends the round: no other is begun, those in flight are finished, and
        the first failure is raised.
        """
        count = 0
        self._failures.clear()
        async with asyncio.TaskGroup() as group:
            while True:
                if not self._failures and count < ROUND_RANGES:
                    try:
                        claimed = await self._claim()
                    except RetryableError as error:
                        self._failures.append(error)
                        continue
                    for task in claimed:
                        count += 1
                        group.create_task(self._keep(task), name=f"{task.kind} {task.span}")
                if not self._busy:
                    break
                await self._ended.wait()
                self._ended.clear()
        if self._failures:
            raise self._failures[0]
        if not count:
            await self._tidy()
        return count > 0

    async def payable_blocks(self) -> int:
        """Return how many blocks are owed over all passes, without those that are lost."""
        ledger = await store.read_ledger(self.database, self.contracts.settings.chain_id)
        if ledger is None:
            return 0
        return sum(
            blocks_in(without(spans, ledger.lost.get((pass_, cohort), ())))
            for pass_, cohort, spans in ledger.debts(self.wanted)
        )

    async def _claim(self) -> list[Task]:
        """Take as many ranges as there are places; they are in flight from here on."""
        settings = self.contracts.settings
        # Before the ledger is read: what ends meanwhile is in neither, and would be paid twice.
        busy = list(self._busy)
        ledger = await store.read_ledger(self.database, settings.chain_id)
        if ledger is None:
            return []
        self.listener.debt_known(
            missing_blocks(ledger, self.wanted), unreadable_blocks(ledger, self.wanted)
        )
        claimed: list[Task] = []
        while self._places(LOGS_IN_FLIGHT, claimed, "factory", "logs"):
            task = next_logs(ledger, self.wanted, [*busy, *claimed], MAX_RANGE_BLOCKS)
            if task is None:
                break
            task = self._cut(task)
            await self._begin(task)
            claimed.append(task)
        while self._places(STATE_IN_FLIGHT, claimed, "bodies", "roots"):
            task, was_lost = self._next_state(ledger, [*busy, *claimed])
            if task is None:
                break
            task = self._cut(task)
            last = await cut_range(self.database, settings.chain_id, task, MAX_TRIGGERS)
            task = replace(task, last=last)
            if was_lost:
                self._probe = task
            claimed.append(task)
        self._busy += claimed
        return claimed

    def _places(self, most: int, claimed: Sequence[Task], *kinds: str) -> bool:
        return sum(task.kind in kinds for task in [*self._busy, *claimed]) < most

    def _cut(self, task: Task) -> Task:
        """Return the task with no more blocks than its logs are asked of at once."""
        return replace(task, last=min(task.last, task.first + self._size_of(task).blocks - 1))

    def _next_state(self, ledger: Ledger, busy: Sequence[Task]) -> tuple[Task | None, bool]:
        """Return the next range of bodies or roots, and whether it was lost before."""
        task = next_state(ledger, self.wanted, busy, MAX_RANGE_BLOCKS)
        was_lost = False
        asks_again = self._probe not in busy and (
            asyncio.get_running_loop().time() >= self._ask_lost_at
        )
        if task is None and asks_again:
            # One at a time: while one is still lost so are the others.
            lost = lost_tasks(ledger, self.wanted, busy, MAX_RANGE_BLOCKS)
            # Each time another's turn: one that stays lost must not hide one that is there again.
            task = lost[self._probes % len(lost)] if lost else None
            self._probes += 1
            was_lost = task is not None
        if (
            task is not None
            and task.kind == "roots"
            and not self.contracts.event_managers.isdisjoint(map(manager_of, task.passes))
        ):
            # Its events are asked for by range, as logs are.
            blocks = self.sizes["cohort" if task.cohort else "logs"].blocks
            task = replace(task, last=min(task.last, task.first + blocks - 1))
        return task, was_lost

    async def _begin(self, task: Task) -> None:
        """Close the cohort: who is learnt from now on must not rely on this range."""
        passes = [(p.name, p.filter) for p in task.passes if p.filter in BY_ACCOUNT]
        new = [p for p in passes if (task.cohort, *p) not in self._begun]
        if new:
            chain_id = self.contracts.settings.chain_id
            await watched.begin(self.database, chain_id, self.epoch, task.cohort, new)
            self._begun |= {(task.cohort, *p) for p in new}

    async def _keep(self, task: Task) -> None:
        try:
            await self.pay(task)
        except RangeTooLargeError as error:
            if task.first == task.last:
                self._failures.append(error)
            else:
                size = self._size_of(task)
                size.blocks = min(size.blocks, task.last - task.first + 1)
                size.narrow(error)
        except RetryableError as error:
            self._failures.append(error)
        else:
            self.listener.recovered("history")
        finally:
            self._busy.remove(task)
            self._ended.set()

    def _size_of(self, task: Task) -> RangeSize:
        """Return the size for such ranges: what few accounts log says nothing of a whole chain."""
        if task.kind == "logs" and task.cohort:
            return self.sizes["cohort"]
        return self.sizes[task.kind]

    async def _fetch(self, task: Task) -> Payment:
        source = (self.database, self.node, self.contracts, task)
        match task.kind:
            case "factory" | "logs":
                payment, logs = await fetch_logs_of(*source)
                self._size_of(task).grow(task.last - task.first + 1, logs)
                return payment
            case "bodies":
                payment = await fetch_bodies_of(*source)
            case "roots":
                payment = await fetch_roots_of(*source, self._write)
            case _:
                assert_never(task.kind)
        self._size_of(task).grow(task.last - task.first + 1)
        return payment

    async def pay(self, task: Task) -> None:
        """Fetch one range and write it in one transaction."""
        settings = self.contracts.settings
        began = asyncio.get_running_loop().time()
        with metered() as meter:
            payment = await self._fetch(task)
        kind = task.passes[0].name.partition("/")[0]
        # Since the one before was paid, where several are in flight: together they have a pace.
        now = asyncio.get_running_loop().time()
        payment.pace = Pace(now - max(began, self._paid_at.get(kind, began)), meter.requests)
        await self._write(payment)
        self._paid_at[kind] = asyncio.get_running_loop().time()
        self._say(payment)
        if payment.lost:
            self._ask_lost_at = self._paid_at[kind] + LOST_RETRY_SECONDS
        log.info(
            "range_committed",
            chain=settings.name,
            kind=task.kind,
            passes=[f"{p.name} {p.filter}" for p in task.passes],
            cohort=task.cohort,
            first_block=task.first,
            last_block=task.last,
        )

    async def _write(self, payment: Payment) -> None:
        async with self._writing:
            late = await store.apply_range(
                self.database, self.contracts.settings.chain_id, self.epoch, payment
            )
        self.listener.rows_committed(payment.rows.counts())
        say_owed_again(self.contracts.settings.name, late)

    def _say(self, payment: Payment) -> None:
        if payment.lost:
            log.warning(
                "state_pruned",
                chain=self.contracts.settings.name,
                managers=["0x" + manager_of(pass_).hex() for pass_ in payment.task.passes],
                first_block=payment.lost[0][0],
                last_block=payment.lost[-1][1],
                stretches=len(payment.lost),
                remedy="add an endpoint with archive state to see these roots",
            )

    async def _tidy(self) -> None:
        """With nothing in flight: let paid cohorts be like all others."""
        chain_id = self.contracts.settings.chain_id
        ledger = await store.read_ledger(self.database, chain_id)
        if ledger is None or not ledger.cohorts:
            return
        async with self.database.transaction() as connection:
            await watched.dissolve_cohorts(connection, chain_id, self.epoch)
