"""Logs to rows: by emitter, topic0 and number of topics; one hostile log stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from indexer.core.abi import (
    AbiValue,
    DecodeError,
    address_of,
    bool_of,
    decode_event,
    uint_at,
    word_at,
)
from indexer.core.decoded import (
    AccountCreation,
    AccountEvent,
    DecodedLogs,
    Erc1155Approval,
    Erc1155Transfer,
    Erc1155Uri,
    ManagerRoot,
    UndecodedLog,
    UserOperationEvent,
)
from indexer.core.erc1155 import decode_approval, decode_transfers, decode_uri
from indexer.core.linking import OperationLinks, link_operations
from indexer.core.topics import (
    ACCOUNT_DEPLOYED,
    ACCOUNT_TOPICS,
    APPROVAL_FOR_ALL,
    BEFORE_EXECUTION,
    ENTRY_POINT_TOPICS,
    ERC1155_TOPICS,
    FACTORY_TOPICS,
    FORMS,
    MANAGER_TOPICS,
    OWNERSHIP_TOPICS,
    SIGNATURE_AGGREGATOR_CHANGED,
    TRANSFER_TOPICS,
    URI,
    USER_OPERATION_EVENT,
    USER_OPERATION_REVERT_REASON,
)
from indexer.core.types import Address, Hash32, Log

__all__ = [
    "AccountCreation",
    "AccountEvent",
    "DecodedLogs",
    "Erc1155Approval",
    "Erc1155Transfer",
    "Erc1155Uri",
    "LogFilter",
    "ManagerRoot",
    "UndecodedLog",
    "UserOperationEvent",
    "WatchedAccounts",
    "addresses_named",
    "decode_logs",
]

MAX_JSON_INTEGER = 2**53 - 1
"""The largest number that every JSON reader keeps exact."""


class WatchedAccounts(Protocol):
    """Says which accounts are followed; may depend on the block, for accounts learnt late."""

    def watched(self, account: bytes, block_number: int) -> bool:
        """Say whether logs about this account in this block are wanted."""
        ...


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Whose logs count. Emitters outside are ignored without a trace.

    `erc1155` None means every emitter. `all_creations` True: every account of a watched factory
    is returned and watched for the rest of the logs; False: only those already watched.
    """

    entry_points: frozenset[Address]
    factories: frozenset[Address]
    event_managers: frozenset[Address]
    ownership_modules: frozenset[Address]
    erc1155: frozenset[Address] | None
    accounts: WatchedAccounts
    all_creations: bool
    tokens_of: WatchedAccounts | None = None
    """Not None: of every ERC-1155 contract the transfers that one of these sends or receives."""


def addresses_named(logs: Sequence[Log]) -> set[Address]:
    """Return every address that decoding may ask about whether it is watched, and more."""
    named: set[Address] = set()
    for log in logs:
        if not log.topics:
            continue
        if log.topics[0] in ACCOUNT_TOPICS:
            named.add(log.address)
            continue
        words = [*log.topics[1:]]
        if log.topics[0] in MANAGER_TOPICS:
            words.append(Hash32(log.data[:32]))
        named.update(account for account in map(_named_in, words) if account is not None)
    return named


def _named_in(word: bytes) -> Address | None:
    """Return the address that a word holds; None where its padding is not clean."""
    return Address(word[12:]) if word[:12] == bytes(12) else None


def decode_logs(logs: Sequence[Log], watch: LogFilter) -> DecodedLogs:
    """Return what the logs say about watched accounts and contracts; never raises on their content.

    The logs of each transaction must hold all logs of the watched entry points, of all senders:
    they mark where operations begin and end. A log of a watched emitter with a known topic0
    that does not fit becomes an UndecodedLog and nothing else.
    """
    ordered = sorted(logs, key=lambda log: (log.block_number, log.log_index))
    rows = _Rows(watch, link_operations(ordered, watch.entry_points))
    # The account's own logs come before the factory's in the transaction that creates it.
    for group in (_CREATIONS, _DECODERS):
        for log in ordered:
            decode = group.get(log.topics[0]) if log.topics else None
            if decode is not None:
                try:
                    decode(rows, log)
                except DecodeError as error:
                    rows.undecoded.append(UndecodedLog(log, str(error)))
    rows.undecoded.sort(key=lambda row: (row.at.block_number, row.at.log_index))
    return DecodedLogs(
        creations=tuple(rows.creations),
        account_events=tuple(rows.account_events),
        user_operations=tuple(rows.user_operations),
        transfers=tuple(rows.transfers),
        approvals=tuple(rows.approvals),
        uris=tuple(rows.uris),
        manager_roots=tuple(rows.manager_roots),
        undecoded=tuple(rows.undecoded),
    )


@dataclass(slots=True)
class _Rows:
    """Rows found so far, and what decides whether a log becomes one."""

    watch: LogFilter
    links: OperationLinks
    created: set[Address] = field(default_factory=set)
    creations: list[AccountCreation] = field(default_factory=list)
    account_events: list[AccountEvent] = field(default_factory=list)
    user_operations: list[UserOperationEvent] = field(default_factory=list)
    transfers: list[Erc1155Transfer] = field(default_factory=list)
    approvals: list[Erc1155Approval] = field(default_factory=list)
    uris: list[Erc1155Uri] = field(default_factory=list)
    manager_roots: list[ManagerRoot] = field(default_factory=list)
    undecoded: list[UndecodedLog] = field(default_factory=list)

    def watches(self, account: Address, log: Log) -> bool:
        return account in self.created or self.watch.accounts.watched(account, log.block_number)

    def touches(self, account: Address, log: Log) -> bool:
        """Say whether a transfer of this account's tokens counts, also from before it existed."""
        tokens_of = self.watch.tokens_of
        return tokens_of is not None and (
            account in self.created or tokens_of.watched(account, log.block_number)
        )

    def add_account_event(self, log: Log, account: Address, values: dict[str, AbiValue]) -> None:
        named = values.get("userOpHash")
        hash_ = Hash32(named) if isinstance(named, bytes) else self.links.user_op_hash(log, account)
        args = {name: _json(value) for name, value in values.items()}
        name = FORMS[log.topics[0]].name
        self.account_events.append(AccountEvent(log, account, name, args, hash_))


