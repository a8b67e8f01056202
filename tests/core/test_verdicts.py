"""The decision: each cause and warning by example, and the laws that hold for any inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.merkle import keccak, merkle_root
from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.core.verdicts import (
    AccountState,
    Cause,
    Decision,
    Instant,
    RootChange,
    Settings,
    StoredSession,
    StoredSet,
    VerdictInputs,
    VerdictWarning,
    decide,
    severity_of,
)

MANAGER = Address(bytes.fromhex("000002fbffedd9b33f4e7156f2de8d48945e7489"))
OTHER_MANAGER = Address(bytes.fromhex("000000456b395c4e107e0302553b90d1ef4a32e9"))
ACCOUNT = Address(b"\xac" * 20)
MODULE = Address(b"\x5e" * 20)
SETTINGS = Settings(grace_seconds=600)
UNKNOWN_ROOT = keccak(b"nobody stored this")
START = 1_700_000_000
"""Block number n has the time START + n, and the database's clock runs with the chain's."""


def session(name: int, valid_until: int = 0, module: Address = MODULE) -> StoredSession:
    return StoredSession(keccak(b"leaf %d" % name), valid_until, 0, module)


def stored(
    set_id: int, names: Sequence[int] | Sequence[StoredSession], block: int | None = None, **more
) -> StoredSet:
    """A set stored when `block` was the indexed one; a number stands for a session of that name."""
    sessions = tuple(session(n) if isinstance(n, int) else n for n in names)
    root = merkle_root([s.leaf for s in sessions])
    stored_at = more.get("stored_at", START + (block or 0) + 0.5)
    return StoredSet(set_id, root, block, stored_at, sessions)


def change(block: int, root: Hash32 | StoredSet, **who) -> RootChange:
    shown = root.root if isinstance(root, StoredSet) else root
    return RootChange(block, START + block, shown, **who)


def inputs(changes=(), sets=(), first: int | None = 1, **more) -> VerdictInputs:
    return VerdictInputs(
        manager=MANAGER,
        account=ACCOUNT,
        changes=tuple(changes),
        first_observation=None if first is None else Instant(first, START + first),
        sets=tuple(sets),
        other_roots=more.pop("other_roots", {}),
        **more,
    )


def verdict(given_inputs: VerdictInputs, *, at: int = 10_000, settings=SETTINGS) -> Decision:
    """The decision with everything indexed up to block `at`, long after by default."""
    return decide(
        given_inputs,
        head_number=at,
        head_time=START + at,
        confirmed_at=float(START + at),
        settings=settings,
    )


A = stored(1, [1, 2], 10)
B = stored(2, [2, 3, 4], 20)


# --- without a cause --------------------------------------------------------------------------


def test_nothing_read_is_unknown_not_empty():
    """A root that was never read is no zero."""
    assert verdict(inputs(first=None)).verdict == "unknown"
    found = verdict(inputs(first=None, sets=[A], unreadable=True))
    assert (found.verdict, found.warnings) == ("unknown", ("unreadable_state",))
    assert (found.since_block, found.since_time) == (10, A.stored_at)


def test_what_rests_on_an_unreadable_past_says_so():
    """A set that is awaited may have been on chain where nobody could look; what stands is seen."""
    found = verdict(inputs(sets=[A], past_unreadable=True))
    assert (found.cause, found.warnings) == ("never_landed", ("unreadable_state",))
    assert found.explanation.endswith("as far as its past could be read.")
    assert verdict(inputs([change(12, A)], [A], past_unreadable=True)).warnings == ()


def test_a_zero_root_without_sets_is_empty():
    """Nothing on chain and nothing stored is empty, since the first look."""
    found = verdict(inputs(first=7))
    assert (found.verdict, found.severity, found.since_block) == ("empty", "info", 7)
    assert verdict(inputs([change(8, A), change(9, ZERO_HASH)])).verdict == "empty"


def test_a_root_without_sets_is_unmanaged():
    """A root that nobody stored is no drift."""
    found = verdict(inputs([change(8, UNKNOWN_ROOT)]))
    assert (found.verdict, found.cause, found.since_block) == ("unmanaged", None, 8)
    assert found.on_chain_root == UNKNOWN_ROOT


@pytest.mark.parametrize("landed_block", [5, 10, 15])
def test_a_landed_set_is_in_sync_whichever_came_first(landed_block):
    """Set first or root first: both end in_sync, since the later of the two."""
    found = verdict(inputs([change(landed_block, A)], [A]))
    assert (found.verdict, found.cause, found.severity) == ("in_sync", None, "info")
    assert (found.on_chain_set_id, found.expected_set_id) == (1, 1)
    assert found.since_block == max(10, landed_block)


def test_a_stored_set_is_pending_until_its_grace_is_over():
    """A set that has not landed is pending; afterwards it is drift, since the grace's end."""
    end = int(A.stored_at + 600 - START)
    early = verdict(inputs(sets=[A]), at=end)
    assert (early.verdict, early.since_block, early.since_time) == ("pending", 10, A.stored_at)
    assert early.recheck_at == A.stored_at + 600

    late = verdict(inputs(sets=[A]), at=end + 1)
    assert (late.verdict, late.cause) == ("drifted", "never_landed")
    assert late.since_time == A.stored_at + 600
    assert late.recheck_at is None


