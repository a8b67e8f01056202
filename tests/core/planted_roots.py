"""Generated stores of session sets, each with a planted reason for the root on chain."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from indexer.core.merkle import merkle_root
from indexer.core.root_search import Base, Form, Leaves
from indexer.core.types import Hash32

MOST_SESSIONS = 12


@dataclass(frozen=True, slots=True)
class Planted:
    """A store, newest set first, and the leaves behind the root. `forms` None: unrelated."""

    cause: str
    bases: tuple[Base, ...]
    leaves: Leaves
    forms: tuple[Form, ...] | None

    @property
    def root(self) -> Hash32:
        return merkle_root(self.leaves)


def fresh(rng: random.Random, count: int) -> Leaves:
    return tuple(Hash32(rng.randbytes(32)) for _ in range(count))


def base(base_id: int, leaves: Leaves, statuses: Sequence[str | None] = ()) -> Base:
    return Base(base_id, leaves, tuple(statuses) or (None,) * len(leaves))


def one(rng: random.Random, least: int = 3) -> Leaves:
    return fresh(rng, rng.randint(least, MOST_SESSIONS))


def without(leaves: Leaves, *places: int) -> Leaves:
    return tuple(leaf for place, leaf in enumerate(leaves) if place not in places)


def _reversed(rng: random.Random) -> Planted:
    leaves = one(rng)
    return Planted("reversed", (base(1, leaves),), leaves[::-1], ("whole",))


def _sorted(rng: random.Random) -> Planted:
    leaves = one(rng)
    return Planted("sorted", (base(1, leaves),), tuple(sorted(leaves)), ("whole",))


def _newest_first(rng: random.Random) -> Planted:
    leaves = one(rng)
    arranged = (leaves[-1], *leaves[:-1])
    return Planted("newest_first", (base(1, leaves),), arranged, ("whole",))


def _prefix(rng: random.Random) -> Planted:
    leaves = one(rng)
    ordered = rng.choice([leaves, leaves[::-1], (leaves[-1], *leaves[:-1])])
    kept = ordered[: rng.randint(1, len(leaves) - 1)]
    # What is left of another order may be what one missing session leaves of this one.
    return Planted("prefix", (base(1, leaves),), kept, ("prefix", "missing"))


def _subset(rng: random.Random) -> Planted:
    leaves = one(rng)
    ordered = rng.choice([leaves, leaves[::-1], tuple(sorted(leaves))])
    gone = rng.sample(range(len(leaves)), rng.randint(1, len(leaves) - 1))
    kept = without(ordered, *gone)
    return Planted("subset", (base(1, leaves),), kept, ("prefix", "missing"))


def _duplicate(rng: random.Random) -> Planted:
    leaves = one(rng)
    place = rng.randrange(len(leaves))
    again = rng.choice([place, len(leaves)])
    arranged = (*leaves[:again], leaves[place], *leaves[again:])
    return Planted("duplicate", (base(1, leaves),), arranged, ("twice",))


def _claimed(rng: random.Random, leaves: Leaves, revoked: Sequence[int]) -> Base:
    """A store that knows what it revoked, or a list that lost its statuses."""
    if rng.random() < 0.5:
        return base(1, leaves)
    return base(1, leaves, ["revoked" if i in revoked else "active" for i in range(len(leaves))])


def _revoke(rng: random.Random) -> Planted:
    leaves = one(rng)
    place = rng.randrange(len(leaves))
    arranged = leaves + without(leaves, place)
    return Planted("revoke", (_claimed(rng, leaves, [place]),), arranged, ("revoke",))


def _revoke_twice(rng: random.Random) -> Planted:
    leaves = one(rng)
    first, second = rng.sample(range(len(leaves)), 2)
    arranged = leaves + without(leaves, first) + without(leaves, second)
    store = _claimed(rng, leaves, [first, second])
    return Planted("revoke_twice", (store,), arranged, ("revoke",))


def _revoke_several(rng: random.Random) -> Planted:
    """One call with several ids: only the last is filtered, all are called revoked."""
    leaves = one(rng)
    ids = rng.sample(range(len(leaves)), rng.randint(2, min(4, len(leaves))))
    arranged = leaves + without(leaves, ids[-1])
    return Planted("revoke_several", (_claimed(rng, leaves, ids),), arranged, ("revoke",))


def _revoke_then_create(rng: random.Random) -> Planted:
    leaves = one(rng)
    end = rng.randint(2, len(leaves) - 1)
    place = rng.randrange(end)
    arranged = leaves[:end] + without(leaves[:end], place) + leaves[end:]
    return Planted("revoke_then_create", (base(1, leaves),), arranged, ("revoke", "twice"))


def _by_status(rng: random.Random) -> Planted:
    leaves = one(rng)
    statuses = [rng.choice(["active", "revoked", "pending"]) for _ in leaves]
    statuses[0], statuses[1] = "active", "revoked"
    wanted = rng.choice(["active_only", "without_revoked"])
    kept = tuple(
        leaf
        for leaf, status in zip(leaves, statuses, strict=True)
        if (status == "active" if wanted == "active_only" else status != "revoked")
    )
    forms: tuple[Form, ...] = ("active_only", "without_revoked")
    return Planted("by_status", (base(1, leaves, statuses),), kept, forms)


def _joined(rng: random.Random) -> Planted:
    total = rng.randint(4, MOST_SESSIONS)
    older, rest = fresh(rng, total // 2), fresh(rng, total - total // 2)
    shared = older[: rng.randint(0, len(older))]
    newer = (*shared, *rest)
    arranged = rng.choice([older + newer, newer + older, older + rest, rest + older])
    forms: tuple[Form, ...] = ("joined", "prefix", "whole", "twice", "missing", "revoke")
    return Planted("joined", (base(2, newer), base(1, older)), arranged, forms)


def _unrelated(rng: random.Random) -> Planted:
    return Planted("unrelated", (base(1, one(rng, 1)),), one(rng, 1), None)


CAUSES: tuple[Callable[[random.Random], Planted], ...] = (
    _reversed, _sorted, _newest_first, _prefix, _subset, _duplicate, _revoke, _revoke_twice,
    _revoke_several, _revoke_then_create, _by_status, _joined, _unrelated,
)  # fmt: skip


def planted(seed: int) -> Planted:
    """Return the store of this seed; the causes take turns."""
    return CAUSES[seed % len(CAUSES)](random.Random(seed))
