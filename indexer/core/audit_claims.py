"""Which rows an audit compares: those of covered passes; others are passed over on either side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from indexer.core.debt import Span, intersect, merge, subtract
from indexer.core.decoded import DecodedLogs
from indexer.core.passes import (
    ALL_ERC1155,
    BY_ACCOUNT,
    LOGS_ACCOUNTS,
    TOUCHING,
    Pass,
    erc1155_passes,
    factory_passes,
    hex_of,
    roots_pass,
)
from indexer.core.settings import ChainSettings
from indexer.core.topics import (
    ACCOUNT_TOPICS,
    ERC1155_TOPICS,
    FACTORY_TOPICS,
    FORMS,
    MANAGER_TOPICS,
    TRANSFER_TOPICS,
)
from indexer.core.types import Address

LogKind: TypeAlias = Literal[
    "account_event",
    "user_operation",
    "erc1155_transfer",
    "erc1155_approval",
    "erc1155_uri",
    "undecoded_log",
    "root_hint",
]
_POSITION = ("block_number", "log_index", "transaction_hash")
_PLACE = ("block_number", "log_index", "transaction_index", "transaction_hash")
COLUMNS: Final[Mapping[LogKind, tuple[str, ...]]] = {
    "account_event": (*_PLACE, "account", "event", "args", "user_op_hash"),
    "user_operation": (
        *_PLACE,
        "user_op_hash",
        "entry_point",
        "sender",
        "paymaster",
        "nonce",
        "success",
        "actual_gas_cost",
        "actual_gas_used",
    ),
    "erc1155_transfer": (
        "block_number",
        "log_index",
        "batch_index",
        "transaction_hash",
        "contract",
        "operator",
        "from_address",
        "to_address",
        "token_id",
        "amount",
        "user_op_hash",
    ),
    "erc1155_approval": (*_POSITION, "contract", "account", "operator", "approved"),
    "erc1155_uri": (*_POSITION, "contract", "token_id", "value"),
    "undecoded_log": (*_POSITION, "address", "topics", "data", "reason"),
    "root_hint": (*_POSITION, "manager", "account", "root", "user_op_hash"),
}
"""What is compared of each table of schema chain; of root_hint only what a log said."""

CREATION_EVENTS: Final = frozenset(FORMS[topic].name for topic in FACTORY_TOPICS)


@dataclass(frozen=True, slots=True)
class LogRow:
    """One row that a log decodes to: `values` by the names of COLUMNS, JSON as Python has it."""

    kind: LogKind
    values: Mapping[str, Any]

    @property
    def key(self) -> tuple[LogKind, int, int, int]:
        """Return the kind, block number, log index, and which of the log's rows it is."""
        values = self.values
        part = values.get("batch_index", 0)
        return self.kind, values["block_number"], values["log_index"], part


class Everyone:
    """Watches every account: whose rows count is only known once it is known whose there are."""

    def watched(self, account: bytes, block_number: int) -> bool:  # noqa: ARG002
        """Say yes."""
        return True


def log_rows(decoded: DecodedLogs, *, max_undecoded_bytes: int) -> list[LogRow]:
    """Return the rows as the tables should hold them."""
    rows: list[LogRow] = []

    def add(kind: LogKind, row: Any, **values: Any) -> None:
        at = row.at
        values |= {
            "block_number": at.block_number,
            "log_index": at.log_index,
            "transaction_index": at.transaction_index,
            "transaction_hash": at.transaction_hash,
        }
        names = COLUMNS[kind]
        rows.append(LogRow(kind, {n: values[n] if n in values else getattr(row, n) for n in names}))

    for creation in decoded.creations:
        add("account_event", creation, args=creation.args(), user_op_hash=None)
    for event in decoded.account_events:
        add("account_event", event)
    for operation in decoded.user_operations:
        add("user_operation", operation)
    for transfer in decoded.transfers:
        add("erc1155_transfer", transfer)
    for approval in decoded.approvals:
        add("erc1155_approval", approval)
    for uri in decoded.uris:
        add("erc1155_uri", uri)
    for root in decoded.manager_roots:
        add("root_hint", root)
    for log in decoded.undecoded:
        add(
            "undecoded_log",
            log,
            address=log.at.address,
            topics=log.at.topics,
            data=log.at.data[:max_undecoded_bytes],
        )
    return rows


def watched_account(row: LogRow) -> Address | None:
    """Return the account that has to be watched for this row to count; None: no account has."""
    values = row.values
    match row.kind:
        case "account_event" | "root_hint":
            return Address(values["account"])
        case "user_operation":
            return Address(values["sender"])
        case "undecoded_log" if values["topics"] and values["topics"][0] in ACCOUNT_TOPICS:
            return Address(values["address"])
        case _:
            return None


def accounts_in(row: LogRow) -> set[Address]:
    """Return the accounts of which one has to be watched for this row to count, and more."""
    account = watched_account(row)
    return parties_of(row) if account is None else {account, *parties_of(row)}


class Membership(NamedTuple):
    """The cohorts of a watched account: of what it does, and of transfers that touch it."""

    cohort: int = 0
    tokens: int = 0


def parties_of(row: LogRow) -> set[Address]:
    """Return whose tokens a transfer moves; of any other row nobody's."""
    values = row.values
    if row.kind == "erc1155_transfer":
        return {Address(values["from_address"]), Address(values["to_address"])}
    if row.kind == "undecoded_log" and values["topics"] and values["topics"][0] in TRANSFER_TOPICS:
        return {Address(topic[12:]) for topic in values["topics"][2:4]}
    return set()


