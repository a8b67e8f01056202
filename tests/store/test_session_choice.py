"""Which stored set is meant, and what is known of its account's root."""

from __future__ import annotations

import asyncpg
import pytest

from indexer.core.root_search import Base
from indexer.core.session_sets import build_set
from indexer.core.types import Address, Session
from indexer.errors import UsageError
from indexer.store.pool import Database
from indexer.store.session_choice import Indexed, indexed, newest_sets, search_bases, stored_set
from indexer.store.sessions import import_sets
from tests.store.filling import ACCOUNT, CHAIN_ID, MANAGER, MODULE, OTHER_MANAGER

OTHER_ACCOUNT = Address(b"\xbb" * 20)
BLOCK, ORPHAN, ROOT = b"\x01" * 32, b"\x02" * 32, b"\x77" * 32


@pytest.fixture
async def database(database_url):
    """As the daemon's role: what it may not read, the verbs cannot read either."""
    connection = await asyncpg.connect(database_url)
    name = database_url.partition("?")[0].rpartition("/")[2]
    await connection.execute(f"ALTER DATABASE {name} SET role TO sessionwatch_writer")
    await connection.close()
    async with Database.open(database_url, max_size=2) as opened:
        yield opened


def one_set(data, chain_id=CHAIN_ID, manager=MANAGER, account=ACCOUNT):
    return build_set(chain_id, manager, account, [Session(0, 0, MODULE, data)])


async def store(database, *sets):
    return [row.set_id for row in await import_sets(database, [(one, "plain") for one in sets])]


async def test_the_newest_set_of_each_place(database):
    """One per chain and manager, the one stored last; the options narrow it down."""
    ids = await store(
        database,
        one_set(b"1"),
        one_set(b"2"),
        one_set(b"3", manager=OTHER_MANAGER),
        one_set(b"4", chain_id=5),
        one_set(b"5", account=OTHER_ACCOUNT),
    )
    places = [(ids[3], 5, MANAGER), (ids[1], CHAIN_ID, MANAGER), (ids[2], CHAIN_ID, OTHER_MANAGER)]
    assert set(await newest_sets(database, ACCOUNT)) == set(places)
    assert await newest_sets(database, ACCOUNT, chain_id=5) == [places[0]]
    assert await newest_sets(database, ACCOUNT, manager=OTHER_MANAGER) == [places[2]]
    assert await newest_sets(database, Address(b"\x01" * 20)) == []


async def test_what_only_records_the_chain_is_no_newest_set(database):
    """The tree of the SDK's revokeSessions is stored, but no client wants it."""
    (wanted,) = await store(database, one_set(b"1"))
    recorded = build_set(
        CHAIN_ID, MANAGER, ACCOUNT, [Session(0, 0, MODULE, b"2")], matched_form="revoke_form"
    )
    await store(database, recorded)
    assert await newest_sets(database, ACCOUNT) == [(wanted, CHAIN_ID, MANAGER)]


async def test_a_set_by_its_id_has_its_data(database):
    """What import stored, session_key_data included; an id that is not there is wrong usage."""
    (set_id,) = await store(database, one_set(b"data"))
    stored = await stored_set(database, set_id)
    assert (stored.set_id, stored.sessions) == (set_id, one_set(b"data").sessions)
    with pytest.raises(UsageError, match="no session set 999"):
        await stored_set(database, 999)


async def test_the_last_canonical_root_and_the_chains_time(database, database_url):
    """Nothing known is None; a root seen in a block that a reorg took does not count."""
    assert await indexed(database, CHAIN_ID, MANAGER, ACCOUNT) == Indexed(None, None, None, None)
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        """INSERT INTO chain.chain (chain_id, name, indexed_number, indexed_hash, indexed_time)
           VALUES ($1, 'local', 9, $2, 1000)""",
        CHAIN_ID, BLOCK,
    )  # fmt: skip
    assert await indexed(database, CHAIN_ID, MANAGER, ACCOUNT) == Indexed(9, 1000, None, None)
    await connection.execute(
        "INSERT INTO chain.block VALUES ($1, 8, $2, 990), ($1, 9, $2, 1000)", CHAIN_ID, BLOCK
    )
    await connection.executemany(
        "INSERT INTO evidence.root_observation VALUES ($1, $2, $3, $4, $5, $6)",
        [
            (CHAIN_ID, MANAGER, ACCOUNT, 8, BLOCK, ROOT),
            (CHAIN_ID, MANAGER, ACCOUNT, 9, ORPHAN, b"\x99" * 32),
            (CHAIN_ID, OTHER_MANAGER, ACCOUNT, 9, BLOCK, b"\x55" * 32),
            (CHAIN_ID, MANAGER, OTHER_ACCOUNT, 9, BLOCK, bytes(32)),
        ],
    )
    assert await indexed(database, CHAIN_ID, MANAGER, ACCOUNT) == Indexed(9, 1000, ROOT, 8)
    # A root seen again stands since it was set; one that never was another than zero, since ever.
    await connection.execute("INSERT INTO chain.block VALUES ($1, 10, $2, 1010)", CHAIN_ID, BLOCK)
    await connection.execute(
        "INSERT INTO evidence.root_observation VALUES ($1, $2, $3, 10, $4, $5)",
        CHAIN_ID, MANAGER, ACCOUNT, BLOCK, ROOT,
    )  # fmt: skip
    assert await indexed(database, CHAIN_ID, MANAGER, ACCOUNT) == Indexed(9, 1000, ROOT, 8)
    none = Indexed(9, 1000, bytes(32), None)
    assert await indexed(database, CHAIN_ID, MANAGER, OTHER_ACCOUNT) == none
    await connection.close()


async def test_a_search_starts_from_all_sets_of_the_place(database):
    """Newest first, leaves in order, statuses beside them; records of the chain among them."""
    first, second = Session(0, 0, MODULE, b"1"), Session(0, 0, MODULE, b"2")
    told = build_set(CHAIN_ID, MANAGER, ACCOUNT, [second, first], client_statuses=("revoked", None))
    left = build_set(CHAIN_ID, MANAGER, ACCOUNT, [second, first, first], matched_form="revoke_form")
    ids = await store(database, told, left, one_set(b"3", manager=OTHER_MANAGER))
    assert await search_bases(database, CHAIN_ID, MANAGER, ACCOUNT) == [
        Base(ids[1], left.leaves, (None, None, None)),
        Base(ids[0], told.leaves, ("revoked", None)),
    ]
