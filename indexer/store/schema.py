"""The database schema: its texts, applying them, and whether a database has the version we need.

`schema.sql` is the interface people query, and the whole truth for a fresh database; the files in
`migrations/` bring a database of an older version to the same. A migration after which back-ups of
older versions no longer fit raises evidence.schema_version.restores_from. This file only carries
the texts there.
The daemon itself runs no DDL but chain.ensure_partitions and chain.drop_partitions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg

from indexer.errors import FatalError, RetryableError, SchemaVersionError
from indexer.store.pool import translated

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SCHEMA_VERSION: Final = 2
"""The version this program is written for; schema.sql records the same number."""

FIRST_VERSION: Final = 1
"""The oldest version that migrations start from: the first that was released."""

SCHEMAS = ("chain", "evidence", "sessions", "watch")

LOCK_WAIT_SECONDS = 20.0
"""So long a change of the schema waits for what others hold; who reads waits behind it."""

FOLLOWER_LOCK_CLASS: Final = 0x5E55
"""The class of the advisory locks by which one process follows a chain; the number is of the
chain. Other programs in the same database use other classes."""

_PACKAGE = Path(__file__).resolve().parent.parent

# Two appliers at once: the second waits, and then finds the work done.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('sessionwatch.schema'))"

_HAS_VERSION = "SELECT to_regclass('evidence.schema_version') IS NOT NULL"

_VERSION = "SELECT version FROM evidence.schema_version"

_FOREIGN = "SELECT nspname FROM pg_namespace WHERE nspname = ANY ($1) ORDER BY nspname LIMIT 1"

# Every transaction that checks the version holds a lock on its row's table to its end. So this
# waits for those that write on what they found, and who checks from here on waits for us.
_LOCK_VERSION = "LOCK TABLE evidence.schema_version IN ACCESS EXCLUSIVE MODE"

# Held or waited for: a process that stands by would go on when the lock is free.
_FOLLOWERS = """
SELECT DISTINCT coalesce(c.name, 'of another name') AS chain, l.pid
  FROM pg_locks AS l
  LEFT JOIN chain.chain AS c ON l.objid = hashtext(c.chain_id::text)::oid
 WHERE l.locktype = 'advisory' AND l.classid = $1::bigint::oid AND l.objsubid = 2
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
 ORDER BY 1, 2"""

# Who still runs, a history process whose daemon was killed or one that hangs, finds itself fenced.
_FENCE = """
WITH held AS (SELECT chain_id FROM chain.chain ORDER BY chain_id FOR UPDATE)
UPDATE chain.chain AS c SET epoch = c.epoch + 1 FROM held WHERE c.chain_id = held.chain_id"""

_MOVE_VERSION = "UPDATE evidence.schema_version SET version = $1, applied_at = now()"

_HOLDERS = """
SELECT DISTINCT a.pid, coalesce(nullif(a.application_name, ''), 'no name') AS program,
       a.usename AS login, coalesce(a.state, 'working') AS state
  FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
  LEFT JOIN pg_class AS c ON c.oid = l.relation
 WHERE l.granted AND l.pid <> pg_backend_pid() AND a.datname = current_database()
   AND (c.relnamespace = ANY (SELECT oid FROM pg_namespace WHERE nspname = ANY ($1))
        OR l.locktype = 'advisory')
 ORDER BY a.pid"""


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did, or with `dry_run` tried and rolled back.

    `found_version` None: the database was empty. `migrations` ran in this order.
    """

    database: str
    found_version: int | None
    version: int
    migrations: tuple[int, ...]
    dry_run: bool

    def sentence(self) -> str:
        """Say it in one sentence."""
        if self.found_version == self.version:
            return f"database {self.database} already has schema version {self.version}"
        steps = f", by {_steps(self.migrations)}" if self.migrations else ""
        if self.dry_run:
            return (
                f"database {self.database} would get schema version {self.version}{steps} "
                "(tried, and rolled back)"
            )
        return f"database {self.database} now has schema version {self.version}{steps}"


def schema_text() -> str:
    """Return schema.sql: an installed package carries it, a clone has it one folder up.

    Raises FatalError if neither is there.
    """
    for folder in (_PACKAGE, _PACKAGE.parent):
        try:
            return (folder / "schema.sql").read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
    raise _incomplete("schema.sql")


