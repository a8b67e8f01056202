"""What live, history and sweep share: answers of a node → rows of one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Protocol, cast

from indexer.chain.bulk import StateRead, read_codes, read_state_each
from indexer.chain.head import fetch_headers
from indexer.chain.rpc import Node
from indexer.chain.slots import (
    FALLBACK_HANDLER_SLOT,
    address_in,
    implementation_slot,
    module_slot,
)
from indexer.chain.state import fetch_transactions
from indexer.core.abi import DecodeError
from indexer.core.attribution import RootAttribution, attribute
from indexer.core.events import DecodedLogs
from indexer.core.passes import hex_of
from indexer.core.roots import (
    AccountObservation,
    RootHint,
    RootObservation,
    Trigger,
    body_hints,
    is_tainted,
)
from indexer.core.session_layout import read_grant
from indexer.core.settings import ChainSettings
from indexer.core.types import (
    ZERO_ADDRESS,
    ZERO_HASH,
    Address,
    BlockHeader,
    ChainHead,
    Hash32,
)
from indexer.core.user_operations import UserOperationBody, decode_bodies
from indexer.errors import (
    BlockUnknownError,
    FencedError,
    FinalityViolationError,
    RetryableError,
    StaleStepError,
    StatePrunedError,
)
from indexer.log import get_logger
from indexer.store.copying import BodyRow, BundleRow
from indexer.store.rows import RowCounts
from indexer.store.verdicts import VerdictChange, VerdictCount

log = get_logger()

MIN_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
MAX_STALE_STEPS = 10
"""So many plans in a row that no longer fit are a trouble like any other."""


class StepListener(Protocol):
    """What the rest of the process wants to know of a lane's steps."""

    def stepping(self, lane: str) -> AbstractContextManager[None]:
        """Hold while a step is under way, however it ends."""

    def retrying(self, lane: str, error: RetryableError) -> None:
        """A step failed and will be repeated."""

    def recovered(self, lane: str) -> None:
        """A step of this lane has finished."""


class HistoryListener(StepListener, Protocol):
    """What it wants to know of the past; called after the commit."""

    def rows_committed(self, counts: RowCounts) -> None:
        """So many rows are visible now."""

    def debt_known(
        self, missing_blocks: Mapping[str, int], unreadable_blocks: Mapping[str, int]
    ) -> None:
        """So many blocks are owed, by pass; of some of them no node has the state any more."""


class Listener(HistoryListener, Protocol):
    """What it wants to know of finished steps; called after the commit."""

    def head_confirmed(self, head: ChainHead, tip: BlockHeader, finalized_number: int) -> None:
        """Everything up to `tip` is committed, and the node was asked for its head before."""

    def chain_finished(self) -> None:
        """The chain's configured last block is indexed and final; nothing comes after it."""

    def node_behind(self, head: ChainHead, tip: BlockHeader, finalized_number: int) -> None:
        """The node does not show what is committed up to `tip`: it lags, or was set back."""

    def rewound(self, depth_blocks: int) -> None:
        """A reorg moved blocks away."""

    def verdicts_changed(self, changes: Sequence[VerdictChange]) -> None:
        """These verdicts were decided."""

    def verdicts_counted(self, counts: Sequence[VerdictCount]) -> None:
        """All open verdicts, counted anew."""

    def violation_found(self, error: FinalityViolationError) -> None:
        """Node and database disagree at or below finality."""


async def keep_stepping(
    lane: str,
    step: Callable[[], Awaitable[bool]],
    idle: Callable[[], Awaitable[None]],
    listener: StepListener,
    *,
    until_idle: bool = False,
) -> None:
    """Repeat `step` for ever, with `idle` between those that found nothing to do.

    `until_idle`: only until one finds nothing to do.

    A step that failed is repeated whole, after a pause that doubles; one that was planned on
    what has moved since is planned again at once. Fencing and fatal errors end it.
    """
    backoff_seconds = MIN_BACKOFF_SECONDS
    stale_steps = 0
    while True:
        try:
            with listener.stepping(lane):
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
            if until_idle:
                return
            await idle()


def say_owed_again(chain: str, accounts: Collection[Address]) -> None:
    """Log that accounts owe roots of blocks which were paid as if they were clean."""
    if accounts:
        log.info(
            "roots_owed_again",
            chain=chain,
            accounts=len(accounts),
            reason="found tainted: their roots may have changed without a log",
        )


@dataclass(frozen=True, slots=True)
class Operation:
    """A user operation that was executed, and where the transaction that holds its input is."""

    trigger: Trigger
    entry_point: Address
    block_hash: Hash32
    transaction_index: int


@dataclass(slots=True)
class Bodies:
    """What the transactions of user operations say; `bundles` by transaction hash."""

    bodies: list[BodyRow] = field(default_factory=list)
    hints: list[RootHint] = field(default_factory=list)
    bundles: dict[Hash32, BundleRow] = field(default_factory=dict)

    def known_inputs(self) -> frozenset[Hash32]:
        """Return the hashes of the operations whose input was decoded."""
        return frozenset(row.body.user_op_hash for row in self.bodies)


