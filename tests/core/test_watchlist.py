"""Who is watched at which block: never twice, never nobody."""

from hypothesis import given
from hypothesis import strategies as st

from indexer.core.watchlist import CohortWatch, WatchList
from tests.core.make_logs import A, B, C, address

ACCOUNTS = [address(label) for label in "abcdef"]
account = st.sampled_from(ACCOUNTS)


def test_created_accounts_are_watched_at_every_block():
    """Before its creation an account can do nothing, so no block is left out."""
    watch = WatchList([A])

    assert watch.watched(A, 0)
    assert watch.watched(A, 10**9)
    assert not watch.watched(B, 10**9)


def test_adopted_accounts_are_watched_above_their_block():
    """Up to the block of adoption the cohort's history has them."""
    watch, cohort = WatchList(adopted={A: 100}), CohortWatch([A], 100)

    assert [(watch.watched(A, n), cohort.watched(A, n)) for n in (99, 100, 101)] == [
        (False, True),
        (False, True),
        (True, False),
    ]
    assert not cohort.watched(B, 100)


def test_an_adopted_account_that_the_factory_makes_stays_adopted():
    """Else its blocks before adoption would be stored by two."""
    watch = WatchList(adopted={A: 100})
    watch.add_created([A, B])

    assert not watch.watched(A, 100)
    assert watch.watched(B, 100)


def test_a_watch_list_says_who_is_on_it():
    """However an account was learnt, it is there once."""
    watch = WatchList([A])
    watch.add_adopted({B: 7})

    assert len(watch) == 2
    assert set(watch) == {A, B}
    assert A in watch
    assert B in watch
    assert C not in watch


@given(
    st.lists(st.tuples(account, st.none() | st.integers(0, 9)), max_size=12),
    account,
    st.integers(0, 12),
)
def test_live_lane_and_cohorts_share_the_blocks_between_them(learnt, asked, number):
    """Each block of a watched account is kept by the list or by its cohort, never by both."""
    rows = dict(reversed(learnt))  # a row of the database stays as it was first made
    cohorts = {known: at for known, at in rows.items() if at is not None}
    watch = WatchList(adopted=cohorts)
    watch.add_created(known for known, _ in learnt)

    keepers = [watch, *(CohortWatch([known], at) for known, at in cohorts.items())]
    assert sum(k.watched(asked, number) for k in keepers) == (1 if asked in rows else 0)
