"""What an unknown root turned out to be, remembered between decisions: looking takes some 0.1 s."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime

from indexer.core.root_search import RememberedSearches
from indexer.core.types import BlockHeader
from indexer.core.verdicts import Settings, decide
from indexer.store.pool import Database
from indexer.store.verdict_inputs import Key, load_inputs

SEARCHES = RememberedSearches()
"""An unknown root stays unknown at each decision until somebody stores something."""


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
