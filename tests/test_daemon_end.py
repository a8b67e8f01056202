"""Chains that have ended: `end_block`, the node gone, and verdicts that go on all the same."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from indexer.core.session_sets import build_set
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.devnet.operations import Key, seed_session
from indexer.devnet.rpc import hexed
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.daemon_process import command, configuration, running_daemon, settled, until
from tests.routes import MANAGERS, Stage, script
from tests.sim.node import SimNode
from tests.sim.story import ACCOUNTS, Story
from tests.test_daemon_finality import transfer

MANAGER = [hexed(at.MANAGER)]


async def test_a_chain_that_stopped_is_followed_to_its_end(
    devnet: Devnet, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Real contracts on a node that mines no more: all is final, paid and true; then 0."""
    stage = Stage(devnet, 9)
    for step in script(stage)[:12]:
        await step.run()
    end = await devnet.rpc.block_number()
    block = await devnet.rpc.call("eth_getBlockByNumber", hex(end), False)
    managers = [hexed(manager) for manager in MANAGERS]
    keys: dict[str, Any] = {"managers": managers, "finality": 64, "end_block": end}
    config = configuration(database_url, devnet.url, **keys)
    async with running_daemon(tmp_path, config, "--once") as daemon:
        assert await daemon.ends() == 0
    assert await settled(connection, end, bytes.fromhex(block["hash"][2:]))
    progress = await connection.fetchrow("SELECT * FROM watch.progress")
    assert (progress["finalized_block"], progress["finished"]) == (end, True)
    found = await connection.fetch("SELECT owner, token_id, balance FROM watch.erc1155_balance")
    assert found
    # A fork of the chain goes on above its end: that is nobody's history.
    await devnet.rpc.mine(70)
    async with running_daemon(tmp_path, config, name="again") as again:
        await again.logs("chain_finished")
        await until(again.is_ready, "a green /readyz")
        assert await again.stop() == 0
    assert await connection.fetchval("SELECT indexed_block FROM watch.progress") == end
    assert "Traceback" not in daemon.log() + again.log()


async def test_verdicts_outlive_the_archive(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """The node is switched off after the end: still ready, and grace runs out by the clock."""
    async with SimNode() as node:
        story = Story(node, random.Random(3), finality_depth=64)
        while node.tip.number < 40:
            story.mine()
        config = configuration(
            database_url, node.url, managers=MANAGER, end_block=30, grace_seconds=4
        )
        async with running_daemon(tmp_path, config) as daemon:
            await daemon.logs("chain_finished")
            end = node.header(30)
            await until(lambda: settled(connection, 30, end.hash), "everything to be paid")
            session = seed_session(Key.named("last").address, ACCOUNTS[0], 1)
            stored = build_set(80001, at.MANAGER, ACCOUNTS[0], [session])
            async with Database.open(database_url) as database:
                await import_sets(database, [(stored, "test")])

            async def verdict() -> str | None:
                query = "SELECT verdict FROM watch.verdict WHERE account = $1 AND manager = $2"
                return await connection.fetchval(query, hexed(ACCOUNTS[0]), MANAGER[0])

            async def is_pending() -> bool:
                return await verdict() == "pending"

            async def is_drifted() -> bool:
                return await verdict() == "drifted"

            await until(is_pending, "the set to be expected", 10)
            await node.stop()
            await until(is_drifted, "the grace to run out", 20)
            assert await daemon.is_ready()
            status = json.loads((await daemon.get("/status"))[1])["chains"][0]
            assert status["progress"]["finished"] is True
            assert "Finished: the chain's configured last block" in (await daemon.get("/"))[1]
            assert len(daemon.events("chain_finished")) == 1
            code, said = await command(tmp_path, config, "status")
            assert (code, "finished" in said) == (0, True)
            assert await daemon.stop() == 0
        assert (
            max(row[0] for row in await connection.fetch("SELECT block_number FROM chain.block"))
            <= 30
        )
    assert "Traceback" not in daemon.log()


async def test_the_tail_is_walked_to_the_end(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """A daemon that is there when the chain stops reorganises up to the end, and no further."""
    async with SimNode() as node:
        node.mine(90, [transfer(1)])
        config = configuration(database_url, node.url, managers=MANAGER, end_block=100)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 90, node.tip.hash), "the tip")
            node.fork(5)
            node.mine(8, [transfer(2)])
            await until(lambda: settled(connection, 93, node.tip.hash), "the other branch")
            assert await connection.fetchval("SELECT finished FROM watch.progress") is False
            node.mine(17, [transfer(3)])
            await daemon.logs("chain_finished")
            assert await settled(connection, 100, node.header(100).hash)
            assert await daemon.stop() == 0
        # Only the first of the two that were mined up to the end, and none above it.
        amounts = await connection.fetch("SELECT amount FROM watch.erc1155_transfer")
        assert [int(row[0]) for row in amounts] == [2]


async def test_an_end_below_what_is_indexed_is_refused(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Nothing is deleted silently: 78, and the remedy as it is said lets the daemon go on."""
    async with SimNode() as node:
        node.mine(100, [transfer(1)])
        before = configuration(database_url, node.url, managers=MANAGER)
        async with running_daemon(tmp_path, before, "--once") as daemon:
            assert await daemon.ends() == 0
        config = configuration(database_url, node.url, managers=MANAGER, end_block=20)
        async with running_daemon(tmp_path, config, "--once", name="refused") as refused:
            assert await refused.ends() == 78
        assert "indexed to block 100, beyond chains.local.end_block, which is 20" in refused.log()
        remedy = "rewind --chain local --to 20 --below-finality"
        assert f"sessionwatch {remedy}" in refused.log()
        assert await connection.fetchval("SELECT indexed_block FROM watch.progress") == 100
        code, said = await command(tmp_path, config, *remedy.split(), "--yes")
        assert code == 0, said
        async with running_daemon(tmp_path, config, "--once", name="after") as after:
            assert await after.ends() == 0, after.log()
        assert await settled(connection, 20, node.header(20).hash)
