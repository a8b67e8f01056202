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
    """A root that was set. `write_index` is its place among those of the transaction."""

    write_index: int
    manager: Address
    account: Address
    root: Hash32
    module: Address | None
    user_op_hash: Hash32 | None


def root_writes(
    calls: Sequence[TracedCall],
    managers: Collection[Address],
    entry_points: Collection[Address],
) -> Iterator[RootWrite]:
    """Yield the roots that a transaction set in these managers, in the order they were set.

    The owner of a root is the caller of the manager. A delegatecall of the manager's code writes
    the caller's own storage, and is none.
    """
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
        yield RootWrite(
            written,
            call.to,
            call.caller,
            Hash32(call.input[4:36]),
            next((c.caller for c in around if _drives(c, call.caller)), None),
            next((h for c in around if (h := _user_op_hash(c, entry_points)) is not None), None),
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


def _user_op_hash(call: TracedCall, entry_points: Collection[Address]) -> Hash32 | None:
    """Return the operation that a call of an entry point validates or executes."""
    if call.kind != "CALL" or call.caller not in entry_points:
        return None
    if call.input[:4] == _INNER_HANDLE_OP and call.to == call.caller:
        # UserOpInfo is static and stands in the head: behind the pointer to callData its eight
        # words of MemoryUserOp, then the hash.
        return _word(call.input, 9)
    if call.input[:4] == _VALIDATE_USER_OP:
        return _word(call.input, 1)
    return None


def _word(data: bytes, index: int) -> Hash32 | None:
    word = data[4 + 32 * index : 36 + 32 * index]
    return Hash32(word) if len(word) == 32 else None
