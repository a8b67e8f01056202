"""Counting what only the whole database tells: right, and rare where it takes long."""

from __future__ import annotations

import pytest

from indexer.core.session_sets import build_set
from indexer.core.types import ZERO_HASH, Session
from indexer.counting import COUNT_SESSIONS_SECONDS, MAX_SHARE, pause_seconds
from indexer.store.pool import Database
from indexer.store.sessions import count_sessions, import_sets
from tests.store.filling import (
    ACCOUNT,
    CHAIN_ID,
    MANAGER,
    MODULE,
    OTHER_MANAGER,
    START,
    Filling,
    session_set,
)


@pytest.mark.parametrize("took_seconds", [0.0, 1.0, 11.0, 600.0])
def test_counting_takes_little_of_the_time(took_seconds: float) -> None:
    """However many sessions there are; a quick count is repeated after the usual pause."""
    pause = pause_seconds(took_seconds)
    assert pause >= COUNT_SESSIONS_SECONDS
    assert took_seconds <= (pause + took_seconds) * MAX_SHARE * 1.0001
    assert pause_seconds(1.0) == COUNT_SESSIONS_SECONDS


async def test_sessions_are_counted_as_the_view_tells_their_states(database_url: str) -> None:
    """On chain and valid, over or not yet begun; replaced, never landed, or without a chain."""
    bounds = [(0, 0), (START + 50, 0), (START + 150, 0), (0, START + 150), (START + 100, START)]
    times = build_set(
        CHAIN_ID,
        MANAGER,
        ACCOUNT,
        [Session(until, after, MODULE, b"key %d" % n) for n, (until, after) in enumerate(bounds)],
    )
    replaced, cleared = session_set([1, 2]), session_set([3], manager=OTHER_MANAGER)
    never, lost = session_set([4, 5, 6]), session_set([7], account=MODULE)
    async with Database.open(database_url) as database:
        filling = Filling(database)
        await filling.start(100)
        await import_sets(database, [(s, "plain") for s in (times, replaced, cleared, never, lost)])
        await filling.root(10, replaced.root)
        await filling.root(20, times.root)
        await filling.root(30, never.root, branch="lost", canonical=False)
        await filling.root(10, cleared.root, key=(OTHER_MANAGER, ACCOUNT))
        await filling.root(20, ZERO_HASH, key=(OTHER_MANAGER, ACCOUNT))

        counted = await count_sessions(database, CHAIN_ID)
        async with database.connection() as connection:
            shown = await connection.fetch("SELECT state, count(*) FROM watch.session GROUP BY 1")
        assert counted == {"active": 3, "expired": 1, "not_yet_valid": 1, "not_on_chain": 7}
        assert counted == {row["state"]: row["count"] for row in shown}
        assert set((await count_sessions(database, 137)).values()) == {0}
