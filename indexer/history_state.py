"""Paying a range of bodies or roots: stored triggers → what inputs and state say of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, product

from indexer.chain.logs import LogRequest, fetch_logs_by_hash, fetch_logs_in_range
from indexer.chain.rpc import Node
from indexer.core.debt import Span, Task, merge
from indexer.core.events import addresses_named
from indexer.core.passes import LOGS_ACCOUNTS
from indexer.core.roots import USER_OPERATION, RootObservation, Trigger, by_account, event_hints
from indexer.core.topics import MANAGER_TOPICS, TRIGGER_EVENTS
from indexer.core.types import Address, BlockHeader
from indexer.errors import StatePrunedError
from indexer.filters import Contracts, decode
from indexer.history_logs import Members, headers_at, our_headers
from indexer.ingest import (
    Look,
    Operation,
    attributions_of,
    fetch_bodies,
    observe,
    observe_each,
    only_of_manager,
)
from indexer.silent import bisect
from indexer.store import history as store
from indexer.store.evidence import forgotten_blocks, observed_at
from indexer.store.history import Payment, manager_of
from indexer.store.pool import Database
from indexer.store.rows import BlockRows
from indexer.store.triggers import known_headers, read_operations, read_triggers
from indexer.store.watched import watched_among

LOOKS_PER_REQUEST = 100
MAX_BLOCK = (1 << 63) - 1
Write = Callable[[Payment], Awaitable[None]]


async def fetch_bodies_of(
    database: Database, node: Node, contracts: Contracts, task: Task
) -> Payment:
    """Return what the inputs of a range's stored user operations say."""
    settings = contracts.settings
    operations = await read_operations(database, settings.chain_id, task, USER_OPERATION)
    numbers = sorted({o.trigger.block_number for o in operations})
    headers = await known_headers(database, settings.chain_id, numbers)
    answer = await fetch_bodies(
        node,
        settings,
        [
            Operation(
                o.trigger,
                o.entry_point,
                headers[o.trigger.block_number].hash,
                o.transaction_index,
            )
            for o in operations
        ],
    )
    rows = BlockRows(bodies=answer.bodies, hints=answer.hints)
    rows.bundles = list(answer.bundles.values())
    return Payment(task, headers.values(), rows)


async def fetch_roots_of(
    database: Database, node: Node, contracts: Contracts, task: Task, write: Write
) -> Payment:
    """Return what state says at a range's stored triggers, and which stretches are lost.

    What a manager logged is written first, by `write`: it names who changed a root.
    """
    settings, managers = contracts.settings, [manager_of(pass_) for pass_ in task.passes]
    for manager in managers:
        if manager in contracts.event_managers:
            await _manager_events(database, node, contracts, task, manager, write)
    stored = await read_triggers(
        database,
        settings.chain_id,
        task,
        trigger_events=sorted(TRIGGER_EVENTS),
        operation_event=USER_OPERATION,
    )
    grouped = by_account(stored.triggers)
    ever_tainted = await store.tainted_before(database, settings.chain_id, MAX_BLOCK)
    # What was seen there counts again once the block is known.
    forgotten = await forgotten_blocks(database, settings.chain_id, task.span)
    headers = dict(stored.headers)
    if forgotten:
        found = await our_headers(database, node, contracts, forgotten, ())
        headers |= {header.number: header for header in found}
    reading = _Reading(database, node, contracts, managers, headers, frozenset(ever_tainted))
    await reading.triggers(_looks(grouped, stored.headers, ever_tainted), task)
    await reading.slots_since_taint(grouped)
    silent = frozenset(await store.tainted_before(database, settings.chain_id, task.last))
    silent |= {slots.account for slots in reading.rows.accounts if slots.tainted}
    members = Members(
        await watched_among(database, settings.chain_id, silent), task.cohort, tokens=False
    )
    await reading.silent_changes([a for a in sorted(silent) if members.watched(a, task.last)], task)
    rows = reading.rows
    rows.attributions = attributions_of(
        rows.roots, grouped, stored.hints, stored.known_inputs, settings.managers
    )
    used = rows.block_numbers() | set(forgotten)
    return Payment(
        task,
        [header for number, header in reading.headers.items() if number in used],
        rows,
        lost=merge(reading.lost),
        lost_reason=reading.lost_reason[:500],
        lost_accounts=frozenset(reading.lost_accounts),
        silent=silent,
    )


