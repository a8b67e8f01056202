"""What the lanes read from the database and write there beside the rows of blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from indexer.core.types import Address, Hash32
from indexer.store.history import clear_unobserved
from indexer.store.live_view import read_live
from indexer.store.pool import Database
from indexer.store.watched import adopt_accounts
from tests.fixtures_database import Connection
from tests.schema_rows import CHAIN, address, hash32, insert

MANAGER, OTHER_MANAGER = Address(address(0xA1)), Address(address(0xA2))
ACCOUNT = Address(address(7))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.open(database_url, max_size=2) as opened:
        yield opened


@pytest.fixture
async def chain(connection: Connection) -> Connection:
    """A chain with two managers and the indexed block 100."""
    await insert(
        connection,
        "chain.chain",
        epoch=1,
        indexed_number=100,
        indexed_hash=hash32(100),
        managers=[MANAGER, OTHER_MANAGER],
    )
    return connection


async def test_each_manager_has_a_root_of_its_own(chain: Connection, database: Database) -> None:
    """The root last read in one manager never stands for the root in another."""
    for number in (50, 51):
        await insert(chain, "chain.block", block_number=number, hash=hash32(number))
    seen = {MANAGER: (50, hash32(5)), OTHER_MANAGER: (51, hash32(6))}
    for manager, (number, root) in seen.items():
        await insert(
            chain,
            "evidence.root_observation",
            manager=manager,
            account=ACCOUNT,
            block_number=number,
            block_hash=hash32(number),
            root=root,
        )
    await insert(chain, "sessions.session_set", manager=MANAGER, account=ACCOUNT, session_count=1)

    view = await read_live(database, CHAIN)

    assert view.stored == {ACCOUNT}
    assert view.polled_roots == {
        (MANAGER, ACCOUNT): Hash32(hash32(5)),
        (OTHER_MANAGER, ACCOUNT): Hash32(hash32(6)),
    }


async def test_accounts_that_are_watched_already_make_no_cohort(
    chain: Connection, database: Database
) -> None:
    """A cohort has accounts: an empty one would owe the whole history of the chain for nobody."""
    await insert(chain, "chain.account", account=ACCOUNT)
    await insert(chain, "chain.coverage", filter="accounts")
    async with database.transaction() as connection:
        await adopt_accounts(connection, CHAIN, [ACCOUNT], "stored")
    assert await chain.fetchval("SELECT count(*) FROM chain.cohort") == 0

    new = Address(address(8))
    async with database.transaction() as connection:
        await adopt_accounts(connection, CHAIN, [ACCOUNT, new], "stored")

    cohorts = await chain.fetch("SELECT cohort_id, adopted_block FROM chain.cohort")
    assert [tuple(row) for row in cohorts] == [(1, 100)]
    adopted = "SELECT account, cohort_id FROM chain.account WHERE source = 'stored'"
    assert [tuple(row) for row in await chain.fetch(adopted)] == [(new, 1)]
    assert await chain.fetchval("SELECT max(cohort) FROM chain.coverage") == 1
    assert await chain.fetchval("SELECT watch_version FROM chain.chain") == 1


@pytest.mark.parametrize(
    ("read", "left"),
    [
        ((10, 29), []),
        ((10, 19), [(20, 29)]),
        ((15, 19), [(10, 14), (20, 29)]),
        ((20, 40), [(10, 19)]),
        ((30, 40), [(10, 29)]),
    ],
)
async def test_what_could_be_read_after_all_is_no_longer_unobserved(
    chain: Connection, database: Database, read: tuple[int, int], left: list[tuple[int, int]]
) -> None:
    """However the ranges are cut the second time, exactly the blocks that were read are cleared."""
    await insert(
        chain, "evidence.unobserved", manager=MANAGER, first_block=10, last_block=29, reason="x"
    )
    await clear_unobserved(database, CHAIN, 1, MANAGER, read)
    rows = await chain.fetch("SELECT first_block, last_block FROM evidence.unobserved ORDER BY 1")
    assert [tuple(row) for row in rows] == left
