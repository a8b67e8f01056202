"""Rows that logs decode to. `at` is the log itself: block, transaction and position.

Re-exported by events.py, which makes them; here so that its parts can share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from indexer.core.types import Address, Hash32, Log


@dataclass(frozen=True, slots=True)
class AccountCreation:
    """A factory made an account. `index` is None for AccountCreationWithoutIndex (`event`).

    The initial module is enabled although no EnabledModule was emitted; the owner is not logged.
    """

    at: Log
    account: Address
    factory: Address
    initial_module: Address
    index: int | None
    event: str

    def args(self) -> dict[str, Any]:
        """Return what the log said, in the form of AccountEvent.args."""
        return {
            "factory": "0x" + self.factory.hex(),
            "initial_module": "0x" + self.initial_module.hex(),
            "index": None if self.index is None else str(self.index),
        }


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """A log by, or about, a watched account.

    `args` has the contract's parameter names and fits JSON: byte values as 0x text in lower
    case, numbers up to 2^53-1 as numbers and larger ones as decimal strings.
    An indexed `bytes data` is `dataHash`, its keccak256. `user_op_hash` is None outside of
    operations and where the operation cannot be told.
    """

    at: Log
    account: Address
    event: str
    args: dict[str, Any]
    user_op_hash: Hash32 | None


@dataclass(frozen=True, slots=True)
class UserOperationEvent:
    """The end of one user operation, also when its execution failed (`success` False).

    `paymaster` is the zero address where the account paid. `nonce` is key << 64 | sequence.
    `actual_gas_cost` is in wei.
    """

    at: Log
    entry_point: Address
    user_op_hash: Hash32
    sender: Address
    paymaster: Address
    nonce: int
    success: bool
    actual_gas_cost: int
    actual_gas_used: int


@dataclass(frozen=True, slots=True)
class Erc1155Transfer:
    """One moved token id; `batch_index` is its place in a TransferBatch, 0 in a TransferSingle.

    A mint comes from, a burn goes to the zero address. A batch may repeat an id, an amount may
    be 0 or 2^256-1.
    """

    at: Log
    contract: Address
    batch_index: int
    operator: Address
    from_address: Address
    to_address: Address
    token_id: int
    amount: int
    user_op_hash: Hash32 | None


@dataclass(frozen=True, slots=True)
class Erc1155Approval:
    """An ApprovalForAll. ERC-721 emits the same bytes: the watch list tells them apart."""

    at: Log
    contract: Address
    account: Address
    operator: Address
    approved: bool


@dataclass(frozen=True, slots=True)
class Erc1155Uri:
    """A URI announced for a token id: a stranger's text without NUL, 8192 characters at most."""

    at: Log
    contract: Address
    token_id: int
    value: str


@dataclass(frozen=True, slots=True)
class ManagerRoot:
    """A root announced by a manager that emits MerkleRootUpdated."""

    at: Log
    manager: Address
    account: Address
    root: Hash32
    user_op_hash: Hash32 | None


@dataclass(frozen=True, slots=True)
class UndecodedLog:
    """A log of a watched emitter with a known topic0 that does not fit the event's form."""

    at: Log
    reason: str


@dataclass(frozen=True, slots=True)
class DecodedLogs:
    """Everything found in some logs, each tuple in (block_number, log_index) order.

    `user_operations` holds those of watched senders.
    """

    creations: tuple[AccountCreation, ...]
    account_events: tuple[AccountEvent, ...]
    user_operations: tuple[UserOperationEvent, ...]
    transfers: tuple[Erc1155Transfer, ...]
    approvals: tuple[Erc1155Approval, ...]
    uris: tuple[Erc1155Uri, ...]
    manager_roots: tuple[ManagerRoot, ...]
    undecoded: tuple[UndecodedLog, ...]
