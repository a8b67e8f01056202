"""What a client wants of the chain: which leaves it keeps, and which it calls revoked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from indexer.core.expected_set import leaf_set
from indexer.core.root_search import Base
from indexer.core.types import Hash32
from indexer.core.verdict_values import StoredSession, StoredSet

REVOKED = "revoked"
"""The client_status of a session that must not work any more."""


def called_revoked(sets: Sequence[StoredSet]) -> frozenset[Hash32]:
    """Return the leaves that a client calls revoked. `sets` oldest first.

    The newest set that holds a leaf decides, if it calls every occurrence so: the same session
    may have been revoked and created again.
    """
    claims: dict[Hash32, bool] = {}
    for stored in reversed(sets):
        here: dict[Hash32, bool] = {}
        for session in stored.sessions:
            here[session.leaf] = session.client_status == REVOKED and here.get(session.leaf, True)
        claims = here | claims
    return frozenset(leaf for leaf, is_revoked in claims.items() if is_revoked)


@dataclass(frozen=True, slots=True)
class Wish:
    """What should work: the sessions of `wanted`, one of `sets`, that are not called revoked."""

    sets: Sequence[StoredSet]
    wanted: StoredSet
    revoked: frozenset[Hash32]

    def unwanted(self, leaves: Iterable[Hash32]) -> list[StoredSession]:
        """Return the sessions of these leaves, all of stored sets, that should not work."""
        kept = leaf_set(self.wanted) - self.revoked
        known = {session.leaf: session for stored in self.sets for session in stored.sessions}
        return [known[leaf] for leaf in dict.fromkeys(leaves) if leaf not in kept]

    def missing(self, leaves: Iterable[Hash32]) -> list[StoredSession]:
        """Return the wanted sessions that these leaves lack."""
        there = {*leaves, *self.revoked}
        return [session for session in self.wanted.sessions if session.leaf not in there]


def bases_of(sets: Sequence[StoredSet]) -> list[Base]:
    """Return what a search for a root starts from, newest first. `sets` oldest first."""
    return [
        Base(
            stored.set_id,
            tuple(session.leaf for session in stored.sessions),
            tuple(session.client_status for session in stored.sessions),
        )
        for stored in reversed(sets)
    ]
