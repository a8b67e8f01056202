"""One sentence for one verdict: who holds what on the chain, in plain English."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from indexer.core.root_search import Search
from indexer.core.root_story import (
    MOST_NAMED,
    arranged,
    names,
    not_found,
    registered,
    sessions,
    short,
)
from indexer.core.types import Address, Hash32
from indexer.core.verdict_values import Cause, RootChange


@dataclass(frozen=True, slots=True)
class Facts:
    """What a sentence may mention; None and () where it does not apply.

    `root_block` is the block of the last change. `leaves` are those the cause is about: still
    provable, lost; `revoked` those that the client calls revoked. `named` are addresses it is
    about: other managers, modules. `search` is what was found for a root of no stored set.
    """

    root: Hash32 | None = None
    root_block: int | None = None
    on_chain_set_id: int | None = None
    expected_set_id: int | None = None
    expected_root: Hash32 | None = None
    since_block: int | None = None
    leaves: Sequence[Hash32] = ()
    named: Sequence[Address] = ()
    revoked: frozenset[Hash32] = frozenset()
    change: RootChange | None = None
    search: Search | None = None
    past_unreadable: bool = False


def explain_cause(cause: Cause, facts: Facts) -> str:
    """Say why the account is flagged."""
    shown = f"root {short(facts.root)}" if facts.root is not None else "root"
    wanted = _set(facts.expected_set_id, facts.expected_root)
    if facts.search is not None:
        return _explain_search(cause, facts.search, facts)
    match cause:
        case "tainted_account":
            return (
                "The account's implementation or fallback handler was replaced"
                f"{_at(facts.since_block)}, so its root can change without leaving a log."
            )
        case "rotated_by_session_key":
            return f"A session key, not the owner, set the {shown}, {registered(facts.change)}."
        case "manager_disabled":
            return (
                f"The {shown} stands, but the manager is not among the account's enabled modules"
                f"{_seen_at(facts.since_block)}, so no session can be used."
            )
        case "module_without_code":
            return (
                f"{_set(facts.on_chain_set_id or facts.expected_set_id, None).capitalize()} uses "
                f"a session validation module without code: {names(facts.named)}."
            )
        case "cleared_on_chain":
            return f"The root was set to zero{_at(facts.root_block)}, so no stored session works."
        case "reverted_to_older_set":
            return (
                f"The chain went back to the older set {facts.on_chain_set_id} ({shown})"
                f"{_at(facts.root_block)}, though a newer one was there before"
                f"{_provable(facts.leaves)}."
            )
        case "superseded":
            return (
                f"The chain still has set {facts.on_chain_set_id} ({shown}); {wanted}, stored "
                f"later, did not land in time{_provable(facts.leaves)}."
            )
        case "never_landed":
            where = ", as far as its past could be read" if facts.past_unreadable else ""
            return (
                f"{wanted.capitalize()} did not land in time, and the manager never held a root "
                f"for the account{where}."
            )
        case "manager_mismatch":
            return f"The root of {wanted} stands in another manager: {names(facts.named)}."
        case "order_or_duplicates":
            return (
                f"The {shown}{_set_by(facts.root_block)} holds stored sessions, but in another "
                f"order or with duplicates: it is not that of {wanted}."
            )
        case "lost_sessions":
            return (
                f"The chain has set {facts.on_chain_set_id} ({shown}), which lacks sessions of "
                f"{wanted} that are still valid: {names(facts.leaves)}."
            )
        case "revoked_still_provable":
            return (
                f"The {shown}{_set_by(facts.root_block)} still proves sessions that "
                f"{_who_revoked(facts)}: {names(facts.leaves)}."
            )
        case "unknown_root":
            return f"The {shown}{_set_by(facts.root_block)} is that of no stored set."
    assert_never(cause)


def _explain_search(cause: Cause, search: Search, facts: Facts) -> str:
    """Say how a root of no stored set comes from one, and what follows from it."""
    shown = f"root {short(facts.root)}" if facts.root is not None else "root"
    when = registered(facts.change)
    found = search.found
    if found is None:
        return f"The {shown}, {when}, is that of no stored set: {not_found(search)}."
    many = len(facts.leaves) > 1
    if cause == "lost_sessions" and set(facts.leaves) == set(found.missing):
        tail = f"; {'they are' if many else 'it is'} still valid, but cannot be used"
        return f"The {shown} is {arranged(found)}, {when}{tail}."
    tail = ""
    if cause == "revoked_still_provable":
        tail = f"; {sessions(facts.leaves)}, which {_who_revoked(facts)}, can still be used"
    elif cause == "lost_sessions":
        wanted = _set(facts.expected_set_id, None)
        tail = f"; {sessions(facts.leaves)} of {wanted}, still valid, cannot be used"
    room = MOST_NAMED - min(len(facts.leaves), MOST_NAMED)
    return f"The {shown} is {arranged(found, room=room)}, {when}{tail}."


def explain_in_sync(facts: Facts) -> str:
    """Say which set the chain has."""
    shown = short(facts.root) if facts.root is not None else "zero"
    return (
        f"The chain has set {facts.on_chain_set_id} (root {shown}), "
        f"as expected, since block {facts.root_block}."
    )


def explain_pending(facts: Facts) -> str:
    """Say what is waited for."""
    stored = f" at block {facts.since_block}" if facts.since_block is not None else ""
    return (
        f"{_set(facts.expected_set_id, facts.expected_root).capitalize()} was stored{stored} "
        "and has not landed yet; its grace time is running."
    )


def explain_unmanaged(facts: Facts) -> str:
    """Say what stands there that nobody stored."""
    shown = short(facts.root) if facts.root is not None else "a root"
    return f"The chain has root {shown}{_since(facts.root_block)}, and no session set is stored."


def explain_empty() -> str:
    """Say that there is nothing to compare."""
    return "There is neither a root on the chain nor a stored session set."


def explain_unknown(*, unreadable: bool) -> str:
    """Say why there is nothing to decide on."""
    if unreadable:
        return "The root could not be read: no node has the state of these blocks."
    return "The root has not been read yet."


def _provable(leaves: Sequence[Hash32]) -> str:
    return f"; dropped sessions still work: {names(leaves)}" if leaves else ""


def _who_revoked(facts: Facts) -> str:
    wanted = _set(facts.expected_set_id, facts.expected_root if facts.search is None else None)
    claimed = facts.revoked.intersection(facts.leaves)
    if not claimed:
        return f"{wanted} dropped"
    if claimed.issuperset(facts.leaves):
        return "your store calls revoked"
    return f"{wanted} dropped or your store calls revoked"


def _set(set_id: int | None, root: Hash32 | None) -> str:
    if set_id is None:
        return "any stored set"
    return f"set {set_id}" if root is None else f"set {set_id} (root {short(root)})"


def _at(block: int | None) -> str:
    return "" if block is None else f" at block {block}"


def _seen_at(block: int | None) -> str:
    return "" if block is None else f" (seen at block {block})"


def _since(block: int | None) -> str:
    return "" if block is None else f" since block {block}"


def _set_by(block: int | None) -> str:
    return "" if block is None else f" of block {block}"
