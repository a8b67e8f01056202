"""What `sessionwatch status` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from indexer.cli_common import print_table
from indexer.core.lane_text import left, percent_text, shown_lanes, summary

_BAR_LETTERS = 20
_VERDICTS = ["in_sync", "pending", "drifted", "unmanaged", "unknown"]


def print_status(found: Mapping[str, Any]) -> None:
    """Print one table of all chains, and below it the lanes and drifts of each."""
    rows = []
    for chain in found["chains"]:
        progress, verdicts = chain["progress"], chain["verdicts"]
        missing = sum(chain["coverage_missing_blocks"].values())
        rows.append(
            [
                f"{chain['chain']} ({chain['chain_id']})",
                *(progress[key] for key in ("latest_block", "indexed_block", "finalized_block")),
                "finished" if progress["finished"] else progress["lag_blocks"],
                missing,
                *(verdicts[key] for key in _VERDICTS),
            ]
        )
    headers = ["chain", "latest", "indexed", "finalized", "lag", "missing"]
    headers += _VERDICTS
    if not rows:
        click.echo("no chain has been indexed yet")
        return
    print_table(headers, rows)
    for chain in found["chains"]:
        _print_lanes(chain)
        if chain["finality_violation"]:
            text = f"{chain['chain']}: finality violation: {chain['finality_violation']}"
            click.secho(text, fg="red")
        if chain["audit_findings_last_day"]:
            text = f"{chain['chain']}: {chain['audit_findings_last_day']} findings of audits in the"
            click.secho(f"{text} last day: see watch.audit_finding", fg="yellow")
        for drift in chain["newest_drifts"][:10]:
            click.secho(f"{drift['severity']:>8} ", fg="yellow", nl=False)
            click.echo(f"{drift['account']} {drift['cause']}: {drift['explanation']}")


def _print_lanes(chain: Mapping[str, Any]) -> None:
    """One bar per lane; without colours it says the same."""
    shown = shown_lanes(chain["lanes"])
    said = summary(chain)
    if not shown and not said:
        return
    click.echo()
    click.secho(chain["chain"], bold=True, nl=not said)
    if said:
        click.echo(f"  {said}")
    width = max((len(name) for name, _ in shown), default=0)
    for name, lane in shown:
        percent = percent_text(lane["percent"])
        filled = int(lane["percent"] * _BAR_LETTERS / 100)
        bar = "#" * filled + "." * (_BAR_LETTERS - filled)
        click.echo(f"  {name.ljust(width)}  [{bar}] {percent:>5}  {left(lane)}")
