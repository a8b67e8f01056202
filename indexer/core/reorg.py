"""What the live lane does next, decided from the stored tail and the node's headers.

Only a *different* hash proves a reorg. A *missing* one may be a node that lags.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from indexer.core.types import BlockHeader, ChainHead, Hash32


@dataclass(frozen=True, slots=True)
class Tail:
    """Headers from the finalized block (first) to the indexed tip (last), ascending.

    The stored tail has no holes, but while finality stalls it grows to thousands of blocks and
    a step needs a few of them: what lies between first and last may be left out here, and is
    loaded after NeedTail.
    """

    headers: tuple[BlockHeader, ...]

    def __post_init__(self) -> None:
        for below, above in pairwise(self.headers):
            adjacent = above.number == below.number + 1
            if above.number <= below.number or (adjacent and above.parent_hash != below.hash):
                raise ValueError(f"the tail breaks at block {above.number}")

    @property
    def finalized(self) -> BlockHeader:
        """The stored finalized block."""
        return self.headers[0]

    @property
    def tip(self) -> BlockHeader:
        """The last block that is committed."""
        return self.headers[-1]

    def get(self, number: int) -> BlockHeader | None:
        """Our header at this number, or None outside the tail and where it is left out."""
        place = bisect_left(self.headers, number, key=lambda header: header.number)
        found = self.headers[place] if place < len(self.headers) else None
        return found if found is not None and found.number == number else None

    def lacks(self, number: int) -> bool:
        """Whether the tail holds a block of this number that is left out here."""
        return self.finalized.number < number < self.tip.number and self.get(number) is None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to write. `confirmed`: the node's tip is ours, so our view is up to date."""

    reason: str
    confirmed: bool


@dataclass(frozen=True, slots=True)
class NeedTail:
    """The node contradicts us, or may: load more of the tail and ask it for the same heights."""


@dataclass(frozen=True, slots=True)
class Extend:
    """Append these headers; then the block `finalized` of the new tail is final."""

    headers: tuple[BlockHeader, ...]
    finalized: BlockHeader


@dataclass(frozen=True, slots=True)
class Rewind:
    """Move away everything above `keep`, the last block both branches share."""

    keep: BlockHeader


@dataclass(frozen=True, slots=True)
class Restart:
    """We were away for longer than finality: the tail starts anew at `finalized`."""

    finalized: BlockHeader


@dataclass(frozen=True, slots=True)
class Violation:
    """The node contradicts a block that is final for us. Nothing may be written."""

    number: int
    ours: BlockHeader
    theirs: BlockHeader


@dataclass(frozen=True, slots=True)
class Inconsistent:
    """The node's headers do not link: it moved while it answered. Ask again."""

    reason: str


Step = Wait | NeedTail | Extend | Rewind | Restart | Violation | Inconsistent


def plan_step(
    tail: Tail, head: ChainHead, canonical: Mapping[int, BlockHeader], *, max_blocks: int
) -> Step:
    """Decide the next step.

    `canonical` holds the node's headers by number: at least the tip's (where the node has it)
    and those that follow it, up to `max_blocks`; after NeedTail those of ever more heights of
    the tail, from the tip down, and in the end of all.
    """
    if any(header.hash != _hash_at(canonical, header) for header in tail.headers):
        return _plan_rewind(tail, canonical)

    tip = tail.tip
    if tail.lacks(head.latest.number) or tail.lacks(head.finalized.number):
        return NeedTail()
    if head.latest.number < tip.number:
        ours = tail.get(head.latest.number)
        if ours is not None and ours.hash != head.latest.hash:
            return NeedTail()
        return Wait("the node is behind the indexed block", confirmed=False)
    if tip.number not in canonical:
        return Wait("the node does not have the indexed block", confirmed=False)
    ours_at_final = tail.get(head.finalized.number)
    if ours_at_final is not None and ours_at_final.hash != head.finalized.hash:
        return Inconsistent("the finalized block is of another branch than the headers")
    if head.finalized.number > tip.number + max_blocks:
        return Restart(head.finalized)

    headers: list[BlockHeader] = []
    parent = tip
    last = min(head.latest.number, tip.number + max_blocks)
    for number in range(tip.number + 1, last + 1):
        header = canonical.get(number)
        if header is None:
            break
        if header.parent_hash != parent.hash:
            return Inconsistent(f"header {number} does not link to header {parent.number}")
        headers.append(header)
        parent = header

    finalized = tail.finalized
    # The marker moves only to a block whose hash the node's finality named; one beyond what
    # could be linked says nothing about ours.
    if finalized.number < head.finalized.number <= parent.number:
        finalized = (
            tail.get(head.finalized.number) or headers[head.finalized.number - tip.number - 1]
        )
        if finalized.hash != head.finalized.hash:
            return Inconsistent("the finalized block is of another branch than the headers")
    if headers or finalized.number > tail.finalized.number:
        return Extend(tuple(headers), finalized)
    return Wait("no new block", confirmed=head.latest.hash == tip.hash)


def _hash_at(canonical: Mapping[int, BlockHeader], ours: BlockHeader) -> Hash32:
    """Return the node's hash at this height, or ours where the node did not say."""
    return canonical.get(ours.number, ours).hash


def _plan_rewind(tail: Tail, canonical: Mapping[int, BlockHeader]) -> Step:
    known = [ours for ours in tail.headers if ours.number in canonical]
    agreed = [ours.number for ours in known if _hash_at(canonical, ours) == ours.hash]
    differing = [ours.number for ours in known if _hash_at(canonical, ours) != ours.hash]
    if agreed and agreed[-1] > differing[0]:
        # A block of ours stands on all that are ours below it.
        return Inconsistent(f"it has our block {agreed[-1]}, but another {differing[0]}")
    keep = common_ancestor(tail.headers, canonical)
    if keep is not None:
        if canonical[keep.number + 1].parent_hash != keep.hash:
            return Inconsistent(f"header {keep.number + 1} does not link to header {keep.number}")
        return Rewind(keep)
    if differing[0] == tail.finalized.number:
        return Violation(differing[0], tail.finalized, canonical[differing[0]])
    return NeedTail()


def common_ancestor(
    stored: Sequence[BlockHeader], canonical: Mapping[int, BlockHeader]
) -> BlockHeader | None:
    """Return the highest stored header whose successor is contradicted and which is not itself.

    None if the node's header at that height is not among `canonical`: then nothing is proved.
    """
    for parent, child in zip(reversed(stored[:-1]), reversed(stored[1:]), strict=True):
        adjacent = child.number == parent.number + 1 and parent.number in canonical
        if (
            adjacent
            and _hash_at(canonical, parent) == parent.hash
            and _hash_at(canonical, child) != child.hash
        ):
            return parent
    return None
