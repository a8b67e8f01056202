from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import astuple, replace

import pytest
from eth_abi import encode
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core import user_operations
from indexer.core.abi import DecodeError, keccak
from indexer.core.merkle import session_leaf
from indexer.core.types import Address, Session
from indexer.core.user_operations import (
    Call,
    SessionParameters,
    UserOperation,
    UserOperationBody,
    decode_bodies,
    decode_calls,
    decode_handle_ops,
    direct_roots,
    user_op_hash,
)
from tests.core.make_logs import (
    ADDRESSES,
    EDGE_CASES,
    ENTRY_POINT,
    MANAGER,
    UINT256,
    VECTORS,
    A,
    B,
    unhex,
    words,
)

PARTICLE = json.loads((VECTORS / "particle_rpc_examples.json").read_text())
OP_TYPE = "(address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes)"
ENTRY_POINT_06 = Address(bytes.fromhex("5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"))
EXECUTES = {"execute": "b61d27f6", "execute_ncC": "0000189a"}
BATCHES = {"executeBatch": "47e1da2a", "executeBatch_y6U": "00004680"}
BYTES = st.binary(max_size=70)
OPERATIONS = st.builds(
    UserOperation,
    ADDRESSES,
    UINT256,
    BYTES,
    BYTES,
    UINT256,
    UINT256,
    UINT256,
    UINT256,
    UINT256,
    BYTES,
    BYTES,
)


def handle_ops(operations: list[UserOperation]) -> bytes:
    arguments = encode([f"{OP_TYPE}[]", "address"], [[astuple(op) for op in operations], A])
    return unhex("1fad948c") + arguments


def operation(fields: dict) -> UserOperation:
    """Build an operation from the field names of JSON-RPC."""

    def number(name: str) -> int:
        return int(str(fields[name]), 0)

    return UserOperation(
        sender=Address(unhex(fields["sender"])),
        nonce=number("nonce"),
        init_code=unhex(fields["initCode"]),
        call_data=unhex(fields["callData"]),
        call_gas_limit=number("callGasLimit"),
        verification_gas_limit=number("verificationGasLimit"),
        pre_verification_gas=number("preVerificationGas"),
        max_fee_per_gas=number("maxFeePerGas"),
        max_priority_fee_per_gas=number("maxPriorityFeePerGas"),
        paymaster_and_data=unhex(fields["paymasterAndData"]),
        signature=unhex(fields.get("signature", "0x")),
    )


@given(st.lists(OPERATIONS, max_size=4))
def test_handle_ops_gives_back_its_operations(operations):
    """Every field of every operation survives, for any values."""
    assert decode_handle_ops(handle_ops(operations)) == tuple(operations)


@given(st.lists(st.lists(OPERATIONS, max_size=3), max_size=3))
def test_handle_aggregated_ops_gives_its_operations_in_order(groups):
    """Operations of all aggregators come in the order in which they are executed."""
    values = [([astuple(op) for op in group], B, b"aggregated") for group in groups]
    data = unhex("4b1d7cf5") + encode([f"({OP_TYPE}[],address,bytes)[]", "address"], [values, A])
    assert decode_handle_ops(data) == tuple(op for group in groups for op in group)


@pytest.mark.parametrize("data", [b"", b"\x1f", unhex("765e827f") + bytes(96), unhex("1fad948c")])
def test_other_input_is_refused(data):
    """EntryPoint v0.7's handleOps, a cut selector and nothing at all are no operations."""
    with pytest.raises(DecodeError):
        decode_handle_ops(data)


def test_a_dirty_beneficiary_is_refused():
    """The contract reverts on a beneficiary that is no address, so nothing was executed."""
    data = bytearray(handle_ops([a_user_operation()]))
    data[36] = 1
    with pytest.raises(DecodeError):
        decode_handle_ops(bytes(data))


