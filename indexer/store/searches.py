"""What an unknown root turned out to be, remembered between decisions: looking takes some 0.1 s."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from datetime import datetime

from indexer.core.root_search import Base, RememberedSearches, Search
from indexer.core.types import BlockHeader, Hash32
from indexer.core.verdicts import Settings, decide
from indexer.store.pool import Database
from indexer.store.verdict_inputs import Key, load_inputs

SEARCHES = RememberedSearches()
"""An unknown root stays unknown at each decision until somebody stores something."""


LIVE_SEARCH_SECONDS = 0.05
"""What one step of the live lane may spend on searches, while it holds the chain's row."""


class SearchDeferredError(Exception):
    """This search has to wait for somebody with more time."""


class BriefSearches:
    """Searches for one step: remembered answers, and new ones while there is time for them."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def __call__(self, bases: Sequence[Base], root: Hash32) -> Search:
        """Return the answer. Raises SearchDeferredError once the time is used up."""
        answer = SEARCHES.known(bases, root)
        if answer is not None:
            return answer
        if self._seconds >= LIVE_SEARCH_SECONDS:
            raise SearchDeferredError
        began = time.perf_counter()
        answer = SEARCHES(bases, root)
        self._seconds += time.perf_counter() - began
        return answer


async def remember_searches(
    database: Database,
    chain_id: int,
    head: BlockHeader,
    confirmed_at: datetime,
    settings: Settings,
    keys: Collection[Key],
) -> None:
    """Make the searches that deciding these keys as of `head` needs, before a lock is taken for it.

    Each takes some 0.1 s, for which the live lane would wait. What has changed by the time of
    deciding is searched for then.
    """
    async with database.connection() as connection:
        inputs = await load_inputs(connection, chain_id, keys)
    for known in inputs.values():
        made = SEARCHES.made
        decide(
            known,
            head_number=head.number,
            head_time=head.timestamp,
            confirmed_at=confirmed_at.timestamp(),
            settings=settings,
            search=SEARCHES,
        )
        if SEARCHES.made > made:
            await asyncio.sleep(0)
