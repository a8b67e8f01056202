"""What a client sends to use a session: its proof, and the signature of the user operation.

Source of the two encodings: SessionKeyManagerModule.validateUserOp and SmartAccount.validateUserOp
of bcnmy/scw-contracts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from eth_abi.abi import encode

from indexer.core.leaf_order import Proof
from indexer.core.merkle import implied_root, merkle_layers, merkle_proof, session_leaf
from indexer.core.types import Address, Hash32, Session

VALIDATE_SESSION_KEY: Final = bytes.fromhex("b13152ee")
SIGNATURE_BYTES: Final = 65
"""What an ECDSA signature takes: r, s, v."""
_SESSION_TYPES: Final = ("uint48", "uint48", "address", "bytes", "bytes32[]")


@dataclass(frozen=True, slots=True)
class SessionProof:
    """A session with the proof by which it hashes to `root`.

    `index` is its place in the set, None for an inner node that poses as a session.
    """

    session: Session
    leaf: Hash32
    index: int | None
    proof: Proof
    root: Hash32


def prove_session(sessions: Sequence[Session], index: int) -> SessionProof:
    """Return the proof of a session of a set: of its last occurrence, as the vendor's SDK does.

    Raises IndexError outside of the set, AssertionError if the proof did not give the root.
    """
    return prove_among(sessions[index], [session_leaf(session) for session in sessions])


def prove_among(session: Session, leaves: Sequence[Hash32]) -> SessionProof:
    """Return the proof of a session whose leaf, at its last place, is one of these.

    Raises ValueError if it is none, AssertionError if the proof did not give the root.
    """
    leaf = session_leaf(session)
    last = len(leaves) - 1 - leaves[::-1].index(leaf)
    found = SessionProof(
        session, leaf, last, merkle_proof(leaves, last), merkle_layers(leaves)[-1][0]
    )
    assert implied_root(found.leaf, found.proof) == found.root
    return found


def posing_node(sessions: Sequence[Session], node: Hash32) -> SessionProof | None:
    """Return the pseudo-session that an inner node of the set's tree is, with its proof.

    Its 64-byte preimage reads as valid_until, valid_after, module and 32 bytes of
    session_key_data, and a manager takes it for a session. None if there is no such inner node.
    """
    layers = merkle_layers([session_leaf(session) for session in sessions])
    for below, layer in pairwise(layers):
        index = layer.index(node) if node in layer else -1
        pair = below[2 * index : 2 * index + 2]
        # A node without a partner has moved up unhashed; it was looked at in its own layer.
        if index < 0 or len(pair) < 2:
            continue
        preimage = b"".join(sorted(pair))
        session = Session(
            int.from_bytes(preimage[:6]),
            int.from_bytes(preimage[6:12]),
            Address(preimage[12:32]),
            preimage[32:],
        )
        proof = merkle_proof(layer, index)
        return SessionProof(session, node, None, proof, layers[-1][0])
    return None


def module_signature(proved: SessionProof, signature: bytes) -> bytes:
    """Return what a SessionKeyManager decodes; `signature` is the session key's."""
    return encode([*_SESSION_TYPES, "bytes"], [*_fields(proved), signature])


def operation_signature(module_signature: bytes, manager: Address) -> bytes:
    """Return the signature of a user operation that this validation module is to check."""
    return encode(["bytes", "address"], [module_signature, manager])


def signature_offset(proved: SessionProof) -> int:
    """Return the byte of `module_signature` where the session key's signature begins.

    In `operation_signature` it begins OPERATION_HEAD_BYTES later.
    """
    data = -(-len(proved.session.session_key_data) // 32)
    # six heads, then data and proof with their lengths, then the length of the signature
    return 32 * (6 + 1 + data + 1 + len(proved.proof) + 1)


OPERATION_HEAD_BYTES: Final = 96
"""Offset, manager and length stand before the module's signature."""


def validate_session_key_call(account: Address, proved: SessionProof) -> bytes:
    """Return the calldata by which a SessionKeyManager is asked whether it approves a session."""
    types = ["address", *_SESSION_TYPES]
    return VALIDATE_SESSION_KEY + encode(types, [account, *_fields(proved)])


def _fields(proved: SessionProof) -> list[object]:
    session = proved.session
    return [
        session.valid_until,
        session.valid_after,
        session.session_validation_module,
        session.session_key_data,
        list(proved.proof),
    ]
