"""The real daemon, a real node, the vendor's contracts: what stands in Postgres is the truth."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from indexer.core.session_sets import build_set
from indexer.devnet.accounts import Devnet
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.daemon_process import (
    configuration,
    dump,
    indexed_block,
    running_daemon,
    settled,
    until,
)
from tests.fixtures_database import connected, temporary_database
from tests.routes import MANAGERS, Stage, script, true_balances, truth


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


async def tip_of(devnet: Devnet) -> tuple[int, bytes]:
    """The chain's last block: number and hash."""
    block = await devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    return int(block["number"], 16), bytes.fromhex(block["hash"][2:])


async def store_sets(database_url: str, stage: Stage) -> None:
    """Store every set of the script, as `sessions import` does."""
    sets = [
        build_set(80001, one.manager, one.account, one.sessions)
        for one in stage.report.sets.values()
    ]
    async with Database.open(database_url) as database:
        await import_sets(database, [(one, "test") for one in sets])


async def stored_changes(connection: Connection) -> set[tuple[str, str, int, str]]:
    rows = await connection.fetch(
        "SELECT manager, account, block_number, root FROM watch.session_root"
    )
    return {tuple(row) for row in rows}


async def true_changes(devnet: Devnet, stage: Stage, last: int) -> set[tuple[str, str, int, str]]:
    """Every change of the factory's accounts, by eth_call at every block."""
    found = await truth(devnet, MANAGERS, stage.report.accounts, 0, last)
    return {
        (hexed(manager), hexed(account), number, hexed(root))
        for (manager, account), changes in found.items()
        for number, root in changes
    }


def managers() -> list[str]:
    return [hexed(manager) for manager in MANAGERS]


@pytest.mark.timeout(240)
async def test_every_route_is_found_and_no_look_alike(
    devnet: Devnet, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """After every route that leaves a log, watch.session_root equals eth_call at every block."""
    stage = Stage(devnet)
    config = configuration(database_url, devnet.url, managers=managers())
    async with running_daemon(tmp_path, config) as daemon:
        for step in script(stage):
            await step.run()
        number, block_hash = await tip_of(devnet)
        await until(lambda: settled(connection, number, block_hash), "the run to be indexed")

        expected = await true_changes(devnet, stage, number)
        assert len(expected) >= 40
        assert await stored_changes(connection) == expected

        await store_sets(database_url, stage)
        await until(lambda: settled(connection, number, block_hash), "the sets to be decided")
        # Foreign accounts have a set now, so they are watched, and their current root is known.
        linked = await connection.fetch(
            "SELECT manager, account, root, set_id FROM watch.session_root"
        )
        known = {
            (hexed(s.manager), hexed(s.account), hexed(s.root)) for s in stage.report.sets.values()
        }
        assert {
            (r["manager"], r["account"], r["root"]) for r in linked if r["set_id"] is not None
        } == {
            (r["manager"], r["account"], r["root"])
            for r in linked
            if (r["manager"], r["account"], r["root"]) in known
        }

        assert len([row for row in linked if row["set_id"] is not None]) >= 40

        balances = await true_balances(devnet, stage.report.holders, number)
        rows = await connection.fetch(
            "SELECT contract, owner, token_id, balance FROM watch.erc1155_balance"
        )
        stored = {(r["contract"], r["owner"], int(r["token_id"])): int(r["balance"]) for r in rows}
        for (token, owner, token_id), amount in balances.items():
            assert stored.get((hexed(token), hexed(owner), token_id), 0) == amount
        assert await daemon.stop() == 0
    assert "Traceback" not in daemon.log()


class FreshIndex:
    """Indexes the chain as it is now with a daemon of its own, into a database of its own."""

    def __init__(self, postgres_url: str, template: str, folder: Path) -> None:
        self._postgres_url, self._template, self._folder = postgres_url, template, folder

    async def dump(self, devnet: Devnet, **keys: object) -> dict[str, list[Any]]:
        """Return what a daemon writes that sees only the winning branch."""
        number, block_hash = await tip_of(devnet)
        async with temporary_database(self._postgres_url, self._template) as url:
            config = configuration(url, devnet.url, managers=managers(), **keys)
            async with (
                connected(url) as connection,
                running_daemon(self._folder, config, name="fresh") as daemon,
            ):
                await until(lambda: settled(connection, number, block_hash), "a fresh index")
                found = await dump(connection)
                assert await daemon.stop() == 0
        return found


@pytest.fixture
def fresh_index(postgres_url: str, template_database: str, tmp_path: Path) -> FreshIndex:
    return FreshIndex(postgres_url, template_database, tmp_path)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 2])
async def test_reorgs_end_as_if_the_orphans_never_were(
    seed: int,
    devnet: Devnet,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    fresh_index: FreshIndex,
) -> None:
    """After three reorgs of depth 1 to 8 while following, every table equals a fresh index."""
    stage, chance = Stage(devnet, seed), random.Random(seed)
    steps = script(stage)
    forks = set(chance.sample(range(len(steps) // 3, len(steps)), 3))
    config = configuration(database_url, devnet.url, managers=managers())
    async with running_daemon(tmp_path, config) as daemon:
        for index, step in enumerate(steps):
            await step.run()
            if index in forks:
                number, block_hash = await tip_of(devnet)
                await until(lambda: is_tip(connection, number, block_hash), "the tip")  # noqa: B023
                await devnet.rpc.reorg(chance.randint(1, 8))
        number, block_hash = await tip_of(devnet)
        await until(lambda: settled(connection, number, block_hash), "the run to be indexed")
        assert await connection.fetchval("SELECT count(*) FROM watch.reorg") == 3
        assert await stored_changes(connection) == await true_changes(devnet, stage, number)
        found = await dump(connection)
        assert await daemon.stop() == 0
    assert await fresh_index.dump(devnet) == found


@pytest.mark.timeout(300)
async def test_twenty_kills_lose_nothing(
    devnet: Devnet,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    fresh_index: FreshIndex,
) -> None:
    """Killed at 20 random moments with reorgs between, it ends where a fresh index does."""
    stage, chance = Stage(devnet, 3), random.Random(3)
    steps = iter(script(stage))
    config = configuration(database_url, devnet.url, managers=managers())
    for kill in range(20):
        async with running_daemon(tmp_path, config) as daemon:
            began = await indexed_block(connection)
            for step in itertools.islice(steps, 4):
                await step.run()
            await devnet.rpc.mine()
            if kill % 6 == 5:
                await devnet.rpc.reorg(chance.randint(1, 8))
            # A random moment of its work: while it starts, catches up, pays or decides.
            if kill % 4:
                await until(lambda: has_moved(connection, began), "a first step")  # noqa: B023
            await asyncio.sleep(chance.random() * 0.15)
            assert await daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    for step in steps:
        await step.run()
    number, block_hash = await tip_of(devnet)
    async with running_daemon(tmp_path, config, name="last") as daemon:
        await daemon.following()
        await until(lambda: settled(connection, number, block_hash), "the run to be indexed")
        assert await stored_changes(connection) == await true_changes(devnet, stage, number)
        found = await dump(connection)
        assert await daemon.stop() == 0
    assert await fresh_index.dump(devnet) == found


async def is_tip(connection: Connection, number: int, block_hash: bytes) -> bool:
    row = await connection.fetchrow("SELECT indexed_number, indexed_hash FROM chain.chain")
    return row is not None and tuple(row) == (number, block_hash)


async def has_moved(connection: Connection, began: int) -> bool:
    return await indexed_block(connection) > began
