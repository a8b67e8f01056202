"""`sessionwatch sessions …`: what clients registered, in and out of the database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from indexer.cli_common import (
    MAX_BIGINT,
    config_file,
    config_option,
    hex_text,
    json_option,
    known_chain_id,
    plain,
    print_json,
    print_table,
    read_address_option,
    read_settings,
    session_layouts,
    with_database,
)
from indexer.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from indexer.config import Settings
    from indexer.core.import_plan import ListPlan
    from indexer.core.session_import import ImportedSet, ImportResult
    from indexer.core.session_sets import SessionSet
    from indexer.core.types import Address, Hash32
    from indexer.store.pool import Database
    from indexer.store.sessions import ImportedRow


@click.group()
def sessions() -> None:
    """Keep the session sets that clients registered.

    \b
    EXAMPLE
      sessionwatch sessions import sessions.json --chain mumbai --account 0x5F…
    """  # noqa: D301


@sessions.command("import")
@config_option
@json_option
@click.argument("file", type=click.File("rb"))
@click.option("--chain", "chain_name", metavar="NAME", help="A configured chain, or a preset.")
@click.option("--account", callback=read_address_option, metavar="0x…", help="The smart account.")
@click.option(
    "--manager", callback=read_address_option, metavar="0x…", help="The SessionKeyManager."
)
@click.option("--dry-run", is_flag=True, help="Store nothing; needs no database.")
@click.pass_context
def import_file(
    context: click.Context,
    file: Any,
    chain_name: str | None,
    account: Address | None,
    manager: Address | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Store the session sets of FILE ("-": standard input).

    Reads lists of sessions, Particle's requests and responses, and the stores of Biconomy's SDK.
    Prints of each set its chain_id, manager, account, matched_form, root, and its leaves in
    order. What the document does not say comes from the options; the manager is then where a
    form of the list is found on chain, else the first one configured. Private keys are dropped
    unread.

    \b
    MATCHED_FORM  WHICH SESSIONS OF A LIST THE SET IS MADE OF
    all_leaves    all of them: what the SDK registers, whatever their status
    not_revoked   without those called REVOKED: what the client wants, stored as the newest
    \b
    stored besides, before those, if it is what the chain has:
    active        those called ACTIVE
    revoke_form   the tree of the SDK's revokeSessions; no verdict ever wants it
    prefix        the list as it was before sessions were appended
    suffix        the same of Particle's lists, which have the newest first

    \b
    EXAMPLE
      sessionwatch sessions import sessions.json --chain mumbai --account 0x5F…
      curl -s https://api.example/sessions | sessionwatch sessions import - --dry-run --json
    """  # noqa: D301
    settings = document_settings(context, need_database=not dry_run)
    chain_id = None if chain_name is None else known_chain_id(settings, chain_name)
    name, document = read_document(file)
    wanted = Wanted(name, settings, chain_id, account, manager)
    rows: list[ImportedRow] = []
    if dry_run:
        plans = [wanted.plan(one, {}) for one in document.sets]
    else:
        assert settings is not None

        async def work(database: Database) -> list[ListPlan]:
            from indexer.store import sessions as store  # noqa: PLC0415

            places = [wanted.place(one) for one in document.sets]
            roots = await store.current_roots(database, set(places))
            plans = [
                wanted.plan(one, roots.get(place, {}))
                for one, place in zip(document.sets, places, strict=True)
            ]
            found = [
                (built, one.source)
                for one, plan in zip(document.sets, plans, strict=True)
                for built in plan.sets
            ]
            layouts = session_layouts(settings, {chain_id for chain_id, _ in places})
            rows.extend(await store.import_sets(database, found, layouts=layouts))
            return plans

        plans = with_database(settings.database, work)
    sets = [built for plan in plans for built in plan.sets]
    print_warnings([*document.warnings, *_nothing_wanted(document.sets, plans)])
    print_warnings(() if dry_run else _unfollowed(settings, sets))
    if as_json:
        print_json([_shown(one) for one in sets])
    else:
        for number, one in enumerate(sets):
            _print_set(one, first=number == 0)
    on_chain = {id(plan.on_chain) for plan in plans}
    for row, one in zip(rows, sets, strict=not dry_run):
        done = "stored" if row.stored else "was stored before"
        where = "; its root is on chain" if id(one) in on_chain else ""
        click.echo(f"session set {row.set_id} ({one.matched_form}) {done}{where}", err=True)
    if dry_run:
        click.echo("nothing was stored (--dry-run)", err=True)


