"""What the history lane does next: coverage subtracted from what the configuration asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from indexer.core.passes import ACCOUNTS, Pass

Span = tuple[int, int]
"""First and last block, both included."""


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


@dataclass(frozen=True, slots=True)
class Task:
    """One range of one kind of work, for one cohort; `filters` are paid together."""

    kind: Literal["factory", "logs", "bodies", "roots"]
    passes: tuple[Pass, ...]
    cohort: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """Coverage and targets of one chain. `covered` is keyed by (pass, cohort)."""

    covered: Mapping[tuple[Pass, int], tuple[Span, ...]]
    start_block: int
    finalized_number: int
    adopted: Mapping[int, int]
    """Cohort → the block at which its accounts were adopted; cohort 0 is not in it."""

    def target(self, cohort: int) -> Span:
        """Return the blocks that the history lane owes for a cohort."""
        last = self.finalized_number
        if cohort:
            last = min(last, self.adopted[cohort])
        return self.start_block, last

    def with_covered(self, pass_: Pass, cohort: int, span: Span) -> Ledger:
        """Return a ledger in which this pass counts as covered over `span`."""
        spans = merge([*self.covered.get((pass_, cohort), ()), span])
        return replace(self, covered={**self.covered, (pass_, cohort): tuple(spans)})

    def missing(self, wanted: Pass, cohort: int) -> list[Span]:
        """Return what this pass has not covered of its target."""
        return subtract(self.target(cohort), self.covered.get((wanted, cohort), ()))


def next_task(
    ledger: Ledger,
    *,
    factory: Sequence[Pass],
    account: Sequence[Pass],
    erc1155: Sequence[Pass],
    max_blocks: int,
) -> Task | None:
    """Return the next range to pay, or None if there is no debt that can be paid now.

    Accounts with a cohort of their own come first, then discovery, which the live lane waits
    for; then all other accounts, together with tokens. What has begun is finished before more
    is begun: roots, bodies, then more logs. Logs of accounts wait for discovery, bodies for
    logs, roots for bodies.
    """
    for cohort in sorted(ledger.adopted):
        owed = {account[0]: ledger.missing(account[0], cohort)}
        task = _account_task(ledger, account, cohort, owed, max_blocks)
        if task is not None:
            return task
    together = _together({p: ledger.missing(p, 0) for p in factory}, max_blocks)
    if together is not None:
        passes, first, last = together
        return Task("factory", passes, 0, first, last)
    owed = {p: ledger.missing(p, 0) for p in (account[0], *erc1155)}
    return _account_task(ledger, account, 0, owed, max_blocks)


def _account_task(
    ledger: Ledger,
    account: Sequence[Pass],
    cohort: int,
    owed: Mapping[Pass, Sequence[Span]],
    max_blocks: int,
) -> Task | None:
    """Return the next task of one cohort; `owed` is what its filters of logs miss."""
    logs, bodies, roots = account[0], account[1], account[2:]
    for pass_ in [*roots, bodies]:
        before = bodies if pass_ in roots else logs
        ready = intersect(ledger.missing(pass_, cohort), ledger.covered.get((before, cohort), ()))
        if ready:
            first, last = ready[0]
            kind: Literal["roots", "bodies"] = "roots" if pass_ in roots else "bodies"
            return Task(kind, (pass_,), cohort, first, min(last, first + max_blocks - 1))
    together = _together(owed, max_blocks)
    if together is None:
        return None
    passes, first, last = together
    return Task("logs", passes, cohort, first, last)


def missing_blocks(ledger: Ledger, passes: Iterable[Pass]) -> int:
    """Count the blocks all these passes owe, over every cohort."""
    owed = 0
    for pass_ in passes:
        cohorts = [0, *ledger.adopted] if pass_.filter == ACCOUNTS else [0]
        for cohort in cohorts:
            owed += sum(last - first + 1 for first, last in ledger.missing(pass_, cohort))
    return owed


def _together(
    owed: Mapping[Pass, Sequence[Span]], max_blocks: int
) -> tuple[tuple[Pass, ...], int, int] | None:
    """Return the passes that all owe the lowest missing block, and how far they owe alike."""
    firsts = {pass_: spans[0] for pass_, spans in owed.items() if spans}
    if not firsts:
        return None
    first = min(span[0] for span in firsts.values())
    chosen = tuple(p for p, span in firsts.items() if span[0] == first)
    last = min(firsts[p][1] for p in chosen)
    later = [span[0] for p, span in firsts.items() if p not in chosen]
    last = min([last, first + max_blocks - 1, *(start - 1 for start in later)])
    return chosen, first, last
