"""What to do about a verdict, a cause, a warning: closed tables, one line each."""

from __future__ import annotations

from typing import assert_never

from indexer.core.verdict_values import Cause, Verdict, VerdictWarning


def remedy(cause: Cause) -> str:
    """Say what to do about a cause."""
    match cause:
        case "tainted_account":
            return (
                "Treat the account as compromised: move what it holds to a new account. If the "
                "implementation is a trusted upgrade, add it to `implementations`."
            )
        case "rotated_by_session_key":
            return (
                "Have the owner register a set without that session: its validation module lets "
                "the key call the manager."
            )
        case "manager_disabled":
            return "Enable the module again with an operation of the owner, or clear the root."
        case "module_without_code":
            return "Correct the module's address in those sessions, store and register the new set."
        case "cleared_on_chain":
            return (
                "If it was not you who ended all sessions, register the stored set again; if it "
                "was, nothing is to be done until the next set."
            )
        case "reverted_to_older_set":
            return (
                "Find the client that still has the older list and update it, then register the "
                "newest set again."
            )
        case "superseded":
            return "Send the transaction of the newest set again; if it is not wanted, ignore this."
        case "never_landed":
            return "Send the set's transaction; check chain, manager and account address."
        case "manager_mismatch":
            return "Use one manager: register the set there, or import it for the other manager."
        case "order_or_duplicates":
            return (
                "Import the list as it stands on chain, in the order shown: proofs made from "
                "another order fail."
            )
        case "lost_sessions":
            return "Another device wrote over the list: register all sessions again, from one list."
        case "revoked_still_provable":
            return (
                "Register a set made only of the sessions that shall work. The vendor's client "
                "cannot do it: it appends to the tree. Until then every session above still works."
            )
        case "unknown_root":
            return (
                "Find who registered it (the operation above), then import that set; if nobody "
                "knows it, register yours again at once."
            )
    assert_never(cause)


def next_step(verdict: Verdict, cause: Cause | None) -> str:
    """Say what to do about a verdict."""
    if cause is not None:
        return remedy(cause)
    match verdict:
        case "in_sync" | "empty":
            return "Nothing."
        case "pending":
            return "Wait for the set's transaction."
        case "unmanaged":
            return "Import the set behind the root, if the account is yours."
        case "unknown":
            return "Give `rpc` a node that still has the state of these blocks, or wait."
        case "drifted":
            raise ValueError("a drifted account has a cause")
    assert_never(verdict)


def explain_warning(warning: VerdictWarning) -> str:
    """Say what a warning means."""
    match warning:
        case "all_expired":
            return "every session of the set has expired"
        case "expiring_soon":
            return "a session expires within a day"
        case "expired_in_root":
            return "expired sessions are still in the tree; they cannot be used"
        case "unreadable_state":
            return "the account may have acted in blocks whose state no node has"
        case "not_final":
            return "the chain may still take this back, or the account's past is not all read"
    assert_never(warning)
