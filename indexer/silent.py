"""Changes of roots that left no log: found by reading at both ends and bisecting between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from indexer.core.roots import RootObservation


async def bisect(
    first: int,
    last: int,
    known: dict[int, RootObservation],
    read_at: Callable[[int], Awaitable[RootObservation]],
) -> None:
    """Add to `known`, which holds `first` and `last`, what stands on both sides of each change.

    Keys are whatever `read_at` takes, in the order of the blocks. A root that changed and changed
    back between two reads is not seen; nothing but a trace of every block would.
    """
    while last - first > 1 and known[first].root != known[last].root:
        middle = (first + last) // 2
        known[middle] = await read_at(middle)
        if known[middle].root == known[first].root:
            first = middle
        else:
            await bisect(middle, last, known, read_at)
            last = middle