def _creation(rows: _Rows, log: Log) -> None:
    if log.address not in rows.watch.factories:
        return
    form = FORMS[log.topics[0]]
    if len(log.topics) != form.topic_count:
        raise DecodeError(f"{form.name} has {len(log.topics)} topics, not {form.topic_count}")
    account = address_of(log.topics[1])
    module = address_of(log.topics[2])
    index = uint_at(log.topics[3], 0) if len(log.topics) == 4 else None
    if rows.watch.all_creations:
        rows.created.add(account)
    elif not rows.watches(account, log):
        return
    rows.creations.append(AccountCreation(log, account, log.address, module, index, form.name))


def _user_operation(rows: _Rows, log: Log) -> None:
    if log.address not in rows.watch.entry_points:
        return
    if len(log.topics) != 4:
        raise DecodeError(f"UserOperationEvent has {len(log.topics)} topics, not 4")
    sender = address_of(log.topics[2])
    row = UserOperationEvent(
        log,
        entry_point=log.address,
        user_op_hash=log.topics[1],
        sender=sender,
        paymaster=address_of(log.topics[3]),
        nonce=uint_at(log.data, 0),
        success=bool_of(word_at(log.data, 32)),
        actual_gas_cost=uint_at(log.data, 64),
        actual_gas_used=uint_at(log.data, 96),
    )
    if rows.watches(sender, log):
        rows.user_operations.append(row)


def _about_account(rows: _Rows, log: Log, account_parameter: str) -> None:
    """Add an event of another contract that names the account in one of its parameters."""
    values = decode_event(FORMS[log.topics[0]], log.topics, log.data)
    account = values[account_parameter]
    assert isinstance(account, bytes)
    if rows.watches(Address(account), log):
        rows.add_account_event(log, Address(account), values)


def _entry_point(rows: _Rows, log: Log) -> None:
    if log.address in rows.watch.entry_points:
        named_by_operation = log.topics[0] in _NAMED_BY_OPERATION
        _about_account(rows, log, "sender" if named_by_operation else "account")


def _border(rows: _Rows, log: Log) -> None:
    """Check a log that is only used for linking."""
    if log.address in rows.watch.entry_points:
        decode_event(FORMS[log.topics[0]], log.topics, log.data)


def _ownership(rows: _Rows, log: Log) -> None:
    if log.address in rows.watch.ownership_modules:
        _about_account(rows, log, "smartAccount")


def _account(rows: _Rows, log: Log) -> None:
    if rows.watches(log.address, log):
        values = decode_event(FORMS[log.topics[0]], log.topics, log.data)
        rows.add_account_event(log, log.address, values)


def _manager_root(rows: _Rows, log: Log) -> None:
    if log.address not in rows.watch.event_managers:
        return
    form = FORMS[log.topics[0]]
    if len(log.topics) != form.topic_count:
        raise DecodeError(f"{form.name} has {len(log.topics)} topics, not {form.topic_count}")
    account, root = address_of(word_at(log.data, 0)), word_at(log.data, 32)
    if rows.watches(account, log):
        hash_ = rows.links.user_op_hash(log, account)
        rows.manager_roots.append(ManagerRoot(log, log.address, account, root, hash_))


def _erc1155(rows: _Rows, log: Log) -> None:
    topic0 = log.topics[0]
    if rows.watch.tokens_of is not None:
        # Of approvals and URIs nobody could say whether a token of the account is meant.
        if topic0 not in TRANSFER_TOPICS or not any(
            rows.touches(account, log) for account in map(_named_in, log.topics[2:4]) if account
        ):
            return
    elif rows.watch.erc1155 is not None and log.address not in rows.watch.erc1155:
        return
    if topic0 == APPROVAL_FOR_ALL:
        rows.approvals.append(decode_approval(log))
    elif topic0 == URI:
        rows.uris.append(decode_uri(log))
    else:
        hash_ = rows.links.user_op_hash(log, log.address)
        rows.transfers.extend(decode_transfers(log, hash_))


def _json(value: AbiValue) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value if value <= MAX_JSON_INTEGER else str(value)


_Decoder = Callable[[_Rows, Log], None]
_CREATIONS: dict[Hash32, _Decoder] = dict.fromkeys(FACTORY_TOPICS, _creation)
_NAMED_BY_OPERATION = {ACCOUNT_DEPLOYED, USER_OPERATION_REVERT_REASON}
_DECODERS: dict[Hash32, _Decoder] = {
    **dict.fromkeys(ENTRY_POINT_TOPICS, _entry_point),
    BEFORE_EXECUTION: _border,
    SIGNATURE_AGGREGATOR_CHANGED: _border,
    USER_OPERATION_EVENT: _user_operation,
    **dict.fromkeys(ACCOUNT_TOPICS, _account),
    **dict.fromkeys(OWNERSHIP_TOPICS, _ownership),
    **dict.fromkeys(MANAGER_TOPICS, _manager_root),
    **dict.fromkeys(ERC1155_TOPICS, _erc1155),
}
