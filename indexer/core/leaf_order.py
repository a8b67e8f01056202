"""The order of a changed session set that spares most proofs.

A client that holds a session's proof can go on with it only as far as the tree around the leaf
stays. The measure is the number of *changed elements*, summed over the sessions that are kept: of
one proof, the longer of old and new length minus their longest common subsequence, so that an
element replaced, added or taken away counts one. Leaves that repeat count once, by their last
place, which is the one the vendor's SDK proves.

No order changes less than `least_changes`. Up to EXACT_LEAVES leaves every tree is tried; above,
a few orders that close gaps, fill them, or keep whole subtrees together, and the best is taken,
which is never worse than closing the gaps and appending.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, islice
from typing import Final

from indexer.core.merkle import merkle_layers
from indexer.core.types import Hash32

EXACT_LEAVES: Final = 9
"""Up to so many leaves every tree is tried: 2,835 of nine; of ten there were 14,175."""
_MAX_SINKS: Final = 3

Proof = tuple[Hash32, ...]
_Slots = list[int | None]


@dataclass(frozen=True, slots=True)
class Order:
    """A chosen order. `items` are indexes into the old leaves, followed by the new ones.

    `changes` has an element per item: the changed elements of its proof, None if it is new. The
    sum over kept leaves is `changed_elements`; `least_elements` is what no order can go below.
    `is_optimal`: no order changes less, because that bound is met or every tree was tried.
    """

    items: tuple[int, ...]
    changes: tuple[int | None, ...]
    changed_elements: int
    least_elements: int
    is_optimal: bool


def choose_order(old: Sequence[Hash32], dropped: frozenset[int], new: Sequence[Hash32]) -> Order:
    """Return the order of what is kept of `old` and of `new` that changes the fewest elements.

    `dropped` are indexes of `old`. A leaf of which some place remains is kept, and was proved by
    its last place; `new` repeats nothing of `old`.
    Of equal ones the first tried stays, the plainest. Raises ValueError if nothing remains.
    """
    remaining = len(old) - len(dropped) + len(new)
    if not remaining:
        raise ValueError("an empty session set has no order")
    change = _Change(old, dropped, new)
    least = change.least if dropped or new else 0
    best: tuple[int, ...] = ()
    cost = -1
    for items in _distinct(_candidates(len(old), dropped, len(new))):
        found = change.cost(items)
        if cost < 0 or found < cost:
            best, cost = items, found
        if cost == least:
            break
    is_optimal = cost == least
    if not is_optimal and remaining <= EXACT_LEAVES:
        is_optimal = True
        for items in _trees(tuple(sorted(best))):
            found = change.cost(items)
            if found < cost:
                best, cost = items, found
            if cost == least:
                break
    return Order(best, change.changes(best), cost, least, is_optimal)


def changed_elements(old: Proof, new: Proof) -> int:
    """Return how many elements of a proof are replaced, added or taken away."""
    low, high = 0, min(len(old), len(new))
    while low < high and old[low] == new[low]:
        low += 1
    tail = 0
    while tail < high - low and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    one, other = old[low : len(old) - tail], new[low : len(new) - tail]
    longest = max(len(one), len(other))
    if not longest or set(one).isdisjoint(other):
        return longest
    row = [0] * (len(other) + 1)
    for element in one:
        above = list(row)
        for i, candidate in enumerate(other):
            row[i + 1] = above[i] + 1 if element == candidate else max(above[i + 1], row[i])
    return longest - row[-1]


def all_proofs(leaves: Sequence[Hash32]) -> Iterator[Proof]:
    """Yield the proof of every leaf in order, as merkle_proof gives it, from one tree."""
    layers = merkle_layers(leaves)
    for index in range(len(leaves)):
        yield tuple(
            layer[sibling]
            for height, layer in enumerate(layers)
            if (sibling := index >> height ^ 1) < len(layer)
        )


class _Change:
    """The stored tree, and what other orders cost against it."""

    def __init__(
        self, old: Sequence[Hash32], dropped: frozenset[int], new: Sequence[Hash32]
    ) -> None:
        self._leaves = [*old, *new]
        staying = {leaf for i, leaf in enumerate(old) if i not in dropped}
        kept = {leaf: i for i, leaf in enumerate(old) if leaf in staying}
        proofs = list(all_proofs(old))
        self._proofs = {leaf: proofs[i] for leaf, i in kept.items()}
        # What is over a leaf that stays elsewhere may come again.
        gone = frozenset(i for i in dropped if old[i] not in staying)
        self.least = _least_changes(len(old), gone, kept.values())

    def cost(self, items: Sequence[int]) -> int:
        """Return the changed elements of all kept leaves."""
        return sum(self._changes(items).values())

    def changes(self, items: Sequence[int]) -> tuple[int | None, ...]:
        """Return the changed elements item by item."""
        by_leaf = self._changes(items)
        return tuple(by_leaf.get(self._leaves[item]) for item in items)

    def _changes(self, items: Sequence[int]) -> dict[Hash32, int]:
        leaves = [self._leaves[item] for item in items]
        # Of a leaf that repeats the last proof stays.
        after = dict(zip(leaves, all_proofs(leaves), strict=True))
        return {leaf: changed_elements(proof, after[leaf]) for leaf, proof in self._proofs.items()}


def _least_changes(size: int, dropped: frozenset[int], kept: Iterable[int]) -> int:
    """Return what no order can go below, if anything is dropped or new; `dropped` stays nowhere.

    An element over a dropped leaf is the hash of something that is gone, and with another root
    no proof stays as it was.
    """
    gone = [0, *accumulate(int(i in dropped) for i in range(size))]
    total = 0
    for index in kept:
        forced = 0
        width = 1
        while width < size:
            start = (index // width ^ 1) * width
            if start < size and gone[min(start + width, size)] > gone[start]:
                forced += 1
            width *= 2
        total += max(1, forced)
    return total


def _distinct(orders: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    seen: set[tuple[int, ...]] = set()
    for items in orders:
        if items not in seen:
            seen.add(items)
            yield items


def _candidates(size: int, dropped: frozenset[int], added: int) -> Iterator[tuple[int, ...]]:
    """Yield orders to try, the plainest first; some come twice."""
    new = list(range(size, size + added))
    holes = sorted(dropped)
    stored: _Slots = [None if i in dropped else i for i in range(size)]
    yield (*_closed(stored), *new)
    for chosen in (holes, holes[::-1]):
        slots = list(stored)
        for hole, item in zip(chosen, new, strict=False):
            slots[hole] = item
        rest = new[len(holes) :]
        yield (*_closed(slots), *rest)
        yield tuple(_by_size([*_blocks(slots), *_new_blocks(rest)]))
        if None in slots:
            yield tuple(_closed(_last_into_holes(slots)))
            for sink in _spread([i for i in holes if slots[i] is None], _MAX_SINKS):
                yield tuple(_by_size(_blocks(_gathered(slots, sink))))
    yield tuple(_by_size([*_blocks(stored), *_new_blocks(new)]))


def _closed(slots: _Slots) -> list[int]:
    return [item for item in slots if item is not None]


def _last_into_holes(slots: _Slots) -> _Slots:
    filled = list(slots)
    for hole in [i for i, item in enumerate(slots) if item is None]:
        while filled and filled[-1] is None:
            filled.pop()
        if hole >= len(filled):
            break
        filled[hole] = filled.pop()
    return filled


def _gathered(slots: _Slots, sink: int) -> _Slots:
    """Fill the other holes with the leaves nearest to one of them, whose proofs suffer anyway."""
    filled = list(slots)
    others = [i for i, item in enumerate(slots) if item is None and i != sink]
    # Nearest in the tree: the fewer high bits differ, the smaller the subtree that has both.
    near = sorted(
        (i for i, item in enumerate(slots) if item is not None), key=lambda i: (i ^ sink, i)
    )
    for hole, donor in zip(others, near, strict=False):
        filled[hole], filled[donor] = filled[donor], None
    return filled


def _spread(items: Sequence[int], count: int) -> list[int]:
    """Return at most so many of the items, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[i * (len(items) - 1) // (count - 1)] for i in range(count)]


def _blocks(slots: _Slots) -> Iterator[list[int]]:
    """Yield the largest perfect subtrees without a hole, from left to right."""
    start = 0
    while start < len(slots):
        size = 0
        wider = 1
        # A subtree of 2^n leaves starts at a multiple of 2^n.
        while not start % wider and start + wider <= len(slots):
            if None in slots[start + size : start + wider]:
                break
            size, wider = wider, wider * 2
        if size:
            yield _closed(slots[start : start + size])
        start += max(size, 1)


def _new_blocks(items: Sequence[int]) -> Iterator[list[int]]:
    """Yield new leaves in lists of 2^n, the longest first."""
    source = iter(items)
    for bit in reversed(range(len(items).bit_length())):
        if len(items) >> bit & 1:
            yield list(islice(source, 1 << bit))


def _by_size(blocks: Iterable[list[int]]) -> Iterator[int]:
    """Put the largest first: then each starts at a multiple of its size, as a subtree must."""
    for block in sorted(blocks, key=len, reverse=True):
        yield from block


def _trees(items: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield one order for each tree that can be made of the items.

    Nodes are sorted before they are hashed, so of two halves of one size either may come first.
    """
    if len(items) == 1:
        yield items
        return
    half = 1 << (len(items) - 1).bit_length() - 1
    fixed = items[:1] if 2 * half == len(items) else ()
    for chosen in combinations(items[len(fixed) :], half - len(fixed)):
        left = (*fixed, *chosen)
        right = tuple(item for item in items if item not in left)
        rights = list(_trees(right))
        for tree in _trees(left):
            for other in rights:
                yield tree + other
