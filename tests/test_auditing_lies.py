"""The daemon's own audit against a node that omits logs, reads wrongly, or leaves the branch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from indexer.store.chain_row import Connection
from tests.daemon_process import Daemon, configuration, dump, running_daemon, settled, until
from tests.fresh_index import *  # noqa: F403 - a fixture is found by its name here
from tests.fresh_index import FreshIndexer, differences
from tests.sim.blocks import hexed
from tests.sim.node import SimNode
from tests.sim.story import MANAGERS, Story, is_tainted

FINALITY_DEPTH = 8
KEYS: dict[str, Any] = {
    "managers": [hexed(manager) for manager in MANAGERS],
    "finality": FINALITY_DEPTH,
    "audit_seconds": 1,
}


async def at_tip(node: SimNode, connection: Connection) -> None:
    tip = node.tip
    await until(lambda: settled(connection, tip.number, tip.hash), f"block {tip.number}")


async def found(connection: Connection, reason: str) -> list[Any]:
    """Wait for a finding; return all of this kind."""
    query = "SELECT * FROM watch.audit_finding WHERE reason = $1 ORDER BY finding_id"

    async def is_there() -> bool:
        return bool(await connection.fetch(query, reason))

    await until(is_there, f"a finding {reason}", 20)
    return list(await connection.fetch(query, reason))


async def audited(daemon: Daemon, connection: Connection, times: int = 2) -> None:
    """Wait until so many audits more have ended."""
    for _ in range(times):
        last = await connection.fetchval("SELECT max(audited_at) FROM watch.audit")

        async def again(last: Any = last) -> bool:
            newest = await connection.fetchval("SELECT min(audited_at) FROM watch.audit")
            return newest is not None and (last is None or newest > last)

        await until(again, "another audit", 20)
    assert daemon.process.returncode is None


def mine_omitting(node: SimNode, story: Story) -> int:
    """Mine until a clean account's root changes, and hide all logs of that block; return it."""
    while True:
        node.lag_blocks = 1  # nobody sees the block before its logs are gone
        story.mine()
        number = node.tip.number
        changes = [change for change in story.root_changes() if change[2] == number]
        # Who never had a root is not read again, unless a proof tells that somebody has one.
        known = all(any(previous) for *_, previous in changes)
        if changes and known and not any(is_tainted(node.tip, change[1]) for change in changes):
            node.forget_logs(number)
            node.lag_blocks = 0
            return number
        node.lag_blocks = 0


@pytest.mark.parametrize("blocks_above", [2, FINALITY_DEPTH + 3])
@pytest.mark.parametrize("seed", [5, 6, 7])
async def test_a_log_that_the_node_had_omitted(
    seed: int,
    blocks_above: int,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    fresh_indexer: FreshIndexer,
) -> None:
    """Found above or below finality; in the end there is every row of the block, and no other."""
    async with SimNode(seed=seed, finality_depth=FINALITY_DEPTH) as node:
        story = Story(node, random.Random(seed), finality_depth=FINALITY_DEPTH)
        for _ in range(25):
            story.mine()
        config = configuration(database_url, node.url, **KEYS)
        async with running_daemon(tmp_path, config) as daemon:
            await at_tip(node, connection)
            omitted = mine_omitting(node, story)
            story.mine_empty(blocks_above)
            await at_tip(node, connection)
            node.remember_logs()
            rows = await found(connection, "missed_log")
            assert {row["block_number"] for row in rows} == {omitted}
            assert {row["previous_block"] for row in rows} == {omitted - 1}
            story.mine_empty(FINALITY_DEPTH + 2)
            owed = "SELECT NOT EXISTS (SELECT FROM chain.audit_finding WHERE logs_owed)"
            await until(lambda: connection.fetchval(owed), "what was missed to be owed", 20)
            await at_tip(node, connection)
            await audited(daemon, connection)
            held = await dump(connection)
            count = await connection.fetchval("SELECT count(*) FROM watch.audit_finding")
            assert count == len(rows)
            assert await daemon.stop() == 0
        assert "Traceback" not in daemon.log()
        fresh = await fresh_indexer.dump(node.url, (node.tip.number, node.tip.hash), **KEYS)
        assert not differences(fresh, held)


async def test_a_node_that_still_omits_the_log(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Then nobody can say more than that the root changed in this block."""
    async with SimNode(seed=5, finality_depth=FINALITY_DEPTH) as node:
        story = Story(node, random.Random(5), finality_depth=FINALITY_DEPTH)
        for _ in range(25):
            story.mine()
        async with running_daemon(
            tmp_path, configuration(database_url, node.url, **KEYS)
        ) as daemon:
            await at_tip(node, connection)
            omitted = mine_omitting(node, story)
            story.mine_empty(2)
            rows = await found(connection, "no_log")
            assert {row["block_number"] for row in rows} == {omitted}
            assert await daemon.stop() == 0
