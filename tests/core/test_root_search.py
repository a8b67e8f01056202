"""The search for an arrangement of stored sessions: what is there is found, and nothing else."""

from __future__ import annotations

import random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core.merkle import merkle_root
from indexer.core.root_search import (
    MAX_HASHES,
    Base,
    Form,
    Order,
    RememberedSearches,
    Search,
    Tree,
    search_root,
)
from indexer.core.types import Hash32
from tests.core.planted_roots import CAUSES, Planted, base, fresh, planted

leaf = st.binary(min_size=32, max_size=32).map(Hash32)
PLENTY = 10**7
ONE, TWO, FOUR, SEVEN = fresh(random.Random(1), 4)
NOBODYS = Hash32(b"\x77" * 32)


def told(search: Search, case: Planted) -> None:
    """What was found is true: it gives the root, and says what it left out and repeated."""
    found = search.found
    assert found is not None
    assert merkle_root(found.leaves) == case.root
    by_id = {one.base_id: set(one.leaves) for one in case.bases}
    stored = by_id[found.base_id] | by_id.get(found.joined_id or 0, set())
    assert set(found.leaves) <= stored
    assert set(found.missing) == stored - set(found.leaves)
    assert not set(found.twice) - set(found.leaves)


@pytest.mark.parametrize("seed", range(200))
def test_two_hundred_stores_are_explained_rightly(seed: int):
    """Each planted cause is found as what it is, and an unrelated root as nothing."""
    case = planted(seed)
    search = search_root(case.bases, case.root)

    if case.forms is None:
        assert search.found is None
    else:
        told(search, case)
        assert search.found is not None
        assert search.found.form in case.forms
        # The leaves behind the root are those that can be proved, however the story is told.
        assert sorted(search.found.leaves) == sorted(case.leaves)


def test_the_stores_have_every_cause():
    """Two hundred stores are enough for each cause to appear often, up to twelve sessions."""
    cases = [planted(seed) for seed in range(200)]
    assert {case.cause for case in cases} == {cause.__name__[1:] for cause in CAUSES}
    assert max(len(case.bases[0].leaves) for case in cases) == 12


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_any_planted_cause_is_found(seed: int):
    """The law behind the two hundred: whatever is planted is found, and told truly."""
    case = planted(seed)
    search = search_root(case.bases, case.root)
    assert (search.found is None) == (case.forms is None)
    if case.forms is not None:
        told(search, case)


@given(
    st.lists(st.lists(leaf, min_size=1, max_size=6), min_size=1, max_size=3),
    st.lists(leaf, min_size=1, max_size=6),
)
def test_unrelated_leaves_are_never_an_explanation(sets, others):
    """A root over leaves of which one is not stored is nobody's arrangement."""
    stored = {leaf for leaves in sets for leaf in leaves}
    bases = [base(number, tuple(leaves)) for number, leaves in enumerate(sets)]
    unknown = Hash32(bytes(reversed(max(stored))))
    root = merkle_root([*others, unknown])
    if unknown not in stored and root not in stored:
        assert search_root(bases, root).found is None


@given(st.lists(leaf, min_size=1, max_size=70))
def test_the_tree_is_that_of_merkle(leaves):
    """Built from halves and remembered, each root is the one merkle.py gives; each node counts."""
    tree = Tree(PLENTY)
    assert tree.root(tuple(leaves)) == merkle_root(leaves)
    assert tree.hashes <= len(leaves) - 1
    made = tree.hashes
    assert tree.root(tuple(leaves)) == merkle_root(leaves)
    assert tree.hashes == made


@given(st.integers(1, 11))
def test_all_subsets_of_an_order_cost_a_hash_each(count):
    """Of 2^n subsets each costs at most one hash."""
    leaves = fresh(random.Random(count), count)
    tree = Tree(PLENTY)
    for mask in range(1, 1 << count):
        subset = tuple(leaf for place, leaf in enumerate(leaves) if mask >> place & 1)
        assert tree.root(subset) == merkle_root(subset)
    assert tree.hashes == (1 << count) - 1 - count


@pytest.mark.parametrize("count", [1, 2, 12, 13, 64, 200, 10_000])
@pytest.mark.parametrize("alike", [False, True], ids=["distinct", "alike"])
def test_the_bound_holds_for_any_size(count, alike):
    """However many sessions, and however few of them differ, no search makes more hashes."""
    leaves = fresh(random.Random(count), 1) * count if alike else fresh(random.Random(count), count)
    for most in (10, MAX_HASHES):
        search = search_root([base(1, leaves)], NOBODYS, max_hashes=most)
        assert search.found is None
        assert search.hashes <= most == search.max_hashes
        assert search.hashes < most or search.exhausted
        assert search.exhausted or count < 20


