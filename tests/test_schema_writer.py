"""The writer and the owner: what each can do, and what nobody can make their functions do."""

from __future__ import annotations

import asyncpg
import pytest

from indexer.store import schema
from tests.fixtures_database import Connection, connected, url_of
from tests.logins import denied, logged_in, member, rights
from tests.released_schemas import released as released_text
from tests.schema_rows import CHAIN, insert

# What the writer changes in place of what nobody can read again; everything else only grows.
WRITER_CHANGES = {
    "UPDATE evidence.account_observation.enabled_managers",
    "UPDATE evidence.account_observation.tainted",
    "UPDATE evidence.module_code.block_number",
    "UPDATE evidence.module_code.has_code",
    "DELETE evidence.unobserved",
    "UPDATE sessions.session.client_status",
    "UPDATE sessions.session.session_key",
    "UPDATE sessions.session_set.matched_form",
}


async def test_the_writer_has_exactly_its_rights(applied_url: str) -> None:
    """By the catalogue: it writes rows, calls four functions, makes and owns nothing."""
    async with connected(applied_url) as admin:
        found = await rights(admin, "sessionwatch_writer")
        chain = await admin.fetch(
            "SELECT oid::regclass::text, relkind FROM pg_class WHERE relkind IN ('r', 'p', 'v')"
            " AND relnamespace = 'chain'::regnamespace AND NOT relispartition"
        )
    kept = ("evidence.", "sessions.")
    changes = {
        r for r in found if r.startswith(("UPDATE", "DELETE")) and r.split()[1].startswith(kept)
    }
    assert changes == WRITER_CHANGES
    tables = {name for name, kind in chain if kind != b"v"}
    assert {r for r in found if r.startswith("DELETE chain.")} == {f"DELETE {t}" for t in tables}
    # Partitions are reached through their parents.
    assert not [r for r in found if "_c80001_p" in r]
    assert {r for r in found if r.startswith("INSERT ") and r.split()[1].startswith(kept)} == {
        "INSERT evidence.account_observation",
        "INSERT evidence.module_code",
        "INSERT evidence.root_observation",
        "INSERT evidence.unobserved",
        "INSERT sessions.session",
        "INSERT sessions.session_set",
    }
    assert {r for r in found if r.startswith("EXECUTE")} == {
        "EXECUTE chain.drop_partitions(bigint,text,bigint,bigint)",
        "EXECUTE chain.ensure_partitions(bigint,bigint)",
        "EXECUTE chain.is_covered(bigint,text,text,integer,bigint,bigint)",
        "EXECUTE chain.rewind(bigint,bigint,bigint,bytea,boolean)",
        "EXECUTE chain.slice_blocks()",
        "EXECUTE evidence.hex(bytea)",
        "EXECUTE evidence.moment(bigint)",
    }
    words = ("TRUNCATE", "REFERENCES", "TRIGGER", "CREATE", "TEMPORARY", "member", "owner", "is ")
    assert not [r for r in found if r.startswith(words) or " sequence " in r]


