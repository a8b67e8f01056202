"""Which arrangement of stored sessions gives a root that is no stored set's.

Clients reorder, drop, repeat and append leaves; each such story is tried, the likely ones first,
until one gives the root or the bound is reached. A tree over m leaves is the pair of the tree
over the first 2^k of them (2^k the largest power of two below m) and the tree over the rest, so
lists that share a part share its hashes: all 2^n subsets of one order cost one hash each.

Source of the revoke form: @biconomy/account 4.6.3, revokeSessions appends to the tree all stored
leaves but the last one it was given; what it claims to revoke stays in the tree.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations, permutations
from typing import Final, Literal

from indexer.core.merkle import merkle_root, node_over
from indexer.core.types import Hash32

MAX_HASHES: Final = 16_000
"""How much one search may cost. Looking at 128 leaves counts as one hash, too."""

Order = Literal["as_stored", "reversed", "newest_first", "sorted"]
"""`newest_first` is the last session first, then the others as stored; `sorted` is by bytes."""
Form = Literal[
    "whole", "without_revoked", "active_only", "prefix", "missing", "twice", "revoke", "joined"
]
"""What was done to the ordered leaves. `joined`: two sets, one after the other."""

_ORDERS: Final[tuple[Order, ...]] = ("as_stored", "reversed", "newest_first", "sorted")
MOST_BASES: Final = 32
"""How many bases one search looks at."""
_MOST_JOINED: Final = 4
_MOST_REVOKED: Final = 4
_MOST_REVOKED_THRICE: Final = 8
_WORK_PER_HASH: Final = 16

Leaves = tuple[Hash32, ...]


@dataclass(frozen=True, slots=True)
class Base:
    """A list of leaves to start from; `statuses` is what the client's store says of each."""

    base_id: int
    leaves: Leaves
    statuses: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Leaves in tree order that give the root, and how they come from a base.

    `missing` are leaves of the base that the tree lacks, `twice` those that it has more often
    than the base. `joined_id` is the set whose leaves follow the base's.
    """

    base_id: int
    form: Form
    order: Order
    leaves: Leaves
    missing: Leaves
    twice: Leaves
    joined_id: int | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """The simplest arrangement found, or None; `exhausted`: not all arrangements were tried."""

    found: Arrangement | None
    hashes: int
    max_hashes: int
    exhausted: bool


@dataclass(frozen=True, slots=True)
class _Story:
    base: Base
    form: Form
    leaves: Leaves
    order: Order = "as_stored"
    joined: Base | None = None


class _BoundReachedError(Exception):
    """The search has cost what it may cost."""


class Tree:
    """Roots of lists, each part hashed once and remembered."""

    def __init__(self, max_hashes: int) -> None:
        self._left = max_hashes * _WORK_PER_HASH
        self._roots: dict[Leaves, Hash32] = {}
        self._nodes: dict[tuple[Hash32, Hash32], Hash32] = {}

    @property
    def hashes(self) -> int:
        """How many hashes were made."""
        return len(self._nodes)

    def root(self, leaves: Leaves) -> Hash32:
        """Return the root over one or more leaves in the order given."""
        self._spend(1 + len(leaves) // 8)
        return self._root(leaves)

    def _root(self, leaves: Leaves) -> Hash32:
        if len(leaves) == 1:
            return leaves[0]
        known = self._roots.get(leaves)
        if known is None:
            half = 1 << ((len(leaves) - 1).bit_length() - 1)
            known = self._node(self._root(leaves[:half]), self._root(leaves[half:]))
            self._roots[leaves] = known
        return known

    def _node(self, one: Hash32, other: Hash32) -> Hash32:
        children = (one, other) if one <= other else (other, one)
        known = self._nodes.get(children)
        if known is None:
            self._spend(_WORK_PER_HASH)
            known = self._nodes[children] = node_over(*children)
        return known

    def _spend(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise _BoundReachedError


def search_root(bases: Sequence[Base], root: Hash32, *, max_hashes: int = MAX_HASHES) -> Search:
    """Find the simplest arrangement of these bases, newest first, that gives the root.

    Simplest is the first in this order: a set as stored or narrowed as its statuses say, another
    order, two sets joined, the fewest sessions missing at the end, one change (a session missing
    or twice, one revocation), two revocations, the fewest sessions missing anywhere, three
    revocations of few sessions. Of equals: the order as stored, then the newest base.
    """
    tree = Tree(max_hashes)
    found: Arrangement | None = None
    exhausted = False
    try:
        for story in _stories(bases[:MOST_BASES]):
            # The same root by merkle.py, or it is not believed.
            if story.leaves and tree.root(story.leaves) == root == merkle_root(story.leaves):
                found = _arrangement(story)
                break
        else:
            exhausted = len(bases) > MOST_BASES
    except _BoundReachedError:
        exhausted = True
    return Search(found, tree.hashes, max_hashes, exhausted)


def _arrangement(story: _Story) -> Arrangement:
    there = Counter(story.leaves)
    stored = Counter(story.base.leaves)
    if story.joined is not None:
        stored |= Counter(story.joined.leaves)
    return Arrangement(
        story.base.base_id,
        story.form,
        story.order,
        story.leaves,
        missing=tuple(leaf for leaf in stored if leaf not in there),
        twice=tuple(leaf for leaf, count in there.items() if count > stored[leaf]),
        joined_id=None if story.joined is None else story.joined.base_id,
    )


# --- the stories, in the order in which they are tried ------------------------------------------


def _stories(bases: Sequence[Base]) -> Iterator[_Story]:
    for base in bases:
        yield from _as_claimed(base)
    ordered: dict[Order, list[tuple[Base, Leaves]]] = {}
    for order in _ORDERS:
        ordered[order] = []
        for base in bases:
            ordered[order].append((base, _in_order(base.leaves, order)))
            yield _Story(base, "whole", ordered[order][-1][1], order)
    yield from _joined(bases[:_MOST_JOINED])
    most = max((len(base.leaves) for base in bases), default=0)
    for order in _ORDERS:
        for count in range(1, most):
            for base, leaves in ordered[order]:
                if count < len(leaves):
                    yield _Story(base, "prefix", leaves[:-count], order)
    for order in _ORDERS:
        for base, leaves in ordered[order]:
            for form, changed in _one_change(leaves):
                yield _Story(base, form, changed, order)
    for base in bases:
        for changed in _revoked_often(base.leaves, 2):
            yield _Story(base, "revoke", changed)
    for count in range(2, most):
        for order in _ORDERS:
            for base, leaves in ordered[order]:
                for changed in _without(leaves, count):
                    yield _Story(base, "missing", changed, order)
    for base in bases:
        # Without statuses that narrow them, more sessions make too many triples.
        if len(base.leaves) <= _MOST_REVOKED_THRICE:
            for changed in _revoked_often(base.leaves, 3):
                yield _Story(base, "revoke", changed)


def _in_order(leaves: Leaves, order: Order) -> Leaves:
    if order == "reversed":
        return leaves[::-1]
    if order == "newest_first":
        return leaves[-1:] + leaves[:-1]
    return tuple(sorted(leaves)) if order == "sorted" else leaves


def _as_claimed(base: Base) -> Iterator[_Story]:
    """The set as it is, and what the client's own statuses suggest."""
    yield _Story(base, "whole", base.leaves)
    statuses = base.statuses or (None,) * len(base.leaves)
    kept = tuple(
        leaf for leaf, status in zip(base.leaves, statuses, strict=True) if status != "revoked"
    )
    active = tuple(
        leaf for leaf, status in zip(base.leaves, statuses, strict=True) if status == "active"
    )
    revoked = [place for place, status in enumerate(statuses) if status == "revoked"]
    if revoked:
        yield _Story(base, "without_revoked", kept)
        yield _Story(base, "revoke", base.leaves + kept)
        # One call per session, in any order; or one call for several, of which the last counts.
        for count in range(1, min(len(revoked), _MOST_REVOKED) + 1):
            for places in permutations(revoked[:_MOST_REVOKED], count):
                yield _Story(base, "revoke", _revoked(base.leaves, places))
        for place in revoked[_MOST_REVOKED:]:
            yield _Story(base, "revoke", _revoked(base.leaves, (place,)))
    if active:
        yield _Story(base, "active_only", active)