def migration_text(version: int) -> str:
    """Return what brings a database of the version before to this one; FatalError if missing."""
    name = f"{version:04}.sql"
    try:
        return (_PACKAGE / "store" / "migrations" / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _incomplete(f"the migration {name}") from None


async def apply(url: str, *, dry_run: bool = False) -> Applied:
    """Bring a database to SCHEMA_VERSION in one transaction; say what was done.

    An empty database gets schema.sql, an older one the migrations it lacks, one that has the
    version is left alone. `dry_run` does everything and rolls it back. The login needs to be a
    superuser, or to own the database and have CREATEROLE. Raises SchemaVersionError for a newer
    version or schemas that are not ours, RetryableError while a daemon follows a chain or
    somebody holds a lock, DatabaseUnavailableError, FatalError when the server refuses.
    """
    async with _connected(url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        ended = False
        try:
            applied = await _apply(connection, dry_run=dry_run)
            if not dry_run:
                await transaction.commit()
                ended = True
        except asyncpg.LockNotAvailableError as error:
            await transaction.rollback()
            ended = True
            raise await _held_by_others(connection) from error
        finally:
            if not ended:
                await transaction.rollback()
    return applied


async def check_version(conn: Connection) -> None:
    """Raise SchemaVersionError unless the database has exactly SCHEMA_VERSION.

    In a transaction it then keeps the version until that ends.
    """
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


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    """A connection of its own: a migration may take longer than any statement of the daemon."""
    with translated(), _rights_explained():
        connection = await asyncpg.connect(
            url, timeout=10, server_settings={"application_name": "sessionwatch schema apply"}
        )
        try:
            yield connection
        finally:
            connection.terminate()


@contextmanager
def _rights_explained() -> Iterator[None]:
    """Say what is missing, rights or the database: here "apply the schema" is no remedy."""
    try:
        yield
    except asyncpg.InvalidCatalogNameError as error:
        raise FatalError(
            f"the database refused: {error}",
            remedy="create it, as in `createdb sessionwatch`, or correct database.url",
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise FatalError(
            f"this login may not change the schema: {error}. Nothing was changed",
            remedy="apply it as a superuser, or as the database's owner with CREATEROLE: "
            "SESSIONWATCH_DATABASE__URL=postgresql://owner@host/name sessionwatch schema apply",
        ) from error


async def _apply(connection: Connection, *, dry_run: bool) -> Applied:
    await connection.execute(f"SET LOCAL lock_timeout = {int(LOCK_WAIT_SECONDS * 1000)}")
    await connection.execute("SET LOCAL statement_timeout = 0")
    await connection.execute(_LOCK)
    name = await connection.fetchval("SELECT current_database()")
    found = await _read_version(connection)
    missing: tuple[int, ...] = ()
    if found is None:
        foreign = await connection.fetchval(_FOREIGN, list(SCHEMAS))
        if foreign is not None:
            raise SchemaVersionError(
                f"database {name} has a schema {foreign!r} that sessionwatch did not make",
                remedy="give sessionwatch a database of its own: createdb sessionwatch",
            )
        await connection.execute(schema_text())
    elif not FIRST_VERSION <= found <= SCHEMA_VERSION:
        raise _wrong_version(found)
    elif found < SCHEMA_VERSION:
        missing = tuple(range(found + 1, SCHEMA_VERSION + 1))
        await _migrate(connection, missing)
    return Applied(name, found, SCHEMA_VERSION, missing, dry_run)


async def _migrate(connection: Connection, missing: tuple[int, ...]) -> None:
    await connection.execute("SET LOCAL ROLE sessionwatch_owner")
    await connection.execute(_LOCK_VERSION)
    followers = await connection.fetch(_FOLLOWERS, FOLLOWER_LOCK_CLASS)
    if followers:
        chains = ", ".join(dict.fromkeys(row["chain"] for row in followers))
        raise RetryableError(
            f"a daemon follows the chain {chains}: it must not run while the schema changes "
            f"({_steps(missing)})",
            remedy="stop it (systemctl stop sessionwatch), apply, then start the new version",
        )
    await connection.execute(_FENCE)
    for version in missing:
        # Each begins as the caller, who may do more to roles than their owner.
        await connection.execute("SET LOCAL ROLE NONE")
        try:
            await connection.execute(migration_text(version))
        except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError) as error:
            raise FatalError(
                f"migration {version} failed: {error}. Nothing was changed",
                remedy="apply it as the login that applied the schema; if the database was changed "
                "by hand, compare it with `sessionwatch schema print` of the release before",
            ) from error
        await connection.execute("SET LOCAL ROLE sessionwatch_owner")
        await connection.execute(_MOVE_VERSION, version)


async def _held_by_others(connection: Connection) -> RetryableError:
    """Say who is in the way; another login's program and state are shown to few."""
    holders = await connection.fetch(_HOLDERS, list(SCHEMAS))
    named = "; ".join(
        f"process {row['pid']} ({row['program']}, login {row['login']}, {row['state']})"
        for row in holders[:5]
    )
    return RetryableError(
        f"the schema could not be changed within {LOCK_WAIT_SECONDS:g} s, since others hold locks "
        f"on it: {named or 'they are gone by now'}. Nothing was changed",
        remedy="wait for them, or end them (SELECT pg_terminate_backend(PROCESS)), and try again",
    )


async def _read_version(conn: Connection) -> int | None:
    if not await conn.fetchval(_HAS_VERSION):
        return None
    found = await conn.fetchval(_VERSION)
    return None if found is None else int(found)


def _steps(migrations: tuple[int, ...]) -> str:
    return "migration " + ", ".join(map(str, migrations))


def _incomplete(what: str) -> FatalError:
    return FatalError(
        f"{what} is missing from this installation", remedy="install sessionwatch again"
    )


def _wrong_version(found: int) -> SchemaVersionError:
    newer = found > SCHEMA_VERSION
    return SchemaVersionError(
        f"database schema is version {found}, this program needs {SCHEMA_VERSION}",
        remedy="install the sessionwatch release that made it"
        if newer
        else "stop the daemon, then: sessionwatch schema apply",
    )