def test_cut_input_is_refused_or_has_lost_only_padding():
    """A bundle cut anywhere within its bytes is refused, never half decoded."""
    bundle = [a_user_operation(), a_user_operation()]
    data = handle_ops(bundle)
    for length in range(len(data)):
        with suppress(DecodeError):
            assert decode_handle_ops(data[:length]) == tuple(bundle)
            assert len(data) - length < 32


@settings(max_examples=300)
@given(st.lists(OPERATIONS, min_size=1, max_size=2), st.data())
def test_changed_bytes_never_raise_anything_else(operations, data):
    """Whatever a stranger writes over an input, it decodes or is a DecodeError."""
    changed = bytearray(handle_ops(operations))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, (len(changed) - 36) // 32)) * 32 + 4
        changed[at : at + 32] = data.draw(UINT256).to_bytes(32, "big")
    with suppress(DecodeError):
        decode_bodies(bytes(changed), ENTRY_POINT, 1)


@given(st.binary(max_size=400), st.sampled_from(["1fad948c", "4b1d7cf5"]))
def test_arbitrary_input_never_raises_anything_else(tail, selector):
    """Arbitrary bytes behind a known selector decode or are a DecodeError."""
    with suppress(DecodeError):
        decode_bodies(unhex(selector) + tail, ENTRY_POINT, 1)


def a_user_operation(**changes) -> UserOperation:
    op = UserOperation(A, 5, b"", b"call", 1, 2, 3, 4, 5, b"", b"signature")
    return replace(op, **changes)


def test_another_encoding_of_an_operation_has_the_same_hash():
    """Tails in another order, shared or before their struct are what the contract executes too."""
    text = words(4, b"call".ljust(32, b"\0"))
    empty = words(0)
    # ops → 1 item; callData stands before the struct, the three empty fields share one length.
    data = (
        unhex("1fad948c")
        + words(0x80, bytes(12) + A)
        + text  # at 4 + 0x40
        + words(1, 0x40)
        + words(99)
        + words(bytes(12) + A, 5, 0x160, 0x40 - 0xE0, 1, 2, 3, 4, 5, 0x160, 0x160)
        + empty
    )
    (found,) = decode_handle_ops(data)
    canonical = a_user_operation(signature=b"")
    assert found == canonical
    assert user_op_hash(found, ENTRY_POINT, 1) == user_op_hash(canonical, ENTRY_POINT, 1)


def test_an_offset_before_the_calldata_is_an_empty_field():
    """The contract reads zeros there, and so an empty byte string."""
    op = a_user_operation(signature=b"")
    data = bytearray(handle_ops([op]))
    struct = 4 + 0x60 + 0x20
    data[struct + 32 * 10 : struct + 32 * 11] = words(-(2**20))
    assert decode_handle_ops(bytes(data)) == (op,)


def test_a_small_input_cannot_stand_for_gigabytes():
    """Thousands of pointers to one large operation are refused before they are expanded."""
    count, payload = 4000, bytes(200_000)
    struct = words(bytes(12) + A, 1, 0x160, 0x180, 1, 2, 3, 4, 5, 0x160, 0x160, 0)
    pointers = words(*[32 * count] * count)
    body = words(0x40, bytes(12) + A, count) + pointers + struct + words(len(payload)) + payload
    with pytest.raises(DecodeError, match="8 times"):
        decode_handle_ops(unhex("1fad948c") + body)

    batch = words(0x60, 0x60, 0x80 + 32 * count, count, *[1] * count)
    batch += words(count) + pointers + words(len(payload)) + payload
    with pytest.raises(DecodeError, match="8 times"):
        decode_calls(unhex("47e1da2a") + batch)


@pytest.mark.parametrize(
    ("published", "chain_id", "entry_point"),
    [
        *(
            (case, 80001, ENTRY_POINT_06)
            for case in EDGE_CASES["publishedParticleUserOps"]["userOps"]
        ),
        *((case, case["chainId"], ENTRY_POINT_06) for case in EDGE_CASES["sessionSignedUserOps"]),
    ],
)
def test_published_operations_have_their_published_hash(published, chain_id, entry_point):
    """UserOpHash is what the vendor's backend and a real EntryPoint say it is."""
    op = operation(published["userOp"])
    expected = unhex(published["userOpHash"])
    assert user_op_hash(op, entry_point, chain_id) == expected
    (body,) = decode_bodies(handle_ops([op]), entry_point, chain_id)
    assert (body.user_op_hash, body.sender) == (expected, op.sender)


