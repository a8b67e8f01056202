"""Every released schema, with rows in every table, becomes exactly what schema.sql is."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import FatalError, FencedError, RetryableError, SchemaVersionError
from indexer.store import schema
from indexer.store.chain_row import leadership, lock_chain, take_over
from indexer.store.embedded import EmbeddedPostgres
from indexer.store.pool import Database
from tests.daemon_process import until
from tests.fixtures_database import Connection, connected, temporary_database
from tests.postgres_programs import program
from tests.released_schemas import RELEASED, TABLES, VIEWS, contents, fill, released
from tests.schema_rows import CHAIN, insert, make_chain
from tests.sim.settings import chain_settings

# What has been released never changes again: databases out there were made by it.
FROZEN = {1: "69ab1d2e7a465a17fa9604933e8152c1514d2f41d60767104e1c79ba6608458d"}

released_versions = pytest.mark.parametrize("version", sorted(FROZEN))


@asynccontextmanager
async def older_database(postgres_url: str, version: int) -> AsyncIterator[str]:
    """A database as an older release has prepared it, without rows."""
    async with temporary_database(postgres_url) as url:
        async with connected(url) as admin, admin.transaction():
            await admin.execute(released(version))
        yield url


async def described(url: str) -> dict[str, str]:
    """Return every object of a database as pg_dump writes it, by what it is."""
    text = await program("pg_dump", "--schema-only", "--dbname", url)
    # A secret of each run; no part of the schema.
    text = re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)
    parts = re.split(r"^-- (Name: .*)$", text, flags=re.MULTILINE)
    return {name: body.strip("-\n ") for name, body in zip(parts[1::2], parts[2::2], strict=True)}


ROLES = """
SELECT r.rolname, r.rolcanlogin, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolbypassrls,
       r.rolreplication, r.rolinherit, r.rolconnlimit,
       ARRAY(SELECT unnest(r.rolconfig) ORDER BY 1) AS settings,
       shobj_description(r.oid, 'pg_authid') AS comment,
       ARRAY(SELECT m.roleid::regrole::text FROM pg_auth_members AS m WHERE m.member = r.oid
             ORDER BY 1) AS member_of,
       (SELECT d.datacl::text FROM pg_database AS d WHERE d.datname = current_database()) AS acl
  FROM pg_roles AS r WHERE r.rolname LIKE 'sessionwatch%' ORDER BY 1"""


def test_what_was_released_stays() -> None:
    """Each version before the present one has its text, unchanged, and a migration to the next."""
    files = {int(path.stem): path for path in RELEASED.glob("*.sql")}
    assert set(files) == set(FROZEN)
    for version, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == FROZEN[version]
    assert set(range(schema.FIRST_VERSION, schema.SCHEMA_VERSION)) <= set(FROZEN)
    # Once the present version is released, whatever changes schema.sql needs the next number.
    if schema.SCHEMA_VERSION in FROZEN:
        assert schema.schema_text() == released(schema.SCHEMA_VERSION)
    migrations = Path(schema.__file__).parent / "migrations"
    numbers = range(schema.FIRST_VERSION + 1, schema.SCHEMA_VERSION + 1)
    assert sorted(path.name for path in migrations.iterdir()) == [f"{n:04}.sql" for n in numbers]


@released_versions
async def test_a_migrated_database_is_what_schema_sql_makes(tmp_path: Path, version: int) -> None:
    """Object by object, rights and comments included; roles too, hence a cluster for each."""
    found: list[tuple[dict[str, str], list[dict[str, Any]]]] = []
    for name, text in (("old", released(version)), ("new", schema.schema_text())):
        async with EmbeddedPostgres(tmp_path / name, fsync=False) as server:
            async with connected(server.url) as admin:
                async with admin.transaction():
                    await admin.execute(text)
                await admin.execute("SELECT chain.ensure_partitions(80001, 1500000)")
                await schema.apply(server.url)
                roles = [dict(row) for row in await admin.fetch(ROLES)]
            found.append((await described(server.url), roles))
    (migrated, migrated_roles), (fresh, fresh_roles) = found
    assert "Name: account_event_c80001_p1; Type: TABLE" in " ".join(fresh)
    assert {name for name in migrated if migrated[name] != fresh.get(name)} == set()
    assert set(fresh) == set(migrated)
    assert migrated_roles == fresh_roles
    assert len(fresh_roles) == 3


@released_versions
async def test_no_row_is_lost(postgres_url: str, version: int) -> None:
    """What the older release had written is there after it, and every view shows it."""
    async with older_database(postgres_url, version) as url, connected(url) as admin:
        await fill(admin)
        tables, views = await contents(admin, TABLES), await contents(admin, VIEWS)
        assert [name for name, rows in (tables | views).items() if not rows] == []
        applied = await schema.apply(url)
        assert applied.found_version == version
        assert applied.migrations == tuple(range(version + 1, schema.SCHEMA_VERSION + 1))
        await schema.check_version(admin)
        # The version has moved, and a daemon that hangs is fenced.
        tables["evidence.schema_version"] = []
        tables["chain.chain"][0]["epoch"] += 1
        lost = []
        for before, relations in ((tables, TABLES), (views, VIEWS)):
            after = await contents(admin, relations)
            for name, rows in before.items():
                # A later version may know more of a row, never less.
                kept = [{k: row[k] for k in rows[0]} for row in after[name]] if rows else []
                lost += [name] if kept != rows else []
    assert lost == []


@pytest.fixture
async def old_url(postgres_url: str) -> AsyncIterator[str]:
    """A database as the oldest release has prepared it, with a chain."""
    async with older_database(postgres_url, schema.FIRST_VERSION) as url:
        async with connected(url) as admin:
            await make_chain(admin)
        yield url


async def version_of(url: str) -> int:
    async with connected(url) as admin:
        return int(await admin.fetchval("SELECT version FROM evidence.schema_version"))


async def test_a_dry_run_tells_which_migrations_would_run(old_url: str) -> None:
    """It tries them and rolls them back; what it says is what apply then does."""
    tried = await schema.apply(old_url, dry_run=True)
    assert "would get schema version 2, by migration 2 (tried" in tried.sentence()
    assert await version_of(old_url) == schema.FIRST_VERSION
    done = await schema.apply(old_url)
    assert "now has schema version 2, by migration 2" in done.sentence()
    assert (done.found_version, done.migrations) == (tried.found_version, tried.migrations)
    assert "already has schema version 2" in (await schema.apply(old_url)).sentence()


async def test_two_that_migrate_at_once_do_not_collide(old_url: str) -> None:
    """One of them does the work, the other waits and finds it done."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(schema.apply(old_url)) for _ in range(2)]
    assert sorted(task.result().migrations for task in tasks) == [(), (2,)]


