"""What traces add: who made every change, also where no log and no input says it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, running_devnet
from indexer.devnet.tools import Toolchain
from tests.daemon_process import configuration, running_daemon, settled, until
from tests.fixtures_database import Connection, connected, temporary_database
from tests.routes import MANAGERS, Stage
from tests.scenario_run import (
    Row,
    TracedCall,
    block_and_hash,
    hexed,
    play_everything,
    table,
    traced,
)

pytestmark = pytest.mark.timeout(120)

BY_MODULE = {
    "24 module delegatecall",
    "24 hidden in a library",
    "25 MultiSend",
    "two libraries in one block",
}
WITHOUT_OPERATION = {
    "36 a stranger through the fallback",
    "39 a handler set silently",
    "41 another implementation",
}
OPAQUE = {
    "08 bundler contract",
    "09 operations from storage",
    "10 two handleOps",
    "37 own fallback handler",
    "two operations by a bundler contract",
}


@pytest.fixture(scope="module")
async def played(toolchain: Toolchain) -> AsyncIterator[Stage]:
    async with running_devnet(toolchain) as devnet:
        stage = Stage(devnet)
        await play_everything(stage)
        yield stage


@pytest.fixture(scope="module", params=["debug", "trace"])
async def rows(
    request: pytest.FixtureRequest,
    played: Stage,
    postgres_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[dict[str, list[Row]]]:
    """What a daemon wrote that came afterwards; with "trace" first one that did not trace."""
    mode = request.param
    managers = [hexed(manager) for manager in MANAGERS]
    folder = tmp_path_factory.mktemp("traces")
    tip = await block_and_hash(played.devnet, "latest")
    async with (
        temporary_database(postgres_url, template_database) as url,
        connected(url) as database,
    ):
        for traces in ("off", "trace") if mode == "trace" else ("debug",):
            config = configuration(
                url, played.devnet.url, managers=managers, finality=2, traces=traces
            )
            async with running_daemon(folder, config, name=traces) as daemon:
                await until(lambda: settled(database, *tip), "the chain to be indexed")
                await until(lambda mode=traces: traced_by(database, mode), "the traces")
                assert await daemon.stop() == 0
        yield {
            view: await table(database, f"SELECT * FROM watch.{view} ORDER BY block_number")
            for view in ("session_root", "session_root_transient", "root_disagreement")
        }


async def traced_by(database: Connection, mode: str) -> bool:
    """Say whether a daemon with this setting has taken over, and nothing waits for a trace."""
    return bool(
        await database.fetchval(
            """SELECT settings ->> 'traces' = $1 AND NOT EXISTS (SELECT FROM chain.trace_queue)
                 FROM chain.chain""",
            mode,
        )
    )


async def true_writes(devnet: Devnet, row: Row) -> list[TracedCall]:
    return [
        call
        for call in await traced(devnet, row["block_number"])
        if call.sets_root and (call.to, call.caller) == (row["manager"], row["account"])
    ]


async def test_every_change_names_its_transaction(
    played: Stage, rows: dict[str, list[Row]]
) -> None:
    """No change is left without a maker, and each is the trace's own last write."""
    assert rows["session_root"]
    for row in rows["session_root"]:
        assert row["attribution"] not in {"none", "ambiguous"}, row
        true = (await true_writes(played.devnet, row))[-1]
        assert true.data[10:74] == row["root"][2:]
        assert row["transaction_hash"] == true.transaction_hash
        assert row["user_op_hash"] == true.user_op_hash


@pytest.mark.parametrize("route", sorted(BY_MODULE | WITHOUT_OPERATION | OPAQUE))
async def test_what_logs_left_open_is_settled(
    played: Stage, rows: dict[str, list[Row]], route: str
) -> None:
    """Silent changes, opaque bundles, libraries: who made them, and by which module."""
    changes = [change for change in played.report.changes if change.route == route]
    by_key = {(r["account"], r["block_number"]): r for r in rows["session_root"]}
    assert changes
    for change in changes:
        row = by_key[hexed(change.account), change.block_number]
        assert row["evidence"] == "trace"
        if route in BY_MODULE:
            assert (row["attribution"], row["module"]) == ("module", hexed(at.PUPPET_MODULE))
        elif route in WITHOUT_OPERATION:
            assert (row["attribution"], row["user_op_hash"]) == ("transaction", None)
        else:
            assert row["attribution"] == "user_operation"
            assert row["user_op_hash"] is not None


async def test_nothing_that_was_reverted_is_believed(rows: dict[str, list[Row]]) -> None:
    """Calls below a reverted one carry no error of their own: 13, 15 and 32 set no root."""
    assert rows["root_disagreement"] == []
    for row in rows["session_root_transient"]:
        assert row["root"] != row["final_root"]
