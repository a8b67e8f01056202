"""What is final stays: contradictions, lagging nodes, long absences, changed configurations."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.devnet.rpc import hexed
from indexer.store.chain_row import Connection
from tests.daemon_process import (
    Daemon,
    command,
    configuration,
    dump,
    indexed_block,
    running_daemon,
    settled,
    until,
)
from tests.fresh_index import *  # noqa: F403 - a fixture is found by its name here
from tests.fresh_index import FreshIndexer, differences
from tests.routes import MANAGERS, Stage, Step, script
from tests.sim.blocks import SimLog
from tests.sim.node import SimNode

TRANSFER_SINGLE = bytes.fromhex("c3d58168c5ae7397731d063d5bbf3d657854427343f4c083240f7aacaa2d0f62")
ALL_MANAGERS = [hexed(manager) for manager in MANAGERS]
MANAGER = ALL_MANAGERS[:1]


def transfer(amount: int) -> SimLog:
    """A mint of token 1 to the stranger."""
    topics = (TRANSFER_SINGLE, bytes(32), bytes(32), bytes(12) + at.STRANGER)
    data = (1).to_bytes(32) + amount.to_bytes(32)
    return SimLog(at.SEED_TOKEN, topics, data)  # type: ignore[arg-type]


async def tip_of(devnet: Devnet) -> tuple[int, bytes]:
    block = await devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    return int(block["number"], 16), bytes.fromhex(block["hash"][2:])


async def play(steps: Sequence[Step]) -> None:
    for step in steps:
        await step.run()


async def reasons(daemon: Daemon) -> str:
    return (await daemon.get("/readyz"))[1]


async def everything(connection: Connection) -> dict[str, list[Any]]:
    """The compared rows, and what is said to be covered."""
    coverage = await connection.fetch("SELECT * FROM chain.coverage ORDER BY pass, filter, cohort")
    return await dump(connection) | {"coverage": [tuple(row) for row in coverage]}


# --- contradictions -----------------------------------------------------------------------------


async def test_a_contradicted_final_block_stops_all_writing(
    database_url: str, connection: Connection, tmp_path: Path, fresh_indexer: FreshIndexer
) -> None:
    """A node with another past is not believed; when it agrees again the daemon goes on."""
    async with SimNode() as node:
        for number in range(1, 101):
            node.mine(1, [transfer(number)])
        config = configuration(database_url, node.url, managers=MANAGER)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 100, node.tip.hash), "the first branch")
            before = await everything(connection)

            lost = node.fork(90)
            for number in range(1, 201):
                node.mine(1, [transfer(1000 + number)])
            violated = await daemon.logs("finality_violated")
            assert "block 36 is final here as 0x" in violated["reason"]
            # The two branches part after block 10, far below what was final.
            remedy = "sessionwatch rewind --chain local --to 10 --below-finality"
            assert remedy in violated["remedy"]
            assert (await daemon.get("/readyz"))[0] == 503
            assert "finality violation: block 36 is final here" in await reasons(daemon)
            assert 'finality_violation{chain="local"} 1.0' in (await daemon.get("/metrics"))[1]
            # New debt is not paid from a node that has left our chain, either.
            asked = len(node.requests)
            await until(lambda: grown(node, asked + 30), "some more steps")
            assert await everything(connection) == before
            status = json.loads((await daemon.get("/status"))[1])
            assert "block 36 is final here" in status["chains"][0]["finality_violation"]
            assert len(daemon.events("finality_violated")) == 1

            node.fork(200)
            for block in lost:
                node._append(block)
            node.mine(3, [transfer(7)])
            await until(lambda: settled(connection, 103, node.tip.hash), "the node to be believed")
            await until(daemon.is_ready, "a green /readyz")
            await daemon.logs("finality_restored")
            assert 'finality_violation{chain="local"} 0.0' in (await daemon.get("/metrics"))[1]
            found = await dump(connection)
            assert await daemon.stop() == 0
        tip = (103, node.tip.hash)
        assert not differences(await fresh_indexer.dump(node.url, tip, managers=MANAGER), found)
    assert "Traceback" not in daemon.log()


async def grown(node: SimNode, count: int) -> bool:
    return len(node.requests) >= count


async def test_once_does_not_wait_for_a_contradiction_to_go(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """`run --once` on a chain that contradicts what is final ends with 78 and the way out."""
    async with SimNode() as node:
        node.mine(100, [transfer(1)])
        config = configuration(database_url, node.url, managers=MANAGER)
        async with running_daemon(tmp_path, config, "--once") as daemon:
            assert await daemon.ends() == 0
        node.fork(90)
        node.mine(120)
        async with running_daemon(
            tmp_path, config, "--once", name="again", tweak="GIVE_UP_SECONDS=0.5"
        ) as again:
            assert await again.ends() == 78
        assert "error: block 36 is final here" in again.log()
        assert "remedy: find out which is right; if the node is: sessionwatch rewind" in again.log()


async def test_the_operators_way_out(
    devnet: Devnet,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    fresh_indexer: FreshIndexer,
) -> None:
    """The remedy as it is said, typed while the daemon runs and while it is stopped, mends all."""
    stage = Stage(devnet, 5)
    steps = script(stage)
    keys: dict[str, Any] = {"managers": ALL_MANAGERS, "finality": 2}
    config = configuration(database_url, devnet.url, **keys)
    await play(steps[:12])
    for running in (True, False):
        name = "running" if running else "stopped"
        async with running_daemon(tmp_path, config, name=name) as daemon:
            await until(lambda: at_tip(connection, devnet), "the first branch")
            await devnet.rpc.reorg(12)
            await devnet.rpc.mine(2)
            remedy = (await daemon.logs("finality_violated"))["remedy"]
            match = re.search(r"sessionwatch (rewind --chain local --to \d+ --below-.*)", remedy)
            assert match is not None
            typed = [*match[1].split(), "--yes"]
            if not running:
                assert await daemon.stop() == 0
            code, said = await command(tmp_path, config, *typed)
            assert (code, "finality violation: block" in said) == (0, True), said
            assert "Stored session sets stay" in said
            if running:
                assert await daemon.ends() == 75
                assert "another process follows chain 80001 now" in daemon.log()
        assert "Traceback" not in daemon.log()
        await play(steps[12:18] if running else steps[18:24])
    async with running_daemon(tmp_path, config, name="last") as daemon:
        await until(lambda: at_tip(connection, devnet), "the other branch")
        found = await dump(connection)
        assert await daemon.stop() == 0
    reorgs = await connection.fetch("SELECT reason FROM watch.reorg")
    assert [row[0] for row in reorgs] == ["operator", "operator"]
    assert not differences(
        await fresh_indexer.dump(devnet.url, await tip_of(devnet), **keys), found
    )


async def at_tip(connection: Connection, devnet: Devnet) -> bool:
    return await settled(connection, *await tip_of(devnet))


# --- lag and absence ----------------------------------------------------------------------------


async def test_a_lagging_node_is_no_reorg(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """A node that falls behind what is indexed, even below finality, is waited for."""
    async with SimNode() as node:
        node.mine(100, [transfer(1)])
        config = configuration(database_url, node.url, managers=MANAGER)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 100, node.tip.hash), "the tip")
            before = await everything(connection)
            for lag in (1, 50, 90):
                node.lag_blocks = lag
                asked = len(node.requests)
                await until(lambda: grown(node, asked + 10), "some steps")  # noqa: B023
                assert await indexed_block(connection) == 100
            assert await everything(connection) == before
            node.lag_blocks = 0
            node.mine(5)
            await until(lambda: settled(connection, 105, node.tip.hash), "the tip")
            assert await connection.fetchval("SELECT count(*) FROM chain.reorg") == 0
            assert await daemon.stop() == 0
    assert not [e for e in daemon.events() if e["level"] == "error"]


async def test_an_absence_longer_than_finality_is_paid_as_debt(
    devnet: Devnet,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    fresh_indexer: FreshIndexer,
) -> None:
    """Stopped for longer than finality, the tail starts anew and the gap is paid: no row misses."""
    steps = script(Stage(devnet, 6))
    keys: dict[str, Any] = {"managers": ALL_MANAGERS, "finality": 4}
    config = configuration(database_url, devnet.url, **keys)
    await play(steps[:8])
    async with running_daemon(tmp_path, config) as daemon:
        await until(lambda: at_tip(connection, devnet), "the first part")
        assert await daemon.stop() == 0
    # Blocks of the old tail are replaced, too: nobody was looking.
    await devnet.rpc.reorg(3)
    await play(steps[8:20])
    await devnet.rpc.mine(80)
    await play(steps[20:24])
    async with running_daemon(tmp_path, config, name="again") as daemon:
        await until(lambda: at_tip(connection, devnet), "the gap to be paid")
        assert daemon.events("tail_started"), "the absence was too short to matter"
        found = await dump(connection)
        assert await daemon.stop() == 0
    assert not differences(
        await fresh_indexer.dump(devnet.url, await tip_of(devnet), **keys), found
    )


# --- configuration ------------------------------------------------------------------------------


async def test_a_wider_configuration_is_debt(
    devnet: Devnet,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    fresh_indexer: FreshIndexer,
) -> None:
    """A contract and managers added at a restart are paid for the past, and nothing else is."""
    steps = script(Stage(devnet, 7))
    seed, second = hexed(at.SEED_TOKEN), hexed(at.SECOND_TOKEN)
    narrow: dict[str, Any] = {"managers": ALL_MANAGERS[:1], "erc1155": [seed], "finality": 6}
    wide = narrow | {"managers": ALL_MANAGERS, "erc1155": [seed, second]}
    await play(steps[: len(steps) // 2])
    async with running_daemon(
        tmp_path, configuration(database_url, devnet.url, **narrow)
    ) as daemon:
        await until(lambda: at_tip(connection, devnet), "the narrow configuration")
        assert await daemon.stop() == 0
    config = configuration(database_url, devnet.url, **wide)
    async with running_daemon(tmp_path, config, name="wide") as daemon:
        await daemon.following()
        await play(steps[len(steps) // 2 :])
        await until(lambda: at_tip(connection, devnet), "the wide configuration")
        paid = {p for event in daemon.events("range_committed") for p in event["passes"]}
        final_before = (await daemon.logs("range_committed"))["last_block"]
        assert f"logs erc1155/{second}" in paid
        assert not [
            event
            for event in daemon.events("range_committed")
            if f"logs erc1155/{seed}" in event["passes"] and event["first_block"] < final_before
        ]
        found = await dump(connection)
        assert await daemon.stop() == 0
    assert found["erc1155_transfer"]
    assert not differences(
        await fresh_indexer.dump(devnet.url, await tip_of(devnet), **wide), found
    )
