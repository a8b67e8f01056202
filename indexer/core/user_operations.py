"""The input of handleOps: user operations, their calls, and what their signatures reveal.

A transaction that reaches the EntryPoint through another contract has its operations nowhere
in its input; what is decoded here attributes root changes, it never proves that none happened.
Sources: EntryPoint.sol 0.6.0, SmartAccount.sol 2.0.0, SessionKeyManagerModule.sol and
BatchedSessionRouterModule.sol of bcnmy/scw-contracts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from indexer.core.abi import (
    ByteBudget,
    DecodeError,
    address_at,
    array_at,
    bytes_at,
    calldata_array_at,
    calldata_bytes_at,
    calldata_tail_at,
    keccak,
    tail_at,
    uint_at,
    word_at,
)
from indexer.core.merkle import implied_root, session_leaf
from indexer.core.types import Address, Hash32, Session

HANDLE_OPS = bytes.fromhex("1fad948c")
HANDLE_AGGREGATED_OPS = bytes.fromhex("4b1d7cf5")
EXECUTE = bytes.fromhex("b61d27f6")
EXECUTE_NCC = bytes.fromhex("0000189a")
EXECUTE_BATCH = bytes.fromhex("47e1da2a")
EXECUTE_BATCH_Y6U = bytes.fromhex("00004680")
SET_MERKLE_ROOT = bytes.fromhex("7cb64759")

_SELECTOR = 4
_WORD = 32
_USER_OPERATION_HEAD = 11 * _WORD
_OPS_PER_AGGREGATOR_HEAD = 3 * _WORD
_SESSION_HEAD = 6 * _WORD
_SIGNATURE_EXPANSION = 2
"""No encoder shares bytes inside a signature, and each 32 bytes of a proof cost a hash here."""
MAX_SESSIONS_PER_SIGNATURE = 100
"""Of a batch with more calls than this no session is read."""


@dataclass(frozen=True, slots=True)
class UserOperation:
    """A user operation of EntryPoint v0.6. Gas limits in gas, fees in wei per gas."""

    sender: Address
    nonce: int
    init_code: bytes
    call_data: bytes
    call_gas_limit: int
    verification_gas_limit: int
    pre_verification_gas: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    paymaster_and_data: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One call the account is told to make. `value` is in wei."""

    to: Address
    value: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SessionParameters:
    """A session as an operation's signature presents it, with its proof.

    If the operation passed validation, `implied_root` was the account's root in `manager` then.
    """

    manager: Address
    session: Session
    leaf: Hash32
    proof: tuple[Hash32, ...]
    implied_root: Hash32


@dataclass(frozen=True, slots=True)
class SignatureParts:
    """What an operation's signature says; None and () where it has another form."""

    validation_module: Address | None
    sessions: tuple[SessionParameters, ...]


@dataclass(frozen=True, slots=True)
class UserOperationBody:
    """What an operation asked for, to be matched with its event by `user_op_hash`.

    `factory` is None where the account existed. `calls` is () where the callData is something
    else than calls, or would revert.
    """

    user_op_hash: Hash32
    sender: Address
    factory: Address | None
    validation_module: Address | None
    calls: tuple[Call, ...]
    sessions: tuple[SessionParameters, ...]

    def believed(self, routers: Collection[Address]) -> UserOperationBody:
        """Return it without the sessions that a module which is no router claims for a manager.

        Any module may take a signature of that shape and ask no manager. Where the module itself
        is named as the manager, what it says counts if it is one that is watched.
        """
        claimed = any(one.manager != self.validation_module for one in self.sessions)
        if not claimed or self.validation_module in routers:
            return self
        return replace(self, sessions=())

    def session_of_call(self, call_index: int) -> int | None:
        """Return which of `sessions` stands for a call; None: none, or it cannot be told.

        One session stands for all calls; of the batched router's each stands for one, in order.
        """
        if len(self.sessions) == 1:
            return 0
        return call_index if len(self.sessions) == len(self.calls) else None

    def leaf_of_call(self, call_index: int) -> Hash32 | None:
        """Return the leaf of the session that stands for a call."""
        index = self.session_of_call(call_index)
        return None if index is None else self.sessions[index].leaf


