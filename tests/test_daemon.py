"""How the real daemon starts, waits and ends: exit codes, clear words, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from indexer.devnet import addresses as at
from indexer.devnet.rpc import hexed
from indexer.store import schema
from indexer.store.chain_row import Connection
from indexer.store.embedded import EmbeddedPostgres
from tests.daemon_process import Daemon, configuration, indexed_block, running_daemon, until
from tests.fixtures_database import connected
from tests.sim.faults import Hold
from tests.sim.node import SimNode

NOBODY = "http://127.0.0.1:9"
NO_DATABASE = "postgresql://nobody@127.0.0.1:9/nothing"


async def is_at(connection: Connection, block: int) -> bool:
    return await indexed_block(connection) == block


def takes_sigterm(daemon: Daemon) -> bool:
    """Say whether the process has a handler for SIGTERM (Linux)."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def last_words(daemon: Daemon, name: str) -> str:
    """Return what it said on its way down: `error` or `remedy`."""
    assert "Traceback" not in daemon.log()
    lines = daemon.log().splitlines()
    (said,) = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]
    return said


# --- stopping -----------------------------------------------------------------------------------


async def just_begun(daemon: Daemon, node: SimNode) -> None:
    async def listens() -> bool:
        return takes_sigterm(daemon)

    await until(listens, "a handler for SIGTERM")


async def node_hangs_at_start(daemon: Daemon, node: SimNode) -> None:
    await until(lambda: asked(node, "eth_chainId"), "the first question")


async def node_hangs_in_history(daemon: Daemon, node: SimNode) -> None:
    await until(lambda: asked(node, "eth_getLogs"), "a range")


async def node_hangs_at_head(daemon: Daemon, node: SimNode) -> None:
    await daemon.logs("blocks_committed")
    node.fail(Hold(), method="eth_getBlockByNumber", times=1_000_000)
    before = len(node.requests)

    async def hangs() -> bool:
        return len(node.requests) > before + 1

    await until(hangs, "a question that is not answered")


async def asked(node: SimNode, method: str) -> bool:
    return any(call[0] == method for request in node.requests for call in request)


