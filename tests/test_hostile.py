"""A contract that lies in every way it can stops nothing: neither lane, no range, no view."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.devnet.rpc import hexed
from indexer.store.chain_row import Connection
from tests.daemon_process import configuration, dump, running_daemon, settled, until
from tests.fresh_index import *  # noqa: F403 - a fixture is found by its name here
from tests.fresh_index import FreshIndexer, differences
from tests.route_tokens import batch_mint, hostile
from tests.routes import Stage

MOST = 2**256 - 1
TOKEN = hexed(at.HOSTILE_TOKEN)


async def tip_of(devnet: Devnet) -> tuple[int, bytes]:
    block = await devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    return int(block["number"], 16), bytes.fromhex(block["hash"][2:])


async def check_what_is_kept(connection: Connection, alice: str) -> None:
    """Numbers are exact, texts are bounded and clean, the rest is raw with its reason."""
    balances = {
        int(row["token_id"]): int(row["balance"])
        for row in await connection.fetch(
            "SELECT token_id, balance FROM watch.erc1155_balance WHERE contract = $1 "
            "AND owner = $2",
            TOKEN,
            alice,
        )
    }
    # Twice the most there is; a burn of what never was.
    assert (balances[1], balances[2]) == (2 * MOST, -MOST)
    uris = await connection.fetch(
        "SELECT value, length(value) AS characters FROM watch.erc1155_uri WHERE contract = $1",
        TOKEN,
    )
    assert all(row["characters"] <= 8192 and "\x00" not in row["value"] for row in uris)
    assert {"ab", "A" * 8192} <= {row["value"] for row in uris}
    raw = await connection.fetch(
        "SELECT topics, reason, data FROM watch.undecoded_log WHERE address = $1", TOKEN
    )
    assert len(raw) >= 5
    assert all(row["reason"] for row in raw)
    reasons = " ".join(row["reason"] for row in raw)
    assert "topics" in reasons


@pytest.mark.parametrize("lane", ["live", "history"])
async def test_a_hostile_token_is_followed(
    lane: str,
    devnet: Devnet,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    fresh_indexer: FreshIndexer,
) -> None:
    """Huge amounts, NUL, 100 kB texts, mismatched arrays: kept or kept raw, and never an end."""
    stage = Stage(devnet, 8)
    alice = await stage.ready("alice")
    finality = 64 if lane == "live" else 2
    config = configuration(database_url, devnet.url, finality=finality)
    if lane == "history":
        await hostile(stage)
        await devnet.rpc.mine(5)
    async with running_daemon(tmp_path, config) as daemon:
        await daemon.following()
        if lane == "live":
            await hostile(stage)
        # What comes after the lies, in the same contract's blocks and in others, is there too.
        await batch_mint(stage)
        tip = await tip_of(devnet)
        await until(lambda: settled(connection, *tip), "the lies to be indexed", 30)
        await check_what_is_kept(connection, hexed(alice.address))
        owner = await connection.fetchval(
            "SELECT balance FROM watch.erc1155_balance WHERE contract = $1 AND owner = $2 "
            "AND token_id = 1",
            hexed(at.SEED_TOKEN),
            hexed(alice.address),
        )
        assert owner == await devnet.balance_of(at.SEED_TOKEN, alice.address, 1)
        undecoded = await connection.fetchval("SELECT count(*) FROM watch.undecoded_log")
        metrics = (await daemon.get("/metrics"))[1]
        assert f'undecoded_logs_total{{chain="local"}} {undecoded:.1f}' in metrics
        assert not [event for event in daemon.events() if event["level"] == "error"]
        assert not daemon.events("step_retried")
        found = await dump(connection)
        assert await daemon.stop() == 0
    # Whichever lane read it, the same rows stand there.
    other = 2 if lane == "live" else 64
    fresh = await fresh_indexer.dump(devnet.url, tip, finality=other)
    for table in ("tail", "session_root"):
        # Which block is final is what was made to differ.
        fresh.pop(table)
    assert not differences(fresh, found)
