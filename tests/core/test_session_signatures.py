from __future__ import annotations

import pytest
from eth_abi import encode
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.types import Address, Hash32, Session
from indexer.core.user_operations import SignatureParts, decode_signature
from tests.core.make_logs import ADDRESSES, EDGE_CASES, MANAGER, A, unhex, words

SESSION_TYPES = ["uint48", "uint48", "address", "bytes", "bytes32[]", "bytes"]


def session_of(fields: dict) -> Session:
    return Session(
        int(fields["validUntil"]),
        int(fields["validAfter"]),
        Address(unhex(fields["sessionValidationModule"])),
        unhex(fields["sessionKeyData"]),
    )


@pytest.mark.parametrize("case", EDGE_CASES["sessionSignedUserOps"], ids=lambda c: c["kind"])
def test_executed_session_signatures_reveal_leaf_and_root(case):
    """A signature a real chain accepted gives the session, its proof and the root it was under."""
    parts = decode_signature(unhex(case["userOp"]["signature"]))
    assert parts.validation_module == unhex(case["module"])
    manager = unhex(case.get("sessionKeyManager", case["module"]))
    sessions = case.get("sessions") or [case["session"]]
    leaves = case.get("leaves") or [case["leaf"]]
    proofs = case.get("proofs") or [case["proof"]]
    assert [p.session for p in parts.sessions] == [session_of(s) for s in sessions]
    assert [p.leaf for p in parts.sessions] == [unhex(leaf) for leaf in leaves]
    assert [list(p.proof) for p in parts.sessions] == [
        [unhex(p) for p in proof] for proof in proofs
    ]
    assert {p.implied_root for p in parts.sessions} == {unhex(case["onChainRoot"])}
    assert {p.manager for p in parts.sessions} == {manager}


SESSIONS = st.tuples(
    st.integers(0, 2**48 - 1),
    st.integers(0, 2**48 - 1),
    ADDRESSES,
    st.binary(max_size=70),
    st.lists(st.binary(min_size=32, max_size=32).map(Hash32), max_size=3),
    st.binary(max_size=70),
)


@given(SESSIONS, ADDRESSES)
def test_a_manager_signature_is_given_back(fields, module):
    """The session and proof of any manager signature survive; its manager is the module."""
    signature = encode(["bytes", "address"], [encode(SESSION_TYPES, fields), module])
    parts = decode_signature(signature)
    (found,) = parts.sessions
    assert (parts.validation_module, found.manager) == (module, module)
    assert (found.session, list(found.proof)) == (Session(*fields[:4]), fields[4])


@given(
    st.lists(SESSIONS, max_size=3),
    ADDRESSES,
    ADDRESSES.filter(lambda manager: int.from_bytes(manager, "big") >> 48),
)
def test_a_router_signature_is_given_back(sessions, module, manager):
    """All sessions of a batched router signature survive, with the manager it names."""
    inner = encode(
        ["address", f"({','.join(SESSION_TYPES)})[]", "bytes"], [manager, sessions, b"signed"]
    )
    parts = decode_signature(encode(["bytes", "address"], [inner, module]))
    assert parts.validation_module == module
    assert [p.session for p in parts.sessions] == [Session(*fields[:4]) for fields in sessions]
    assert {p.manager for p in parts.sessions} <= {manager}


def test_other_signatures_name_their_module_only():
    """A plain owner's signature has a module and no sessions; bare bytes have neither."""
    owner = encode(["bytes", "address"], [b"\x01" * 65, A])
    assert decode_signature(owner) == SignatureParts(A, ())
    for bare in (b"", b"\x1b" * 65, bytes(31), b"\xff" * 640):
        assert decode_signature(bare) == SignatureParts(None, ())


@pytest.mark.parametrize("position", [0, 1])
def test_a_session_time_beyond_48_bits_is_refused(position):
    """The manager would revert on such a time, so there is no session to report."""
    inner = bytearray(encode(SESSION_TYPES, [1, 2, A, b"data", [], b""]))
    router = bytearray(
        encode(
            ["address", f"({','.join(SESSION_TYPES)})[]", "bytes"],
            [MANAGER, [(1, 2, A, b"data", [], b"")], b""],
        )
    )
    assert len(decode_signature(encode(["bytes", "address"], [bytes(router), A])).sessions) == 1
    inner[32 * position : 32 * position + 32] = words(2**48)
    at = 32 * (5 + position)  # manager, two offsets, count, one offset
    assert int.from_bytes(router[at : at + 32], "big") == position + 1
    router[at : at + 32] = words(2**48)
    for changed in (inner, router):
        signature = encode(["bytes", "address"], [bytes(changed), A])
        assert decode_signature(signature) == SignatureParts(A, ())


def test_a_hostile_router_signature_is_not_expanded():
    """Thousands of pointers to one large session give no sessions, quickly."""
    count = 4000
    data = bytes(200_000)
    session = words(0, 0, bytes(12) + A, 0xE0, 0xC0, 0xC0, 0, len(data)) + data
    inner = words(bytes(12) + MANAGER, 0x80, 0x60, 0, count, *[32 * count] * count) + session
    parts = decode_signature(encode(["bytes", "address"], [inner, A]))
    assert parts == SignatureParts(A, ())


@given(st.binary(max_size=400), ADDRESSES)
def test_no_signature_raises(inner, module):
    """Arbitrary bytes as a signature, or inside of one, are no error."""
    decode_signature(inner)
    assert (
        decode_signature(encode(["bytes", "address"], [inner, module])).validation_module == module
    )
