"""Which accounts a block may have changed, and who changed a root that state shows changed.

State decides what a root is; logs and inputs only say where to look and whom to name
(every path by which a root changes leaves a log of the account while the account is clean).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from indexer.core.events import DecodedLogs
from indexer.core.topics import TRIGGER_EVENTS
from indexer.core.types import ZERO_ADDRESS, Address, Hash32
from indexer.core.user_operations import UserOperationBody, direct_roots

Evidence = Literal["state", "event", "calldata", "signature", "trace"]
Attribution = Literal["user_operation", "module", "session_key", "transaction", "ambiguous", "none"]

USER_OPERATION = "UserOperation"
"""The event name a trigger carries when it is a UserOperationEvent."""
MERKLE_ROOT_UPDATED = "MerkleRootUpdated"
"""The event name a trigger carries when it is the event of a manager that has one."""

# After these the account's own slots may have changed (the initial ones included).
_SLOT_EVENTS = frozenset(
    {
        "AccountCreation",
        "AccountCreationWithoutIndex",
        "AccountDeployed",
        "ChangedFallbackHandler",
        "DisabledModule",
        "EnabledModule",
        "ImplementationUpdated",
    }
)
DELEGATECALL = 1


@dataclass(frozen=True, slots=True)
class Trigger:
    """A log that says: this account may have acted in this block.

    `event` is the account event's name or USER_OPERATION; `success` only of user operations;
    `operation` (0 call, 1 delegatecall) only of module executions.
    """

    block_number: int
    log_index: int
    transaction_hash: Hash32
    account: Address
    event: str
    success: bool | None
    operation: int | None
    user_op_hash: Hash32 | None

    @property
    def may_change_slots(self) -> bool:
        """Whether implementation, handler or modules may have changed."""
        return self.event in _SLOT_EVENTS or self.operation == DELEGATECALL


@dataclass(frozen=True, slots=True)
class RootHint:
    """A root named by something other than state. `log_index` is that of the naming log."""

    block_number: int
    log_index: int
    hint_index: int
    transaction_hash: Hash32
    manager: Address
    account: Address
    root: Hash32
    evidence: Evidence
    user_op_hash: Hash32 | None


@dataclass(frozen=True, slots=True)
class RootObservation:
    """The root of an account in a manager, read from state at a block hash."""

    block_number: int
    block_hash: Hash32
    manager: Address
    account: Address
    root: Hash32


@dataclass(frozen=True, slots=True)
class AccountObservation:
    """An account's own slots at a block hash. implementation zero: no proxy of this kind."""

    block_number: int
    block_hash: Hash32
    account: Address
    implementation: Address
    fallback_handler: Address
    enabled_managers: tuple[Address, ...]
    tainted: bool


@dataclass(frozen=True, slots=True)
class RootAttribution:
    """Who is named for the state of a root at the end of a block."""

    block_number: int
    manager: Address
    account: Address
    evidence: Evidence
    attribution: Attribution
    transaction_hash: Hash32 | None
    user_op_hash: Hash32 | None


def triggers_of(decoded: DecodedLogs) -> list[Trigger]:
    """Return the triggers among decoded logs, in block and log order."""
    found = [
        Trigger(
            op.at.block_number,
            op.at.log_index,
            op.at.transaction_hash,
            op.sender,
            USER_OPERATION,
            op.success,
            None,
            op.user_op_hash,
        )
        for op in decoded.user_operations
    ]
    found += [
        Trigger(
            event.at.block_number,
            event.at.log_index,
            event.at.transaction_hash,
            event.account,
            event.event,
            None,
            event.args.get("operation"),
            event.user_op_hash,
        )
        for event in decoded.account_events
        if event.event in TRIGGER_EVENTS
    ]
    found += [
        Trigger(
            creation.at.block_number,
            creation.at.log_index,
            creation.at.transaction_hash,
            creation.account,
            creation.event,
            None,
            None,
            None,
        )
        for creation in decoded.creations
    ]
    found += [
        Trigger(
            event.at.block_number,
            event.at.log_index,
            event.at.transaction_hash,
            event.account,
            MERKLE_ROOT_UPDATED,
            None,
            None,
            event.user_op_hash,
        )
        for event in decoded.manager_roots
    ]
    found.sort(key=lambda trigger: (trigger.block_number, trigger.log_index))
    return found


