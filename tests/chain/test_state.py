"""State is a value the node gave for exactly that block, or an error; never a zero for an error."""

from __future__ import annotations

from typing import Any

import pytest

from indexer.chain.rpc import Node, NodeRefusedError
from indexer.chain.state import (
    MERKLE_ROOT_UPDATED,
    Transaction,
    fetch_transactions,
    find_deployment_block,
    manager_kind,
    read_code,
)
from indexer.core.merkle import root_slot
from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.errors import BlockUnknownError, NodeAnswerError, NodeError, StatePrunedError
from tests.chain.reading import read_slots
from tests.sim.blocks import BUNDLER, SimTransaction
from tests.sim.faults import Answer, Drop, Fault, Refuse
from tests.sim.node import SimNode

MANAGER, ACCOUNT, OTHER = (Address(bytes([n]) * 20) for n in (1, 2, 3))
SLOT = (MANAGER, root_slot(ACCOUNT))
EMPTY = (MANAGER, root_slot(OTHER))
ROOT_A, ROOT_B = Hash32(b"\xaa" * 32), Hash32(b"\xbb" * 32)


async def test_slots_are_read_at_their_block(sim: SimNode, node: Node) -> None:
    """Each block hash gives the words after that block, in the order asked."""
    before = sim.mine(1, slots={SLOT: ROOT_A})
    after = sim.mine(3, slots={SLOT: ROOT_B})
    assert await read_slots(node, before.hash, [EMPTY, SLOT]) == [ZERO_HASH, ROOT_A]
    assert await read_slots(node, after.hash, [SLOT, EMPTY]) == [ROOT_B, ZERO_HASH]
    assert await read_slots(node, after.hash, []) == []


async def test_a_slot_asked_twice_is_read_once(sim: SimNode, node: Node) -> None:
    """Repeated slots cost one call and are answered in every place."""
    block = sim.mine(1, slots={SLOT: ROOT_A})
    assert await read_slots(node, block.hash, [SLOT] * 5) == [ROOT_A] * 5
    assert len(sim.requests[0]) == 1


async def test_state_follows_the_winning_branch(sim: SimNode, node: Node) -> None:
    """After a reorg the lost block is unknown and the new one has its own root."""
    lost = sim.mine(1, slots={SLOT: ROOT_A})
    sim.fork(1)
    won = sim.mine(1)
    with pytest.raises(BlockUnknownError):
        await read_slots(node, lost.hash, [SLOT])
    assert await read_slots(node, won.hash, [SLOT]) == [ZERO_HASH]


async def test_a_minimal_word_is_padded(sim: SimNode, node: Node) -> None:
    """Nodes that leave out leading zeros are understood."""
    block = sim.mine()
    sim.fail(Answer("0xabcd"))
    assert await read_slots(node, block.hash, [SLOT]) == [bytes(30) + b"\xab\xcd"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Answer(None), NodeAnswerError),
        (Answer("0x"), NodeAnswerError),
        (Answer(""), NodeAnswerError),
        (Answer("0xzz"), NodeAnswerError),
        (Answer("0x" + "1" * 65), NodeAnswerError),
        (Answer(0), NodeAnswerError),
        (Answer([]), NodeAnswerError),
        (Drop(), NodeAnswerError),
        (Refuse("header not found"), BlockUnknownError),
        (Refuse("Resource not found", -32001), BlockUnknownError),
        (Refuse("unknown block"), BlockUnknownError),
        (Refuse("missing trie node 12 (path )"), StatePrunedError),
        (Refuse("state is pruned"), StatePrunedError),
        (Refuse("BlockOutOfRangeError: block height is 9 but requested was 1"), StatePrunedError),
        (Refuse("distance to target block exceeds maximum proof window"), StatePrunedError),
        (Refuse("internal error", -32603), NodeRefusedError),
        (Refuse("", 0), NodeRefusedError),
    ],
)
async def test_an_error_is_never_a_zero(
    sim: SimNode, node: Node, fault: Fault, kind: type[NodeError]
) -> None:
    """Whatever is not a word is an error of its kind, and the good word beside it is not used."""
    block = sim.mine(1, slots={SLOT: ROOT_A})
    sim.overrides = "refused"
    sim.fail(fault, method="eth_getStorageAt")
    with pytest.raises(kind):
        await read_slots(node, block.hash, [EMPTY, SLOT])


