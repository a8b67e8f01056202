"""Every text that the database can hold, hostile: no page lets it become markup."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import aiohttp
import asyncpg
import pytest

from indexer.store.pool import Database
from indexer.web.health import Health
from tests.fixtures_database import Connection
from tests.released_schemas import TABLES
from tests.schema_rows import insert
from tests.web.serving import serving
from tests.web.story import ALICE_CHECKSUM, HOSTILE, fill

TEXT_COLUMNS = """
SELECT c.oid::regclass::text AS relation, quote_ident(a.attname) AS name, a.atttypid::regtype::text
  FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
 WHERE c.relnamespace = ANY (ARRAY['chain', 'evidence', 'sessions']::regnamespace[])
   AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT a.attisdropped
   -- Warnings have words of their own, and a page that finds others is an error.
   AND (c.relname, a.attname) <> ('verdict', 'warnings')
   AND a.atttypid = ANY (ARRAY['text', 'text[]', 'jsonb']::regtype[]) AND a.attgenerated = ''
 ORDER BY 1, 2"""

VALUES = {"text": "$1::text", "text[]": "ARRAY[$1::text]", "jsonb": "to_jsonb($1::text)"}


class Elements(HTMLParser):
    """Collects the names of elements, and of attributes that run a script."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs if name.startswith("on"))}


async def fill_the_rest(connection: Connection) -> None:
    """Give the tables that the story leaves empty a row each."""
    await insert(connection, "chain.reorg")
    reorg_id = await connection.fetchval("SELECT max(reorg_id) FROM chain.reorg")
    for (table,) in await connection.fetch(TABLES):
        if await connection.fetchval(f"SELECT count(*) FROM {table}") == 0:
            reorg = {"reorg_id": reorg_id} if table == "chain.orphan" else {}
            await insert(connection, table, **reorg)


async def spoil(connection: Connection) -> set[str]:
    """Put the hostile text wherever no constraint forbids it; return where it stands."""
    spoilt = set()
    for relation, name, kind in await connection.fetch(TEXT_COLUMNS):
        try:
            async with connection.transaction():
                done = await connection.execute(
                    f"UPDATE {relation} SET {name} = {VALUES[kind]}", HOSTILE
                )
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.RaiseError):
            continue
        if done != "UPDATE 0":
            spoilt.add(f"{relation}.{name}")
    return spoilt


@pytest.mark.parametrize("path", ["/", f"/?account={ALICE_CHECKSUM}", "/?severity=critical"])
async def test_no_text_of_the_database_becomes_markup(
    path: str, database_url: str, connection: Connection
) -> None:
    """Whichever column it stands in."""
    await fill(connection)
    await fill_the_rest(connection)
    spoilt = await spoil(connection)
    assert {"chain.verdict.explanation", "sessions.session_set.source"} <= spoilt
    async with (
        Database.open(database_url) as database,
        serving(Health(started_monotonic=time.monotonic()), database=database) as port,
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        page = await answer.text()
        assert answer.status == 200
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    elements = Elements()
    elements.feed(page)
    assert elements.found.isdisjoint({"script", "img", "iframe", "onerror"})
