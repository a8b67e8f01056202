"""Random operations of many accounts, in random blocks, between forks: both lanes find the truth.

One daemon follows, another comes when all has happened. Each must have every net change of every
block, in that block, and no other; the truth is read from the node at every block.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.devnet.accounts import Devnet
from indexer.devnet.rpc import hexed
from indexer.store.chain_row import Connection
from tests.daemon_process import configuration, running_daemon, settled, until
from tests.fixtures_database import connected, temporary_database
from tests.random_run import MANAGERS, RandomRun, holders, true_changes, true_operations
from tests.routes import true_balances
from tests.scenario_run import comparable
from tests.watching import tip_of

ACCOUNTS = 50
PATIENCE_SECONDS = 900.0
"""The test's own time limit ends it before."""


async def the_truth_is_found(
    devnet: Devnet, urls: tuple[str, str], folder: Path, *, seed: int, operations: int
) -> None:
    run = RandomRun(devnet, seed, ACCOUNTS, operations)
    first = await devnet.rpc.block_number()
    live_url, history_url = urls
    managers = [hexed(manager) for manager in MANAGERS]
    config = configuration(live_url, devnet.url, managers=managers)
    later = configuration(history_url, devnet.url, managers=managers, finality=2)
    async with (
        connected(live_url) as live,
        connected(history_url) as history,
        running_daemon(folder, config, name="live") as daemon,
    ):
        await daemon.following()
        await run.prepare()

        async def caught_up() -> None:
            tip = await tip_of(devnet)
            await until(lambda: is_indexed(live, *tip), f"block {tip[0]} before a fork")

        await run.play(caught_up)
        assert await live.fetchval("SELECT count(*) FROM watch.reorg") >= len(run.forks) // 2
        async with running_daemon(folder, later, name="history") as second:
            tip = await tip_of(devnet)
            await until(lambda: settled(history, *tip), "the run to be indexed", PATIENCE_SECONDS)
            await until(lambda: settled(live, *tip), "the run to be followed", PATIENCE_SECONDS)
            followed, indexed = await comparable(live), await comparable(history)
            assert await second.stop() == 0
            assert "Traceback" not in second.log()
        assert await daemon.stop() == 0
        assert "Traceback" not in daemon.log()

    changes = await true_changes(devnet, MANAGERS, run.addresses, first, tip[0])
    true_ops = await true_operations(devnet, run.addresses, tip[0])
    balances = await true_balances(devnet, holders(run), tip[0])
    for name, tables in (("live", followed), ("history", indexed)):
        rows = [
            (r["manager"], r["account"], r["block_number"], r["root"])
            for r in tables["session_root"]
        ]
        assert len(rows) == len(set(rows)), name
        assert sorted(set(rows) - changes) == [], f"{name}: invented"
        assert sorted(changes - set(rows)) == [], f"{name}: missing"
        assert {
            (op["user_op_hash"], op["sender"], op["success"], op["block_number"])
            for op in tables["user_operation"]
        } == true_ops, name
        held = {
            (b["contract"], b["owner"], b["token_id"]): b["balance"]
            for b in tables["erc1155_balance"]
        }
        assert held == {
            (hexed(token), hexed(owner), token_id): amount
            for (token, owner, token_id), amount in balances.items()
            if amount
        }, name
    for name, found in followed.items():
        assert [row for row in found if row not in indexed[name]] == [], f"{name}: live alone"
        assert [row for row in indexed[name] if row not in found] == [], f"{name}: history alone"


async def is_indexed(connection: Connection, number: int, block_hash: bytes) -> bool:
    row = await connection.fetchrow("SELECT indexed_number, indexed_hash FROM chain.chain")
    return row is not None and tuple(row) == (number, block_hash)


@pytest.mark.timeout(180)
async def test_random_operations(
    devnet: Devnet, postgres_url: str, template_database: str, tmp_path: Path
) -> None:
    """Six operations of each of 50 accounts."""
    async with (
        temporary_database(postgres_url, template_database) as live,
        temporary_database(postgres_url, template_database) as history,
    ):
        await the_truth_is_found(devnet, (live, history), tmp_path, seed=1, operations=6)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [11, 12])
async def test_random_operations_for_long(
    seed: int, devnet: Devnet, postgres_url: str, template_database: str, tmp_path: Path
) -> None:
    """Sixty operations of each."""
    async with (
        temporary_database(postgres_url, template_database) as live,
        temporary_database(postgres_url, template_database) as history,
    ):
        await the_truth_is_found(devnet, (live, history), tmp_path, seed=seed, operations=60)
