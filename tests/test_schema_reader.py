"""The reader: what it can do, and what it cannot, whatever it sets."""

from __future__ import annotations

import asyncpg
import pytest

from indexer.store import schema
from tests.fixtures_database import Connection, connected, temporary_database
from tests.logins import DENIED, denied, member, reader_itself, rights

SETTINGS = (
    "default_transaction_read_only = off",
    "transaction_read_only = off",
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    "search_path = chain, evidence, sessions, watch",
    "row_security = off",
    "session_replication_role = replica",
    "temp_file_limit = -1",
)


async def test_the_reader_has_no_right_but_to_read_the_views(applied_url: str) -> None:
    """By the catalogue, so that nothing can be forgotten."""
    async with connected(applied_url) as admin:
        views = await admin.fetch(
            "SELECT oid::regclass::text FROM pg_class"
            " WHERE relnamespace = 'watch'::regnamespace AND relkind = 'v'"
        )
        assert await rights(admin, "sessionwatch_reader") == {
            *(f"SELECT {view}" for (view,) in views),
            "USAGE schema watch",
            "EXECUTE evidence.hex(bytea)",
            "EXECUTE evidence.moment(bigint)",
            "CONNECT database",
        }


@pytest.mark.parametrize("login", ["member", "itself"])
async def test_a_reader_reads_every_view_and_writes_nowhere(applied_url: str, login: str) -> None:
    """Whatever it SETs: no table, no temporary table, no file, no lock, no other role."""
    opened = (
        reader_itself(applied_url)
        if login == "itself"
        else member(applied_url, "sessionwatch_reader")
    )
    async with connected(applied_url) as admin, opened as reader:
        for (view,) in await admin.fetch(
            "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'watch'::regnamespace"
        ):
            await reader.fetch(f"SELECT * FROM {view}")
        for setting in SETTINGS:
            try:
                await reader.execute(f"SET {setting}")
            except DENIED:
                assert setting.startswith(("session_replication_role", "temp_file_limit"))
        await denied(
            reader,
            # what stands below the views
            "SELECT 1 FROM chain.chain",
            "SELECT 1 FROM evidence.root_observation",
            "SELECT session_key_data FROM sessions.session",
            "SELECT session_key_data FROM chain.session_use",
            "SELECT row_data FROM chain.orphan",
            "SELECT 1 FROM chain.root_change",
            "SELECT last_value FROM sessions.session_set_set_id_seq",
            "TABLE chain.account_event_c80001_p0",
            "COPY sessions.session TO STDOUT",
            # writing
            "INSERT INTO chain.chain (chain_id, name) VALUES (1, 'a')",
            "DELETE FROM watch.progress",
            "UPDATE watch.progress SET chain = ''",
            "INSERT INTO watch.reorg (chain_id) VALUES (1)",
            "TRUNCATE chain.orphan",
            "SELECT * FROM watch.progress FOR UPDATE",
            "DO 'BEGIN LOCK TABLE watch.progress IN SHARE MODE; END'",
            "COPY watch.progress FROM STDIN",
            # making things
            "CREATE TABLE public.t ()",
            "CREATE TABLE watch.t ()",
            "CREATE SCHEMA s",
            "CREATE TEMPORARY TABLE t ()",
            "SELECT 1 INTO TEMPORARY t",
            "CREATE TEMPORARY VIEW v AS SELECT 1",
            "CREATE TEMPORARY SEQUENCE s",
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql RETURN 1",
            "CREATE VIEW watch.v AS SELECT 1",
            "CREATE OR REPLACE VIEW watch.pace AS SELECT 1",
            "COMMENT ON VIEW watch.pace IS ''",
            "SELECT lo_create(0)",
            "SELECT lo_creat(-1)",
            "SELECT lo_from_bytea(0, '')",
            "SELECT lo_import('/etc/hostname')",
            # the server's files and programs
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "COPY (SELECT 1) TO '/tmp/x'",
            "SELECT pg_read_file('/etc/hostname')",
            "SELECT pg_ls_dir('.')",
            "ALTER SYSTEM SET work_mem = '1GB'",
            "SELECT pg_reload_conf()",
            "SELECT pg_switch_wal()",
            # our functions
            "SELECT chain.ensure_partitions(80001, 0)",
            "SELECT chain.drop_partitions(80001, 'account_event', 0, 1)",
            "SELECT chain.rewind(1, 1, 1, '', true)",
            "SELECT chain.is_covered(1, '', '', 0, 1, 1)",
            "SELECT chain.slice_blocks()",
            # locks that the daemon and imports take
            f"SELECT pg_advisory_lock({schema.FOLLOWER_LOCK_CLASS}, hashtext('80001'))",
            "SELECT pg_try_advisory_xact_lock_shared(1)",
            # other roles, and other sessions
            "SET ROLE sessionwatch_writer",
            "SET ROLE sessionwatch_owner",
            "SET SESSION AUTHORIZATION sessionwatch_writer",
            "ALTER ROLE sessionwatch_writer LOGIN",
            "ALTER ROLE sessionwatch_reader SUPERUSER",
            "CREATE ROLE sessionwatch_friend",
            "GRANT sessionwatch_writer TO sessionwatch_reader",
            "SELECT rolpassword FROM pg_authid",
            f"SELECT pg_terminate_backend({await admin.fetchval('SELECT pg_backend_pid()')})",
        )
        # Statistics of columns give away what stands in them.
        below = "SELECT count(*) FROM pg_stats WHERE schemaname = ANY ($1)"
        assert await reader.fetchval(below, ["chain", "evidence", "sessions"]) == 0


