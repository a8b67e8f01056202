"""The front page: state of each chain, what is wrong first. Without scripts; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from indexer.core.estimate import PACE_LASTS_SECONDS, duration_text
from indexer.core.lane_text import counted as count_of
from indexer.core.lane_text import left, percent_text, shown_lanes, summary
from indexer.web.drift_page import drift_items
from indexer.web.markup import (
    Column,
    anchor,
    badge,
    document,
    duration,
    moment,
    number,
    pairs,
    search_form,
    severity_class,
    table,
    text,
)
from indexer.web.question import link

REFRESH_SECONDS = 15
FRONT_DRIFTS = 10
"""Newest drifted accounts shown of each chain; the others are one link away."""

_FINISHED = (
    "<p class=good>Finished: the chain's configured last block is indexed and final. "
    "Verdicts go on.</p>"
)
_VERDICT_MEANING = {
    "in_sync": "the chain has the expected set",
    "pending": "the expected set has not landed yet, within its grace",
    "drifted": "flagged: the stored sets no longer match the chain",
    "unmanaged": "a root on chain, nothing stored",
    "empty": "no root on chain, nothing stored",
    "unknown": "the state could not be read",
}


def render_page(
    status: Mapping[str, Any] | None,
    reasons: Mapping[str, Sequence[str]],
    *,
    uptime_seconds: float,
    version: str,
    problem: str = "",
    max_lag_seconds: Mapping[str, float] | None = None,
    renews: bool = True,
) -> str:
    """Render the page from `store.status.read_status` and `Health.reasons`.

    With `status` None only readiness and `problem` (one sentence) are shown. `max_lag_seconds` is
    by chain name how far behind a chain may be and still be ready.
    """
    chains: Sequence[Mapping[str, Any]] = status["chains"] if status is not None else []
    headline = _headline(reasons, chains, known=status is not None)
    limits = max_lag_seconds or {}
    parts = [_trouble(headline, reasons, chains, problem)]
    if status is not None and not chains:
        parts.append("<p>No chain has been followed yet.</p>")
    parts += [_chain(chain, limits.get(chain["chain"])) for chain in chains]
    parts.append(_about(version, uptime_seconds, renews=renews))
    return document(
        f"Sessionwatch: {headline}",
        "".join(parts),
        search_form(str(chain["chain"]) for chain in chains),
        refresh=f"<meta http-equiv=refresh content={REFRESH_SECONDS}>" if renews else "",
    )


def _about(version: str, uptime_seconds: float, *, renews: bool) -> str:
    renewing, other = (
        (f"This page renews itself every {REFRESH_SECONDS} seconds.", ("off", "Stop renewing"))
        if renews
        else ("This page stands still.", (None, "Renew it"))
    )
    return (
        f"<footer class=quiet><p>Version {escape(version)}, running for {duration(uptime_seconds)}."
        f" {renewing}</p><p>{anchor(link(renew=other[0]), other[1])},"
        " <a href=/status>the same as JSON</a>, <a href=/metrics>metrics</a></p></footer>"
    )


def _headline(
    reasons: Mapping[str, Sequence[str]], chains: Sequence[Mapping[str, Any]], *, known: bool
) -> str:
    drifted = sum(chain["verdicts"]["drifted"] for chain in chains)
    state = "not ready" if reasons else "ready"
    if drifted:
        return f"{state}, {_accounts(drifted)} drifted"
    return f"{state}, no account has drifted" if known and chains and not reasons else state


def _accounts(count: int) -> str:
    return count_of(count, "account")


def _trouble(
    headline: str,
    reasons: Mapping[str, Sequence[str]],
    chains: Sequence[Mapping[str, Any]],
    problem: str,
) -> str:
    """What is wrong, the worst first; a panel of its own, so that it is seen without reading."""
    lines = [f"<p class=bad role=alert>{escape(problem)}</p>"] if problem else []
    for name, sentences in reasons.items():
        where = f"{escape(name)}: " if name else ""
        lines += [f"<p class=bad>{where}{escape(sentence)}</p>" for sentence in sentences]
    is_bad = bool(lines)
    for chain in chains:
        name = escape(str(chain["chain"]))
        if violation := chain["finality_violation"]:
            lines.append(f"<p class=bad>{name}: Finality violation: {escape(violation)}</p>")
            is_bad = True
        silent = chain["progress"]["updated_seconds_ago"]
        if silent is not None and silent > PACE_LASTS_SECONDS and not chain["progress"]["finished"]:
            lines.append(
                f"<p class=warn>{name}: no daemon has written for {duration_text(silent)}.</p>"
            )
        if found := chain.get("audit_findings_last_day"):
            lines.append(
                f"<p class=warn>{name}: {count_of(found, 'finding')} of audits within a day,"
                " see <code>watch.audit_finding</code>.</p>"
            )
    chips = _severity_chips(chains)
    is_bad = is_bad or "class=bad" in chips
    kind = "alarm" if is_bad else "caution" if lines or chips else "calm"
    title = escape(headline[0].upper() + headline[1:])
    return f"<div class='panel {kind}'><h1>{title}</h1>{''.join(lines)}{chips}</div>"


def _severity_chips(chains: Sequence[Mapping[str, Any]]) -> str:
    """How many accounts have drifted by severity, each leading to its list."""
    counts: dict[str, int] = {}
    for chain in chains:
        for severity, accounts in chain["drifted_by_severity"].items():
            counts[severity] = counts.get(severity, 0) + accounts
    if not counts:
        return ""
    links = "".join(
        "<li>"
        + anchor(
            link(severity=severity),
            f"<span class={severity_class(severity)}>{accounts} {escape(severity)}</span>",
        )
        + "</li>"
        for severity, accounts in sorted(counts.items())
    )
    return f"<ul class=chips aria-label='Drifted accounts by severity'>{links}</ul>"


def _chain(chain: Mapping[str, Any], max_lag_seconds: float | None) -> str:
    progress = chain["progress"]
    name = str(chain["chain"])
    written = progress["updated_seconds_ago"]
    facts = [
        ("Indexed", number(progress["indexed_block"])),
        ("Node's latest", number(progress["latest_block"])),
        ("Finalized", number(progress["finalized_block"])),
        ("Last written", "unknown" if written is None else f"{duration_text(written)} ago"),
    ]
    return "".join(
        [
            "<section class=panel>",
            (
                f"<h2>{escape(name)} <span class=quiet>chain {text(chain['chain_id'])}</span>"
                f" {badge('finished', 'good') if progress['finished'] else ''}</h2>"
            ),
            _FINISHED if progress["finished"] else "",
            pairs("facts", facts),
            _drifts(chain, name),
            _bars(chain, max_lag_seconds),
            _verdicts(chain["verdicts"]),
            _reorgs(chain["reorgs"]),
            "</section>",
        ]
    )


def _drifts(chain: Mapping[str, Any], name: str) -> str:
    drifts = chain["newest_drifts"]
    if not drifts:
        return "<h3>Drifted accounts</h3><p>No account has drifted.</p>"
    total = chain["verdicts"]["drifted"]
    shown = drifts[:FRONT_DRIFTS]
    causes = "".join(
        "<li>"
        + anchor(link(chain=name, cause=cause), f"{escape(cause)} <strong>{count}</strong>")
        + "</li>"
        for cause, count in chain["drifted_by_cause"].items()
    )
    everything = anchor(link(chain=name), f"all {total} drifted accounts")
    more = f"<p>{everything}</p>" if total > len(shown) else ""
    return (
        f"<h3>Drifted accounts, newest {len(shown)} of {total}</h3>"
        f"<ul class=chips aria-label='Drifted accounts by cause'>{causes}</ul>"
        f"{drift_items(shown, lambda _: name)}{more}"
    )


def _bars(chain: Mapping[str, Any], max_lag_seconds: float | None) -> str:
    """One bar per lane; `progress` and `meter` need neither a script nor a style of their own."""
    is_followed = chain["progress"]["indexed_block"] is not None
    rows = [_lag(chain["progress"], max_lag_seconds)] if is_followed else []
    rows += [
        f"<li><span>{escape(name)}</span>"
        f"<progress max=100 value={float(lane['percent']):.1f} aria-label='{escape(name)}'>"
        f"</progress><span class=words>{percent_text(lane['percent'])},"
        f" {escape(left(lane))}</span></li>"
        for name, lane in shown_lanes(chain["lanes"])
    ]
    said = summary(chain)
    words = f"<p>{escape(said[0].upper() + said[1:])}.</p>" if said else ""
    bars = f"<ul class=bars>{''.join(rows)}</ul>" if rows else "<p>Not followed yet.</p>"
    return f"<h3>Lag and coverage</h3>{bars}{words}"


def _lag(progress: Mapping[str, Any], max_lag_seconds: float | None) -> str:
    """How far behind, as a part of what is allowed."""
    lag = progress["lag_seconds"]
    if progress["finished"] or lag is None:
        return ""
    behind = f"{number(lag)} s behind"
    if progress["lag_blocks"]:
        behind += f", {count_of(progress['lag_blocks'], 'block')}"
    if max_lag_seconds is None:
        return f"<li><span>lag</span><span></span><span class=words>{behind}</span></li>"
    kind = " bad" if lag > max_lag_seconds else ""
    return (
        f"<li><span>lag</span><meter min=0 max={max_lag_seconds:g} low={max_lag_seconds / 2:g}"
        f" high={max_lag_seconds * 0.999:g} optimum=0 value={float(lag):g} aria-label=lag></meter>"
        f"<span class='words{kind}'>{behind}; ready up to {max_lag_seconds:g} s</span></li>"
    )


def _verdicts(counts: Mapping[str, int]) -> str:
    rows = [
        (escape(verdict), number(count), _VERDICT_MEANING.get(verdict, ""))
        for verdict, count in counts.items()
    ]
    columns = [Column("Verdict", "tight"), Column("Accounts", "number"), Column("Meaning")]
    return "<h3>Verdicts</h3>" + table("Accounts by verdict", columns, rows, "narrow")


def _reorgs(reorgs: Sequence[Mapping[str, Any]]) -> str:
    if not reorgs:
        return "<h3>Reorgs</h3><p>No reorg has been seen.</p>"
    rows = [
        (
            moment(reorg["detected_at"]),
            number(reorg["depth"]),
            number(reorg["common_ancestor"]),
            text(reorg["reason"]),
        )
        for reorg in reorgs
    ]
    columns = [
        Column("Detected", "tight"),
        Column("Depth, blocks", "number"),
        Column("Common ancestor", "number"),
        Column("Reason"),
    ]
    return "<h3>Reorgs</h3>" + table("Newest first", columns, rows)