@pytest.mark.parametrize("quote", ["verifyingPaymasterGasless", "verifyingPaymasterNative"])
def test_the_vendors_answer_holds_its_own_root(quote):
    """The operation in a createSessions answer hashes to the hash beside it and sets the root."""
    answer = PARTICLE["createSessions"]["response"]["result"]
    op = operation(answer[quote]["userOp"])
    (body,) = decode_bodies(handle_ops([op]), ENTRY_POINT_06, 80001)
    assert body.user_op_hash == unhex(answer[quote]["userOpHash"])
    assert body.validation_module == unhex("0000001c5b32F37F5beA87BDD5374eB2aC54eA8e")
    manager = Address(unhex("000002FbFfedd9B33F4E7156F2DE8D48945E7489"))
    (published,) = answer["sessions"]
    ((_, _, root),) = direct_roots(body.calls, {manager})
    assert root == session_leaf(
        Session(
            0,
            0,
            Address(unhex(published["sessionValidationModule"])),
            unhex(published["sessionKeyData"]),
        )
    )


@given(OPERATIONS, OPERATIONS)
def test_the_signature_is_the_only_part_outside_of_the_hash(one, other):
    """Any other field, the entry point and the chain change the hash."""
    hash_ = user_op_hash(one, ENTRY_POINT, 1)
    assert user_op_hash(replace(one, signature=other.signature), ENTRY_POINT, 1) == hash_
    assert user_op_hash(one, ENTRY_POINT, 2) != hash_
    assert user_op_hash(one, B, 1) != hash_
    if replace(other, signature=one.signature) != one:
        assert user_op_hash(other, ENTRY_POINT, 1) != hash_


def test_the_published_operation_is_read_whole():
    """Factory, validation module, calls and root of the vendor's documented createSessions."""
    published = EDGE_CASES["publishedParticleUserOps"]
    ecdsa = unhex("0000001c5b32F37F5beA87BDD5374eB2aC54eA8e")
    signature = encode(["bytes", "address"], [b"\x01" * 65, ecdsa])
    op = replace(operation(published["userOps"][0]["userOp"]), signature=signature)
    (body,) = decode_bodies(handle_ops([op]), ENTRY_POINT_06, 80001)
    assert body.factory == unhex("000000a56Aaca3e9a4C479ea6b6CD0DbcB6634F5")
    assert body.validation_module == ecdsa
    assert body.sessions == ()
    assert [astuple(call) for call in body.calls] == [
        (unhex(call["to"]), int(call["value"]), unhex(call["data"]))
        for call in published["decodedCalls"]
    ]
    manager = unhex(EDGE_CASES["callDataDecoding"]["sessionKeyManager"])
    assert direct_roots(body.calls, {manager})[0][1:] == (manager, unhex(published["root"]))


@pytest.mark.parametrize("case", EDGE_CASES["callDataDecoding"]["cases"], ids=lambda c: c["name"])
def test_roots_in_call_data(case):
    """Direct roots of each executed callData are what the contract stored."""
    manager = unhex(EDGE_CASES["callDataDecoding"]["sessionKeyManager"])
    found = direct_roots(decode_calls(unhex(case["callData"])), {manager})
    named = tuple((manager, unhex(root)) for root in case["expectedDirectRoots"])
    assert tuple(one[1:] for one in found) == named


CALLS = st.builds(Call, ADDRESSES, UINT256, st.binary(max_size=80))


@given(CALLS, st.sampled_from(sorted(EXECUTES)))
def test_a_single_call_is_given_back(call, name):
    """Execute and its short twin carry one call, for any values."""
    data = unhex(EXECUTES[name]) + encode(["address", "uint256", "bytes"], astuple(call))
    assert decode_calls(data) == (call,)


