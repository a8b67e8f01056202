"""A layout that is configured later applies to sessions and uses that are stored already."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from indexer.core.passes import all_passes
from indexer.core.session_layout import Layout
from indexer.core.session_sets import build_set
from indexer.core.types import Address, Session
from indexer.store.chain_row import take_over
from indexer.store.layouts import shown_layouts
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.chain.conftest import chain_settings
from tests.fixtures_database import Connection
from tests.schema_rows import insert, rows
from tests.store.filling import ACCOUNT, CHAIN_ID, MANAGER, MODULE

KEY, RECIPIENT = b"\x11" * 20, b"\x22" * 20
DATA = bytes(12) + KEY + bytes(12) + RECIPIENT + (7).to_bytes(32, "big")
MINT: Layout = ("session_key", "recipient", "token_id")
FOUND = """
SELECT session_key, granted_recipient, granted_token_id FROM chain.session_use
 ORDER BY block_number, use_index"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.open(database_url, max_size=2) as opened:
        yield opened


async def start(database: Database, layouts: dict[Address, Layout]) -> None:
    settings = replace(
        chain_settings("http://127.0.0.1:9"), chain_id=CHAIN_ID, session_layouts=layouts
    )
    async with database.transaction() as connection:
        await take_over(connection, settings, all_passes(settings), {})


async def test_a_layout_applies_to_the_past(database: Database, connection: Connection) -> None:
    """Given, changed and taken away again; other modules' sessions stay as they are."""
    given = build_set(CHAIN_ID, MANAGER, ACCOUNT, [Session(0, 0, MODULE, DATA)])
    await start(database, {})
    await import_sets(database, [(given, "plain")])
    for index, module in enumerate((MODULE, b"\x99" * 20)):
        await insert(
            connection, "chain.session_use", chain_id=CHAIN_ID, block_number=5, use_index=index,
            session_validation_module=module, session_key_data=DATA,
        )  # fmt: skip
    unknown = (None, None, None)
    keys = "SELECT session_key FROM sessions.session"
    assert await rows(connection, FOUND) == [unknown, unknown]

    await start(database, {MODULE: MINT})
    assert await rows(connection, FOUND) == [(KEY, RECIPIENT, 7), unknown]
    assert await rows(connection, keys) == [(KEY,)]

    await start(database, {MODULE: ("session_key", "_", "token_id")})
    assert await rows(connection, FOUND) == [(KEY, None, 7), unknown]

    await start(database, {})
    assert await rows(connection, FOUND) == [unknown, unknown]
    assert await rows(connection, keys) == [(None,)]


async def test_the_layouts_in_force_are_recorded(
    database: Database, connection: Connection
) -> None:
    """Known ones too: a release that knows more of them applies them at its first start."""
    await start(database, {MODULE: MINT})
    settings = json.loads(await connection.fetchval("SELECT settings FROM chain.chain"))
    assert settings["session_layouts"] == shown_layouts({MODULE: MINT})
    await connection.execute(
        "UPDATE chain.chain SET settings = settings - 'session_layouts' WHERE chain_id = $1",
        CHAIN_ID,
    )
    await insert(
        connection, "chain.session_use", chain_id=CHAIN_ID, block_number=5,
        session_validation_module=MODULE, session_key_data=DATA, session_key=None,
    )  # fmt: skip
    await start(database, {MODULE: MINT})
    assert await rows(connection, FOUND) == [(KEY, RECIPIENT, 7)]
