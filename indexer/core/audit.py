"""What an audit compares: rows of the database against the same logs, decoded again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from indexer.core.audit_claims import (
    COLUMNS,
    CREATION_EVENTS,
    Claims,
    LogKind,
    LogRow,
    Membership,
    watched_account,
)
from indexer.core.passes import hex_of
from indexer.core.types import Address

Kind: TypeAlias = Literal["block", LogKind, "root_observation", "account_observation"]
Problem: TypeAlias = Literal["missing", "too_much", "different"]

KINDS: Final[tuple[Kind, ...]] = ("block", *COLUMNS, "root_observation", "account_observation")
MAX_FINDINGS = 20
"""Sentences kept of one audit; all are counted."""
_SHOWN_CHARACTERS = 80


@dataclass(slots=True)
class Count:
    """Rows of one kind. `rows` are those of the database that were looked at."""

    rows: int = 0
    agreed: int = 0
    missing: int = 0
    too_much: int = 0
    different: int = 0
    unchecked: int = 0

    @property
    def differences(self) -> int:
        """Return how often node and database said two things."""
        return self.missing + self.too_much + self.different

    def add(self, other: Count) -> None:
        """Count what another has counted, too."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference, in a sentence. `log_index` is None where it is not about a log."""

    kind: Kind
    problem: Problem
    block_number: int
    log_index: int | None
    text: str


@dataclass(slots=True)
class Tally:
    """What was compared so far, and the first findings in the order of the chain."""

    counts: dict[Kind, Count] = field(default_factory=lambda: {kind: Count() for kind in KINDS})
    findings: list[Finding] = field(default_factory=list)

    @property
    def differences(self) -> int:
        """Return the number of all differences, shown or not."""
        return sum(count.differences for count in self.counts.values())

    def add(self, later: Tally) -> None:
        """Take in the tally of later blocks."""
        for kind, count in later.counts.items():
            self.counts[kind].add(count)
        # In the order of the chain; a block that is another comes before what stands in it.
        found = sorted(
            later.findings,
            key=lambda one: (one.block_number, -1 if one.log_index is None else one.log_index),
        )
        self.findings += found[: MAX_FINDINGS - len(self.findings)]

    def compare(
        self,
        kind: Kind,
        place: tuple[int, int | None],
        about: str,
        stored: Mapping[str, Any],
        found: Mapping[str, Any] | None,
    ) -> None:
        """Compare one row of the database with what the node says; None: it could not say.

        `place` is the block number and, of a log, its index; `about` names who it is of.
        """
        count = self.counts[kind]
        count.rows += 1
        if found is None:
            count.unchecked += 1
            return
        different = [name for name in stored if stored[name] != found[name]]
        if not different:
            count.agreed += 1
            return
        count.different += 1
        said = "; ".join(
            f"{name} is {shown(stored[name])} in the database and {shown(found[name])} at the node"
            for name in different
        )
        self._note(kind, "different", place, f"{kind}{about}: {said}")

    def compare_logs(
        self,
        found: Iterable[LogRow],
        stored: Iterable[LogRow],
        claims: Claims,
        members: Mapping[Address, Membership],
    ) -> None:
        """Compare rows of the same blocks; `members` has every watched account among them."""
        at_node = {row.key: row for row in found}
        in_database: set[tuple[LogKind, int, int, int]] = set()
        for row in stored:
            in_database.add(row.key)
            # An account that nobody watches has nothing to be there: as if of cohort 0.
            if not claims.hold(row, members):
                continue
            kind, number, log_index, _ = row.key
            other = at_node.get(row.key)
            if other is not None:
                place = (number, log_index)
                self.compare(kind, place, _about(row), row.values, other.values)
                continue
            self.counts[kind].rows += 1
            self.counts[kind].too_much += 1
            text = f"the database has a row of {kind}{_about(row)} that the node does not have"
            self._note(kind, "too_much", (number, log_index), text)
        for key, row in at_node.items():
            account = watched_account(row)
            known = account is None or account in members or _is_creation(row)
            if key in in_database or not known or not claims.hold(row, members):
                continue
            kind, number, log_index, _ = key
            self.counts[kind].missing += 1
            text = f"the database lacks the row of {kind}{_about(row)} that the node has"
            self._note(kind, "missing", (number, log_index), text)

    def _note(self, kind: Kind, problem: Problem, place: tuple[int, int | None], text: str) -> None:
        number, log_index = place
        where = f"block {number}" if log_index is None else f"block {number}, log {log_index}"
        self.findings.append(Finding(kind, problem, number, log_index, f"{where}: {text}"))


def _is_creation(row: LogRow) -> bool:
    """Say whether a row itself puts its account on the watch list, where factories do that."""
    return row.kind == "account_event" and row.values["event"] in CREATION_EVENTS


def _about(row: LogRow) -> str:
    values = row.values
    name = f" {shown(values['event'])}" if row.kind == "account_event" else ""
    named = watched_account(row) or values.get("contract") or values["address"]
    return f"{name} of {shown(named)}"


def shown(value: object) -> str:
    """Write a value for people: bytes as 0x text; a stranger's text escaped, and cut."""
    if isinstance(value, bytes):
        text = hex_of(value)
    elif isinstance(value, str) and value.isascii() and value.isalnum():
        text = value
    elif value is None:
        text = "none"
    else:
        text = json.dumps(value, default=shown)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
