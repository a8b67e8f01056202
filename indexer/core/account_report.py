"""One (manager, account) in detail: what its tree holds, and how each stored set differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from indexer.core.expected_set import Standing, stand
from indexer.core.expiry import not_expired
from indexer.core.root_search import Search, search_root
from indexer.core.types import ZERO_HASH, Hash32
from indexer.core.verdict_values import Cause, StoredSet, VerdictInputs
from indexer.core.wishes import Wish, bases_of, called_revoked

Likeness = Literal["same", "other_order", "other_sessions", "not_known"]
"""How a stored set compares with the tree; `not_known` where nobody knows the tree's leaves."""
Why = Literal["revoked", "dropped"]


@dataclass(frozen=True, slots=True)
class SetReport:
    """A stored set beside the tree: `missing` from the tree, `extra` in it."""

    set_id: int
    likeness: Likeness
    missing: tuple[Hash32, ...] = ()
    extra: tuple[Hash32, ...] = ()


@dataclass(frozen=True, slots=True)
class ProvableSession:
    """A session that should not work, and does; `why`: its store calls it revoked, or not."""

    leaf: Hash32
    why: Why
    valid_until: int


@dataclass(frozen=True, slots=True)
class AccountReport:
    """`leaves` are the tree's in order, None where nobody knows them, () where the root is zero.

    `on_chain_set_id` is the stored set with the tree's root; `search` what was found for a root
    that no stored set has. `wanted_set_id` is the set that `provable` is judged by. `sets` newest
    first.
    """

    leaves: tuple[Hash32, ...] | None
    on_chain_set_id: int | None
    wanted_set_id: int | None
    search: Search | None
    provable: tuple[ProvableSession, ...]
    sets: tuple[SetReport, ...]


def report_account(inputs: VerdictInputs, cause: Cause | None, head_time: int) -> AccountReport:
    """Compare what stands on chain with each stored set; expiry is judged at `head_time`.

    `cause` is that of the verdict which stands.
    """
    standing = stand(inputs)
    search = None
    leaves: tuple[Hash32, ...] | None = None
    if standing.on_chain is not None:
        leaves = _leaves(standing.on_chain)
    elif inputs.first_observation is not None and standing.root == ZERO_HASH:
        leaves = ()
    elif standing.root != ZERO_HASH and standing.sets:
        search = search_root(bases_of(standing.sets), standing.root)
        leaves = search.found.leaves if search.found else None
    wanted = _wanted(standing, cause)
    return AccountReport(
        leaves,
        standing.on_chain.set_id if standing.on_chain else None,
        wanted.set_id if wanted else None,
        search,
        _provable(standing.sets, wanted, leaves or (), head_time) if wanted else (),
        tuple(_compared(stored, leaves) for stored in reversed(standing.sets)),
    )


def _leaves(stored: StoredSet) -> tuple[Hash32, ...]:
    return tuple(session.leaf for session in stored.sessions)


def _wanted(standing: Standing, cause: Cause | None) -> StoredSet | None:
    """The set by which the verdict judges: a newer one revokes only where the verdict says so."""
    if standing.awaited is not None:
        return standing.awaited
    undone = cause in {"revoked_still_provable", "reverted_to_older_set"}
    if standing.on_chain is not None and not undone:
        return standing.on_chain
    return standing.sets[-1] if standing.sets else None


def _provable(
    sets: Sequence[StoredSet], wanted: StoredSet, leaves: Sequence[Hash32], head_time: int
) -> tuple[ProvableSession, ...]:
    revoked = called_revoked(sets)
    unwanted = Wish(sets, wanted, revoked).unwanted(leaves)
    valid, _ = not_expired(unwanted, head_time)
    return tuple(
        ProvableSession(s.leaf, "revoked" if s.leaf in revoked else "dropped", s.valid_until)
        for s in valid
    )


def _compared(stored: StoredSet, leaves: tuple[Hash32, ...] | None) -> SetReport:
    if leaves is None:
        return SetReport(stored.set_id, "not_known")
    mine = _leaves(stored)
    if mine == leaves:
        return SetReport(stored.set_id, "same")
    # Dictionaries, since they keep the order.
    there, here = dict.fromkeys(leaves), dict.fromkeys(mine)
    missing = tuple(leaf for leaf in here if leaf not in there)
    extra = tuple(leaf for leaf in there if leaf not in here)
    likeness: Likeness = "other_sessions" if missing or extra else "other_order"
    return SetReport(stored.set_id, likeness, missing, extra)