def _joined(bases: Sequence[Base]) -> Iterator[_Story]:
    """Two sets one after the other, whole or without repeating what both have."""
    for newer, older in combinations(bases, 2):
        for first, second in ((older, newer), (newer, older)):
            both = first.leaves + second.leaves
            if set(second.leaves) < set(first.leaves):
                # The client stored what should remain, and appended it to what was there.
                yield _Story(first, "revoke", both)
            else:
                yield _Story(first, "joined", both, joined=second)
            for one, other in ((first, second), (second, first)):
                # What only the other has, before or behind the whole of the one.
                there = set(one.leaves)
                rest = tuple(leaf for leaf in other.leaves if leaf not in there)
                leaves = one.leaves + rest if one is first else rest + one.leaves
                yield _Story(first, "joined", leaves, joined=second)


def _one_change(leaves: Leaves) -> Iterator[tuple[Form, Leaves]]:
    """One session missing or twice, or one revocation. Late places first: they cost least."""
    for changed in _without(leaves, 1):
        yield "missing", changed
    for place in reversed(range(len(leaves))):
        one = leaves[place : place + 1]
        yield "twice", leaves + one
        yield "twice", leaves[:place] + one + leaves[place:]
        yield "twice", one + leaves
    yield "twice", leaves + leaves
    # Sessions may have been created after the revocation.
    for end in range(len(leaves), 1, -1):
        for place in reversed(range(end)):
            yield "revoke", _revoked(leaves[:end], (place,)) + leaves[end:]


