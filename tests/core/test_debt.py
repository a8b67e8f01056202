"""Debt: what the history lane owes, and that paying it in any order pays all of it, once."""

from dataclasses import dataclass, field
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.debt import (
    Cohort,
    Ledger,
    Span,
    Task,
    Wanted,
    intersect,
    lost_tasks,
    merge,
    missing_blocks,
    next_logs,
    next_state,
    subtract,
    unreadable_blocks,
    without,
)
from indexer.core.passes import ACCOUNTS, BODIES, LOGS_ACCOUNTS, TOUCHING, Pass

FACTORIES = (Pass("logs", "factory/0x01"), Pass("logs", "factory/0x02"))
ROOTS = (Pass("roots/0x0a", ACCOUNTS), Pass("roots/0x0b", ACCOUNTS))
TOKENS = (Pass("logs", "erc1155/0x03"), Pass("logs", "erc1155/0x04"))
SOURCES = ("stored", "list", "factory", "tainted", "token")
LAST = 24

block_sets = st.integers(0, 2 ** (LAST + 1) - 1).map(
    lambda bits: {number for number in range(LAST + 1) if bits >> number & 1}
)


def blocks_of(spans) -> set[int]:
    return {number for first, last in spans for number in range(first, last + 1)}


def spans_of(blocks: set[int]) -> tuple[Span, ...]:
    """Return ascending spans that do not touch, as an int8multirange gives them."""
    runs = groupby(enumerate(sorted(blocks)), key=lambda pair: pair[1] - pair[0])
    found = [[number for _, number in run] for _, run in runs]
    return tuple((run[0], run[-1]) for run in found)


@given(st.integers(0, LAST), st.integers(0, LAST), block_sets)
def test_subtract_is_the_difference_of_sets(first, last, covered):
    """What is missing is the target without what is covered, in as few stretches as it takes."""
    missing = subtract((first, last), spans_of(covered))

    assert missing == list(spans_of(set(range(first, last + 1)) - covered))


@given(block_sets, block_sets)
def test_intersect_is_the_intersection_of_sets(left, right):
    """What both hold, in ascending stretches."""
    both = intersect(spans_of(left), spans_of(right))

    assert both == list(spans_of(left & right))


@given(block_sets, st.lists(st.tuples(st.integers(0, LAST), st.integers(0, 5))))
def test_without_takes_away_what_is_in_flight(left, pairs):
    """What is taken may overlap and come in any order."""
    taken = [(first, first + more) for first, more in pairs]

    assert without(spans_of(left), taken) == list(spans_of(left - blocks_of(taken)))


