"""Proofs and signatures as a client sends them, against the vendor's vectors and our decoder."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.abi import keccak
from indexer.core.merkle import MAX_UINT48, implied_root, merkle_root, session_leaf
from indexer.core.session_proof import (
    OPERATION_HEAD_BYTES,
    VALIDATE_SESSION_KEY,
    module_signature,
    operation_signature,
    posing_node,
    prove_session,
    signature_offset,
    validate_session_key_call,
)
from indexer.core.types import Address, Hash32, Session
from indexer.core.user_operations import decode_signature

VECTORS = Path(__file__).parents[1] / "vectors"
CASES = [
    case
    for case in json.loads((VECTORS / "sessions.json").read_text())["cases"]
    if all("sessionKeyData" in item for item in case["sessions"])
]
MANAGER = Address(bytes.fromhex("000002FbFfedd9B33F4E7156F2DE8D48945E7489"))


def raw(text):
    return bytes.fromhex(text.removeprefix("0x"))


def sessions_of(case):
    return [
        Session(
            item["validUntil"],
            item["validAfter"],
            Address(raw(item["sessionValidationModule"])),
            raw(item["sessionKeyData"]),
        )
        for item in case["sessions"]
    ]


def test_the_selector_is_that_of_the_vendors_function():
    """ValidateSessionKey as SessionKeyManagerModule.sol declares it."""
    signature = b"validateSessionKey(address,uint48,uint48,address,bytes,bytes32[])"
    assert keccak(signature)[:4] == VALIDATE_SESSION_KEY


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_each_proof_is_the_one_of_the_sdk(case):
    """By value, as the SDK proves: of a session that repeats, the last one's proof."""
    sessions = sessions_of(case)
    by_value = case.get("sdkProofsByLeafValue", case["proofs"])

    for index in range(len(sessions)):
        proved = prove_session(sessions, index)

        assert [f"0x{element.hex()}" for element in proved.proof] == by_value[index]
        assert proved.root == raw(case["root"])
        assert sessions[proved.index] == sessions[index]


sessions = st.lists(
    st.builds(
        Session,
        st.integers(0, MAX_UINT48),
        st.integers(0, MAX_UINT48),
        st.binary(min_size=20, max_size=20).map(Address),
        st.binary(max_size=100),
    ),
    min_size=1,
    max_size=20,
)


@given(sessions, st.binary(min_size=1, max_size=100), st.data())
def test_a_signature_decodes_to_the_session_it_was_made_of(one_set, signature, data):
    """Our decoder reads session and proof out of it, and the key's signature stands where told."""
    proved = prove_session(one_set, data.draw(st.integers(0, len(one_set) - 1)))

    inner = module_signature(proved, signature)
    outer = operation_signature(inner, MANAGER)

    parts = decode_signature(outer)
    assert parts.validation_module == MANAGER
    (seen,) = parts.sessions
    assert (seen.session, seen.leaf, seen.proof) == (proved.session, proved.leaf, proved.proof)
    assert seen.implied_root == merkle_root([session_leaf(one) for one in one_set])
    at = signature_offset(proved)
    assert inner[at : at + len(signature)] == signature
    assert int.from_bytes(inner[at - 32 : at]) == len(signature)
    at += OPERATION_HEAD_BYTES
    assert outer[at : at + len(signature)] == signature


@given(sessions.filter(lambda one_set: len(one_set) > 1))
def test_an_inner_node_is_found_with_what_it_poses_as(one_set):
    """The root itself is one: its pseudo-session hashes to it, with an empty proof."""
    root = merkle_root([session_leaf(one) for one in one_set])

    posing = posing_node(one_set, root)

    assert posing is not None
    assert session_leaf(posing.session) == posing.leaf == root
    assert (posing.index, posing.proof) == (None, ())


def test_inner_nodes_below_the_root_prove_too():
    """Of five leaves the first pair: its proof leads to the root, though it is no session."""
    one_set = [Session(0, 0, MANAGER, bytes([i])) for i in range(5)]
    leaves = [session_leaf(one) for one in one_set]
    pair = merkle_root(leaves[:2])

    posing = posing_node(one_set, pair)

    assert posing is not None
    assert implied_root(session_leaf(posing.session), posing.proof) == posing.root
    assert posing.root == merkle_root(leaves)
    for no_inner_node in (*leaves, Hash32(bytes(32))):
        assert posing_node(one_set, no_inner_node) is None


def test_the_call_of_the_manager_begins_with_account_and_times():
    """The head of validateSessionKey's calldata, word by word."""
    proved = prove_session([Session(7, 5, MANAGER, b"\x01")], 0)

    call = validate_session_key_call(Address(b"\xac" * 20), proved)

    words = [call[4 + i : 36 + i] for i in range(0, 128, 32)]
    assert call[:4] == VALIDATE_SESSION_KEY
    assert [words[0][12:], int.from_bytes(words[1]), int.from_bytes(words[2]), words[3][12:]] == [
        b"\xac" * 20,
        7,
        5,
        MANAGER,
    ]
