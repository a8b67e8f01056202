"""Node: JSON-RPC over HTTP to the endpoints of one chain.

One request has one deadline and one byte cap, follows no redirect, is repeated once after a
connection reset, and moves on to the next endpoint where one cannot be reached. Everything else is
raised, typed; the caller repeats its whole step. No text, label or traceback carries a URL.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import aiohttp
import msgspec

from indexer import metrics
from indexer.chain import wire
from indexer.chain.endpoint import Endpoint, http_endpoints, joined
from indexer.chain.readers import StateHabits
from indexer.chain.scrub import Scrubber
from indexer.core.settings import ChainSettings
from indexer.errors import (
    ConfigurationError,
    NodeAnswerError,
    NodeError,
    NodeUnreachableError,
    RangeTooLargeError,
    WrongChainError,
)

T = TypeVar("T")

BATCH_CALLS = 100
"""Calls per HTTP request: what the stricter providers accept."""
ADDRESSES_PER_FILTER = 1000
_CONNECT_SECONDS = 10.0
_CONNECTIONS = 16
_STAY_SECONDS = 60.0


@dataclass(slots=True)
class Meter:
    """How many HTTP requests one piece of work took."""

    requests: int = 0


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the requests of what is awaited in the block, by this task alone."""
    meter = Meter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


class NodeRefusedError(NodeError):
    """A JSON-RPC error of endpoint `where`: `code` as sent (0 if unusable), `text` cleaned."""

    def __init__(self, where: str, method: str, code: int, text: str) -> None:
        super().__init__(f"{where} refused {method}: {text or 'no reason given'} (code {code})")
        self.where = where
        self.code = code
        self.text = text


class _Failure(msgspec.Struct, gc=False):
    code: int | float | str | None = None
    message: str | None = None


