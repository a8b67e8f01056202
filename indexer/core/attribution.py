"""Who changed a root that state shows changed, and what contradicts what state shows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from indexer.core.abi import keccak
from indexer.core.roots import (
    MERKLE_ROOT_UPDATED,
    USER_OPERATION,
    Evidence,
    RootHint,
    RootObservation,
    Trigger,
)
from indexer.core.types import Address, Hash32
from indexer.core.user_operations import SET_MERKLE_ROOT

Attribution = Literal["user_operation", "session_key", "module", "transaction", "ambiguous", "none"]


@dataclass(frozen=True, slots=True)
class RootAttribution:
    """Who is named for the state of a root at the end of a block.

    `leaf` is the session of a user operation that a session key signed, where one is known.
    `contradiction` is a root that other evidence says should stand there, which state does not
    show. `module` is only known from a trace.
    """

    block_number: int
    manager: Address
    account: Address
    evidence: Evidence
    attribution: Attribution
    transaction_hash: Hash32 | None
    user_op_hash: Hash32 | None
    leaf: Hash32 | None = None
    contradiction: tuple[Evidence, Hash32] | None = None
    module: Address | None = None


def attribute(
    observation: RootObservation,
    triggers: Sequence[Trigger],
    hints: Sequence[RootHint],
    *,
    known_inputs: Collection[Hash32] = (),
) -> RootAttribution:
    """Name who is responsible for the root at the end of a block.

    `triggers` and `hints` are those of this account in this block, in any order. One
    transaction: that one. Several: the last that named the root which state shows (by its input,
    a manager's event, or the hash of a module's call), else ambiguous. The owner of a root is
    the caller of the manager, never tx.from or the sender of somebody else's operation. An
    operation that a session key signed is the session's, if something names the root or the proof
    shows that another root stood before; a proof of this very root clears its operation, which
    is only the first at which the root was read. `known_inputs`: see contradiction_of.
    """
    naming = [
        hint
        for hint in (*hints, *_module_hints(observation, triggers))
        if hint.manager == observation.manager
        and hint.root == observation.root
        and hint.evidence != "signature"
    ]
    transactions = {trigger.transaction_hash for trigger in triggers}
    last = max(naming, key=lambda hint: (hint.log_index, hint.hint_index), default=None)
    evidence: Evidence = last.evidence if last is not None else "state"
    attribution: Attribution = "ambiguous" if last is None and transactions else "none"
    transaction_hash: Hash32 | None = None
    if last is not None:
        transaction_hash = last.transaction_hash
    elif len(transactions) == 1:
        (transaction_hash,) = transactions
    user_op_hash, leaf = None, None
    if transaction_hash is not None:
        mine = [t for t in triggers if t.transaction_hash == transaction_hash]
        by_modules = [trigger for trigger in mine if trigger.operation is not None]
        user_op_hash = last.user_op_hash if last is not None else None
        # An operation whose calldata names the root did it itself, whatever a module did beside.
        if evidence != "calldata" and by_modules:
            attribution = "module"
            user_op_hash = user_op_hash or _only({t.user_op_hash for t in by_modules})
        else:
            user_op_hash = user_op_hash or _only({t.user_op_hash for t in mine} - {None})
            attribution = "user_operation" if user_op_hash else "transaction"
        signed = _signed(hints, user_op_hash)
        proven = _proven(hints, user_op_hash, observation.manager)
        if last is None and proven == {observation.root}:
            attribution, transaction_hash, user_op_hash = "none", None, None
        elif signed and (last is not None or proven):
            attribution = "session_key"
            leaf = last.leaf if last is not None and last.evidence == "calldata" else None
            leaf = leaf or (signed[0] if len(signed) == 1 else None)
    return RootAttribution(
        observation.block_number,
        observation.manager,
        observation.account,
        evidence,
        attribution,
        transaction_hash,
        user_op_hash,
        leaf,
        contradiction_of(observation, triggers, hints, known_inputs),
    )


def contradiction_of(
    observation: RootObservation,
    triggers: Iterable[Trigger],
    hints: Iterable[RootHint],
    known_inputs: Collection[Hash32],
) -> tuple[Evidence, Hash32] | None:
    """Return the root that must stand at the block's end by other evidence, if state has another.

    An event is emitted at every change, so the last one names what stands. Inputs tell all only
    where every operation of the account in this block was decoded (`known_inputs` are their
    hashes) and no module acted beside: then the last successful call counts, and if none set a
    root, the root that a signature proves at validation stands unchanged. That holds for an
    account that is not tainted; whether it was is known when the result is read, not always here.
    """
    mine = [hint for hint in hints if hint.manager == observation.manager]
    mine.sort(key=lambda hint: (hint.log_index, hint.hint_index))
    told = [hint for hint in mine if hint.evidence == "event"]
    complete = all(
        trigger.user_op_hash in known_inputs
        if trigger.event == USER_OPERATION
        else trigger.operation is None and trigger.event in _HARMLESS
        for trigger in triggers
    )
    if not told and complete:
        told = [hint for hint in mine if hint.evidence == "calldata"]
        told = told or [hint for hint in mine if hint.evidence == "signature"]
    if not told or told[-1].root == observation.root:
        return None
    return told[-1].evidence, told[-1].root


def _module_hints(observation: RootObservation, triggers: Iterable[Trigger]) -> Iterator[RootHint]:
    """Yield the calls of modules that set this very root: of a call only its hash is logged."""
    wanted = (observation.manager, keccak(SET_MERKLE_ROOT + observation.root))
    for trigger in triggers:
        if trigger.call == wanted:
            yield RootHint(
                trigger.block_number,
                trigger.log_index,
                0,
                trigger.transaction_hash,
                observation.manager,
                observation.account,
                observation.root,
                "event",
                trigger.user_op_hash,
            )


# Beside an operation these say nothing of a call that the operation's input does not show.
_HARMLESS = frozenset({"EnabledModule", "DisabledModule", MERKLE_ROOT_UPDATED})


def _signed(hints: Iterable[RootHint], user_op_hash: Hash32 | None) -> list[Hash32]:
    """Return the distinct leaves that an operation's signature presents."""
    leaves = [
        hint.leaf
        for hint in hints
        if hint.evidence == "signature" and hint.user_op_hash == user_op_hash and hint.leaf
    ]
    return list(dict.fromkeys(leaves)) if user_op_hash is not None else []


def _proven(
    hints: Iterable[RootHint], user_op_hash: Hash32 | None, manager: Address
) -> set[Hash32]:
    """Return the roots that stood in a manager when an operation was validated, by its proofs."""
    return {
        hint.root
        for hint in hints
        if hint.evidence == "signature"
        and hint.user_op_hash == user_op_hash is not None
        and hint.manager == manager
    }


def _only(hashes: Collection[Hash32 | None]) -> Hash32 | None:
    """Return the one user operation these are, or None if not exactly one."""
    return next(iter(hashes)) if len(hashes) == 1 else None
