"""Stored sets come back as they were stored, in order and with their data."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from indexer.core.session_sets import build_set
from indexer.core.types import Address, Session
from indexer.errors import FatalError
from indexer.store.pool import Database
from indexer.store.session_export import Selection, count_selected, missing_sets, read_sets
from indexer.store.sessions import import_sets
from tests.store.filling import (
    ACCOUNT,
    CHAIN_ID,
    KEY,
    MANAGER,
    MODULE,
    OTHER_MANAGER,
    Filling,
    session_set,
)

OTHER_ACCOUNT = Address(b"\xbb" * 20)


@pytest.fixture
async def database(database_url):
    async with Database.open(database_url, max_size=2) as opened:
        yield opened


async def read(database, **wanted):
    async with aclosing(read_sets(database, Selection(**wanted))) as found:
        return [one async for one in found]


async def test_a_set_comes_back_in_order_with_its_data(database):
    """Sessions, duplicates, data, root and place are what was stored; keys where known."""
    key = b"\x11" * 20
    given = build_set(
        CHAIN_ID,
        MANAGER,
        ACCOUNT,
        [
            Session(9, 1, MODULE, key + b"!"),
            Session(0, 0, ACCOUNT, b""),
            Session(9, 1, MODULE, key + b"!"),
        ],
    )
    await import_sets(database, [(given, "plain")], layouts={MODULE: ("packed_session_key",)})
    (back,) = await read(database)
    assert back.sessions == given.sessions
    assert (back.chain_id, back.manager, back.account) == (CHAIN_ID, MANAGER, ACCOUNT)
    assert back.root == given.root
    assert back.session_keys == (key, None, key)


async def test_only_the_sets_asked_for_come_back(database):
    """By id, chain, account, manager, state, or several of these; always the oldest first."""
    filling = Filling(database)
    await filling.start(100)
    on_chain = session_set([1])
    sets = [
        on_chain,
        session_set([2], account=OTHER_ACCOUNT),
        session_set([1, 2, 3], manager=OTHER_MANAGER),
        build_set(5, MANAGER, ACCOUNT, on_chain.sessions),
    ]
    rows = await import_sets(database, [(one, "plain") for one in sets])
    await filling.root(90, on_chain.root, key=KEY)
    ids = [row.set_id for row in rows]

    for wanted, expected in (
        ({}, [0, 1, 2, 3]),
        ({"set_ids": (ids[2], ids[0], ids[2])}, [0, 2]),
        ({"chain_id": 5}, [3]),
        ({"account": OTHER_ACCOUNT}, [1]),
        ({"manager": OTHER_MANAGER}, [2]),
        ({"state": "on_chain"}, [0]),
        ({"state": "stored", "chain_id": CHAIN_ID}, [1, 2]),
        ({"account": OTHER_ACCOUNT, "chain_id": 5}, []),
    ):
        found = await read(database, **wanted)
        assert [one.set_id for one in found] == [ids[n] for n in expected], wanted
        assert [one.sessions for one in found] == [sets[n].sessions for n in expected]
        count = await count_selected(database, Selection(**wanted))
        assert count == sum(len(sets[n].sessions) for n in expected)
    assert await missing_sets(database, (999, ids[0], 998)) == [999, 998]


async def test_sets_past_one_fetch_are_whole(database):
    """A set that begins in one fetch and ends in another comes back whole."""
    sets = [session_set(list(range(n, n + 700))) for n in range(5)]
    await import_sets(database, [(one, "plain") for one in sets])
    assert [one.sessions for one in await read(database)] == [one.sessions for one in sets]


async def test_the_readers_role_cannot_export(database_url):
    """What a session may spend is for the daemon's role; people's role is refused."""
    async with Database.open(
        database_url, role="sessionwatch_reader", schema_check=False
    ) as database:
        with pytest.raises(FatalError, match="permission denied"):
            await read(database)
