"""The status page: one HTML document without scripts or anything from elsewhere. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from indexer.core.lane_text import left, percent_text, shown_lanes, summary

REFRESH_SECONDS = 15

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #57606a; --line: #d0d7de;
  --back: #ffffff; --bad: #b3261e; --good: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --quiet: #9aa4af;
  --line: #3d444d; --back: #0d1117; --bad: #ff8a80; --good: #56d364; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; color: var(--text);
  background: var(--back); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; }
h2 { margin: 2.5rem 0 0; font-size: 1.25rem; }
p { margin: .25rem 0; }
a { color: inherit; }
.quiet { color: var(--quiet); }
.bad { color: var(--bad); font-weight: 600; }
.good { color: var(--good); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin-top: 1.25rem; width: 100%; }
caption { text-align: left; font-weight: 600; padding-bottom: .25rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
  border-top: 1px solid var(--line); }
thead th { font-weight: 400; color: var(--quiet); white-space: nowrap; }
tbody th { font-weight: 400; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; white-space: nowrap; }
th.wrap { overflow-wrap: anywhere; }
table.narrow { width: auto; min-width: min(100%, 30rem); }
td.left { min-width: 9rem; }
progress { width: clamp(3rem, 12vw, 8rem); height: .75rem; vertical-align: middle;
  accent-color: var(--good); }
code { font: .875em ui-monospace, monospace; }
td { unicode-bidi: isolate; overflow-wrap: anywhere; }
td.tight { overflow-wrap: normal; white-space: nowrap; }
"""

# The page may show its own style and nothing else: text that slipped through could not run.
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

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
) -> str:
    """Render the page from `store.status.read_status` and `Health.reasons`.

    Every value is escaped. With `status` None only readiness and `problem` (one sentence)
    are shown.
    """
    state = "not ready" if reasons else "ready"
    parts = [
        f"<h1>Sessionwatch <span class={'bad' if reasons else 'good'}>{state}</span></h1>",
        (
            f"<p class=quiet>Version {escape(version)}, running for"
            f" {_duration(uptime_seconds)}. This page renews itself every {REFRESH_SECONDS}"
            " seconds. <a href=/status>The same as JSON</a>, <a href=/metrics>metrics</a>.</p>"
        ),
    ]
    if problem:
        parts.append(f"<p class=bad role=alert>{escape(problem)}</p>")
    for name, sentences in reasons.items():
        where = f"{escape(name)}: " if name else ""
        parts += [f"<p class=bad>{where}{escape(sentence)}</p>" for sentence in sentences]
    if status is not None:
        chains = status["chains"]
        if not chains:
            parts.append("<p>No chain has been followed yet.</p>")
        parts += [_chain(chain) for chain in chains]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<meta http-equiv=refresh content={REFRESH_SECONDS}>"
        f"<title>Sessionwatch: {state}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _chain(chain: Mapping[str, Any]) -> str:
    violation = chain["finality_violation"]
    return "".join(
        [
            (
                f"<section><h2>{escape(str(chain['chain']))}"
                f" <span class=quiet>chain {escape(str(chain['chain_id']))}</span></h2>"
            ),
            f"<p class=bad>Finality violation: {escape(violation)}</p>" if violation else "",
            _FINISHED if chain["progress"]["finished"] else "",
            _progress(chain["progress"], chain["coverage_missing_blocks"]),
            _lanes(chain),
            _verdicts(chain["verdicts"]),
            _drifts(chain["newest_drifts"], chain["verdicts"]["drifted"]),
            _reorgs(chain["reorgs"]),
            "</section>",
        ]
    )


def _progress(progress: Mapping[str, Any], missing_blocks: Mapping[str, int]) -> str:
    rows = [
        ("Latest block of the node", _number(progress["latest_block"])),
        ("Indexed block", _number(progress["indexed_block"])),
        ("Finalized block", _number(progress["finalized_block"])),
        ("Behind, blocks", _number(progress["lag_blocks"])),
        ("Behind, seconds", _number(progress["lag_seconds"])),
    ]
    rows += [
        (f"History still to read, blocks (pass <code>{escape(name)}</code>)", _number(blocks))
        for name, blocks in missing_blocks.items()
    ]
    body = [f"<tr><th scope=row class=wrap>{head}</th>{cell}</tr>" for head, cell in rows]
    return _table("Progress", [("What", ""), ("Value", "number")], body, kind="narrow")