def _looks(
    grouped: Mapping[tuple[int, Address], Sequence[Trigger]],
    headers: Mapping[int, BlockHeader],
    ever_tainted: Collection[Address],
) -> list[Look]:
    """Return what to read at each block with a trigger, in block order.

    The slots of an account that was ever tainted at each of its triggers: they may have been put
    back without a log, and the live lane reads them there too.
    """
    looks: dict[int, tuple[set[Address], set[Address]]] = {}
    for (number, account), triggers in grouped.items():
        accounts, slots = looks.setdefault(number, (set(), set()))
        accounts.add(account)
        if account in ever_tainted or any(trigger.may_change_slots for trigger in triggers):
            slots.add(account)
    return [
        Look(headers[number], frozenset(accounts), frozenset(slots))
        for number, (accounts, slots) in sorted(looks.items())
    ]


async def _manager_events(
    database: Database,
    node: Node,
    contracts: Contracts,
    task: Task,
    manager: Address,
    write: Write,
) -> None:
    """Store what a manager logged of the cohort's accounts, before its triggers are read.

    The blocks are then read whole: other logs say which operation an event belongs to. Done
    again after a kill, it finds its rows.
    """
    asked = LogRequest((manager,), tuple(sorted(MANAGER_TOPICS)))
    answer = await fetch_logs_in_range(node, task.first, task.last, [asked])
    if not answer.logs:
        return
    numbers = {log.block_number for log in answer.logs}
    headers = await our_headers(database, node, contracts, numbers, answer.logs)
    chain_id = contracts.settings.chain_id
    members = Members(
        await watched_among(database, chain_id, addresses_named(answer.logs)),
        task.cohort,
        tokens=False,
    )
    watch = replace(
        contracts.log_filter([LOGS_ACCOUNTS], members), event_managers=frozenset({manager})
    )
    logs = await fetch_logs_by_hash(
        node, headers, contracts.log_requests(watch, with_accounts=True)
    )
    decoded = only_of_manager(decode(logs, watch, with_accounts=True), manager)
    rows = BlockRows(decoded=decoded, hints=event_hints(decoded))
    used = [header for header in headers if header.number in rows.block_numbers()]
    await write(Payment(task, used, rows, covers=False))


