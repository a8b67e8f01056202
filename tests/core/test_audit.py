"""The comparison of an audit: what is found, what is passed over, and how it is said."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from indexer.core.audit import MAX_FINDINGS, Tally, shown
from indexer.core.audit_claims import Claims, Covered, LogRow, Membership, Skipped
from indexer.core.passes import LOGS_ACCOUNTS, Pass
from indexer.core.types import Address, Hash32
from tests.sim.settings import chain_settings

TOKEN, ACCOUNT = Address(b"\x01" * 20), Address(b"\x02" * 20)
SETTINGS = replace(chain_settings(), accounts_mode="stored", entry_points=(Address(b"\x03" * 20),))
EVERY_TOKEN = Pass("logs", "erc1155/all")


def uri(number: int, log_index: int = 0, value: str = "ipfs://") -> LogRow:
    """Return a row that depends on no account."""
    values = {
        "block_number": number,
        "log_index": log_index,
        "transaction_hash": Hash32(bytes(32)),
        "contract": TOKEN,
        "token_id": 1,
        "value": value,
    }
    return LogRow("erc1155_uri", values)


def event(number: int) -> LogRow:
    """Return a row of ACCOUNT."""
    values = {
        "block_number": number,
        "log_index": 0,
        "transaction_index": 0,
        "transaction_hash": Hash32(bytes(32)),
        "account": ACCOUNT,
        "event": "EnabledModule",
        "args": {},
        "user_op_hash": None,
    }
    return LogRow("account_event", values)


def claims(*spans: tuple[int, int], cohort_spans: tuple[tuple[int, int], ...] = ()) -> Claims:
    """Return claims of tokens and cohort 0 over `spans`; cohort 1 was adopted at block 50."""
    covered = {
        (EVERY_TOKEN, 0): spans,
        (LOGS_ACCOUNTS, 0): spans,
        (LOGS_ACCOUNTS, 1): cohort_spans,
    }
    return Claims(SETTINGS, (), Covered(0, 100, covered, {1: 50}))


ROWS = st.dictionaries(
    st.tuples(st.integers(0, 20), st.integers(0, 2)), st.sampled_from(["a", "b"]), max_size=20
)


@given(at_node=ROWS, stored=ROWS, gap=st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_every_row_is_counted_once(
    at_node: dict[tuple[int, int], str],
    stored: dict[tuple[int, int], str],
    gap: tuple[int, int],
) -> None:
    """Over any two sets of rows the four counts are what set arithmetic says, outside the gap."""
    first, last = min(gap), max(gap)
    tally = Tally()
    tally.compare_logs(
        [uri(*key, value) for key, value in at_node.items()],
        [uri(*key, value) for key, value in stored.items()],
        claims((0, first - 1), (last + 1, 20)),
        {},
    )
    mine = {key: value for key, value in stored.items() if not first <= key[0] <= last}
    theirs = {key: value for key, value in at_node.items() if not first <= key[0] <= last}
    count = tally.counts["erc1155_uri"]
    assert count.rows == len(mine)
    assert count.agreed == len(mine.items() & theirs.items())
    assert count.too_much == len(mine.keys() - theirs.keys())
    assert count.missing == len(theirs.keys() - mine.keys())
    assert count.rows == count.agreed + count.different + count.too_much
    assert len(tally.findings) == tally.differences


def test_rows_of_an_account_follow_its_cohort() -> None:
    """What a watched account did is missing where its own cohort is covered, and only there."""
    at_node = [event(10), event(40)]
    for cohort, found in ((0, {10, 40}), (1, {40})):
        tally = Tally()
        tally.compare_logs(
            at_node, [], claims((0, 100), cohort_spans=((30, 100),)), {ACCOUNT: Membership(cohort)}
        )
        assert {finding.block_number for finding in tally.findings} == found
    stranger = Tally()
    stranger.compare_logs(at_node, [], claims((0, 100)), {})
    assert stranger.differences == 0
    # Stored nevertheless, it is no lie where the node has it, and one where it has not.
    stranger.compare_logs(at_node[:1], at_node, claims((0, 100)), {})
    assert [(f.problem, f.block_number) for f in stranger.findings] == [("too_much", 40)]


def test_gaps_are_named_for_each_cohort() -> None:
    """A cohort's own gap ends at its block of adoption: above it cohort 0 speaks for it."""
    found = claims((0, 59), (80, 100), cohort_spans=((30, 59), (80, 100))).skipped(10, 100)
    assert found == [
        Skipped("logs", "accounts", 0, 60, 79),
        Skipped("logs", "accounts", 1, 10, 29),
        Skipped("logs", "erc1155/all", 0, 60, 79),
    ]


def test_only_the_first_findings_are_kept() -> None:
    """All differences are counted; sentences are kept of the first of the chain."""
    tally = Tally()
    for start in (0, 15, 30):
        part = Tally()
        part.compare_logs([uri(n) for n in range(start, start + 15)], [], claims((0, 100)), {})
        tally.add(part)
    assert tally.differences == 45
    assert [f.block_number for f in tally.findings] == list(range(MAX_FINDINGS))


@given(st.text(max_size=300))
def test_a_strangers_text_cannot_move_the_cursor(text: str) -> None:
    """Text of the chain is shown without control characters, on one line, and cut."""
    assert shown(text) == "" or shown(text).isprintable()
    assert len(shown(text)) <= 80
