"""What the passing of block time does to sessions, and when it does it next.

A session is valid while valid_after <= block time <= valid_until, inclusive; 0 = unbounded.
Each answer comes with its flips: block times at which it may change, if nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from indexer.core.verdict_values import StoredSession, VerdictWarning


def not_expired(
    sessions: Iterable[StoredSession], head_time: int
) -> tuple[list[StoredSession], list[int]]:
    """Return the sessions not expired at `head_time`, and when the last of them expires."""
    kept = [s for s in sessions if not s.valid_until or s.valid_until >= head_time]
    if not kept or not all(s.valid_until for s in kept):
        return kept, []
    return kept, [max(s.valid_until for s in kept) + 1]


def expiry_warnings(
    sessions: Sequence[StoredSession], *, in_root: bool, head_time: int, soon_seconds: int
) -> tuple[tuple[VerdictWarning, ...], list[int]]:
    """Return the warnings of one set; `in_root`: its root stands on chain.

    `all_expired` and `expired_in_root` both hold of a tree in which nothing is valid any more.
    """
    ends = sorted(s.valid_until for s in sessions if s.valid_until)
    if not ends:
        return (), []
    warnings: list[VerdictWarning] = []
    flips = _soon_flips(ends, head_time, soon_seconds)
    if len(ends) == len(sessions):
        if ends[-1] < head_time:
            warnings.append("all_expired")
        else:
            flips.append(ends[-1] + 1)
    if any(head_time <= end <= head_time + soon_seconds for end in ends):
        warnings.append("expiring_soon")
    if in_root:
        if ends[0] < head_time:
            warnings.append("expired_in_root")
        else:
            flips.append(ends[0] + 1)
    return tuple(warnings), flips


def _soon_flips(ends: Sequence[int], now: int, soon_seconds: int) -> list[int]:
    """Return the next block time, if any, at which `expiring_soon` begins or ends.

    `ends` ascend. It holds at t while some session ends within [t, t + soon_seconds].
    """
    coming = [end for end in ends if end >= now]
    if not coming:
        return []
    if coming[0] - soon_seconds > now:
        return [coming[0] - soon_seconds]
    reach = coming[0]
    for end in coming:
        if end - soon_seconds > reach + 1:
            break
        reach = end
    return [reach + 1]
