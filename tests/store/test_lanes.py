"""What the lanes read from the database and write there beside the rows of blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from indexer.core.debt import Task
from indexer.core.passes import roots_pass
from indexer.core.types import Address, Hash32
from indexer.store.history import Payment, apply_range, read_ledger
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

    view = await read_live(database, CHAIN, 1)

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
    await finalize(chain)
    for cohort in (0, 1):
        await insert(
            chain,
            "evidence.unobserved",
            manager=MANAGER,
            cohort=cohort,
            first_block=10,
            last_block=29,
            reason="x",
        )
    task = Task("roots", (roots_pass(MANAGER),), 0, *read)
    await apply_range(database, CHAIN, 1, Payment(task))
    assert await unobserved(chain, 0) == left
    assert await unobserved(chain, 1) == [(10, 29)]


async def test_what_is_lost_is_noted_and_stays_missing(
    chain: Connection, database: Database
) -> None:
    """A range is covered but for what no node has; asked again, it is noted anew."""
    await finalize(chain)
    task = Task("roots", (roots_pass(MANAGER),), 0, 10, 29)
    for lost in ([(12, 14), (20, 20)], [(12, 12)]):
        await apply_range(database, CHAIN, 1, Payment(task, lost=lost, lost_reason="pruned"))
        assert await unobserved(chain, 0) == lost
    ledger = await read_ledger(database, CHAIN)
    assert ledger is not None
    assert ledger.lost == {(roots_pass(MANAGER), 0): ((12, 12),)}
    covered = ledger.covered[roots_pass(MANAGER), 0]
    assert covered == ((10, 11), (13, 29))


async def finalize(chain: Connection) -> None:
    await chain.execute(
        "UPDATE chain.chain SET start_block = 0, finalized_number = 100, finalized_hash = $1, "
        "finality_violation = NULL",
        hash32(100),
    )


async def unobserved(chain: Connection, cohort: int) -> list[tuple[int, int]]:
    rows = await chain.fetch(
        "SELECT first_block, last_block FROM evidence.unobserved WHERE cohort = $1 ORDER BY 1",
        cohort,
    )
    return [tuple(row) for row in rows]
