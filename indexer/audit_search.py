"""Why a root is not the stored one: the block of its change, found in state, and its logs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import pairwise

from indexer.chain.logs import fetch_logs_by_hash
from indexer.chain.rpc import Node, NodeRefusedError
from indexer.core.audit_changes import Change, Reason, Stored
from indexer.core.audit_claims import Everyone
from indexer.core.passes import LOGS_ACCOUNTS
from indexer.core.roots import RootObservation, triggers_of
from indexer.core.types import BlockHeader
from indexer.errors import NodeAnswerError, StatePrunedError
from indexer.filters import Contracts, decode
from indexer.history_logs import our_headers
from indexer.ingest import Look, observe
from indexer.silent import bisect
from indexer.store.auditing import Covered, has_trigger
from indexer.store.pool import Database

# However a node words it: one account's past must not hold up everybody's audit.
_PAST_UNREADABLE = (StatePrunedError, NodeRefusedError, NodeAnswerError)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A root that is not the stored one, though nothing was owed since (`covered`)."""

    stored: Stored
    found: RootObservation
    covered: Covered


class Search:
    """Looks for the blocks in which a root changed, back from the audited one.

    In steps that double: most changes are recent, and a node that prunes has nothing else.
    """

    def __init__(
        self,
        database: Database,
        node: Node,
        contracts: Contracts,
        suspect: Suspect,
        audited: BlockHeader,
    ) -> None:
        self._database, self._node, self._contracts = database, node, contracts
        self._stored = suspect.stored
        self._last = audited.number
        stored_block = suspect.stored.block_number
        before = suspect.covered.first_block - 1
        self._floor = max(before if stored_block is None else stored_block, 0)
        self.known: dict[int, RootObservation] = {audited.number: suspect.found}
        self.headers: dict[int, BlockHeader] = {audited.number: audited}

    async def run(self) -> None:
        """Read until each change is known to its block, or the state between is gone."""
        with contextlib.suppress(*_PAST_UNREADABLE):
            await self._go_back()
        with contextlib.suppress(*_PAST_UNREADABLE):
            # The newest first: what is older than something lost is lost too.
            for first, last in reversed(list(pairwise(sorted(self.known)))):
                await bisect(first, last, self.known, self._read_at)

    async def _go_back(self) -> None:
        """Read ever further below the audited block, until the stored root is found."""
        distance, lowest = 1, self._last
        while lowest > self._floor and self.known[lowest].root != self._stored.root:
            lowest = max(self._last - distance, self._floor)
            self.known[lowest] = await self._read_at(lowest)
            distance *= 2
        if self.known[lowest].root != self._stored.root:
            # Not even the stored block has the stored root: it shows from the next one on.
            above = min(self._floor + 1, self._last)
            self.known[above] = await self._read_at(above)

    async def _read_at(self, number: int) -> RootObservation:
        if number in self.known:
            return self.known[number]
        (header,) = await our_headers(self._database, self._node, self._contracts, [number], ())
        account, manager = self._stored.account, self._stored.manager
        look = Look(header, frozenset({account}), frozenset())
        roots, _ = await observe(self._node, self._contracts.settings, [look], [manager])
        self.headers[number] = header
        return roots[0]

    async def reason(self, change: Change, *, tainted: bool) -> Reason:
        """Say why a change was not known. `tainted`: the account can change its root silently."""
        if tainted:
            return "tainted"
        if change.misread:
            return "misread"
        if not change.exact:
            return "unknown"
        account, header = change.found.account, self.headers[change.found.block_number]
        if await has_trigger(
            self._database, self._contracts.settings.chain_id, account, header.number
        ):
            return "misread"
        watch = self._contracts.log_filter([LOGS_ACCOUNTS], Everyone())
        requests = self._contracts.log_requests(watch, with_accounts=True)
        logs = await fetch_logs_by_hash(self._node, [header], requests)
        triggers = triggers_of(decode(logs, watch, with_accounts=True))
        return "missed_log" if any(t.account == account for t in triggers) else "no_log"