@given(st.lists(CALLS, min_size=1, max_size=5), st.sampled_from(sorted(BATCHES)))
def test_a_batch_of_calls_is_given_back(calls, name):
    """ExecuteBatch and its short twin carry calls in order, for any values."""
    lists = [list(column) for column in zip(*map(astuple, calls), strict=True)]
    data = unhex(BATCHES[name]) + encode(["address[]", "uint256[]", "bytes[]"], lists)
    assert decode_calls(data) == tuple(calls)


@pytest.mark.parametrize("lists", [([], [], []), ([A], [1, 2], [b""]), ([A, B], [1, 2], [b""])])
def test_a_batch_the_contract_refuses_is_refused(lists):
    """Empty batches and lists of different length revert with WrongBatchProvided."""
    data = unhex(BATCHES["executeBatch"]) + encode(["address[]", "uint256[]", "bytes[]"], lists)
    with pytest.raises(DecodeError):
        decode_calls(data)


@given(st.binary(max_size=300), st.sampled_from([*EXECUTES.values(), *BATCHES.values(), ""]))
def test_arbitrary_call_data_never_raises_anything_else(tail, selector):
    """Arbitrary callData is calls, nothing, or a DecodeError."""
    with suppress(DecodeError):
        decode_calls(unhex(selector) + tail)


def test_calls_that_would_revert_leave_the_rest_of_the_operation():
    """An operation with malformed callData is in its bundle, without calls."""
    op = a_user_operation(call_data=unhex("0000189a") + bytes(10), init_code=B + b"data")
    (body,) = decode_bodies(handle_ops([op]), ENTRY_POINT, 1)
    assert (body.calls, body.factory, body.sender) == ((), B, A)


def test_only_effective_calls_to_a_manager_set_a_root():
    """A value, a cut root, another target or selector set nothing; bytes behind are accepted."""
    set_root = unhex("7cb64759")
    one, two = keccak(b"1"), keccak(b"2")
    calls = [
        Call(MANAGER, 0, set_root + one),
        Call(MANAGER, 1, set_root + two),
        Call(MANAGER, 0, (set_root + two)[:-1]),
        Call(A, 0, set_root + two),
        Call(MANAGER, 0, unhex("fde5354d") + two),
        Call(B, 0, set_root + two + b"more"),
        Call(MANAGER, 0, set_root + bytes(32)),
    ]
    assert direct_roots(calls, [MANAGER, B]) == (
        (0, MANAGER, one),
        (5, B, two),
        (6, MANAGER, bytes(32)),
    )


def test_selectors_are_those_of_the_contracts():
    """Each selector is the hash of its function's signature."""
    batch = "executeBatch{}(address[],uint256[],bytes[])"
    for constant, signature in {
        "HANDLE_OPS": f"handleOps({OP_TYPE}[],address)",
        "HANDLE_AGGREGATED_OPS": f"handleAggregatedOps(({OP_TYPE}[],address,bytes)[],address)",
        "EXECUTE": "execute(address,uint256,bytes)",
        "EXECUTE_NCC": "execute_ncC(address,uint256,bytes)",
        "EXECUTE_BATCH": batch.format(""),
        "EXECUTE_BATCH_Y6U": batch.format("_y6U"),
        "SET_MERKLE_ROOT": "setMerkleRoot(bytes32)",
    }.items():
        assert getattr(user_operations, constant) == keccak(signature.encode())[:4]


def test_only_a_router_is_believed_to_have_asked_a_manager():
    """Any module may take a router's signature; a manager's own names the manager as the module."""
    session = Session(0, 0, B, b"")
    shown = SessionParameters(MANAGER, session, session_leaf(session), (), session_leaf(session))
    by_router = UserOperationBody(keccak(b"op"), A, None, B, (), (shown,))
    assert by_router.believed({B}) is by_router
    assert by_router.believed(()).sessions == ()
    by_manager = replace(by_router, validation_module=MANAGER)
    assert by_manager.believed(()) is by_manager
