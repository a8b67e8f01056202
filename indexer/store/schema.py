"""The database schema: its text, applying it, and whether a database has the version we need.

`schema.sql` is the interface people query; this file only carries it there. The daemon itself
runs no DDL but chain.ensure_partitions and chain.drop_partitions.
"""

from __future__ import annotations

from pathlib import Path

import asyncpg

from indexer.errors import FatalError, SchemaVersionError
from indexer.store.pool import Database

SCHEMA_VERSION = 1
"""The version this program is written for; schema.sql records the same number."""

SCHEMAS = ("chain", "evidence", "sessions", "watch")

_PACKAGE = Path(__file__).resolve().parent.parent

# Two appliers at once: the second waits, and then finds the work done.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('sessionwatch.schema'))"

_HAS_VERSION = "SELECT to_regclass('evidence.schema_version') IS NOT NULL"

_VERSION = "SELECT version FROM evidence.schema_version"

_FOREIGN = "SELECT nspname FROM pg_namespace WHERE nspname = ANY ($1) ORDER BY nspname LIMIT 1"


def schema_text() -> str:
    """Return schema.sql: an installed package carries it, a clone has it one folder up.

    Raises FatalError if neither is there.
    """
    for folder in (_PACKAGE, _PACKAGE.parent):
        try:
            return (folder / "schema.sql").read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
    raise FatalError(
        "schema.sql is missing from this installation", remedy="install sessionwatch again"
    )


async def apply(url: str, *, dry_run: bool = False) -> str:
    """Bring an empty database to SCHEMA_VERSION in one transaction; say what was done.

    A database that has the version is left alone. `dry_run` does everything and rolls it back.
    The login needs to be a superuser, or to own the database and have CREATEROLE. Raises
    SchemaVersionError for another version or schemas that are not ours, DatabaseUnavailableError,
    FatalError when the server refuses.
    """
    async with (
        Database.open(url, schema_check=False, role=None, max_size=1) as database,
        database.connection() as connection,
    ):
        transaction = connection.transaction()
        await transaction.start()
        done = False
        try:
            await connection.execute(_LOCK)
            name = await connection.fetchval("SELECT current_database()")
            found = await _read_version(connection)
            if found == SCHEMA_VERSION:
                return f"database {name} already has schema version {SCHEMA_VERSION}"
            if found is not None:
                raise _wrong_version(found)
            foreign = await connection.fetchval(_FOREIGN, list(SCHEMAS))
            if foreign is not None:
                raise SchemaVersionError(
                    f"database {name} has a schema {foreign!r} that sessionwatch did not make",
                    remedy="give sessionwatch a database of its own: createdb sessionwatch",
                )
            await connection.execute(schema_text())
            done = not dry_run
        finally:
            await (transaction.commit() if done else transaction.rollback())
    if dry_run:
        return f"database {name} would get schema version {SCHEMA_VERSION} (tried, and rolled back)"
    return f"database {name} now has schema version {SCHEMA_VERSION}"


async def check_version(conn: asyncpg.Connection[asyncpg.Record]) -> None:
    """Raise SchemaVersionError unless the database has exactly SCHEMA_VERSION."""
    try:
        found = await _read_version(conn)
    except asyncpg.InsufficientPrivilegeError as error:
        raise FatalError(
            "this login may not read the database's schema version",
            remedy="as the owner: GRANT sessionwatch_writer TO the login role",
        ) from error
    if found is None:
        raise SchemaVersionError(
            f"the database has no sessionwatch schema, this program needs version {SCHEMA_VERSION}",
            remedy="sessionwatch schema apply",
        )
    if found != SCHEMA_VERSION:
        raise _wrong_version(found)


async def _read_version(conn: asyncpg.Connection[asyncpg.Record]) -> int | None:
    if not await conn.fetchval(_HAS_VERSION):
        return None
    found = await conn.fetchval(_VERSION)
    return None if found is None else int(found)


def _wrong_version(found: int) -> SchemaVersionError:
    newer = found > SCHEMA_VERSION
    return SchemaVersionError(
        f"database schema is version {found}, this program needs {SCHEMA_VERSION}",
        remedy="install the sessionwatch release that made it"
        if newer
        else "stop the daemon, then: sessionwatch schema apply",
    )
