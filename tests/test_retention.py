"""The real daemon drops old detail, and everything else stays as it was."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from indexer.core.session_sets import build_set
from indexer.core.types import Session
from indexer.devnet import addresses as at
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.daemon_process import configuration, dump, running_daemon, settled, until
from tests.fresh_index import *  # noqa: F403 - a fixture is found by its name here
from tests.fresh_index import FreshIndexer, differences
from tests.schema_rows import small_slices
from tests.sim.blocks import hexed
from tests.sim.node import SimNode
from tests.sim.story import ACCOUNTS, MANAGERS, Story
from tests.test_law import balances_of, root_changes

FINALITY_DEPTH = 8
SLICE_BLOCKS = 500
RETENTION_BLOCKS = 10_000
TWEAK = "RETENTION_SECONDS=0.2"

RAW = ("account_event", "user_operation", "erc1155_transfer")
STORED = {
    "session_set": "SELECT * FROM watch.session_set",
    "root_observation": "SELECT * FROM evidence.root_observation",
    "account_observation": "SELECT * FROM evidence.account_observation",
    "root_hint": "SELECT * FROM chain.root_hint",
    "user_operation_body": "SELECT * FROM chain.user_operation_body",
}


async def stored(connection: Connection) -> dict[str, list[Any]]:
    """Return all that a drop must not touch."""
    found = {name: rows for name, rows in (await dump(connection)).items() if name not in RAW}
    for name, query in STORED.items():
        found[name] = sorted(map(repr, map(tuple, await connection.fetch(query))))
    return found


async def oldest(connection: Connection, table: str, condition: str = "true") -> int:
    query = f"SELECT min(block_number) FROM chain.{table} WHERE {condition}"
    return int(await connection.fetchval(query))


def tell(node: SimNode) -> Story:
    """Let much happen in the first two slices, and then for long almost nothing."""
    story = Story(node, random.Random(7), finality_depth=FINALITY_DEPTH)
    for _ in range(60):
        story.mine()
    story.mine_empty(SLICE_BLOCKS - node.tip.number - 20)
    for _ in range(40):  # on both sides of the first slice's end
        story.mine()
    story.mine_empty(RETENTION_BLOCKS)
    story.mine()
    return story


async def test_old_detail_goes_and_all_else_stays(
    database_url: str, connection: Connection, tmp_path: Path, fresh_indexer: FreshIndexer
) -> None:
    """Rows go; roots, verdicts, sets, evidence and balances are the same before and after.

    A manager and a token pass that come later end in the roots and balances of a fresh index,
    though they read blocks whose rows are gone, and what returned of these goes again.
    """
    await small_slices(connection, SLICE_BLOCKS)
    async with SimNode(seed=7, finality_depth=FINALITY_DEPTH) as node:
        tell(node)
        tip = (node.tip.number, node.tip.hash)
        keys: dict[str, Any] = {"finality": FINALITY_DEPTH}
        few = keys | {"managers": [hexed(at.MANAGER)], "erc1155": [hexed(at.SEED_TOKEN)]}
        many = keys | {"managers": [hexed(at.MANAGER), hexed(at.EVENT_MANAGER)], "erc1155": "all"}

        config = configuration(database_url, node.url, **few)
        async with running_daemon(tmp_path, config, name="before", tweak=TWEAK) as daemon:
            await until(lambda: settled(connection, *tip), "everything to be indexed")
            async with Database.open(database_url) as database:
                sessions = [Session(0, 0, at.ECDSA_MODULE, b"key")]
                one = build_set(80001, at.MANAGER, ACCOUNTS[0], sessions)
                await import_sets(database, [(one, "test")])
            await until(lambda: settled(connection, *tip), "the set to be decided")
            before = await stored(connection)
            assert not daemon.events("detail_dropped")
            assert await daemon.stop() == 0
        first = {table: await oldest(connection, table) for table in RAW}
        assert max(first.values()) < SLICE_BLOCKS

        config = configuration(database_url, node.url, retention_blocks=RETENTION_BLOCKS, **few)
        async with running_daemon(tmp_path, config, "--once", name="after") as daemon:
            assert await daemon.ends() == 0
        assert {event["table"] for event in daemon.events("detail_dropped")} == set(RAW)
        assert not differences(before, await stored(connection))
        for table in ("user_operation", "erc1155_transfer"):
            assert await oldest(connection, table) >= SLICE_BLOCKS
        assert await oldest(connection, "account_event", "event LIKE 'Execution%'") >= SLICE_BLOCKS
        assert await connection.fetchval("SELECT detail_from FROM watch.progress") == SLICE_BLOCKS

        config = configuration(database_url, node.url, retention_blocks=RETENTION_BLOCKS, **many)
        async with running_daemon(tmp_path, config, name="later", tweak=TWEAK) as daemon:
            await daemon.logs("detail_dropped", 3)
            await until(lambda: settled(connection, *tip), "the new passes to be paid")
            after = await dump(connection)
            assert await daemon.stop() == 0
            assert "Traceback" not in daemon.log()
        assert await oldest(connection, "user_operation") >= SLICE_BLOCKS
        fresh = await fresh_indexer.dump(node.url, tip, **many)
        # A set was stored here, and of the raw rows the fresh index has all.
        for name in (*RAW, "verdict"):
            assert fresh.pop(name)
        assert len(fresh["session_root"]) > 20
        assert fresh["erc1155_balance"]
        assert not differences(fresh, after)


async def test_what_a_pass_still_has_to_read_stays(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """While a node has no state at old triggers these stay; once it has, every root is true."""
    await small_slices(connection, SLICE_BLOCKS)
    async with SimNode(seed=7, finality_depth=FINALITY_DEPTH) as node:
        story = tell(node)
        config = configuration(
            database_url,
            node.url,
            finality=FINALITY_DEPTH,
            managers=[hexed(manager) for manager in MANAGERS],
            retention_blocks=RETENTION_BLOCKS,
        )
        node.prune_before = SLICE_BLOCKS + 20
        async with running_daemon(tmp_path, config, "--once", name="pruned") as daemon:
            assert await daemon.ends() == 0
        assert daemon.events("state_pruned")
        assert not daemon.events("detail_dropped")
        assert await oldest(connection, "user_operation") < SLICE_BLOCKS

        node.heal()
        async with running_daemon(tmp_path, config, "--once", name="archive") as daemon:
            assert await daemon.ends() == 0
        assert len(daemon.events("detail_dropped")) == len(RAW)
        assert await oldest(connection, "user_operation") >= SLICE_BLOCKS
        assert await root_changes(connection) == story.root_changes()
        assert await balances_of(connection) == set(story.balances().items())