@dataclass(frozen=True, slots=True)
class Covered:
    """What the database counts as covered, at or below finality, by (pass, cohort).

    `adopted` is the block up to which a cohort's accounts have a coverage of their own.
    """

    start_block: int
    finalized_number: int
    spans: Mapping[tuple[Pass, int], Sequence[Span]]
    adopted: Mapping[int, int]

    def within(self, first: int, last: int) -> Covered:
        """Return the same of these blocks alone."""
        spans = {key: intersect(mine, [(first, last)]) for key, mine in self.spans.items()}
        return Covered(self.start_block, self.finalized_number, spans, self.adopted)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Blocks `first` to `last` that a pass has not covered: nothing of it is compared there."""

    pass_name: str
    filter: str
    cohort: int
    first: int
    last: int


class Claims:
    """Which rows the database claims to hold: those of configured passes, where covered."""

    def __init__(
        self, settings: ChainSettings, event_managers: Collection[Address], covered: Covered
    ) -> None:
        self._settings, self._event_managers = settings, frozenset(event_managers)
        self._covered = covered
        self._by_factory = bool(factory_passes(settings))
        self.passes = [
            *factory_passes(settings),
            LOGS_ACCOUNTS,
            *erc1155_passes(settings),
            *(roots_pass(manager) for manager in settings.managers),
        ]
        found: dict[Pass, list[Span]] = {}
        for (pass_, _), spans in covered.spans.items():
            found.setdefault(pass_, []).extend(spans)
        self._any = {p: merge(found.get(p, ())) for p in self.passes}
        """Where a pass is covered for any cohort."""

    def stretches(self) -> list[Span]:
        """Return the blocks in which at least one pass is covered."""
        return merge(span for spans in self._any.values() for span in spans)

    def passes_in(self, first: int, last: int) -> list[Pass]:
        """Return the passes that are covered somewhere in these blocks."""
        return [p for p, spans in self._any.items() if intersect(spans, [(first, last)])]

    def skipped(self, first: int, last: int) -> list[Skipped]:
        """Return what these blocks lack, pass by pass, in order."""
        found: list[Skipped] = []
        for pass_ in self.passes:
            cohorts = [0, *sorted(self._covered.adopted)] if pass_.filter in BY_ACCOUNT else [0]
            for cohort in cohorts:
                # Above the block of adoption a cohort shares what cohort 0 lacks.
                end = min(last, self._covered.adopted.get(cohort, last))
                spans = self._covered.spans.get((pass_, cohort), ())
                found += [
                    Skipped(pass_.name, pass_.filter, cohort, *span)
                    for span in (subtract((first, end), spans) if first <= end else ())
                ]
        return found

    def hold(self, row: LogRow, members: Mapping[Address, Membership]) -> bool:
        """Say whether this row should be there; `members` has every watched account it names."""
        values, block = row.values, row.values["block_number"]
        account = watched_account(row)
        cohort = 0 if account is None else members.get(account, Membership()).cohort
        match row.kind:
            case "account_event":
                if self._by_factory and values["event"] in CREATION_EVENTS:
                    return self._in(Pass("logs", f"factory/{values['args'].get('factory')}"), block)
                return self._in(LOGS_ACCOUNTS, block, cohort)
            case "user_operation":
                known = values["entry_point"] in self._settings.entry_points
                return known and self._in(LOGS_ACCOUNTS, block, cohort)
            case "root_hint":
                known = values["manager"] in self._event_managers
                return known and self._in(roots_pass(Address(values["manager"])), block, cohort)
            case "undecoded_log":
                return self._undecoded(row, cohort, members)
            case _:
                return self._token(row, values["contract"], members)

    def _undecoded(self, row: LogRow, cohort: int, members: Mapping[Address, Membership]) -> bool:
        """Say whether a log that does not fit its event should be there, by what it claims to be.

        Where no account is named, any pass that asks for such logs has stored it.
        """
        address, block = row.values["address"], row.values["block_number"]
        topic = row.values["topics"][0] if row.values["topics"] else b""
        if topic in ACCOUNT_TOPICS:
            return self._in(LOGS_ACCOUNTS, block, cohort)
        if topic in ERC1155_TOPICS:
            return self._token(row, address, members)
        if topic in MANAGER_TOPICS:
            return address in self._event_managers and self._in_any(roots_pass(address), block)
        if topic in FACTORY_TOPICS and self._by_factory:
            return self._in(Pass("logs", f"factory/{hex_of(address)}"), block)
        if address in self._settings.entry_points and any(
            self._in_any(pass_, block) for pass_ in erc1155_passes(self._settings)
        ):
            return True
        return self._in_any(LOGS_ACCOUNTS, block)

    def _token(self, row: LogRow, contract: Address, members: Mapping[Address, Membership]) -> bool:
        block = row.values["block_number"]
        if self._settings.erc1155_mode == "touching":
            mine = [members[party].tokens for party in parties_of(row) if party in members]
            return any(self._in(TOUCHING, block, cohort) for cohort in mine)
        every = self._settings.erc1155_mode == "all"
        name = ALL_ERC1155 if every else f"erc1155/{hex_of(contract)}"
        return self._in(Pass("logs", name), block)

    def _in_any(self, pass_: Pass, block: int) -> bool:
        return _holds(self._any.get(pass_, ()), block)

    def _in(self, pass_: Pass, block: int, cohort: int = 0) -> bool:
        return pass_ in self._any and _holds(self._covered.spans.get((pass_, cohort), ()), block)


def _holds(spans: Iterable[Span], block: int) -> bool:
    return any(first <= block <= last for first, last in spans)
