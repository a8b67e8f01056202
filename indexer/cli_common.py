"""What all verbs share: options, settings, output, and how errors become exit codes.

Nothing heavy is imported here: `sessionwatch --help` answers at once.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from indexer.core.key_text import hide_keys
from indexer.errors import EXIT_FATAL, EXIT_STUCK, FatalError, SessionwatchError, UsageError

if TYPE_CHECKING:
    from indexer.config import DatabaseSettings, Settings
    from indexer.core.session_layout import Layout
    from indexer.core.settings import ChainSettings
    from indexer.core.types import Address
    from indexer.store.pool import Database

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

MAX_BIGINT = 2**63 - 1
"""The largest number a column of Postgres' bigint holds, and so of any option that meets one."""

_CONFIG_HELP = "TOML file. Default: $SESSIONWATCH_CONFIG, else /etc/sessionwatch/sessionwatch.toml."


def _remember(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(dict)["config"] = value


def config_option(function: F) -> F:
    """Add --config, before or after the verb."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=_CONFIG_HELP,
        expose_value=False,
        callback=_remember,
    )(function)


def json_option(function: F) -> F:
    """Add --json as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(
        function
    )


def read_address_option(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Address | None:
    """Read an address option, for click."""
    from indexer.core.config_values import ValueMistakeError, parse_address  # noqa: PLC0415

    if value is None:
        return None
    try:
        return parse_address(value)
    except ValueMistakeError as mistake:
        raise click.BadParameter(
            f"found {mistake.found}, expected {mistake.expected}", context, parameter
        ) from None


def config_file(context: click.Context) -> Path | None:
    """Return the file that --config named."""
    value: Path | None = context.ensure_object(dict).get("config")
    return value


def read_settings(
    context: click.Context,
    *,
    need_chains: bool = True,
    need_database: bool = True,
    daemon: bool = False,
) -> Settings:
    """Load the configuration and set logging up accordingly.

    The verbs that answer and end keep the daemon's daily news (info) to themselves.
    """
    from indexer.config import colours_wanted, journal_reads, load_settings  # noqa: PLC0415 - not for --help
    from indexer.log import configure_logging  # noqa: PLC0415

    settings = load_settings(
        config_file(context), need_chains=need_chains, need_database=need_database
    )
    configure_logging(
        json={"json": True, "text": False}.get(settings.log.format),
        level="warning" if settings.log.level == "info" and not daemon else settings.log.level,
        colours=colours_wanted(),
        journal=journal_reads(),
        secrets=settings.secrets(),
    )
    return settings


def configured_chain(settings: Settings, name: str) -> ChainSettings:
    """Return the settings of the chain of this name; UsageError if there is none."""
    chain = settings.chain(name)
    if chain is None:
        known = ", ".join(one.name for one in settings.chains)
        raise UsageError(_no_chain(name, "configured"), remedy=f"configured are: {known}")
    return chain


def known_chain_id(settings: Settings | None, name: str) -> int:
    """Return the id of a chain that is configured, or a preset. Raises UsageError."""
    from indexer.core.presets import PRESETS  # noqa: PLC0415

    chain = settings.chain(name) if settings is not None else None
    if chain is not None:
        return chain.chain_id
    if name in PRESETS:
        return PRESETS[name].chain_id
    configured = [one.name for one in settings.chains] if settings is not None else []
    known = dict.fromkeys([*configured, *PRESETS])
    raise UsageError(_no_chain(name, "known"), remedy=f"known are: {', '.join(known)}")


def _no_chain(name: str, what: str) -> str:
    return f"no chain {hide_keys(repr(name))} is {what}"


def session_layouts(settings: Settings | None, chain_ids: Collection[int]) -> dict[Address, Layout]:
    """Return how modules lay out their sessions' data, as configured for these chains."""
    return {
        module: layout
        for chain in (settings.chains if settings is not None else ())
        if chain.chain_id in chain_ids
        for module, layout in chain.session_layouts.items()
    }


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's coroutine."""
    import asyncio  # noqa: PLC0415

    return asyncio.run(work)


@asynccontextmanager
async def opened(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Open the configured database, or the embedded one, with its schema checked."""
    from indexer.check import database_url  # noqa: PLC0415
    from indexer.store.pool import Database  # noqa: PLC0415

    async with database_url(settings) as url, Database.open(url, max_size=2) as database:
        yield database


def with_database(settings: DatabaseSettings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work` on the opened database."""

    async def run() -> T:
        async with opened(settings) as database:
            return await work(database)

    return run_async(run())


def hex_text(value: bytes) -> str:
    """Write bytes as lower-case 0x text."""
    return "0x" + value.hex()


def counted(number: int, noun: str) -> str:
    """Write a number of things: `1 session`, `2 sessions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def time_text(seconds: int) -> str:
    """Write unix seconds as a date in UTC; what no calendar has stays a number."""
    from datetime import UTC, datetime  # noqa: PLC0415

    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


def plain(value: Any) -> Any:
    """Turn a row into what JSON can hold."""
    import dataclasses  # noqa: PLC0415

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return hex_text(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(plain(value), indent=2))


def print_line(name: str, value: object) -> None:
    """Print a name and its value, in two columns."""
    text = hex_text(value) if isinstance(value, bytes) else value
    click.echo(f"{name:<16}{text}".rstrip())


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns, as wide as their widest cell."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    click.secho("  ".join(h.ljust(w) for h, w in zip(headers, widths, strict=True)), bold=True)
    for row in cells:
        click.echo("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def report_usage_error(error: click.ClickException) -> None:
    """Say on stderr what click refused; a private key in a wrong place is not repeated."""
    said = io.StringIO()
    error.show(file=said)
    click.echo(hide_keys(said.getvalue()), err=True, nl=False)


def report_error(error: BaseException) -> int:
    """Say on stderr what went wrong and what to do; return the exit code.

    A traceback appears only for errors that nobody foresaw.
    """
    from indexer.log import describe, scrub  # noqa: PLC0415

    leaves = _leaves(error)
    ours = [leaf for leaf in leaves if isinstance(leaf, SessionwatchError)]
    if len(ours) < len(leaves):
        click.echo(describe(error), err=True, nl=False)
        click.secho("error: ", fg="red", bold=True, err=True, nl=False)
        click.echo("an unforeseen failure; the lines above say where", err=True)
        return EXIT_STUCK
    # a fatal one decides: trying again cannot mend it
    first = next((leaf for leaf in ours if isinstance(leaf, FatalError)), ours[0])
    for one in dict.fromkeys((str(leaf), leaf.remedy) for leaf in [first, *ours]):
        click.secho("error: ", fg="red", bold=True, err=True, nl=False)
        click.echo(scrub(one[0]), err=True)
        if one[1]:
            click.secho("remedy: ", fg="green", err=True, nl=False)
            click.echo(scrub(one[1]), err=True)
    return first.exit_code or EXIT_FATAL
