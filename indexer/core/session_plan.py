"""The next session set of an account: what leaves the stored one, what joins it, in which order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from indexer.core.leaf_order import Order, choose_order
from indexer.core.merkle import merkle_root, session_leaf
from indexer.core.session_sets import MAX_SESSIONS, ClientStatus
from indexer.core.types import Hash32, Session

DropReason = Literal["named", "revoked", "expired", "repeated"]
"""`revoked`: the client calls it so. `repeated`: it stays at an earlier place."""
LeftOutReason = Literal["expired", "in the set", "repeated"]


@dataclass(frozen=True, slots=True)
class Placed:
    """A session of the next set.

    `stored_index` is its place in the stored set, None if it is new. `changed_elements` are those
    of its proof (leaf_order), None if it had no proof.
    """

    session: Session
    leaf: Hash32
    stored_index: int | None
    changed_elements: int | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A session of the stored set that the next one has no more."""

    session: Session
    leaf: Hash32
    stored_index: int
    reason: DropReason


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A session that was to be added and is not; `added_index` is its place among those."""

    session: Session
    leaf: Hash32
    added_index: int
    reason: LeftOutReason


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """The next set. `root` and `order` are None if nothing remains: an empty set has no root."""

    sessions: tuple[Placed, ...]
    dropped: tuple[Dropped, ...]
    left_out: tuple[LeftOut, ...]
    root: Hash32 | None
    order: Order | None

    @property
    def proofs(self) -> int:
        """Count the kept sessions, those that repeat once."""
        return len({one.leaf for one in self.sessions if one.changed_elements is not None})

    @property
    def unchanged_proofs(self) -> int:
        """Count those of `proofs` that stay byte for byte."""
        return len({one.leaf for one in self.sessions if one.changed_elements == 0})


def is_expired(session: Session, block_time: int) -> bool:
    """Say whether the session has ended at a block's time (unix seconds); inclusive, 0 = never."""
    return session.valid_until != 0 and session.valid_until < block_time


def plan_sessions(
    stored: Sequence[Session],
    *,
    block_time: int | None,
    drop: Collection[Hash32] = (),
    add: Sequence[Session] = (),
    statuses: Sequence[ClientStatus | None] = (),
    once: bool = False,
) -> SessionPlan:
    """Return the set that follows `stored`; it may be empty.

    Expired sessions go, old ones and new ones, unless `block_time` is None. Dropped is every
    occurrence of a leaf in `drop`, and of one that `statuses`, those of `stored`, call revoked at
    each, unless it is to be added; with `once` all but its first. What is in the set already is
    not added again.
    Raises ValueError if `drop` names a leaf that is not stored, or one that is to be added, and if
    the set gets more than MAX_SESSIONS.
    """
    leaves = [session_leaf(session) for session in stored]
    added = [session_leaf(session) for session in add]
    for leaf in drop:
        if leaf not in leaves:
            raise ValueError(f"0x{leaf[:4].hex()}… is not a leaf of the set")
        if leaf in added:
            raise ValueError(f"0x{leaf[:4].hex()}… is to be dropped and to be added")

    def expired(session: Session) -> bool:
        return block_time is not None and is_expired(session, block_time)

    valid = {
        leaf
        for leaf, status in zip(leaves, statuses or [None] * len(leaves), strict=True)
        if status != "revoked"
    }
    valid.update(added)
    dropped: list[Dropped] = []
    kept: set[Hash32] = set()
    for index, (session, leaf) in enumerate(zip(stored, leaves, strict=True)):
        reason: DropReason
        if leaf in drop:
            reason = "named"
        elif leaf not in valid:
            reason = "revoked"
        elif expired(session):
            reason = "expired"
        elif once and leaf in kept:
            reason = "repeated"
        else:
            kept.add(leaf)
            continue
        dropped.append(Dropped(session, leaf, index, reason))
    known = set(leaves)
    new: dict[Hash32, Session] = {}
    left_out: list[LeftOut] = []
    for index, (session, leaf) in enumerate(zip(add, added, strict=True)):
        if expired(session):
            left_out.append(LeftOut(session, leaf, index, "expired"))
        elif leaf in known:
            left_out.append(LeftOut(session, leaf, index, "in the set"))
        elif leaf in new:
            left_out.append(LeftOut(session, leaf, index, "repeated"))
        else:
            new[leaf] = session
    gone = frozenset(one.stored_index for one in dropped)
    if len(gone) == len(stored) and not new:
        return SessionPlan((), tuple(dropped), tuple(left_out), None, None)
    remaining = len(stored) - len(gone) + len(new)
    if remaining > MAX_SESSIONS:
        raise ValueError(f"the next set has {remaining} sessions, at most {MAX_SESSIONS} make one")
    order = choose_order(leaves, gone, tuple(new))
    sessions, all_leaves = [*stored, *new.values()], [*leaves, *new]
    placed = tuple(
        Placed(sessions[item], all_leaves[item], item if item < len(stored) else None, changes)
        for item, changes in zip(order.items, order.changes, strict=True)
    )
    root = merkle_root([one.leaf for one in placed])
    return SessionPlan(placed, tuple(dropped), tuple(left_out), root, order)
