"""One chain: what has to be known before it can be followed, and the lanes that follow it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from indexer import metrics
from indexer.auditing import Auditor
from indexer.chain.head import fetch_head
from indexer.chain.rpc import Node
from indexer.chain.state import find_deployment_block, manager_kind, read_code
from indexer.core.passes import all_passes, hex_of
from indexer.core.settings import ChainSettings
from indexer.core.types import Address
from indexer.core.verdict_values import Settings as VerdictSettings
from indexer.core.watchlist import WatchList
from indexer.counting import keep_counted
from indexer.errors import (
    DatabaseUnavailableError,
    FatalError,
    FencedError,
    NodeAnswerError,
    NodeError,
    RetryableError,
    StaleStepError,
    StatePrunedError,
)
from indexer.filters import Contracts
from indexer.follow import Follower
from indexer.history import Historian, rest
from indexer.ingest import keep_stepping
from indexer.log import get_logger
from indexer.retention import Retention
from indexer.settling import Settler
from indexer.store import chain_row, sweep, verdicts
from indexer.store.pool import Database
from indexer.supervisor import Supervisor, attended
from indexer.sweep import Sweeper
from indexer.telemetry import Attempts, Onlooker, Telemetry, database_failed, database_reached
from indexer.web.health import ChainHealth, Health
from indexer.worker import HistoryWorker

log = get_logger()
T = TypeVar("T")

GIVE_UP_SECONDS = 60.0
"""How long `run --once` waits for a node or a database that is away."""
LOCK_WAIT_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 60.0
"""How often a manager without code is looked at again."""
RETENTION_SECONDS = 3600.0
WORKER_DEBT_BLOCKS = 5_000
"""More debt than this, over all passes, is paid in a process of its own."""


async def wait_for(
    work: Callable[[], Awaitable[T]],
    what: Literal["node", "database"],
    health: Health,
    attempted: Callable[[RetryableError | None], None],
    *,
    once: bool,
) -> T:
    """Repeat until it works, saying so once; `once` gives up after GIVE_UP_SECONDS.

    `attempted` is called after each attempt with what it failed of, the last time with None.
    """
    began, said = time.monotonic(), False
    while True:
        try:
            result = await work()
        except StatePrunedError:
            raise  # it does not come back by waiting
        except (DatabaseUnavailableError, NodeError) as error:
            if isinstance(error, DatabaseUnavailableError):
                database_failed(health)
            attempted(error)
            if once and time.monotonic() - began > GIVE_UP_SECONDS:
                raise
            if not said:
                log.warning("wait_began", what=what, reason=str(error), remedy=error.remedy)
                said = True
            await asyncio.sleep(0.5)
        else:
            if what == "database":
                database_reached(health)
            attempted(None)
            if said:
                log.info("wait_ended", what=what, after_seconds=round(time.monotonic() - began, 1))
            return result


@dataclass(slots=True)
class ChainLanes:
    """One chain: its three lanes, and what they tell metrics and health."""

    settings: ChainSettings
    database: Database
    url: str
    health: Health
    supervisor: Supervisor
    schema_checked: asyncio.Event
    once: bool
    onlooker: Onlooker | None = None
    attempts: Attempts = field(init=False)

    def __post_init__(self) -> None:
        name = self.settings.name
        self.health.chains[name] = ChainHealth()
        self.attempts = Attempts(name, self.health, self.supervisor)
        metrics.show_chain(name)

    async def run(self) -> None:
        """Take the chain over and follow it; with `once`, until what can be paid is paid."""
        settings = self.settings
        async with (
            Node(settings, on_request=self.supervisor.request_done) as node,
            contextlib.AsyncExitStack() as stack,
        ):
            with attended(settings.name):
                without_code, contracts, start_block = await self._look_at_chain(node)

                async def lead() -> None:
                    await stack.enter_async_context(
                        chain_row.leadership(self.url, settings.chain_id, LOCK_WAIT_SECONDS)
                    )

                await self._wait_for("database", lead)
                epoch = await self._take_over(start_block)
                await self._wait_for(
                    "database", lambda: sweep.queue_stored(self.database, settings.chain_id)
                )
                listener = Telemetry(
                    settings, self.health, asyncio.Event(), self.attempts, self.onlooker
                )
                listener.verdicts_counted(
                    await self._wait_for(
                        "database", lambda: verdicts.count_open(self.database, settings.chain_id)
                    )
                )
            rules = VerdictSettings(grace_seconds=settings.grace_seconds)
            follower = Follower(self.database, node, contracts, epoch, rules, listener, WatchList())
            historian = Historian(self.database, node, contracts, epoch, listener)
            sweeper = Sweeper(self.database, node, contracts, epoch, rules, listener, listener.wake)
            settler = Settler(self.database, node, settings, epoch, listener)
            retention = Retention(self.database, settings, epoch, listener, RETENTION_SECONDS)
            log.info(
                "chain_taken_over",
                chain=settings.name,
                chain_id=settings.chain_id,
                epoch=epoch,
                start_block=start_block,
            )
            if self.once:
                await _pay_once(node, follower, historian, settler, sweeper, listener)
                await retention.run_once()
                return
            async with asyncio.TaskGroup() as group:
                group.create_task(follower.run(), name=f"{settings.name}/live")
                history = HistoryLane(
                    historian,
                    HistoryWorker(settings, self.url, epoch, contracts.event_managers, listener),
                    listener,
                )
                group.create_task(history.run(), name=f"{settings.name}/history")
                group.create_task(sweeper.run(), name=f"{settings.name}/sweep")
                auditor = Auditor(self.database, node, contracts, epoch, listener)
                group.create_task(auditor.run(), name=f"{settings.name}/audit")
                group.create_task(self._look_again(node, without_code))
                group.create_task(settler.run(), name=f"{settings.name}/traces")
                group.create_task(retention.run(), name=f"{settings.name}/retention")
                counting = keep_counted(self.database, settings.chain_id, listener)
                group.create_task(counting, name=f"{settings.name}/sessions")

    async def _look_at_chain(self, node: Node) -> tuple[set[Address], Contracts, int | None]:
        """Return what the node says before anything is written; wait for the schema's check.

        In this order: a start that finds another chain has to end, whether or not the database
        is there.
        """
        await self._wait_for("node", node.verify_chain)
        if not self.schema_checked.is_set():
            self.health.chains[self.settings.name].waiting_for = "database"
            await self.schema_checked.wait()
        without_code, may_log = await self._look_at_managers(node)
        contracts = Contracts(self.settings, may_log)
        return without_code, contracts, await self._start_block(node)

    async def _wait_for(
        self, what: Literal["node", "database"], work: Callable[[], Awaitable[T]]
    ) -> T:
        def attempted(error: RetryableError | None) -> None:
            if error is None:
                self.attempts.succeeded(what)
            else:
                self.attempts.failed(error)
            # The first to be asked is the node for its chain's id: that is right now, or away.
            self.supervisor.known(self.settings.name)

        return await wait_for(work, what, self.health, attempted, once=self.once)

    async def _take_over(self, start_block: int | None) -> int:
        settings = self.settings
        shown = {
            "erc1155_mode": settings.erc1155_mode,
            "grace_seconds": settings.grace_seconds,
            "end_block": settings.end_block,
        }

        async def take_over() -> int:
            async with self.database.transaction() as connection:
                epoch = await chain_row.take_over(connection, settings, all_passes(settings), shown)
                if start_block is not None and settings.start_block is None:
                    await chain_row.set_start_block(connection, settings.chain_id, start_block)
                return epoch

        return await self._wait_for("database", take_over)

    async def _look_at_managers(self, node: Node) -> tuple[set[Address], frozenset[Address]]:
        """Return the managers without code, and those that may log their changes; say which.

        What has no code yet may turn out to be a manager that logs, so its logs are asked for
        from the start; asking for those of one that never logs would cost nothing either.
        """
        without_code: set[Address] = set()
        may_log: set[Address] = set()
        for manager in self.settings.managers:
            code = await self._wait_for(
                "node",
                lambda manager=manager: read_code(node, manager),  # type: ignore[misc]
            )
            kind = manager_kind(code)
            if kind != "v1":
                may_log.add(manager)
            if kind == "none":
                without_code.add(manager)
            if kind in {"none", "unknown"}:
                log.warning(
                    "manager_without_code" if kind == "none" else "manager_unknown",
                    chain=self.settings.name,
                    manager=hex_of(manager),
                    remedy="check the address and the chain; the other managers are followed",
                )
        return without_code, frozenset(may_log)

    async def _look_again(self, node: Node, without_code: set[Address]) -> None:
        """Say when a manager that had no code has some; ends when all have."""
        while without_code:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            for manager in sorted(without_code):
                try:
                    kind = manager_kind(await read_code(node, manager))
                except NodeError:
                    continue  # the live lane says what is wrong with the node
                if kind != "none":
                    without_code.discard(manager)
                    log.info(
                        "manager_found",
                        chain=self.settings.name,
                        manager=hex_of(manager),
                        kind=kind,
                    )

    async def _start_block(self, node: Node) -> int | None:
        """Return where history begins: as configured, as stored, or found on the chain."""
        settings = self.settings
        if settings.start_block is not None:
            return settings.start_block

        async def stored() -> int | None:
            async with self.database.connection() as connection:
                row = await chain_row.read_chain(connection, settings.chain_id)
                return row.start_block if row is not None else None

        known = await self._wait_for("database", stored)
        if known is not None:
            return known

        async def found() -> int | None:
            head = await fetch_head(node, settings.finality_depth, settings.end_block)
            blocks = [
                await find_deployment_block(node, factory, head.latest.number)
                for factory in settings.factories
            ]
            deployed = [number for number in blocks if number is not None]
            return min(deployed) if deployed else None

        remedy = f"set chains.{settings.name}.start_block to a block before the first account"
        try:
            block = await self._wait_for("node", found)
        except StatePrunedError as error:
            raise FatalError(
                f"the node has no archive state, so the first block of interest on "
                f"{settings.name} cannot be found",
                remedy=remedy,
            ) from error
        if block is None:
            raise FatalError(
                f"no account factory has code on {settings.name}, so it is not known where "
                "history begins",
                remedy=remedy,
            )
        return block


@dataclass(slots=True)
class HistoryLane:
    """Pays little debt in this process, much in one of its own that ends when it is paid."""

    historian: Historian
    worker: HistoryWorker
    listener: Telemetry

    async def run(self) -> None:
        """Pay debt for ever; only cancellation, fencing and fatal errors end it."""
        await keep_stepping("history", self.step, rest, self.listener)

    async def step(self) -> bool:
        """Pay what is owed now; return whether there was any."""
        if await self.historian.payable_blocks() <= WORKER_DEBT_BLOCKS:
            return await self.historian.step()
        await self.worker.run()
        return True


async def _pay_once(
    node: Node,
    follower: Follower,
    historian: Historian,
    settler: Settler,
    sweeper: Sweeper,
    listener: Telemetry,
) -> None:
    """Follow to the head seen now, pay what can be paid, decide what is queued.

    Gives up when nothing has moved for GIVE_UP_SECONDS: with the error that keeps returning, or
    because the node stays below the head it showed, or contradicts what is final.
    """
    settings = follower.contracts.settings
    goal: int | None = None
    last_progress = time.monotonic()
    while True:
        given_up = time.monotonic() - last_progress > GIVE_UP_SECONDS
        try:
            if goal is None:
                head = await fetch_head(node, settings.finality_depth, settings.end_block)
                goal = head.latest.number
            busy = await follower.step()
            busy |= await historian.step()
            busy |= await settler.step()
            busy |= await sweeper.step()
        except StaleStepError:
            if given_up:
                raise
            # What was planned on has moved: plan again, but not as fast as the node can answer.
            await asyncio.sleep(0.05)
            continue
        except FencedError:
            raise
        except RetryableError as error:
            listener.retrying("once", error)
            if given_up:
                raise
            await asyncio.sleep(0.5)
            continue
        listener.recovered("once")
        if busy:
            last_progress = time.monotonic()
            continue
        if listener.indexed_number >= goal:
            log.info("debt_paid", chain=settings.name, indexed_block=listener.indexed_number)
            return
        if given_up:
            if listener.violation is not None:
                raise listener.violation
            raise NodeAnswerError(
                f"{settings.name}: the node does not show block {goal} any more, which it did",
                remedy="try again; if it stays, use another endpoint for this chain",
            )
        await asyncio.sleep(settings.poll_seconds)
