"""What makes a session set, and what tells two of them apart."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core.abi import keccak
from indexer.core.merkle import merkle_root, session_leaf
from indexer.core.session_sets import MAX_SESSION_KEY_DATA_BYTES, MAX_SESSIONS, build_set
from indexer.core.types import Address, Session

MANAGER = Address(b"\x02" * 20)
ACCOUNT = Address(b"\x0a" * 20)
MODULE = Address(b"\x0b" * 20)

sessions_of = st.lists(
    st.builds(
        Session, st.integers(0, 9), st.integers(0, 9), st.just(MODULE), st.binary(max_size=2)
    ),
    min_size=1,
    max_size=9,
)


@given(sessions_of)
@settings(deadline=None)
def test_a_set_is_computed_from_its_sessions(sessions):
    """Leaves stand in the order of the sessions, the root and the identity follow from them."""
    made = build_set(80001, MANAGER, ACCOUNT, sessions)
    assert made.sessions == tuple(sessions)
    assert made.leaves == tuple(session_leaf(session) for session in sessions)
    assert made.root == merkle_root(made.leaves)
    assert made.leaves_digest == keccak(b"".join(made.leaves))


@given(sessions_of, sessions_of)
@settings(deadline=None)
def test_the_identity_is_the_ordered_list(one, other):
    """Two sets have the same digest exactly when they hold the same sessions in the same order."""
    first, second = (build_set(1, MANAGER, ACCOUNT, sessions) for sessions in (one, other))
    assert (first.leaves_digest == second.leaves_digest) is (one == other)


def test_two_orders_with_one_root_are_two_sets():
    """The root cannot tell two swapped sessions apart, the identity does."""
    a, b = Session(0, 0, MODULE, b"a"), Session(0, 0, MODULE, b"b")
    one, other = build_set(1, MANAGER, ACCOUNT, [a, b]), build_set(1, MANAGER, ACCOUNT, [b, a])
    assert one.root == other.root
    assert one.leaves_digest != other.leaves_digest


def test_the_limits_hold_at_their_edges():
    """The largest set and the longest data pass, one more does not; an empty set has no root."""
    small = Session(0, 0, MODULE, b"")
    assert len(build_set(1, MANAGER, ACCOUNT, [small] * MAX_SESSIONS).leaves) == MAX_SESSIONS
    with pytest.raises(ValueError, match="10001 sessions"):
        build_set(1, MANAGER, ACCOUNT, [small] * (MAX_SESSIONS + 1))
    longest = Session(0, 0, MODULE, bytes(MAX_SESSION_KEY_DATA_BYTES))
    build_set(1, MANAGER, ACCOUNT, [longest])
    longer = Session(0, 0, MODULE, bytes(MAX_SESSION_KEY_DATA_BYTES + 1))
    with pytest.raises(ValueError, match="session 1 has"):
        build_set(1, MANAGER, ACCOUNT, [small, longer])
    with pytest.raises(ValueError, match="no root"):
        build_set(1, MANAGER, ACCOUNT, [])


def test_wrong_places_are_refused():
    """A set belongs to a positive chain id and to addresses of 20 bytes."""
    session = Session(0, 0, MODULE, b"")
    with pytest.raises(ValueError, match="chain_id"):
        build_set(0, MANAGER, ACCOUNT, [session])
    with pytest.raises(ValueError, match="20 bytes"):
        build_set(1, Address(b"\x01" * 32), ACCOUNT, [session])
    with pytest.raises(ValueError, match="20 bytes"):
        build_set(1, MANAGER, Address(b""), [session])
