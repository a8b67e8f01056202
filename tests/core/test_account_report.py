"""One account in detail: the tree's leaves, how each stored set differs, what should not work."""

from __future__ import annotations

from indexer.core.account_report import ProvableSession, report_account
from indexer.core.types import ZERO_HASH
from tests.core.test_verdict_arrangements import FIVE, REVOKED_TWO, THREE, claimed, root
from tests.core.test_verdicts import START, UNKNOWN_ROOT, change, inputs, session, stored

HEAD_TIME = START + 1_000


def leaves(*names: int):
    return tuple(session(name).leaf for name in names)


def test_a_stored_set_on_chain_is_the_tree():
    """No search is made for what is known; an older set shows what it has not."""
    small = stored(1, [1, 2], 10)
    report = report_account(
        inputs([change(12, small), change(32, THREE)], [THREE, small]), None, HEAD_TIME
    )
    assert (report.leaves, report.on_chain_set_id, report.search) == (leaves(1, 2, 4), 3, None)
    assert [(s.set_id, s.likeness, s.missing, s.extra) for s in report.sets] == [
        (3, "same", (), ()),
        (1, "other_sessions", (), leaves(4)),
    ]
    assert report.provable == ()


def test_an_arrangement_is_the_tree_too():
    """Its leaves are compared in their order, and what is twice is no difference of sessions."""
    report = report_account(
        inputs([change(45, root(1, 2, 4, 1, 4))], [REVOKED_TWO]),
        "revoked_still_provable",
        HEAD_TIME,
    )
    assert report.leaves == leaves(1, 2, 4, 1, 4)
    assert (report.on_chain_set_id, report.wanted_set_id) == (None, 3)
    assert report.sets[0].likeness == "other_order"
    assert report.provable == (ProvableSession(*leaves(2), "revoked", 0),)


def test_what_a_newer_set_dropped_is_provable_where_the_verdict_says_so():
    """A set stored later is a wish only if the verdict takes it for one: it may be an archive."""
    newer = stored(4, [1, 2], 40)
    case = inputs([change(45, THREE)], [THREE, newer])
    undone = report_account(case, "revoked_still_provable", HEAD_TIME)
    assert undone.provable == (ProvableSession(*leaves(4), "dropped", 0),)
    assert report_account(case, None, HEAD_TIME).provable == ()


def test_an_expired_session_is_not_provable():
    """What nobody can use needs no attention."""
    short_lived = stored(3, [claimed(1), claimed(2, "revoked", HEAD_TIME - 1)], 30)
    case = inputs([change(32, short_lived)], [short_lived])
    assert report_account(case, None, HEAD_TIME).provable == ()
    assert len(report_account(case, None, HEAD_TIME - 1).provable) == 1


def test_an_unknown_tree_is_compared_with_nothing():
    """Neither missing nor extra is claimed of leaves that nobody knows."""
    report = report_account(inputs([change(45, UNKNOWN_ROOT)], [FIVE]), "unknown_root", HEAD_TIME)
    assert report.leaves is None
    assert report.search is not None
    assert report.search.found is None
    assert [(s.likeness, s.missing, s.extra) for s in report.sets] == [("not_known", (), ())]


def test_a_zero_root_is_an_empty_tree_only_where_it_was_read():
    """Cleared lacks everything; what was never read lacks nothing that is known."""
    cleared = report_account(
        inputs([change(12, FIVE), change(45, ZERO_HASH)], [FIVE]), "cleared_on_chain", HEAD_TIME
    )
    assert cleared.leaves == ()
    assert cleared.sets[0].missing == leaves(1, 2, 3, 4, 5)
    unread = report_account(inputs([], [FIVE], first=None), None, HEAD_TIME)
    assert unread.leaves is None
    assert unread.sets[0].likeness == "not_known"


def test_without_sets_there_is_nothing_to_compare():
    """An unmanaged root is not searched for."""
    report = report_account(inputs([change(45, UNKNOWN_ROOT)]), None, HEAD_TIME)
    assert (report.leaves, report.search, report.sets, report.wanted_set_id) == (
        None,
        None,
        (),
        None,
    )
