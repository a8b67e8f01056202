"""What the real daemon tells systemd of its start, its state and its end."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from indexer.store.chain_row import Connection
from tests.daemon_process import configuration, running_daemon, second_chain
from tests.sim.faults import Hold
from tests.sim.node import SimNode
from tests.systemd import systemd

NOBODY = "http://127.0.0.1:9"
NO_DATABASE = "postgresql://nobody@127.0.0.1:9/nothing"


# --- the start ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_it_tells_its_start_its_state_and_its_end(
    kind: str, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """READY=1 once, then where each chain stands, then STOPPING=1; the variables stay its own."""
    async with SimNode() as node, systemd(tmp_path, abstract=kind == "abstract") as manager:
        node.mine(49)
        config = configuration(database_url, node.url)
        async with running_daemon(tmp_path, config, variables=manager.variables) as daemon:
            await manager.hears("READY=1")
            await manager.shows("local: block 49, 0 s behind, 0 drifted")
            node.mine(3)
            await manager.shows("local: block 52")
            assert await daemon.stop() == 0
    assert manager.messages.count("READY=1") == 1
    assert manager.messages[-2:] == ["STOPPING=1", "STATUS=stopping"]
    assert not manager.pings, "nobody asked for them"


async def test_once_is_an_errand_and_says_nothing(database_url: str, tmp_path: Path) -> None:
    """A service of Type=notify runs `run`; cron hears nothing of the protocol."""
    async with SimNode() as node, systemd(tmp_path, 60) as manager:
        node.mine(5)
        config = configuration(database_url, node.url)
        async with running_daemon(
            tmp_path, config, "--once", variables=manager.variables
        ) as daemon:
            assert await daemon.ends() == 0
    assert manager.messages == []


async def test_a_start_does_not_hang_while_a_node_is_away(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """One chain's node answers, the other's does not: started, and the line says who waits."""
    async with SimNode() as node, systemd(tmp_path) as manager:
        node.mine(7)
        config = second_chain(configuration(database_url, node.url), NOBODY)
        async with running_daemon(tmp_path, config, variables=manager.variables) as daemon:
            await manager.hears("READY=1")
            await manager.shows("local: block 7, 0 s behind", "other: waiting for the node")
            assert await daemon.stop() == 0


async def test_a_start_does_not_hang_while_the_database_is_away(tmp_path: Path) -> None:
    """The chain's id is asked for all the same."""
    async with SimNode() as node, systemd(tmp_path) as manager:
        config = configuration(NO_DATABASE, node.url)
        async with running_daemon(tmp_path, config, variables=manager.variables) as daemon:
            await manager.hears("READY=1")
            await manager.shows("local: waiting for the database")
            assert await daemon.stop() == 0


async def test_a_start_waits_for_the_word_of_each(database_url: str, tmp_path: Path) -> None:
    """While one node has neither answered nor been given up, nobody is told of a start."""
    async with SimNode() as node, SimNode(chain_id=80002) as slow, systemd(tmp_path) as manager:
        node.mine(7)
        slow.fail(Hold(), method="eth_chainId", times=1000)
        config = second_chain(configuration(database_url, node.url), slow.url)
        async with running_daemon(tmp_path, config, variables=manager.variables) as daemon:
            await manager.shows("local: block 7", "other: starting")
            assert not manager.is_ready
            slow.release()
            await manager.hears("READY=1")
            assert await daemon.stop() == 0


@pytest.mark.parametrize("mistake", ["chain", "chain, database away", "schema", "port"])
async def test_a_start_that_cannot_succeed_fails(
    mistake: str, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """Exit code 78 before any READY=1: `systemctl start` fails, and the line says why."""
    chain_id = 137 if mistake.startswith("chain") else 80001
    url = empty_database_url if mistake == "schema" else database_url
    if mistake.endswith("away"):
        url = NO_DATABASE
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if mistake == "port" else 0
        async with SimNode(chain_id=chain_id) as node, systemd(tmp_path) as manager:
            node.mine(3)
            config = configuration(url, node.url, port=port)
            async with running_daemon(tmp_path, config, variables=manager.variables) as daemon:
                assert await daemon.ends() == 78
            await manager.shows("ended: ")
    assert not manager.is_ready
    words = {"chain": "serves chain 137", "schema": "schema", "port": "cannot listen"}
    assert words[mistake.split(",", maxsplit=1)[0]] in manager.status


# --- the exit code --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happening", "code", "said"),
    [
        # What a newer program's migration, or an operator, may do to a running daemon.
        ("ALTER TABLE chain.tail RENAME TO gone", 78, "the database refused"),
        ("UPDATE chain.chain SET epoch = epoch + 1", 75, "another process follows chain 80001"),
        (
            """
            CREATE FUNCTION chain.fail() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN RAISE EXCEPTION ''nobody foresaw this''; END';
            CREATE TRIGGER fail BEFORE UPDATE ON chain.chain EXECUTE FUNCTION chain.fail();
            """,
            70,
            "an unforeseen failure",
        ),
    ],
    ids=["fatal", "fenced", "unforeseen"],
)
async def test_what_ends_it_in_mid_run_decides_the_exit_code(
    happening: str, code: int, said: str, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """78 stays down, 75 and 70 are started again; the end is announced, and the log says why."""
    async with SimNode() as node, systemd(tmp_path, 60) as manager:
        node.mine(20)
        config = configuration(database_url, node.url)
        async with running_daemon(tmp_path, config, variables=manager.variables) as daemon:
            await manager.shows("local: block 20")
            await connection.execute(happening)
            assert await daemon.ends() == code
        await manager.hears("STOPPING=1")
    assert said in daemon.log()
    assert (said in manager.status) == (code != 70)
