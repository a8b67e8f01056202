"""Traces of both dialects: what was reverted is left out, and what cannot be is refused."""

from __future__ import annotations

from typing import Any

import pytest

from indexer.chain.rpc import Node, NodeRefusedError
from indexer.chain.traces import fetch_traces, fetch_transaction_hashes
from indexer.core.settings import TraceMode
from indexer.core.traces import INPUT_BYTES, TracedCall
from indexer.core.types import Address, Hash32
from indexer.errors import BlockUnknownError, NodeAnswerError
from tests.sim.blocks import SimTransaction
from tests.sim.faults import Answer, Refuse
from tests.sim.node import SimNode

A, B, C = (Address(bytes([n]) * 20) for n in (1, 2, 3))
BLOCK, TX = Hash32(b"\xbb" * 32), Hash32(b"\x77" * 32)
METHODS: dict[str, TraceMode] = {"debug_traceTransaction": "debug", "trace_transaction": "trace"}


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


def frame(to: Address, *calls: dict[str, Any], **changes: Any) -> dict[str, Any]:
    shown = {"type": "CALL", "from": hexed(A), "to": hexed(to), "input": "0x12", "calls": [*calls]}
    return {**shown, **changes}


def trace(to: Address, *path: int, **changes: Any) -> dict[str, Any]:
    action = {"from": hexed(A), "to": hexed(to), "input": "0x12", "callType": "call"}
    shown = {"type": "call", "action": action, "traceAddress": [*path], "blockHash": hexed(BLOCK)}
    return {**shown, **changes}


def called(to: Address, parent: int | None, kind: str = "CALL") -> TracedCall:
    return TracedCall(kind, A, to, b"\x12", parent)


async def read(sim: SimNode, node: Node, method: str, answer: Any) -> list[TracedCall]:
    sim.fail(Answer(answer), method=method)
    return (await fetch_traces(node, METHODS[method], BLOCK, [TX]))[TX]


async def test_a_tree_of_frames_is_read_in_order(sim: SimNode, node: Node) -> None:
    """Each call knows the one around it; a delegatecall and a creation are kinds of their own."""
    inner = frame(C, type="DELEGATECALL")
    made = {"type": "CREATE2", "from": hexed(A), "to": hexed(B), "input": "0x12"}
    answer = frame(A, frame(B, inner), frame(C), made)

    assert await read(sim, node, "debug_traceTransaction", answer) == [
        called(A, None),
        called(B, 0),
        called(C, 1, "DELEGATECALL"),
        called(C, 0),
        called(B, 0, "CREATE2"),
    ]


async def test_what_lies_in_a_reverted_frame_did_not_happen(sim: SimNode, node: Node) -> None:
    """The inner call has no error of its own."""
    reverted = frame(B, frame(C, frame(B)), error="execution reverted")
    answer = frame(A, reverted, frame(C))

    assert await read(sim, node, "debug_traceTransaction", answer) == [
        called(A, None),
        called(C, 0),
    ]
    assert await read(sim, node, "debug_traceTransaction", frame(A, error="out of gas")) == []


async def test_the_flat_dialect_says_the_same(sim: SimNode, node: Node) -> None:
    """Paths stand for the tree; a reverted prefix takes all below with it."""
    answer = [
        trace(A),
        trace(B, 0, error="Reverted"),
        trace(C, 0, 0),
        trace(B, 0, 0, 0),
        trace(C, 1),
        trace(B, 1, 0, type="suicide"),
        trace(B, 2, type="create"),
        trace(C, 2, 0),
    ]

    assert await read(sim, node, "trace_transaction", answer) == [
        called(A, None),
        called(C, 0),
        TracedCall("CREATE", A, None, b"", 0),
        called(C, 2),
    ]


@pytest.mark.parametrize("method", METHODS)
async def test_of_a_long_input_only_the_head_is_kept(sim: SimNode, node: Node, method: str) -> None:
    """A handleOps of a megabyte is not held in memory."""
    long = "0x" + "ab" * 10_000
    shown = frame(A, input=long)
    if method == "trace_transaction":
        shown = trace(A, action={**trace(A)["action"], "input": long})
    (one,) = await read(sim, node, method, [shown] if method == "trace_transaction" else shown)
    assert one.input == b"\xab" * INPUT_BYTES


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("debug_traceTransaction", None),
        ("debug_traceTransaction", []),
        ("debug_traceTransaction", {"type": "CALL", "from": "0x12", "to": None, "input": "0x"}),
        ("debug_traceTransaction", {"type": "CALL", "from": hexed(A), "input": "0xzz"}),
        ("debug_traceTransaction", {"type": 5, "from": hexed(A)}),
        ("trace_transaction", {}),
        ("trace_transaction", [trace(A, blockHash=hexed(TX))]),
        ("trace_transaction", [trace(A, traceAddress=["a"])]),
        ("trace_transaction", [trace(A, action={"from": "0x", "callType": "call"})]),
    ],
)
async def test_a_trace_that_cannot_be_is_refused(
    sim: SimNode, node: Node, method: str, answer: Any
) -> None:
    """Never taken for a transaction that called nothing."""
    with pytest.raises(NodeAnswerError):
        await read(sim, node, method, answer)


async def test_a_deep_trace_needs_no_stack_of_ours(sim: SimNode, node: Node) -> None:
    """Calls nest up to 1,024 deep; what is deeper than the decoder goes is refused."""
    deep = frame(A)
    for _ in range(300):
        deep = frame(A, deep)
    assert len(await read(sim, node, "debug_traceTransaction", deep)) == 301
    assert [call.parent for call in await read(sim, node, "debug_traceTransaction", deep)] == [
        None,
        *range(300),
    ]


async def test_a_node_without_traces_says_so(sim: SimNode, node: Node) -> None:
    """Its refusal is an error, not an empty trace."""
    for method, mode in METHODS.items():
        sim.fail(Refuse("the method does not exist/is not available", -32601), method=method)
        with pytest.raises(NodeRefusedError):
            await fetch_traces(node, mode, BLOCK, [TX])


async def test_the_transactions_of_a_block(sim: SimNode, node: Node) -> None:
    """In order, by the block's hash; a block that left the chain is unknown."""
    block = sim.mine(1, transactions=[SimTransaction(A), SimTransaction(B)])
    hashes = [block.transaction_hash(index) for index in range(2)]
    assert await fetch_transaction_hashes(node, block.hash) == hashes
    sim.fork(1)
    sim.mine(2)
    with pytest.raises(BlockUnknownError):
        await fetch_transaction_hashes(node, block.hash)
    sim.fail(Answer({"hash": "0x", "transactions": ["0x12"]}), method="eth_getBlockByHash")
    with pytest.raises(NodeAnswerError):
        await fetch_transaction_hashes(node, block.hash)
