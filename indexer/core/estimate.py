"""How far each lane has come, and how long and how many requests the rest may take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from indexer.core.debt import Span, blocks_in, intersect, merge, without
from indexer.core.passes import BODIES, Pass

Lane = Literal["live", "discovery", "logs", "bodies", "roots"]
PACE_LASTS_SECONDS = 300.0
"""A pace older than this says nothing of what comes: the daemon, or its node, has stopped."""


@dataclass(frozen=True, slots=True)
class RecentPace:
    """What the last ranges of one kind of work took; `age_seconds` since the last was paid."""

    blocks: float
    seconds: float
    requests: float
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Remainder:
    """What the rest may take. None where nothing is known; `basis` says why, or how it is."""

    seconds: float | None
    requests: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class Owed:
    """What one pass owes for one cohort. `lost` is the part of `missing` that no node can show."""

    pass_: Pass
    cohort: int
    target: Span
    missing: Sequence[Span]
    lost: Sequence[Span] = ()
    accounts: int = 0
    """Of the cohort; of cohort 0, which are all others, not counted."""

    @property
    def payable(self) -> list[Span]:
        """What can be paid."""
        return without(self.missing, self.lost)


@dataclass(frozen=True, slots=True)
class LaneProgress:
    """One bar: a pass over all its cohorts. `unreadable_blocks` are part of `missing_blocks`.

    `accounts` belong to cohorts above 0, which owe blocks that are paid for all others.
    """

    lane: Lane
    pass_: Pass
    first_block: int
    last_block: int
    target_blocks: int
    missing_blocks: int
    unreadable_blocks: int
    accounts: int
    remainder: Remainder

    @property
    def percent(self) -> float:
        """How much is done, 0 to 100; 100 only when nothing is missing."""
        if not self.missing_blocks:
            return 100.0
        done = self.target_blocks - self.missing_blocks
        return min(max(100.0 * done / max(self.target_blocks, 1), 0.0), 99.9)


def duration_text(seconds: float) -> str:
    """Round to a whole number of the largest unit that gives 2 or more: never "0 s"."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{int(seconds / size + 0.5)} {unit}"
    return f"{max(1, int(seconds + 0.5))} s"


def remainder(blocks: int, pace: RecentPace | None) -> Remainder:
    """Return what so many blocks take at this pace."""
    if blocks <= 0:
        return Remainder(0.0, 0.0, "nothing is left to pay")
    if pace is None or pace.blocks <= 0:
        return Remainder(None, None, "nothing was paid yet")
    if pace.age_seconds > PACE_LASTS_SECONDS:
        return Remainder(None, None, f"nothing was paid for {duration_text(pace.age_seconds)}")
    rate = f"{pace.blocks / pace.seconds:.3g} blocks/s" if pace.seconds > 0 else "at once"
    return Remainder(
        blocks * pace.seconds / pace.blocks,
        blocks * pace.requests / pace.blocks,
        f"{rate} lately, last paid {duration_text(pace.age_seconds)} ago",
    )


def lane_of(pass_: Pass) -> Lane:
    """Return which lane pays a pass."""
    if pass_.name == BODIES.name:
        return "bodies"
    if pass_.name.startswith("roots/"):
        return "roots"
    return "discovery" if pass_.filter.startswith("factory/") else "logs"


def kind_of(pass_: Pass) -> str:
    """Return under which kind of work a pass has its pace: logs, bodies or roots."""
    return pass_.name.partition("/")[0]


def lanes(owed: Iterable[Owed], paces: Mapping[str, RecentPace]) -> list[LaneProgress]:
    """Return one bar per pass, its cohorts added up, in the order in which they are paid."""
    by_pass: dict[Pass, list[Owed]] = {}
    for one in owed:
        by_pass.setdefault(one.pass_, []).append(one)
    order: list[Lane] = ["discovery", "logs", "bodies", "roots"]
    return [
        _bar(pass_, by_pass[pass_], paces.get(kind_of(pass_)))
        for pass_ in sorted(by_pass, key=lambda p: (order.index(lane_of(p)), p.name, p.filter))
    ]


def _bar(pass_: Pass, owed: Sequence[Owed], pace: RecentPace | None) -> LaneProgress:
    targets = [one.target for one in owed]
    return LaneProgress(
        lane=lane_of(pass_),
        pass_=pass_,
        first_block=min(first for first, _ in targets),
        last_block=max(last for _, last in targets),
        target_blocks=sum(max(last - first + 1, 0) for first, last in targets),
        missing_blocks=sum(blocks_in(one.missing) for one in owed),
        unreadable_blocks=sum(blocks_in(intersect(one.missing, merge(one.lost))) for one in owed),
        accounts=sum(one.accounts for one in owed if one.missing),
        remainder=remainder(sum(blocks_in(one.payable) for one in owed), pace),
    )


def total(owed: Sequence[Owed], paces: Mapping[str, RecentPace]) -> Remainder:
    """Return what all of a chain's debt may take: unknown if that of any part is unknown."""
    # The filters of one cohort share their ranges of logs, and so do the factories.
    shared: dict[tuple[Lane, int], list[Span]] = {}
    state: dict[str, int] = {"bodies": 0, "roots": 0}
    for one in owed:
        lane = lane_of(one.pass_)
        if lane in state:
            state[lane] += blocks_in(one.payable)
        else:
            shared.setdefault((lane, one.cohort), []).extend(one.payable)
    log_blocks = sum(blocks_in(merge(spans)) for spans in shared.values())
    logs = remainder(log_blocks, paces.get("logs"))
    parts = {name: remainder(blocks, paces.get(name)) for name, blocks in state.items()}
    if not (log_blocks or any(state.values())):
        return logs
    for name, part in {"logs": logs, **parts}.items():
        if part.seconds is None:
            return Remainder(None, None, f"{part.basis} of {name}")
    # Logs and the state behind them have places of their own in flight, so the longer of both
    # counts; bodies and roots share theirs, so they add up.
    behind = sum(part.seconds or 0.0 for part in parts.values())
    requests = sum(part.requests or 0.0 for part in (logs, *parts.values()))
    longest = "logs" if (logs.seconds or 0.0) >= behind else "bodies and roots"
    return Remainder(
        max(logs.seconds or 0.0, behind), requests, f"{longest} take longest, all run side by side"
    )


def live_lane(start_block: int, indexed_block: int, latest_block: int) -> LaneProgress:
    """Return the bar of the live lane: how far it is behind the node's tip."""
    behind = max(latest_block - indexed_block, 0)
    left = (
        Remainder(None, None, "follows the node's tip")
        if behind
        else Remainder(0.0, 0.0, "at the node's tip")
    )
    blocks = max(latest_block - start_block + 1, behind)
    return LaneProgress(
        "live", Pass("live", "all"), start_block, latest_block, blocks, behind, 0, 0, left
    )
