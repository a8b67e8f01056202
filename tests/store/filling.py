"""Puts blocks, observations and stored sets into a test's database, as the daemon would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg

from indexer.core.merkle import keccak
from indexer.core.session_sets import SessionSet, build_set
from indexer.core.types import Address, Hash32, Session
from indexer.store.pool import Database

CHAIN_ID = 80001
MANAGER = Address(bytes.fromhex("000002fbffedd9b33f4e7156f2de8d48945e7489"))
OTHER_MANAGER = Address(bytes.fromhex("000000456b395c4e107e0302553b90d1ef4a32e9"))
ACCOUNT = Address(b"\xac" * 20)
MODULE = Address(b"\x5e" * 20)
KEY = (MANAGER, ACCOUNT)
START = 1_700_000_000
"""Block n has the time START + n."""


def block_hash(number: int, branch: str = "") -> Hash32:
    return keccak(f"block {number}{branch}".encode())


def session_set(
    names: list[int], *, manager=MANAGER, account=ACCOUNT, valid_until: int = 0
) -> SessionSet:
    """A set of one session per name; the same name gives the same leaf."""
    return build_set(
        CHAIN_ID,
        manager,
        account,
        [Session(valid_until, 0, MODULE, b"key %d" % name) for name in names],
    )


class Heard:
    """What was notified on a channel, in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    def put(self, *call: Any) -> None:
        self._queue.put_nowait(call[3])

    async def next(self) -> str:
        """The next payload; it comes after the commit that sends it."""
        async with asyncio.timeout(10):
            return await self._queue.get()

    def nothing_more(self) -> bool:
        return self._queue.empty()


@asynccontextmanager
async def listening(url: str, channel: str) -> AsyncIterator[Heard]:
    """Listen to a channel."""
    listener = await asyncpg.connect(url)
    heard = Heard()
    try:
        await listener.add_listener(channel, heard.put)
        yield heard
    finally:
        await listener.close()


class Filling:
    """One followed chain in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def start(self, indexed: int = 100) -> None:
        """Follow the chain up to a block."""
        await self._execute(
            """INSERT INTO chain.chain (chain_id, name, managers, start_block, finalized_number,
                   finalized_hash, finalized_time, indexed_number, indexed_hash, indexed_time)
               VALUES ($1, 'mumbai', $2, 0, $3, $4, $5, $3, $4, $5)""",
            CHAIN_ID, [MANAGER, OTHER_MANAGER], indexed, block_hash(indexed), START + indexed,
        )  # fmt: skip
        await self._tail(indexed)

    async def index(self, number: int, branch: str = "") -> None:
        """Let the live lane have committed up to a block."""
        await self._execute(
            """UPDATE chain.chain SET indexed_number = $2, indexed_hash = $3, indexed_time = $4
                WHERE chain_id = $1""",
            CHAIN_ID, number, block_hash(number, branch), START + number,
        )  # fmt: skip
        await self._tail(number, branch)

    async def _tail(self, number: int, branch: str = "") -> None:
        await self._execute(
            "INSERT INTO chain.tail VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            CHAIN_ID, number, block_hash(number, branch), block_hash(number - 1, branch),
            START + number,
        )  # fmt: skip

    async def block(self, number: int, branch: str = "") -> None:
        await self._execute(
            "INSERT INTO chain.block VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            CHAIN_ID, number, block_hash(number, branch), START + number,
        )  # fmt: skip

    async def root(
        self, number: int, root: Hash32, *, key=KEY, branch: str = "", canonical: bool = True
    ) -> None:
        """Observe a root at a block."""
        if canonical:
            await self.block(number, branch)
        await self._execute(
            "INSERT INTO evidence.root_observation VALUES ($1, $2, $3, $4, $5, $6)",
            CHAIN_ID, *key, number, block_hash(number, branch), root,
        )  # fmt: skip

    async def account(
        self, number: int, *, tainted=False, enabled=(MANAGER,), code=True, account=ACCOUNT
    ) -> None:
        """Observe the account's own slots at a block."""
        await self.block(number)
        await self._execute(
            "INSERT INTO evidence.account_observation VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            CHAIN_ID, account, number, block_hash(number),
            bytes(19) + bytes([code]), bytes(20), list(enabled), tainted,
        )  # fmt: skip

    async def _execute(self, sql: str, *values: object) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(sql, *values)


def at(second: float) -> datetime:
    """START plus seconds, as the database gives times."""
    return datetime.fromtimestamp(START + second, UTC)