async def test_a_failed_migration_changes_nothing(old_url: str) -> None:
    """What stands in its way is named, and the database is as it was."""
    async with connected(old_url) as admin:
        await admin.execute("ALTER TABLE evidence.schema_version ADD COLUMN restores_from text")
        before = await described(old_url)
        with pytest.raises(FatalError, match=r"migration 2 failed: column .restores_from.*exists"):
            await schema.apply(old_url)
        assert await admin.fetchval("SELECT max(epoch) FROM chain.chain") == 0
    assert await described(old_url) == before


async def test_nothing_changes_under_a_daemon(old_url: str) -> None:
    """While a process follows a chain, or waits to, a migration is refused by the chain's name."""
    async with leadership(old_url, CHAIN, wait_seconds=1):
        for dry_run in (False, True):
            with pytest.raises(RetryableError, match=r"follows the chain mumbai.*migration 2"):
                await schema.apply(old_url, dry_run=dry_run)
        # An empty or up-to-date database has nothing to change, so nothing is refused.
    await schema.apply(old_url)
    async with leadership(old_url, CHAIN, wait_seconds=1):
        assert "already has" in (await schema.apply(old_url)).sentence()


async def test_a_daemon_that_was_not_seen_is_fenced(old_url: str) -> None:
    """A step that has begun is waited for; the next finds another epoch."""
    async with (
        Database.open(old_url, schema_check=False) as database,
        asyncio.TaskGroup() as group,
        connected(old_url) as onlooker,
    ):
        async with database.transaction() as step:
            await lock_chain(step, CHAIN, 0, "history")
            applying = group.create_task(schema.apply(old_url))
            await until(lambda: somebody_waits(onlooker), "the migration to wait")
            await insert(step, "chain.undecoded_log")
        assert (await applying).migrations == (2,)
        async with database.transaction() as step:
            with pytest.raises(FencedError):
                await lock_chain(step, CHAIN, 0, "history")
        assert await onlooker.fetchval("SELECT count(*) FROM watch.undecoded_log") == 1


async def somebody_waits(connection: Connection) -> bool:
    """Say whether a lock is waited for."""
    query = """SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
                               WHERE NOT l.granted AND a.datname = current_database())"""
    return bool(await connection.fetchval(query))


async def test_who_checked_the_version_keeps_it_to_the_end(old_url: str) -> None:
    """A daemon that starts during a migration waits for it, and then finds another version."""
    await schema.apply(old_url)
    async with connected(old_url) as migrating, connected(old_url) as onlooker:
        async with (
            Database.open(old_url, schema_check=False) as database,
            asyncio.TaskGroup() as group,
        ):
            async with migrating.transaction():
                await migrating.execute(
                    "LOCK TABLE evidence.schema_version IN ACCESS EXCLUSIVE MODE"
                )
                starting = group.create_task(started(database))
                await until(lambda: somebody_waits(onlooker), "the daemon to wait")
                await migrating.execute("UPDATE evidence.schema_version SET version = 3")
            assert await starting == "database schema is version 3, this program needs 2"
        # One is the migration's own.
        assert await onlooker.fetchval("SELECT epoch FROM chain.chain") == 1


async def started(database: Database) -> str:
    """Take the chain over as a daemon whose first look was long ago; return what it dies of."""
    try:
        async with database.transaction() as connection:
            await take_over(connection, chain_settings(), [], {})
    except SchemaVersionError as error:
        return str(error)
    return ""


async def test_a_long_reader_is_named(old_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds a lock is named after a while; the migration does not hang behind it."""
    monkeypatch.setattr(schema, "LOCK_WAIT_SECONDS", 0.2)
    async with connected(old_url) as reader:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM evidence.schema_version")
            pid = await reader.fetchval("SELECT pg_backend_pid()")
            with pytest.raises(RetryableError, match=rf"process {pid} .*idle in trans") as caught:
                await schema.apply(old_url)
        assert "pg_terminate_backend" in caught.value.remedy
    assert await version_of(old_url) == schema.FIRST_VERSION
    assert (await schema.apply(old_url)).migrations == (2,)


async def test_a_newer_database_is_refused(old_url: str) -> None:
    """The release that made it is needed; nothing is touched."""
    async with connected(old_url) as admin:
        await admin.execute("UPDATE evidence.schema_version SET version = 3")
    with pytest.raises(SchemaVersionError, match="version 3, this program needs 2") as caught:
        await schema.apply(old_url)
    assert "release that made it" in caught.value.remedy
