"""`sessionwatch audit`: the verb, its progress bar, and its report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from indexer.cli_common import (
    MAX_BIGINT,
    config_option,
    configured_chain,
    json_option,
    opened,
    print_json,
    print_table,
    read_settings,
    report_error,
    run_async,
)
from indexer.errors import EXIT_STOPPED, RetryableError, UsageError

if TYPE_CHECKING:
    from indexer.audit import AuditReport
    from indexer.config import Settings
    from indexer.core.settings import ChainSettings

_EXIT_DIFFERENT = 1
_EXIT_INTERRUPTED = 130
_MAX_SKIPPED_SHOWN = 20
_BLOCK = click.IntRange(0, MAX_BIGINT)


@click.command(short_help="Ask the node again for what is covered, and compare.")
@config_option
@json_option
@click.option("--chain", "name", required=True, metavar="NAME", help="A configured chain.")
@click.option("--from", "first", type=_BLOCK, metavar="BLOCK", help="Default: the start block.")
@click.option("--to", "last", type=_BLOCK, metavar="BLOCK", help="Default: the finalized block.")
@click.pass_context
def audit(
    context: click.Context, name: str, first: int | None, last: int | None, as_json: bool
) -> None:
    """Ask the node again for final blocks that count as covered, and compare row by row.

    Changes nothing, and may run beside the daemon. Blocks that no pass has covered are skipped
    and named. State that the node no longer has is counted as unchecked, never as agreed.

    Ends with 0 if both agree, 1 if they do not, 75 if the node or the database stay away for 60
    seconds. Ctrl-C shows what was found so far.

    \b
    EXAMPLE
      sessionwatch audit --chain mumbai
      sessionwatch audit --chain mumbai --from 41000000 --to 41010000 --json | jq .findings
    """  # noqa: D301
    settings = read_settings(context)
    chain = configured_chain(settings, name)
    if first is not None and last is not None and first > last:
        raise UsageError(
            f"--from {first} is above --to {last}", remedy="--from is the lower block of the two"
        )
    from indexer.audit import AuditReport  # noqa: PLC0415

    report = AuditReport(name, first, last)
    code = EXIT_STOPPED
    try:
        run_async(_work(settings, chain, report))
    except KeyboardInterrupt:
        code = _EXIT_INTERRUPTED
    except RetryableError as error:
        code = report_error(error)
    if report.audited_to is not None or code == _EXIT_INTERRUPTED:
        _show(report, as_json=as_json)
    context.exit(_EXIT_DIFFERENT if report.tally.differences else code)


async def _work(settings: Settings, chain: ChainSettings, report: AuditReport) -> None:
    from indexer.audit import GIVE_UP_SECONDS, patiently, run_audit  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        database = await patiently(
            lambda: stack.enter_async_context(opened(settings.database)),
            "the database",
            GIVE_UP_SECONDS,
        )
        with _progress_bar() as progress:
            await run_audit(report, database, chain, progress=progress)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr if that is a terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    columns = ("blocks", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("audit", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(report: AuditReport, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(report))
        return
    for line in _notes(report):
        click.secho(line, fg="yellow")
    columns = ["rows", "agreed", "missing", "too_much", "different", "unchecked"]
    rows = [
        [kind, *(getattr(count, name) for name in columns)]
        for kind, count in report.tally.counts.items()
    ]
    print_table(["kind", *(name.replace("_", " ") for name in columns)], rows)
    findings = report.tally.findings
    for finding in findings:
        click.echo(finding.text)
    differences = report.tally.differences
    if differences > len(findings):
        click.echo(f"… and {differences - len(findings)} more")
    click.secho(_summary(report), fg="red" if differences else None)
    if differences:
        click.secho("remedy: ", fg="green", nl=False)
        click.echo(_remedy(report))


def _notes(report: AuditReport) -> Iterator[str]:
    """Say which of the blocks that were asked for were not compared, and why."""
    if report.asked_first is not None and report.asked_first < report.first:
        yield (
            f"skipped: blocks {report.asked_first} to {report.first - 1} lie below the start block "
            f"{report.start_block}"
        )
    if report.asked_last is not None and report.asked_last > report.last:
        yield (
            f"skipped: blocks {report.last + 1} to {report.asked_last} are not final; the "
            f"finalized block is {report.finalized_block}"
        )
    for gap in report.skipped[:_MAX_SKIPPED_SHOWN]:
        of = f", cohort {gap.cohort}" if gap.cohort else ""
        yield f"skipped: {gap.pass_name} {gap.filter}{of}: {gap.first} to {gap.last} not covered"
    if len(report.skipped) > _MAX_SKIPPED_SHOWN:
        yield f"skipped: … and {len(report.skipped) - _MAX_SKIPPED_SHOWN} more stretches"


def _summary(report: AuditReport) -> str:
    until = "none" if report.audited_to is None else str(report.audited_to)
    where = f"{report.chain}, blocks {report.first} to {until}"
    if not report.finished:
        where += f" (ended early: {report.last} was asked for)"
    counts = report.tally.counts.values()
    agreed, unchecked = sum(c.agreed for c in counts), sum(c.unchecked for c in counts)
    rest = f", {unchecked} could not be checked" if unchecked else ""
    differences = report.tally.differences
    if not differences:
        return f"{where}: node and database agree on {agreed} rows{rest}"
    word = "difference" if differences == 1 else "differences"
    return f"{where}: {differences} {word}, {agreed} rows agree{rest}"


def _remedy(report: AuditReport) -> str:
    lowest = min(finding.block_number for finding in report.tally.findings)
    remedy = (
        "ask another endpoint first, it may be the node that is wrong; if it is the database, "
        f"`sessionwatch rewind --chain {report.chain} --below-finality --to {max(lowest - 1, 0)}` "
        "has the blocks above indexed again"
    )
    counts = report.tally.counts
    if counts["root_observation"].different or counts["account_observation"].different:
        # Evidence outlives a rewind, and what is there is not read again.
        remedy += "; delete the observations named above from schema evidence before"
    return remedy


def _as_json(report: AuditReport) -> dict[str, Any]:
    plain = asdict(report)
    tally = plain.pop("tally")
    differences = report.tally.differences
    return {
        **plain,
        "differences": differences,
        **tally,
        "notes": list(_notes(report)),
        "remedy": _remedy(report) if differences else None,
    }
