"""What the chain has for one (manager, account), and what it should have.

The *expected set* is the newest stored set that has never been on chain and was stored after
the last root change ("after" compares the indexed block at storing, not clocks); if there is
none, the set that is on chain. A first observation that is not zero counts as a change at its
block, so a set stored before it is expected only if the account's first root was zero.

A set that has been on chain never becomes expected again by being stored again; going back to
it on chain does make it the set that is on chain. What that must not hide is a revocation: when
the newest stored set dropped a session that the chain's tree still proves, the account is
flagged however that tree got there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from indexer.core.types import ZERO_HASH, Hash32
from indexer.core.verdict_values import (
    AccountState,
    Instant,
    RootChange,
    StoredSet,
    VerdictInputs,
)


def store_order(stored: StoredSet) -> tuple[float, int]:
    """Return the key by which stored sets are newer or older than each other."""
    return (stored.stored_at, stored.set_id)


def stored_instant(stored: StoredSet) -> Instant:
    """Return when the set was stored."""
    return Instant(stored.stored_block, stored.stored_at)


def later(*instants: Instant) -> Instant:
    """Return the last one by block: a replayed chain's clock is years behind the database's."""
    return max(instants, key=lambda i: (-1 if i.block_number is None else i.block_number, i.time))


def leaf_set(stored: StoredSet) -> frozenset[Hash32]:
    """Return the leaves without order and repetition."""
    return frozenset(session.leaf for session in stored.sessions)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one (manager, account) stands. `sets` oldest first.

    `last` is the last root change and `root` what it left (zero if there was none). `on_chain`
    is the stored set with that root; `awaited` the expected set while it is not on chain.
    """

    inputs: VerdictInputs
    sets: tuple[StoredSet, ...]
    last: RootChange | None
    root: Hash32
    earlier_roots: frozenset[Hash32]
    on_chain: StoredSet | None
    awaited: StoredSet | None

    def changed(self) -> Instant:
        """Return when the root that stands was set, or first seen to be zero."""
        if self.last is not None:
            return Instant(self.last.block_number, float(self.last.block_time))
        assert self.inputs.first_observation is not None
        return self.inputs.first_observation

    def stored_while_observed(self, stored: StoredSet) -> bool:
        """Say whether the root was known when the set was stored."""
        first = self.inputs.first_observation
        return (
            stored.stored_block is not None
            and first is not None
            and first.block_number is not None
            and stored.stored_block >= first.block_number
        )

    def began(self, holds: Callable[[AccountState], bool]) -> Instant:
        """Return when what holds at the last reading of the account began to, without a break."""
        states = self.inputs.account_states
        first = states[-1]
        for state in reversed(states):
            if not holds(state):
                break
            first = state
        return Instant(first.block_number, float(first.block_time))

    def was_meant(self, stored: StoredSet) -> bool:
        """Say whether a set that has been on chain was stored before the chain left it.

        One stored later is an archive of the past, and no wish that something be revoked.
        """
        left = next(
            after
            for before, after in reversed(list(pairwise(self.inputs.changes)))
            if before.root == stored.root
        )
        if stored.stored_block is None:
            return stored.stored_at < left.block_time
        return stored.stored_block < left.block_number


def stand(inputs: VerdictInputs) -> Standing:
    """Find the set on chain and the set that is awaited."""
    sets = tuple(sorted(inputs.sets, key=store_order))
    last = inputs.changes[-1] if inputs.changes else None
    root = last.root if last is not None else ZERO_HASH
    earlier_roots = frozenset(change.root for change in inputs.changes[:-1])

    def newest(wanted: Callable[[StoredSet], bool]) -> StoredSet | None:
        if inputs.first_observation is None:
            return None
        return next((stored for stored in reversed(sets) if wanted(stored)), None)

    def is_awaited(stored: StoredSet) -> bool:
        if stored.root == root or stored.root in earlier_roots:
            return False
        return last is None or (
            stored.stored_block is not None and stored.stored_block >= last.block_number
        )

    # Two orders may share a root: then the newest of them stands for it.
    on_chain = newest(lambda stored: stored.root == root)
    awaited = newest(is_awaited)
    if on_chain is not None and awaited is not None:
        # Of one import the later set is the newer, and it has landed: a restored back-up.
        together = awaited.stored_at == on_chain.stored_at
        if together and store_order(awaited) < store_order(on_chain):
            awaited = None
    return Standing(inputs, sets, last, root, earlier_roots, on_chain, awaited)
