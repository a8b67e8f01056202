"""What feeds the watchdog of the real daemon, and what starves it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from indexer.devnet import addresses as at
from indexer.devnet.rpc import hexed
from indexer.store import schema
from indexer.store.chain_row import Connection
from indexer.store.embedded import EmbeddedPostgres
from tests.daemon_process import Daemon, configuration, running_daemon, second_chain, until
from tests.sim.node import SimNode
from tests.systemd import systemd
from tests.test_worker import arguments_and_environment, metric

WATCHDOG_SECONDS = 3.0
# As the interval is shorter here than in life, so is the longest pause after a failure.
SHORT_PAUSES = "MAX_BACKOFF_SECONDS=0.5"
BLOCKABLE = "STOP_SECONDS=8"
"""Any tweak has SIGUSR1 block the daemon's loop."""


async def is_at(connection: Connection, block: int) -> bool:
    query = "SELECT indexed_block FROM watch.progress WHERE chain_id = 80001"
    return bool(await connection.fetchval(query) == block)


# --- the watchdog is fed --------------------------------------------------------------------------


async def test_it_is_fed_while_the_head_does_not_change(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """A quiet chain is followed all the same; pings come no more often than needed."""
    began = time.time()
    async with SimNode() as node, systemd(tmp_path, WATCHDOG_SECONDS) as manager:
        node.mine(20)
        config = configuration(database_url, node.url)
        async with running_daemon(tmp_path, config, variables=manager.variables) as daemon:
            await manager.shows("local: block 20")
            before, steps = manager.pings, len(node.requests)
            await manager.is_fed(daemon)
            # Dozens of steps have found the head unchanged: four pings an interval are enough.
            assert manager.pings - before <= 1.5 * 4 + 1 < len(node.requests) - steps
            _, text = await daemon.get("/metrics")
            assert metric(text, "latest_block_timestamp_seconds") == node.tip.header.timestamp
            moved = metric(text, "last_progress_timestamp_seconds")
            assert began <= moved <= time.time()
            assert "sessionwatch_ready 1.0" in text
            for lane in ("live", "history", "sweep", "sessions"):
                assert f'step_began_timestamp_seconds{{chain="local",lane="{lane}"}}' in text
            assert await daemon.stop() == 0


@pytest.mark.parametrize("where", ["worker", "same process"])
async def test_it_is_fed_while_a_long_past_is_paid(
    where: str, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Whoever pays it: thousands of ranges of one block, each a commit beside the live lane's."""
    async with SimNode(finality_depth=8) as node, systemd(tmp_path, WATCHDOG_SECONDS) as manager:
        node.mine(4000)
        node.max_range_blocks = 1
        config = configuration(database_url, node.url, finality=8)
        tweak = f"WORKER_DEBT_BLOCKS={0 if where == 'worker' else 1_000_000}"
        async with running_daemon(
            tmp_path, config, tweak=tweak, variables=manager.variables
        ) as daemon:
            await manager.shows("local: block 4000")
            await daemon.logs("range_committed")
            before = len(daemon.events("range_committed"))
            await manager.is_fed(daemon)
            assert len(daemon.events("range_committed")) > before
            workers = daemon.events("history_worker_started")
            assert bool(workers) == (where == "worker")
            for one in workers:
                # A child must not answer for the daemon.
                assert "NOTIFY_SOCKET" not in arguments_and_environment(one["pid"])
            missing = "SELECT sum(missing_blocks) FROM watch.coverage"
            assert await connection.fetchval(missing) > 0
            assert await daemon.stop() == 0


async def test_it_is_fed_after_the_end_of_a_chain(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Finished, and the archive switched off: verdicts go on, and so does the daemon."""
    async with SimNode() as node, systemd(tmp_path, WATCHDOG_SECONDS) as manager:
        node.mine(40)
        config = configuration(database_url, node.url, managers=[hexed(at.MANAGER)], end_block=30)
        async with running_daemon(tmp_path, config, variables=manager.variables) as daemon:
            await manager.shows("local: block 30, finished, 0 drifted")
            await node.stop()
            await manager.is_fed(daemon)
            _, text = await daemon.get("/metrics")
            assert 'sessionwatch_chain_finished{chain="local"} 1.0' in text
            assert await daemon.stop() == 0


async def test_it_is_fed_while_a_node_is_away(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """From the start on and in mid-run: to start again would mend no node."""
    node = SimNode()
    await node.start()
    node.mine(20)
    await node.stop()
    async with systemd(tmp_path, WATCHDOG_SECONDS) as manager:
        config = configuration(database_url, node.url)
        async with running_daemon(
            tmp_path, config, tweak=SHORT_PAUSES, variables=manager.variables
        ) as daemon:
            await manager.hears("READY=1")
            await manager.is_fed(daemon, 0.5)
            assert 'sessionwatch_node_up{chain="local"} 0.0' in (await daemon.get("/metrics"))[1]
            await node.start()
            await manager.shows("local: block 20, 0 s behind")
            assert 'sessionwatch_node_up{chain="local"} 1.0' in (await daemon.get("/metrics"))[1]
            await node.stop()
            await manager.shows("local: block 20, waiting for the node")
            await manager.is_fed(daemon)
            assert 'sessionwatch_node_up{chain="local"} 0.0' in (await daemon.get("/metrics"))[1]
            assert await daemon.stop() == 0


@pytest.mark.timeout(120)
async def test_it_is_fed_while_the_database_is_away(tmp_path: Path) -> None:
    """From the start on and in mid-run; the metrics say what is missing."""
    server = EmbeddedPostgres(tmp_path / "pg", fsync=False)
    url = await server.start()
    try:
        await schema.apply(url)
        await server.stop()
        async with SimNode() as node, systemd(tmp_path, WATCHDOG_SECONDS) as manager:
            node.mine(20)
            config = configuration(url, node.url)
            async with running_daemon(
                tmp_path, config, tweak=SHORT_PAUSES, variables=manager.variables
            ) as daemon:
                await manager.hears("READY=1")
                await manager.is_fed(daemon, 0.5)
                assert await server.start() == url
                await manager.shows("local: block 20, 0 s behind")
                assert "sessionwatch_database_up 1.0" in (await daemon.get("/metrics"))[1]
                await server.stop()
                await manager.shows("local: block 20, waiting for the database")
                await manager.is_fed(daemon)
                _, text = await daemon.get("/metrics")
                assert "sessionwatch_database_up 0.0" in text
                assert "sessionwatch_ready 0.0" in text
                (errors,) = re.findall(
                    r"^sessionwatch_database_errors_total (\S+)", text, re.MULTILINE
                )
                assert float(errors) > 2
                assert await daemon.stop() == 0
    finally:
        await server.stop()


async def test_it_is_fed_while_somebody_holds_a_lock(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """A transaction forgotten in psql is no fault of the daemon's: it is said, and waited for."""
    async with SimNode() as node, systemd(tmp_path, WATCHDOG_SECONDS) as manager:
        node.mine(20)
        config = configuration(database_url, node.url)
        tweak = f"LOCK_TIMEOUT_SECONDS=1 {SHORT_PAUSES}"
        async with running_daemon(
            tmp_path, config, tweak=tweak, variables=manager.variables
        ) as daemon:
            await manager.shows("local: block 20")
            async with connection.transaction():
                await connection.execute("SELECT FROM chain.chain FOR UPDATE")
                await manager.shows("local: block 20, waiting for the database")
                said = next(e for e in daemon.events("step_retried") if e["lane"] == "live")
                assert "a lock in the database was held by somebody" in said["reason"]
                await manager.is_fed(daemon)
            await manager.shows("local: block 20, 0 s behind")
            assert await daemon.stop() == 0


async def test_it_is_fed_while_a_step_is_slow_in_the_database(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """One transaction may last longer than the interval, as long as its statements end."""
    async with SimNode() as node, systemd(tmp_path, WATCHDOG_SECONDS) as manager:
        node.mine(20)
        config = configuration(database_url, node.url)
        async with running_daemon(tmp_path, config, variables=manager.variables) as daemon:
            await manager.shows("local: block 20, 0 s behind")
            await connection.execute(
                f"""
                CREATE FUNCTION chain.sleep_long() RETURNS trigger LANGUAGE plpgsql AS
                    'BEGIN PERFORM pg_sleep({0.7 * WATCHDOG_SECONDS}); RETURN NEW; END';
                CREATE TRIGGER sleep BEFORE INSERT ON chain.tail
                    FOR EACH STATEMENT EXECUTE FUNCTION chain.sleep_long();
                CREATE TRIGGER sleep BEFORE UPDATE ON chain.chain FOR EACH ROW
                    WHEN (NEW.indexed_number > OLD.indexed_number)
                    EXECUTE FUNCTION chain.sleep_long();
                """
            )
            node.mine(5)
            await manager.shows("local: block 25, 0 s behind")
            assert not manager.starved
            assert await daemon.stop() == 0


# --- the watchdog starves -------------------------------------------------------------------------


@asynccontextmanager
async def blocked_loop(daemon: Daemon, _connection: Connection) -> AsyncIterator[None]:
    daemon.process.send_signal(signal.SIGUSR1)
    yield


@asynccontextmanager
async def frozen_database(_daemon: Daemon, connection: Connection) -> AsyncIterator[None]:
    """Let every query of the daemon wait for ever; its loop goes on."""
    rows = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'sessionwatch'"
    )
    for row in rows:
        os.kill(row["pid"], signal.SIGSTOP)
    try:
        yield
    finally:
        for row in rows:
            os.kill(row["pid"], signal.SIGCONT)


@asynccontextmanager
async def endless_step(_daemon: Daemon, connection: Connection) -> AsyncIterator[None]:
    """Let each live transaction of the second chain wait for ever; the first goes on."""
    await connection.execute(
        """
        CREATE FUNCTION chain.sleep_for_ever() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(3600); RETURN NEW; END';
        CREATE TRIGGER sleep BEFORE UPDATE ON chain.chain
            FOR EACH ROW WHEN (NEW.chain_id = 80002) EXECUTE FUNCTION chain.sleep_for_ever();
        """
    )
    yield


HANGS = {
    "the loop is blocked": blocked_loop,
    "the database answers nothing": frozen_database,
    "one chain of two hangs in a step": endless_step,
}


@pytest.mark.parametrize("hang", HANGS)
async def test_it_starves_when_something_hangs(
    hang: str, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Fed until then, and an interval later no more."""
    began = time.time()
    async with (
        SimNode() as node,
        SimNode(chain_id=80002) as other,
        systemd(tmp_path, WATCHDOG_SECONDS) as manager,
    ):
        node.mine(20)
        other.mine(9)
        config = second_chain(configuration(database_url, node.url), other.url)
        async with running_daemon(
            tmp_path, config, tweak=BLOCKABLE, variables=manager.variables
        ) as daemon:
            await manager.shows("local: block 20, 0 s behind", "other: block 9, 0 s behind")
            await manager.is_fed(daemon, 0.5)
            async with HANGS[hang](daemon, connection):
                await manager.starves()
                if hang.startswith("one chain"):
                    node.mine(5)
                    await until(lambda: is_at(connection, 25), "the other chain to go on")
                    _, text = await daemon.get("/metrics")
                    hangs = re.search(r'step_began_\w+{chain="other",lane="live"} (\S+)', text)
                    assert hangs is not None
                    assert float(hangs[1]) >= began
                # What systemd does then; the log says where it hung.
                assert await daemon.stop(signal.SIGABRT) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in daemon.log()
    assert ("in <lambda>" in daemon.log()) == hang.startswith("the loop")
