"""What time alone changes, and what others queued: reads state again where asked, and decides."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from indexer.chain.bulk import read_codes
from indexer.chain.rpc import Node
from indexer.core.verdict_values import Settings as VerdictSettings
from indexer.filters import Contracts
from indexer.ingest import Listener, Look, keep_stepping, observe_newest
from indexer.log import get_logger
from indexer.store import sweep as store
from indexer.store.pool import Database

log = get_logger()

KEYS_PER_SWEEP = 100
"""The live lane waits while they are decided."""


@dataclass(slots=True)
class Sweeper:
    """Decides again what was queued and what has come due, for one chain."""

    database: Database
    node: Node
    contracts: Contracts
    epoch: int
    verdict_settings: VerdictSettings
    listener: Listener
    wake: asyncio.Event

    async def run(self) -> None:
        """Sweep whenever a step has finished; only cancellation and fatal errors end it."""
        await keep_stepping("sweep", self.step, self._woken, self.listener)

    async def _woken(self) -> None:
        await self.wake.wait()
        self.wake.clear()

    async def step(self) -> bool:
        """Decide one batch in one transaction; return whether there may be more."""
        settings = self.contracts.settings
        work = await store.read_work(self.database, settings, KEYS_PER_SWEEP)
        if work is None or not work.keys:
            return False
        header = work.tip
        to_read = sorted(work.read_accounts)
        look = Look(header, frozenset(to_read), frozenset(to_read))
        roots, slots = (
            await observe_newest(self.node, settings, look, settings.managers)
            if to_read
            else ([], [])
        )
        codes = await read_codes(self.node, [(header.hash, module) for module in work.modules])
        changes = await store.apply_work(
            self.database,
            settings.chain_id,
            self.epoch,
            work,
            roots,
            slots,
            {module: bool(code) for module, code in zip(work.modules, codes, strict=True)},
            self.verdict_settings,
        )
        self.listener.verdicts_changed(changes)
        if work.adopt:
            log.info("accounts_adopted", chain=settings.name, accounts=len(work.adopt))
        # What was adopted owes its past: whoever pays debt is not done yet.
        return work.more or bool(work.adopt)