async def test_pruned_state_is_told_apart(sim: SimNode, node: Node) -> None:
    """A block that is known but too old is pruned, not unknown."""
    old = sim.mine(1, slots={SLOT: ROOT_A})
    sim.mine(10)
    sim.prune_before = 5
    with pytest.raises(StatePrunedError):
        await read_slots(node, old.hash, [SLOT])
    assert await read_slots(node, sim.tip.hash, [SLOT]) == [ROOT_A]


async def test_transactions_in_the_order_asked(sim: SimNode, node: Node) -> None:
    """Known transactions come whole, unknown ones as None."""
    block = sim.mine(2, transactions=[SimTransaction(ACCOUNT, b"call"), SimTransaction(None)])
    call, creation = (block.transaction_hash(index) for index in range(2))
    places = [(block.hash, 1), (block.hash, 7), (block.hash, 0), (block.hash, 0)]
    found = await fetch_transactions(node, places)
    expected = Transaction(call, block.hash, block.number, BUNDLER, ACCOUNT, b"call")
    assert found == [
        Transaction(creation, block.hash, block.number, BUNDLER, None, b""),
        None,
        expected,
        expected,
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"blockHash": "0x" + "77" * 32},
        {"blockHash": None},
        {"blockHash": None, "blockNumber": None},
        {"input": None},
        {"to": "0x12"},
        {"from": None},
        {"from": "0x12"},
        {"input": 1},
    ],
)
async def test_a_wrong_transaction_is_refused(
    sim: SimNode, node: Node, changes: dict[str, Any]
) -> None:
    """Another block, half a position or a bad field is an error."""
    block = sim.mine(1, transactions=[SimTransaction(ACCOUNT)])
    sim.fail(Answer({**block.transaction_to_json(0), **changes}))
    with pytest.raises(NodeAnswerError):
        await fetch_transactions(node, [(block.hash, 0)])
    sim.fail(Refuse("internal error"))
    with pytest.raises(NodeRefusedError):
        await fetch_transactions(node, [(block.hash, 0)])


async def test_code_is_read_at_a_block(sim: SimNode, node: Node) -> None:
    """Code by number and by tag; a bad answer or pruned state is an error."""
    sim.mine(5, code={MANAGER: b"\x60\x00"})
    assert await read_code(node, MANAGER) == b"\x60\x00"
    assert await read_code(node, MANAGER, 4) == b""
    sim.fail(Answer("0x6"))
    with pytest.raises(NodeAnswerError):
        await read_code(node, MANAGER)
    sim.prune_before = 5
    with pytest.raises(StatePrunedError):
        await read_code(node, MANAGER, 4)


@pytest.mark.parametrize("at", [1, 2, 37, 63, 64])
async def test_the_deployment_block_is_found(sim: SimNode, node: Node, at: int) -> None:
    """Bisecting finds the first block with code, with a logarithm of calls."""
    sim.mine(at, code={MANAGER: b"\x00"})
    if at < 64:
        sim.mine(64 - at)
    assert await find_deployment_block(node, MANAGER, 64) == at
    assert await find_deployment_block(node, OTHER, 64) is None
    assert len(sim.requests) <= 10


async def test_without_an_archive_nothing_is_guessed(sim: SimNode, node: Node) -> None:
    """Pruned state ends the search with its own error."""
    sim.mine(3, code={MANAGER: b"\x00"})
    sim.mine(60)
    sim.prune_before = 50
    with pytest.raises(StatePrunedError):
        await find_deployment_block(node, MANAGER, 63)


def test_manager_kinds() -> None:
    """The topic decides for events, V1's two functions for V1, and nothing else is assumed."""
    v1 = bytes.fromhex("637cb64759" + "63b13152ee")
    assert manager_kind(b"") == "none"
    assert manager_kind(v1) == "v1"
    assert manager_kind(v1 + b"\x7f" + MERKLE_ROOT_UPDATED) == "events"
    assert manager_kind(v1[:5]) == "unknown"