def decode_handle_ops(data: bytes) -> tuple[UserOperation, ...]:
    """Return the operations of a handleOps or handleAggregatedOps input, in order.

    Reads it as the contract does, other encodings than the canonical one included. Raises
    DecodeError on another selector and on anything the contract would revert on.
    """
    selector = data[:_SELECTOR]
    if selector not in (HANDLE_OPS, HANDLE_AGGREGATED_OPS):
        raise DecodeError("neither handleOps nor handleAggregatedOps")
    address_at(data, _SELECTOR + _WORD)  # the beneficiary
    budget = ByteBudget(data)
    first, count = array_at(data, tail_at(data, _SELECTOR, _SELECTOR))
    if selector == HANDLE_OPS:
        return tuple(_user_operations(data, first, count, budget))
    found: list[UserOperation] = []
    for head in range(first, first + count * _WORD, _WORD):
        budget.take(_OPS_PER_AGGREGATOR_HEAD)
        group = calldata_tail_at(data, first, head, _OPS_PER_AGGREGATOR_HEAD)
        found.extend(_user_operations(data, *calldata_array_at(data, group, group), budget))
    return tuple(found)


def _user_operations(
    data: bytes, first: int, count: int, budget: ByteBudget
) -> Iterator[UserOperation]:
    for head in range(first, first + count * _WORD, _WORD):
        budget.take(_USER_OPERATION_HEAD)
        at = calldata_tail_at(data, first, head, _USER_OPERATION_HEAD)
        init_code, call_data, paymaster_and_data, signature = (
            calldata_bytes_at(data, at, at + field * _WORD) for field in (2, 3, 9, 10)
        )
        budget.take(len(init_code) + len(call_data) + len(paymaster_and_data) + len(signature))
        yield UserOperation(
            sender=address_at(data, at),
            nonce=uint_at(data, at + 1 * _WORD),
            init_code=init_code,
            call_data=call_data,
            call_gas_limit=uint_at(data, at + 4 * _WORD),
            verification_gas_limit=uint_at(data, at + 5 * _WORD),
            pre_verification_gas=uint_at(data, at + 6 * _WORD),
            max_fee_per_gas=uint_at(data, at + 7 * _WORD),
            max_priority_fee_per_gas=uint_at(data, at + 8 * _WORD),
            paymaster_and_data=paymaster_and_data,
            signature=signature,
        )


def user_op_hash(op: UserOperation, entry_point: Address, chain_id: int) -> Hash32:
    """Return what EntryPoint v0.6 calls userOpHash; the signature is not part of it.

    Built from the decoded fields, so that two encodings of one operation have one hash.
    Source: UserOperationLib.pack and EntryPoint.getUserOpHash.
    """
    packed = b"".join(
        (
            bytes(12) + op.sender,
            _word(op.nonce),
            keccak(op.init_code),
            keccak(op.call_data),
            _word(op.call_gas_limit),
            _word(op.verification_gas_limit),
            _word(op.pre_verification_gas),
            _word(op.max_fee_per_gas),
            _word(op.max_priority_fee_per_gas),
            keccak(op.paymaster_and_data),
        )
    )
    return keccak(keccak(packed) + bytes(12) + entry_point + _word(chain_id))


def _word(value: int) -> bytes:
    return value.to_bytes(_WORD, "big")


def decode_calls(call_data: bytes) -> tuple[Call, ...]:
    """Return the calls of execute, executeBatch and their short-selector twins, in order.

    () for any other callData. Raises DecodeError where the account would revert before its
    first call: bytes missing, a dirty address, lists that are empty or differ in length.
    """
    selector = call_data[:_SELECTOR]
    if selector in (EXECUTE, EXECUTE_NCC):
        to = address_at(call_data, _SELECTOR)
        value = uint_at(call_data, _SELECTOR + _WORD)
        data = bytes_at(call_data, tail_at(call_data, _SELECTOR, _SELECTOR + 2 * _WORD))
        return (Call(to, value, data),)
    if selector in (EXECUTE_BATCH, EXECUTE_BATCH_Y6U):
        return tuple(_batched_calls(call_data))
    return ()


def _batched_calls(data: bytes) -> Iterator[Call]:
    arrays = [
        array_at(data, tail_at(data, _SELECTOR, _SELECTOR + field * _WORD)) for field in range(3)
    ]
    (first_to, count), (first_value, values), (first_data, datas) = arrays
    if count == 0 or not count == values == datas:
        raise DecodeError(f"a batch of {count} targets, {values} values and {datas} calldatas")
    budget = ByteBudget(data)
    for i in range(0, count * _WORD, _WORD):
        inner = calldata_bytes_at(data, first_data, first_data + i)
        budget.take(_WORD + len(inner))
        yield Call(address_at(data, first_to + i), uint_at(data, first_value + i), inner)


