"""The live lane's answers of a node: logs by block hash, inputs, and state at every trigger."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from indexer.chain.logs import fetch_logs_by_hash
from indexer.chain.rpc import Node
from indexer.core.events import DecodedLogs
from indexer.core.passes import ACCOUNTS, Pass
from indexer.core.roots import RootObservation, Trigger, by_account, event_hints, triggers_of
from indexer.core.settings import ChainSettings
from indexer.core.types import Address, BlockHeader
from indexer.core.watchlist import WatchList
from indexer.errors import StatePrunedError
from indexer.filters import Contracts, decode
from indexer.ingest import (
    Look,
    Operation,
    attributions_of,
    fetch_bodies,
    observe,
    observe_newest,
)
from indexer.silent import bisect
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
    answer = await fetch_bodies(node, settings, _operations(triggers, rows.decoded))
    rows.bodies, rows.bundles = answer.bodies, list(answer.bundles.values())
    rows.hints += answer.hints
    await _observe(node, settings, view, headers, triggers, rows)
    rows.attributions = attributions_of(
        rows.roots,
        by_account(triggers),
        rows.hints,
        answer.known_inputs(),
        settings.managers,
    )
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


async def gather_silent(
    node: Node,
    settings: ChainSettings,
    headers: Sequence[BlockHeader],
    accounts: Collection[Address],
    known: Sequence[RootObservation],
) -> BlockRows:
    """Find the changes that left no log in the tail, of accounts that turn out to be tainted.

    `known` are the observations that the tail has of them. Where a node has the state no more,
    the tail's roots are left to the history lane.
    """
    numbers = [header.number for header in headers]
    places = {number: place for place, number in enumerate(numbers)}
    rows = BlockRows()
    for account in sorted(accounts):
        for manager in settings.managers:

            async def read_at(
                place: int, account: Address = account, manager: Address = manager
            ) -> RootObservation:
                look = Look(headers[place], frozenset({account}), frozenset())
                roots, _ = await observe(node, settings, [look], [manager])
                return roots[0]

            seen = {
                places[o.block_number]: o
                for o in known
                if (o.account, o.manager) == (account, manager) and o.block_number in places
            }
            stops = sorted({0, len(headers) - 1, *seen})
            new = dict(seen)
            try:
                for place in reversed(stops):
                    if place not in new:
                        new[place] = await read_at(place)
                for first, last in pairwise(stops):
                    await bisect(first, last, new, read_at)
            except StatePrunedError:
                rows.roots_missed = True
            rows.roots += [o for place, o in sorted(new.items()) if place > 0 and place not in seen]
    return rows


def _operations(triggers: Sequence[Trigger], decoded: DecodedLogs) -> list[Operation]:
    by_position = {(o.at.block_number, o.at.log_index): o for o in decoded.user_operations}
    return [
        Operation(trigger, event.entry_point, event.at.block_hash, event.at.transaction_index)
        for trigger in triggers
        if (event := by_position.get((trigger.block_number, trigger.log_index))) is not None
    ]