def _lanes(chain: Mapping[str, Any]) -> str:
    """One bar per lane; `progress` needs neither a script nor a style of its own."""
    said = summary(chain)
    words = f"<p>{escape(said[0].upper() + said[1:])}.</p>" if said else ""
    body = [
        f"<tr><th scope=row>{escape(name)}</th>"
        f"<td class=tight><progress max=100 value={float(lane['percent']):.1f}"
        f" aria-label='{escape(name)}'></progress> {percent_text(lane['percent'])}</td>"
        f"<td class=left>{escape(left(lane))}</td></tr>"
        for name, lane in shown_lanes(chain["lanes"])
    ]
    if not body:
        return words
    return _table("Lanes", [("Lane", ""), ("Done", ""), ("Left", "")], body) + words


def _verdicts(counts: Mapping[str, int]) -> str:
    body = [
        f"<tr><th scope=row>{escape(verdict)}</th>{_number(count)}"
        f"<td>{_VERDICT_MEANING.get(verdict, '')}</td></tr>"
        for verdict, count in counts.items()
    ]
    columns = [("Verdict", ""), ("Accounts", "number"), ("Meaning", "")]
    return _table("Verdicts", columns, body, kind="narrow")


def _drifts(drifts: Sequence[Mapping[str, Any]], total: int) -> str:
    if not drifts:
        return "<p class=quiet>No account has drifted.</p>"
    body = [
        f"<tr><th scope=row><code>{_text(drift['account'])}</code></th>"
        f"<td class=tight>{_text(drift['cause'])}</td>"
        f"<td class=tight>{_time(drift['since_time'])}<br><span class=quiet>"
        f"block {_text(drift['since_block'])}{'' if drift['is_final'] else ', not final'}"
        "</span></td>"
        f"<td>{_text(drift['explanation'])}</td></tr>"
        for drift in drifts
    ]
    caption = f"Drifted accounts, newest {len(drifts)} of {total}"
    columns = [("Account", ""), ("Cause", ""), ("Since", ""), ("Explanation", "")]
    return _table(caption, columns, body)


def _reorgs(reorgs: Sequence[Mapping[str, Any]]) -> str:
    if not reorgs:
        return "<p class=quiet>No reorg has been seen.</p>"
    body = [
        f"<tr><td>{_time(reorg['detected_at'])}</td>{_number(reorg['depth'])}"
        f"{_number(reorg['common_ancestor'])}<td>{_text(reorg['reason'])}</td></tr>"
        for reorg in reorgs
    ]
    columns = [
        ("Detected", ""),
        ("Depth, blocks", "number"),
        ("Common ancestor", "number"),
        ("Reason", ""),
    ]
    return _table("Reorgs, newest first", columns, body)


def _table(
    caption: str, columns: Iterable[tuple[str, str]], body: Iterable[str], kind: str = "wide"
) -> str:
    """`caption` and `columns` are our own words; `body` holds rows already escaped."""
    head = "".join(
        f"<th scope=col class={align}>{name}</th>" if align else f"<th scope=col>{name}</th>"
        for name, align in columns
    )
    return (
        # focusable, so that a wide table can be scrolled with the keyboard
        f"<div class=scroll role=region aria-label='{caption}' tabindex=0>"
        f"<table class={kind}><caption>{caption}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _text(value: object) -> str:
    return "unknown" if value is None else escape(str(value))


def _number(value: float | None) -> str:
    if value is None:
        return "<td class=number>unknown</td>"
    # no separators: a block number is copied into a query as it stands
    text = f"{value:.1f}" if value % 1 else f"{value:.0f}"
    return f"<td class=number>{text}</td>"


def _time(value: object) -> str:
    """An ISO 8601 text in UTC, to the second; anything else as it stands."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return _text(value)
    return f"<time datetime='{moment.isoformat()}'>{moment:%Y-%m-%d %H:%M:%S} UTC</time>"


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "0 s"
