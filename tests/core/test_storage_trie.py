"""The storage trie against a naive one built key by key, and against what Anvil proves."""

from __future__ import annotations

import random
from typing import Any

import pytest
import rlp
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.merkle import root_slot
from indexer.core.storage_trie import EMPTY_STORAGE_ROOT, _node, storage_root
from indexer.core.types import Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.devnet.rpc import hexed

words = st.binary(min_size=32, max_size=32).map(Hash32)
small = st.integers(0, 300).map(lambda n: Hash32(n.to_bytes(32)))


def naive(items: dict[str, bytes]) -> Any:
    """Return the structure of the trie over hex keys, as the yellow paper's function c."""
    if not items:
        return b""
    if len(items) == 1:
        ((key, value),) = items.items()
        return [packed(key, leaf=True), value]
    shared = 0
    while len({key[shared] for key in items}) == 1:
        shared += 1
    if shared:
        prefix = next(iter(items))[:shared]
        below = naive({key[shared:]: value for key, value in items.items()})
        return [packed(prefix, leaf=False), capped(below)]
    branch: list[Any] = []
    for digit in "0123456789abcdef":
        below = naive({key[1:]: v for key, v in items.items() if key[0] == digit})
        branch.append(capped(below))
    return [*branch, b""]


def packed(digits: str, *, leaf: bool) -> bytes:
    flag = 2 * leaf + len(digits) % 2
    return bytes.fromhex(f"{flag:x}{digits}" if len(digits) % 2 else f"{flag:x}0{digits}")


def capped(node: Any) -> Any:
    return node if node == b"" or len(rlp.encode(node)) < 32 else keccak(rlp.encode(node))


@given(st.dictionaries(words, small | words, max_size=40), st.randoms(use_true_random=False))
def test_the_root_is_that_of_a_trie_built_by_the_book(
    found: dict[Hash32, Hash32], source: random.Random
) -> None:
    """Whatever the order, and zero words are not there."""
    pairs = list(found.items())
    source.shuffle(pairs)
    kept = {keccak(slot).hex(): rlp.encode(word.lstrip(b"\0")) for slot, word in pairs if any(word)}
    assert storage_root(pairs) == keccak(rlp.encode(naive(kept)))


@given(
    st.dictionaries(
        st.text("01", min_size=4, max_size=4).map(lambda tail: "5" * 60 + tail),
        st.binary(min_size=1, max_size=3),
        min_size=1,
    )
)
def test_nodes_too_short_to_be_hashed_stand_in_their_parents(items: dict[str, bytes]) -> None:
    """Keys that agree almost to their end: no hash of a slot ever does that."""
    leaves = sorted((Hash32(bytes.fromhex(key)), rlp.encode(v)) for key, v in items.items())
    book = naive({key: rlp.encode(value) for key, value in items.items()})
    assert _node(leaves, 0, len(leaves), 0) == rlp.encode(book)


async def filled(devnet: Devnet, count: int) -> dict[Hash32, Hash32]:
    """Store so many roots, and return them by their slots."""
    source = random.Random(count)
    accounts = [Address(source.randbytes(20)) for _ in range(count)]
    slots = {root_slot(account): Hash32(source.randbytes(32)) for account in accounts}
    slots[root_slot(accounts[0])] = Hash32((1).to_bytes(32))
    for slot, word in slots.items():
        await devnet.rpc.call("anvil_setStorageAt", hexed(at.MANAGER), hexed(slot), hexed(word))
    await devnet.rpc.mine()
    return slots


async def test_a_node_that_keeps_zeros(devnet: Devnet) -> None:
    """What was cleared stays in Anvil's trie as an empty word."""
    slots = await filled(devnet, 20)
    for slot in list(slots)[:3]:
        slots[slot] = Hash32(bytes(32))
        await devnet.rpc.call(
            "anvil_setStorageAt", hexed(at.MANAGER), hexed(slot), hexed(bytes(32))
        )
    await devnet.rpc.mine()
    proof = await devnet.rpc.call("eth_getProof", hexed(at.MANAGER), [], "latest")
    # Anvil keeps what was cleared; a chain does not, and the two roots cannot be confused.
    assert proof["storageHash"] == hexed(storage_root(slots.items(), with_zeros=True))
    assert storage_root(slots.items()) == storage_root(
        [(slot, word) for slot, word in slots.items() if any(word)], with_zeros=True
    )


@pytest.mark.parametrize("count", [1, 2, 17, 300])
async def test_a_node_proves_the_same_root(devnet: Devnet, count: int) -> None:
    """Roots of accounts in a manager, long and short."""
    slots = await filled(devnet, count)
    proof = await devnet.rpc.call("eth_getProof", hexed(at.MANAGER), [], "latest")
    assert proof["storageHash"] == hexed(storage_root(slots.items()))


async def test_nothing_stored(devnet: Devnet) -> None:
    proof = await devnet.rpc.call("eth_getProof", hexed(at.MANAGER), [], "latest")
    assert proof["storageHash"] == hexed(storage_root([])) == hexed(EMPTY_STORAGE_ROOT)
