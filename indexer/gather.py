"""The live lane's answers of a node: logs by block hash, inputs, and state at every trigger."""

from __future__ import annotations

from collections.abc import Sequence

from indexer.chain.logs import fetch_logs_by_hash
from indexer.chain.rpc import Node
from indexer.core.events import DecodedLogs
from indexer.core.passes import ACCOUNTS, Pass
from indexer.core.roots import Trigger, by_account, event_hints, triggers_of
from indexer.core.settings import ChainSettings
from indexer.core.types import Address, BlockHeader
from indexer.core.watchlist import WatchList
from indexer.errors import StatePrunedError
from indexer.ingest import (
    Contracts,
    Look,
    Operation,
    attributions_of,
    decode,
    fetch_bodies,
    observe,
    observe_newest,
)
from indexer.store.live_view import LiveView
from indexer.store.rows import BlockRows


async def gather(
    node: Node,
    contracts: Contracts,
    accounts: WatchList,
    view: LiveView,
    headers: Sequence[BlockHeader],
    passes: Sequence[Pass],
) -> BlockRows:
    """Fetch, decode and read everything these passes keep of consecutive blocks."""
    rows = BlockRows()
    if not headers:
        return rows
    settings = contracts.settings
    with_accounts = any(p.filter == ACCOUNTS for p in passes)
    watch = contracts.log_filter(passes, accounts)
    logs = await fetch_logs_by_hash(
        node, headers, contracts.log_requests(watch, with_accounts=with_accounts)
    )
    rows.decoded = decode(logs, watch, with_accounts=with_accounts)
    triggers = triggers_of(rows.decoded) if with_accounts else []
    rows.hints = event_hints(rows.decoded)
    rows.bodies, hints = await fetch_bodies(
        node,
        settings,
        _operations(triggers, rows.decoded),
    )
    rows.hints += hints
    await _observe(node, settings, view, headers, triggers, rows)
    return rows


async def _observe(
    node: Node,
    settings: ChainSettings,
    view: LiveView,
    headers: Sequence[BlockHeader],
    triggers: Sequence[Trigger],
    rows: BlockRows,
) -> None:
    """Read roots at every trigger, and at every block those that need no log to change.

    Without a trigger an observation is kept only where it differs from the one before.
    """
    grouped = by_account(triggers)
    always, last_roots = set(view.tainted | view.stored), dict(view.polled_roots)
    missed: set[Address] = set()
    for header in headers:
        at_block = {account for number, account in grouped if number == header.number}
        is_last = header.number == headers[-1].number
        accounts = frozenset(at_block | always | (missed if is_last else set()))
        if not accounts:
            continue
        with_slots = frozenset(
            account
            for account in at_block
            if account in always or any(t.may_change_slots for t in grouped[header.number, account])
        )
        if is_last:
            with_slots |= missed
        look = Look(header, accounts, with_slots)
        try:
            if is_last:
                roots, slots = await observe_newest(node, settings, look, settings.managers)
            else:
                roots, slots = await observe(node, settings, [look], settings.managers)
        except StatePrunedError:
            if is_last:
                raise
            # Away for longer than the node keeps state: the last block is read instead, and
            # what lies between is left to the history lane, which says so if it is lost.
            missed |= accounts
            rows.roots_missed = True
            continue
        for seen in roots:
            key = (seen.manager, seen.account)
            if seen.account in at_block | missed or last_roots.get(key) != seen.root:
                rows.roots.append(seen)
            last_roots[key] = seen.root
        rows.accounts += slots
        always |= {slot.account for slot in slots if slot.tainted}
        always -= {s.account for s in slots if not s.tainted} - view.stored
    rows.attributions = attributions_of(rows.roots, grouped, rows.hints)


def _operations(triggers: Sequence[Trigger], decoded: DecodedLogs) -> list[Operation]:
    by_position = {(o.at.block_number, o.at.log_index): o for o in decoded.user_operations}
    return [
        Operation(trigger, event.entry_point, event.at.block_hash, event.at.transaction_index)
        for trigger in triggers
        if (event := by_position.get((trigger.block_number, trigger.log_index))) is not None
    ]
