"""`sessionwatch sessions export`: stored session sets as documents that import reads."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.cli_common import (
    MAX_BIGINT,
    config_option,
    hex_text,
    known_chain_id,
    read_address_option,
    read_settings,
    with_database,
)
from indexer.errors import UsageError

if TYPE_CHECKING:
    from indexer.config import Settings
    from indexer.core.session_export import Documents
    from indexer.core.types import Address
    from indexer.store.pool import Database
    from indexer.store.session_export import Selection
    from indexer.whole_files import Write

_FORMS = (
    "object",
    "plain",
    "particle_request",
    "particle_response",
    "particle_validate",
    "particle_send",
    "sdk_store",
    "sdk_dump",
    "particle_demo_store",
)
"""The names of session_export.FORMS, for --help, which imports no more than click."""

_STATES = ("on_chain", "was_on_chain", "expected", "stored")
_LONG_SESSIONS = 20_000
"""What takes longer than a second or so, and deserves a progress bar."""


@click.command("export", short_help="Give stored session sets back, for import or a client.")
@config_option
@click.argument("set_ids", nargs=-1, type=click.IntRange(1, MAX_BIGINT), metavar="[SET_ID]...")
@click.option("--chain", "chain_name", metavar="NAME", help="Only sets of this chain.")
@click.option("--account", callback=read_address_option, metavar="0x…", help="Of this account.")
@click.option("--manager", callback=read_address_option, metavar="0x…", help="Of this manager.")
@click.option("--state", type=click.Choice(_STATES), help="In this state now, as `list` shows it.")
@click.option(
    "--form",
    "form_name",
    type=click.Choice(_FORMS),
    default="object",
    metavar="FORM",
    help="One of those above.",
)
@click.option("--output", metavar="FILE|-", help="Where to. Default: -, standard output.")
@click.option(
    "--split",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Make a folder with as many documents as are needed.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.pass_context
def export_sets(
    context: click.Context,
    set_ids: tuple[int, ...],
    chain_name: str | None,
    account: Address | None,
    manager: Address | None,
    state: str | None,
    form_name: str,
    output: str | None,
    split: Path | None,
    force: bool,
) -> None:
    """Give stored session sets back, oldest first, in a form that `sessions import` reads.

    What import would read differently is refused, and so is a document too large for it (64
    MiB). What a form does not carry must be the same in all sets; the last line says with which
    options to import them. Files say who may spend what: only you can read them.

    \b
    FORM                 SETS IN A DOCUMENT          CARRIES
    object (default)     any number                  all that is stored
    plain                one                         only the sessions
    particle_request     one, without ownerAddress   chain
    particle_response    one, userOp abridged        chain, manager, account, root
    particle_validate    one                         only the sessions
    particle_send        one, userOp abridged        account
    sdk_store            one                         root, status; account by its name
    sdk_dump             one per account             account, root, status
    particle_demo_store  one per account and chain   chain; needs one known session key

    \b
    EXAMPLE
      sessionwatch sessions export --split backup
      sessionwatch sessions export 7 --form plain --output sessions.json
      sessionwatch sessions export --chain mumbai --state on_chain --form sdk_dump > dump.json
    """  # noqa: D301
    from indexer.core.session_export import FORMS, Documents  # noqa: PLC0415
    from indexer.store.session_export import Selection  # noqa: PLC0415

    filters = (chain_name, account, manager, state)
    if set_ids and any(one is not None for one in filters):
        raise UsageError(
            "a SET_ID already says which set",
            remedy="leave out --chain, --account, --manager and --state, or the SET_IDs",
        )
    if split is not None and (output is not None or force):
        raise UsageError(
            "--split makes a new folder, --output and --force are about one file",
            remedy="give either --split or --output",
        )
    settings = read_settings(context, need_chains=False)
    wanted = Selection(
        set_ids or None,
        None if chain_name is None else known_chain_id(settings, chain_name),
        account,
        manager,
        state,
    )
    name = None if split is not None else output or "-"
    documents = Documents(FORMS[form_name], named=name)
    # SIGTERM as Ctrl-C: what is half-written has to go.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _output(output, split, force=force) as write:

        async def work(database: Database) -> int:
            return await _export(database, wanted, documents, write)

        count = with_database(settings.database, work)
    where = "" if name == "-" else f" to {split or output}"
    click.echo(f"{count} session set{'' if count == 1 else 's'} written{where}", err=True)
    if documents.missing:
        click.echo(f"import with {_options(settings, documents)}", err=True)


def _output(
    output: str | None, split: Path | None, *, force: bool
) -> AbstractContextManager[Write]:
    from indexer import whole_files  # noqa: PLC0415

    if split is not None:
        return whole_files.to_folder(split)
    if output in (None, "-"):
        return whole_files.to_stream(sys.stdout.buffer)
    return whole_files.to_file(Path(output), force=force)


async def _export(database: Database, wanted: Selection, documents: Documents, write: Write) -> int:
    """Write the sets asked for; return how many. Raises UsageError where there are none."""
    from indexer.store import session_export as store  # noqa: PLC0415

    if wanted.set_ids is not None:
        missing = await store.missing_sets(database, wanted.set_ids)
        if missing:
            raise UsageError(
                f"no session set {missing[0]} is stored", remedy="sessionwatch sessions list"
            )
    sessions = await store.count_selected(database, wanted) if sys.stderr.isatty() else 0
    count = 0
    with _progress(sessions) as advance:
        async with aclosing(store.read_sets(database, wanted)) as found:
            async for stored in found:
                for document, text in documents.add(stored):
                    write(document, text)
                advance(len(stored.sessions))
                count += 1
    if not count:
        asked = wanted != store.Selection()
        raise UsageError(
            "no such session set is stored" if asked else "no session set is stored",
            remedy="`sessionwatch sessions list` shows what is" if asked else "",
        )
    for document, text in documents.end():
        write(document, text)
    return count


@contextmanager
def _progress(sessions: int) -> Iterator[Callable[[int], None]]:
    """Show how many of these sessions are written, if that takes long and somebody watches."""
    if sessions < _LONG_SESSIONS:
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sessions", total=sessions)
        yield lambda written: bar.advance(task, written)


def _options(settings: Settings, documents: Documents) -> str:
    """Return the options that import needs beside the document."""
    from indexer.core.presets import PRESETS  # noqa: PLC0415

    first = documents.first
    assert first is not None
    names = [one.name for one in settings.chains if one.chain_id == first.chain_id]
    names += [name for name, preset in PRESETS.items() if preset.chain_id == first.chain_id]
    values = {
        "chain": names[0] if names else f"NAME (configured with chain_id {first.chain_id})",
        "account": hex_text(first.account),
        "manager": hex_text(first.manager),
    }
    return " ".join(f"--{name} {values[name]}" for name in documents.missing)
