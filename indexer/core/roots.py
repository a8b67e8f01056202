"""Which accounts a block may have changed, and which roots its logs and inputs name.

State decides what a root is; logs and inputs only say where to look and whom to name
(every path by which a root changes leaves a log of the account while the account is clean).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from indexer.core.events import DecodedLogs
from indexer.core.topics import TRIGGER_EVENTS
from indexer.core.types import ZERO_ADDRESS, Address, Hash32
from indexer.core.user_operations import UserOperationBody, direct_roots

Evidence = Literal["state", "event", "calldata", "signature", "trace"]

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
    `operation` (0 call, 1 delegatecall) only of module executions, `call` (the target and the
    keccak256 of the calldata) only of those that succeeded.
    """

    block_number: int
    log_index: int
    transaction_hash: Hash32
    account: Address
    event: str
    success: bool | None
    operation: int | None
    user_op_hash: Hash32 | None
    call: tuple[Address, Hash32] | None = None

    @property
    def may_change_slots(self) -> bool:
        """Whether implementation, handler or modules may have changed."""
        return self.event in _SLOT_EVENTS or self.operation == DELEGATECALL


@dataclass(frozen=True, slots=True)
class RootHint:
    """A root named by something other than state. `log_index` is that of the naming log.

    `leaf` is the session that the operation was signed with: of a signature the proven one, of
    calldata the one that stands for the call. None: no session, or several that could.
    """

    block_number: int
    log_index: int
    hint_index: int
    transaction_hash: Hash32
    manager: Address
    account: Address
    root: Hash32
    evidence: Evidence
    user_op_hash: Hash32 | None
    leaf: Hash32 | None = None


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
            module_call(event.event, event.args),
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


def module_call(event: str, args: Mapping[str, Any]) -> tuple[Address, Hash32] | None:
    """Return target and calldata hash of a module's successful call, from the event's arguments.

    ExecutionSuccess has `bytes indexed data`: the log carries its keccak256 alone.
    """
    if event != "ExecutionSuccess" or args.get("operation") != 0:
        return None
    to, data_hash = args["to"], args["dataHash"]
    return Address(bytes.fromhex(to[2:])), Hash32(bytes.fromhex(data_hash[2:]))


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
    named: list[tuple[Address, Hash32, Evidence, Hash32 | None]] = [
        (parameters.manager, parameters.implied_root, "signature", parameters.leaf)
        for parameters in body.sessions
        if parameters.manager in managers
    ]
    if operation.success:
        named += [
            (manager, root, "calldata", body.leaf_of_call(index))
            for index, manager, root in direct_roots(body.calls, managers)
        ]
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
            leaf,
        )
        for index, (manager, root, evidence, leaf) in enumerate(named)
    ]


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
