"""Importing session sets: order, identity, the queue, and who is woken."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from indexer.core.session_sets import build_set
from indexer.core.types import ZERO_HASH, Address, Session
from indexer.store.pool import Database
from indexer.store.sessions import WAKE_CHANNEL, current_roots, import_sets, list_sets, show_set
from indexer.store.verdict_queue import queued_keys
from tests.store.filling import (
    ACCOUNT,
    CHAIN_ID,
    KEY,
    MANAGER,
    MODULE,
    OTHER_MANAGER,
    Filling,
    listening,
    session_set,
)

ERC20_MODULE = Address(bytes.fromhex("000000D50C68705bd6897B2d17c7de32FB519fDA"))


@pytest.fixture
async def database(database_url):
    async with Database.open(database_url, max_size=3) as opened:
        yield opened


@pytest.fixture
async def filling(database):
    return Filling(database)


async def test_an_imported_set_is_stored_in_order_with_its_leaves_and_root(database, filling):
    """Every session comes back at its place, duplicates kept, with the root computed here."""
    await filling.start(100)
    given = session_set([3, 1, 2, 1])
    [row] = await import_sets(database, [(given, "plain")])
    shown, sessions = await show_set(database, row.set_id)

    assert row.stored
    assert (shown.root, shown.session_count, shown.source) == (given.root, 4, "plain")
    assert (shown.stored_block, shown.state) == (100, "stored")
    assert [s.leaf for s in sessions] == list(given.leaves)
    assert [s.leaf_index for s in sessions] == [0, 1, 2, 3]
    assert sessions[0].session_key_data_bytes == len(b"key 3")


async def test_importing_again_keeps_the_set_as_it_was(database, filling):
    """A set that is there keeps its id, its time and its block, however often it is stored."""
    await filling.start(100)
    old, new = session_set([1]), session_set([1, 2])
    first = await import_sets(database, [(old, "plain"), (new, "plain")])
    before, _ = await show_set(database, first[0].set_id)
    await filling.index(120)

    again = await import_sets(database, [(new, "other"), (old, "other"), (old, "other")])
    after, sessions = await show_set(database, first[0].set_id)

    assert [(r.set_id, r.stored) for r in again] == [
        (first[1].set_id, False),
        (first[0].set_id, False),
        (first[0].set_id, False),
    ]
    assert (after, len(sessions)) == (before, 1)


async def test_the_same_leaves_in_another_order_are_another_set(database):
    """Two orders that share a root are two sets, stored in the order given."""
    one, two = session_set([1, 2]), session_set([2, 1])
    assert one.root == two.root
    rows = await import_sets(database, [(one, "plain"), (two, "plain"), (one, "plain")])
    assert [r.stored for r in rows] == [True, True, False]
    assert rows[0].set_id < rows[1].set_id
    assert rows[2].set_id == rows[0].set_id


async def test_a_chain_nobody_followed_yet_can_have_sets(database):
    """Sets may be stored before the daemon ever ran; then no block is known."""
    [row] = await import_sets(database, [(session_set([1]), "plain")])
    shown, _ = await show_set(database, row.set_id)
    assert shown.stored_block is None


async def test_an_import_queues_its_accounts_and_wakes_the_daemon(database, database_url):
    """Each account is queued once, to be read, and the wake-up comes with the commit."""
    async with listening(database_url, WAKE_CHANNEL) as heard:
        await import_sets(
            database,
            [
                (session_set([1]), "plain"),
                (session_set([2]), "plain"),
                (session_set([1], manager=OTHER_MANAGER), "plain"),
            ],
        )
        assert await heard.next() == str(CHAIN_ID)
        assert heard.nothing_more()
    async with database.connection() as connection:
        queued = await queued_keys(connection, CHAIN_ID, 10)
    assert {(q.manager, q.account) for q in queued} == {KEY, (OTHER_MANAGER, ACCOUNT)}
    assert all(q.read_state for q in queued)


async def test_the_session_key_is_taken_by_the_modules_layout(database):
    """Known and configured layouts give the key; of other modules none is guessed."""
    key = b"\x11" * 20
    sessions = [
        Session(0, 0, ERC20_MODULE, bytes(12) + key + bytes(96)),
        Session(0, 0, MODULE, key + b"rest"),
        Session(0, 0, Address(b"\x01" * 20), key + b"rest"),
    ]
    given = build_set(CHAIN_ID, MANAGER, ACCOUNT, sessions)
    [row] = await import_sets(
        database, [(given, "plain")], layouts={MODULE: ("packed_session_key",)}
    )
    _, shown = await show_set(database, row.set_id)
    assert [s.session_key for s in shown] == [key, key, None]


async def test_a_broken_import_stores_nothing(database):
    """All sets of one import are stored, or none."""
    second = session_set([2])
    broken = replace(second, sessions=(replace(second.sessions[0], valid_until=2**48),))
    with pytest.raises(asyncpg.CheckViolationError):
        await import_sets(database, [(session_set([1]), "plain"), (broken, "plain")])
    assert await list_sets(database) == []
    async with database.connection() as connection:
        assert await queued_keys(connection, CHAIN_ID, 10) == []


async def test_imports_at_once_do_not_lock_each_other_out(database):
    """Two imports of the same sets in opposite order both end, and store each set once."""
    sets = [(session_set([n]), "plain") for n in range(200)]
    async with asyncio.TaskGroup() as group:
        one = group.create_task(import_sets(database, sets))
        two = group.create_task(import_sets(database, sets[::-1]))
    assert [r.set_id for r in one.result()] == [r.set_id for r in two.result()][::-1]
    assert sum(r.stored for r in one.result() + two.result()) == 200


async def test_twenty_thousand_sets_are_stored_in_bulk(database):
    """Sets beyond one chunk keep their order, and a repetition across chunks is stored once."""
    sets = [
        (session_set([1], account=Address(n.to_bytes(20, "big"))), "plain") for n in range(20_000)
    ]
    rows = await import_sets(database, [*sets, sets[0]])
    ids = [r.set_id for r in rows]
    assert ids[:-1] == sorted(ids[:-1])
    assert (ids[-1], rows[-1].stored) == (ids[0], False)
    assert sum(r.stored for r in rows) == 20_000


async def test_the_roots_of_an_account_are_those_that_stand_now(database, filling):
    """The latest root of each manager on this branch, configured managers first; zero is none."""
    await filling.start(100)
    root, other = session_set([1]).root, session_set([2]).root
    key = (CHAIN_ID, ACCOUNT)
    await filling.root(50, root)
    await filling.root(60, other)
    await filling.root(70, root, key=(OTHER_MANAGER, ACCOUNT))
    await filling.root(75, root, key=(Address(b"\x01" * 20), ACCOUNT))
    await filling.root(80, root, branch="lost", canonical=False)

    nobody = (CHAIN_ID, Address(b"\x77" * 20))
    found = await current_roots(database, [key, nobody, (1, ACCOUNT)])
    assert found == {key: {MANAGER: other, OTHER_MANAGER: root, Address(b"\x01" * 20): root}}
    assert list(found[key]) == [MANAGER, OTHER_MANAGER, Address(b"\x01" * 20)]
    await filling.root(90, ZERO_HASH)
    assert MANAGER not in (await current_roots(database, [key]))[key]
    assert await current_roots(database, []) == {}


async def test_sets_are_listed_newest_first(database, filling):
    """The list is cut, filtered by chain and account, and says where the chain stands."""
    await filling.start(100)
    someone = Address(b"\x77" * 20)
    sets = [session_set([1]), session_set([1, 2]), session_set([1], account=someone)]
    rows = await import_sets(database, [(s, "plain") for s in sets])
    await filling.root(90, sets[0].root)

    listed = await list_sets(database)
    assert [s.set_id for s in listed] == [r.set_id for r in rows][::-1]
    assert [s.state for s in listed] == ["stored", "stored", "on_chain"]
    assert len(await list_sets(database, limit=2)) == 2
    assert [s.account for s in await list_sets(database, account=someone)] == [someone]
    assert await list_sets(database, chain_id=1) == []
    assert await show_set(database, 10**9) is None
