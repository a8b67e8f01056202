"""Postgres for the tests: a throw-away cluster per worker, a database of its own per test."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from indexer.store import schema
from indexer.store.embedded import EmbeddedPostgres
from tests.schema_rows import address, insert, make_chain

__all__ = [
    "applied_url",
    "connection",
    "database_url",
    "empty_database_url",
    "postgres_url",
    "template_database",
]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_URL = re.compile(r"(?P<server>postgres(?:ql)?://[^/?]*)(?:/[^?]*)?(?P<options>\?.*)?")


def url_of(server_url: str, database: str) -> str:
    """Return the URL of another database on the same server."""
    match = _URL.fullmatch(server_url)
    assert match is not None, "not a postgresql:// URL"
    return f"{match['server']}/{database}{match['options'] or ''}"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection for as long as this lasts."""
    opened = await asyncpg.connect(url)
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def temporary_database(server_url: str, template: str = "template0") -> AsyncIterator[str]:
    """Make a database, give its URL, drop it whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    maintenance = url_of(server_url, "postgres")
    async with connected(maintenance) as admin:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield url_of(server_url, name)
    finally:
        async with connected(maintenance) as admin:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
async def postgres_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """A superuser's URL of a running server: --postgres-url, else a cluster of this worker."""
    given = request.config.getoption("--postgres-url")
    if given:
        yield given
        return
    folder: Path = tmp_path_factory.mktemp("postgres")
    async with EmbeddedPostgres(folder, fsync=False) as server:
        yield server.url


@pytest.fixture(scope="session")
async def template_database(postgres_url: str) -> AsyncIterator[str]:
    """The name of a database with the schema applied, to be copied by each test."""
    async with temporary_database(postgres_url) as url:
        await schema.apply(url)
        async with connected(url) as opened:
            name = await opened.fetchval("SELECT current_database()")
        yield name


@pytest.fixture
async def database_url(postgres_url: str, template_database: str) -> AsyncIterator[str]:
    """The URL of a fresh database with the schema, dropped after the test."""
    async with temporary_database(postgres_url, template_database) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a fresh database without the schema."""
    async with temporary_database(postgres_url) as url:
        yield url


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """A superuser's connection to the test's database; bytes for bytea, Decimal for numeric."""
    async with connected(database_url) as opened:
        yield opened


@pytest.fixture
async def applied_url(postgres_url: str) -> AsyncIterator[str]:
    """A database with the schema applied to it, a chain and a stored set.

    A copy of the template would lack the database's own rights.
    """
    async with temporary_database(postgres_url) as url:
        await schema.apply(url)
        async with connected(url) as opened:
            await make_chain(opened)
            await insert(opened, "sessions.session_set", account=address(1))
        yield url
