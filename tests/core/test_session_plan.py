"""The next set of an account: what stays, goes and joins, and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.merkle import implied_root, merkle_proof, merkle_root, session_leaf
from indexer.core.session_plan import is_expired, plan_sessions
from indexer.core.types import Address, Session

MODULE = Address(b"\x8e" * 20)
NOW = 1_700_000_000


def session(number, valid_until=0):
    return Session(valid_until, 0, MODULE, bytes([number]))


sessions = st.lists(
    st.builds(session, st.integers(0, 20), st.sampled_from([0, NOW - 1, NOW, NOW + 1])), max_size=24
)


@given(sessions.filter(len), sessions, st.data())
def test_a_plan_has_what_it_must_and_every_session_proves(stored, add, data):
    """The root is that of its order; all not expired or named is there; nothing new is twice."""
    free = [s for s in stored if s not in add]
    drop = data.draw(
        st.sets(st.sampled_from([session_leaf(s) for s in free])) if free else st.just(set())
    )

    plan = plan_sessions(stored, block_time=NOW, drop=drop, add=add)

    leaves = [one.leaf for one in plan.sessions]
    assert leaves == [session_leaf(one.session) for one in plan.sessions]
    staying = [
        i for i, s in enumerate(stored) if not is_expired(s, NOW) and session_leaf(s) not in drop
    ]
    assert sorted(p.stored_index for p in plan.sessions if p.stored_index is not None) == staying
    assert sorted([*staying, *(one.stored_index for one in plan.dropped)]) == list(
        range(len(stored))
    )
    new = [p.session for p in plan.sessions if p.stored_index is None]
    assert set(new) == {s for s in add if not is_expired(s, NOW)} - set(stored)
    assert len(new) == len(set(new))
    assert len(new) + len(plan.left_out) == len(add)
    if not leaves:
        assert plan.root is None
        return
    assert plan.root == merkle_root(leaves)
    assert all(
        implied_root(leaf, merkle_proof(leaves, i)) == plan.root for i, leaf in enumerate(leaves)
    )


def test_sessions_expire_after_their_last_second_and_may_be_kept():
    """ValidUntil is inclusive; without a block time nothing counts as expired."""
    stored = [session(1, NOW - 1), session(2, NOW), session(3)]

    plan = plan_sessions(stored, block_time=NOW)
    kept = plan_sessions(stored, block_time=None)

    assert [(one.stored_index, one.reason) for one in plan.dropped] == [(0, "expired")]
    assert len(kept.sessions) == 3


def test_what_is_not_added_is_told_with_the_reason():
    """In the set already, twice in the document, or over: each says so."""
    stored = [session(1)]
    add = [session(2), session(1), session(2), session(3, NOW - 1)]

    plan = plan_sessions(stored, block_time=NOW, add=add)

    assert [(one.added_index, one.reason) for one in plan.left_out] == [
        (1, "in the set"),
        (2, "repeated"),
        (3, "expired"),
    ]


def test_a_dropped_session_is_named_so_even_if_it_has_expired():
    """Every occurrence of a named leaf goes, and so it was asked for."""
    twice = session(1, NOW - 1)

    plan = plan_sessions([twice, session(2), twice], block_time=NOW, drop=[session_leaf(twice)])

    assert [(one.stored_index, one.reason) for one in plan.dropped] == [(0, "named"), (2, "named")]
    assert [one.session for one in plan.sessions] == [session(2)]


def test_repeated_sessions_stay_repeated_and_count_as_one_proof():
    """A set is an ordered list with duplicates: a plan does not tidy it up by itself."""
    plan = plan_sessions([session(1), session(2), session(1)], block_time=NOW)

    assert [one.session for one in plan.sessions] == [session(1), session(2), session(1)]
    assert (plan.proofs, plan.unchanged_proofs) == (2, 2)


def test_wrong_leaves_to_drop_are_refused():
    """A leaf that is not in the set, or that is also to be added, is a mistake."""
    with pytest.raises(ValueError, match="not a leaf"):
        plan_sessions([session(1)], block_time=NOW, drop=[session_leaf(session(2))])
    with pytest.raises(ValueError, match="to be added"):
        plan_sessions(
            [session(1)], block_time=NOW, drop=[session_leaf(session(1))], add=[session(1)]
        )


def test_what_a_store_calls_revoked_goes_unless_it_is_added_again():
    """At every place of the leaf, by the client's word; a document that brings it back wins."""
    stored = [session(1), session(2), session(3), session(3), session(4)]
    statuses = ["active", "revoked", "revoked", None, "revoked"]

    plan = plan_sessions(stored, block_time=NOW, statuses=statuses, add=[session(4)])

    assert [(one.stored_index, one.reason) for one in plan.dropped] == [(1, "revoked")]
    assert [one.added_index for one in plan.left_out] == [0]
    assert len(plan_sessions(stored, block_time=NOW).sessions) == len(stored)


def test_once_leaves_the_first_of_what_repeats():
    """A tree that revocations appended to is planned as the list that the client keeps."""
    kept, revoked, other = session(1), session(2), session(3)
    appended = [kept, revoked, other, kept, other]
    statuses = [None, "revoked", None, None, None]

    plan = plan_sessions(appended, block_time=NOW, statuses=statuses, once=True)

    assert {one.session for one in plan.sessions} == {kept, other}
    assert [(one.stored_index, one.reason) for one in plan.dropped] == [
        (1, "revoked"),
        (3, "repeated"),
        (4, "repeated"),
    ]
    assert plan.root == merkle_root([session_leaf(kept), session_leaf(other)])
    assert plan.proofs == 2
