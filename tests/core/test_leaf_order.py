"""Orders that spare proofs: their laws, and that small sets get the best there is."""

from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.core.abi import keccak
from indexer.core.leaf_order import (
    EXACT_LEAVES,
    all_proofs,
    changed_elements,
    choose_order,
)
from indexer.core.merkle import implied_root, merkle_proof, merkle_root


def leaves(name, count):
    return [keccak(f"{name} {i}".encode()) for i in range(count)]


@st.composite
def changes(draw, most=40):
    """(old leaves, some of them twice; dropped indexes; new leaves), and something remains."""
    pool = leaves("old", most)
    old = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=most))
    gone = draw(st.sets(st.sampled_from(old), max_size=len(old)))
    # Of a leaf that repeats all places may go, or those behind the first, or none.
    tidied = draw(st.booleans())
    dropped = frozenset(
        i for i, leaf in enumerate(old) if leaf in gone or (tidied and leaf in old[:i])
    )
    least = 1 if len(dropped) == len(old) else 0
    return old, dropped, leaves("new", draw(st.integers(least, most // 2)))


def cost_of(old, dropped, new, items):
    """Changed elements of the last proof of each kept leaf, by the plain functions."""
    all_leaves = [*old, *new]
    order = [all_leaves[item] for item in items]
    staying = {leaf for i, leaf in enumerate(old) if i not in dropped}
    last_old = {leaf: i for i, leaf in enumerate(old) if leaf in staying}
    last_new = {leaf: i for i, leaf in enumerate(order)}
    return sum(
        changed_elements(merkle_proof(old, i), merkle_proof(order, last_new[leaf]))
        for leaf, i in last_old.items()
    )


def appended(old, dropped, new):
    """The plain order: close the gaps, append what is new."""
    return [i for i in range(len(old)) if i not in dropped] + [
        len(old) + i for i in range(len(new))
    ]


@given(changes())
def test_an_order_has_everything_once_and_is_never_worse_than_appending(change):
    """Each kept place and each new leaf once; cost as told, between the bound and appending."""
    old, dropped, new = change
    plain = appended(old, dropped, new)

    order = choose_order(old, dropped, new)

    assert sorted(order.items) == plain
    cost = cost_of(old, dropped, new, order.items)
    assert order.changed_elements == cost
    assert order.least_elements <= cost <= cost_of(old, dropped, new, plain)
    assert [c is None for c in order.changes] == [item >= len(old) for item in order.items]
    last = {([*old, *new])[i]: c for i, c in zip(order.items, order.changes, strict=True)}
    assert sum(c or 0 for c in last.values()) == cost


@settings(max_examples=40)
@given(changes(most=5))
@example((leaves("old", 4), frozenset({1}), []))
@example((leaves("old", 5), frozenset(), leaves("new", 1)))
def test_of_few_leaves_no_order_changes_less(change):
    """Every permutation was tried by hand: none is cheaper, where the order claims to be best."""
    old, dropped, new = change
    plain = appended(old, dropped, new)
    new = new[: max(0, 5 - len(plain) + len(new))] if len(plain) > 5 else new
    plain = appended(old, dropped, new)

    order = choose_order(old, dropped, new)

    assert len(plain) <= EXACT_LEAVES
    assert order.is_optimal
    assert order.changed_elements == min(
        cost_of(old, dropped, new, items) for items in permutations(plain)
    )


@given(changes())
def test_no_order_goes_below_the_bound(change):
    """What is said to be the least holds for an arbitrary order, too: here the reversed one."""
    old, dropped, new = change
    plain = appended(old, dropped, new)

    order = choose_order(old, dropped, new)

    assert cost_of(old, dropped, new, plain[::-1]) >= order.least_elements


@pytest.mark.parametrize(("size", "hole"), [(8, 3), (33, 0), (1000, 999), (1024, 511)])
def test_a_new_leaf_takes_the_place_of_a_dropped_one(size, hole):
    """One out, one in: every other proof changes in one element, and no order can do with less."""
    order = choose_order(leaves("old", size), frozenset({hole}), leaves("new", 1))

    assert order.changed_elements == order.least_elements == size - 1
    assert order.is_optimal


def test_a_hole_in_a_full_tree_costs_one_element_per_proof():
    """128 without one: the halves stay together, and each proof changes in one element."""
    old = leaves("old", 128)
    dropped = frozenset({30})

    order = choose_order(old, dropped, [])

    assert order.changed_elements == order.least_elements == 127
    assert cost_of(old, dropped, [], appended(old, dropped, [])) > 4 * 127


def test_nothing_changed_keeps_the_order():
    """Without anything dropped or new the stored order stays, and so do all proofs."""
    old = leaves("old", 7)

    order = choose_order(old, frozenset(), [])

    assert order.items == tuple(range(7))
    assert (order.changed_elements, order.least_elements, order.is_optimal) == (0, 0, True)


def test_nothing_left_has_no_order():
    """An empty set has no root, so it has no order either."""
    with pytest.raises(ValueError, match="empty"):
        choose_order(leaves("old", 2), frozenset({0, 1}), [])


def test_changed_elements_counts_replaced_added_and_removed_ones():
    """One proof against another: equal, replaced, shorter, longer, shifted, exchanged."""
    a, b, c, d = leaves("element", 4)

    assert changed_elements((a, b), (a, b)) == 0
    assert changed_elements((a, b, c), (a, d, c)) == 1
    assert changed_elements((a, b), (b,)) == 1
    assert changed_elements((b,), (a, b)) == 1
    assert changed_elements((a, b, c), (b, c, d)) == 1
    assert changed_elements((a, b), (b, a)) == 1
    assert changed_elements((), (a, b)) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11, 33])
def test_all_proofs_are_the_proofs_one_by_one(count):
    """The proofs out of one tree equal those made singly, and lead to the root."""
    some = leaves("leaf", count)

    of_one_tree = list(all_proofs(some))

    assert of_one_tree == [merkle_proof(some, i) for i in range(count)]
    reached = {implied_root(leaf, proof) for leaf, proof in zip(some, of_one_tree, strict=True)}
    assert reached == {merkle_root(some)}
