"""The real server on a port of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from indexer.store.pool import Database
from indexer.web.health import Health
from indexer.web.server import serve


@asynccontextmanager
async def serving(
    health: Health,
    *,
    database: Database | None = None,
    now: Callable[[], float] = time.monotonic,
    host: str = "127.0.0.1",
    hosts: tuple[str, ...] = (),
) -> AsyncIterator[int]:
    """Serve for the length of the block, on loopback unless told otherwise; give the port."""
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        server = group.create_task(
            serve(
                host,
                0,
                hosts=hosts,
                health=health,
                database=database,
                now=now,
                on_listening=listening.set_result,
            )
        )
        try:
            yield await listening
        finally:
            server.cancel()
