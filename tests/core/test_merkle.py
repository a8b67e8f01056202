"""Leaves, roots, proofs and slots, bit for bit as the vendor's SDK and contracts have them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core.abi import keccak
from indexer.core.merkle import (
    MAX_UINT48,
    implied_root,
    is_member,
    merkle_proof,
    merkle_root,
    root_slot,
    session_leaf,
)
from indexer.core.types import Address, Hash32, Session

VECTORS = Path(__file__).parents[1] / "vectors"
CASES = json.loads((VECTORS / "sessions.json").read_text())["cases"]
BY_ID = {case["id"]: case for case in CASES}
EDGES = json.loads((VECTORS / "edge_cases.json").read_text())

leaf = st.binary(min_size=32, max_size=32).map(Hash32)
leaves_of = st.lists(leaf, min_size=1, max_size=40)
sessions = st.builds(
    Session,
    st.integers(0, MAX_UINT48),
    st.integers(0, MAX_UINT48),
    st.binary(min_size=20, max_size=20).map(Address),
    st.binary(max_size=200),
)


def raw(text):
    return bytes.fromhex(text.removeprefix("0x"))


def hashes(texts):
    return tuple(Hash32(raw(text)) for text in texts)


def session_of(item):
    return Session(
        item["validUntil"],
        item["validAfter"],
        Address(raw(item["sessionValidationModule"])),
        raw(item["sessionKeyData"]),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_leaves_root_and_proofs_equal_the_vendors(case):
    """Every leaf, root, proof and setMerkleRoot calldata is what the SDK gave."""
    leaves = hashes(case["leaves"])
    root = merkle_root(leaves)

    if all("sessionKeyData" in item for item in case["sessions"]):
        assert tuple(session_leaf(session_of(item)) for item in case["sessions"]) == leaves
    assert root == raw(case["root"])
    assert [merkle_proof(leaves, i) for i in range(len(leaves))] == [
        hashes(proof) for proof in case["proofs"]
    ]
    assert raw("7cb64759") + root == raw(case["setMerkleRootCalldata"])
    assert root_slot(Address(raw(case["account"]))) == raw(case["verification"]["storageSlot"])


@pytest.mark.parametrize(
    "case", [case for case in CASES if "sdkProofsByLeafValue" in case], ids=lambda case: case["id"]
)
def test_the_sdks_proof_by_value_is_that_of_the_last_occurrence(case):
    """Where leaves repeat, the SDK's proof is ours for the last index, and ours all verify."""
    leaves = hashes(case["leaves"])

    for index, given_proof in enumerate(case["sdkProofsByLeafValue"]):
        last = max(i for i, other in enumerate(leaves) if other == leaves[index])
        assert merkle_proof(leaves, last) == hashes(given_proof)
        assert implied_root(leaves[index], merkle_proof(leaves, index)) == raw(case["root"])


@pytest.mark.parametrize(
    ("case", "same", "other"),
    [
        (case, tag.startswith("same-root-as:"), tag.split(":")[1])
        for case in CASES
        for tag in case["tags"]
        if ":" in tag
    ],
    ids=lambda value: value["id"] if isinstance(value, dict) else str(value),
)
def test_the_order_decides_the_root_as_observed(case, same, other):
    """A permutation gives the same root or another one exactly where the contract showed so."""
    ours = merkle_root(hashes(case["leaves"]))
    theirs = merkle_root(hashes(BY_ID[other]["leaves"]))

    assert sorted(case["leaves"]) == sorted(BY_ID[other]["leaves"])
    assert (ours == theirs) is same


@pytest.mark.parametrize("edge", EDGES["innerNodeAsLeaf"], ids=lambda edge: edge["basedOn"])
def test_an_inner_node_is_provable_but_no_member(edge):
    """A pseudo-session made of an inner node has a valid proof, and still is not in the set."""
    case = BY_ID[edge["basedOn"]]
    pseudo = session_leaf(session_of(edge["pseudoSession"]))

    assert pseudo == raw(edge["leaf"])
    assert implied_root(pseudo, hashes(edge["proof"])) == raw(case["root"])
    assert not is_member(pseudo, hashes(case["leaves"]))
    assert all(is_member(one, hashes(case["leaves"])) for one in hashes(case["leaves"]))


