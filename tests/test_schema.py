"""schema.sql as an interface: every object explained, versions, roles, partitions."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from indexer.errors import FatalError, SchemaVersionError
from indexer.store import schema
from indexer.store.embedded import postgres_binaries
from tests.fixtures_database import Connection, connected, url_of
from tests.schema_rows import CHAIN, address, insert, make_chain

# Tables of schema chain that a rewind does not go through, and why.
NOT_BY_BLOCK = {
    "chain": "one row per chain, set by the rewind itself",
    "cohort": "who was learnt together does not depend on a branch",
    "coverage": "holds final blocks only; a rewind below finality subtracts",
    "erc1155_balance": "folded from final blocks only; a rewind below finality folds back",
    "pace": "how fast debt was paid, on whatever branch",
    "reorg": "what the rewinds were",
    "orphan": "where the rows go",
    "verdict_queue": "work to do, for whatever branch",
}

UNCOMMENTED = """
SELECT n.nspname AS object FROM pg_namespace AS n
 WHERE n.nspname = ANY ($1) AND obj_description(n.oid, 'pg_namespace') IS NULL
UNION ALL
SELECT t.oid::regtype::text FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
 WHERE n.nspname = ANY ($1) AND t.typtype = 'd' AND obj_description(t.oid, 'pg_type') IS NULL
UNION ALL
SELECT p.oid::regprocedure::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
 WHERE n.nspname = ANY ($1) AND obj_description(p.oid, 'pg_proc') IS NULL
UNION ALL
SELECT concat_ws('.', c.oid::regclass::text, a.attname) FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v')
   AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)
UNION ALL
SELECT rolname FROM pg_roles
 WHERE rolname LIKE 'sessionwatch%' AND shobj_description(oid, 'pg_authid') IS NULL"""

TABLES = """
SELECT c.relname,
       EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid
                AND a.attname = 'block_number') AS by_block,
       EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indpred IS NULL
                AND pg_get_indexdef(i.indexrelid, 1, true) = 'chain_id'
                AND pg_get_indexdef(i.indexrelid, 2, true) = 'block_number') AS indexed
  FROM pg_class AS c
 WHERE c.relnamespace = 'chain'::regnamespace AND c.relkind IN ('r', 'p')
   AND NOT c.relispartition"""


@asynccontextmanager
async def logged_in(
    database_url: str, role: str, options: str = ""
) -> AsyncIterator[tuple[str, str]]:
    """The name and the URL of a fresh login that is a member of `role` (if any)."""
    login, member = f"login_{uuid.uuid4().hex}", f"IN ROLE {role}" if role else ""
    async with connected(database_url) as admin:
        await admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' {options} {member}")
    separator = "&" if "?" in database_url else "?"
    try:
        yield login, f"{database_url}{separator}user={login}&password=x"
    finally:
        async with connected(database_url) as admin:
            await admin.execute(f"DROP OWNED BY {login} CASCADE")
            # what it granted to itself would keep it alive
            await admin.execute(f"REVOKE sessionwatch_owner FROM {login} CASCADE")
            await admin.execute(f"DROP ROLE {login}")


async def test_everything_has_a_comment(connection: Connection) -> None:
    """Every schema, domain, function, table, view, column, partition and role says what it is."""
    await connection.execute("SELECT chain.ensure_partitions(80001, 0)")
    missing = await connection.fetch(UNCOMMENTED, list(schema.SCHEMAS))
    assert [row["object"] for row in missing] == []


async def test_no_chain_table_can_be_forgotten_by_a_rewind(connection: Connection) -> None:
    """A chain table has block_number and an index led by (chain_id, block_number), or is listed."""
    tables = {row["relname"]: row for row in await connection.fetch(TABLES)}
    assert {name for name, row in tables.items() if not row["by_block"]} == set(NOT_BY_BLOCK)
    assert [name for name, row in tables.items() if row["by_block"] and not row["indexed"]] == []


async def test_nothing_cascades(connection: Connection) -> None:
    """No foreign key deletes or changes rows of another table."""
    query = (
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND NOT (confdeltype = 'a' AND"
        " confupdtype = 'a')"
    )
    assert await connection.fetch(query) == []


async def test_applying_twice_changes_nothing(empty_database_url: str) -> None:
    """The second apply says that the version is there."""
    assert "now has schema version 2" in (await schema.apply(empty_database_url)).sentence()
    assert "already has" in (await schema.apply(empty_database_url)).sentence()


async def test_two_that_apply_at_once_do_not_collide(empty_database_url: str) -> None:
    """One of them does the work, the other waits and finds it done."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(schema.apply(empty_database_url)) for _ in range(2)]
    assert sorted("already" in task.result().sentence() for task in tasks) == [False, True]


