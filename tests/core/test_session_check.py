"""Whether a session can be used: each point for itself, on made-up states."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.merkle import MAX_UINT48, merkle_root, session_leaf
from indexer.core.other_tree import find_tree
from indexer.core.presets import IMPLEMENTATION_200, MANAGER_V1_0_1
from indexer.core.root_search import Base
from indexer.core.session_check import POINTS, SessionState, is_usable, judge
from indexer.core.session_proof import VALIDATE_SESSION_KEY, posing_node, prove_session
from indexer.core.types import ZERO_ADDRESS, ZERO_HASH, Address, BlockHeader, Hash32, Session

NOW = 1_700_000_000
# A module whose layout is known: the key stands in the first word.
MODULE = Address(bytes.fromhex("8E09744b738e9Fec4A4df7Ab5621f1857F6Fa175"))
KEY = b"\x11" * 20
ACCOUNT = Address(b"\xac" * 20)
SESSIONS = [Session(0, 0, MODULE, KEY.rjust(32, b"\0") + n.to_bytes(32) * 2) for n in range(5)]
PROVED = prove_session(SESSIONS, 2)
GOOD = SessionState(
    block=BlockHeader(9, Hash32(b"\x09" * 32), Hash32(b"\x08" * 32), NOW),
    account_code=b"\x60",
    implementation=IMPLEMENTATION_200,
    fallback_handler=Address(b"\x0b" * 20),
    module_word=Hash32(b"\x01".rjust(32, b"\0")),
    root=PROVED.root,
    manager_code=b"\x63" + VALIDATE_SESSION_KEY,
    validation_module_code=b"\x60",
    refusal=None,
)


def judged(state=GOOD, proved=PROVED):
    return judge(
        proved,
        state,
        account=ACCOUNT,
        implementations={IMPLEMENTATION_200},
        managers={MANAGER_V1_0_1},
        layouts={},
    )


def failing(state=GOOD, proved=PROVED):
    return {point.name for point in judged(state, proved) if not point.holds}


def test_all_holds_of_a_usable_session():
    """Every point is there once, in its order, with a reason."""
    points = judged()

    assert tuple(point.name for point in points) == POINTS
    assert all(point.holds and point.reason for point in points)
    assert is_usable(points)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"account_code": b""}, {"account"}),
        ({"implementation": ZERO_ADDRESS}, {"account"}),
        ({"fallback_handler": MANAGER_V1_0_1}, {"fallback_handler"}),
        ({"manager_code": b""}, {"manager", "contract"}),
        ({"manager_code": b"\x60"}, {"contract"}),
        ({"module_word": ZERO_HASH}, {"module_enabled"}),
        ({"root": ZERO_HASH}, {"root", "proof"}),
        ({"root": Hash32(b"\x77" * 32)}, {"root", "proof"}),
        ({"validation_module_code": b""}, {"validation_module"}),
        ({"refusal": "execution reverted"}, {"contract"}),
    ],
)
def test_one_thing_wrong_fails_its_own_points(change, names):
    """What is changed in the state, and nothing else, is told; the session is not usable."""
    state = replace(GOOD, **change)

    assert failing(state) == names
    assert not is_usable(judged(state))


@given(st.integers(0, MAX_UINT48), st.integers(0, MAX_UINT48), st.integers(0, MAX_UINT48))
def test_the_window_is_inclusive_and_zero_has_no_end(valid_after, valid_until, time):
    """As the EntryPoint: validAfter <= time <= validUntil, and a validUntil of 0 never passes."""
    proved = prove_session(
        [Session(valid_until, valid_after, MODULE, SESSIONS[0].session_key_data)], 0
    )
    state = replace(GOOD, root=proved.root, block=replace(GOOD.block, timestamp=time))
    inside = valid_after <= time and (valid_until == 0 or time <= valid_until)

    assert failing(state, proved) == (set() if inside else {"window"})


@pytest.mark.parametrize("second", [-1, 0, 1])
def test_the_edges_of_the_window(second):
    """The last second is inside, so is the first."""
    end = prove_session([Session(NOW + second, 0, MODULE, SESSIONS[0].session_key_data)], 0)
    begin = prove_session([Session(0, NOW + second, MODULE, SESSIONS[0].session_key_data)], 0)

    assert ("window" in failing(replace(GOOD, root=end.root), end)) is (second < 0)
    assert ("window" in failing(replace(GOOD, root=begin.root), begin)) is (second > 0)


def test_a_key_in_an_unknown_layout_hinders_nothing():
    """The key cannot be named, which says nothing against the session."""
    proved = prove_session([Session(0, 0, Address(b"\x99" * 20), b"")], 0)
    points = judged(replace(GOOD, root=proved.root), proved)

    assert [point.name for point in points if point.holds is None] == ["session_key"]
    assert is_usable(points)


def test_an_inner_node_is_never_a_member():
    """Its proof holds, and the manager takes it; it is no session of the set all the same."""
    posing = posing_node(SESSIONS, PROVED.root)
    assert posing is not None
    points = {point.name: point.holds for point in judged(GOOD, posing)}

    assert (points["proof"], points["contract"], points["member"]) == (True, True, False)


def test_a_session_is_judged_by_the_tree_that_stands():
    """Root, proof and contract go by an arrangement that proves it; one that lacks it fails."""
    leaves = tuple(session_leaf(one) for one in SESSIONS)
    bases = [Base(1, leaves, (None,) * len(leaves))]
    appended = merkle_root([*leaves, *leaves[:2], *leaves[3:]])
    without = merkle_root([*leaves[:2], *leaves[3:]])

    still = replace(GOOD, root=appended, other=find_tree(PROVED, bases, appended))
    gone = replace(GOOD, root=without, other=find_tree(PROVED, bases, without))
    nowhere = Hash32(b"\x77" * 32)
    unknown = replace(GOOD, root=nowhere, other=find_tree(PROVED, bases, nowhere))

    assert is_usable(judged(still))
    assert failing(gone) == {"root", "proof"}
    assert failing(unknown) == {"root", "proof"}
    reasons = [{p.name: p.reason for p in judged(one)}["root"] for one in (still, gone, unknown)]
    assert "and it proves this session" in reasons[0]
    assert "which lacks this session" in reasons[1]
    assert f"`sessionwatch explain 0x{ACCOUNT.hex()}`" in reasons[2]
