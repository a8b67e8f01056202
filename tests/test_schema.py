"""schema.sql as an interface: every object explained, versions, roles, partitions."""

from __future__ import annotations

import asyncio
import re

import asyncpg
import pytest

from indexer.errors import FatalError, SchemaVersionError
from indexer.store import schema
from indexer.store.embedded import postgres_binaries
from tests.fixtures_database import Connection, connected
from tests.logins import logged_in
from tests.schema_rows import CHAIN, insert, make_chain

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