async def test_a_dry_run_leaves_nothing_behind(empty_database_url: str) -> None:
    """A dry run applies the schema and rolls it back."""
    assert "rolled back" in (await schema.apply(empty_database_url, dry_run=True)).sentence()
    async with connected(empty_database_url) as opened:
        with pytest.raises(SchemaVersionError, match="no sessionwatch schema") as caught:
            await schema.check_version(opened)
    assert caught.value.remedy == "sessionwatch schema apply"


@pytest.mark.parametrize(("found", "remedy"), [(0, "schema apply"), (3, "install")])
async def test_another_version_is_refused(
    database_url: str, connection: Connection, found: int, remedy: str
) -> None:
    """The error names both versions and what to do; apply touches nothing then."""
    await schema.check_version(connection)
    await connection.execute("UPDATE evidence.schema_version SET version = $1", found)
    for attempt in (schema.check_version(connection), schema.apply(database_url)):
        with pytest.raises(SchemaVersionError, match=f"version {found}.*needs 2") as caught:
            await attempt
        assert remedy in caught.value.remedy


async def test_schemas_of_somebody_else_are_left_alone(empty_database_url: str) -> None:
    """A database with a schema called `chain` that is not ours is refused."""
    async with connected(empty_database_url) as opened:
        await opened.execute("CREATE SCHEMA chain")
    with pytest.raises(SchemaVersionError, match="'chain' that sessionwatch did not make"):
        await schema.apply(empty_database_url)