async def test_the_writer_can_do_its_work_and_no_more(applied_url: str) -> None:
    """It writes, makes partitions, rewinds; it changes no set, no observation, no version."""
    async with member(applied_url, "sessionwatch_writer") as writer:
        await schema.check_version(writer)
        await insert(writer, "evidence.root_observation", block_number=16)
        await insert(writer, "evidence.module_code")
        set_id = await writer.fetchval("SELECT max(set_id) FROM sessions.session_set")
        await insert(writer, "sessions.session", set_id=set_id)
        await writer.execute("UPDATE evidence.module_code SET has_code = true")
        await writer.execute("UPDATE sessions.session SET client_status = 'revoked'")
        await writer.execute("UPDATE sessions.session_set SET matched_form = 'prefix'")
        await writer.execute("DELETE FROM evidence.unobserved")
        await writer.execute("SELECT * FROM watch.progress, watch.erc1155_balance")
        await writer.execute("SELECT chain.ensure_partitions(80001, 7000000)")
        await writer.execute("SELECT chain.drop_partitions(80001, 'account_event', 0, 0)")
        await writer.execute("SELECT pg_advisory_xact_lock(1)")
        assert (
            await writer.fetchval("SELECT count(*) FROM chain.rewind($1, 15, 16, '')", CHAIN) == 1
        )
        await denied(
            writer,
            "DELETE FROM evidence.root_observation",
            "UPDATE evidence.root_observation SET block_number = 1",
            "UPDATE evidence.account_observation SET implementation = fallback_handler",
            "UPDATE evidence.module_code SET module = module",
            "UPDATE evidence.unobserved SET reason = ''",
            "UPDATE sessions.session_set SET source = ''",
            "UPDATE sessions.session_set SET root = root",
            "DELETE FROM sessions.session_set",
            "UPDATE sessions.session SET leaf = session_validation_module",
            "UPDATE sessions.session SET session_key_data = ''",
            "DELETE FROM sessions.session",
            "SELECT setval('sessions.session_set_set_id_seq', 1)",
            "UPDATE evidence.schema_version SET version = 2",
            "INSERT INTO evidence.schema_version (version) VALUES (2)",
            "DELETE FROM evidence.schema_version",
            "DELETE FROM watch.progress",
            # DDL
            "CREATE TABLE chain.t ()",
            "CREATE TABLE public.t ()",
            "CREATE TEMPORARY TABLE t ()",
            "CREATE TABLE chain.p PARTITION OF chain.account_event DEFAULT",
            "SELECT chain.attach_partition('account_event', 'chain', 80001, 7)",
            "SELECT evidence.accept_backup()",
            "DROP TABLE chain.account_event_c80001_p0",
            "ALTER TABLE chain.account_event DETACH PARTITION chain.account_event_c80001_p0",
            "DROP TABLE chain.reorg",
            "ALTER TABLE chain.chain ADD x int",
            "ALTER TABLE chain.chain DISABLE TRIGGER ALL",
            "CREATE INDEX ON chain.reorg (depth)",
            "DROP INDEX chain.verdict_hex",
            "CREATE OR REPLACE VIEW watch.pace AS SELECT 1",
            "CREATE OR REPLACE FUNCTION chain.slice_blocks() RETURNS bigint LANGUAGE sql RETURN 1",
            "ALTER FUNCTION chain.slice_blocks() RENAME TO s",
            "DROP SCHEMA chain CASCADE",
            "CREATE TRIGGER t AFTER DELETE ON chain.reorg"
            " EXECUTE FUNCTION tsvector_update_trigger()",
            "CREATE RULE r AS ON INSERT TO chain.reorg DO NOTHING",
            "CREATE POLICY p ON chain.reorg",
            "CREATE STATISTICS chain.s ON depth, reason FROM chain.reorg",
            "COMMENT ON TABLE chain.reorg IS ''",
            "ALTER DEFAULT PRIVILEGES FOR ROLE sessionwatch_owner GRANT SELECT ON TABLES TO PUBLIC",
            "TRUNCATE chain.orphan",
            "CREATE SCHEMA s",
            "SELECT lo_create(0)",
            # roles
            "SET ROLE sessionwatch_owner",
            "SET ROLE sessionwatch_reader",
            "SELECT rolpassword FROM pg_authid",
            "SELECT passwd FROM pg_shadow",
            "ALTER ROLE sessionwatch_reader SET statement_timeout = 0",
            "ALTER ROLE sessionwatch_writer LOGIN",
            "ALTER ROLE sessionwatch_owner LOGIN",
            "CREATE ROLE sessionwatch_friend",
            "DROP ROLE sessionwatch_reader",
            "GRANT sessionwatch_owner TO sessionwatch_writer",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT pg_read_file('/etc/hostname')",
        )


async def test_nobody_logs_in_as_the_owner_or_the_writer(applied_url: str) -> None:
    """They are rights and no logins, and nobody but who applied the schema is the owner."""
    async with connected(applied_url) as admin:
        roles = await admin.fetch(
            "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname LIKE 'sessionwatch_%'"
        )
        assert dict(roles) == {
            "sessionwatch_owner": False,
            "sessionwatch_writer": False,
            "sessionwatch_reader": False,
        }
        owned = await admin.fetch(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = ANY"
            " (SELECT oid FROM pg_namespace WHERE nspname = ANY ($1))",
            list(schema.SCHEMAS),
        )
        assert [row[0] for row in owned] == ["sessionwatch_owner"]
    separator = "&" if "?" in applied_url else "?"
    for role in ("sessionwatch_owner", "sessionwatch_writer"):
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(f"{applied_url}{separator}user={role}")


async def test_functions_look_nowhere_else_for_what_they_name(connection: Connection) -> None:
    """Two act with the owner's rights; each function with code has a search_path of its own."""
    rows = await connection.fetch(
        """SELECT p.proname, p.prosecdef, p.proowner::regrole::text AS owner, p.proconfig, l.lanname
             FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
            WHERE p.pronamespace = ANY (SELECT oid FROM pg_namespace WHERE nspname = ANY ($1))""",
        list(schema.SCHEMAS),
    )
    assert {r["proname"] for r in rows if r["prosecdef"]} == {
        "ensure_partitions",
        "drop_partitions",
    }
    assert {r["owner"] for r in rows} == {"sessionwatch_owner"}
    for row in rows:
        # SQL functions are parsed when they are made: names in them are settled.
        if row["lanname"] != "sql":
            assert "search_path=pg_catalog, pg_temp" in row["proconfig"], row["proname"]


