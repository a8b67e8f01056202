"""The daemon's HTTP side: /metrics, /livez, /readyz, /status and the status page.

Reads only. Nothing here can change what is stored, so it needs no secret; it still listens
on loopback unless it is told otherwise.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST

from indexer.errors import ConfigurationError, RetryableError, SessionwatchError
from indexer.metrics import READY, render
from indexer.store.pool import Database
from indexer.store.status import read_status
from indexer.web.health import Health
from indexer.web.page import CONTENT_SECURITY_POLICY, render_page

# A hundred people with the page open must not cost more than one of them.
STATUS_CACHE_SECONDS = 1.0
STATUS_DEADLINE_SECONDS = 5.0
SHUTDOWN_SECONDS = 2.0
MAX_LINE_BYTES = 2048
MAX_HEADER_BYTES = 8190

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    # in place of aiohttp's own, which names its version and Python's
    "Server": "sessionwatch",
}

_SERVER_LOG = logging.getLogger("indexer.web")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(
    host: str,
    port: int,
    *,
    health: Health,
    database: Database | None,
    now: Callable[[], float],
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Serve until cancelled, then let running answers end for at most 2 seconds.

    `now` is the monotonic clock `health` was written with. `database` None: /status and the
    page say that there is none. `on_listening` is called once with the port, which port 0
    leaves to the system. Raises ConfigurationError if the address cannot be listened on.
    """
    site = _Site(health, database, now)
    app = web.Application(middlewares=[_only_reads], client_max_size=1024)
    app.on_response_prepare.append(_add_headers)
    app.add_routes(
        [
            web.get("/", site.page),
            web.get("/status", site.status),
            web.get("/metrics", site.metrics),
            web.get("/livez", site.livez),
            web.get("/readyz", site.readyz),
        ]
    )
    # Requests that are no HTTP are answered with 400; a traceback for each would let anybody who
    # can connect fill the log.
    _SERVER_LOG.addFilter(_is_our_fault)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_SERVER_LOG,
        keepalive_timeout=30.0,
        shutdown_timeout=SHUTDOWN_SECONDS,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            raise _cannot_listen(host, port, error) from error
        if on_listening is not None:
            on_listening(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _is_our_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def _cannot_listen(host: str, port: int, error: Exception) -> ConfigurationError:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ConfigurationError(
        f"http.listen: cannot listen on {host}:{port}: {why}",
        remedy="set http.listen (or SESSIONWATCH_HTTP__LISTEN) to an address of this machine"
        " and a free port, or stop the other program that uses this one",
    )


@dataclass(slots=True)
class _Site:
    """The handlers, and the last status read for all of them."""

    health: Health
    database: Database | None
    now: Callable[[], float]
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _read_at: float | None = None
    _read: dict[str, Any] = field(default_factory=dict)

    async def livez(self, _request: web.Request) -> web.Response:
        if self.health.stopping:
            return _text_response("stopping\n", status=503)
        return _text_response("ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        reasons = self.health.reasons(self.now())
        return _json_response(
            {"ready": not reasons, "reasons": _listed(reasons)}, status=503 if reasons else 200
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        READY.set(not self.health.reasons(self.now()))
        return web.Response(body=render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(self, _request: web.Request) -> web.Response:
        about: dict[str, Any] = {
            "version": program_version(),
            "uptime_seconds": round(self.now() - self.health.started_monotonic, 1),
        }
        reasons = self.health.reasons(self.now())
        about |= {"ready": not reasons, "reasons": _listed(reasons)}
        try:
            return _json_response(about | await self._status())
        except SessionwatchError as error:
            return _json_response(about | {"error": str(error)}, status=503)

    async def page(self, _request: web.Request) -> web.Response:
        found: dict[str, Any] | None = None
        problem = ""
        try:
            found = await self._status()
        except SessionwatchError as error:
            problem = f"No status: {error}."
        text = render_page(
            found,
            self.health.reasons(self.now()),
            uptime_seconds=self.now() - self.health.started_monotonic,
            version=program_version(),
            problem=problem,
        )
        return web.Response(
            text=text, content_type="text/html", status=503 if found is None else 200
        )

    async def _status(self) -> dict[str, Any]:
        """Read the status, or take the one read within the last second."""
        if self.database is None:
            raise RetryableError("the daemon has no connection to its database")
        try:
            async with asyncio.timeout(STATUS_DEADLINE_SECONDS), self._reading:
                if self._read_at is None or self.now() - self._read_at > STATUS_CACHE_SECONDS:
                    self._read = await read_status(self.database)
                    self._read_at = self.now()
                return self._read
        except TimeoutError as error:
            raise RetryableError("the database did not answer in time") from error


def program_version() -> str:
    """The installed distribution's version, "unknown" in a tree that is not installed."""
    try:
        return version("sessionwatch")
    except PackageNotFoundError:
        return "unknown"


@web.middleware
async def _only_reads(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what this server has no use for, in plain text that repeats nothing of it."""
    if request.method not in ("GET", "HEAD"):
        refused = _text_response("only GET and HEAD\n", status=405)
        refused.headers["Allow"] = "GET, HEAD"
    elif request.body_exists:
        refused = _text_response("no request body is accepted\n", status=413)
    else:
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _text_response("not found\n", status=404)
    # what is left of the body is not worth reading
    refused.force_close()
    return refused


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _listed(reasons: Mapping[str, tuple[str, ...]]) -> list[dict[str, str | None]]:
    return [
        {"chain": name or None, "reason": reason}
        for name, found in reasons.items()
        for reason in found
    ]


def _text_response(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status)


def _json_response(value: Mapping[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(
        text=json.dumps(value, indent=2) + "\n", content_type="application/json", status=status
    )
