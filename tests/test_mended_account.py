"""An account whose implementation was put back without a log is known to be clean again."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, Transaction
from indexer.devnet.operations import call_data, set_root_call
from indexer.store.chain_row import Connection
from tests.daemon_process import configuration, running_daemon, settled, until
from tests.route_silent import anybody_sets_root, replace_implementation
from tests.routes import Stage
from tests.watching import hexed, tip_of


@pytest.mark.parametrize("lane", ["live", "history"])
async def test_what_it_does_next_shows_it(
    devnet: Devnet,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    lane: str,
) -> None:
    """Either lane reads the slots of a tainted account wherever it acts, not at some logs only."""
    stage = Stage(devnet)
    account = await stage.ready("mended")
    finality = {"live": 10_000, "history": 2}[lane]
    config = configuration(database_url, devnet.url, finality=finality)
    await replace_implementation(stage, account)
    await anybody_sets_root(stage, "41", account, stage.new_root(account, "41"))
    back = call_data("restore(address)", at.IMPLEMENTATION)
    await devnet.send(Transaction(account.address, back, sender=at.STRANGER))
    await devnet.submit(account, [set_root_call(stage.new_root(account, "after"))])
    await devnet.rpc.mine(3)
    async with running_daemon(tmp_path, config) as daemon:
        tip = await tip_of(devnet)
        await until(lambda: settled(connection, *tip), "all of it to be indexed")
        row = await connection.fetchrow("SELECT implementation, tainted FROM watch.account")
        assert row is not None
        assert tuple(row) == (hexed(at.IMPLEMENTATION), False)
        assert await daemon.stop() == 0
