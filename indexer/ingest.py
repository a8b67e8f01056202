"""What live, history and sweep share: answers of a node → rows of one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from indexer.chain.bulk import StateRead, read_codes, read_state
from indexer.chain.head import fetch_headers
from indexer.chain.logs import LogRequest
from indexer.chain.rpc import Node
from indexer.chain.slots import (
    FALLBACK_HANDLER_SLOT,
    address_in,
    implementation_slot,
    module_slot,
)
from indexer.chain.state import fetch_transactions
from indexer.core.abi import DecodeError
from indexer.core.events import DecodedLogs, LogFilter, WatchedAccounts, decode_logs
from indexer.core.merkle import root_slot
from indexer.core.passes import ACCOUNTS, ALL_ERC1155, Pass, hex_of
from indexer.core.presets import OWNERSHIP_MODULES
from indexer.core.roots import (
    AccountObservation,
    RootAttribution,
    RootHint,
    RootObservation,
    Trigger,
    attribute,
    body_hints,
    is_tainted,
)
from indexer.core.settings import ChainSettings
from indexer.core.topics import (
    ACCOUNT_TOPICS,
    ENTRY_POINT_TOPICS,
    ERC1155_TOPICS,
    FACTORY_TOPICS,
    MANAGER_TOPICS,
    OWNERSHIP_TOPICS,
)
from indexer.core.types import (
    ZERO_ADDRESS,
    ZERO_HASH,
    Address,
    BlockHeader,
    ChainHead,
    Hash32,
    Log,
)
from indexer.core.user_operations import UserOperationBody, decode_bodies
from indexer.errors import (
    BlockUnknownError,
    FencedError,
    FinalityViolationError,
    RetryableError,
    StaleStepError,
)
from indexer.store.copying import BodyRow
from indexer.store.rows import BlockRows
from indexer.store.verdicts import VerdictChange, VerdictCount

MIN_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
MAX_STALE_STEPS = 10
"""So many plans in a row that no longer fit are a trouble like any other."""


class Listener(Protocol):
    """What the rest of the process wants to know of finished steps; called after the commit."""

    def head_confirmed(self, head: ChainHead, tip: BlockHeader, finalized_number: int) -> None:
        """Everything up to `tip` is committed, and the node was asked for its head before."""

    def node_behind(self, head: ChainHead, tip: BlockHeader, finalized_number: int) -> None:
        """The node does not show what is committed up to `tip`: it lags, or was set back."""

    def rows_committed(self, rows: BlockRows) -> None:
        """These rows are visible now."""

    def rewound(self, depth_blocks: int) -> None:
        """A reorg moved blocks away."""

    def debt_known(self, missing_blocks: Mapping[str, int]) -> None:
        """So many blocks are owed, by pass."""

    def verdicts_changed(self, changes: Sequence[VerdictChange]) -> None:
        """These verdicts were decided."""

    def verdicts_counted(self, counts: Sequence[VerdictCount]) -> None:
        """All open verdicts, counted anew."""

    def violation_found(self, error: FinalityViolationError) -> None:
        """Node and database disagree at or below finality."""

    def retrying(self, lane: str, error: RetryableError) -> None:
        """A step failed and will be repeated."""

    def recovered(self, lane: str) -> None:
        """A step of this lane has finished."""


async def keep_stepping(
    lane: str,
    step: Callable[[], Awaitable[bool]],
    idle: Callable[[], Awaitable[None]],
    listener: Listener,
) -> None:
    """Repeat `step` for ever, with `idle` between those that found nothing to do.

    A step that failed is repeated whole, after a pause that doubles; one that was planned on
    what has moved since is planned again at once. Fencing and fatal errors end it.
    """
    backoff_seconds = MIN_BACKOFF_SECONDS
    stale_steps = 0
    while True:
        try:
            busy = await step()
        except FencedError:
            raise
        except RetryableError as error:
            if isinstance(error, StaleStepError) and stale_steps < MAX_STALE_STEPS:
                stale_steps += 1
                await asyncio.sleep(0)
                continue
            listener.retrying(lane, error)
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(backoff_seconds * 2, MAX_BACKOFF_SECONDS)
            continue
        backoff_seconds, stale_steps = MIN_BACKOFF_SECONDS, 0
        listener.recovered(lane)
        if not busy:
            await idle()


@dataclass(frozen=True, slots=True)
class Contracts:
    """What is watched beside accounts. `event_managers` emit MerkleRootUpdated."""

    settings: ChainSettings
    event_managers: frozenset[Address]

    def log_filter(self, passes: Iterable[Pass], accounts: WatchedAccounts) -> LogFilter:
        """Return what decoding keeps when these passes are paid."""
        settings, filters = self.settings, {p.filter for p in passes}
        with_accounts = ACCOUNTS in filters
        from_factory = settings.accounts_mode == "factory"
        factories = {f for f in settings.factories if f"factory/{hex_of(f)}" in filters}
        if with_accounts and not from_factory:
            factories = set(settings.factories)
        tokens = frozenset(c for c in settings.erc1155 if f"erc1155/{hex_of(c)}" in filters)
        return LogFilter(
            entry_points=frozenset(settings.entry_points),
            factories=frozenset(factories),
            event_managers=self.event_managers if with_accounts else frozenset(),
            ownership_modules=frozenset(OWNERSHIP_MODULES) if with_accounts else frozenset(),
            erc1155=None if ALL_ERC1155 in filters else tokens,
            accounts=accounts,
            all_creations=from_factory,
        )

    def log_requests(self, watch: LogFilter, *, with_accounts: bool) -> list[LogRequest]:
        """Return the eth_getLogs requests that find what `watch` keeps.

        User operation events are asked for unfiltered by sender: they delimit the operations
        of a bundle, and so say which operation moved a token.
        """
        requests: list[LogRequest] = []

        def ask(addresses: Collection[Address] | None, topics: Collection[Hash32]) -> None:
            kept = None if addresses is None else tuple(sorted(addresses))
            if kept is None or kept:
                requests.append(LogRequest(kept, tuple(sorted(topics))))

        ask(watch.factories, FACTORY_TOPICS)
        if with_accounts or watch.erc1155 is None or watch.erc1155:
            ask(watch.entry_points, ENTRY_POINT_TOPICS)
        if with_accounts:
            ask(None, ACCOUNT_TOPICS)
            ask(watch.event_managers, MANAGER_TOPICS)
            ask(watch.ownership_modules, OWNERSHIP_TOPICS)
        ask(watch.erc1155, ERC1155_TOPICS)
        return requests


def decode(logs: Sequence[Log], watch: LogFilter, *, with_accounts: bool) -> DecodedLogs:
    """Decode logs; without accounts, what they did is left to the range that pays for it."""
    decoded = decode_logs(logs, watch)
    if with_accounts:
        return decoded
    return replace(decoded, account_events=(), user_operations=(), manager_roots=())


@dataclass(frozen=True, slots=True)
class Operation:
    """A user operation that was executed, and where the transaction that holds its input is."""

    trigger: Trigger
    entry_point: Address
    block_hash: Hash32
    transaction_index: int


async def fetch_bodies(
    node: Node,
    settings: ChainSettings,
    operations: Sequence[Operation],
) -> tuple[list[BodyRow], list[RootHint]]:
    """Decode the handleOps input of stored user operations, where their transaction is one.

    An operation whose hash the input does not yield has no row: a wrapper made it, or its input
    is not canonical.
    Raises BlockUnknownError when a transaction has left its block.
    """
    places = sorted({(op.block_hash, op.transaction_index) for op in operations})
    transactions = dict(zip(places, await fetch_transactions(node, places), strict=True))
    decoded: dict[tuple[Hash32, Address], Mapping[Hash32, UserOperationBody]] = {}
    bodies: list[BodyRow] = []
    hints: list[RootHint] = []
    for op in operations:
        trigger, entry_point = op.trigger, op.entry_point
        transaction = transactions[op.block_hash, op.transaction_index]
        if transaction is None or transaction.hash != trigger.transaction_hash:
            raise BlockUnknownError(
                f"the node does not have transaction {hex_of(trigger.transaction_hash)} in block "
                f"{trigger.block_number}"
            )
        if transaction.to != entry_point:
            continue
        key = (trigger.transaction_hash, entry_point)
        if key not in decoded:
            try:
                found = decode_bodies(transaction.input, entry_point, settings.chain_id)
            except DecodeError:
                found = ()  # not a handleOps: whoever called the entry point did it otherwise
            decoded[key] = {body.user_op_hash: body for body in found}
        assert trigger.user_op_hash is not None
        body = decoded[key].get(trigger.user_op_hash)
        if body is not None:
            bodies.append(BodyRow(trigger.block_number, trigger.log_index, body))
            # Of every contract, manager or not: one that is configured later has its hints then.
            named = {call.to for call in body.calls} | {s.manager for s in body.sessions}
            hints += body_hints(trigger, body, named)
    return bodies, hints


def only_of_manager(decoded: DecodedLogs, manager: Address) -> DecodedLogs:
    """Return what one manager logged, and nothing else."""
    return DecodedLogs(
        creations=(),
        account_events=(),
        user_operations=(),
        transfers=(),
        approvals=(),
        uris=(),
        manager_roots=tuple(row for row in decoded.manager_roots if row.manager == manager),
        undecoded=tuple(row for row in decoded.undecoded if row.at.address == manager),
    )


@dataclass(frozen=True, slots=True)
class Look:
    """What to read at one block: roots of `accounts`, own slots of `with_slots`."""

    header: BlockHeader
    accounts: frozenset[Address]
    with_slots: frozenset[Address]


async def observe(
    node: Node, settings: ChainSettings, looks: Sequence[Look], managers: Sequence[Address]
) -> tuple[list[RootObservation], list[AccountObservation]]:
    """Read roots and slots at block hashes, in as few requests as the node allows.

    An unreadable state raises (StatePrunedError, BlockUnknownError); it is never a zero.
    """
    reads: list[StateRead] = []
    for look in looks:
        block_hash = look.header.hash
        for account in sorted(look.accounts):
            slot = root_slot(account)
            reads += [StateRead(block_hash, manager, slot) for manager in managers]
        for account in sorted(look.with_slots):
            reads.append(StateRead(block_hash, account, implementation_slot(account)))
            reads.append(StateRead(block_hash, account, FALLBACK_HANDLER_SLOT))
            reads += [
                StateRead(block_hash, account, module_slot(manager))
                for manager in settings.managers
            ]
    values = iter(await read_state(node, reads))

    roots: list[RootObservation] = []
    found: list[tuple[Look, Address, Address, Address, tuple[Address, ...]]] = []
    for look in looks:
        header = look.header
        for account in sorted(look.accounts):
            roots += [
                RootObservation(header.number, header.hash, manager, account, next(values))
                for manager in managers
            ]
        for account in sorted(look.with_slots):
            implementation, handler = address_in(next(values)), address_in(next(values))
            enabled = tuple(m for m in settings.managers if next(values) != ZERO_HASH)
            found.append((look, account, implementation, handler, enabled))

    bare = [(look.header.hash, account) for look, account, code, _, _ in found if not any(code)]
    codes = dict(zip(bare, await read_codes(node, bare), strict=True))
    return roots, [
        AccountObservation(
            look.header.number,
            look.header.hash,
            account,
            implementation,
            handler,
            enabled,
            is_tainted(
                implementation,
                handler,
                has_code=implementation != ZERO_ADDRESS or codes[look.header.hash, account] != b"",
                implementations=settings.implementations,
                managers=settings.managers,
            ),
        )
        for look, account, implementation, handler, enabled in found
    ]


async def observe_newest(
    node: Node, settings: ChainSettings, look: Look, managers: Sequence[Address]
) -> tuple[list[RootObservation], list[AccountObservation]]:
    """Read what may be the node's newest block, and read it again if it was overtaken meanwhile.

    A node may answer for its newest block out of the very state it is changing, even by hash:
    Anvil does, in one of ten reads while it mines. A block that has another above it is settled.
    Errors as observe.
    """
    found = await observe(node, settings, [look], managers)
    (above,) = await fetch_headers(node, [look.header.number + 1])
    return found if above is None else await observe(node, settings, [look], managers)


def attributions_of(
    roots: Iterable[RootObservation],
    triggers: Mapping[tuple[int, Address], Sequence[Trigger]],
    hints: Iterable[RootHint],
) -> list[RootAttribution]:
    """Name who changed what, for every root that was read because of a trigger."""
    by_key: dict[tuple[int, Address], list[RootHint]] = {}
    for hint in hints:
        by_key.setdefault((hint.block_number, hint.account), []).append(hint)
    return [
        attribute(observation, triggers[key], by_key.get(key, ()))
        for observation in roots
        if (key := (observation.block_number, observation.account)) in triggers
    ]
