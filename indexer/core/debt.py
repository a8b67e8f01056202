"""What the history lane does next: coverage subtracted from what the configuration asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from indexer.core.passes import (
    BODIES,
    BY_ACCOUNT,
    LOGS_ACCOUNTS,
    TOUCHING,
    Pass,
    account_passes,
    erc1155_passes,
    factory_passes,
)
from indexer.core.settings import ChainSettings

Span = tuple[int, int]
"""First and last block, both included."""

CohortSource = Literal["stored", "list", "factory", "tainted", "token"]
"""Why a group of accounts owes a past of its own.

stored, list: somebody asked for them. factory: a factory was added to a chain whose accounts had
been read. tainted: found to have been able to change roots without a log, so what was read above
is read again. token: created after the transfers before their creation had been passed over.
"""


def subtract(target: Span, covered: Iterable[Span]) -> list[Span]:
    """Return the stretches of `target` outside `covered` (ascending, not overlapping)."""
    missing: list[Span] = []
    first, last = target
    for start, end in covered:
        if end < first:
            continue
        if start > last:
            break
        if start > first:
            missing.append((first, start - 1))
        first = max(first, end + 1)
    if first <= last:
        missing.append((first, last))
    return missing


def without(spans: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """Return the stretches of `spans` (ascending) outside `taken` (in any order)."""
    gone = merge(taken)
    return [rest for span in spans for rest in subtract(span, gone)]


def merge(spans: Iterable[Span]) -> list[Span]:
    """Return the same blocks as ascending stretches that neither overlap nor touch."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def intersect(left: Iterable[Span], right: Sequence[Span]) -> list[Span]:
    """Return the stretches that both lists hold."""
    return [(max(a, c), min(b, d)) for a, b in left for c, d in right if max(a, c) <= min(b, d)]


def blocks_in(spans: Iterable[Span]) -> int:
    """Count the blocks of stretches that do not overlap."""
    return sum(last - first + 1 for first, last in spans)


@dataclass(frozen=True, slots=True)
class Task:
    """One range of one kind of work, for one cohort; `passes` are paid together."""

    kind: Literal["factory", "logs", "bodies", "roots"]
    passes: tuple[Pass, ...]
    cohort: int
    first: int
    last: int

    @property
    def span(self) -> Span:
        """First and last block."""
        return self.first, self.last


@dataclass(frozen=True, slots=True)
class Cohort:
    """Accounts with a debt of their own, up to the block at which they were adopted."""

    adopted_block: int
    source: CohortSource = "stored"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The passes that the configuration asks for."""

    factory: tuple[Pass, ...]
    account: tuple[Pass, ...]
    erc1155: tuple[Pass, ...]

    @classmethod
    def of(cls, settings: ChainSettings) -> Wanted:
        """Return what these settings ask for."""
        return cls(
            tuple(factory_passes(settings)),
            tuple(account_passes(settings)),
            tuple(erc1155_passes(settings)),
        )

    @property
    def every(self) -> tuple[Pass, ...]:
        """Every pass of cohort 0, discovery first."""
        return (*self.factory, *self.account, *self.erc1155)

    def of_cohort(self, source: CohortSource) -> tuple[Pass, ...]:
        """Return the passes that a cohort other than 0 has."""
        tokens = tuple(p for p in self.erc1155 if p.filter in BY_ACCOUNT)
        if source == "token":
            return tokens
        return self.account if source == "tainted" else (*self.account, *tokens)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Coverage and targets of one chain. `covered` and `lost` are keyed by (pass, cohort).

    `lost` are stretches whose state no node had when it was last asked for; they stay missing.
    """

    covered: Mapping[tuple[Pass, int], tuple[Span, ...]]
    start_block: int
    finalized_number: int
    cohorts: Mapping[int, Cohort]
    """All but cohort 0."""
    lost: Mapping[tuple[Pass, int], tuple[Span, ...]] = field(default_factory=dict)

    def target(self, cohort: int) -> Span:
        """Return the blocks that the history lane owes for a cohort."""
        last = self.finalized_number
        if cohort:
            last = min(last, self.cohorts[cohort].adopted_block)
        return self.start_block, last

    def missing(self, wanted: Pass, cohort: int) -> list[Span]:
        """Return what this pass has not covered of its target."""
        return subtract(self.target(cohort), self.covered.get((wanted, cohort), ()))

    def debts(self, wanted: Wanted) -> Iterator[tuple[Pass, int, list[Span]]]:
        """Yield what each pass owes for each cohort, also where that is nothing."""
        for pass_ in wanted.every:
            yield pass_, 0, self.missing(pass_, 0)
        for number, cohort in self.cohorts.items():
            for pass_ in wanted.of_cohort(cohort.source):
                yield pass_, number, self.missing(pass_, number)

    def discovered(self, factory: Sequence[Pass]) -> int:
        """Return up to which block every account is known; start_block - 1: none is."""
        last = self.finalized_number
        for pass_ in factory:
            missing = self.missing(pass_, 0)
            if missing:
                last = min(last, missing[0][0] - 1)
        return last


