"""The wiring: one TaskGroup, signals that only set an event, a bounded stop, a true exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import uvloop

from indexer import metrics
from indexer.chain.head import fetch_head
from indexer.chain.rpc import Node
from indexer.chain.state import find_deployment_block, manager_kind, read_code
from indexer.config import Settings
from indexer.core.passes import all_passes, hex_of
from indexer.core.settings import ChainSettings
from indexer.core.types import Address
from indexer.core.verdict_values import Settings as VerdictSettings
from indexer.core.watchlist import WatchList
from indexer.errors import (
    EXIT_STOPPED,
    EXIT_STUCK,
    DatabaseUnavailableError,
    FatalError,
    FencedError,
    NodeAnswerError,
    NodeError,
    RetryableError,
    SessionwatchError,
    StaleStepError,
    StatePrunedError,
)
from indexer.follow import Follower
from indexer.history import Historian
from indexer.ingest import Contracts, keep_stepping
from indexer.log import get_logger
from indexer.store import chain_row, schema, sessions, sweep, verdicts
from indexer.store.pool import Database
from indexer.sweep import Sweeper
from indexer.telemetry import Telemetry
from indexer.web.health import ChainHealth, Health
from indexer.web.server import program_version, serve

log = get_logger()
T = TypeVar("T")

ABORT_SECONDS = 3.0
"""A stop that takes longer cuts the connections to the database."""
STOP_SECONDS = 8.0
"""A stop that takes longer ends the process with exit code 70; systemd allows more."""
GIVE_UP_SECONDS = 60.0
"""How long `run --once` waits for a node or a database that is away."""
LOCK_WAIT_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 60.0
"""How often a manager without code is looked at again."""
COUNT_SESSIONS_SECONDS = 30.0


def run(settings: Settings, *, once: bool) -> int:
    """Follow the configured chains until a signal; return the exit code.

    `once`: pay all debt up to the head seen at start, then return 0.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_supervised(settings, once=once))
        # The loop is about to give the signal back: a second one must not change the answer.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return code


async def _supervised(settings: Settings, *, once: bool) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health(time.monotonic())
    databases: list[Database] = []
    try:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(
                _serve_and_follow(settings, health, databases, once=once), name="work"
            )
            waiting = group.create_task(stop.wait(), name="stop")
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            health.stopping = True
            # Cancel anywhere is safe (a step is one transaction), but must not take for ever.
            loop.call_later(ABORT_SECONDS, _abort, databases)
            loop.call_later(STOP_SECONDS, _give_up_stopping)
            work.cancel()
            waiting.cancel()
    except* SessionwatchError as group_error:
        raise _first(group_error) from None
    log.info("daemon_stopped", signalled=stop.is_set())
    return EXIT_STOPPED


def _abort(databases: Sequence[Database]) -> None:
    for database in databases:
        database.abort()


def _give_up_stopping() -> None:
    log.error("stop_timed_out", limit_seconds=STOP_SECONDS)
    os._exit(EXIT_STUCK)


