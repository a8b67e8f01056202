"""Leaves, roots and proofs of a session set, bit for bit as the vendor's SDK builds them.

Source of the tree: @biconomy/account, `new MerkleTree(leaves, keccak256, {sortPairs: true,
hashLeaves: false})` of merkletreejs. Source of the leaf and of the storage slot:
bcnmy/scw-contracts, SessionKeyManagerModule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from indexer.core.abi import keccak
from indexer.core.types import Address, Hash32, Session

MAX_UINT48 = 2**48 - 1
"""The latest time a leaf can carry, in unix seconds."""


def session_leaf(session: Session) -> Hash32:
    """Return the Merkle leaf of one session: keccak256 of its packed fields, hashed once.

    Packed: uint48 valid_until first, uint48 valid_after, 20-byte module, session_key_data.
    Raises OverflowError where a time is negative or past 48 bits, ValueError where the module
    is not 20 bytes long: both would silently give the leaf of another session.
    """
    if len(session.session_validation_module) != 20:
        raise ValueError("session_validation_module must be 20 bytes")
    return keccak(
        session.valid_until.to_bytes(6, "big")
        + session.valid_after.to_bytes(6, "big")
        + session.session_validation_module
        + session.session_key_data
    )


def merkle_root(leaves: Sequence[Hash32]) -> Hash32:
    """Return the root over leaves in the order given; one leaf is its own root.

    Pairs are sorted before hashing, leaves are neither sorted nor deduplicated, the odd node
    at the end of a layer moves up unhashed. Raises ValueError on an empty list: merkletreejs
    answers "0x" there, which is no root.
    """
    return merkle_layers(leaves)[-1][0]


def merkle_layers(leaves: Sequence[Hash32]) -> list[Sequence[Hash32]]:
    """Return the whole tree, from the leaves in the order given up to the root alone.

    Raises ValueError on an empty list.
    """
    layers: list[Sequence[Hash32]] = [_checked(leaves)]
    while len(layers[-1]) > 1:
        layers.append(_parents(layers[-1]))
    return layers


def prefix_roots(leaves: Sequence[Hash32]) -> Iterator[Hash32]:
    """Yield the roots of the first leaf, the first two, and so on up to all of them.

    Costs a few hashes per leaf: of each list only its full subtrees are kept, and since an odd
    node moves up unhashed, folding them from the smallest up gives the root.
    """
    subtrees: list[Hash32] = []
    for count, leaf in enumerate(leaves, start=1):
        node = leaf
        # As many subtrees become one as the count has zero bits at its end.
        for _ in range((count & -count).bit_length() - 1):
            node = node_over(subtrees.pop(), node)
        subtrees.append(node)
        root = subtrees[-1]
        for subtree in reversed(subtrees[:-1]):
            root = node_over(subtree, root)
        yield root


def merkle_proof(leaves: Sequence[Hash32], index: int) -> tuple[Hash32, ...]:
    """Return the proof of the leaf at this index, siblings from the bottom to the top.

    A node that moves up unhashed has no sibling there, so proofs of one tree differ in length.
    Raises IndexError outside of the list, ValueError on an empty list.
    """
    layer: Sequence[Hash32] = _checked(leaves)
    if not 0 <= index < len(layer):
        raise IndexError(f"leaf {index} of {len(layer)}")
    proof: list[Hash32] = []
    while len(layer) > 1:
        sibling = index ^ 1
        if sibling < len(layer):
            proof.append(layer[sibling])
        layer = _parents(layer)
        index //= 2
    return tuple(proof)


def implied_root(leaf: Hash32, proof: Iterable[Hash32]) -> Hash32:
    """Return the root under which this proof makes the leaf valid (OpenZeppelin MerkleProof).

    Equality with a root proves that the pair hashes to it, not that the leaf is a session:
    an inner node passes too. Decide membership with `is_member`.
    """
    node = leaf
    for sibling in proof:
        node = node_over(node, sibling)
    return node


def is_member(leaf: Hash32, leaves: Iterable[Hash32]) -> bool:
    """Say whether the leaf is one of the stored leaves.

    Never ask a proof instead: 32 bytes of session_key_data make a 64-byte preimage, so a
    pseudo-session whose bytes are the two children of an inner node is accepted on chain.
    """
    return any(leaf == stored for stored in leaves)


def root_slot(account: Address) -> Hash32:
    """Return the slot of the account's root in a manager: keccak256(abi.encode(account, 0)).

    The mapping stands first in V1, 1.1.0 and DAN. Raises ValueError on a wrong width.
    """
    if len(account) != 20:
        raise ValueError("account must be 20 bytes")
    return keccak(bytes(12) + account + bytes(32))


def _checked(leaves: Sequence[Hash32]) -> Sequence[Hash32]:
    if not leaves:
        raise ValueError("an empty session set has no root")
    if any(len(leaf) != 32 for leaf in leaves):
        raise ValueError("every leaf must be 32 bytes")
    return leaves


def node_over(one: Hash32, other: Hash32) -> Hash32:
    """Return the inner node over two children, whichever comes first."""
    return keccak(one + other if one <= other else other + one)


def _parents(layer: Sequence[Hash32]) -> list[Hash32]:
    parents = [node_over(layer[i], layer[i + 1]) for i in range(0, len(layer) - 1, 2)]
    if len(layer) % 2:
        parents.append(layer[-1])
    return parents