def test_the_grace_waits_for_a_head_asked_for_after_it():
    """However late a block is, only the confirmed database time ends a grace."""
    case = inputs([change(12, A)], [A, B])
    found = decide(
        case, head_number=9_999, head_time=START + 9_999, confirmed_at=B.stored_at + 599,
        settings=SETTINGS,
    )  # fmt: skip
    assert found.verdict == "pending"


def test_a_set_stored_again_does_not_become_expected():
    """An old set keeps its place among the sets: what is on chain stays expected."""
    found = verdict(inputs([change(12, A), change(22, B)], [A, B]))
    assert (found.verdict, found.expected_set_id) == ("in_sync", 2)


def test_a_set_stored_before_the_last_change_is_not_expected():
    """What was stored before the chain moved elsewhere is history."""
    early = stored(3, [1, 2, 9], 11)
    found = verdict(inputs([change(12, A)], [A, early]))
    assert (found.verdict, found.expected_set_id) == ("in_sync", 1)


def test_a_set_stored_before_the_first_observation_is_expected_only_over_zero():
    """Stored while nothing was indexed: awaited on a zero root, history on any other."""
    before = stored(3, [7], None, stored_at=START - 50.0)
    assert verdict(inputs(sets=[before])).cause == "never_landed"
    found = verdict(inputs([change(5, A)], [before, A], first=5))
    assert (found.verdict, found.expected_set_id) == ("in_sync", 1)
    assert verdict(inputs([change(5, UNKNOWN_ROOT)], [before], first=5)).cause == "unknown_root"


def test_going_back_to_a_smaller_set_is_in_sync():
    """Adding a session and going back drops nothing that a newer set dropped: no alarm."""
    small, big = stored(1, [1], 10), stored(2, [1, 2], 20)
    case = inputs([change(12, small), change(22, big), change(32, small)], [small, big])
    assert verdict(case).verdict == "in_sync"


def test_two_orders_with_one_root_are_both_on_chain():
    """Two leaves commute, so a set that differs only in their order has landed too."""
    swapped = stored(5, [2, 1], 30)
    assert swapped.root == A.root
    found = verdict(inputs([change(12, A)], [A, swapped]))
    assert (found.verdict, found.on_chain_set_id) == ("in_sync", 5)


# --- causes -----------------------------------------------------------------------------------

TAINTED = (AccountState(2, START + 2, False, True), AccountState(40, START + 40, True, True))
DISABLED = (AccountState(2, START + 2, False, True), AccountState(40, START + 40, False, False))
NEW = stored(9, [1, 2, 5], 50)
REVOKE = stored(4, [1, 4], 40)
THREE = stored(3, [1, 2, 4], 30)
SDK_TREE = merkle_root([session(n).leaf for n in (1, 2, 4, 1, 4)])
GRACE_END_OF_NEW = NEW.stored_at + 600

