"""The wiring: one TaskGroup, signals that only set an event, a bounded stop, a true exit code."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence

import uvloop

from indexer import metrics
from indexer.config import Settings, take_supervision
from indexer.errors import (
    EXIT_STOPPED,
    EXIT_STUCK,
    RetryableError,
    SessionwatchError,
)
from indexer.lanes import ChainLanes, wait_for
from indexer.log import get_logger
from indexer.store import schema
from indexer.store.pool import Database
from indexer.supervisor import DATABASE, HTTP, Supervisor
from indexer.telemetry import Onlooker
from indexer.web.health import Health
from indexer.web.server import program_version, serve
from indexer.worker import first_of

log = get_logger()

ABORT_SECONDS = 3.0
"""A stop that takes longer cuts the connections to the database."""
STATUS_SECONDS = 1.0
STOP_SECONDS = 8.0
"""A stop that takes longer ends the process with exit code 70; systemd allows more."""


def run(settings: Settings, *, once: bool, onlooker: Onlooker | None = None) -> int:
    """Follow the configured chains until a signal; return the exit code.

    `once`: pay all debt up to the head seen at start, then return 0. `onlooker` is told how far
    the lanes are. The supervisor of this process is told how it is, but with `once`: that is an
    errand, not a service.
    """
    supervision = take_supervision()
    supervisor = Supervisor(
        "" if once else supervision.socket,
        supervision.watchdog_seconds,
        [chain.name for chain in settings.chains],
    )
    if supervision.watchdog_seconds is not None:
        # Its watchdog ends us with SIGABRT: the log then shows where the process hung.
        faulthandler.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_supervised(settings, supervisor, onlooker, once=once))
        # The loop is about to give the signal back: a second one must not change the answer.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return code


async def _supervised(
    settings: Settings, supervisor: Supervisor, onlooker: Onlooker | None, *, once: bool
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health(time.monotonic())
    databases: list[Database] = []

    def end_in_time() -> None:
        """Cancel anywhere is safe (a step is one transaction), but must not take for ever."""
        if not health.stopping:
            health.stopping = True
            supervisor.stopping()
            supervisor.show(health.line())
            loop.call_later(ABORT_SECONDS, _abort, databases)
            loop.call_later(STOP_SECONDS, _give_up_stopping)

    def on_end(task: asyncio.Task[None]) -> None:
        # One part that failed ends all others: those have to end in time, too.
        if not task.cancelled() and task.exception() is not None:
            end_in_time()

    try:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(
                _serve_and_follow(
                    settings, health, supervisor, databases, on_end, onlooker, once=once
                ),
                name="work",
            )
            waiting = group.create_task(stop.wait(), name="stop")
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            end_in_time()
            work.cancel()
            waiting.cancel()
    except* SessionwatchError as group_error:
        error = first_of(group_error)
        supervisor.show(f"ended: {error}")
        raise error from None
    log.info("daemon_stopped", signalled=stop.is_set())
    return EXIT_STOPPED


def _abort(databases: Sequence[Database]) -> None:
    for database in databases:
        database.abort()


def _give_up_stopping() -> None:
    log.error("stop_timed_out", limit_seconds=STOP_SECONDS)
    os._exit(EXIT_STUCK)


async def _serve_and_follow(
    settings: Settings,
    health: Health,
    supervisor: Supervisor,
    databases: list[Database],
    on_end: Callable[[asyncio.Task[None]], None],
    onlooker: Onlooker | None,
    *,
    once: bool,
) -> None:
    metrics.set_build_info(program_version())
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(database_url(settings))
        connections = 3 + 5 * len(settings.chains)
        database = await stack.enter_async_context(
            Database.open(
                url,
                schema_check=False,
                max_size=connections,
                on_statement=supervisor.statement_done,
            )
        )
        databases.append(database)
        async with asyncio.TaskGroup() as group:
            telling: list[asyncio.Task[None]] = []
            if not once:
                # Before the database: /readyz has to say that it is away.
                web = group.create_task(_web(settings, health, supervisor, database), name="web")
                web.add_done_callback(on_end)
                telling = [web, group.create_task(_show(supervisor, health), name="status")]
            try:
                await _follow(settings, health, supervisor, database, url, on_end, onlooker, once)
            finally:
                for task in telling:
                    task.cancel()


async def _follow(
    settings: Settings,
    health: Health,
    supervisor: Supervisor,
    database: Database,
    url: str,
    on_end: Callable[[asyncio.Task[None]], None],
    onlooker: Onlooker | None,
    once: bool,
) -> None:
    """Follow every chain. The schema is checked while nodes are asked for their chain's id."""
    schema_checked = asyncio.Event()

    def attempted(_error: RetryableError | None) -> None:
        supervisor.known(DATABASE)
        for name, chain in health.chains.items():
            if chain.waiting_for == "database":
                supervisor.moved(name)

    async with asyncio.TaskGroup() as chains:
        for chain in settings.chains:
            lanes = ChainLanes(
                chain, database, url, health, supervisor, schema_checked, once, onlooker
            )
            chains.create_task(lanes.run(), name=chain.name).add_done_callback(on_end)
        await wait_for(database.check_schema, "database", health, attempted, once=once)
        schema_checked.set()


async def _show(supervisor: Supervisor, health: Health) -> None:
    """Keep the supervisor's line for people up to date; nothing else depends on this clock."""
    while True:
        supervisor.show(health.line())
        await asyncio.sleep(STATUS_SECONDS)


async def _web(
    settings: Settings, health: Health, supervisor: Supervisor, database: Database
) -> None:
    def listening(port: int) -> None:
        log.info("http_listening", host=settings.http.host, port=port)
        supervisor.known(HTTP)

    await serve(
        settings.http.host,
        settings.http.port,
        hosts=settings.http.hosts,
        health=health,
        database=database,
        now=time.monotonic,
        on_listening=listening,
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
