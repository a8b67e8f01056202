"""Stalled finality, and nodes that were set back: nothing covered is read again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from indexer.devnet import addresses as at
from indexer.devnet.rpc import hexed
from indexer.store.chain_row import Connection
from tests.daemon_process import configuration, dump, running_daemon, settled, until
from tests.fresh_index import *  # noqa: F403 - a fixture is found by its name here
from tests.fresh_index import FreshIndexer, differences
from tests.sim.node import SimNode
from tests.test_daemon_finality import everything, grown, reasons, transfer

MANAGER = [hexed(at.MANAGER)]
STALLED_BLOCKS = 2500


def asked(node: SimNode, method: str, since: int = 0) -> list[object]:
    """Return the first parameter of every such call, from a request on."""
    calls = (call for request in node.requests[since:] for call in request)
    return [params[0] for name, params in calls if name == method]


def ranges_asked(node: SimNode, since: int = 0) -> list[tuple[int, int]]:
    """Return the ranges of eth_getLogs by number, as the history lane asks."""
    found = (wanted for wanted in asked(node, "eth_getLogs", since) if isinstance(wanted, dict))
    return [
        (int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16))
        for wanted in found
        if "fromBlock" in wanted
    ]


async def test_stalled_finality_costs_no_step_more_and_is_made_up_at_once(
    database_url: str, connection: Connection, tmp_path: Path, fresh_indexer: FreshIndexer
) -> None:
    """Thousands of blocks above the marker, a reorg of 512 among them, then one jump."""
    async with SimNode() as node:
        node.finalized_number = 20
        node.mine(30, [transfer(1)])
        keys = {"managers": MANAGER, "finality": "finalized"}
        config = configuration(database_url, node.url, **keys)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 30, node.tip.hash), "the tip")
            for number in range(STALLED_BLOCKS // 25):
                node.mine(25, [transfer(10 + number)])
            await until(
                lambda: settled(connection, node.tip.number, node.tip.hash), "the stalled tail"
            )
            assert await connection.fetchval("SELECT count(*) FROM chain.tail") > STALLED_BLOCKS

            since = len(node.requests)
            node.mine(1, [transfer(3)])
            await until(lambda: settled(connection, node.tip.number, node.tip.hash), "one more")
            # Head, finality, our tip, what follows it, its logs and state: no more of the tail.
            most = max(len(request) for request in node.requests[since:])
            assert most <= 10, most

            # A shallow reorg looks at a few blocks, not at the whole tail.
            since = len(node.requests)
            node.fork(3)
            node.mine(5, [transfer(4)])
            await until(lambda: settled(connection, node.tip.number, node.tip.hash), "3 deep")
            assert len(asked(node, "eth_getBlockByNumber", since)) < 300

            node.fork(512)
            for number in range(26):
                node.mine(20, [transfer(500 + number)])
            await until(lambda: settled(connection, node.tip.number, node.tip.hash), "512 deep")
            depths = await connection.fetch("SELECT depth FROM watch.reorg ORDER BY detected_at")
            assert [row[0] for row in depths] == [3, 512]

            since = len(node.requests)
            node.finalized_number = node.tip.number - 2

            async def resumed() -> bool:
                query = "SELECT finalized_block FROM watch.progress"
                return await connection.fetchval(query) == node.finalized_number

            await until(resumed, "finality to resume")
            count = len(node.requests) + 20
            await until(lambda: grown(node, count), "some more steps")
            assert await settled(connection, node.tip.number, node.tip.hash)
            assert asked(node, "eth_getLogs", since) == []
            found = await dump(connection)
            assert await daemon.stop() == 0
        assert not differences(
            await fresh_indexer.dump(node.url, (node.tip.number, node.tip.hash), **keys), found
        )
    assert "Traceback" not in daemon.log()


async def test_a_node_restored_from_a_snapshot_is_waited_for(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Head and finality below our marker: said at once, nothing written, nothing read again."""
    async with SimNode() as node:
        node.mine(200, [transfer(1)])
        config = configuration(database_url, node.url, managers=MANAGER)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 200, node.tip.hash), "the tip")
            before, since = await everything(connection), len(node.requests)
            lost = node.fork(150)

            async def is_red() -> bool:
                return not await daemon.is_ready()

            await until(is_red, "a red /readyz")
            assert "the node shows block 50, indexed is block 200, final is block 136" in (
                await reasons(daemon)
            )
            for block in lost:
                node._append(block)
                if block.number % 30 == 0:
                    count = len(node.requests) + 3
                    await until(lambda: grown(node, count), "a step")  # noqa: B023
            node.mine(5, [transfer(2)])
            await until(lambda: settled(connection, 205, node.tip.hash), "the node to catch up")
            await until(daemon.is_ready, "a green /readyz")
            assert ranges_asked(node, since) == []
            assert len(asked(node, "eth_getLogs", since)) == len(
                set(map(str, asked(node, "eth_getLogs", since)))
            )
            after = await everything(connection)
            assert set(before["erc1155_transfer"]) < set(after["erc1155_transfer"])
            assert await connection.fetchval("SELECT count(*) FROM chain.reorg") == 0
            assert await daemon.stop() == 0
    assert not daemon.events("finality_violated")


