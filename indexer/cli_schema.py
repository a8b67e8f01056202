"""`sessionwatch schema`: preparing the database, and bringing it to this program's version."""

from __future__ import annotations

import click

from indexer.cli_common import config_option, json_option, print_json, read_settings, run_async


@click.group()
def schema() -> None:
    """Prepare the database: its tables, views, roles.

    \b
    EXAMPLE
      sessionwatch schema apply --dry-run
    """  # noqa: D301


@schema.command()
@config_option
@json_option
@click.option("--dry-run", is_flag=True, help="Do everything, then roll it back.")
@click.pass_context
def apply(context: click.Context, dry_run: bool, as_json: bool) -> None:
    """Bring the configured database to this program's schema version.

    An empty database gets the whole schema, an older one the migrations it lacks, in one
    transaction; one that has the version is left alone, a newer one is refused. The login has to
    be a superuser, or to own the database and be allowed to create roles. Stop the daemon before
    a migration: while one follows a chain nothing is changed (exit 75), as when somebody else
    holds a lock for more than 20 seconds. Make a back-up first.

    \b
    EXAMPLE
      sessionwatch schema apply --dry-run
      SESSIONWATCH_DATABASE__URL=postgresql://owner@db/sessionwatch sessionwatch schema apply
    """  # noqa: D301
    settings = read_settings(context, need_chains=False)
    from indexer.check import database_url  # noqa: PLC0415
    from indexer.store.schema import Applied  # noqa: PLC0415
    from indexer.store.schema import apply as apply_schema  # noqa: PLC0415

    async def work() -> Applied:
        async with database_url(settings.database, prepare=False) as url:
            return await apply_schema(url, dry_run=dry_run)

    applied = run_async(work())
    if as_json:
        print_json(applied)
    else:
        click.echo(applied.sentence())


@schema.command("print")
def print_schema() -> None:
    """Print schema.sql, to read it or to apply it by hand to an empty database.

    \b
    EXAMPLE
      sessionwatch schema print | psql -1 -v ON_ERROR_STOP=1 sessionwatch
    """  # noqa: D301
    from indexer.store.schema import schema_text  # noqa: PLC0415

    click.echo(schema_text(), nl=False)
