"""The daemon's HTTP side: /metrics, /livez, /readyz, /status and the status page.

Reads only. Nothing here can change what is stored, so it needs no secret; it still listens
on loopback unless it is told otherwise.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CONTENT_TYPE_LATEST

from indexer.errors import ConfigurationError, RetryableError, SessionwatchError
from indexer.metrics import READY, render
from indexer.store.account_page import read_account_page
from indexer.store.drift_list import read_drift_list
from indexer.store.pool import Database
from indexer.store.status import read_status
from indexer.web.account_page import render_account, render_problem
from indexer.web.bounded import BoundedReads
from indexer.web.door import Door
from indexer.web.drift_page import render_drifts
from indexer.web.health import Health
from indexer.web.hosts import HostRule
from indexer.web.page import render_page
from indexer.web.question import Question, QuestionError, read_question
from indexer.web.style import CONTENT_SECURITY_POLICY

# A hundred people with the page open must not cost more than one of them.
STATUS_CACHE_SECONDS = 1.0
STATUS_DEADLINE_SECONDS = 5.0
SHUTDOWN_SECONDS = 2.0
RETRY_AFTER_SECONDS = 2
MAX_LINE_BYTES = 2048
MAX_HEADER_BYTES = 8190

_NO_DATABASE = "the daemon has no connection to its database"
_OTHER_HOST = (
    "not served under this name: ask 127.0.0.1 or localhost, or add the name to http.hosts in the"
    " configuration\n"
)

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


async def serve(
    host: str,
    port: int,
    *,
    hosts: tuple[str, ...] = (),
    health: Health,
    database: Database | None,
    now: Callable[[], float],
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Serve until cancelled, then let running answers end for at most 2 seconds.

    `hosts` are further names a request may ask for, see HostRule. `now` is the monotonic clock
    `health` was written with. `database` None: /status and the
    page say that there is none. `on_listening` is called once with the port, which port 0
    leaves to the system. Raises ConfigurationError if the address cannot be listened on.
    """
    site = _Site(health, database, now)
    door = Door(now)
    app = web.Application(
        middlewares=[door.note, _only_reads, _only_our_names(HostRule(host, hosts))],
        client_max_size=1024,
    )
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
        assert runner.server is not None
        listener = await _listen(door.leads_to(runner.server), host, port)
        try:
            if on_listening is not None:
                on_listening(listener.sockets[0].getsockname()[1])
            await door.watch(runner.server)
        finally:
            listener.close()
    finally:
        await runner.cleanup()


async def _listen(
    protocol: Callable[[], asyncio.BaseProtocol], host: str, port: int
) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            protocol, host, port, backlog=128, reuse_address=True
        )
    except (OSError, OverflowError) as error:
        raise _cannot_listen(host, port, error) from error


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
    """The handlers, the last status read for all of them, and the last pages looked up."""

    health: Health
    database: Database | None
    now: Callable[[], float]
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _read_at: float | None = None
    _read: dict[str, Any] = field(default_factory=dict)
    _pages: BoundedReads[Question, tuple[int, str]] = field(init=False)

    def __post_init__(self) -> None:
        self._pages = BoundedReads(self.now)

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

    async def page(self, request: web.Request) -> web.Response:
        try:
            question = read_question(request.query.items())
        except QuestionError as error:
            return _page_response(render_problem("That cannot be looked up", str(error)), 400)
        if question.page == "front":
            return await self._front_page(question)
        try:
            status, text = await self._pages.get(question, lambda: self._looked_up(question))
        except SessionwatchError as error:
            answer = _page_response(render_problem("Not now", f"No answer: {error}."), 503)
            answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
            return answer
        return _page_response(text, status)

    async def _front_page(self, question: Question) -> web.Response:
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
            max_lag_seconds={
                name: chain.max_lag_seconds for name, chain in self.health.chains.items()
            },
            renews=question.renews,
        )
        return _page_response(text, 503 if found is None else 200)

    async def _looked_up(self, question: Question) -> tuple[int, str]:
        """Read and render what is asked for: the status code and the page."""
        if self.database is None:
            raise RetryableError(_NO_DATABASE)
        if question.account is not None:
            account = await read_account_page(self.database, question.account, question.chain)
            if account is not None:
                return 200 if account.is_known else 404, render_account(account, question.chain)
        else:
            drifts = await read_drift_list(
                self.database,
                chain=question.chain,
                cause=question.cause,
                severity=question.severity,
            )
            if drifts is not None:
                return 200, render_drifts(drifts, question)
        return 404, render_problem("Unknown chain", "No chain of that name has been followed.")

    async def _status(self) -> dict[str, Any]:
        """Read the status, or take the one read within the last second."""
        if self.database is None:
            raise RetryableError(_NO_DATABASE)
        try:
            async with asyncio.timeout(STATUS_DEADLINE_SECONDS), self._reading:
                if self._read_at is None or self.now() - self._read_at > STATUS_CACHE_SECONDS:
                    self._read = await read_status(self.database)
                    self._read_at = self.now()
                return self._read
        except TimeoutError as error:
            raise RetryableError("the database did not answer in time") from error


@cache
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


def _only_our_names(rule: HostRule) -> Middleware:
    """Refuse a request that was meant for another host, on every path alike."""

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        if rule.accepts(request.headers.getall("Host", [])):
            return await handler(request)
        return _text_response(_OTHER_HOST, status=421)

    return refuse


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _listed(reasons: Mapping[str, tuple[str, ...]]) -> list[dict[str, str | None]]:
    return [
        {"chain": name or None, "reason": reason}
        for name, found in reasons.items()
        for reason in found
    ]


def _page_response(text: str, status: int) -> web.Response:
    return web.Response(text=text, content_type="text/html", status=status)


def _text_response(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status)


def _json_response(value: Mapping[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(
        text=json.dumps(value, indent=2) + "\n", content_type="application/json", status=status
    )
