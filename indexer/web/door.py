"""How many connections the server holds, and for how long.

Each costs one of the process's open files (1,024 under systemd), which the live lane needs to
reach nodes and database. Whoever opens many and says nothing must not take them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

MAX_CONNECTIONS: Final = 250
MAX_SECONDS: Final = 20.0
"""From connecting, or from the last request, to the end of the next one."""


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


class Door:
    """Makes the protocol of each connection, and ends those that last too long.

    `now` is a monotonic clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._moved_at: dict[object, float] = {}

    @web.middleware
    async def note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note that a request has come in whole."""
        self._moved_at[request.protocol] = self._now()
        return await handler(request)

    def leads_to(self, server: web.Server) -> Callable[[], asyncio.BaseProtocol]:
        """Return what makes the protocol of a connection: one too many is closed at once."""

        def enter() -> asyncio.BaseProtocol:
            if len(server.connections) >= MAX_CONNECTIONS:
                return _Refused()
            connection = server()
            self._moved_at[connection] = self._now()
            return connection

        return enter

    async def watch(self, server: web.Server) -> None:
        """Cut connections that are too slow, for ever."""
        while True:
            now = self._now()
            self._moved_at = {c: self._moved_at.get(c, now) for c in server.connections}
            for connection in server.connections:
                if now - self._moved_at[connection] > MAX_SECONDS:
                    connection.force_close()
            await asyncio.sleep(1)
