"""What the page, /status, the daemon and `explain` read again and again, as they read it.

For the tests of plans, beside the questions of tests/query_catalogue.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from indexer.core.types import Address
from indexer.store.account_page import read_account_page
from indexer.store.drift_list import read_drift_list
from indexer.store.explain import read_account
from indexer.store.pool import Database
from indexer.store.sessions import count_sessions
from indexer.store.status import read_status
from indexer.store.verdicts import count_open
from tests.bench.filled_database import CHAIN_ID

_OF_THE_CLIENT = re.compile(r"typeinfo_tree|(current_setting|set_config)\('jit'")
"""What asyncpg asks for itself before it knows a type."""

Values: TypeAlias = Mapping[str, object]
Read: TypeAlias = Callable[[Database, Values], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Statement:
    """One that was executed, with its values."""

    sql: str
    values: tuple[Any, ...]


def _account(values: Values) -> Address:
    return Address(bytes.fromhex(str(values["account"])[2:]))


async def _account_page(database: Database, values: Values) -> object:
    return await read_account_page(database, _account(values), None)


async def _explain(database: Database, values: Values) -> object:
    return await read_account(database, _account(values), chain_id=None, manager=None)


async def _drifts(database: Database, _: Values) -> object:
    return await read_drift_list(database, chain=None, cause=None, severity=None)


async def _some_drifts(database: Database, _: Values) -> object:
    return await read_drift_list(database, chain="mumbai", cause="superseded", severity="critical")


async def _status(database: Database, _: Values) -> object:
    return await read_status(database)


async def _sessions(database: Database, _: Values) -> object:
    return await count_sessions(database, CHAIN_ID)


async def _verdicts(database: Database, _: Values) -> object:
    return await count_open(database, CHAIN_ID)


OF_ACCOUNT: Mapping[str, Read] = {"page of an account": _account_page, "explain": _explain}
OF_ALL: Mapping[str, Read] = {
    "page of drifts": _drifts,
    "page of drifts chosen": _some_drifts,
    "status": _status,
}
COUNTS: Mapping[str, Read] = {"sessions by state": _sessions, "verdicts": _verdicts}
"""They read everything there is of a kind: the daemon does, rarely or once."""


@asynccontextmanager
async def recorded(url: str) -> AsyncIterator[tuple[Database, list[Statement]]]:
    """A database that writes down what is read from it; transactions' own statements left out."""
    found: list[Statement] = []

    def note(record: Any) -> None:
        is_read = record.query.lstrip().startswith(("SELECT", "WITH"))
        if is_read and _OF_THE_CLIENT.search(record.query) is None:
            found.append(Statement(record.query, tuple(record.args or ())))

    async with Database.open(url, max_size=1) as database:
        async with database.connection() as connection:
            connection.add_query_logger(note)
        yield database, found