async def test_who_logs_in_as_the_reader_has_limits_against_accidents(applied_url: str) -> None:
    """Read only, and an end to what is forgotten; one of them cannot even be lifted by SET."""
    async with reader_itself(applied_url) as reader:
        shown = {
            name: await reader.fetchval(f"SHOW {name}")
            for name in (
                "default_transaction_read_only",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
                "temp_file_limit",
            )
        }
        assert list(shown.values()) == ["on", "30s", "1min", "1GB"]
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await reader.execute("CREATE TEMPORARY TABLE t ()")
        await reader.execute("SET statement_timeout = '10ms'")
        with pytest.raises(asyncpg.QueryCanceledError):
            await reader.execute("SELECT pg_sleep(10)")
        limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'sessionwatch_reader'"
        assert await reader.fetchval(limit) == 30


async def test_what_a_reader_can_do_beside_reading_writes_no_row(applied_url: str) -> None:
    """It may NOTIFY, so a payload is a hint and never a truth; and drop its own settings."""
    async with reader_itself(applied_url) as reader:
        await reader.execute("SET default_transaction_read_only = off")
        await reader.execute("NOTIFY sessionwatch_verdict, 'nobody decided this'")
        await reader.execute("BEGIN")
        try:
            # Postgres lets every login change its own password and settings.
            await reader.execute("ALTER ROLE sessionwatch_reader RESET ALL")
            settings = await reader.fetchval(
                "SELECT rolconfig FROM pg_roles WHERE rolname = 'sessionwatch_reader'"
            )
            assert settings == ["temp_file_limit=1GB"]
            with pytest.raises(DENIED):
                await reader.execute("DELETE FROM watch.progress")
        finally:
            await reader.execute("ROLLBACK")


async def test_what_an_administrator_has_set_for_the_reader_stays(postgres_url: str) -> None:
    """Applying the schema again, or to another database of the cluster, changes no setting."""
    async with temporary_database(postgres_url) as first, connected(first) as admin:
        await schema.apply(first)
        await admin.execute("ALTER ROLE sessionwatch_reader SET statement_timeout = '5min'")
        try:
            async with temporary_database(postgres_url) as second:
                await schema.apply(second)
            settings = await admin.fetchval(
                "SELECT rolconfig FROM pg_roles WHERE rolname = 'sessionwatch_reader'"
            )
        finally:
            await admin.execute("ALTER ROLE sessionwatch_reader SET statement_timeout = '30s'")
    assert "statement_timeout=5min" in settings
    assert "idle_in_transaction_session_timeout=60s" in settings


async def test_no_view_shows_session_key_data(connection: Connection) -> None:
    """Who may spend what stays in the tables, also where raw rows of lost blocks are kept."""
    query = """SELECT DISTINCT d.refobjid::regclass::text || '.' || a.attname
         FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
         JOIN pg_class AS v ON v.oid = r.ev_class AND v.relnamespace = 'watch'::regnamespace
         JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"""
    shown = {row[0] for row in await connection.fetch(query)}
    assert "sessions.session.leaf" in shown
    assert not [c for c in shown if c.endswith(("session_key_data", "row_data"))]
