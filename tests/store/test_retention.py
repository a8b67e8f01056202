"""Dropping old raw detail: what may go, what stays, and what is counted once all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from indexer.core.decoded import Erc1155Transfer
from indexer.core.passes import all_passes
from indexer.core.types import Address, Hash32, Log
from indexer.errors import FencedError, RetryableError, UsageError
from indexer.store import operator
from indexer.store.chain_row import read_chain, take_over
from indexer.store.pool import Database
from indexer.store.retention import LOCK_TIMEOUT_MS, TABLES, Dropped, drop_oldest, uncounted
from indexer.store.watched import adopt_accounts
from tests.daemon_process import until
from tests.fixtures_database import Connection, connected
from tests.schema_rows import CHAIN, address, cover, hash32, insert, small_slices
from tests.sim.settings import chain_settings

TOKEN, OTHER_TOKEN = Address(address(0x70)), Address(address(0x71))
ACCOUNT = Address(address(7))
PASSES = [("logs", "accounts"), ("bodies", "accounts"), ("roots/0xaa", "accounts")]
PASSES += [("logs", "erc1155/all")]
FINAL = 500
KEEP = 250
"""Slices of 100 blocks: 0 to 99 and 100 to 199 end deep enough below FINAL."""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.open(database_url, max_size=3) as opened:
        yield opened


async def put(connection: Connection, block: int, *, chain_id: int = CHAIN) -> None:
    """One row of each raw table in a block, and a second event: of a module."""
    key = {"chain_id": chain_id, "block_number": block}
    await connection.execute("SELECT chain.ensure_partitions($1, $2)", chain_id, block)
    for log_index, event in enumerate(("ExecutionSuccess", "EnabledModule")):
        await insert(
            connection,
            "chain.account_event",
            **key,
            log_index=log_index,
            account=ACCOUNT,
            event=event,
            args=f'{{"module": "0x{block:040x}"}}',
        )
    await insert(connection, "chain.user_operation", **key, sender=ACCOUNT)
    await insert(connection, "chain.erc1155_transfer", **key, contract=TOKEN)


@pytest.fixture
async def chain(connection: Connection) -> Connection:
    """A chain final to FINAL with rows in every slice, and nothing owed."""
    await small_slices(connection)
    await insert(
        connection,
        "chain.chain",
        epoch=1,
        start_block=10,
        finalized_number=FINAL,
        finalized_hash=hash32(FINAL),
        indexed_number=FINAL,
        indexed_hash=hash32(FINAL),
        settings='{"passes": [' + ", ".join(f'["{n}", "{f}"]' for n, f in PASSES) + "]}",
    )
    for name, filter_ in PASSES:
        await cover(connection, name, filter_, (10, FINAL), live_from=FINAL)
    await insert(connection, "chain.account", account=ACCOUNT)
    for block in (15, 99, 100, 250, 320):
        await put(connection, block)
    return connection


async def blocks_of(connection: Connection, table: str) -> list[int]:
    query = f"SELECT block_number FROM chain.{table} WHERE chain_id = $1 ORDER BY 1"
    return [row[0] for row in await connection.fetch(query, CHAIN)]


async def drop_all(database: Database, keep: int = KEEP) -> list[Dropped]:
    found: list[Dropped] = []
    while step := await drop_oldest(database, CHAIN, 1, keep):
        found += step
    return found


async def test_old_slices_go_one_after_the_other(chain: Connection, database: Database) -> None:
    """Each step drops the oldest slice of all three tables and says from where on all is there."""
    await put(chain, 20, chain_id=1)
    modules = "SELECT modules FROM watch.account"
    before = await chain.fetchval(modules)
    steps = [await drop_oldest(database, CHAIN, 1, KEEP) for _ in range(3)]
    assert [[(d.table, d.first_block, d.last_block) for d in step] for step in steps] == [
        [(table, 0, 99) for table in TABLES],
        [(table, 100, 199) for table in TABLES],
        [],
    ]
    for table in ("user_operation", "erc1155_transfer"):
        assert await blocks_of(chain, table) == [250, 320]
    # Of account_event the modules stay, at every block; of the other chain everything.
    assert await blocks_of(chain, "account_event") == [15, 99, 100, 250, 250, 320, 320]
    assert await chain.fetchval(modules) == before
    assert len(before) == 5
    assert await chain.fetchval("SELECT count(*) FROM chain.account_event WHERE chain_id = 1") == 2
    assert await chain.fetchval("SELECT detail_from FROM watch.progress") == 200
    coverage = {
        tuple(row[:2]): tuple(row[2:])
        for row in await chain.fetch(
            "SELECT pass, filter, blocks::text, dropped::text FROM chain.coverage"
        )
    }
    assert {blocks for blocks, _ in coverage.values()} == {f"{{[10,{FINAL + 1})}}"}
    assert coverage["logs", "accounts"][1] == "{[10,200)}"
    assert {gone for key, (_, gone) in coverage.items() if key[1] != "accounts"} == {"{}"}


@pytest.mark.parametrize(
    ("keep", "first_kept"), [(FINAL, 0), (402, 0), (401, 100), (KEEP, 200), (1, 500)]
)
async def test_a_slice_goes_when_it_ends_deep_enough(
    chain: Connection, database: Database, keep: int, first_kept: int
) -> None:
    """The last block of a slice that goes is at or below the finalized one less `keep`."""
    await put(chain, FINAL)
    await drop_all(database, keep)
    assert (await chain.fetchval("SELECT detail_from FROM chain.chain") or 0) == first_kept
    kept = await blocks_of(chain, "user_operation")
    assert kept == [n for n in (15, 99, 100, 250, 320, FINAL) if n >= first_kept]


@pytest.mark.parametrize(("name", "filter_"), PASSES)
async def test_nothing_goes_that_a_pass_owes(
    chain: Connection, database: Database, name: str, filter_: str
) -> None:
    """One block of debt of any configured pass keeps its slice and all above it."""
    await chain.execute(
        "UPDATE chain.coverage SET blocks = blocks - '{[150,151)}' WHERE pass = $1 AND filter = $2",
        name,
        filter_,
    )
    await drop_all(database)
    assert await blocks_of(chain, "user_operation") == [100, 250, 320]


async def test_nothing_goes_that_a_cohort_owes(chain: Connection, database: Database) -> None:
    """Accounts that were adopted owe their past; when it is paid it may go, and is noted."""
    async with database.transaction() as connection:
        await adopt_accounts(connection, CHAIN, [Address(address(8))], "stored")
    assert await drop_all(database) == []
    await chain.execute(f"UPDATE chain.coverage SET blocks = '{{[10,{FINAL + 1})}}'")
    assert len(await drop_all(database)) == 6
    gone = "SELECT DISTINCT dropped::text FROM chain.coverage WHERE pass = 'logs' AND filter = $1"
    assert [row[0] for row in await chain.fetch(gone, "accounts")] == ["{[10,200)}"]


async def test_a_pass_without_coverage_owes_everything(
    chain: Connection, database: Database
) -> None:
    """A configured pass that has no row yet counts as one that has read nothing."""
    await chain.execute("DELETE FROM chain.coverage WHERE pass = 'bodies'")
    assert await drop_all(database) == []


async def test_transfers_stay_that_no_coverage_speaks_of(
    chain: Connection, database: Database
) -> None:
    """A contract that is no longer watched was counted beyond its coverage: its rows stay."""
    await chain.execute(
        """UPDATE chain.coverage SET filter = 'erc1155/' || evidence.hex($1::bytea),
               blocks = '{[10,100)}' WHERE filter = 'erc1155/all'""",
        TOKEN,
    )
    await chain.execute(
        "UPDATE chain.chain"
        " SET settings = jsonb_set(settings, '{passes}', (settings -> 'passes') - 3)"
    )
    await drop_all(database)
    assert await blocks_of(chain, "erc1155_transfer") == [100, 250, 320]
    assert await blocks_of(chain, "user_operation") == [250, 320]


async def test_what_lies_below_a_later_start_goes_too(
    chain: Connection, database: Database
) -> None:
    """Rows from before the configured first block are as old as any."""
    await chain.execute("UPDATE chain.chain SET start_block = 150")
    assert len(await drop_all(database)) == 6
    assert await blocks_of(chain, "erc1155_transfer") == [250, 320]


async def test_a_daemon_that_was_followed_by_another_drops_nothing(
    chain: Connection, database: Database
) -> None:
    """An old epoch is refused, and while the node contradicts what is final nothing goes."""
    with pytest.raises(FencedError):
        await drop_oldest(database, CHAIN, 0, KEEP)
    await chain.execute("UPDATE chain.chain SET finality_violation = 'x'")
    assert await drop_all(database) == []


async def test_a_reader_is_not_waited_for_long(
    chain: Connection, database: Database, database_url: str
) -> None:
    """While a query holds a table nothing is dropped, and nobody behind the drop waits long."""
    clock = asyncio.get_running_loop().time
    async with connected(database_url) as reader, reader.transaction():
        await reader.fetch("SELECT * FROM watch.user_operation")
        began = clock()
        with pytest.raises(RetryableError, match="in use") as caught:
            await drop_oldest(database, CHAIN, 1, KEEP)
        assert type(caught.value) is RetryableError  # the database is not lost
        assert clock() - began < 20 * LOCK_TIMEOUT_MS / 1000
        assert await chain.fetchval("SELECT detail_from FROM chain.chain") is None
        assert await blocks_of(chain, "account_event") == [15, 15, 99, 99, 100, 100] + 2 * [250] + (
            2 * [320]
        )
    assert len(await drop_all(database)) == 6


async def test_an_account_adopted_meanwhile_keeps_the_slice(
    chain: Connection, database: Database, database_url: str
) -> None:
    """Adopting goes on while rows are copied; then the drop is planned again, on its debt."""
    async with connected(database_url) as adopter:
        adopting = adopter.transaction()
        await adopting.start()
        await adopter.execute("SET LOCAL ROLE sessionwatch_writer")
        await adopt_accounts(adopter, CHAIN, [Address(address(8))], "stored")

        async def waits() -> bool:
            return bool(
                await chain.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
            )

        async def commit() -> None:
            await until(waits, "the drop to wait for the chain's row")
            await adopting.commit()

        async with asyncio.TaskGroup() as group:
            group.create_task(commit())
            with pytest.raises(RetryableError):
                await drop_oldest(database, CHAIN, 1, KEEP)
    assert await chain.fetchval("SELECT detail_from FROM chain.chain") is None
    assert await drop_all(database) == []


async def test_a_manager_added_later_has_its_logs_read_again(
    chain: Connection, database: Database
) -> None:
    """What was dropped and the new manager needs is debt again, once; nothing else is."""
    await drop_all(database)
    settings = chain_settings("http://127.0.0.1:9")
    managers = (Address(address(0xA1)),)

    async def restart() -> dict[str, str]:
        new = type(settings)(
            **{name: getattr(settings, name) for name in settings.__slots__}
            | {"managers": managers}
        )
        async with database.transaction() as connection:
            await take_over(connection, new, all_passes(new), {})
        rows = await chain.fetch(
            "SELECT concat_ws(' ', pass, filter), (blocks - dropped)::text FROM chain.coverage"
        )
        return {row[0]: row[1] for row in rows}

    found = await restart()
    rest = f"{{[200,{FINAL + 1})}}"
    assert (found["logs accounts"], found["bodies accounts"]) == (rest, rest)
    assert found["logs erc1155/all"] == f"{{[10,{FINAL + 1})}}"
    # Some of it is paid, then the daemon starts again: that is not read a second time.
    await chain.execute(
        "UPDATE chain.coverage SET blocks = blocks + '{[10,60)}'"
        " WHERE filter = 'accounts' AND pass IN ('logs', 'bodies')"
    )
    found = await restart()
    assert found["logs accounts"] == f"{{[10,60),[200,{FINAL + 1})}}"
    assert await drop_oldest(database, CHAIN, 3, KEEP) == []


def transfer(block: int, contract: Address, index: int = 0) -> Erc1155Transfer:
    empty = Hash32(bytes(32))
    at = Log(block, empty, empty, 0, index, contract, (), b"")
    return Erc1155Transfer(at, contract, 0, ACCOUNT, ACCOUNT, ACCOUNT, 1, 1, None)


async def test_a_transfer_whose_row_is_dropped_counts_once(
    chain: Connection, database: Database
) -> None:
    """Below detail_from coverage says what is counted; at and above it a new row is new."""
    own = "erc1155/0x" + TOKEN.hex()
    await chain.execute("DELETE FROM chain.coverage WHERE filter LIKE 'erc1155/%'")
    await cover(chain, "logs", own, (10, 49), (60, FINAL))
    found = [
        transfer(block, contract)
        for block in (49, 50, 60, 150)
        for contract in (TOKEN, OTHER_TOKEN)
    ]

    async def counted() -> set[tuple[int, Address]]:
        async with database.transaction() as connection:
            row = await read_chain(connection, CHAIN)
            assert row is not None
            new = await uncounted(connection, row, found)
        return {(t.at.block_number, t.contract) for t in found if t not in new}

    assert await counted() == set()
    await chain.execute("UPDATE chain.chain SET detail_from = 100")
    assert await counted() == {(49, TOKEN), (60, TOKEN)}
    # Among all: what one pass counted no other counts again.
    await cover(chain, "logs", "erc1155/all", (50, 55))
    assert await counted() == {(49, TOKEN), (50, TOKEN), (60, TOKEN), (50, OTHER_TOKEN)}


async def test_an_operator_is_told_why_a_rewind_stops_where_detail_begins(
    chain: Connection, database: Database
) -> None:
    """Balances cannot be taken back below detail_from."""
    await drop_all(database)
    with pytest.raises(UsageError, match="below block 200 is dropped") as caught:
        await operator.rewind(database, CHAIN, 150, below_finality=True, dry_run=True)
    assert "keep block 199" in caught.value.remedy
    await operator.rewind(database, CHAIN, 199, below_finality=True, dry_run=False)
    assert await blocks_of(chain, "user_operation") == []