def _revoked(leaves: Leaves, places: Iterable[int]) -> Leaves:
    """All leaves, then for each place all but that one again."""
    appended = leaves
    for place in places:
        appended += leaves[:place] + leaves[place + 1 :]
    return appended


def _revoked_often(leaves: Leaves, times: int) -> Iterator[Leaves]:
    """Several revocations; each appends all but its own, or all that is not revoked by then."""
    for places in permutations(reversed(range(len(leaves))), times):
        yield _revoked(leaves, places)
        appended = leaves
        for count in range(1, times + 1):
            gone = places[:count]
            appended += tuple(leaf for i, leaf in enumerate(leaves) if i not in gone)
        yield appended


def _without(leaves: Leaves, count: int) -> Iterator[Leaves]:
    """Leave so many out, but not all; late places first, since what is before them is known."""
    if count < len(leaves):
        yield from combinations(leaves, len(leaves) - count)


# --- searching again ----------------------------------------------------------------------------


class RememberedSearches:
    """search_root that answers the same question once; holds at most so many answers.

    `made` counts the searches really made. A long arrangement is not kept: it is found early,
    and would take room.
    """

    _LONGEST = 1_024

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._answers: OrderedDict[bytes, Search] = OrderedDict()
        self.made = 0

    def __call__(self, bases: Sequence[Base], root: Hash32) -> Search:
        """Return search_root(bases, root)."""
        key = self._key(bases, root)
        answer = self._remembered(key)
        if answer is not None:
            return answer
        self.made += 1
        answer = search_root(bases, root)
        if answer.found is None or len(answer.found.leaves) <= self._LONGEST:
            self._answers[key] = answer
            if len(self._answers) > self._size:
                self._answers.popitem(last=False)
        return answer

    def known(self, bases: Sequence[Base], root: Hash32) -> Search | None:
        """Return the answer if it is remembered."""
        return self._remembered(self._key(bases, root))

    def _remembered(self, key: bytes) -> Search | None:
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def _key(self, bases: Sequence[Base], root: Hash32) -> bytes:
        asked = blake2b(root, digest_size=32)
        for base in bases[:MOST_BASES]:
            asked.update(b"%d %d " % (base.base_id, len(base.leaves)))
            asked.update(b"".join(base.leaves))
            asked.update(repr(base.statuses).encode())
        # Whether there were more than are tried is part of the answer.
        asked.update(b"%d" % len(bases))
        return asked.digest()
