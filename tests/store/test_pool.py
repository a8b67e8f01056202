"""What Postgres' refusals mean: wait for it, or wake someone."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from indexer.errors import DatabaseUnavailableError
from indexer.store.pool import Database
from tests.fixtures_database import connected


async def test_a_database_closed_to_connections_is_waited_for(
    database_url: str, postgres_url: str
) -> None:
    """As while it is moved or restored: it opens again, and nobody has to do anything here."""
    name = urlsplit(database_url).path.removeprefix("/")
    async with connected(postgres_url) as admin:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            async with Database.open(database_url, schema_check=False) as database:
                with pytest.raises(DatabaseUnavailableError, match="accepts no connections"):
                    await database.check_schema()
        finally:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    async with Database.open(database_url) as database:
        await database.check_schema()
