"""The verbs of the command line. Each imports what it needs when it runs."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.cli_audit import audit
from indexer.cli_common import (
    MAX_BIGINT,
    config_option,
    configured_chain,
    json_option,
    print_json,
    read_settings,
    report_error,
    report_usage_error,
    run_async,
    with_database,
)
from indexer.cli_explain import explain
from indexer.cli_export import export_sets
from indexer.cli_plan import plan_set
from indexer.cli_prove import prove
from indexer.cli_schema import schema
from indexer.cli_sessions import sessions
from indexer.cli_validate import validate
from indexer.errors import (
    EXIT_STOPPED,
    EXIT_TRY_AGAIN,
    EXIT_USAGE,
    RetryableError,
)

if TYPE_CHECKING:
    from indexer.store.pool import Database

_COLOURS = {"title": {"bold": True}, "warning": {"fg": "yellow"}, "error": {"fg": "red"}}


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"sessionwatch {metadata.version('sessionwatch')}")
        context.exit()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 stopped, 2 wrong usage, 70 stuck or failed unforeseen, 75 try again, "
    "78 configuration or another fatal mistake.",
)
@config_option
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Watch the session roots of Biconomy smart accounts, and flag the accounts whose stored
    session sets no longer match the chain.

    \b
    EXAMPLE
      sessionwatch demo                                  a tour, nothing to prepare
      sessionwatch --config /etc/sessionwatch/sessionwatch.toml check
      sessionwatch schema apply && sessionwatch run
    """  # noqa: D205, D301 - click's own layout
    from indexer.config import colours_wanted  # noqa: PLC0415
    from indexer.log import configure_logging  # noqa: PLC0415

    configure_logging(colours=colours_wanted())
    if not colours_wanted():
        context.color = False


@cli.command()
@config_option
@click.option("--once", is_flag=True, help="Catch up with the head seen at start, then exit 0.")
@click.pass_context
def run(context: click.Context, once: bool) -> None:
    """Follow the configured chains until SIGTERM or Ctrl-C.

    An unreachable node or database is waited for; with --once for 60 seconds, then exit 75. On a
    terminal --once shows one bar per lane.

    \b
    EXAMPLE
      sessionwatch run
      sessionwatch run --once && psql -c 'SELECT * FROM watch.drift'
    """  # noqa: D301
    # Until the daemon's own loop listens, a stop is simply the end: nothing has begun.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))
    settings = read_settings(context, daemon=True)
    from indexer.daemon import run as run_daemon  # noqa: PLC0415

    # The log must be text for people, too: bars between lines of JSON would spoil them.
    if not (once and sys.stderr.isatty() and settings.log.format != "json"):
        context.exit(run_daemon(settings, once=once))
    from rich.console import Console  # noqa: PLC0415

    from indexer.cli_progress import Bars  # noqa: PLC0415
    from indexer.config import colours_wanted  # noqa: PLC0415

    with Bars(Console(stderr=True, no_color=not colours_wanted())) as bars:
        code = run_daemon(settings, once=once, onlooker=bars)
    context.exit(code)


@cli.command(short_help="Show everything on a local chain of our own.")
@click.option(
    "--exit",
    "exit_when_done",
    is_flag=True,
    help="End after the stories: 0 if every expected verdict appeared, else 1.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="HTTP port of metrics and status. Default: 9464 if it is free.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where database and chain live. Default: a folder of the demo's own.",
)
@click.pass_context
def demo(
    context: click.Context, exit_when_done: bool, port: int | None, data_dir: Path | None
) -> None:
    """Show everything on a chain of our own, with the vendor's real contracts.

    Starts a database and a local chain, plays stories that end well and stories that hurt, and
    narrates what the watcher says. Needs no configuration; runs until Ctrl-C.

    \b
    EXAMPLE
      sessionwatch demo
      sessionwatch demo --exit --port 0
    """  # noqa: D301
    from indexer.devnet.demo import run_demo  # noqa: PLC0415

    context.exit(run_demo(exit_when_done=exit_when_done, data_dir=data_dir, http_port=port))


