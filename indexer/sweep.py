"""What time alone changes, and what others queued: reads state again where asked, and decides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from indexer.chain.bulk import read_codes
from indexer.chain.rpc import Node
from indexer.core.roots import AccountObservation, RootObservation
from indexer.core.types import Address
from indexer.core.verdict_values import Settings as VerdictSettings
from indexer.errors import NodeError
from indexer.filters import Contracts
from indexer.ingest import Listener, Look, keep_stepping, observe_newest, say_owed_again
from indexer.log import get_logger
from indexer.store import sweep as store
from indexer.store.pool import Database

log = get_logger()

KEYS_PER_SWEEP = 100
"""The live lane waits while they are decided."""


@dataclass(slots=True)
class Found:
    """What the node answered at the tip."""

    roots: Sequence[RootObservation] = ()
    slots: Sequence[AccountObservation] = ()
    module_code: Mapping[Address, bool] = field(default_factory=dict)


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
        try:
            found = await self._read(work)
        except NodeError:
            work = work.without_reading()
            if not work.keys:
                raise
            # The next sweep asks the node again; what needs only the clock is not held up by it.
            found = Found()
        changes, owing = await store.apply_work(
            self.database,
            settings.chain_id,
            self.epoch,
            work,
            found.roots,
            found.slots,
            found.module_code,
            self.verdict_settings,
        )
        self.listener.verdicts_changed(changes)
        if work.adopt:
            log.info("accounts_adopted", chain=settings.name, accounts=len(work.adopt))
        say_owed_again(settings.name, owing)
        # What was adopted owes its past: whoever pays debt is not done yet.
        return work.more or bool(work.adopt or owing)

    async def _read(self, work: store.Work) -> Found:
        settings, accounts = self.contracts.settings, work.read_accounts
        look = Look(work.tip, accounts, accounts)
        found = Found()
        if accounts:
            found.roots, found.slots = await observe_newest(
                self.node, settings, look, settings.managers
            )
        codes = await read_codes(self.node, [(work.tip.hash, module) for module in work.modules])
        found.module_code = dict(zip(work.modules, map(bool, codes), strict=True))
        return found