CAUSES: list[tuple[str, VerdictInputs, str, str, float]] = [
    (
        "a replaced implementation flags a matching root",
        inputs([change(12, A)], [A], account_states=TAINTED),
        "tainted_account", "critical", START + 40,
    ),
    (
        "a root set by a session key is flagged though it matches",
        inputs([change(12, A, attribution="session_key")], [A]),
        "rotated_by_session_key", "critical", START + 12,
    ),
    (
        "a disabled manager makes a matching root useless",
        inputs([change(12, A)], [A], account_states=DISABLED),
        "manager_disabled", "warning", START + 40,
    ),
    (
        "a module without code makes its sessions useless",
        inputs([change(12, A)], [A], modules_without_code=frozenset({MODULE})),
        "module_without_code", "warning", START + 12,
    ),
    (
        "a cleared root",
        inputs([change(12, A), change(33, ZERO_HASH)], [A]),
        "cleared_on_chain", "warning", START + 33,
    ),
    (
        "an overdue set where the chain went back to an older one",
        inputs([change(12, A), change(22, B), change(32, A)], [A, B, NEW]),
        "reverted_to_older_set", "critical", GRACE_END_OF_NEW,
    ),
    (
        "the chain went back to sessions that the newest set had dropped",
        inputs([change(12, A), change(22, B), change(32, A)], [A, B]),
        "reverted_to_older_set", "critical", START + 32,
    ),
    (
        "the chain still has the older set",
        inputs([change(12, A)], [A, NEW]),
        "superseded", "warning", GRACE_END_OF_NEW,
    ),
    (
        "the chain still has the older set, whose dropped session works",
        inputs([change(32, THREE)], [THREE, REVOKE]),
        "superseded", "critical", REVOKE.stored_at + 600,
    ),
    (
        "a set that never landed anywhere",
        inputs(sets=[NEW]),
        "never_landed", "warning", GRACE_END_OF_NEW,
    ),
    (
        "a set whose root sits in another manager",
        inputs(sets=[NEW], other_roots={OTHER_MANAGER: NEW.root}),
        "manager_mismatch", "warning", GRACE_END_OF_NEW,
    ),
    (
        "the awaited leaves in the order of a set learnt later",
        inputs([change(12, stored(8, [1, 2, 5])), change(14, stored(8, [5, 1, 2]))],
               [stored(9, [5, 2, 1], 50), stored(11, [5, 1, 2], 60)]),
        "order_or_duplicates", "warning", GRACE_END_OF_NEW,
    ),
    (
        "a stored set learnt later that lacks an awaited session",
        inputs([change(12, A)], [NEW, stored(11, [1, 2], 60)]),
        "lost_sessions", "warning", GRACE_END_OF_NEW,
    ),
    (
        "the vendor's revocation: the old tree with the rest appended",
        inputs([change(32, THREE), change(45, SDK_TREE)], [THREE, REVOKE]),
        "revoked_still_provable", "critical", START + 45,
    ),
    (
        "a revocation overtaken by the transaction of an older set",
        inputs([change(12, A), change(45, THREE)], [A, THREE, REVOKE]),
        "revoked_still_provable", "critical", REVOKE.stored_at + 600,
    ),
    (
        "a root that nobody stored",
        inputs([change(12, A), change(34, UNKNOWN_ROOT)], [A]),
        "unknown_root", "critical", START + 34,
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CAUSES, ids=[case[0] for case in CAUSES])
def test_each_cause_by_example(case):
    """Each cause appears in its situation, with its severity and the instant it began."""
    _, given_inputs, cause, severity, since_time = case
    found = verdict(given_inputs)
    assert (found.verdict, found.cause, found.severity) == ("drifted", cause, severity)
    assert found.since_time == since_time


def test_every_cause_has_an_example():
    """A cause without an example cannot be added."""
    assert {case[2] for case in CAUSES} == set(get_args(Cause))


def test_the_first_cause_in_the_order_wins():
    """Where several causes hold, the one named first is shown."""
    all_wrong = inputs(
        [change(12, A), change(34, UNKNOWN_ROOT, attribution="session_key")],
        [A, NEW],
        account_states=(AccountState(40, START + 40, True, False),),
        modules_without_code=frozenset({MODULE}),
    )
    assert verdict(all_wrong).cause == "tainted_account"
    clean = (AccountState(40, START + 40, False, False),)
    untainted = dataclasses.replace(all_wrong, account_states=clean)
    assert verdict(untainted).cause == "rotated_by_session_key"
    changes = (change(12, A), change(34, UNKNOWN_ROOT))
    by_owner = dataclasses.replace(untainted, changes=changes)
    assert verdict(by_owner).cause == "manager_disabled"
    enabled = dataclasses.replace(by_owner, account_states=())
    assert verdict(enabled).cause == "module_without_code"


def test_a_pending_set_excuses_a_mismatch_but_not_a_taint():
    """Grace is for landing; an account that can change its root unseen is flagged at once."""
    changes = [change(34, UNKNOWN_ROOT)]
    soon = NEW.stored_block + 1
    assert verdict(inputs(changes, [A, NEW]), at=soon).verdict == "pending"
    tainted = inputs(changes, [A, NEW], account_states=TAINTED)
    assert verdict(tainted, at=soon).cause == "tainted_account"


def test_a_manager_not_enabled_before_the_first_root_is_no_drift_of_its_own():
    """One operation enables the manager and sets the root: before it, the set is what is late."""
    states = (AccountState(2, START + 2, False, False),)
    assert verdict(inputs(sets=[A], account_states=states), at=12).verdict == "pending"
    assert verdict(inputs(sets=[A], account_states=states)).cause == "never_landed"


def test_an_archive_of_the_past_revokes_nothing():
    """A set stored after the chain had left it is no wish that its successor's sessions end."""
    archive = stored(7, [2, 3, 4], 50)
    case = inputs([change(12, archive), change(32, A)], [A, archive])
    assert verdict(case).verdict == "in_sync"
    unindexed = stored(7, [2, 3, 4], None, stored_at=START + 50.0)
    assert verdict(dataclasses.replace(case, sets=(A, unindexed))).verdict == "in_sync"


def test_sets_of_one_import_do_not_revoke_each_other():
    """Stored at one instant, neither set is newer: no false alarm."""
    one = stored(1, [1, 2], 10, stored_at=START + 10.0)
    two = stored(2, [3], 10, stored_at=START + 10.0)
    assert verdict(inputs([change(12, one)], [one, two])).verdict == "in_sync"


def test_what_a_client_calls_revoked_is_dropped_by_the_set_without_it_of_one_import():
    """A client's store is stored as all its leaves and, at one instant, its wish."""
    revoked = dataclasses.replace(session(1), client_status="revoked")
    everything = stored(1, [revoked, session(2), session(3)], 10, stored_at=START + 10.0)
    wish = stored(2, [2], 10, stored_at=START + 10.0)
    case = inputs([change(12, everything)], [everything, wish])
    assert verdict(case, at=500).verdict == "in_sync"
    found = verdict(case)
    assert (found.cause, found.severity) == ("revoked_still_provable", "critical")
    assert found.explanation.count("…") == 2, "only the revoked leaf is named, beside the root"


def test_an_expired_session_revoked_is_no_alarm():
    """A dropped session that has expired proves nothing any more, and time alone settles it."""
    three = stored(3, [1, session(2, START + 5_000), 4], 30)
    case = inputs([change(12, A), change(45, three)], [A, three, REVOKE])
    before = verdict(case, at=5_000)
    assert before.cause == "revoked_still_provable"
    assert before.recheck_block_time == START + 5_001
    assert verdict(case, at=5_001).verdict == "in_sync"


def test_joined_trees_that_drop_nothing_are_about_duplicates():
    """The old list with a longer list appended revokes nothing: the order is what is wrong."""
    longer = stored(4, [1, 2, 4, 7], 40)
    tree = merkle_root([session(n).leaf for n in (1, 2, 4, 1, 2, 4, 7)])
    found = verdict(inputs([change(32, THREE), change(45, tree)], [THREE, longer]))
    assert found.cause == "order_or_duplicates"


def test_a_stored_superset_learnt_later_still_proves_what_was_dropped():
    """A tree known only afterwards counts for what it proves beyond the awaited set."""
    wider = stored(11, [1, 2, 4], 60)
    case = inputs([change(12, wider)], [REVOKE, wider])
    assert verdict(case).cause == "revoked_still_provable"


def test_every_severity_is_graded():
    """Each cause has a severity, and only `superseded` depends on what the tree proves."""
    for cause in get_args(Cause):
        plain, provable = (severity_of(cause, revoked_provable=flag) for flag in (False, True))
        assert {plain, provable} <= {"critical", "warning"}
        assert (plain != provable) == (cause == "superseded")


# --- warnings ---------------------------------------------------------------------------------

DAY = 86_400
SOON = stored(1, [session(1, START + 200_000), session(2)], 10)
MIXED = stored(1, [session(1, START + 300_000), session(2, START + 500_000)], 10)


@pytest.mark.parametrize(
    ("given_set", "at", "warnings", "recheck"),
    [
        (SOON, 20, (), 200_000 - DAY),
        (SOON, 200_000 - DAY, ("expiring_soon",), 200_001),
        (SOON, 200_000, ("expiring_soon",), 200_001),
        (SOON, 200_001, ("expired_in_root",), None),
        (MIXED, 300_001, ("expired_in_root",), 500_000 - DAY),
        (MIXED, 500_000, ("expiring_soon", "expired_in_root"), 500_001),
        (MIXED, 500_001, ("all_expired", "expired_in_root"), None),
        (A, 900_000, (), None),
    ],
)
def test_expiry_warns_beside_in_sync_by_block_time(given_set, at, warnings, recheck):
    """Expiry never makes a mismatch, and the next block time that changes a warning is known."""
    found = verdict(inputs([change(12, given_set)], [given_set]), at=at)
    assert (found.verdict, found.warnings) == ("in_sync", warnings)
    assert found.recheck_block_time == (None if recheck is None else START + recheck)


def test_an_awaited_set_can_expire_but_has_nothing_in_the_root():
    """`expired_in_root` is about the chain's tree alone."""
    late = stored(1, [session(1, START + 11)], 10)
    found = verdict(inputs(sets=[late]), at=12)
    assert (found.verdict, found.warnings) == ("pending", ("all_expired",))


def test_a_stale_root_that_could_not_be_read_again_is_a_warning():
    """The last root read stays the answer, with a warning beside it."""
    found = verdict(inputs([change(12, A)], [A], unreadable=True))
    assert (found.verdict, found.warnings) == ("in_sync", ("unreadable_state",))


# --- explanations -----------------------------------------------------------------------------


def test_an_explanation_is_one_sentence_with_at_most_three_leaves():
    """Many dropped sessions are counted, not listed."""
    many = stored(3, [1, *range(20, 30)], 30)
    found = verdict(inputs([change(32, many)], [many, REVOKE]))
    assert found.explanation.count("0x") == 2 + 3
    assert found.explanation.endswith("and 7 more.")
    assert f"0x{session(20).leaf[:4].hex()}…{session(20).leaf[-2:].hex()}" in found.explanation


@pytest.mark.parametrize("case", CAUSES, ids=[case[0] for case in CAUSES])
def test_explanations_are_sentences(case):
    """Each explanation starts with a capital, ends with one full stop and is short."""
    text = verdict(case[1]).explanation
    assert text[0].isupper()
    assert text.endswith(".")
    assert ". " not in text
    assert len(text) < 300


# --- laws -------------------------------------------------------------------------------------

_times = st.one_of(st.just(0), st.integers(START, START + 400_000), st.just(2**48 - 1))
_enabled = st.sampled_from([True, False, None])
_sessions = st.builds(
    lambda name, until, module, status: dataclasses.replace(
        session(name + until % 7, until, module), client_status=status
    ),
    st.integers(0, 4),
    _times,
    st.sampled_from([MODULE, Address(bytes(20))]),
    st.sampled_from([None, "active", "revoked"]),
)


@st.composite
def any_inputs(draw) -> VerdictInputs:
    """Inputs as they may be loaded, from few sessions and roots so that they collide."""
    count = draw(st.integers(0, 4))
    sets = []
    for set_id in range(1, count + 1):
        block = draw(st.one_of(st.none(), st.integers(0, 60)))
        sessions = draw(st.lists(_sessions, min_size=1, max_size=4))
        at = START + draw(st.integers(-100, 60_000)) / 2
        if sets and draw(st.booleans()):
            # Of one import.
            block, at = sets[-1].stored_block, sets[-1].stored_at
        sets.append(stored(set_id, sessions, block, stored_at=at))
    roots = [s.root for s in sets] + [UNKNOWN_ROOT, ZERO_HASH]
    first = draw(st.one_of(st.none(), st.integers(0, 30)))
    changes: list[RootChange] = []
    if first is not None:
        blocks = sorted(draw(st.sets(st.integers(first, 60), max_size=5)))
        for block in blocks:
            before = changes[-1].root if changes else ZERO_HASH
            root = draw(st.sampled_from(roots))
            if root != before:
                changes.append(change(block, root))
    states = tuple(
        AccountState(block, START + block, draw(st.booleans()), draw(_enabled))
        for block in sorted(draw(st.sets(st.integers(0, 60), max_size=3)))
    )
    return inputs(
        changes,
        sets,
        first,
        other_roots=draw(
            st.dictionaries(st.just(OTHER_MANAGER), st.sampled_from([r for r in roots if any(r)]))
        ),
        account_states=states if draw(st.booleans()) else (),
        modules_without_code=draw(st.sampled_from([frozenset(), frozenset({Address(bytes(20))})])),
        unreadable=draw(st.booleans()),
    )


@given(any_inputs(), st.integers(60, 400_000), st.randoms(use_true_random=False))
def test_deciding_is_total_deterministic_and_blind_to_the_order_of_sets(case, at, random):
    """Any inputs have one verdict, with a cause exactly when drifted, whatever order sets have."""
    found = verdict(case, at=at)
    shuffled = list(case.sets)
    random.shuffle(shuffled)

    assert verdict(dataclasses.replace(case, sets=tuple(shuffled)), at=at) == found
    assert (found.verdict == "drifted") == (found.cause is not None)
    assert set(found.warnings) <= set(get_args(VerdictWarning))
    assert len(set(found.warnings)) == len(found.warnings)
    assert (found.verdict in {"in_sync", "pending", "drifted"}) == (
        bool(case.sets) and case.first_observation is not None
    )
    if found.verdict == "in_sync":
        assert found.expected_root == found.on_chain_root
    if found.verdict == "pending":
        assert found.recheck_at is not None
    if case.first_observation is None:
        assert found.on_chain_root is None
    assert found.explanation.endswith(".")


def _without_rechecks(decision: Decision) -> Decision:
    return dataclasses.replace(
        decision, recheck_at=None, recheck_block_time=None,
        since_block=None if decision.verdict == "unknown" else decision.since_block,
        since_time=0.0 if decision.verdict == "unknown" else decision.since_time,
    )  # fmt: skip


@given(any_inputs(), st.integers(60, 300_000), st.integers(1, 200_000))
def test_until_the_rechecks_nothing_changes_by_time(case, at, later):
    """A sweep that looks only at due rows misses no change that time alone makes."""
    now = verdict(case, at=at)
    confirmed = at + later
    head = at + later
    if now.recheck_at is not None:
        confirmed = min(confirmed, int(now.recheck_at) - START - 1)
    if now.recheck_block_time is not None:
        head = min(head, now.recheck_block_time - START - 1)
        assert now.recheck_block_time > START + at
    then = decide(
        case,
        head_number=head,
        head_time=START + head,
        confirmed_at=max(float(START + confirmed), float(START + at)),
        settings=SETTINGS,
    )
    assert _without_rechecks(then) == _without_rechecks(now)


@given(any_inputs(), st.integers(60, 400_000))
def test_a_due_grace_is_never_due_again(case, at):
    """Once the clock has reached recheck_at, the new decision asks for a later one or none."""
    now = verdict(case, at=at)
    if now.recheck_at is not None:
        assert now.recheck_at > START + at
        then = decide(
            case,
            head_number=at,
            head_time=START + at,
            confirmed_at=now.recheck_at,
            settings=SETTINGS,
        )
        assert then.recheck_at is None or then.recheck_at > now.recheck_at


def test_a_restored_back_up_raises_no_alarm():
    """Of one import the later set is the newer: where it has landed, the older is not awaited."""
    old, new = stored(1, [1, 2], 50, stored_at=START), stored(2, [2, 3], 50, stored_at=START)

    found = verdict(inputs([change(50, new)], [old, new], first=50))

    assert found.verdict == "in_sync"
    later = stored(1, [1, 2], 50, stored_at=START + 1)
    assert verdict(inputs([change(50, new)], [new, later], first=50)).verdict == "drifted"