async def fetch_bodies(
    node: Node,
    settings: ChainSettings,
    operations: Sequence[Operation],
) -> Bodies:
    """Decode the handleOps input of stored user operations, where their transaction is one.

    An operation whose hash the input does not yield has no row: a wrapper made it, or its input
    is not canonical. Who sent the transaction is known all the same.
    Raises BlockUnknownError when a transaction has left its block.
    """
    places = sorted({(op.block_hash, op.transaction_index) for op in operations})
    transactions = dict(zip(places, await fetch_transactions(node, places), strict=True))
    decoded: dict[tuple[Hash32, Address], Mapping[Hash32, UserOperationBody]] = {}
    answer = Bodies()
    for op in operations:
        trigger, entry_point = op.trigger, op.entry_point
        transaction = transactions[op.block_hash, op.transaction_index]
        if transaction is None or transaction.hash != trigger.transaction_hash:
            raise BlockUnknownError(
                f"the node does not have transaction {hex_of(trigger.transaction_hash)} in block "
                f"{trigger.block_number}"
            )
        answer.bundles[transaction.hash] = BundleRow(
            trigger.block_number, transaction.hash, transaction.sender, transaction.to
        )
        if transaction.to != entry_point:
            continue
        key = (trigger.transaction_hash, entry_point)
        if key not in decoded:
            try:
                found = decode_bodies(transaction.input, entry_point, settings.chain_id)
            except DecodeError:
                found = ()  # not a handleOps: whoever called the entry point did it otherwise
            decoded[key] = {body.user_op_hash: body.believed(settings.routers) for body in found}
        assert trigger.user_op_hash is not None
        body = decoded[key].get(trigger.user_op_hash)
        if body is not None:
            grants = tuple(
                read_grant(
                    one.session.session_validation_module,
                    one.session.session_key_data,
                    settings.session_layouts,
                )
                for one in body.sessions
            )
            answer.bodies.append(BodyRow(trigger.block_number, trigger.log_index, body, grants))
            # Of every contract, manager or not: one that is configured later has its hints then.
            named = {call.to for call in body.calls} | {s.manager for s in body.sessions}
            answer.hints += body_hints(trigger, body, named)
    return answer


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


@dataclass(frozen=True, slots=True)
class Observed:
    """What was read of some looks; `lost` are those whose state no node has any more."""

    roots: list[RootObservation]
    accounts: list[AccountObservation]
    lost: list[Look]
    lost_reason: str = ""


async def observe(
    node: Node, settings: ChainSettings, looks: Sequence[Look], managers: Sequence[Address]
) -> tuple[list[RootObservation], list[AccountObservation]]:
    """Read roots and slots at block hashes, in as few requests as the node allows.

    An unreadable state raises (StatePrunedError, BlockUnknownError); it is never a zero.
    """
    found = await observe_each(node, settings, looks, managers)
    if found.lost:
        raise StatePrunedError(
            found.lost_reason, remedy="use an archive node for this part of the past"
        )
    return found.roots, found.accounts


async def observe_each(
    node: Node, settings: ChainSettings, looks: Sequence[Look], managers: Sequence[Address]
) -> Observed:
    """Read what can be read; a look of which any part was pruned is lost as a whole.

    Raises BlockUnknownError and whatever else leaves open what the state is.
    """
    reads = [_reads(look, settings, managers) for look in looks]
    values = iter(await read_state_each(node, list(chain.from_iterable(reads))))
    found = Observed([], [], [])
    bare: list[tuple[Hash32, Address]] = []
    slots: list[tuple[Look, Address, Address, Address, tuple[Address, ...]]] = []
    reason = ""
    for look, asked in zip(looks, reads, strict=True):
        words = list(islice(values, len(asked)))
        pruned = next((word for word in words if isinstance(word, StatePrunedError)), None)
        if pruned is not None:
            found.lost.append(look)
            reason = reason or str(pruned)
            continue
        word = iter(cast("list[Hash32]", words))
        header = look.header
        for account in sorted(look.accounts):
            found.roots.extend(
                RootObservation(header.number, header.hash, manager, account, next(word))
                for manager in managers
            )
        for account in sorted(look.with_slots):
            implementation, handler = address_in(next(word)), address_in(next(word))
            enabled = tuple(m for m in settings.managers if next(word) != ZERO_HASH)
            slots.append((look, account, implementation, handler, enabled))
            if implementation == ZERO_ADDRESS:
                bare.append((header.hash, account))
    codes = dict(zip(bare, await read_codes(node, bare), strict=True))
    found.accounts.extend(
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
        for look, account, implementation, handler, enabled in slots
    )
    return replace(found, lost_reason=reason)


def _reads(look: Look, settings: ChainSettings, managers: Sequence[Address]) -> list[StateRead]:
    """Return the words of one look, in the order in which they are taken apart again."""
    block_hash = look.header.hash
    reads = [
        StateRead.root(block_hash, manager, account)
        for account in sorted(look.accounts)
        for manager in managers
    ]
    for account in sorted(look.with_slots):
        slots = [implementation_slot(account), FALLBACK_HANDLER_SLOT]
        slots += [module_slot(manager) for manager in settings.managers]
        reads += [StateRead(block_hash, account, slot) for slot in slots]
    return reads


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
    known_inputs: Collection[Hash32],
    managers: Collection[Address],
) -> list[RootAttribution]:
    """Name who changed what, for every root that was read because of a trigger.

    `known_inputs` are the operations whose input was decoded. A signature says something of
    sessions only where it is one for a watched manager: other modules may look like one.
    """
    by_key: dict[tuple[int, Address], list[RootHint]] = {}
    for hint in hints:
        if hint.evidence == "signature" and hint.manager not in managers:
            continue
        by_key.setdefault((hint.block_number, hint.account), []).append(hint)
    return [
        attribute(observation, triggers[key], by_key.get(key, ()), known_inputs=known_inputs)
        for observation in roots
        if (key := (observation.block_number, observation.account)) in triggers
    ]
