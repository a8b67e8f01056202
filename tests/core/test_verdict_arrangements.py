"""Roots that no stored set has: what an arrangement of stored sessions means, and how it is told.

Also revocations that a client's store claims, whatever set stands on chain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.merkle import merkle_root
from indexer.core.root_search import MAX_HASHES, Base, RememberedSearches, Search
from indexer.core.root_story import short
from indexer.core.types import Hash32
from indexer.core.verdicts import Decision, StoredSession, VerdictInputs, decide
from tests.core.test_verdicts import (
    SETTINGS,
    START,
    UNKNOWN_ROOT,
    any_inputs,
    change,
    inputs,
    session,
    stored,
    verdict,
)

OPERATION = Hash32(b"\x0b" * 32)
TRANSACTION = Hash32(b"\x7a" * 32)
GRACE_SECONDS = SETTINGS.grace_seconds


def claimed(name: int, status: str | None = None, valid_until: int = 0) -> StoredSession:
    return dataclasses.replace(session(name, valid_until), client_status=status)


def root(*names: int) -> Hash32:
    return merkle_root([session(name).leaf for name in names])


def leaf(name: int) -> str:
    return short(session(name).leaf)


def by_operation(block: int, shown: Hash32):
    return change(
        block, shown, attribution="user_operation", user_op_hash=OPERATION,
        transaction_hash=TRANSACTION,
    )  # fmt: skip


THREE = stored(3, [1, 2, 4], 30)
REVOKED_TWO = stored(3, [claimed(1, "active"), claimed(2, "revoked"), claimed(4, "pending")], 30)
FIVE = stored(5, [1, 2, 3, 4, 5], 30)

ARRANGED: list[tuple[str, VerdictInputs, str, str]] = [
    (
        "the vendor's revocation, from its store alone",
        inputs([change(45, root(1, 2, 4, 1, 4))], [REVOKED_TWO]),
        "revoked_still_provable", "critical",
    ),
    (
        "the tree rebuilt from all leaves after a revocation, in another order",
        inputs([change(45, root(4, 2, 1))], [REVOKED_TWO]),
        "revoked_still_provable", "critical",
    ),
    (
        "a part of an older set that the newest dropped",
        inputs([change(45, root(1, 2))], [THREE, stored(4, [4, 7], 40)]),
        "revoked_still_provable", "critical",
    ),
    (
        "the vendor's list after a revocation that it forgot",
        inputs([change(45, root(1, 2, 4, 1, 4))], [THREE]),
        "order_or_duplicates", "warning",
    ),
    (
        "the reverse order",
        inputs([change(45, root(5, 4, 3, 2, 1))], [FIVE]),
        "order_or_duplicates", "warning",
    ),
    (
        "a session twice",
        inputs([change(45, root(1, 2, 4, 2))], [THREE]),
        "order_or_duplicates", "warning",
    ),
    (
        "a root without what was revoked, which is as it should be",
        inputs([change(45, root(1, 4))], [REVOKED_TWO]),
        "order_or_duplicates", "warning",
    ),
    (
        "an older state of the list",
        inputs([change(45, root(1, 2, 3))], [FIVE]),
        "lost_sessions", "warning",
    ),
    (
        "two sessions lost to another device",
        inputs([change(45, root(1, 3, 5))], [FIVE]),
        "lost_sessions", "warning",
    ),
    (
        "a root that nobody stored",
        inputs([change(45, UNKNOWN_ROOT)], [FIVE]),
        "unknown_root", "critical",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", ARRANGED, ids=[case[0] for case in ARRANGED])
def test_the_cause_of_each_arrangement(case):
    """What the tree proves decides, since the change that brought it."""
    _, given_inputs, cause, severity = case
    found = verdict(given_inputs)
    assert (found.verdict, found.cause, found.severity) == ("drifted", cause, severity)
    assert found.since_block == 45
    assert found.on_chain_set_id is None
    assert found.explanation.endswith(".")
    assert found.explanation.count(". ") == 0
    assert len(found.explanation) < 300


def test_a_set_that_is_awaited_excuses_any_arrangement():
    """While a set is within its grace nothing is searched for."""
    wish = stored(9, [7], 60)
    case = inputs([change(45, root(4, 2, 1))], [THREE, wish])
    assert verdict(case, at=61).verdict == "pending"
    assert verdict(case).cause == "revoked_still_provable"


def test_lost_sessions_that_have_expired_are_no_loss():
    """What lacks nothing that still works is about the list only, from the expiry on."""
    mixed = stored(5, [1, claimed(2, None, START + 5_000), 4], 30)
    case = inputs([change(45, root(1, 4))], [mixed])
    before = verdict(case, at=5_000)
    assert (before.cause, before.recheck_block_time) == ("lost_sessions", START + 5_001)
    assert verdict(case, at=5_001).cause == "order_or_duplicates"


# --- sentences ----------------------------------------------------------------------------------


def test_a_revocation_without_effect_is_told_with_who_did_it():
    """Which set, what was done to it, in which operation, and what still works."""
    case = inputs([by_operation(45, root(1, 2, 4, 1, 4))], [REVOKED_TWO])
    assert verdict(case).explanation == (
        f"The root {short(root(1, 2, 4, 1, 4))} is your set 3 with remaining sessions appended "
        "again, as the vendor's client does to revoke, registered in block 45 by user operation "
        f"{short(OPERATION)}; session {leaf(2)}, which your store calls revoked, can still be used."
    )


def test_lost_sessions_are_named_once():
    """A session that is missing and lost is the same session."""
    case = inputs([by_operation(45, root(1, 2, 3, 5))], [FIVE])
    assert verdict(case).explanation == (
        f"The root {short(root(1, 2, 3, 5))} is your set 5 without session {leaf(4)}, registered "
        f"in block 45 by user operation {short(OPERATION)}; it is still valid, but cannot be used."
    )


def test_what_a_newer_set_dropped_is_told_with_that_set():
    """Dropped by a set is something else than revoked by a store."""
    case = inputs([change(45, root(1, 2))], [THREE, stored(4, [1], 40)])
    assert verdict(case).explanation == (
        f"The root {short(root(1, 2))} is your set 3 without session {leaf(4)}, registered in "
        f"block 45; session {leaf(2)}, which set 4 dropped, can still be used."
    )


def test_no_sentence_names_more_than_three_leaves():
    """Where many are dropped and many missing, the rest is counted."""
    many = stored(3, list(range(10)), 30)
    case = inputs([change(45, root(*range(6)))], [many, stored(4, [9], 40)])
    text = verdict(case).explanation
    assert "without 4 sessions, registered" in text
    assert "and 3 more, which set 4 dropped, can still be used." in text
    assert text.count("0x") == 1 + 3


def test_an_unknown_root_says_how_far_the_search_went():
    """All tried for a small store, the bound for a large one."""
    small = verdict(inputs([by_operation(45, UNKNOWN_ROOT)], [THREE])).explanation
    assert small == (
        f"The root {short(UNKNOWN_ROOT)}, registered in block 45 by user operation "
        f"{short(OPERATION)}, is that of no stored set: all orders, subsets and repetitions that "
        "clients make of the stored sets were tried."
    )
    large = stored(3, list(range(40)), 30)
    assert verdict(inputs([change(45, UNKNOWN_ROOT)], [large])).explanation == (
        f"The root {short(UNKNOWN_ROOT)}, registered in block 45, is that of no stored set: no "
        f"arrangement of the stored sets found within {MAX_HASHES:,} hashes gives it."
    )


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ({}, "in block 45;"),
        ({"attribution": "ambiguous"}, "in block 45;"),
        (
            {"attribution": "transaction", "transaction_hash": TRANSACTION},
            f"in block 45 by transaction {short(TRANSACTION)};",
        ),
        (
            {"attribution": "module", "transaction_hash": TRANSACTION},
            f"in block 45 by a module of the account in transaction {short(TRANSACTION)};",
        ),
    ],
)
def test_who_registered_a_root_as_far_as_it_is_known(who, said):
    """An operation, a transaction, a module, or only the block."""
    case = inputs([change(45, root(1, 2), **who)], [THREE])
    assert f"registered {said}" in verdict(case).explanation


def test_a_root_set_by_a_session_key_names_its_operation():
    """The operation is what to look at first."""
    case = inputs([change(12, THREE, attribution="session_key", user_op_hash=OPERATION)], [THREE])
    assert verdict(case).explanation == (
        f"A session key, not the owner, set the root {short(THREE.root)}, registered in block 12 "
        f"by user operation {short(OPERATION)}."
    )


# --- revocations that a store claims ------------------------------------------------------------


def test_a_claimed_revocation_is_not_silently_in_sync():
    """The stored set is on chain, with a session that its own store calls revoked."""
    case = inputs([change(32, REVOKED_TWO)], [REVOKED_TWO])
    end = int(REVOKED_TWO.stored_at + GRACE_SECONDS - START)
    early = verdict(case, at=end)
    assert (early.verdict, early.recheck_at) == ("in_sync", REVOKED_TWO.stored_at + GRACE_SECONDS)

    late = verdict(case, at=end + 1)
    assert (late.cause, late.severity) == ("revoked_still_provable", "critical")
    assert late.since_time == REVOKED_TWO.stored_at + GRACE_SECONDS
    assert late.on_chain_set_id == late.expected_set_id == 3
    assert late.explanation == (
        f"The root {short(REVOKED_TWO.root)} of block 32 still proves sessions that your store "
        f"calls revoked: {leaf(2)}."
    )


@pytest.mark.parametrize("status", [None, "pending", "active", "inactive", "expired"])
def test_no_other_claim_says_anything(status):
    """Only `revoked` is a wish; the others are what the client believes."""
    one = stored(3, [claimed(1, status), claimed(2, status)], 30)
    assert verdict(inputs([change(32, one)], [one])).verdict == "in_sync"


def test_a_revoked_session_that_has_expired_is_no_alarm():
    """It proves nothing any more, and time alone settles it."""
    one = stored(3, [claimed(1), claimed(2, "revoked", START + 5_000)], 30)
    case = inputs([change(32, one)], [one])
    before = verdict(case, at=5_000)
    assert (before.cause, before.recheck_block_time) == ("revoked_still_provable", START + 5_001)
    assert verdict(case, at=5_001).verdict == "in_sync"


def test_a_session_revoked_and_created_again_is_wanted():
    """The newest set that holds a leaf decides, and in it every occurrence."""
    again = stored(4, [claimed(1), claimed(2), claimed(4), claimed(2)], 40)
    both = stored(4, [claimed(1), claimed(2, "revoked"), claimed(4), claimed(2, "active")], 40)
    for newest in (again, both):
        case = inputs([change(45, newest)], [REVOKED_TWO, newest])
        assert verdict(case).verdict == "in_sync"
    gone = stored(4, [claimed(1), claimed(2, "revoked"), claimed(4), claimed(2, "revoked")], 40)
    assert verdict(inputs([change(45, gone)], [THREE, gone])).cause == "revoked_still_provable"


def test_an_overdue_set_does_not_hide_what_its_store_calls_revoked():
    """The older set stands and the newer one keeps the leaf, but calls it revoked."""
    newer = stored(4, [claimed(1), claimed(2, "revoked"), claimed(4), claimed(7)], 40)
    found = verdict(inputs([change(32, THREE)], [THREE, newer]))
    assert (found.cause, found.severity) == ("superseded", "critical")
    assert leaf(2) in found.explanation


# --- laws ---------------------------------------------------------------------------------------


def never(bases: Sequence[Base], wanted: Hash32) -> Search:
    raise AssertionError("searched")


def decided(case: VerdictInputs, at: int, search) -> Decision:
    return decide(
        case, head_number=at, head_time=START + at, confirmed_at=float(START + at),
        settings=SETTINGS, search=search,
    )  # fmt: skip


@given(any_inputs(), st.integers(60, 400_000))
def test_only_an_unknown_root_is_searched_for(case, at):
    """No search for what is in sync, pending, empty, cleared, or a stored set's."""
    found = verdict(case, at=at)
    is_stored = found.on_chain_root in {one.root for one in case.sets}
    if found.verdict != "drifted" or is_stored or not any(found.on_chain_root or b""):
        assert decided(case, at, never) == found


_remembered = RememberedSearches(size=8)


@given(any_inputs(), st.integers(60, 400_000))
def test_a_remembered_search_decides_the_same(case, at):
    """Whatever was asked before, a decision depends on its inputs alone."""
    assert decided(case, at, _remembered) == verdict(case, at=at)
