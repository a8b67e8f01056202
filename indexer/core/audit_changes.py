"""What an audit says of a root that is not the stored one: where it changed, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from indexer.core.attribution import RootAttribution
from indexer.core.roots import RootObservation
from indexer.core.types import ZERO_HASH, Address, Hash32

Reason = Literal[
    "tainted", "missed_log", "no_log", "misread", "unknown", "changed_slots", "unknown_user"
]
"""tainted: the account can change its root silently. missed_log: the block of the change has a log
of the account that is not stored. no_log: it has none. misread: its log is stored, another root was
read. unknown: the state between can not be read. changed_slots: the account's own slots changed
unnoticed. unknown_user: a manager whose roots were all known has another."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The last canonical root of an account in a manager; `block_number` None: none was read."""

    manager: Address
    account: Address
    block_number: int | None
    root: Hash32 = ZERO_HASH


@dataclass(frozen=True, slots=True)
class Change:
    """A root that differs from the one before it, read at `previous_block` (None: none was).

    `exact`: it changed in this very block. `misread`: the root that is stored for
    `previous_block` is not what its state shows.
    """

    found: RootObservation
    previous_root: Hash32
    previous_block: int | None
    exact: bool
    misread: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of chain.audit_finding, see there."""

    block_number: int
    reason: Reason
    manager: Address | None = None
    account: Address | None = None
    stored_root: Hash32 | None = None
    found_root: Hash32 | None = None
    previous_block: int | None = None


def changes_since(stored: Stored, read: Mapping[int, RootObservation]) -> list[Change]:
    """Return the changes that roots read at and above the stored block show, in their order."""
    last = stored.block_number
    again = None if last is None else read.get(last)
    misread = again is not None and again.root != stored.root
    changes: list[Change] = []
    root = stored.root
    for number, found in sorted(read.items()):
        if stored.block_number is not None and number <= stored.block_number:
            continue
        if found.root != root:
            first = not changes and last == stored.block_number
            exact = last is not None and number == last + 1
            changes.append(Change(found, root, last, exact, misread and first))
        root, last = found.root, number
    return changes


def by_nobody(found: RootObservation) -> RootAttribution:
    """Return what says that nothing names who changed a root, in the very block of the change."""
    return RootAttribution(
        found.block_number, found.manager, found.account, "state", "none", None, None
    )
