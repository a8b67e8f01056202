"""Debt: what the history lane owes, and that paying it in its order pays all of it, once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.debt import (
    Ledger,
    Span,
    Task,
    intersect,
    merge,
    missing_blocks,
    next_task,
    subtract,
)
from indexer.core.passes import ACCOUNTS, BODIES, LOGS_ACCOUNTS, Pass

FACTORIES = (Pass("logs", "factory/0x01"), Pass("logs", "factory/0x02"))
ROOTS = (Pass("roots/0x0a", ACCOUNTS), Pass("roots/0x0b", ACCOUNTS))
TOKENS = (Pass("logs", "erc1155/0x03"), Pass("logs", "erc1155/0x04"))
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


@dataclass
class Books:
    """What a database would say: coverage as sets of blocks, and where finality is."""

    start_block: int
    finalized: int
    factory: tuple[Pass, ...]
    roots: tuple[Pass, ...]
    erc1155: tuple[Pass, ...]
    covered: dict[tuple[Pass, int], set[int]] = field(default_factory=dict)
    adopted: dict[int, int] = field(default_factory=dict)

    @property
    def account(self) -> tuple[Pass, ...]:
        return (LOGS_ACCOUNTS, BODIES, *self.roots)

    @property
    def ledger(self) -> Ledger:
        covered = {key: spans_of(blocks) for key, blocks in self.covered.items() if blocks}
        return Ledger(covered, self.start_block, self.finalized, dict(self.adopted))

    def task(self, max_blocks: int, lost: Iterable[tuple[Pass, int]] = ()):
        ledger = self.ledger
        for pass_, cohort in lost:
            ledger = ledger.with_covered(pass_, cohort, ledger.target(cohort))
        return next_task(
            ledger,
            factory=self.factory,
            account=self.account,
            erc1155=self.erc1155,
            max_blocks=max_blocks,
        )

    def done(self, pass_: Pass, cohort: int) -> set[int]:
        return self.covered.setdefault((pass_, cohort), set())

    def owed(self) -> dict[tuple[Pass, int], set[int]]:
        """What is missing, computed by sets; keys with nothing missing are left out."""
        keys = [(pass_, 0) for pass_ in (*self.factory, *self.erc1155)]
        keys += [(pass_, cohort) for cohort in (0, *self.adopted) for pass_ in self.account]
        missing = {
            (pass_, cohort): set(
                range(self.start_block, min(self.finalized, self.adopted.get(cohort, LAST)) + 1)
            )
            - self.done(pass_, cohort)
            for pass_, cohort in keys
        }
        return {key: blocks for key, blocks in missing.items() if blocks}

    def pay(self, task: Task, max_blocks: int) -> None:
        """Check that the task may be claimed now, then cover it."""
        blocks, owed = set(range(task.first, task.last + 1)), self.owed()
        assert 1 <= len(blocks) <= max_blocks
        assert task.passes
        for pass_ in task.passes:
            assert blocks <= owed[pass_, task.cohort]
            self._check_order(pass_, task, blocks)
        for pass_ in task.passes:
            self.done(pass_, task.cohort).update(blocks)

    def _check_order(self, pass_: Pass, task: Task, blocks: set[int]) -> None:
        known_before = set(range(self.start_block, task.last + 1))
        if pass_ in self.factory:
            assert (task.kind, task.cohort) == ("factory", 0)
        elif pass_ in self.erc1155:
            assert (task.kind, task.cohort) == ("logs", 0)
        elif pass_ == LOGS_ACCOUNTS:
            assert task.kind == "logs"
            assert task.cohort or all(known_before <= self.done(f, 0) for f in self.factory)
        elif pass_ == BODIES:
            assert (task.kind, task.passes) == ("bodies", (BODIES,))
            assert blocks <= self.done(LOGS_ACCOUNTS, task.cohort)
        else:
            assert (task.kind, task.passes) == ("roots", (pass_,))
            assert blocks <= self.done(BODIES, task.cohort)


@st.composite
def books(draw: st.DrawFn) -> Books:
    start = draw(st.integers(0, 12))
    found = Books(
        start,
        draw(st.integers(0, LAST)),
        FACTORIES[: draw(st.integers(0, 2))],
        ROOTS[: draw(st.integers(0, 2))],
        TOKENS[: draw(st.integers(0, 2))],
    )
    for cohort in range(1, 1 + draw(st.integers(0, 2))):
        found.adopted[cohort] = draw(st.integers(0, LAST))
    for pass_ in (*found.factory, *found.account, *found.erc1155):
        for cohort in (0, *found.adopted):
            found.covered[pass_, cohort] = draw(block_sets)
    return found


def pay_all(found: Books, max_blocks: int) -> int:
    paid = 0
    while (task := found.task(max_blocks)) is not None:
        found.pay(task, max_blocks)
        paid += 1
    return paid


@given(books(), st.integers(1, 50))
def test_paying_task_after_task_leaves_nothing_owed(found, max_blocks):
    """From any coverage, in ranges of any size: all is paid, nothing twice, all in its order."""
    pay_all(found, max_blocks)

    assert found.owed() == {}
    assert missing_blocks(found.ledger, (*found.factory, *found.account, *found.erc1155)) == 0


@given(books(), st.data())
def test_finality_the_live_lane_and_adoptions_may_come_in_any_order(found, data):
    """Whatever happens between two payments, in the end nothing is owed and nothing paid twice."""
    for happening in data.draw(st.lists(st.sampled_from("palf"), max_size=20)):
        max_blocks = data.draw(st.integers(1, 9))
        if happening == "p" and (task := found.task(max_blocks)) is not None:
            found.pay(task, max_blocks)
        elif happening == "a":
            found.adopted[len(found.adopted) + 1] = data.draw(st.integers(0, LAST))
        else:
            before = found.finalized
            found.finalized = data.draw(st.integers(before, LAST))
            if happening == "l":  # the live lane had these blocks
                for pass_ in (*found.factory, *found.account, *found.erc1155):
                    found.done(pass_, 0).update(range(before + 1, found.finalized + 1))
    pay_all(found, 7)

    assert found.owed() == {}


@given(books(), st.data())
def test_what_is_lost_is_left_and_the_rest_is_paid(found, data):
    """Pruned state of one manager holds up nothing but the roots of that manager."""
    keys = [(pass_, cohort) for cohort in (0, *found.adopted) for pass_ in found.roots]
    lost = frozenset(data.draw(st.sets(st.sampled_from(keys)))) if keys else frozenset()

    while (task := found.task(6, lost)) is not None:
        assert not {(pass_, task.cohort) for pass_ in task.passes} & lost
        found.pay(task, 6)

    assert set(found.owed()) <= lost


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
    owed = found.owed()

    for pass_ in (*found.factory, *found.account, *found.erc1155):
        cohorts = (0, *found.adopted)
        expected = sum(len(owed.get((pass_, cohort), ())) for cohort in cohorts)
        assert missing_blocks(found.ledger, [pass_]) == expected


def test_a_cohort_pays_up_to_its_adoption():
    """Above the block of adoption its accounts are watched with all others."""
    ledger = Ledger({}, 10, 30, {1: 20, 2: 35, 3: 5})

    assert [ledger.target(cohort) for cohort in range(4)] == [(10, 30), (10, 20), (10, 30), (10, 5)]
    assert ledger.missing(BODIES, 3) == []


@pytest.mark.parametrize("finalized", [0, 9])
def test_a_start_block_that_is_not_final_yet_owes_nothing(finalized):
    """A chain that begins above finality has no debt and no task."""
    found = Books(10, finalized, FACTORIES, ROOTS, TOKENS)

    assert found.task(5) is None
    assert missing_blocks(found.ledger, found.account) == 0


def test_discovery_comes_first_and_what_has_begun_is_finished():
    """The live lane waits for discovery; then accounts and tokens share their requests."""
    found = Books(0, 9, FACTORIES[:1], ROOTS, TOKENS[:1])
    kinds = []
    while (task := found.task(10)) is not None:
        kinds.append((task.kind, task.passes))
        found.pay(task, 10)

    assert kinds == [
        ("factory", FACTORIES[:1]),
        ("logs", (LOGS_ACCOUNTS, *TOKENS[:1])),
        ("bodies", (BODIES,)),
        ("roots", ROOTS[:1]),
        ("roots", ROOTS[1:]),
    ]


def test_accounts_that_someone_asked_for_come_first():
    """A cohort waits neither for discovery nor for the others."""
    found = Books(0, 9, FACTORIES, ROOTS, TOKENS, adopted={1: 4})

    assert found.task(100) == Task("logs", (LOGS_ACCOUNTS,), 1, 0, 4)


def test_filters_that_owe_the_same_blocks_are_paid_together():
    """One request for many; a filter that owes less joins where it begins to owe."""
    found = Books(0, 9, (), (), TOKENS)
    found.done(TOKENS[1], 0).update({0, 1, 2})

    assert found.task(100) == Task("logs", (LOGS_ACCOUNTS, TOKENS[0]), 0, 0, 2)
    found.done(LOGS_ACCOUNTS, 0).update({0, 1, 2})
    found.done(TOKENS[0], 0).update({0, 1, 2})
    found.done(BODIES, 0).update({0, 1, 2})
    assert found.task(100) == Task("logs", (LOGS_ACCOUNTS, *TOKENS), 0, 3, 9)
