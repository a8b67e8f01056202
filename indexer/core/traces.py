"""What a transaction's trace says of roots: who set which, by which module, in which operation.

Sources: SessionKeyManagerModule.sol and ModuleManager.sol of bcnmy/scw-contracts, EntryPoint.sol
of @account-abstraction 0.6.0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from indexer.core.types import Address, Hash32
from indexer.core.user_operations import SET_MERKLE_ROOT

INPUT_BYTES: Final = 4 + 10 * 32
"""What is read of a call's input: up to the hash in the head of innerHandleOp."""

_FROM_MODULE: Final = frozenset(
    bytes.fromhex(selector)
    for selector in (
        "468721a7",  # execTransactionFromModule(address,uint256,bytes,uint8)
        "21632045",  # execTransactionFromModule(address,uint256,bytes,uint8,uint256)
        "5229073f",  # execTransactionFromModuleReturnData(address,uint256,bytes,uint8)
        "acfdf503",  # execBatchTransactionFromModule(address[],uint256[],bytes[],uint8[])
    )
)
_INNER_HANDLE_OP: Final = bytes.fromhex("1d732756")
_VALIDATE_USER_OP: Final = bytes.fromhex("3a871cdd")
_VALIDATE_BY_MODULE: Final = bytes.fromhex("fff35b72")
_VALIDATE_SESSION_KEY: Final = bytes.fromhex("b13152ee")


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A message call that took effect: neither it nor anything above it was reverted.

    `kind` is CALL, DELEGATECALL, STATICCALL and so on; `caller` whose state it ran on, `input` its
    first INPUT_BYTES. `parent` is the place of the call around it in the same list, None: the
    transaction itself.
    """

    kind: str
    caller: Address
    to: Address | None
    input: bytes
    parent: int | None


@dataclass(frozen=True, slots=True)
class RootWrite:
    """A root that was set. `write_index` is its place among those of the transaction.

    `by_session`: a manager was asked at the validation of that operation, so a session key signed.
    """

    write_index: int
    manager: Address
    account: Address
    root: Hash32
    module: Address | None
    user_op_hash: Hash32 | None
    by_session: bool


def root_writes(
    calls: Sequence[TracedCall],
    managers: Collection[Address],
    entry_points: Collection[Address],
    routers: Collection[Address],
) -> Iterator[RootWrite]:
    """Yield the roots that a transaction set in these managers, in the order they were set.

    The owner of a root is the caller of the manager. A delegatecall of the manager's code writes
    the caller's own storage, and is none.
    """
    by_sessions = _signed_by_sessions(calls, managers, entry_points, routers)
    written = 0
    for place, call in enumerate(calls):
        if (
            call.kind != "CALL"
            or call.to not in managers
            or call.to is None
            or call.input[:4] != SET_MERKLE_ROOT
            or len(call.input) < 36
        ):
            continue
        around = list(_around(calls, place))
        operation = _operation(around, entry_points)
        yield RootWrite(
            written,
            call.to,
            call.caller,
            Hash32(call.input[4:36]),
            next((c.caller for c in around if _drives(c, call.caller)), None),
            operation,
            operation in by_sessions,
        )
        written += 1


def _around(calls: Sequence[TracedCall], place: int) -> Iterator[TracedCall]:
    """Yield the calls around one, the innermost first."""
    parent = calls[place].parent
    while parent is not None:
        yield calls[parent]
        parent = calls[parent].parent


def _drives(call: TracedCall, account: Address) -> bool:
    return call.kind == "CALL" and call.to == account and call.input[:4] in _FROM_MODULE


def _operation(around: Sequence[TracedCall], entry_points: Collection[Address]) -> Hash32 | None:
    """Return the operation that the innermost bundle around a call executes or validates.

    While an entry point executes an operation it calls what that asks for, which may look like a
    validation of another one.
    """
    for call in around:
        if call.kind != "CALL" or call.caller not in entry_points:
            continue
        entry_point = call.caller
        for outer in around:
            executes = outer.input[:4] == _INNER_HANDLE_OP and outer.caller == entry_point
            if executes and outer.kind == "CALL" and outer.to == entry_point:
                # UserOpInfo is static and stands in the head: behind the pointer to callData its
                # eight words of MemoryUserOp, then the hash.
                return _word(outer.input, 9)
        if call.input[:4] == _VALIDATE_USER_OP:
            return _word(call.input, 1)
    return None


def _signed_by_sessions(
    calls: Sequence[TracedCall],
    managers: Collection[Address],
    entry_points: Collection[Address],
    routers: Collection[Address],
) -> set[Hash32]:
    """Return the operations whose account asked a manager, or a router it, at their validation."""
    found: set[Hash32] = set()
    for place, call in enumerate(calls):
        if call.to not in managers:
            continue
        around = list(_around(calls, place))
        validation = next(
            (c for c in around if c.input[:4] == _VALIDATE_USER_OP and c.caller in entry_points),
            None,
        )
        if validation is None:
            continue
        by_account = call.input[:4] == _VALIDATE_BY_MODULE and call.caller == validation.to
        by_router = call.input[:4] == _VALIDATE_SESSION_KEY and call.caller in routers
        operation = _operation(around, entry_points)
        if (by_account or by_router) and operation is not None:
            found.add(operation)
    return found


def _word(data: bytes, index: int) -> Hash32 | None:
    word = data[4 + 32 * index : 36 + 32 * index]
    return Hash32(word) if len(word) == 32 else None
