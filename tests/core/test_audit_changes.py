"""Which changes the roots say that an audit has read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from indexer.core.audit_changes import Stored, changes_since
from indexer.core.roots import RootObservation
from indexer.core.types import Address, Hash32

MANAGER, ACCOUNT = Address(b"\xaa" * 20), Address(b"\x01" * 20)


def root(n: int) -> Hash32:
    return Hash32(n.to_bytes(32))


def at(number: int, value: int) -> RootObservation:
    return RootObservation(number, root(1000 + number), MANAGER, ACCOUNT, root(value))


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.data())
def test_where_every_block_was_read_every_change_is_of_its_block(
    roots: list[int], data: st.DataObject
) -> None:
    """Fewer reads show no other changes, and those that are called exact are."""
    stored = Stored(MANAGER, ACCOUNT, 10, root(roots[0]))
    read = {10 + n: at(10 + n, value) for n, value in enumerate(roots)}
    true = [n for n in range(1, len(roots)) if roots[n] != roots[n - 1]]
    changes = changes_since(stored, read)
    assert [change.found.block_number - 10 for change in changes] == true
    assert all(change.exact and not change.misread for change in changes)

    kept = data.draw(st.sets(st.sampled_from(sorted(read)), min_size=1)) | {max(read)}
    fewer = changes_since(stored, {number: read[number] for number in kept})
    for change in fewer:
        assert not change.exact or change.found.block_number - 10 in true
    shown = [stored.root, *(change.found.root for change in fewer)]
    assert [change.previous_root for change in fewer] == shown[:-1]
    assert shown[-1] == root(roots[-1])


def test_what_the_stored_block_says_now_is_another_root() -> None:
    """The change shows at the next block that was read, and is none of that block."""
    stored = Stored(MANAGER, ACCOUNT, 10, root(1))
    (change,) = changes_since(stored, {10: at(10, 2), 11: at(11, 2), 20: at(20, 2)})
    assert (change.found.block_number, change.misread) == (11, True)
    assert (change.previous_block, change.previous_root) == (10, root(1))


def test_an_account_that_was_never_read() -> None:
    """Its first root is one from nowhere, unless the block before was read."""
    never = Stored(MANAGER, ACCOUNT, None)
    (change,) = changes_since(never, {20: at(20, 7)})
    assert (change.exact, change.previous_block) == (False, None)
    (change,) = changes_since(never, {19: at(19, 0), 20: at(20, 7)})
    assert (change.exact, change.previous_block) == (True, 19)