def test_the_slot_of_the_published_account():
    """The root's slot is keccak256(abi.encode(account, 0)), as read on a real node."""
    account = Address(raw("0xcbeba65449cBeF0DcfD4a63CDf4090fA1D4A9F63"))
    assert root_slot(account).hex() == (
        "1a4190ecb9518e6ae0f79478c3bf97587a455adcbcf90c68a1ee74ee4781bf7f"
    )


@given(leaves_of)
@settings(max_examples=60, deadline=None)
def test_every_proof_verifies(leaves):
    """Each leaf, repeated or not, hashes with its proof to the root."""
    root = merkle_root(leaves)
    assert all(
        implied_root(one, merkle_proof(leaves, index)) == root for index, one in enumerate(leaves)
    )


@given(leaves_of, leaf)
@settings(max_examples=60, deadline=None)
def test_no_foreign_leaf_verifies(leaves, foreign):
    """A leaf outside of the set has no proof among those of the set."""
    if foreign in leaves:
        return
    root = merkle_root(leaves)
    assert all(
        implied_root(foreign, merkle_proof(leaves, index)) != root for index in range(len(leaves))
    )
    assert not is_member(foreign, leaves)


@given(leaf, leaf)
@settings(deadline=None)
def test_two_leaves_commute(one, other):
    """A pair is sorted before it is hashed, so two leaves have one root in either order."""
    assert merkle_root([one, other]) == merkle_root([other, one])
    assert merkle_root([one, one]) == keccak(one + one) != one


@given(st.integers(0, 4), st.data())
@settings(max_examples=60, deadline=None)
def test_whole_pair_blocks_commute(power, data):
    """Two neighbouring blocks of 2^n leaves may be swapped without changing the root."""
    size = 2**power
    block = st.lists(leaf, min_size=size, max_size=size)
    first, second = data.draw(block), data.draw(block)
    assert merkle_root(first + second) == merkle_root(second + first)


@given(st.lists(leaf, min_size=3, max_size=3, unique=True))
@settings(deadline=None)
def test_three_leaves_do_not_commute(leaves):
    """The odd leaf is promoted unhashed, so which one stands last decides the root."""
    a, b, c = leaves
    assert merkle_root([a, b, c]) != merkle_root([c, a, b])
    assert merkle_proof([a, b, c], 2) == (merkle_root([a, b]),)


@given(leaf)
@settings(deadline=None)
def test_one_leaf_is_its_root(one):
    """A set of one session has its leaf as root and an empty proof."""
    assert merkle_root([one]) == one
    assert merkle_proof([one], 0) == ()


@given(sessions, sessions)
@settings(deadline=None)
def test_leaves_of_different_sessions_differ(one, other):
    """Equal leaves mean equal sessions: every field has a fixed place in the packing."""
    assert (session_leaf(one) == session_leaf(other)) is (one == other)


@given(sessions)
@settings(deadline=None)
def test_a_leaf_is_the_hash_of_the_packed_fields(session):
    """uint48 valid_until comes first, then uint48 valid_after, module, data; hashed once."""
    packed = (
        session.valid_until.to_bytes(6, "big")
        + session.valid_after.to_bytes(6, "big")
        + session.session_validation_module
        + session.session_key_data
    )
    assert session_leaf(session) == keccak(packed)


@pytest.mark.parametrize("time", [-1, 2**48])
def test_times_outside_of_48_bits_have_no_leaf(time):
    """A time that does not fit is refused, never wrapped into another session's leaf."""
    module = Address(bytes(20))
    with pytest.raises(OverflowError):
        session_leaf(Session(time, 0, module, b""))
    with pytest.raises(OverflowError):
        session_leaf(Session(0, time, module, b""))


def test_wrong_widths_and_empty_sets_are_refused():
    """Nothing gets a leaf, a root, a proof or a slot out of bytes of the wrong length."""
    good = Hash32(bytes(32))
    with pytest.raises(ValueError, match="20 bytes"):
        session_leaf(Session(0, 0, Address(bytes(19)), b""))
    with pytest.raises(ValueError, match="20 bytes"):
        root_slot(Address(bytes(32)))
    with pytest.raises(ValueError, match="no root"):
        merkle_root([])
    with pytest.raises(ValueError, match="no root"):
        merkle_proof([], 0)
    with pytest.raises(ValueError, match="32 bytes"):
        merkle_root([good, Hash32(bytes(31))])
    for index in (-1, 1):
        with pytest.raises(IndexError):
            merkle_proof([good], index)
