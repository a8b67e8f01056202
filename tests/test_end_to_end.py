"""The real daemon, a real node, the vendor's contracts: what stands in Postgres is the truth."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from indexer.core.session_sets import build_set
from indexer.devnet.accounts import Devnet
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.daemon_process import configuration, dump, running_daemon, settled, until
from tests.fixtures_database import connected, temporary_database
from tests.routes import MANAGERS, Stage, script, true_balances, truth

Connection = asyncpg.Connection[asyncpg.Record]


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
    found = await truth(devnet, MANAGERS, stage.report.all_accounts(), 0, last)
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
    """After a run over every route that leaves a log, watch.session_root equals eth_call at every block."""
    stage = Stage(devnet)
    config = configuration(database_url, devnet.url, managers=managers())
    async with running_daemon(tmp_path, config) as daemon:
        for step in script(stage):
            await step.run()
        number, block_hash = await tip_of(devnet)
        await until(lambda: settled(connection, number, block_hash), "the run to be indexed")

        expected = await true_changes(devnet, stage, number)
        assert len(expected) >= 40
        foreign = {hexed(account) for account in stage.report.foreign_accounts}
        wanted = {change for change in expected if change[1] not in foreign}
        assert await stored_changes(connection) == wanted

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

        balances = await true_balances(devnet, stage.report.holders, number)
        rows = await connection.fetch(
            "SELECT contract, owner, token_id, balance FROM watch.erc1155_balance"
        )
        stored = {(r["contract"], r["owner"], int(r["token_id"])): int(r["balance"]) for r in rows}
        for (token, owner, token_id), amount in balances.items():
            assert stored.get((hexed(token), hexed(owner), token_id), 0) == amount
        assert await daemon.stop() == 0
    assert "Traceback" not in daemon.log()


async def fresh_dump(
    postgres_url: str, template: str, devnet: Devnet, folder: Path, config_of
) -> dict:
    """What a daemon writes that sees only the chain as it is now."""
    number, block_hash = await tip_of(devnet)
    async with (
        temporary_database(postgres_url, template) as url,
        connected(url) as connection,
        running_daemon(folder, config_of(url), name="fresh") as daemon,
    ):
        await until(lambda: settled(connection, number, block_hash), "the fresh index")
        found = await dump(connection)
        assert await daemon.stop() == 0
    return found