@dataclass
class Books:
    """What a database would say: coverage as sets of blocks, and where finality is."""

    start_block: int
    finalized: int
    wanted: Wanted
    covered: dict[tuple[Pass, int], set[int]] = field(default_factory=dict)
    cohorts: dict[int, Cohort] = field(default_factory=dict)
    lost: dict[tuple[Pass, int], set[int]] = field(default_factory=dict)
    busy: list[Task] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        return Ledger(
            {key: spans_of(blocks) for key, blocks in self.covered.items() if blocks},
            self.start_block,
            self.finalized,
            dict(self.cohorts),
            {key: spans_of(blocks) for key, blocks in self.lost.items() if blocks},
        )

    def logs(self, max_blocks: int = 100) -> Task | None:
        return next_logs(self.ledger, self.wanted, self.busy, max_blocks)

    def state(self, max_blocks: int = 100) -> Task | None:
        return next_state(self.ledger, self.wanted, self.busy, max_blocks)

    def done(self, pass_: Pass, cohort: int) -> set[int]:
        return self.covered.setdefault((pass_, cohort), set())

    def owed(self) -> dict[tuple[Pass, int], set[int]]:
        """What is missing, computed by sets; keys with nothing missing are left out."""
        keys = [(pass_, 0) for pass_ in self.wanted.every]
        for number, cohort in self.cohorts.items():
            keys += [(pass_, number) for pass_ in passes_of(self.wanted, cohort)]
        missing = {}
        for pass_, cohort in keys:
            last = self.finalized
            if cohort:
                last = min(last, self.cohorts[cohort].adopted_block)
            blocks = set(range(self.start_block, last + 1)) - self.done(pass_, cohort)
            missing[pass_, cohort] = blocks
        return {key: blocks for key, blocks in missing.items() if blocks}

    def begin(self, task: Task, max_blocks: int) -> None:
        """Check that the task may be claimed now, beside those in flight."""
        blocks, owed = set(range(task.first, task.last + 1)), self.owed()
        assert 1 <= len(blocks) <= max_blocks
        assert task.passes
        for pass_ in task.passes:
            assert blocks <= owed[pass_, task.cohort]
            for other in self.busy:
                if pass_ in other.passes and other.cohort == task.cohort:
                    assert blocks.isdisjoint(range(other.first, other.last + 1))
            self._check_order(pass_, task, blocks)
        self.busy.append(task)

    def end(self, task: Task) -> None:
        self.busy.remove(task)
        for pass_ in task.passes:
            self.done(pass_, task.cohort).update(range(task.first, task.last + 1))

    def _check_order(self, pass_: Pass, task: Task, blocks: set[int]) -> None:
        known_before = set(range(self.start_block, task.last + 1))
        everybody = set(range(self.start_block, self.finalized + 1))
        source = self.cohorts[task.cohort].source if task.cohort else ""
        if pass_ in self.wanted.factory:
            assert (task.kind, task.cohort) == ("factory", 0)
        elif pass_ == TOUCHING:
            assert task.kind == "logs"
            waits = not task.cohort or source in {"factory", "token"}
            assert not waits or all(everybody <= self.done(f, 0) for f in self.wanted.factory)
        elif pass_ in self.wanted.erc1155:
            assert (task.kind, task.cohort) == ("logs", 0)
        elif pass_ == LOGS_ACCOUNTS:
            assert task.kind == "logs"
            assert task.cohort or all(known_before <= self.done(f, 0) for f in self.wanted.factory)
            assert source != "factory" or all(
                everybody <= self.done(f, 0) for f in self.wanted.factory
            )
        elif pass_ == BODIES:
            assert (task.kind, task.passes) == ("bodies", (BODIES,))
            assert blocks <= self.done(LOGS_ACCOUNTS, task.cohort)
        else:
            assert task.kind == "roots"
            assert blocks <= self.done(BODIES, task.cohort)


def passes_of(wanted: Wanted, cohort: Cohort) -> list[Pass]:
    """What a cohort owes, said once more."""
    account = [] if cohort.source == "token" else list(wanted.account)
    touching = TOUCHING in wanted.erc1155 and cohort.source != "tainted"
    return account + [TOUCHING] * touching


def wants(factories: int = 2, roots: int = 2, tokens: int | str = 2) -> Wanted:
    erc1155 = (TOUCHING,) if tokens == "touching" else TOKENS[: int(tokens)]
    account = (LOGS_ACCOUNTS, BODIES, *ROOTS[:roots])
    return Wanted(FACTORIES[:factories], account, erc1155)


@st.composite
def books(draw: st.DrawFn) -> Books:
    found = Books(
        draw(st.integers(0, 12)),
        draw(st.integers(0, LAST)),
        wants(
            draw(st.integers(0, 2)),
            draw(st.integers(0, 2)),
            draw(st.sampled_from([0, 1, 2, "touching"])),
        ),
    )
    for cohort in range(1, 1 + draw(st.integers(0, 2))):
        found.cohorts[cohort] = draw(cohorts)
    for cohort in (0, *found.cohorts):
        for pass_ in found.wanted.every:
            found.covered[pass_, cohort] = draw(block_sets)
    return found


cohorts = st.builds(Cohort, st.integers(0, LAST), st.sampled_from(SOURCES))


