from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from indexer.core.balances import balance_deltas
from indexer.core.events import decode_logs
from indexer.core.types import ZERO_ADDRESS
from tests.core.make_logs import TOKEN, WATCH, A, B, C, in_order, make_log, transfer

BATCH = "TransferBatch(address,address,address,uint256[],uint256[])"
HOLDERS = [A, B, C]
MOVES = st.lists(
    st.tuples(
        st.sampled_from([ZERO_ADDRESS, *HOLDERS]),
        st.sampled_from([ZERO_ADDRESS, *HOLDERS]),
        st.lists(
            st.tuples(st.integers(0, 2), st.one_of(st.integers(0, 9), st.just(2**256 - 1))),
            max_size=4,
        ),
    ),
    max_size=8,
)


def deltas(logs):
    decoded = decode_logs(in_order(logs), WATCH)
    assert not decoded.undecoded
    return balance_deltas(decoded.transfers)


@given(MOVES)
def test_balances_are_the_sum_of_the_transfers(moves):
    """What an owner has is what came in minus what went out, whatever the shape of the logs."""
    logs, has = [], Counter()
    for from_address, to_address, items in moves:
        ids, amounts = [i for i, _ in items], [a for _, a in items]
        logs.append(make_log(TOKEN, BATCH, [A, from_address, to_address, ids, amounts]))
        for token_id, amount in items:
            has[(TOKEN, from_address, token_id)] -= amount
            has[(TOKEN, to_address, token_id)] += amount
    assert deltas(logs) == {key: n for key, n in has.items() if n and key[1] != ZERO_ADDRESS}


@given(MOVES, st.integers(0, 8))
def test_deltas_add_up_over_any_cut(moves, cut):
    """Folding a chain in two parts gives what folding it whole gives."""
    logs = [
        make_log(TOKEN, BATCH, [A, f, t, [i for i, _ in items], [a for _, a in items]])
        for f, t, items in moves
    ]
    parts = Counter(deltas(logs[:cut]))
    parts.update(deltas(logs[cut:]))
    assert {key: n for key, n in parts.items() if n} == deltas(logs)


def test_mint_and_burn():
    """The zero address mints and burns and has no balance."""
    assert deltas([transfer(ZERO_ADDRESS, A, 5, 3)]) == {(TOKEN, A, 5): 3}
    assert deltas([transfer(A, ZERO_ADDRESS, 5, 3)]) == {(TOKEN, A, 5): -3}


def test_a_transfer_to_oneself_changes_nothing():
    """An owner whose transfers cancel out is left out."""
    assert deltas([transfer(A, A, 1, 9)]) == {}
    assert deltas([transfer(A, B, 1, 9), transfer(B, A, 1, 9)]) == {}


def test_a_batch_with_repeated_ids():
    """mintBatchTo([1,1,2],[5,0,7]) gives 5 of id 1 and 7 of id 2."""
    log = make_log(TOKEN, BATCH, [A, ZERO_ADDRESS, A, [1, 1, 2], [5, 0, 7]])
    assert deltas([log]) == {(TOKEN, A, 1): 5, (TOKEN, A, 2): 7}


def test_amounts_beyond_a_word_add_up():
    """Two amounts of 2^256-1 from a hostile contract sum without wrapping."""
    largest = 2**256 - 1
    assert deltas([transfer(B, A, 1, largest)] * 2) == {
        (TOKEN, A, 1): 2 * largest,
        (TOKEN, B, 1): -2 * largest,
    }
