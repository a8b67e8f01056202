"""One endpoint of a node: one HTTP exchange with a deadline, a byte cap and no redirect.

No error here carries the URL, not even as its context: the URL holds credentials.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import aiohttp

from indexer.core.settings import ChainSettings
from indexer.errors import NodeError, NodeUnreachableError, RangeTooLargeError

_RESET_NUMBERS = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})
_LIMIT_STATUSES = frozenset({402, 429})
_LOGIN_STATUSES = frozenset({401, 403, 407})
_TIMEOUT_STATUSES = frozenset({408, 504, 524})
_LOOKED_AT_BYTES = 65_536


class NodeTimeoutError(NodeUnreachableError):
    """The deadline passed, here or at a gateway: the work asked for may be too much at once."""


class Endpoint:
    """One URL under the name that people see. `verified`: it has told the right chain id."""

    __slots__ = ("_url", "name", "verified")

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._url = url
        self.verified = False

    async def exchange(
        self,
        session: aiohttp.ClientSession,
        payload: bytes,
        *,
        timeout_seconds: float,
        max_bytes: int,
    ) -> bytearray:
        """Send and return the body, all within one deadline; a reset connection is tried once more.

        Raises NodeTimeoutError, NodeUnreachableError (also for an HTTP status that is no answer),
        or RangeTooLargeError once the body passes `max_bytes`.
        """
        problem: NodeError
        try:
            async with asyncio.timeout(timeout_seconds):
                try:
                    return await self._post(session, payload, max_bytes)
                except (aiohttp.ClientError, OSError) as error:
                    if not _was_reset(error):
                        raise
                return await self._post(session, payload, max_bytes)
        except TimeoutError:
            problem = NodeTimeoutError(
                f"{self.name} did not answer within {timeout_seconds:g} s",
                remedy="check the node's load and the network between here and there",
            )
        except (aiohttp.ClientError, OSError) as error:
            problem = NodeUnreachableError(
                f"{self.name} could not be reached: {connection_problem(error)}",
                remedy="check that the node runs and that its URL in the configuration is right",
            )
        # Raised out here, not in the handler: aiohttp's errors carry the URL, and as the context
        # of this one they would be printed with its traceback.
        raise problem

    async def _post(
        self, session: aiohttp.ClientSession, payload: bytes, max_bytes: int
    ) -> bytearray:
        async with session.post(self._url, data=payload, allow_redirects=False) as response:
            status = response.status
            if status == 413:
                raise RangeTooLargeError(
                    f"{self.name} answered HTTP 413: too much at once",
                    remedy="less is asked for at once from now on",
                )
            if status in _TIMEOUT_STATUSES:
                raise NodeTimeoutError(
                    f"{self.name} answered HTTP {status}: it found no answer in time",
                    remedy="check the node's load",
                )
            remedy = _status_remedy(status)
            if remedy:
                raise NodeUnreachableError(f"{self.name} answered HTTP {status}", remedy=remedy)
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    response.close()
                    raise RangeTooLargeError(
                        f"{self.name} sent more than {max_bytes} bytes",
                        remedy="less is asked for at once from now on",
                    )
        # Several providers put JSON-RPC errors under 400 or 500; other pages are not answers.
        if status != 200 and b'"error"' not in body[:_LOOKED_AT_BYTES]:
            raise NodeUnreachableError(
                f"{self.name} answered HTTP {status}",
                remedy="check that the URL names the JSON-RPC port of a node",
            )
        return body


def _was_reset(error: Exception) -> bool:
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return True
    return isinstance(error, OSError) and error.errno in _RESET_NUMBERS


def connection_problem(error: Exception) -> str:
    """Say why, in words of ours: the texts of aiohttp name host and port."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name does not resolve"
    if isinstance(error, aiohttp.ClientSSLError):
        return "no TLS connection"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "the connection was cut"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return type(error).__name__


def _status_remedy(status: int) -> str:
    """Return what to do about an HTTP status whose body is never read, else nothing."""
    if 300 <= status < 400:
        return "redirects are not followed: put the final URL into the configuration"
    if status in _LOGIN_STATUSES:
        return "check the credentials in the endpoint's URL"
    if status in _LIMIT_STATUSES:
        return "the plan's limit is reached: wait, or add another endpoint"
    return ""


def http_endpoints(settings: ChainSettings) -> Iterator[Endpoint]:
    """Yield the endpoints this client can use: ws:// and wss:// are passed over."""
    for name, url in zip(settings.endpoint_names, settings.rpc, strict=True):
        try:
            scheme = urlsplit(url).scheme
        except ValueError:
            scheme = ""
        if scheme in {"http", "https"}:
            yield Endpoint(name, url)


def joined(problems: Sequence[NodeUnreachableError]) -> NodeUnreachableError:
    """Return one error for all endpoints of a chain; still a timeout if each of them was."""
    if len(problems) == 1:
        return problems[0]
    timeout = all(isinstance(problem, NodeTimeoutError) for problem in problems)
    kind = NodeTimeoutError if timeout else NodeUnreachableError
    return kind("; ".join(map(str, problems)), remedy=problems[0].remedy)