async def test_the_file_is_what_psql_takes(empty_database_url: str) -> None:
    """`psql -1 -f schema.sql` prepares a database; outside a transaction it refuses."""
    psql = str(postgres_binaries() / "psql")
    for flags, code in ((), 3), (("-1",), 0):
        process = await asyncio.create_subprocess_exec(
            psql,
            "-X",
            "-q",
            *flags,
            "-v",
            "ON_ERROR_STOP=1",
            "-f",
            "-",
            empty_database_url,
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate(schema.schema_text().encode())
        assert process.returncode == code, errors.decode()
    async with connected(empty_database_url) as opened:
        await schema.check_version(opened)


async def test_an_owner_without_superuser_rights_can_apply(
    empty_database_url: str, postgres_url: str
) -> None:
    """CREATEROLE and the ownership of the database are enough where the roles are its own."""
    database = empty_database_url.partition("?")[0].rpartition("/")[2]
    async with logged_in(empty_database_url, "", "CREATEROLE") as (login, url):
        async with connected(url_of(postgres_url, "postgres")) as admin:
            await admin.execute(f"ALTER DATABASE {database} OWNER TO {login}")
            for role in ("owner", "writer", "reader"):  # in this cluster a superuser made them
                await admin.execute(f"GRANT sessionwatch_{role} TO {login} WITH ADMIN OPTION")
        assert "now has" in (await schema.apply(url)).sentence()
        async with connected(url_of(postgres_url, "postgres")) as admin:
            await admin.execute(f"ALTER DATABASE {database} OWNER TO CURRENT_USER")


async def test_a_reader_reads_every_view_and_nothing_else(empty_database_url: str) -> None:
    """Whatever a reader SETs, it writes nowhere and sees no table, and no session_key_data."""
    await schema.apply(empty_database_url)  # a copy of a template has not its rights as a database
    async with connected(empty_database_url) as admin:
        await make_chain(admin)
        await insert(admin, "sessions.session_set", account=address(1))
        views = await admin.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'watch'::regnamespace"
        )
    async with (
        logged_in(empty_database_url, "sessionwatch_reader") as (_, url),
        connected(url) as reader,
    ):
        for (view,) in views:
            await reader.fetch(f"SELECT * FROM watch.{view}")
        for setting in (
            "default_transaction_read_only = off",
            "transaction_read_only = off",
            "statement_timeout = 0",
            "search_path = chain, evidence, sessions, watch",
            "row_security = off",
        ):
            await reader.execute(f"SET {setting}")
        for statement in (
            "SELECT 1 FROM chain.chain",
            "SELECT 1 FROM evidence.root_observation",
            "SELECT session_key_data FROM sessions.session",
            "SELECT 1 FROM chain.root_change",
            "INSERT INTO chain.chain (chain_id, name) VALUES (1, 'a')",
            "DELETE FROM watch.progress",
            "UPDATE watch.progress SET chain = ''",
            "CREATE TABLE public.t ()",
            "CREATE SCHEMA s",
            "CREATE TEMPORARY TABLE t ()",
            "CREATE VIEW watch.v AS SELECT 1",
            "SELECT lo_create(0)",
            "SELECT chain.ensure_partitions(80001, 0)",
            "SELECT chain.drop_partitions(80001, 'account_event', 0, 1)",
            "SELECT chain.rewind(1, 1, 1, '', true)",
            "SET ROLE sessionwatch_writer",
            "SET ROLE sessionwatch_owner",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT chain.is_covered(1, '', '', 0, 1, 1)",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reader.execute(statement)


async def test_who_logs_in_as_the_reader_gets_safe_defaults(connection: Connection) -> None:
    """Read only and a statement timeout stand at the role itself."""
    settings = await connection.fetchval(
        "SELECT rolconfig FROM pg_roles WHERE rolname = 'sessionwatch_reader'"
    )
    assert sorted(settings) == [
        "default_transaction_read_only=on",
        "idle_in_transaction_session_timeout=60s",
        "statement_timeout=30s",
        "temp_file_limit=1GB",
    ]


async def test_no_view_shows_session_key_data(connection: Connection) -> None:
    """Who may spend what stays in the table."""
    query = """SELECT DISTINCT a.attname FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
        JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.refobjid = 'sessions.session'::regclass"""
    shown = {row["attname"] for row in await connection.fetch(query)}
    assert "leaf" in shown
    assert "session_key_data" not in shown


async def test_the_writer_can_do_its_work_and_no_more(database_url: str) -> None:
    """The writer writes, makes partitions, rewinds; it changes no set and no observation."""
    async with logged_in(database_url, "sessionwatch_writer") as (_, url), connected(url) as writer:
        await schema.check_version(writer)
        await make_chain(writer)
        await insert(writer, "evidence.root_observation", block_number=16)
        await insert(writer, "evidence.module_code")
        await insert(writer, "sessions.session_set")
        await insert(
            writer,
            "sessions.session",
            set_id=await writer.fetchval("SELECT max(set_id) FROM sessions.session_set"),
        )
        await writer.execute("UPDATE evidence.module_code SET has_code = true")
        await writer.execute("UPDATE sessions.session SET client_status = 'revoked'")
        await writer.execute("UPDATE sessions.session_set SET matched_form = 'prefix'")
        await writer.execute("DELETE FROM evidence.unobserved")
        await writer.execute("SELECT * FROM watch.progress, watch.erc1155_balance")
        await writer.execute("SELECT chain.drop_partitions(80001, 'account_event', 0, 0)")
        assert (
            await writer.fetchval("SELECT count(*) FROM chain.rewind($1, 15, 16, '')", CHAIN) == 1
        )
        for statement in (
            "DELETE FROM evidence.root_observation",
            "UPDATE evidence.root_observation SET block_number = 1",
            "UPDATE sessions.session_set SET source = ''",
            "UPDATE sessions.session SET leaf = session_validation_module",
            "DELETE FROM sessions.session",
            "UPDATE evidence.schema_version SET version = 2",
            "INSERT INTO evidence.schema_version (version) VALUES (2)",
            "CREATE TABLE chain.t ()",
            "SELECT chain.attach_partition('account_event', 'chain', 80001, 7)",
            "DROP TABLE chain.account_event_c80001_p0",
            "DROP TABLE chain.reorg",
            "ALTER TABLE chain.chain ADD x int",
            "TRUNCATE chain.orphan",
            "CREATE SCHEMA s",
            "SET ROLE sessionwatch_owner",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await writer.execute(statement)


async def test_partitions_are_made_ahead_once(database_url: str, connection: Connection) -> None:
    """The slice of a block and the next one get partitions, however many ask at the same time."""

    async def ask() -> None:
        async with connected(database_url) as other:
            await other.execute("SELECT chain.ensure_partitions(80001, 41999999)")

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(ask())
    found = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE relkind = 'r' AND inhparent = ANY ($1::text[]::regclass[])",
        ["chain.account_event", "chain.user_operation", "chain.erc1155_transfer"],
    )
    tables = ("account_event", "erc1155_transfer", "user_operation")
    assert sorted(row["name"] for row in found) == [
        f"chain.{t}_c80001_p{n}" for t in tables for n in (41, 42)
    ]
    for table in tables:
        for block in (41_000_000, 42_999_999):
            await insert(connection, f"chain.{table}", block_number=block)


async def test_partitions_are_made_while_somebody_reads(
    database_url: str, connection: Connection
) -> None:
    """An open reader of the table does not hold the writer up."""
    async with connected(database_url) as reader, reader.transaction():
        await reader.fetch("SELECT * FROM watch.erc1155_transfer")
        await connection.execute("SET lock_timeout = '1s'")
        await connection.execute("SELECT chain.ensure_partitions(80001, 0)")


async def test_each_chain_has_slices_of_its_own(connection: Connection) -> None:
    """A block range of one chain reads the partitions of that chain and those blocks, no other."""
    for chain_id, block in ((1, 5), (CHAIN, 5), (CHAIN, 7_000_000)):
        await connection.execute("SELECT chain.ensure_partitions($1, $2)", chain_id, block)
    for table in ("account_event", "user_operation", "erc1155_transfer"):
        plan = await connection.fetch(
            f"EXPLAIN SELECT * FROM chain.{table} WHERE chain_id = {CHAIN}"
            " AND block_number BETWEEN 999000 AND 1000500"
        )
        read = {name for row in plan for name in re.findall(rf"{table}_c\d+_p\d+\b", row[0])}
        assert read == {f"{table}_c{CHAIN}_p0", f"{table}_c{CHAIN}_p1"}


async def test_retention_drops_whole_final_slices(connection: Connection) -> None:
    """Only slices of this chain, between the blocks, and only when the chain is final there."""
    await make_chain(connection, final=10, tip=12)
    await connection.execute("SELECT chain.ensure_partitions(1, 0)")

    async def drop(table: str, first: int, before: int) -> list[tuple[int, int]]:
        query = "SELECT dropped_first, dropped_last FROM chain.drop_partitions($1, $2, $3, $4)"
        return [tuple(row) for row in await connection.fetch(query, CHAIN, table, first, before)]

    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await drop("account_event", 0, 1_000_000)
    await connection.execute("UPDATE chain.chain SET finalized_number = 1999999")
    assert await drop("account_event", 1, 1_999_999) == []
    assert await drop("account_event", 0, 1_999_999) == [(0, 999_999)]
    left = await connection.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'chain.account_event'::regclass ORDER BY 1"
    )
    names = ("c1_p0", "c1_p1", f"c{CHAIN}_p1")
    assert [row[0] for row in left] == [f"chain.account_event_{name}" for name in names]
    assert await connection.fetchval("SELECT detail_from FROM watch.progress") == 1_000_000
    with pytest.raises(asyncpg.InvalidParameterValueError, match="no partitions"):
        await drop("chain", 0, 1)


async def test_a_missing_right_is_told_apart_from_a_missing_schema(database_url: str) -> None:
    """A login that may not see the version is told which grant it lacks."""
    async with logged_in(database_url, "") as (_, url), connected(url) as stranger:
        with pytest.raises(FatalError, match="may not read") as caught:
            await schema.check_version(stranger)
    assert "GRANT sessionwatch_writer" in caught.value.remedy