def pay_all(found: Books, data: st.DataObject, max_blocks: int) -> None:
    """Begin and end ranges in an order drawn, up to four in flight, until nothing can be begun."""
    while True:
        task = data.draw(st.sampled_from([found.logs, found.state]))(max_blocks)
        task = task or found.logs(max_blocks) or found.state(max_blocks)
        if task is not None:
            found.begin(task, max_blocks)
        if found.busy and (task is None or len(found.busy) == 4 or data.draw(st.booleans())):
            found.end(data.draw(st.sampled_from(found.busy)))
        elif task is None:
            return


@given(books(), st.integers(1, 50), st.data())
def test_paying_ranges_in_any_order_leaves_nothing_owed(found, max_blocks, data):
    """From any coverage, several in flight, ended in any order: all is paid, nothing twice."""
    pay_all(found, data, max_blocks)

    assert found.owed() == {}
    assert set(missing_blocks(found.ledger, found.wanted).values()) <= {0}


@given(books(), st.data())
def test_finality_the_live_lane_and_adoptions_may_come_in_any_order(found, data):
    """Whatever happens between two payments, in the end nothing is owed and nothing paid twice."""
    for happening in data.draw(st.lists(st.sampled_from("pealf"), max_size=20)):
        max_blocks = data.draw(st.integers(1, 9))
        if happening == "p":
            if (task := found.logs(max_blocks) or found.state(max_blocks)) is not None:
                found.begin(task, max_blocks)
        elif happening == "e":
            if found.busy:
                found.end(data.draw(st.sampled_from(found.busy)))
        elif happening == "a":
            found.cohorts[len(found.cohorts) + 1] = data.draw(cohorts)
        else:
            before = found.finalized
            found.finalized = data.draw(st.integers(before, LAST))
            if happening == "l":  # the live lane had these blocks
                for pass_ in found.wanted.every:
                    found.done(pass_, 0).update(range(before + 1, found.finalized + 1))
    pay_all(found, data, 7)

    assert found.owed() == {}


@given(books(), st.data())
def test_what_is_lost_is_left_until_it_is_asked_for_again(found, data):
    """Pruned state of one manager holds up nothing but the roots of that manager."""
    roots = [p for p in found.wanted.account if p in ROOTS]
    keys = [(pass_, cohort) for cohort in (0, *found.cohorts) for pass_ in roots]
    for key in data.draw(st.sets(st.sampled_from(keys))) if keys else ():
        found.lost[key] = data.draw(block_sets)
    lost = {key: blocks & found.owed().get(key, set()) for key, blocks in found.lost.items()}

    pay_all(found, data, 6)

    assert found.owed() == {key: blocks for key, blocks in lost.items() if blocks}
    while tasks := lost_tasks(found.ledger, found.wanted, [], 6):
        task = data.draw(st.sampled_from(tasks))
        found.begin(task, 6)
        found.end(task)
    assert found.owed() == {}


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9))))
def test_merged_stretches_hold_the_same_blocks(pairs):
    """Merging keeps every block once, in stretches that neither overlap nor touch."""
    spans = [(first, first + more) for first, more in pairs]
    merged = merge(spans)
    assert set(blocks_of(merged)) == blocks_of(spans)
    assert all(left[1] + 1 < right[0] for left, right in pairwise(merged))


@given(books())
def test_missing_blocks_counts_every_cohort(found):
    """The number shown to people is what the sets say."""
    expected = {pass_.name: 0 for pass_ in found.wanted.every}
    for (pass_, _), blocks in found.owed().items():
        expected[pass_.name] += len(blocks)

    assert missing_blocks(found.ledger, found.wanted) == expected


@given(books(), st.data())
def test_unreadable_blocks_are_those_missing_ones_that_are_lost(found, data):
    """What was lost and is covered by now, or asked for by nobody, is not counted."""
    keys = [(pass_, cohort) for cohort in (0, *found.cohorts) for pass_ in ROOTS]
    for key in data.draw(st.sets(st.sampled_from(keys))):
        found.lost[key] = data.draw(block_sets)
    expected = {pass_.name: 0 for pass_ in found.wanted.every}
    for key, blocks in found.owed().items():
        expected[key[0].name] += len(blocks & found.lost.get(key, set()))

    assert unreadable_blocks(found.ledger, found.wanted) == expected


