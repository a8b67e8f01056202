"""What a PromQL expression names, and whether the daemon has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import promql_parser
from prometheus_client import Counter, Gauge, Histogram

from indexer import metrics

TARGET_LABELS = frozenset({"job", "instance"})
"""What Prometheus puts on each series that it scrapes."""

# What Prometheus itself adds to each scrape, and keeps of each alert.
_OF_PROMETHEUS: Mapping[str, frozenset[str]] = {
    "up": frozenset(),
    "scrape_duration_seconds": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "chain"}),
}


@dataclass(frozen=True, slots=True)
class Selected:
    """One series that an expression selects, and the labels that it is selected by."""

    name: str
    labels: frozenset[str]


def series(expression: str) -> set[Selected]:
    """Return every series named in an expression. Raises ValueError where it is no PromQL."""
    return {
        Selected(selector.name or "", frozenset(one.name for one in selector.matchers.matchers))
        for selector in _parts(expression)
        if isinstance(selector, promql_parser.VectorSelector)
    }


def grouping_labels(expression: str) -> set[str]:
    """Return every label named by `by`, `without`, `on`, `ignoring` and `group_left`."""
    found: set[str] = set()
    for part in _parts(expression):
        if not isinstance(part, promql_parser.AggregateExpr | promql_parser.BinaryExpr):
            continue
        if part.modifier is None:
            continue
        if isinstance(part, promql_parser.AggregateExpr):
            found.update(part.modifier.labels)
            continue
        if part.modifier.matching is not None:
            found.update(part.modifier.matching.labels)
        found.update(part.modifier.group_labels or ())
    return found


def registered() -> dict[str, frozenset[str]]:
    """Return every series that /metrics can show, with its labels; those of `_bucket` hold `le`."""
    found = dict(_OF_PROMETHEUS)
    for metric in vars(metrics).values():
        if not isinstance(metric, Gauge | Counter | Histogram):
            continue
        name, labels = metric._name, frozenset(metric._labelnames)
        if isinstance(metric, Histogram):
            found |= {f"{name}_sum": labels, f"{name}_count": labels}
            found[f"{name}_bucket"] = labels | {"le"}
        else:
            found[name + ("_total" if isinstance(metric, Counter) else "")] = labels
    for family in metrics.REGISTRY.collect():
        for sample in family.samples:
            found.setdefault(sample.name, frozenset(sample.labels))
    return found


def unknown(expression: str, recorded: Mapping[str, frozenset[str]] | None = None) -> list[str]:
    """Return a sentence for each series or label of an expression that does not exist.

    `recorded` are the series that recording rules make, with their labels. A label to group by
    must be on one of the series at least.
    """
    known = registered() | dict(recorded or {})
    wrong: list[str] = []
    selected = series(expression)
    groupable: set[str] = set(TARGET_LABELS)
    for one in selected:
        if one.name not in known:
            wrong.append(f"there is no series {one.name}")
            continue
        groupable |= known[one.name]
        wrong += [
            f"{one.name} has no label {label}"
            for label in sorted(one.labels - known[one.name] - TARGET_LABELS)
        ]
    wrong += [
        f"nothing in it has the label {label}"
        for label in sorted(grouping_labels(expression) - groupable)
    ]
    return wrong


def labels_after(expression: str, recorded: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the labels that a recording rule's series can have: those of all that it selects."""
    known = registered() | dict(recorded)
    return frozenset().union(*(known[one.name] for one in series(expression)))


def _parts(expression: str) -> Iterator[promql_parser.Expr]:
    found: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expression), found.append)
    yield from found