async def test_a_node_restored_onto_another_branch_above_finality(
    database_url: str, connection: Connection, tmp_path: Path, fresh_indexer: FreshIndexer
) -> None:
    """Down while the node was restored and grew another branch: one reorg, no range read again."""
    async with SimNode() as node:
        node.mine(200, [transfer(1)])
        keys = {"managers": MANAGER}
        config = configuration(database_url, node.url, **keys)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 200, node.tip.hash), "the tip")
            assert await daemon.stop() == 0
        node.fork(60)
        node.mine(10, [transfer(2)])
        since = len(node.requests)
        async with running_daemon(tmp_path, config, name="again") as again:
            await until(lambda: settled(connection, 150, node.tip.hash), "the lower branch")
            for number in range(9):
                node.mine(10, [transfer(20 + number)])
            await until(lambda: settled(connection, 240, node.tip.hash), "the branch to grow")
            assert ranges_asked(node, since) == []
            found = await dump(connection)
            assert await again.stop() == 0
        assert await connection.fetchval("SELECT count(*) FROM chain.reorg") == 1
        tip = (240, node.tip.hash)
        assert not differences(await fresh_indexer.dump(node.url, tip, **keys), found)


async def test_a_node_restored_with_another_past_is_not_believed_until_it_agrees(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Below our marker on other hashes: waited for, then a violation, and healed without debt."""
    async with SimNode() as node:
        node.mine(200, [transfer(1)])
        config = configuration(database_url, node.url, managers=MANAGER)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 200, node.tip.hash), "the tip")
            before, since = await everything(connection), len(node.requests)
            lost = node.fork(150)
            node.mine(40, [transfer(2)])
            count = len(node.requests) + 10
            await until(lambda: grown(node, count), "some steps")
            assert not daemon.events("finality_violated")
            node.mine(60)
            violated = await daemon.logs("finality_violated")
            assert "block 136 is final here as 0x" in violated["reason"]
            assert "--to 0 --below-finality" in violated["remedy"]
            assert "finality violation" in await reasons(daemon)
            assert await everything(connection) == before

            node.fork(100)
            for block in lost:
                node._append(block)
            await daemon.logs("finality_restored")
            await until(daemon.is_ready, "a green /readyz")
            assert await everything(connection) == before
            assert ranges_asked(node, since) == []
            assert await daemon.stop() == 0


async def test_an_absence_longer_than_finality_reads_the_gap_once(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """The gap is debt, each of its blocks is read once, and none that was covered."""
    async with SimNode() as node:
        node.mine(200, [transfer(1)])
        config = configuration(database_url, node.url, managers=MANAGER)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 200, node.tip.hash), "the tip")
            assert await daemon.stop() == 0
        for number in range(30):
            node.mine(10, [transfer(10 + number)])
        since = len(node.requests)
        async with running_daemon(tmp_path, config, name="again") as again:
            await until(lambda: settled(connection, 500, node.tip.hash), "the gap to be paid")
            assert again.events("tail_started")
            assert await again.stop() == 0
        gap = Counter(
            n for first, last in ranges_asked(node, since) for n in range(first, last + 1)
        )
        assert gap, "nothing was owed"
        assert min(gap) > 200
        assert max(gap) <= 436