def missing_blocks(ledger: Ledger, wanted: Wanted) -> dict[str, int]:
    """Count the blocks that each pass owes, over all its filters and cohorts, by pass name."""
    owed = {pass_.name: 0 for pass_ in wanted.every}
    for pass_, _, spans in ledger.debts(wanted):
        owed[pass_.name] += blocks_in(spans)
    return owed


def unreadable_blocks(ledger: Ledger, wanted: Wanted) -> dict[str, int]:
    """Count those of the missing blocks whose state is lost, in the same way."""
    gone = {pass_.name: 0 for pass_ in wanted.every}
    for pass_, cohort, spans in ledger.debts(wanted):
        gone[pass_.name] += blocks_in(intersect(spans, merge(ledger.lost.get((pass_, cohort), ()))))
    return gone


def next_logs(ledger: Ledger, wanted: Wanted, busy: Iterable[Task], max_blocks: int) -> Task | None:
    """Return the next range of logs to pay beside those in flight; None: nothing can be begun.

    Accounts that somebody asked for come first, then discovery, which the live lane waits for;
    then all other accounts, up to where discovery has come without a hole, together with tokens.
    Accounts learnt late are collected while discovery lasts, and share one pass afterwards.
    """
    reserved = _reserved(busy)

    def open_spans(pass_: Pass, cohort: int, last: int | None = None) -> list[Span]:
        missing = ledger.missing(pass_, cohort)
        if last is not None:
            missing = intersect(missing, [(0, last)])
        return without(missing, reserved.get((pass_, cohort), ()))

    def of_cohort(number: int) -> Task | None:
        passes = [p for p in wanted.of_cohort(ledger.cohorts[number].source) if p.name == "logs"]
        return _together("logs", number, {p: open_spans(p, number) for p in passes}, max_blocks)

    late = [n for n, c in ledger.cohorts.items() if c.source in {"factory", "token"}]
    for number in sorted(set(ledger.cohorts) - set(late)):
        if (task := of_cohort(number)) is not None:
            return task
    discovery = {p: open_spans(p, 0) for p in wanted.factory}
    if (task := _together("factory", 0, discovery, max_blocks)) is not None:
        return task
    known = ledger.discovered(wanted.factory)
    complete = known >= ledger.finalized_number
    owed: dict[Pass, list[Span]] = {LOGS_ACCOUNTS: open_spans(LOGS_ACCOUNTS, 0, known)}
    for pass_ in wanted.erc1155:
        # A transfer may come long before its account: all have to be known.
        if pass_ != TOUCHING or complete:
            owed[pass_] = open_spans(pass_, 0)
    if (task := _together("logs", 0, owed, max_blocks)) is not None:
        return task
    for number in sorted(late) if complete else ():
        if (task := of_cohort(number)) is not None:
            return task
    return None