def test_more_sets_than_are_tried_are_not_all_tried():
    """What was not looked at is never said to have been tried."""
    leaves = fresh(random.Random(9), 33)
    bases = [base(number, (leaf,)) for number, leaf in enumerate(leaves)]
    assert not search_root(bases[1:], NOBODYS).exhausted
    assert search_root(bases, NOBODYS).exhausted


@pytest.mark.parametrize("count", [13, 100, 150])
def test_larger_stores_are_searched_for_likely_stories(count):
    """With many sessions there is no time for all subsets, but for each single change."""
    leaves = fresh(random.Random(count), count)
    for arranged in (
        leaves[::-1],
        leaves[: count // 2],
        leaves[:1] + leaves[2:],
        (*leaves, leaves[count // 2]),
        leaves + leaves[: count // 3] + leaves[count // 3 + 1 :],
    ):
        case = Planted("", (base(1, leaves),), arranged, ())
        told(search_root(case.bases, case.root), case)


def test_a_large_store_with_statuses_is_narrowed_first():
    """What the client's store says is tried before the bound is spent on the rest."""
    leaves = fresh(random.Random(5), 9_000)
    statuses = ["revoked" if place == 4_000 else "pending" for place in range(9_000)]
    kept = leaves[:4_000] + leaves[4_001:]
    found = search_root([base(1, leaves, statuses)], merkle_root(kept)).found
    assert found is not None
    assert (found.form, found.missing) == ("without_revoked", (leaves[4_000],))


# --- the simplest story -------------------------------------------------------------------------


def test_the_vendors_own_revocation_is_told_as_such():
    """Revoke the second of three: the three, then the other two once more."""
    tree = (ONE, TWO, FOUR, ONE, FOUR)
    found = search_root([base(3, (ONE, TWO, FOUR))], merkle_root(tree)).found
    assert found is not None
    assert (found.base_id, found.form, found.leaves) == (3, "revoke", tree)
    assert (found.missing, found.twice) == ((), (ONE, FOUR))


def test_a_set_as_stored_beats_every_change_of_a_newer_one():
    """Of several sets that explain a root, the one that is it."""
    bases = [base(2, (ONE, TWO, FOUR, SEVEN)), base(1, (ONE, TWO, FOUR))]
    found = search_root(bases, merkle_root((ONE, TWO, FOUR))).found
    assert found is not None
    assert (found.base_id, found.form, found.missing) == (1, "whole", ())


def test_the_fewest_missing_sessions_are_the_simplest():
    """The older set lacks one session, the newer one would lack two."""
    bases = [base(2, (ONE, TWO, FOUR, SEVEN)), base(1, (ONE, TWO, FOUR))]
    found = search_root(bases, merkle_root((ONE, TWO))).found
    assert found is not None
    assert (found.base_id, found.form, found.missing) == (1, "prefix", (FOUR,))


def test_every_form_and_order_is_found_somewhere():
    """No word of the closed sets is one that the search never says."""
    found = [search_root(case.bases, case.root).found for case in map(planted, range(400))]
    assert {one.form for one in found if one} == set(get_args(Form))
    assert {one.order for one in found if one} == set(get_args(Order))


# --- searching again ----------------------------------------------------------------------------


def test_an_answer_is_remembered_and_forgotten_in_turn():
    """The same question is searched once; statuses are part of it; the oldest answer goes first."""
    remembered = RememberedSearches(size=2)
    plain, claimed = [base(1, (ONE, TWO))], [base(1, (ONE, TWO), ["revoked", None])]
    for bases in (plain, plain, claimed, plain):
        assert remembered(bases, FOUR) == search_root(bases, FOUR)
    assert remembered.made == 2
    remembered(plain, SEVEN)
    remembered(plain, FOUR)
    assert remembered.made == 3
    remembered(claimed, FOUR)
    assert remembered.made == 4


def test_the_same_leaves_in_other_sets_are_another_question():
    """Which set holds what is part of the answer, so it is part of the question."""
    remembered = RememberedSearches()
    root = merkle_root((FOUR, TWO, ONE))
    for number in (1, 2):
        found = remembered([Base(number, (ONE, TWO, FOUR), (None,) * 3)], root).found
        assert found is not None
        assert found.base_id == number
