"""Drops old raw detail, slice by slice, beside the lanes; never roots, sets or evidence."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from indexer.core.settings import ChainSettings
from indexer.errors import FencedError, RetryableError
from indexer.ingest import Listener, keep_stepping
from indexer.log import get_logger
from indexer.store import retention as store
from indexer.store.pool import Database

log = get_logger()


@dataclass(slots=True)
class Retention:
    """The retention of one chain; it does nothing where `retention_blocks` is not configured."""

    database: Database
    settings: ChainSettings
    epoch: int
    listener: Listener
    pause_seconds: float

    async def run(self) -> None:
        """Drop what may go, now and after each pause; only fencing and fatal errors end it."""
        if self.settings.retention_blocks is not None:
            await keep_stepping("retention", self.step, self._pause, self.listener)

    async def run_once(self) -> None:
        """Drop all that may go now; what somebody is reading is left for the next time."""
        try:
            while await self.step():
                pass
        except FencedError:
            raise
        except RetryableError as error:
            log.warning(
                "detail_kept", chain=self.settings.name, reason=str(error), remedy=error.remedy
            )

    async def _pause(self) -> None:
        await asyncio.sleep(self.pause_seconds)

    async def step(self) -> bool:
        """Drop the oldest slice that may go; return whether there was one."""
        retention_blocks = self.settings.retention_blocks
        if retention_blocks is None:
            return False
        dropped = await store.drop_oldest(
            self.database, self.settings.chain_id, self.epoch, retention_blocks
        )
        for part in dropped:
            log.info(
                "detail_dropped",
                chain=self.settings.name,
                table=part.table,
                first_block=part.first_block,
                last_block=part.last_block,
                estimated_rows=part.rows,
            )
        return bool(dropped)
