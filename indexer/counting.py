"""Counts what only the whole database tells, beside the lanes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from indexer.ingest import StepListener, keep_stepping
from indexer.store import sessions
from indexer.store.pool import Database

COUNT_SESSIONS_SECONDS = 30.0
MAX_SHARE = 0.05
"""How much of its time counting may spend: what has grown slow to count is counted rarely."""


class CountListener(StepListener, Protocol):
    """What the rest of the process wants to know of a count."""

    def sessions_counted(self, counts: Mapping[str, int], /) -> None:
        """So many sessions there are of each state."""


async def keep_counted(database: Database, chain_id: int, listener: CountListener) -> None:
    """Count the sessions of a chain for ever; block time moves their states, without any step."""
    took_seconds = 0.0

    async def step() -> bool:
        nonlocal took_seconds
        began = time.monotonic()
        listener.sessions_counted(await sessions.count_sessions(database, chain_id))
        took_seconds = time.monotonic() - began
        return False

    async def rest() -> None:
        await asyncio.sleep(pause_seconds(took_seconds))

    await keep_stepping("sessions", step, rest, listener)


def pause_seconds(took_seconds: float) -> float:
    """Return how long to rest after a count that took so long."""
    return max(COUNT_SESSIONS_SECONDS, took_seconds * (1 / MAX_SHARE - 1))