def _nothing_wanted(lists: Sequence[ImportedSet], plans: Sequence[ListPlan]) -> Iterator[str]:
    for one, plan in zip(lists, plans, strict=True):
        if plan.all_revoked:
            yield (
                f"{one.label}: the client calls every session REVOKED, and an empty set has no "
                "root, so only the set of all of them is kept; setMerkleRoot(0) revokes them"
            )


def _unfollowed(settings: Settings | None, sets: Sequence[SessionSet]) -> Iterator[str]:
    """Warn of chains that a configuration with chains leaves out; without any it cannot tell."""
    followed = {chain.chain_id for chain in settings.chains} if settings is not None else set()
    for chain_id in dict.fromkeys(one.chain_id for one in sets) if followed else ():
        if chain_id not in followed:
            yield f"no [chains.*] with chain id {chain_id} is configured, so nothing follows it"


def document_settings(context: click.Context, *, need_database: bool) -> Settings | None:
    """Read the configuration; what needs no database and was not pointed at one does without."""
    try:
        return read_settings(context, need_chains=False, need_database=need_database)
    except ConfigurationError:
        if not need_database and config_file(context) is None:
            return None
        raise


def read_document(file: Any) -> tuple[str, ImportResult]:
    """Read the session sets of an opened file; return its name as messages show it, too."""
    from indexer.core.session_import import parse_document  # noqa: PLC0415
    from indexer.core.session_json import show_name  # noqa: PLC0415
    from indexer.core.session_sets import MAX_DOCUMENT_BYTES  # noqa: PLC0415

    name = "standard input" if file.name in {"<stdin>", os.devnull} else str(file.name)
    return show_name(name), parse_document(file.read(MAX_DOCUMENT_BYTES + 1), name=name)


def print_warnings(warnings: Iterable[str]) -> None:
    """Say on stderr what a person should look at."""
    for warning in warnings:
        click.secho("warning: ", fg="yellow", err=True, nl=False)
        click.echo(warning, err=True)


class Wanted:
    """What the command line and the configuration say about sets that do not say it themselves."""

    def __init__(
        self,
        document: str,
        settings: Settings | None,
        chain_id: int | None,
        account: Address | None,
        manager: Address | None,
    ) -> None:
        self._document = document
        self._chains = settings.chains if settings is not None else ()
        self._chain_id = chain_id
        self._account = account
        self._manager = manager

    def place(self, one: ImportedSet) -> tuple[int, Address]:
        """Return chain id and account; raises UsageError where one is missing or contradicts."""
        label = self._label(one)
        chain_id = _agreed("--chain", "chain id", label, self._chain_id, one.chain_id)
        if chain_id is None and len(self._chains) == 1:
            chain_id = self._chains[0].chain_id
        account = _agreed("--account", "account", label, self._account, one.account)
        if chain_id is None:
            raise UsageError(
                f"{label} does not say which chain its sessions are of",
                remedy="name it: --chain NAME",
            )
        if account is None:
            raise UsageError(
                f"{label} does not say which account its sessions are of",
                remedy="name it: --account 0x…",
            )
        return chain_id, account

    def plan(self, one: ImportedSet, roots: Mapping[Address, Hash32]) -> ListPlan:
        """Plan what is stored of one list; raises UsageError where something is wrong with it."""
        from indexer.core.import_plan import plan_import  # noqa: PLC0415
        from indexer.core.presets import MANAGERS  # noqa: PLC0415

        label = self._label(one)
        chain_id, account = self.place(one)
        chain = next((c for c in self._chains if c.chain_id == chain_id), None)
        try:
            return plan_import(
                one,
                chain_id=chain_id,
                account=account,
                manager=_agreed("--manager", "manager", label, self._manager, one.manager),
                default_manager=(chain.managers if chain else MANAGERS)[0],
                roots=roots,
            )
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{label}: {error}") from None

    def _label(self, one: ImportedSet) -> str:
        return f"{self._document}: {one.label}"