@dataclass(slots=True)
class _Reading:
    """Roots in one range: what was read, and what no node has any more.

    What a node has lost is looked for in the evidence, where it may have been read before.
    """

    database: Database
    node: Node
    contracts: Contracts
    managers: Sequence[Address]
    headers: dict[int, BlockHeader]
    ever_tainted: frozenset[Address]
    rows: BlockRows = field(default_factory=BlockRows)
    lost: list[Span] = field(default_factory=list)
    lost_reason: str = ""
    lost_accounts: set[Address] = field(default_factory=set)

    async def triggers(self, looks: Sequence[Look], task: Task) -> None:
        """Read at every look, the newest first: what is older than something lost is lost too.

        A lost stretch goes from the first to the last look that could not be read: between two
        looks there is nothing to read. Accounts that are in one are read once above it.
        """
        settings = self.contracts.settings
        lost: set[int] = set()
        end = len(looks)
        while end > 0:
            first = max(end - LOOKS_PER_REQUEST, 0)
            found = await observe_each(self.node, settings, looks[first:end], self.managers)
            self.rows.roots += found.roots
            self.rows.accounts += found.accounts
            end = first
            if found.lost:
                self.lost_reason = found.lost_reason
                lost = await self._recall([*looks[:first], *found.lost])
                break
        run: list[int] = []
        for look in looks:
            if look.header.number in lost:
                run.append(look.header.number)
            elif run:
                self.lost.append((run[0], run[-1]))
                run = []
        if run:
            self.lost.append((run[0], run[-1]))
        gone = [look for look in looks if look.header.number in lost]
        if gone:
            self.lost_accounts = set().union(*(look.accounts for look in gone))
            kept = [look for look in looks if look.header.number not in lost]
            await self._read_above(gone, kept, task)

    async def _recall(self, looks: Sequence[Look]) -> set[int]:
        """Take from the evidence what it has whole of these looks; return the blocks of the rest.

        Slots may have been read when fewer managers were watched: better than not at all.
        """
        headers = [look.header for look in looks]
        chain_id = self.contracts.settings.chain_id
        roots, slots = await observed_at(self.database, chain_id, headers, self.managers)
        roots_by_key = {(o.block_number, o.manager, o.account): o for o in roots}
        slots_by_key = {(o.block_number, o.account): o for o in slots}
        lost: set[int] = set()
        for look in looks:
            number = look.header.number
            wanted_roots = [(number, *key) for key in product(self.managers, look.accounts)]
            wanted_slots = [(number, account) for account in look.with_slots]
            if not roots_by_key.keys() >= set(wanted_roots) or not slots_by_key.keys() >= set(
                wanted_slots
            ):
                lost.add(number)
                continue
            self.rows.roots += [roots_by_key[key] for key in wanted_roots]
            self.rows.accounts += [slots_by_key[key] for key in wanted_slots]
        return lost

    async def slots_since_taint(
        self, grouped: Mapping[tuple[int, Address], Sequence[Trigger]]
    ) -> None:
        """Read the slots of accounts that this range shows tainted first, where they acted next."""
        since: dict[Address, int] = {}
        for seen in self.rows.accounts:
            if seen.tainted and seen.account not in self.ever_tainted:
                number = since.get(seen.account, seen.block_number)
                since[seen.account] = min(number, seen.block_number)
        read = {(seen.block_number, seen.account) for seen in self.rows.accounts}
        places: dict[int, set[Address]] = {}
        for number, account in sorted(grouped.keys() - read):
            if number > since.get(account, MAX_BLOCK):
                places.setdefault(number, set()).add(account)
        looks = [
            Look(await self._header(number), frozenset(), frozenset(accounts))
            for number, accounts in places.items()
        ]
        for start in range(0, len(looks), LOOKS_PER_REQUEST):
            part = looks[start : start + LOOKS_PER_REQUEST]
            found = await observe_each(self.node, self.contracts.settings, part, self.managers)
            self.rows.accounts += found.accounts
            await self._recall(found.lost)

    async def _read_above(self, gone: Sequence[Look], kept: Sequence[Look], task: Task) -> None:
        """Read what has come of the accounts in lost looks, where it can be read first.

        Their root, at the range's end, of those that left no later log; and the slots of those
        whose slots may have changed: a tainted account's roots change without a log, so blocks
        are lost to it in which nothing else is.
        """
        above: dict[int, tuple[set[Address], set[Address]]] = {}
        # Once in the life of an account: found tainted, it owes its past again.
        in_doubt = set().union(*(look.with_slots for look in gone)) - self.ever_tainted
        for account in sorted(self.lost_accounts):
            number = next((k.header.number for k in kept if account in k.accounts), task.last)
            slots_known = any(account in k.with_slots for k in kept if k.header.number == number)
            accounts, slots = above.setdefault(number, (set(), set()))
            accounts.add(account)
            if account in in_doubt and not slots_known:
                slots.add(account)
        read = {(seen.block_number, seen.account) for seen in self.rows.roots}
        looks = [
            Look(await self._header(number), frozenset(accounts), frozenset(slots))
            for number, (accounts, slots) in sorted(above.items())
            if slots or any((number, account) not in read for account in accounts)
        ]
        found = await observe_each(self.node, self.contracts.settings, looks, self.managers)
        self.rows.roots += [o for o in found.roots if (o.block_number, o.account) not in read]
        self.rows.accounts += found.accounts

    async def silent_changes(self, accounts: Sequence[Address], task: Task) -> None:
        """Find changes that left no log, of tainted accounts, between the range's ends.

        Where state is lost, so is every block up to the first that can be read.
        """
        for account, manager in product(accounts, self.managers):
            key = (account, manager)
            mine = [o for o in self.rows.roots if (o.account, o.manager) == key]
            known = {o.block_number: o for o in mine}
            read_at = partial(self._read_at, account=account, manager=manager)
            stops = sorted({task.first, task.last, *known})
            readable: list[int] = []
            for number in reversed(stops):
                try:
                    if number not in known:
                        known[number] = await read_at(number)
                except StatePrunedError as error:
                    self.lost_reason = str(error)
                    above = readable[-1] if readable else task.last + 1
                    self.lost.append((task.first, above - 1))
                    break
                readable.append(number)
            for first, last in pairwise(reversed(readable)):
                try:
                    await bisect(first, last, known, read_at)
                except StatePrunedError as error:
                    # The horizon has moved since the ends were read.
                    self.lost_reason = str(error)
                    self.lost.append((first + 1, last - 1))
            kept = {o.block_number for o in mine}
            self.rows.roots += [o for number, o in sorted(known.items()) if number not in kept]

    async def _read_at(self, number: int, account: Address, manager: Address) -> RootObservation:
        look = Look(await self._header(number), frozenset({account}), frozenset())
        settings = self.contracts.settings
        try:
            roots, _ = await observe(self.node, settings, [look], [manager])
        except StatePrunedError:
            seen, _ = await observed_at(self.database, settings.chain_id, [look.header], [manager])
            roots = [root for root in seen if root.account == account]
            if not roots:
                raise
        return roots[0]

    async def _header(self, number: int) -> BlockHeader:
        if number not in self.headers:
            self.headers[number] = (await headers_at(self.node, [number]))[0]
        return self.headers[number]