def next_state(
    ledger: Ledger, wanted: Wanted, busy: Iterable[Task], max_blocks: int
) -> Task | None:
    """Return the next range of bodies or roots whose triggers are stored; None: none can begin.

    Roots before bodies: what has begun is finished first. Bodies wait for logs, roots for bodies,
    whose hints name who changed them. What is lost is left to `lost_tasks`.
    """
    reserved = _reserved(busy)
    roots = _roots_of(wanted)

    def ready(pass_: Pass, number: int) -> list[Span]:
        gone = [*reserved.get((pass_, number), ()), *ledger.lost.get((pass_, number), ())]
        return without(_readable(ledger, pass_, number), gone)

    for number in _by_account(ledger):
        # Of all managers at once where they owe the same: an account's own slots are read for each.
        task = _together("roots", number, {p: ready(p, number) for p in roots}, max_blocks)
        task = task or _together("bodies", number, {BODIES: ready(BODIES, number)}, max_blocks)
        if task is not None:
            return task
    return None


def lost_tasks(ledger: Ledger, wanted: Wanted, busy: Iterable[Task], max_blocks: int) -> list[Task]:
    """Return a range of each stretch whose state was lost, the newest first.

    Nodes that prune keep what is new, so each range is the end of its stretch.
    """
    reserved = _reserved(busy)
    found: dict[tuple[int, Span], list[Pass]] = {}
    for number in _by_account(ledger):
        for pass_ in _roots_of(wanted):
            lost = ledger.lost.get((pass_, number), ())
            owed = intersect(_readable(ledger, pass_, number), lost)
            for first, last in without(owed, reserved.get((pass_, number), ())):
                span = (max(first, last - max_blocks + 1), last)
                found.setdefault((number, span), []).append(pass_)
    newest_first = sorted(found, key=lambda place: place[1][1], reverse=True)
    return [
        Task("roots", tuple(found[number, span]), number, *span) for number, span in newest_first
    ]


def _roots_of(wanted: Wanted) -> list[Pass]:
    return [p for p in wanted.account if p not in {LOGS_ACCOUNTS, BODIES}]


def _by_account(ledger: Ledger) -> list[int]:
    """Return the cohorts whose accounts' triggers are stored, those somebody asked for first."""
    return [*(n for n, c in sorted(ledger.cohorts.items()) if c.source != "token"), 0]


def _readable(ledger: Ledger, pass_: Pass, number: int) -> list[Span]:
    """Return what bodies or roots owe where what they rest on is stored."""
    before = LOGS_ACCOUNTS if pass_ == BODIES else BODIES
    return intersect(ledger.missing(pass_, number), ledger.covered.get((before, number), ()))


def _reserved(busy: Iterable[Task]) -> dict[tuple[Pass, int], list[Span]]:
    """Return the blocks in flight, by pass and cohort."""
    reserved: dict[tuple[Pass, int], list[Span]] = {}
    for task in busy:
        for pass_ in task.passes:
            reserved.setdefault((pass_, task.cohort), []).append(task.span)
    return reserved


def _together(
    kind: Literal["factory", "logs", "bodies", "roots"],
    cohort: int,
    owed: Mapping[Pass, Sequence[Span]],
    max_blocks: int,
) -> Task | None:
    """Return the passes that all owe the lowest missing block, as far as they owe alike."""
    firsts = {pass_: spans[0] for pass_, spans in owed.items() if spans}
    if not firsts:
        return None
    first = min(span[0] for span in firsts.values())
    chosen = tuple(p for p, span in firsts.items() if span[0] == first)
    last = min(firsts[p][1] for p in chosen)
    later = [span[0] for p, span in firsts.items() if p not in chosen]
    last = min([last, first + max_blocks - 1, *(start - 1 for start in later)])
    return Task(kind, chosen, cohort, first, last)