def _agreed(option: str, what: str, label: str, asked: Any, told: Any) -> Any:
    if asked is not None and told is not None and asked != told:
        shown = [hex_text(v) if isinstance(v, bytes) else v for v in (told, asked)]
        raise UsageError(
            f"{label}: the document says {what} {shown[0]}, {option} says {shown[1]}",
            remedy=f"leave {option} out, or import the right document",
        )
    return told if asked is None else asked


def _shown(one: SessionSet) -> dict[str, Any]:
    return {
        "chain_id": one.chain_id,
        "manager": hex_text(one.manager),
        "account": hex_text(one.account),
        "matched_form": one.matched_form,
        "root": hex_text(one.root),
        "leaves": [hex_text(leaf) for leaf in one.leaves],
    }


def _print_set(one: SessionSet, *, first: bool) -> None:
    if not first:
        click.echo()
    shown = _shown(one)
    for key in ("chain_id", "manager", "account", "matched_form", "root"):
        click.echo(f"{key:<8} {shown[key]}")
    click.echo(f"leaves   {len(one.leaves)}")
    for index, leaf in enumerate(shown["leaves"]):
        click.echo(f"{index:>7}  {leaf}")


@sessions.command("list")
@config_option
@json_option
@click.option("--chain", "chain_name", metavar="NAME", help="Only of this chain.")
@click.option(
    "--account", callback=read_address_option, metavar="0x…", help="Only of this account."
)
@click.option("--limit", type=click.IntRange(1, MAX_BIGINT), default=100, show_default=True)
@click.pass_context
def list_sets(
    context: click.Context,
    chain_name: str | None,
    account: Address | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the stored session sets, newest first.

    \b
    EXAMPLE
      sessionwatch sessions list --chain mumbai
    """  # noqa: D301
    settings = read_settings(context, need_chains=False)
    chain_id = None if chain_name is None else known_chain_id(settings, chain_name)
    from indexer.store import sessions as store  # noqa: PLC0415

    async def work(database: Database) -> Any:
        return plain(
            await store.list_sets(database, chain_id=chain_id, account=account, limit=limit)
        )

    rows = with_database(settings.database, work)
    if as_json:
        print_json(rows)
    elif rows:
        columns = ["set_id", "chain_id", "account", "root", "session_count", "matched_form"]
        columns += ["state", "stored_at"]
        print_table(columns, [[row.get(column) for column in columns] for row in rows])
    else:
        asked = chain_name is not None or account is not None
        click.echo("no such session set is stored" if asked else "no session set is stored")


@sessions.command("show")
@config_option
@json_option
@click.argument("set_id", type=click.IntRange(1, MAX_BIGINT))
@click.pass_context
def show_set(context: click.Context, set_id: int, as_json: bool) -> None:
    """Show one stored session set and its sessions in order.

    \b
    EXAMPLE
      sessionwatch sessions show 7
    """  # noqa: D301
    settings = read_settings(context, need_chains=False)
    from indexer.store import sessions as store  # noqa: PLC0415

    async def work(database: Database) -> Any:
        return await store.show_set(database, set_id)

    found = with_database(settings.database, work)
    if found is None:
        raise UsageError(f"no session set {set_id} is stored", remedy="sessionwatch sessions list")
    shown, rows = plain(found[0]), plain(found[1])
    if as_json:
        print_json({**shown, "sessions": rows})
        return
    for key, value in shown.items():
        click.echo(f"{key:<15}{value}")
    for row in rows:
        click.echo()
        for key, value in row.items():
            click.echo(f"  {key:<26}{'none' if value is None else value}")