MOMENTS = {
    "just begun": (just_begun, None),
    "node hangs at start": (node_hangs_at_start, "eth_chainId"),
    "node hangs in history": (node_hangs_in_history, "eth_getLogs"),
    "node hangs at head": (node_hangs_at_head, None),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_sigterm_at_any_moment_is_a_clean_end(
    moment: str, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """While it starts, while a node hangs: SIGTERM ends it within 10 s with 0."""
    reached: Callable[[Daemon, SimNode], Awaitable[None]]
    reached, held = MOMENTS[moment]
    async with SimNode() as node:
        node.mine(100)
        if held is not None:
            node.fail(Hold(), method=held, times=1_000_000)
        config = configuration(database_url, node.url)
        async with running_daemon(tmp_path, config) as daemon:
            await reached(daemon, node)
            assert await daemon.stop(seconds=10) == 0
    assert "Traceback" not in daemon.log()
    assert "ERROR" not in daemon.log().upper()


async def test_sigterm_while_it_waits_for_the_database(tmp_path: Path) -> None:
    """A daemon that waits for its database says so once, shows it on /readyz, and can be ended."""
    async with (
        SimNode() as node,
        running_daemon(tmp_path, configuration(NO_DATABASE, node.url)) as daemon,
    ):
        waited = await daemon.logs("wait_began")
        assert waited["what"] == "database"
        assert waited["remedy"]
        status, text = await daemon.get("/readyz")
        assert status == 503
        assert "the database cannot be reached" in text
        assert (await daemon.get("/livez"))[0] == 200
        assert await daemon.stop(seconds=10) == 0
    assert len(daemon.events("wait_began")) == 1


async def test_a_second_daemon_gives_way(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """A second `run` of the same chain ends with 75 and says why; the first goes on."""
    async with SimNode() as node:
        node.mine(10)
        config = configuration(database_url, node.url)
        async with running_daemon(tmp_path, config) as first:
            await first.following()
            async with running_daemon(
                tmp_path, config, name="second", tweak="LOCK_WAIT_SECONDS=0.5"
            ) as second:
                assert await second.ends() == 75
            assert "another process already follows chain 80001" in last_words(second, "error")
            # One that still waits for its turn can be ended, too.
            async with running_daemon(tmp_path, config, name="third") as third:
                await until(lambda: waits_for_lock(connection), "a wait for the lock")
                assert await third.stop(seconds=10) == 0
            node.mine(5)
            await until(lambda: is_at(connection, 15), "the first to go on")
            assert await first.stop() == 0
        assert "Traceback" not in first.log() + second.log() + third.log()


async def waits_for_lock(connection: Connection) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )
    )


# --- the node -----------------------------------------------------------------------------------


async def test_a_node_that_is_away_is_waited_for(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """At start as in mid-run: one line when it goes, one when it is back, nothing lost."""
    node = SimNode()
    await node.start()
    node.mine(20)
    await node.stop()
    async with running_daemon(tmp_path, configuration(database_url, node.url)) as daemon:
        assert (await daemon.logs("wait_began"))["what"] == "node"
        assert not await daemon.is_ready()
        await node.start()
        await until(lambda: is_at(connection, 20), "the daemon to follow")
        assert len(daemon.events("wait_began")) == len(daemon.events("wait_ended")) == 1
        await until(daemon.is_ready, "a green /readyz")

        await node.stop()
        lost = await daemon.logs("step_retried")
        assert (lost["lane"], lost["kind"]) == ("live", "NodeUnreachableError")
        node.mine(7)
        await node.start()
        await until(lambda: is_at(connection, 27), "the daemon to go on")
        await daemon.logs("step_recovered")
        live = [e for e in daemon.events("step_retried") if e["lane"] == "live"]
        assert len(live) == 1
        assert await daemon.stop() == 0
    await node.stop()


async def test_once_gives_up(database_url: str, tmp_path: Path) -> None:
    """`run --once` against a node or a database that stays away ends with 75, and says it."""
    async with SimNode() as node:
        for name, urls in (("node", (database_url, NOBODY)), ("database", (NO_DATABASE, node.url))):
            async with running_daemon(
                tmp_path,
                configuration(*urls),
                "--once",
                name=name,
                tweak="GIVE_UP_SECONDS=0.5",
            ) as daemon:
                assert await daemon.ends() == 75
            assert last_words(daemon, "remedy")
            (waited,) = daemon.events("wait_began")
            assert waited["what"] == name


async def test_another_chain_is_refused(database_url: str, tmp_path: Path) -> None:
    """A node of another chain ends the daemon with 78 and one sentence that names both chains."""
    async with SimNode(chain_id=137) as node:
        node.mine(3)
        async with running_daemon(tmp_path, configuration(database_url, node.url)) as daemon:
            assert await daemon.ends() == 78
    said = last_words(daemon, "error")
    assert said.endswith("serves chain 137, but chains.local is configured as chain 80001")
    assert "chains.local.rpc or chains.local.chain_id" in last_words(daemon, "remedy")


async def test_a_manager_without_code_stops_nothing(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """A manager without code is warned of, found when it appears, and the rest is followed."""
    nowhere, v1 = "0x" + "5a" * 20, hexed(at.MANAGER)
    looks = bytes.fromhex("7cb64759b13152ee")  # the selectors by which V1 is known
    async with SimNode() as node:
        node.mine(10, code={at.MANAGER: looks})
        config = configuration(database_url, node.url, managers=[nowhere, v1])
        async with running_daemon(tmp_path, config, tweak="LOOK_AGAIN_SECONDS=0.1") as daemon:
            warned = await daemon.logs("manager_without_code")
            assert (warned["manager"], len(daemon.events("manager_without_code"))) == (nowhere, 1)
            await until(lambda: is_at(connection, 10), "the chain to be followed")
            await until(daemon.is_ready, "a green /readyz")
            node.mine(1, code={bytes.fromhex(nowhere[2:]): looks})  # type: ignore[dict-item]
            assert (await daemon.logs("manager_found"))["manager"] == nowhere
            assert await daemon.stop() == 0


async def test_history_begins_where_the_factory_does(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Without start_block it is the block that deployed the factory; that is kept."""
    async with SimNode() as node:
        node.mine(10)
        node.mine(1, code={at.FACTORY: b"\xfe"})
        node.mine(120)
        config = configuration(database_url, node.url, start_block=None)
        for _ in range(2):
            async with running_daemon(tmp_path, config, "--once") as daemon:
                assert await daemon.ends() == 0
            assert await connection.fetchval("SELECT start_block FROM chain.chain") == 11
        # The second run knew it.
        assert sum(call[0] == "eth_getCode" for r in node.requests for call in r) < 20


@pytest.mark.parametrize(
    ("trouble", "said"),
    [("no factory", "no account factory has code on local"), ("pruned", "has no archive state")],
)
async def test_a_start_that_cannot_be_found_is_refused(
    trouble: str, said: str, database_url: str, tmp_path: Path
) -> None:
    """Where the chain does not say where history begins, exit 78 asks for start_block."""
    async with SimNode() as node:
        node.mine(10)
        if trouble == "pruned":
            node.mine(20, code={at.FACTORY: b"\xfe"})
            node.prune_before = 25
        config = configuration(database_url, node.url, start_block=None)
        async with running_daemon(tmp_path, config) as daemon:
            assert await daemon.ends() == 78
    assert said in last_words(daemon, "error")
    assert "chains.local.start_block" in last_words(daemon, "remedy")


# --- the database -------------------------------------------------------------------------------


async def test_no_schema_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    """A database without the schema, or with another version, is exit 78 and says what to do."""
    config = configuration(empty_database_url, NOBODY)
    async with running_daemon(tmp_path, config) as daemon:
        assert await daemon.ends() == 78
    assert "has no sessionwatch schema" in last_words(daemon, "error")
    assert last_words(daemon, "remedy") == "sessionwatch schema apply"

    await schema.apply(empty_database_url)
    async with connected(empty_database_url) as connection:
        await connection.execute("UPDATE evidence.schema_version SET version = 999")
    async with running_daemon(tmp_path, config, name="newer") as daemon:
        assert await daemon.ends() == 78
    assert "version 999, this program needs" in last_words(daemon, "error")


async def test_a_port_in_use_is_refused(database_url: str, tmp_path: Path) -> None:
    """A taken port is exit 78 and names http.listen, also while the node is away."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = configuration(database_url, NOBODY, port=taken.getsockname()[1])
        async with running_daemon(tmp_path, config) as daemon:
            assert await daemon.ends() == 78
    assert "cannot listen on 127.0.0.1" in last_words(daemon, "error")
    assert "http.listen" in last_words(daemon, "remedy")


async def test_a_database_that_comes_late_and_goes_away(tmp_path: Path) -> None:
    """Down at start and stopped in mid-run: waited for, red on /readyz, nothing lost."""
    server = EmbeddedPostgres(tmp_path / "pg", fsync=False)
    url = await server.start()
    try:
        await schema.apply(url)
        await server.stop()
        async with SimNode() as node:
            node.mine(30)
            async with running_daemon(tmp_path, configuration(url, node.url)) as daemon:
                await daemon.logs("wait_began")
                assert not await daemon.is_ready()
                assert await server.start() == url
                await until(daemon.is_ready, "a green /readyz")
                assert len(daemon.events("wait_began")) == 1

                await server.stop()

                async def database_is_lost() -> bool:
                    return "the database cannot be reached" in (await daemon.get("/readyz"))[1]

                await until(database_is_lost, "a red /readyz")
                assert (await daemon.get("/status"))[0] == 503
                node.mine(30)
                assert await server.start() == url
                async with connected(url) as connection:
                    await until(lambda: is_at(connection, 60), "the daemon to go on")
                    await until(daemon.is_ready, "a green /readyz")
                    tail = await connection.fetch("SELECT block_number FROM chain.tail ORDER BY 1")
                    assert [row[0] for row in tail] == list(range(61))
                    lanes = [event["lane"] for event in daemon.events("step_retried")]
                    assert len(lanes) == len(set(lanes)), "more than a line for each lane"
                assert await daemon.stop() == 0
        assert "Traceback" not in daemon.log()
    finally:
        await server.stop()


async def test_a_database_that_hangs_does_not_hold_the_stop(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """SIGTERM while the database answers nothing any more still ends with 0 within 10 s."""
    async with SimNode() as node:
        node.mine(30)
        config = configuration(database_url, node.url)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: is_at(connection, 30), "the chain to be followed")
            backends = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'sessionwatch'"
            )
            for row in backends:
                os.kill(row["pid"], signal.SIGSTOP)
            try:
                counts = [-1]

                async def stands_still() -> bool:
                    counts.append(len(node.requests))
                    return len(counts) > 20 and counts[-20] == counts[-1]

                await until(stands_still, "the live lane to hang in a query")
                assert await daemon.stop(seconds=10) == 0
            finally:
                for row in backends:
                    os.kill(row["pid"], signal.SIGCONT)
    assert "Traceback" not in daemon.log()


@pytest.mark.timeout(120)
async def test_the_embedded_database_is_kept_running(tmp_path: Path) -> None:
    """`url = "embedded"`: prepared at start, restarted when killed, stopped at the end."""
    folder = tmp_path / "data"
    async with SimNode() as node:
        node.mine(10)
        config = configuration("embedded", node.url).replace(
            '"embedded"', f'"embedded"\ndata_dir = "{folder}"'
        )
        async with running_daemon(tmp_path, config) as daemon:
            await until(daemon.is_ready, "a green /readyz")
            pid_file = folder / "postgres" / "postmaster.pid"
            killed = int(pid_file.read_text().split()[0])
            os.kill(killed, signal.SIGKILL)
            await daemon.logs("embedded_postgres_restarted")
            node.mine(5)

            async def goes_on() -> bool:
                status, text = await daemon.get("/status")
                if status != 200:
                    return False
                return bool(json.loads(text)["chains"][0]["progress"]["indexed_block"] == 15)

            await until(goes_on, "the daemon to go on")
            assert await daemon.stop() == 0
        assert not pid_file.exists()
    assert "Traceback" not in daemon.log()
