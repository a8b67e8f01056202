"""`sessionwatch schema` as an operator or a script runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indexer.store import schema
from indexer.store.chain_row import leadership
from tests.daemon_process import command, configuration
from tests.fixtures_database import connected
from tests.logins import logged_in
from tests.released_schemas import released
from tests.schema_rows import CHAIN, make_chain


@pytest.fixture
async def old_url(empty_database_url: str) -> str:
    """A database as the first release has prepared it, with a chain."""
    async with connected(empty_database_url) as admin:
        async with admin.transaction():
            await admin.execute(released(schema.FIRST_VERSION))
        await make_chain(admin)
    return empty_database_url


async def apply(folder: Path, url: str, *options: str) -> tuple[int, str]:
    """Run the verb; return exit code and all it said."""
    return await command(folder, f'[database]\nurl = "{url}"\n', "schema", "apply", *options)


async def test_a_script_learns_what_was_done(old_url: str, tmp_path: Path) -> None:
    """--json says which version was found, and which migrations ran or would run."""
    found = []
    for options in (("--dry-run",), (), ()):
        code, said = await apply(tmp_path, old_url, "--json", *options)
        assert code == 0, said
        found.append(json.loads(said))
    versions = [(one["found_version"], one["migrations"], one["dry_run"]) for one in found]
    assert versions == [(1, [2], True), (1, [2], False), (2, [], False)]
    assert {one["version"] for one in found} == {schema.SCHEMA_VERSION}
    assert {one["database"] for one in found} == {old_url.partition("?")[0].rpartition("/")[2]}


async def test_a_migration_waits_for_nobody_who_runs(old_url: str, tmp_path: Path) -> None:
    """Under a daemon it ends with 75, names the chain and what to do, and has changed nothing."""
    async with leadership(old_url, CHAIN, wait_seconds=1):
        code, said = await apply(tmp_path, old_url)
    assert code == 75
    error, remedy = said.splitlines()
    assert error.startswith("error: a daemon follows the chain mumbai: it must not run while")
    assert remedy.startswith("remedy: stop it (systemctl stop sessionwatch), apply, then start")
    async with connected(old_url) as admin:
        assert await admin.fetchval("SELECT version FROM evidence.schema_version") == 1


async def test_a_daemon_refuses_an_older_database(old_url: str, tmp_path: Path) -> None:
    """Exit 78 and the way out, which then works."""
    config = configuration(old_url, "http://127.0.0.1:1", chain="mumbai")
    code, said = await command(tmp_path, config, "run")
    assert code == 78
    assert "database schema is version 1, this program needs 2" in said
    assert "stop the daemon, then: sessionwatch schema apply" in said
    code, said = await command(tmp_path, config, "schema", "apply")
    assert (code, "now has schema version 2, by migration 2" in said) == (0, True)


async def test_what_the_login_lacks_is_said(old_url: str, tmp_path: Path) -> None:
    """A reader's login and a database that is not there: exit 78 and a remedy that is one."""
    server, _, options = old_url.partition("?")
    async with logged_in(old_url, "sessionwatch_reader") as (_, reader):
        code, said = await apply(tmp_path, reader)
    assert code == 78
    error, remedy = said.splitlines()
    assert error.startswith("error: this login may not change the schema: permission denied")
    assert remedy.startswith("remedy: apply it as a superuser, or as the database's owner")

    nowhere = f"{server.rpartition('/')[0]}/not_there?{options}"
    code, said = await apply(tmp_path, nowhere, "--dry-run")
    assert code == 78
    assert said.splitlines() == [
        'error: the database refused: database "not_there" does not exist',
        "remedy: create it, as in `createdb sessionwatch`, or correct database.url",
    ]