class _Envelope(msgspec.Struct, gc=False):
    """One answer. `result` stays raw, so that one bad element does not spoil a batch."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Failure | str | None = None


class _Request(msgspec.Struct, gc=False):
    id: int
    method: str
    params: list[Any]
    jsonrpc: str = "2.0"


@lru_cache(maxsize=64)
def _decoder(result_type: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast("Any", result_type))


_ENCODER = msgspec.json.Encoder()
_ONE = msgspec.json.Decoder(_Envelope)
_MANY = msgspec.json.Decoder(list[_Envelope])
# RecursionError: thousands of brackets, which the decoder would otherwise follow all the way down.
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Node:
    """The node of one chain: `async with Node(settings) as node`. Safe for concurrent calls."""

    def __init__(
        self,
        settings: ChainSettings,
        *,
        request_timeout_seconds: float = 30.0,
        max_response_bytes: int = 64 << 20,
        on_request: metrics.RequestDone = metrics.request_done,
    ) -> None:
        self.name = settings.name
        self._on_request = on_request
        self._chain_id = settings.chain_id
        self._request_timeout_seconds = request_timeout_seconds
        self._max_response_bytes = max_response_bytes
        self._scrubber = Scrubber(settings.rpc)
        self._endpoints = tuple(http_endpoints(settings))
        if not self._endpoints:
            raise ConfigurationError(
                f"chains.{settings.name}.rpc holds no http:// or https:// URL",
                remedy="add an HTTP endpoint of the node; WebSocket endpoints alone do not serve",
            )
        self.addresses_per_filter = ADDRESSES_PER_FILTER
        """Lowered for good once the node refuses a filter for its number of addresses."""
        self.state_habits = StateHabits()
        """Kept by bulk.py."""
        self._first = 0
        self._first_until_seconds = 0.0
        self._verify_endpoints = False
        self._ids = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            # Cookies would tie this process to one back-end of a balancer, and may hold tokens.
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            headers={"Content-Type": "application/json", "User-Agent": "sessionwatch"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, method: str, params: list[Any], result_type: type[T]) -> T:
        """Ask one thing. Raises NodeRefusedError for a JSON-RPC error, else the other NodeErrors.

        A null result is an error unless `result_type` allows None.
        """
        request = _Request(next(self._ids), method, params)
        endpoint, answers = await self._send([request], method, single=True)
        found = self._result(endpoint, request, answers[request.id], result_type)
        if isinstance(found, NodeError):
            raise found
        return found

    @property
    def endpoint_names(self) -> tuple[str, ...]:
        """The endpoints in use, in the order configured."""
        return tuple(endpoint.name for endpoint in self._endpoints)

    async def batch(
        self,
        requests: Sequence[tuple[str, list[Any]]],
        result_type: type[T],
        *,
        only: str | None = None,
    ) -> list[T | NodeError]:
        """Ask many things, at most 100 per HTTP request; answers in the order of `requests`.

        What the node says of a single element is returned in its place; what spoils a whole
        request (no connection, a missing or repeated id) is raised. `only`: ask this endpoint and
        no other; who asks by block hash gets the truth from any of them, or an error.
        """
        found: list[T | NodeError] = []
        for start in range(0, len(requests), BATCH_CALLS):
            chunk = [
                _Request(next(self._ids), method, params)
                for method, params in requests[start : start + BATCH_CALLS]
            ]
            methods = {request.method for request in chunk}
            label = methods.pop() if len(methods) == 1 else "mixed"
            endpoint, answers = await self._send(chunk, label, single=False, only=only)
            found += [self._result(endpoint, one, answers[one.id], result_type) for one in chunk]
        return found

    async def chain_id(self) -> int:
        """Return what eth_chainId says."""
        text = await self.call("eth_chainId", [], str)
        return self._chain_number(text)

    async def verify_chain(self) -> None:
        """Raise WrongChainError if an endpoint serves another chain than configured.

        Endpoints that cannot be reached are passed over while one answers; from now on each is
        verified before its first use.
        """
        self._verify_endpoints = True
        unreachable: list[NodeUnreachableError] = []
        for endpoint in self._endpoints:
            try:
                await self._verify(endpoint)
            except NodeUnreachableError as problem:
                unreachable.append(problem)
        if len(unreachable) == len(self._endpoints):
            raise joined(unreachable)

    def bad_answer(self, method: str, problem: object) -> NodeAnswerError:
        """Return the error for an answer that was decoded but makes no sense."""
        text = self._scrubber.clean(str(problem))
        return NodeAnswerError(
            f"{self.name}: the answer to {method} cannot be used: {text}",
            remedy="the step is repeated; if it stays, use another endpoint for this chain",
        )

    async def _verify(self, endpoint: Endpoint) -> None:
        request = _Request(next(self._ids), "eth_chainId", [])
        payload = _ENCODER.encode(request)
        answers = await self._ask(endpoint, payload, [request], request.method, single=True)
        text = self._result(endpoint, request, answers[request.id], str)
        if isinstance(text, NodeError):
            raise text
        chain_id = self._chain_number(text)
        if chain_id != self._chain_id:
            raise WrongChainError(
                f"{endpoint.name} serves chain {chain_id}, but chains.{self.name} is configured "
                f"as chain {self._chain_id}",
                remedy=f"correct chains.{self.name}.rpc or chains.{self.name}.chain_id",
            )
        endpoint.verified = True

    def _chain_number(self, text: str) -> int:
        try:
            return wire.quantity(text)
        except ValueError as error:
            raise self.bad_answer("eth_chainId", error) from None

    async def _send(
        self, requests: list[_Request], label: str, *, single: bool, only: str | None = None
    ) -> tuple[Endpoint, dict[int, _Envelope]]:
        """Ask the endpoints in turn until one can be reached; it then stays first for a minute."""
        payload = _ENCODER.encode(requests[0] if single else requests)
        unreachable: list[NodeUnreachableError] = []
        for endpoint in self._order(only):
            try:
                if self._verify_endpoints and not endpoint.verified:
                    await self._verify(endpoint)
                answers = await self._ask(endpoint, payload, requests, label, single=single)
            except NodeUnreachableError as problem:
                unreachable.append(problem)
                continue
            if unreachable:
                self._first = self._endpoints.index(endpoint)
                now = asyncio.get_running_loop().time()
                self._first_until_seconds = now + _STAY_SECONDS
            return endpoint, answers
        raise joined(unreachable)

    def _order(self, only: str | None) -> Sequence[Endpoint]:
        if only is not None:
            return [endpoint for endpoint in self._endpoints if endpoint.name == only]
        if asyncio.get_running_loop().time() >= self._first_until_seconds:
            self._first = 0
        return self._endpoints[self._first :] + self._endpoints[: self._first]

    async def _ask(
        self,
        endpoint: Endpoint,
        payload: bytes,
        requests: list[_Request],
        label: str,
        *,
        single: bool,
    ) -> dict[int, _Envelope]:
        """Do one HTTP request at one endpoint, counted and timed; return answers by id."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcome = "cancelled"
        if (meter := _METER.get()) is not None:
            meter.requests += 1
        try:
            assert self._session is not None, "Node is used outside of its `async with`"
            body = await endpoint.exchange(
                self._session,
                payload,
                timeout_seconds=self._request_timeout_seconds,
                max_bytes=self._max_response_bytes,
            )
            answers = self._matched(endpoint, body, requests, label, single=single)
            refused = any(answer.error is not None for answer in answers.values())
            outcome = "refused" if refused else "ok"
        except RangeTooLargeError:
            outcome = "too_large"
            raise
        except NodeUnreachableError:
            outcome = "unreachable"
            raise
        except NodeRefusedError:
            outcome = "refused"
            raise
        except NodeError:
            outcome = "bad_answer"
            raise
        finally:
            calls = 0 if single else len(requests)
            seconds = loop.time() - started
            self._on_request(self.name, endpoint.name, label, outcome, seconds, calls)
        return answers

    def _matched(
        self,
        endpoint: Endpoint,
        body: bytearray,
        requests: list[_Request],
        label: str,
        *,
        single: bool,
    ) -> dict[int, _Envelope]:
        """Decode the body and give each request its answer: none missing, none twice."""
        lone = single or body.lstrip()[:1] == b"{"
        try:
            envelopes = [_ONE.decode(body)] if lone else _MANY.decode(body)
        except _UNDECODABLE:
            raise NodeAnswerError(
                f"{endpoint.name} answered {label} with something that is not JSON-RPC",
                remedy=f"check that chains.{self.name}.rpc names the JSON-RPC port of a node",
            ) from None
        if lone and envelopes[0].error is not None:
            if not single:
                raise self._refusal(endpoint.name, label, envelopes[0].error)
            # A refusal may come without the id: the node did not read the request to its end.
            envelopes[0].id = requests[0].id
        wanted = {request.id for request in requests}
        answers: dict[int, _Envelope] = {}
        for envelope in envelopes:
            number = envelope.id
            if not isinstance(number, int) or number not in wanted or number in answers:
                raise NodeAnswerError(f"{endpoint.name} answered {label} with a wrong or double id")
            answers[number] = envelope
        if len(answers) != len(wanted):
            raise NodeAnswerError(
                f"{endpoint.name} answered {len(answers)} of {len(wanted)} calls of {label}",
                remedy="the endpoint may not support JSON-RPC batches: use another one",
            )
        return answers

    def _result(
        self, endpoint: Endpoint, request: _Request, envelope: _Envelope, result_type: type[T]
    ) -> T | NodeError:
        if envelope.error is not None:
            return self._refusal(endpoint.name, request.method, envelope.error)
        if not memoryview(envelope.result).nbytes:
            return self.bad_answer(request.method, "neither a result nor an error")
        try:
            found: T = _decoder(cast("Any", result_type)).decode(envelope.result)
        except _UNDECODABLE as error:
            return self.bad_answer(request.method, error)
        return found

    def _refusal(self, where: str, method: str, error: _Failure | str) -> NodeRefusedError:
        if isinstance(error, str):
            return NodeRefusedError(where, method, 0, self._scrubber.clean(error))
        code = error.code if isinstance(error.code, int) and abs(error.code) < 2**31 else 0
        return NodeRefusedError(where, method, code, self._scrubber.clean(error.message or ""))