def decode_signature(signature: bytes) -> SignatureParts:
    """Return the validation module and the sessions that a signature names; never raises.

    Signatures of the account are abi.encode(bytes moduleSignature, address module). A session
    key manager's moduleSignature is (uint48, uint48, address, bytes, bytes32[], bytes); that
    of the batched session router (address manager, (the same six)[], bytes). Which of both it
    is shows in the first word: a time has 48 bits, a manager's address more.
    """
    try:
        module_signature = bytes_at(signature, tail_at(signature, 0, 0))
        module = address_at(signature, _WORD)
    except DecodeError:
        return SignatureParts(None, ())
    try:
        if uint_at(module_signature, 0) >> 48:
            sessions = tuple(_router_sessions(module_signature))
        else:
            budget = ByteBudget(module_signature, _SIGNATURE_EXPANSION)
            sessions = (_session(module_signature, 0, module, budget),)
    except DecodeError:
        sessions = ()
    return SignatureParts(module, sessions)


def _router_sessions(data: bytes) -> Iterator[SessionParameters]:
    manager = address_at(data, 0)
    first, count = array_at(data, tail_at(data, 0, _WORD))
    bytes_at(data, tail_at(data, 0, 2 * _WORD))  # the session key's signature
    if count > MAX_SESSIONS_PER_SIGNATURE:
        raise DecodeError(f"{count} sessions in one signature")
    budget = ByteBudget(data, _SIGNATURE_EXPANSION)
    # The contract takes calls that share one session; each is read once.
    found: dict[int, SessionParameters] = {}
    for head in range(first, first + count * _WORD, _WORD):
        at = tail_at(data, first, head)
        if at not in found:
            found[at] = _session(data, at, manager, budget)
        yield found[at]


def _session(data: bytes, at: int, manager: Address, budget: ByteBudget) -> SessionParameters:
    session_key_data = bytes_at(data, tail_at(data, at, at + 3 * _WORD))
    first, count = array_at(data, tail_at(data, at, at + 4 * _WORD))
    signature = bytes_at(data, tail_at(data, at, at + 5 * _WORD))
    budget.take(_SESSION_HEAD + len(session_key_data) + count * _WORD + len(signature))
    session = Session(
        valid_until=uint_at(data, at, 48),
        valid_after=uint_at(data, at + _WORD, 48),
        session_validation_module=address_at(data, at + 2 * _WORD),
        session_key_data=session_key_data,
    )
    leaf = session_leaf(session)
    proof = tuple(word_at(data, i) for i in range(first, first + count * _WORD, _WORD))
    return SessionParameters(manager, session, leaf, proof, implied_root(leaf, proof))


def decode_bodies(
    data: bytes, entry_point: Address, chain_id: int
) -> tuple[UserOperationBody, ...]:
    """Return what each operation of a handleOps input asked for; raises DecodeError as that does.

    An operation whose callData the account would revert on has no calls; it is in the bundle
    all the same, with success false.
    """
    return tuple(_body(op, entry_point, chain_id) for op in decode_handle_ops(data))


def _body(op: UserOperation, entry_point: Address, chain_id: int) -> UserOperationBody:
    try:
        calls = decode_calls(op.call_data)
    except DecodeError:
        calls = ()
    signature = decode_signature(op.signature)
    return UserOperationBody(
        user_op_hash=user_op_hash(op, entry_point, chain_id),
        sender=op.sender,
        factory=Address(op.init_code[:20]) if len(op.init_code) >= 20 else None,
        validation_module=signature.validation_module,
        calls=calls,
        sessions=signature.sessions,
    )


def direct_roots(
    calls: Sequence[Call], managers: Collection[Address]
) -> tuple[tuple[int, Address, Hash32], ...]:
    """Return (index, manager, root) of each call that sets a root if the operation succeeds.

    The selector alone proves nothing: airdrop contracts have the same one. The contract takes
    bytes after the root, and refuses a cut root or any value. The last one per manager stays.
    """
    return tuple(
        (index, call.to, Hash32(call.data[4:36]))
        for index, call in enumerate(calls)
        if call.to in managers
        and call.value == 0
        and len(call.data) >= 36
        and call.data[:4] == SET_MERKLE_ROOT
    )
