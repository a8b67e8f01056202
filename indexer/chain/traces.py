"""Traces of transactions, in either of the two dialects that nodes speak.

A call that was reverted takes back all that it called. Neither dialect says so of what lies
inside: geth's callTracer gives an `error` to the reverted frame alone, and so does Parity's
trace_transaction; here what is inside of one is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar, cast

import msgspec

from indexer.chain import wire
from indexer.chain.refusals import typed
from indexer.chain.rpc import Node
from indexer.core.settings import TraceMode
from indexer.core.traces import INPUT_BYTES, TracedCall
from indexer.core.types import Hash32
from indexer.errors import BlockUnknownError, NodeError, RangeTooLargeError

TRACES_PER_REQUEST = 10
"""A trace repeats the input of every call inside, and some are megabytes."""
T = TypeVar("T")
_INPUT_CHARACTERS = 2 + 2 * INPUT_BYTES


class RawFrame(msgspec.Struct):
    """A frame of geth's callTracer. `error` stands where it was reverted."""

    type: str
    sender: str = msgspec.field(name="from")
    to: str | None = None
    input: str = "0x"
    error: str | None = None
    calls: list[RawFrame] = []


class RawAction(msgspec.Struct, rename="camel"):
    """What a Parity trace says of a call; creations and self-destructs lack some of it."""

    sender: str = msgspec.field(name="from", default="")
    to: str | None = None
    input: str = "0x"
    call_type: str = ""


class RawTrace(msgspec.Struct, rename="camel"):
    """One call of Parity's trace_transaction; `trace_address` is the path to it."""

    type: str
    action: RawAction
    trace_address: list[int]
    block_hash: str
    error: str | None = None


class RawBlock(msgspec.Struct):
    """The transactions of a block, by hash, in order."""

    hash: str
    transactions: list[str]


_BLOCK_OR_NULL = cast("type[RawBlock | None]", RawBlock | None)


async def fetch_transaction_hashes(node: Node, block_hash: Hash32) -> list[Hash32]:
    """Return the hashes of a block's transactions in order; BlockUnknownError if it is unknown."""
    method = "eth_getBlockByHash"
    try:
        found = await node.call(method, [wire.to_hex(block_hash), False], _BLOCK_OR_NULL)
    except NodeError as error:
        raise typed(error) from None
    if found is None:
        raise BlockUnknownError(f"{node.name} does not have block {wire.to_hex(block_hash)}")
    try:
        return [wire.hash32(text) for text in found.transactions]
    except ValueError as error:
        raise node.bad_answer(method, error) from None


async def fetch_traces(
    node: Node, mode: TraceMode, block_hash: Hash32, transactions: Sequence[Hash32]
) -> dict[Hash32, list[TracedCall]]:
    """Return the calls of each transaction that took effect, in the order they were made.

    Raises what the node raises for any of them, a transaction it does not know included; and
    NodeAnswerError for a trace that cannot be, or that says to be of another block.
    """
    read = _read_traces if mode == "trace" else _read_frames
    found: dict[Hash32, list[TracedCall]] = {}
    for start in range(0, len(transactions), TRACES_PER_REQUEST):
        chunk = transactions[start : start + TRACES_PER_REQUEST]
        try:
            found |= zip(chunk, await read(node, block_hash, chunk), strict=True)
        except RangeTooLargeError:
            if len(chunk) == 1:
                raise
            for one in chunk:
                (found[one],) = await read(node, block_hash, [one])
    return found


async def _read_frames(
    node: Node, block_hash: Hash32, transactions: Sequence[Hash32]
) -> list[list[TracedCall]]:
    # This dialect does not say of which block it speaks; what state shows there has to agree.
    del block_hash
    method = "debug_traceTransaction"
    options = {"tracer": "callTracer"}
    answers = await node.batch(
        [(method, [wire.to_hex(transaction), options]) for transaction in transactions], RawFrame
    )
    return [_converted(node, method, _of_frame(_good(frame))) for frame in answers]


async def _read_traces(
    node: Node, block_hash: Hash32, transactions: Sequence[Hash32]
) -> list[list[TracedCall]]:
    method = "trace_transaction"
    answers = await node.batch(
        [(method, [wire.to_hex(transaction)]) for transaction in transactions], list[RawTrace]
    )
    found = []
    for answer in answers:
        traces = _good(answer)
        if any(trace.block_hash != wire.to_hex(block_hash) for trace in traces):
            raise node.bad_answer(method, "the trace is of another block than asked for")
        found.append(_converted(node, method, _of_traces(traces)))
    return found


def _good(answer: T | NodeError) -> T:
    if isinstance(answer, NodeError):
        raise typed(answer)
    return answer


_Raw = tuple[str, str, str | None, str, int | None]


def _converted(node: Node, method: str, calls: Iterator[_Raw]) -> list[TracedCall]:
    try:
        return [
            TracedCall(
                kind.upper(),
                wire.address(sender),
                None if to is None else wire.address(to),
                wire.data(data[:_INPUT_CHARACTERS]),
                parent,
            )
            for kind, sender, to, data, parent in calls
        ]
    except ValueError as error:
        raise node.bad_answer(method, error) from None


def _of_frame(top: RawFrame) -> Iterator[_Raw]:
    """Walk a tree of frames without nesting calls of our own: it may be a thousand deep."""
    waiting: list[tuple[RawFrame, int | None]] = [(top, None)]
    place = 0
    while waiting:
        frame, parent = waiting.pop()
        if frame.error is not None:
            continue
        yield frame.type, frame.sender, frame.to, frame.input, parent
        waiting += [(inner, place) for inner in reversed(frame.calls)]
        place += 1


def _of_traces(traces: Sequence[RawTrace]) -> Iterator[_Raw]:
    """Walk a flat list, in which a call stands before what it calls."""
    places: dict[tuple[int, ...], int] = {}
    for trace in traces:
        path = tuple(trace.trace_address)
        # What is missing above was reverted, or is not a call.
        if trace.error is not None or (path and path[:-1] not in places):
            continue
        if trace.type == "call":
            action = trace.action
            yield (
                action.call_type,
                action.sender,
                action.to,
                action.input,
                places[path[:-1]] if path else None,
            )
        elif trace.type == "create":
            yield "create", trace.action.sender, None, "0x", places[path[:-1]] if path else None
        else:
            continue
        places[path] = len(places)
