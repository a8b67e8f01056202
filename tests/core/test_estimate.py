"""What remains: arithmetic that never promises what was not measured."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from indexer.core.debt import blocks_in, merge, without
from indexer.core.estimate import (
    PACE_LASTS_SECONDS,
    Owed,
    RecentPace,
    duration_text,
    lanes,
    live_lane,
    remainder,
    total,
)
from indexer.core.passes import BODIES, LOGS_ACCOUNTS, TOUCHING, Pass

FACTORY = Pass("logs", "factory/0x" + "fa" * 20)
ROOTS = Pass("roots/0x" + "01" * 20, "accounts")
OTHER_ROOTS = Pass("roots/0x" + "02" * 20, "accounts")
PASSES = (FACTORY, LOGS_ACCOUNTS, TOUCHING, BODIES, ROOTS, OTHER_ROOTS)

amounts = st.floats(0.001, 1e6)
fresh = st.builds(RecentPace, amounts, amounts, amounts, st.floats(0, PACE_LASTS_SECONDS))
spans = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60)), max_size=5).map(
    lambda pairs: merge((first, first + more) for first, more in pairs)
)


@st.composite
def debts(draw: st.DrawFn) -> list[Owed]:
    """Debts of passes and cohorts, each with a part that no node can show."""
    found = []
    for pass_ in draw(st.lists(st.sampled_from(PASSES), unique=True)):
        for cohort in range(draw(st.integers(1, 3))):
            missing = draw(spans)
            lost = without(missing, draw(spans)) if pass_.name.startswith("roots/") else []
            found.append(Owed(pass_, cohort, (0, 600), missing, lost, accounts=cohort))
    return found


def paces(one: RecentPace) -> dict[str, RecentPace]:
    return dict.fromkeys(("logs", "bodies", "roots"), one)


@given(st.integers(0, 10**9), st.integers(0, 10**6), fresh)
def test_more_blocks_never_take_less(blocks: int, more: int, pace: RecentPace) -> None:
    """Time and requests are never negative and grow with what is missing; 0 only for nothing."""
    less, most = remainder(blocks, pace), remainder(blocks + more, pace)
    assert less.seconds is not None
    assert most.seconds is not None
    assert 0 <= less.seconds <= most.seconds
    assert less.requests is not None
    assert most.requests is not None
    assert 0 <= less.requests <= most.requests
    assert (less.seconds == 0) == (blocks == 0)


@given(st.integers(1, 10**9), st.floats(PACE_LASTS_SECONDS + 1, 1e9))
def test_without_a_pace_of_now_there_is_no_estimate(blocks: int, age: float) -> None:
    """Nothing paid yet, or nothing for minutes: no number, and a sentence that says which."""
    never, stale = remainder(blocks, None), remainder(blocks, RecentPace(1, 1, 1, age))
    assert never.seconds is never.requests is None
    assert stale.seconds is stale.requests is None
    assert never.basis == "nothing was paid yet"
    assert stale.basis == f"nothing was paid for {duration_text(age)}"


@given(debts(), fresh)
def test_a_bar_adds_up_its_cohorts(owed: list[Owed], pace: RecentPace) -> None:
    """No block is lost between the cohorts, and what no node can show takes no time."""
    bars = lanes(owed, paces(pace))
    assert len(bars) == len({one.pass_ for one in owed})
    for bar in bars:
        mine = [one for one in owed if one.pass_ == bar.pass_]
        assert bar.missing_blocks == sum(blocks_in(one.missing) for one in mine)
        assert 0 <= bar.unreadable_blocks <= bar.missing_blocks
        payable = bar.missing_blocks - bar.unreadable_blocks
        assert bar.remainder == remainder(payable, pace)
        assert 0 <= bar.percent <= 100
        assert (bar.percent == 100) == (bar.missing_blocks == 0)
        assert bar.accounts == sum(one.cohort for one in mine if one.missing)


@given(debts(), fresh)
def test_the_whole_takes_at_least_its_longest_lane(owed: list[Owed], pace: RecentPace) -> None:
    """The total is no less than any lane's time, and no more than that of all in a row."""
    whole = total(owed, paces(pace))
    each = [bar.remainder.seconds or 0.0 for bar in lanes(owed, paces(pace))]
    assert whole.seconds is not None
    assert whole.seconds <= sum(each) * (1 + 1e-9)
    by_cohort = [remainder(blocks_in(one.payable), pace).seconds or 0.0 for one in owed]
    assert whole.seconds >= max(by_cohort, default=0.0) * (1 - 1e-9)
    known = total(owed, {"logs": pace})
    payable = [one for one in owed if one.payable and not one.pass_.name.startswith("logs")]
    assert (known.seconds is None) == bool(payable)


@given(st.floats(0, 1e10))
def test_durations_are_rounded(seconds: float) -> None:
    """Never "0 s", at most half a unit off, and no number above 90 but days."""
    number, unit = duration_text(seconds).split()
    size = {"s": 1, "min": 60, "h": 3_600, "days": 86_400}[unit]
    assert int(number) >= 1
    assert abs(int(number) * size - seconds) <= size / 2 or seconds < 0.5
    assert unit == "days" or int(number) <= 90


def test_filters_share_their_ranges_and_state_its_places() -> None:
    """Logs of one cohort are paid together; bodies and roots wait for each other."""
    pace = RecentPace(blocks=100, seconds=10, requests=20, age_seconds=1)
    target, all_ = (0, 99), [(0, 99)]
    owed = [Owed(pass_, 0, target, all_) for pass_ in (LOGS_ACCOUNTS, TOUCHING)]
    assert total(owed, paces(pace)).seconds == 10
    owed += [Owed(pass_, 0, target, all_) for pass_ in (BODIES, ROOTS, OTHER_ROOTS)]
    whole = total(owed, paces(pace))
    assert (whole.seconds, whole.requests) == (30, 80)
    owed[-1] = Owed(OTHER_ROOTS, 0, target, all_, lost=[(0, 99)])
    assert total(owed, paces(pace)).seconds == 20


def test_the_live_lane_follows() -> None:
    """Its bar is complete at the tip, and says nothing of time behind it."""
    assert live_lane(100, 200, 200).percent == 100
    behind = live_lane(100, 190, 200)
    assert (behind.missing_blocks, behind.remainder.seconds) == (10, None)
    assert 0 < behind.percent < 100
