"""What the sweep reads in one snapshot, and what of it a rewind makes stale."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from indexer.core.verdict_values import Settings
from indexer.errors import StaleStepError
from indexer.store.pool import Database
from indexer.store.sweep import apply_work, read_work
from tests.daemon_process import until
from tests.fixtures_database import Connection
from tests.sim.settings import chain_settings
from tests.store.filling import CHAIN_ID, Filling, block_hash


async def test_a_rewind_while_work_is_read_makes_it_stale(
    database_url: str, connection: Connection
) -> None:
    """The tip that was read is a lost block then: nothing read there is written as ours."""
    settings = replace(chain_settings(), chain_id=CHAIN_ID)
    async with Database.open(database_url, max_size=3) as database:
        filling = Filling(database)
        await filling.start()
        await filling.index(101, "lost")
        # Holds the reader up after it has seen the tip.
        held = connection.transaction()
        await held.start()
        await connection.execute("LOCK TABLE chain.verdict_queue IN ACCESS EXCLUSIVE MODE")

        async def waits() -> bool:
            async with database.connection() as other:
                return bool(
                    await other.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
                )

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read_work(database, settings, 10))
            await until(waits, "the reader to be held up")
            query = "SELECT FROM chain.rewind($1, 100, 101, $2)"
            await connection.execute(query, CHAIN_ID, block_hash(101))
            await held.commit()
        work = reading.result()

        assert work is not None
        assert work.tip.hash == block_hash(101, "lost")
        with pytest.raises(StaleStepError, match="a reorg took the block"):
            await apply_work(database, CHAIN_ID, 0, work, (), (), {}, Settings(grace_seconds=1))
