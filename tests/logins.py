"""Logins of their own for tests of what each role may do."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.fixtures_database import Connection, connected

DENIED = asyncpg.InsufficientPrivilegeError

# Every right that a role has, itself or by PUBLIC, on what is not Postgres' own.
RIGHTS = """
SELECT format('%s %s', p.privilege, c.oid::regclass) AS "right"
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[])
    AS p(privilege)
 WHERE n.nspname IN ('chain', 'evidence', 'sessions', 'watch', 'public')
   AND c.relkind IN ('r', 'p', 'v')
   AND has_table_privilege($1, c.oid, p.privilege)
UNION ALL
SELECT format('%s %s.%s', p.privilege, c.oid::regclass, a.attname)
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 CROSS JOIN unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) AS p(privilege)
 WHERE n.nspname IN ('chain', 'evidence', 'sessions', 'watch', 'public')
   AND c.relkind IN ('r', 'p', 'v')
   AND has_column_privilege($1, c.oid, a.attnum, p.privilege)
   AND NOT has_table_privilege($1, c.oid, p.privilege)
UNION ALL
SELECT format('%s sequence %s', p.privilege, c.oid::regclass)
  FROM pg_class AS c CROSS JOIN unnest('{SELECT,USAGE,UPDATE}'::text[]) AS p(privilege)
 WHERE c.relkind = 'S' AND has_sequence_privilege($1, c.oid, p.privilege)
UNION ALL
SELECT format('%s schema %s', p.privilege, n.nspname)
  FROM pg_namespace AS n CROSS JOIN unnest('{USAGE,CREATE}'::text[]) AS p(privilege)
 WHERE n.nspname !~ '^(pg_|information_schema)' AND has_schema_privilege($1, n.oid, p.privilege)
UNION ALL
SELECT format('EXECUTE %s', f.oid::regprocedure)
  FROM pg_proc AS f JOIN pg_namespace AS n ON n.oid = f.pronamespace
 WHERE n.nspname IN ('chain', 'evidence', 'sessions', 'watch', 'public')
   AND has_function_privilege($1, f.oid, 'EXECUTE')
UNION ALL
SELECT format('%s database', p.privilege)
  FROM unnest('{CONNECT,CREATE,TEMPORARY}'::text[]) AS p(privilege)
 WHERE has_database_privilege($1, current_database(), p.privilege)
UNION ALL
SELECT format('member of %s', m.roleid::regrole) FROM pg_auth_members AS m
 WHERE m.member = to_regrole($1)
UNION ALL
SELECT format('is %s', r.what) FROM pg_roles
 CROSS JOIN LATERAL (VALUES ('superuser', rolsuper), ('creator of roles', rolcreaterole),
        ('creator of databases', rolcreatedb), ('replication', rolreplication),
        ('beyond row security', rolbypassrls), ('login', rolcanlogin)) AS r(what, holds)
 WHERE rolname = $1 AND r.holds
UNION ALL
SELECT format('owner of %s', s.classid::regclass) FROM pg_shdepend AS s
 WHERE s.refobjid = to_regrole($1) AND s.deptype = 'o'"""


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


async def rights(admin: Connection, role: str) -> set[str]:
    """Return every right that a role has."""
    return {row["right"] for row in await admin.fetch(RIGHTS, role)}


async def denied(connection: Connection, *statements: str) -> None:
    """Each has to be refused for want of a right, and for no other reason."""
    wrong = []
    for statement in statements:
        try:
            await connection.execute(statement)
        except DENIED:
            continue
        except asyncpg.PostgresError as error:
            wrong.append(f"{statement}: {error}")
        else:
            wrong.append(f"{statement}: allowed")
    assert not wrong, "\n".join(wrong)


@asynccontextmanager
async def reader_itself(url: str) -> AsyncIterator[Connection]:
    """A connection of who logs in as the role sessionwatch_reader, as Grafana does."""
    async with connected(url) as admin:
        await admin.execute("ALTER ROLE sessionwatch_reader LOGIN")
        try:
            separator = "&" if "?" in url else "?"
            async with connected(f"{url}{separator}user=sessionwatch_reader") as reader:
                yield reader
        finally:
            await admin.execute("ALTER ROLE sessionwatch_reader NOLOGIN")


@asynccontextmanager
async def member(url: str, role: str) -> AsyncIterator[Connection]:
    """A connection of a login that is a member of a role."""
    async with logged_in(url, role) as (_, login_url), connected(login_url) as opened:
        yield opened