def event_hints(decoded: DecodedLogs) -> list[RootHint]:
    """Return what MerkleRootUpdated logs say."""
    return [
        RootHint(
            event.at.block_number,
            event.at.log_index,
            0,
            event.at.transaction_hash,
            event.manager,
            event.account,
            event.root,
            "event",
            event.user_op_hash,
        )
        for event in decoded.manager_roots
    ]


def body_hints(
    operation: Trigger, body: UserOperationBody, managers: Collection[Address]
) -> list[RootHint]:
    """Return the roots that the input of one executed user operation names.

    Calldata counts only if the operation succeeded; the proof in a session signature shows
    the root at validation and counts in any case.
    """
    named: list[tuple[Address, Hash32, Evidence]] = [
        (parameters.manager, parameters.implied_root, "signature")
        for parameters in body.sessions
        if parameters.manager in managers
    ]
    if operation.success:
        named += [(m, root, "calldata") for m, root in direct_roots(body.calls, managers)]
    return [
        RootHint(
            operation.block_number,
            operation.log_index,
            index,
            operation.transaction_hash,
            manager,
            body.sender,
            root,
            evidence,
            body.user_op_hash,
        )
        for index, (manager, root, evidence) in enumerate(named)
    ]


def attribute(
    observation: RootObservation, triggers: Sequence[Trigger], hints: Iterable[RootHint]
) -> RootAttribution:
    """Name who is responsible for the root at the end of a block.

    `triggers` and `hints` are those of this account in this block, in any order. One
    transaction: that one. Several: the last that named the root which state shows, else
    ambiguous. The owner of a root is the caller of the manager, never tx.from or the sender
    of somebody else's operation.
    """
    naming = [
        hint
        for hint in hints
        if hint.manager == observation.manager
        and hint.root == observation.root
        and hint.evidence != "signature"
    ]
    transactions = {trigger.transaction_hash for trigger in triggers}
    evidence: Evidence = "state"
    attribution: Attribution = "none"
    transaction_hash: Hash32 | None = None
    user_op_hash: Hash32 | None = None
    if naming:
        last = max(naming, key=lambda hint: (hint.log_index, hint.hint_index))
        evidence, transaction_hash = last.evidence, last.transaction_hash
        user_op_hash = last.user_op_hash or _only_operation(triggers, transaction_hash)
    elif len(transactions) == 1:
        (transaction_hash,) = transactions
        user_op_hash = _only_operation(triggers, transaction_hash)
    elif transactions:
        attribution = "ambiguous"
    if transaction_hash is not None:
        mine = [t for t in triggers if t.transaction_hash == transaction_hash]
        # An operation whose calldata names the root did it itself, whatever a module did beside.
        if evidence != "calldata" and any(t.operation is not None for t in mine):
            attribution = "module"
        else:
            attribution = "user_operation" if user_op_hash else "transaction"
    return RootAttribution(
        observation.block_number,
        observation.manager,
        observation.account,
        evidence,
        attribution,
        transaction_hash,
        user_op_hash,
    )


def _only_operation(triggers: Sequence[Trigger], transaction_hash: Hash32) -> Hash32 | None:
    """Return the one user operation these triggers belong to, or None if not exactly one."""
    found = {
        trigger.user_op_hash
        for trigger in triggers
        if trigger.transaction_hash == transaction_hash and trigger.user_op_hash is not None
    }
    return next(iter(found)) if len(found) == 1 else None


def is_tainted(
    implementation: Address,
    fallback_handler: Address,
    *,
    has_code: bool,
    implementations: Collection[Address],
    managers: Collection[Address],
) -> bool:
    """Say whether the account can change a root without leaving a log of its own.

    Clean is: implementation 2.0.0 and no watched manager as fallback handler. An account
    without code can do nothing at all.
    """
    if not has_code:
        return False
    return implementation not in implementations or fallback_handler in managers


def by_account(
    triggers: Iterable[Trigger],
) -> Mapping[tuple[int, Address], list[Trigger]]:
    """Group triggers by (block number, account), keeping log order."""
    groups: dict[tuple[int, Address], list[Trigger]] = {}
    for trigger in triggers:
        if trigger.account != ZERO_ADDRESS:
            groups.setdefault((trigger.block_number, trigger.account), []).append(trigger)
    return groups