def test_a_cohort_pays_up_to_its_adoption():
    """Above the block of adoption its accounts are watched with all others."""
    ledger = Ledger({}, 10, 30, {1: Cohort(20), 2: Cohort(35), 3: Cohort(5)})

    assert [ledger.target(cohort) for cohort in range(4)] == [(10, 30), (10, 20), (10, 30), (10, 5)]
    assert ledger.missing(BODIES, 3) == []


@pytest.mark.parametrize("finalized", [0, 9])
def test_a_start_block_that_is_not_final_yet_owes_nothing(finalized):
    """A chain that begins above finality has no debt and no task."""
    found = Books(10, finalized, wants())

    assert found.logs() is None
    assert found.state() is None
    assert set(missing_blocks(found.ledger, found.wanted).values()) == {0}


def test_logs_do_not_wait_for_the_state_behind_them():
    """Logs land fast; bodies and roots follow over what is stored."""
    found = Books(0, 9, wants(1, 2, 1))

    first, second = found.logs(5), None
    assert first == Task("factory", FACTORIES[:1], 0, 0, 4)
    found.begin(first, 5)
    second = found.logs(5)
    assert second == Task("factory", FACTORIES[:1], 0, 5, 9)
    found.begin(second, 5)
    # Tokens wait for nobody; accounts for discovery up to their block, without a hole.
    assert found.logs(5) == Task("logs", TOKENS[:1], 0, 0, 4)
    found.end(second)
    assert found.logs(5) == Task("logs", TOKENS[:1], 0, 0, 4)
    found.end(first)
    assert found.logs(5) == Task("logs", (LOGS_ACCOUNTS, *TOKENS[:1]), 0, 0, 4)
    assert found.state() is None
    found.done(LOGS_ACCOUNTS, 0).update(range(5))
    assert found.state() == Task("bodies", (BODIES,), 0, 0, 4)
    found.done(BODIES, 0).update(range(3))
    assert found.state() == Task("roots", ROOTS, 0, 0, 2)
    found.done(ROOTS[1], 0).update({0})
    assert found.state() == Task("roots", ROOTS[:1], 0, 0, 0)


def test_accounts_that_someone_asked_for_come_first():
    """Their cohort waits neither for discovery nor for the others."""
    found = Books(0, 9, wants(), cohorts={1: Cohort(4)})

    assert found.logs() == Task("logs", (LOGS_ACCOUNTS,), 1, 0, 4)


def test_accounts_learnt_late_share_one_pass_after_discovery():
    """Else each range of a factory that was added would owe a pass over the chain of its own."""
    found = Books(0, 9, wants(1, 0, 0), cohorts={1: Cohort(9, "factory")})
    found.done(LOGS_ACCOUNTS, 0).update(range(10))

    assert found.logs() == Task("factory", FACTORIES[:1], 0, 0, 9)
    found.done(FACTORIES[0], 0).update(range(10))
    assert found.logs() == Task("logs", (LOGS_ACCOUNTS,), 1, 0, 9)


def test_filters_that_owe_the_same_blocks_are_paid_together():
    """One request for many; a filter that owes less joins where it begins to owe."""
    found = Books(0, 9, wants(0, 0, 2))
    found.done(TOKENS[1], 0).update({0, 1, 2})

    assert found.logs() == Task("logs", (LOGS_ACCOUNTS, TOKENS[0]), 0, 0, 2)
    found.done(LOGS_ACCOUNTS, 0).update({0, 1, 2})
    found.done(TOKENS[0], 0).update({0, 1, 2})
    assert found.logs() == Task("logs", (LOGS_ACCOUNTS, *TOKENS), 0, 3, 9)
