"""Lists of drifted accounts: on the front page, and by chain, cause and severity. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from indexer.store.drift_list import DriftList
from indexer.web.markup import (
    account_link,
    anchor,
    badge,
    document,
    moment,
    search_form,
    severity_class,
    text,
)
from indexer.web.question import Question, link

Drift = Mapping[str, Any]


def drift_items(drifts: Iterable[Drift], chain_of: Callable[[Drift], str | None]) -> str:
    """Rows of watch.drift as a list; `chain_of` names the chain that an account's page is about."""
    return f"<ul class=drifts>{''.join(_item(drift, chain_of(drift)) for drift in drifts)}</ul>"


def _item(drift: Drift, chain: str | None) -> str:
    severity = str(drift["severity"])
    block = "" if drift["since_block"] is None else f"block {text(drift['since_block'])}, "
    return (
        f"<li class='{escape(severity)}'>"
        f"<p>{badge(severity, severity_class(severity))} <strong>{text(drift['cause'])}</strong>"
        f" <span class=quiet>since {block}{moment(drift['since_time'])}"
        f"{'' if drift['is_final'] else ', not final'}</span></p>"
        f"{account_link(drift['account'], chain)}<p>{text(drift['explanation'])}</p></li>"
    )


def render_drifts(found: DriftList, question: Question) -> str:
    """Render the drifts that were asked for, with links to narrow or widen the question."""
    names = {row["chain_id"]: str(row["chain"]) for row in found.chains}
    total = sum(
        row["accounts"]
        for row in found.counts
        if question.cause in {None, row["cause"]} and question.severity in {None, row["severity"]}
    )
    shown = len(found.drifts)
    many = f"newest {shown} of {total}" if total > shown else str(total)
    title = f"Drifted accounts: {many}"
    main = (
        f"<p><a href=/>All chains</a></p><h1>{escape(title)}</h1>"
        f"{_filters(found, question, list(names.values()))}"
        + (
            drift_items(found.drifts, lambda drift: names.get(drift["chain_id"]))
            if shown
            else "<p>No account has drifted in this way.</p>"
        )
        + (
            "<p class=quiet>The others stand in <code>watch.drift</code>.</p>"
            if total > shown
            else ""
        )
    )
    return document(title, main, search_form(names.values(), chain=question.chain))


def _filters(found: DriftList, question: Question, chains: Sequence[str]) -> str:
    asked = {"chain": question.chain, "cause": question.cause, "severity": question.severity}
    parts = [_chips("chain", dict.fromkeys(chains), asked)] if len(chains) > 1 else []
    for key, other in (("severity", "cause"), ("cause", "severity")):
        counts: dict[str, int | None] = {}
        for row in found.counts:
            if asked[other] in {None, row[other]}:
                counts[row[key]] = (counts.get(row[key]) or 0) + row["accounts"]
        parts.append(_chips(key, counts, asked))
    return "".join(parts)


def _chips(key: str, values: Mapping[str, int | None], asked: Mapping[str, str | None]) -> str:
    """Links that set one part of the question, the first to leave it open."""
    every = anchor(link(**{**asked, key: None}), f"every {key}", current=asked[key] is None)
    links = [every] if any(value for name, value in asked.items() if name != key) else []
    links += [
        anchor(
            link(**{**asked, key: value}),
            escape(value) + ("" if count is None else f" <strong>{count}</strong>"),
            current=asked[key] == value,
        )
        for value, count in values.items()
    ]
    items = "".join(f"<li>{one}</li>" for one in links)
    return f"<ul class=chips aria-label='By {key}'>{items}</ul>"
