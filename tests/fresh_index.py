"""The other side of the law: what a daemon writes that sees only the winning branch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.daemon_process import configuration, dump, running_daemon, settled, until
from tests.fixtures_database import connected, temporary_database

__all__ = ["FreshIndexer", "fresh_indexer"]

_SHOWN_ROWS = 10


def differences(fresh: dict[str, list[Any]], found: dict[str, list[Any]]) -> list[str]:
    """Return what only one of two dumps holds, table by table; nothing if they are equal."""
    said: list[str] = []
    for table, rows in fresh.items():
        for label, mine, other in (
            ("missing", rows, found[table]),
            ("too much", found[table], rows),
        ):
            only = [row for row in mine if row not in other]
            said += [f"{table}: {label}: {row}" for row in only[:_SHOWN_ROWS]]
    return said


class FreshIndexer:
    """Indexes a chain as it is now with a daemon of its own, into a database of its own."""

    def __init__(self, postgres_url: str, template: str, folder: Path) -> None:
        self._postgres_url, self._template, self._folder = postgres_url, template, folder

    async def dump(
        self, node_url: str, tip: tuple[int, bytes], **keys: object
    ) -> dict[str, list[Any]]:
        """Return every compared row once this tip (number, hash) is settled."""
        async with temporary_database(self._postgres_url, self._template) as url:
            config = configuration(url, node_url, **keys)  # type: ignore[arg-type]
            async with (
                connected(url) as connection,
                running_daemon(self._folder, config, name="fresh") as daemon,
            ):
                await until(lambda: settled(connection, *tip), "a fresh index", 30)
                found = await dump(connection)
                assert await daemon.stop() == 0
        return found


@pytest.fixture
def fresh_indexer(postgres_url: str, template_database: str, tmp_path: Path) -> FreshIndexer:
    """An indexer that has seen nothing yet."""
    return FreshIndexer(postgres_url, template_database, tmp_path)
