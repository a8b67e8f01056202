"""The connection pool: one place that turns asyncpg's failures into ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg

from indexer.errors import DatabaseUnavailableError, FatalError, StaleStepError

WRITER_ROLE = "sessionwatch_writer"

LOCK_TIMEOUT_SECONDS = 20
"""Our own transactions hold no lock so long. Somebody else's may stay: then that is said."""
STATEMENT_TIMEOUT_SECONDS = 120
"""One statement that lasts longer is given up. The unit's WatchdogSec is longer than this."""

# What asyncpg raises when the server went away, came back, or is starting or stopping.
_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # a server that dies between two messages leaves asyncpg's own state machine behind
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.ReadOnlySQLTransactionError,
    # a statement or connection that an operator, or a timeout of theirs, has ended
    asyncpg.OperatorInterventionError,
    # ALTER DATABASE … ALLOW_CONNECTIONS false, as while it is moved or restored
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)

# Somebody else's transaction got in the way: the whole step is simply done again.
_CONFLICT = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)

_REFUSED = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidSchemaNameError,
)


class Database:
    """A pool of connections that act as the least privileged role they can."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        schema_check: bool = True,
        role: str | None = WRITER_ROLE,
        max_size: int = 6,
        on_statement: Callable[[], None] | None = None,
    ) -> AsyncIterator[Self]:
        """Make the pool, check the schema's version, act as `role` where the login may.

        A login that is not a member of `role` keeps its own rights. Raises
        DatabaseUnavailableError, SchemaVersionError, or FatalError when the server refuses;
        without `schema_check` nothing connects yet, so nothing of that is raised. `on_statement`
        is called after each statement that was done, in the context of who asked for it.
        """

        def done(query: asyncpg.connection.LoggedQuery) -> None:
            if on_statement is not None and query.exception is None:
                on_statement()

        async def setup(connection: asyncpg.Connection[asyncpg.Record]) -> None:
            # Not a setting of the connection: a pooler in between would refuse to pass it on.
            await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
            if role is not None:
                await connection.execute(_SET_ROLE.replace("ROLE_NAME", role))
            if on_statement is not None:
                connection.add_query_logger(done)

        with translated():
            pool = await asyncpg.create_pool(
                url,
                # Connects when asked first; a floor kept in the background would log tracebacks.
                min_size=0,
                max_size=max_size,
                init=setup,
                # RESET ALL would drop the role; a connection never leaves a transaction open
                reset=_no_reset,
                timeout=10,
                command_timeout=STATEMENT_TIMEOUT_SECONDS,
                server_settings={"application_name": "sessionwatch"},
            )
        try:
            database = cls(pool)
            if schema_check:
                await database.check_schema()
            yield database
        finally:
            pool.terminate()

    async def check_schema(self) -> None:
        """Connect, and refuse a schema that is missing or of another version."""
        from indexer.store.schema import check_version  # noqa: PLC0415 - it imports us

        async with self.connection() as connection:
            await check_version(connection)

    def abort(self) -> None:
        """Cut every connection, whatever waits on it: a server that hangs answers no cancelling."""
        self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection without a transaction, for reads that need none."""
        with translated():
            async with self._pool.acquire(timeout=30) as connection:
                yield connection  # type: ignore[misc]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """One transaction: everything in the block is written, or nothing."""
        with translated():
            async with self._pool.acquire(timeout=30) as connection, connection.transaction():
                yield connection  # type: ignore[misc]

    @asynccontextmanager
    async def brief_snapshot(
        self, statement_seconds: float, what: str
    ) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """One moment of the database, read only, for what is not worth a long statement.

        Raises DatabaseUnavailableError for `what` when a statement takes longer.
        """
        async with self.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            await connection.execute(
                f"SET LOCAL statement_timeout = {int(statement_seconds * 1000)}"
            )
            try:
                yield connection
            except asyncpg.QueryCanceledError as error:
                raise DatabaseUnavailableError(
                    f"the database took more than {statement_seconds:g} seconds for {what}",
                    remedy="look for long-running queries in pg_stat_activity",
                ) from error


# `role` is one of our own constants, never input. The setting lasts until the connection closes.
_SET_ROLE = """
DO $body$ BEGIN
    -- Nested, because SQL's AND has no order: before the schema is applied there is no such role.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ROLE_NAME') THEN
        IF current_user <> 'ROLE_NAME' AND pg_has_role(session_user, 'ROLE_NAME', 'MEMBER') THEN
            EXECUTE 'SET ROLE ROLE_NAME';
        END IF;
    END IF;
END $body$
"""


async def _no_reset(connection: Any) -> None:
    """Keep the role: transactions end by themselves, and nothing else is ever set."""


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _why(error: Exception) -> str:
    """Say in words what kept the server from answering; its own text may name anything."""
    for kinds, words in (
        (ConnectionRefusedError, "the connection was refused"),
        (FileNotFoundError, "its socket is not there"),
        (socket.gaierror, "its host name is not known"),
        (TimeoutError, "it did not answer in time"),
        (asyncpg.CannotConnectNowError, "it is starting or stopping"),
        (asyncpg.TooManyConnectionsError, "it has no connection left"),
        (asyncpg.DiskFullError, "its disk is full"),
        (asyncpg.OutOfMemoryError, "it is out of memory"),
        (asyncpg.ReadOnlySQLTransactionError, "it accepts no writes"),
        (asyncpg.ObjectNotInPrerequisiteStateError, "it accepts no connections"),
    ):
        if isinstance(error, kinds):
            return words
    return f"the connection was lost ({type(error).__name__})"


class translated:  # noqa: N801 - reads as the statement it is
    """Turn asyncpg's failures inside the block into ours; a conflict means: repeat the step."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, _UNAVAILABLE) and _is_cancelled():
            # the rollback of a cancelled step failed, too: that must not undo the cancelling
            raise asyncio.CancelledError from error
        if isinstance(error, asyncpg.ClientConfigurationError):
            raise FatalError(
                "database.url is not a URL that Postgres understands",
                remedy="it looks like postgresql://user:password@host:5432/sessionwatch",
            ) from None
        if isinstance(error, ValueError):
            return  # asyncpg's complaint about an argument is a fault of ours
        if isinstance(error, _REFUSED):
            raise FatalError(
                f"the database refused: {error}",
                remedy="check database.url, the role's rights, and `sessionwatch schema apply`",
            ) from error
        if isinstance(error, asyncpg.LockNotAvailableError):
            raise DatabaseUnavailableError(
                f"a lock in the database was held by somebody for {LOCK_TIMEOUT_SECONDS} seconds",
                remedy="end the transaction that holds it: SELECT pid, state, query FROM "
                "pg_stat_activity WHERE pid IN (SELECT unnest(pg_blocking_pids(pid)) "
                "FROM pg_stat_activity WHERE application_name = 'sessionwatch')",
            ) from error
        if isinstance(error, _CONFLICT):
            raise StaleStepError(
                f"the database asked to repeat the transaction ({type(error).__name__})"
            ) from error
        if isinstance(error, _UNAVAILABLE):
            raise DatabaseUnavailableError(
                f"the database cannot be reached: {_why(error)}",
                remedy="is Postgres running, and is database.url right?",
            ) from error