@cli.command(short_help="Check configuration, database, nodes and contracts.")
@config_option
@json_option
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Check configuration, database, nodes and contracts, and change nothing.

    Prints for each chain its id, finality, nodes, and which manager contracts stand there. Waits
    up to 60 seconds for what does not answer (exit 75); a wrong chain id is exit 78.

    \b
    EXAMPLE
      sessionwatch check
      sessionwatch check --json | jq '.chains[].warnings'
    """  # noqa: D301
    settings = read_settings(context)
    from indexer.check import render, run_check  # noqa: PLC0415

    report = run_async(run_check(settings))
    if as_json:
        print_json(report.as_json())
    else:
        for level, line in render(report):
            click.secho(line, **_COLOURS.get(level, {}))  # type: ignore[arg-type]
    context.exit(report.exit_code)


@cli.command()
@config_option
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show how far each chain is indexed, what is left of its past, and the verdicts.

    One bar per lane, with the time and the requests that the rest may take at the pace of the last
    ranges. Reads the database only: it also works while no daemon runs.

    \b
    EXAMPLE
      sessionwatch status
      sessionwatch status --json | jq '.chains[].progress.lag_blocks'
    """  # noqa: D301
    settings = read_settings(context, need_chains=False)
    from indexer.store.status import read_status  # noqa: PLC0415

    found = with_database(settings.database, read_status)
    if as_json:
        print_json(found)
    else:
        from indexer.cli_status import print_status  # noqa: PLC0415

        print_status(found)


@cli.command()
@config_option
@json_option
@click.option("--chain", "name", required=True, metavar="NAME", help="A configured chain.")
@click.option(
    "--to", "block", required=True, type=click.IntRange(0, MAX_BIGINT), help="The last block kept."
)
@click.option("--below-finality", is_flag=True, help="Forget final blocks, too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def rewind(
    context: click.Context, name: str, block: int, below_finality: bool, yes: bool, as_json: bool
) -> None:
    """Forget the blocks above BLOCK, to have them indexed again.

    The way out of a finality violation (--below-finality). Stored session sets stay; what is
    forgotten of the chain is read again from the node, if the node still has it. A daemon that
    runs meanwhile ends with exit code 75 if final blocks are forgotten: start it again.

    \b
    EXAMPLE
      sessionwatch rewind --chain mumbai --to 41000000 --below-finality
    """  # noqa: D301
    settings = read_settings(context)
    chain = configured_chain(settings, name)
    from indexer.log import scrub  # noqa: PLC0415
    from indexer.store import operator  # noqa: PLC0415

    async def work(database: Database) -> operator.Rewound | None:
        async def go(*, dry_run: bool) -> operator.Rewound:
            return await operator.rewind(
                database, chain.chain_id, block, below_finality=below_finality, dry_run=dry_run
            )

        lost = await go(dry_run=True)
        if lost.finality_violation:
            click.echo(f"finality violation: {scrub(lost.finality_violation)}", err=True)
        click.echo(
            f"{name} is indexed to block {lost.indexed_block}, final to {lost.finalized_block}. "
            f"This forgets what was indexed above block {block}: {lost.events} events, operations "
            "and transfers, to be read from the node again. Stored session sets stay.",
            err=True,
        )
        return await go(dry_run=False) if yes or _confirmed() else None

    done = with_database(settings.database, work)
    if done is None:
        click.echo("nothing was changed; --yes goes ahead without asking", err=True)
        context.exit(EXIT_USAGE)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{name}: all above block {block} is forgotten; `run` reads it again")


def _confirmed() -> bool:
    try:
        return click.confirm("Forget it?", err=True)
    except click.Abort:  # Ctrl-C, or nobody there to answer
        click.echo(err=True)
        return False


cli.add_command(audit)
cli.add_command(explain)
cli.add_command(schema)
sessions.add_command(export_sets)
sessions.add_command(plan_set)
sessions.add_command(prove)
sessions.add_command(validate)
cli.add_command(sessions)


def _unread(code: int) -> int:
    """Throw away what nobody reads, which Python would else complain about at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error is said here, once."""
    try:
        code = cli.main(list(arguments), prog_name="sessionwatch", standalone_mode=False)
    except click.Abort:
        click.echo("aborted", err=True)
        return 130
    except click.ClickException as error:
        report_usage_error(error)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _unread(EXIT_STOPPED)  # the reader of our output has enough (`| head`)
    except BaseException as error:
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        try:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                error = RetryableError("cannot write: the disk is full", remedy="free some space")
            return report_error(error)
        except BrokenPipeError:
            return _unread(EXIT_TRY_AGAIN)  # as of a daemon whose log nobody takes any more
    return code if isinstance(code, int) else EXIT_STOPPED


def main() -> None:
    """Run the command `sessionwatch`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as `<&-` does
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no "…" is no failure
    sys.exit(execute(sys.argv[1:]))