def _first(group: BaseExceptionGroup[SessionwatchError]) -> SessionwatchError:
    """Return the error to end with: a fatal one if there is any."""
    leaves: list[SessionwatchError] = []

    def collect(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                collect(inner)
        elif isinstance(error, SessionwatchError):
            leaves.append(error)

    collect(group)
    return next((e for e in leaves if isinstance(e, FatalError)), leaves[0])


async def _serve_and_follow(
    settings: Settings, health: Health, databases: list[Database], *, once: bool
) -> None:
    metrics.set_build_info(program_version())
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(database_url(settings))
        connections = 3 + 4 * len(settings.chains)
        database = await stack.enter_async_context(
            Database.open(url, schema_check=False, max_size=connections)
        )
        databases.append(database)
        async with asyncio.TaskGroup() as group:
            web = None
            if not once:
                # Before the database: /readyz has to say that it is away.
                web = group.create_task(_web(settings, health, database), name="web")
            try:
                await _wait_for(database.check_schema, "database", health, once=once)
                async with asyncio.TaskGroup() as chains:
                    for chain in settings.chains:
                        health.chains[chain.name] = ChainHealth()
                        lane = _Chain(chain, database, url, health, once)
                        chains.create_task(lane.run(), name=chain.name)
            finally:
                if web is not None:
                    web.cancel()


async def _web(settings: Settings, health: Health, database: Database) -> None:
    await serve(
        settings.http.host,
        settings.http.port,
        health=health,
        database=database,
        now=time.monotonic,
        on_listening=lambda port: log.info("http_listening", host=settings.http.host, port=port),
    )


@contextlib.asynccontextmanager
async def database_url(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL to connect to, with the embedded Postgres running where it is asked for."""
    if not settings.database.embedded:
        yield settings.database.url
        return
    from indexer.store.embedded import EmbeddedPostgres  # noqa: PLC0415 - an optional extra

    async with (
        EmbeddedPostgres(settings.database.data_dir) as server,
        asyncio.TaskGroup() as group,
    ):
        keeper = group.create_task(server.keep_running(), name="postgres")
        try:
            # Nobody else can have prepared this database.
            await schema.apply(server.url)
            yield server.url
        finally:
            keeper.cancel()


async def _wait_for(
    work: Callable[[], Awaitable[T]], what: str, health: Health, *, once: bool
) -> T:
    """Repeat until it works, saying so once; `once` gives up after GIVE_UP_SECONDS."""
    began, said = time.monotonic(), False
    while True:
        try:
            result = await work()
        except StatePrunedError:
            raise  # it does not come back by waiting
        except (DatabaseUnavailableError, NodeError) as error:
            if isinstance(error, DatabaseUnavailableError):
                health.database_lost = True
            if once and time.monotonic() - began > GIVE_UP_SECONDS:
                raise
            if not said:
                log.warning("wait_began", what=what, reason=str(error), remedy=error.remedy)
                said = True
            await asyncio.sleep(0.5)
        else:
            if what == "database":
                health.database_lost = False
            if said:
                log.info("wait_ended", what=what, after_seconds=round(time.monotonic() - began, 1))
            return result


@dataclass(slots=True)
class _Chain:
    """One chain: its three lanes, and what they tell metrics and health."""

    settings: ChainSettings
    database: Database
    url: str
    health: Health
    once: bool

    async def run(self) -> None:
        settings = self.settings
        async with Node(settings) as node:
            await _wait_for(node.verify_chain, "node", self.health, once=self.once)
            without_code, may_log = await self._look_at_managers(node)
            contracts = Contracts(settings, may_log)
            start_block = await self._start_block(node)
            async with contextlib.AsyncExitStack() as stack:

                async def lead() -> None:
                    await stack.enter_async_context(
                        chain_row.leadership(self.url, settings.chain_id, LOCK_WAIT_SECONDS)
                    )

                await self._with_database(lead)
                epoch = await self._take_over(start_block)
                await self._with_database(
                    lambda: sweep.queue_stored(self.database, settings.chain_id)
                )
                listener = Telemetry(settings, self.health, asyncio.Event())
                listener.verdicts_counted(
                    await self._with_database(
                        lambda: verdicts.count_open(self.database, settings.chain_id)
                    )
                )
                rules = VerdictSettings(grace_seconds=settings.grace_seconds)
                follower = Follower(
                    self.database, node, contracts, epoch, rules, listener, WatchList()
                )
                historian = Historian(self.database, node, contracts, epoch, listener)
                sweeper = Sweeper(
                    self.database, node, contracts, epoch, rules, listener, listener.wake
                )
                log.info(
                    "chain_taken_over",
                    chain=settings.name,
                    chain_id=settings.chain_id,
                    epoch=epoch,
                    start_block=start_block,
                )
                if self.once:
                    await _pay_once(node, follower, historian, sweeper, listener)
                    return
                async with asyncio.TaskGroup() as group:
                    group.create_task(follower.run(), name=f"{settings.name}/live")
                    group.create_task(historian.run(), name=f"{settings.name}/history")
                    group.create_task(sweeper.run(), name=f"{settings.name}/sweep")
                    group.create_task(self._look_again(node, without_code))
                    group.create_task(
                        self._count_sessions(listener), name=f"{settings.name}/sessions"
                    )

    async def _count_sessions(self, listener: Telemetry) -> None:
        """Keep the gauge of sessions; block time moves it, so it is counted, but not per scrape."""

        async def step() -> bool:
            listener.sessions_counted(
                await sessions.count_sessions(self.database, self.settings.chain_id)
            )
            return False

        async def rest() -> None:
            await asyncio.sleep(COUNT_SESSIONS_SECONDS)

        await keep_stepping("sessions", step, rest, listener)

    async def _with_database(self, work: Callable[[], Awaitable[T]]) -> T:
        return await _wait_for(work, "database", self.health, once=self.once)

    async def _take_over(self, start_block: int | None) -> int:
        settings = self.settings
        shown = {"erc1155_mode": settings.erc1155_mode, "grace_seconds": settings.grace_seconds}

        async def take_over() -> int:
            async with self.database.transaction() as connection:
                epoch = await chain_row.take_over(connection, settings, all_passes(settings), shown)
                if start_block is not None and settings.start_block is None:
                    await chain_row.set_start_block(connection, settings.chain_id, start_block)
                return epoch

        return await self._with_database(take_over)

    async def _look_at_managers(self, node: Node) -> tuple[set[Address], frozenset[Address]]:
        """Return the managers without code, and those that may log their changes; say which.

        What has no code yet may turn out to be a manager that logs, so its logs are asked for
        from the start; asking for those of one that never logs would cost nothing either.
        """
        without_code: set[Address] = set()
        may_log: set[Address] = set()
        for manager in self.settings.managers:
            code = await _wait_for(
                lambda manager=manager: read_code(node, manager),  # type: ignore[misc]
                "node",
                self.health,
                once=self.once,
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

        known = await self._with_database(stored)
        if known is not None:
            return known

        async def found() -> int | None:
            head = await fetch_head(node, settings.finality_depth)
            blocks = [
                await find_deployment_block(node, factory, head.latest.number)
                for factory in settings.factories
            ]
            deployed = [number for number in blocks if number is not None]
            return min(deployed) if deployed else None

        remedy = f"set chains.{settings.name}.start_block to a block before the first account"
        try:
            block = await _wait_for(found, "node", self.health, once=self.once)
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


async def _pay_once(
    node: Node,
    follower: Follower,
    historian: Historian,
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
                goal = (await fetch_head(node, settings.finality_depth)).latest.number
            busy = await follower.step()
            busy |= await historian.step()
            busy |= await sweeper.step()
        except StaleStepError:
            continue  # what was planned on has moved: plan again
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
