"""What an answer of particle_aa_createSessions says about the account and its new root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from indexer.core.session_fields import found, read_address, read_hex
from indexer.core.session_reader import Problems
from indexer.core.types import Address, Hash32
from indexer.core.user_operations import decode_calls

SET_MERKLE_ROOT: Final = bytes.fromhex("7cb64759")
PAYMASTERS: Final = ("verifyingPaymasterGasless", "verifyingPaymasterNative", "tokenPaymaster")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Registered:
    """What the user operations agree on; None where there is none, or they differ."""

    account: Address | None
    manager: Address | None
    root: Hash32 | None
    warnings: tuple[str, ...]


def registered(result: Mapping[str, Any], path: str, problems: Problems) -> Registered:
    """Return account, manager and root out of the callData of every user operation offered.

    Any target of setMerkleRoot counts as the manager: the answer is about nothing else, and
    which managers are watched is not known here.
    """
    warnings: list[str] = []
    accounts: list[Address] = []
    registrations: list[tuple[Address, Hash32]] = []
    operations = 0
    for name in ("", *PAYMASTERS):
        holder = result if not name else result.get(name)
        if not isinstance(holder, dict) or holder.get("userOp") is None:
            continue
        operations += 1
        at = f"{path}.{name}.userOp" if name else f"{path}.userOp"
        operation = holder["userOp"]
        if not isinstance(operation, dict):
            problems.add(at, f"is {found(operation)}, expected a user operation")
            continue
        account = problems.check(f"{at}.sender", read_address, operation.get("sender"))
        data = problems.check(f"{at}.callData", read_hex, operation.get("callData"))
        if account is not None:
            accounts.append(account)
        if data is not None:
            try:
                registrations += _registrations(data)
            except ValueError:
                warnings.append(f"{at}.callData is not a call of a smart account's execute methods")
    if operations and not registrations:
        warnings.append(f"no user operation in {path} calls setMerkleRoot, so no root is known")
    account = _agreed(accounts, f"the user operations in {path} have different senders", warnings)
    one = _agreed(
        registrations, f"the user operations in {path} register different roots", warnings
    )
    manager, root = one if one is not None else (None, None)
    return Registered(account, manager, root, tuple(warnings))


def transaction_roots(result: Mapping[str, Any]) -> frozenset[Hash32]:
    """Return the roots in `transactions`; entries that cannot be read are passed over."""
    roots: set[Hash32] = set()
    transactions = result.get("transactions")
    for entry in transactions if isinstance(transactions, list) else []:
        try:
            data = read_hex(entry.get("data") if isinstance(entry, dict) else None)
        except ValueError:
            continue
        if _sets_root(data):
            roots.add(Hash32(data[4:36]))
    return frozenset(roots)


def _registrations(call_data: bytes) -> list[tuple[Address, Hash32]]:
    """Return at most one (manager, root): only the last value stands when the operation ends."""
    roots = [
        (call.to, Hash32(call.data[4:36]))
        for call in decode_calls(call_data)
        if _sets_root(call.data) and call.value == 0
    ]
    return roots[-1:]


def _sets_root(data: bytes) -> bool:
    return data.startswith(SET_MERKLE_ROOT) and len(data) >= 36


def _agreed(values: list[T], otherwise: str, warnings: list[str]) -> T | None:
    if not values:
        return None
    if any(value != values[0] for value in values):
        warnings.append(f"{otherwise}, so none was taken")
        return None
    return values[0]