HUGE = 2**63 - 1

ABUSES = [
    ("ensure_partitions($1, $2)", (None, 0)),
    ("ensure_partitions($1, $2)", (-1, 0)),
    ("ensure_partitions($1, $2)", (CHAIN, -1)),
    ("ensure_partitions($1, $2)", (CHAIN, None)),
    ("ensure_partitions($1, $2)", (CHAIN, HUGE)),
    ("drop_partitions($1, $2, 0, 1)", (CHAIN, "reorg")),
    ("drop_partitions($1, $2, 0, 1)", (CHAIN, None)),
    ("drop_partitions($1, $2, 0, 1)", (CHAIN, "account_event; DROP TABLE chain.reorg")),
    ("drop_partitions($1, $2, 0, 1)", (CHAIN, 'account_event" CASCADE --')),
    ("drop_partitions($1, $2, 0, 1)", (CHAIN, "account_event_c80001_p0")),
    ("drop_partitions($1, 'account_event', 0, $2)", (CHAIN, HUGE)),
    ("drop_partitions($1, 'account_event', 0, $2)", (CHAIN, None)),
    ("drop_partitions($1, 'account_event', $2, 1)", (99, 0)),
]


async def test_the_owners_functions_refuse_what_they_are_not_for(applied_url: str) -> None:
    """Names of other tables, code in names, ranges beyond what is: nothing is changed."""
    tables = "SELECT array_agg(oid::regclass::text ORDER BY oid) FROM pg_class WHERE relkind <> 't'"
    async with (
        connected(applied_url) as admin,
        member(applied_url, "sessionwatch_writer") as writer,
    ):
        before = await admin.fetchval(tables)
        for call, arguments in ABUSES:
            with pytest.raises(
                (asyncpg.InvalidParameterValueError, asyncpg.ObjectNotInPrerequisiteStateError)
            ):
                await writer.execute(f"SELECT * FROM chain.{call}", *arguments)
        assert await admin.fetchval(tables) == before


async def test_a_range_without_end_or_start_drops_nothing_that_is_not_final(
    applied_url: str,
) -> None:
    """Whatever the first block is, only whole slices of this chain below finality go."""
    async with (
        connected(applied_url) as admin,
        member(applied_url, "sessionwatch_writer") as writer,
    ):
        await admin.execute("SELECT chain.ensure_partitions(1, 0)")
        await writer.execute("UPDATE chain.chain SET finalized_number = 1500000")
        drop = "SELECT dropped_first FROM chain.drop_partitions($1, 'account_event', $2, 1500000)"
        assert await writer.fetch(drop, CHAIN, None) == []
        assert await writer.fetch(drop, CHAIN, HUGE) == []
        assert [row[0] for row in await writer.fetch(drop, CHAIN, -HUGE)] == [0]
        left = await admin.fetch(
            "SELECT relname FROM pg_class WHERE relispartition AND relname LIKE 'account_event%p_'"
            " AND relkind = 'r' ORDER BY 1"
        )
        names = [f"account_event_c{c}" for c in ("1_p0", "1_p1", f"{CHAIN}_p1")]
        assert [row[0] for row in left] == names


async def test_nobody_but_the_owner_holds_makers_of_partitions_up(applied_url: str) -> None:
    """They wait for each other on a table; no advisory lock of somebody else stops them."""
    async with (
        connected(applied_url) as other,
        member(applied_url, "sessionwatch_writer") as writer,
    ):
        await other.execute("SELECT pg_advisory_lock(hashtext('sessionwatch.partitions'))")
        await writer.execute("SET lock_timeout = '2s'")
        await writer.execute("SELECT chain.ensure_partitions(80001, 9000000)")


@pytest.mark.parametrize("released", [False, True])
async def test_an_owner_without_superuser_rights_can_apply(
    empty_database_url: str, postgres_url: str, released: bool
) -> None:
    """CREATEROLE and the ownership of the database are enough where the roles are its own."""
    database = empty_database_url.partition("?")[0].rpartition("/")[2]
    async with logged_in(empty_database_url, "", "CREATEROLE") as (login, url):
        async with connected(url_of(postgres_url, "postgres")) as admin:
            await admin.execute(f"ALTER DATABASE {database} OWNER TO {login}")
            for role in ("owner", "writer", "reader"):  # in this cluster a superuser made them
                await admin.execute(f"GRANT sessionwatch_{role} TO {login} WITH ADMIN OPTION")
        if released:
            async with connected(url) as owner, owner.transaction():
                await owner.execute(released_text(schema.FIRST_VERSION))
        assert (await schema.apply(url)).migrations == ((2,) if released else ())
        async with connected(url_of(postgres_url, "postgres")) as admin:
            await admin.execute(f"ALTER DATABASE {database} OWNER TO CURRENT_USER")
