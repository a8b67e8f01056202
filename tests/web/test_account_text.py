"""What stands in an account's rows can never become markup."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from indexer.store.account_page import AccountPage, Listed, Place
from indexer.store.drift_list import DriftList
from indexer.web.account_page import render_account, render_problem
from indexer.web.drift_page import render_drifts
from indexer.web.question import Question
from tests.web.test_page import outline

ACCOUNT = "0xcbeba65449cbef0dcfd4a63cdf4090fa1d4a9f63"
THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_drift(text: str) -> dict:
    return {
        "chain_id": 1,
        "account": text,
        "cause": text,
        "severity": text,
        "since_block": 4,
        "since_time": THEN,
        "explanation": text,
        "is_final": False,
    }


def a_place(text: str) -> Place:
    """A place in which every text that could come from outside is `text`."""
    verdict = a_drift(text) | {
        "verdict": "drifted",
        "cause": "unknown_root",
        "warnings": ["expiring_soon"],
        "on_chain_root": "0x" + "ab" * 32,
        "on_chain_set_id": 3,
        "expected_root": None,
        "expected_set_id": None,
    }
    root = {
        "block_number": 4,
        "block_time": THEN,
        "root": "0x" + "ab" * 32,
        "set_id": None,
        "attribution": text,
        "evidence": text,
        "leaf": text,
        "session_key": text,
        "module": text,
        "user_op_hash": text,
        "transaction_hash": text,
        "change_block_exact": False,
        "is_final": True,
    }
    stored = {
        "set_id": 3,
        "root": text,
        "session_count": 9,
        "source": text,
        "matched_form": text,
        "stored_at": THEN,
        "state": text,
        "first_on_chain_block": 3,
        "last_on_chain_block": 4,
    }
    session = {
        "leaf_index": 0,
        "leaf": text,
        "valid_until": 2**48 - 1,
        "valid_after": 5,
        "session_validation_module": text,
        "session_key": text,
        "state": text,
        "client_status": text,
        "use_count": 1,
        "last_used_block": 4,
        "last_used_time": THEN,
    }
    use = {
        "block_number": 4,
        "block_time": None,
        "session_key": text,
        "leaf": text,
        "known": False,
        "user_op_hash": text,
        "success": None,
    }
    mint = {
        "block_number": 4,
        "session_key": text,
        "contract": text,
        "token_id": text,
        "amount": text,
        "to_address": text,
        "fits": False,
    }
    return Place(
        1,
        text,
        verdict,
        Listed([root], 1),
        Listed([stored], 1),
        {3: [session]},
        Listed([use], 1),
        Listed([mint], 1),
    )


def an_account(text: str) -> str:
    watched = {
        "chain_id": 1,
        "created_block": None,
        "source": text,
        "implementation": text,
        "tainted": True,
        "modules": [text],
    }
    chains = [{"chain_id": 1, "chain": text}, {"chain_id": 2, "chain": "two"}]
    return render_account(AccountPage(ACCOUNT, chains, [watched], [a_place(text)], True), text)


def drifts(text: str) -> str:
    found = DriftList(
        [{"chain_id": 1, "chain": text}, {"chain_id": 2, "chain": "two"}],
        [a_drift(text)],
        [{"cause": text, "severity": text, "accounts": 7}],
    )
    return render_drifts(found, Question(chain=text))


@given(st.text(min_size=1))
def test_no_text_can_become_markup(text: str):
    """Whatever a database holds, the pages keep their elements."""
    for render in (an_account, drifts, lambda one: render_problem(one, one)):
        assert outline(render(text)).tags == outline(render("plain")).tags


def test_what_is_not_exact_or_not_known_is_said():
    """A block that is only a bound, a taint, an operation nobody stored a session for."""
    seen = " ".join(outline(an_account("plain")).seen.split())
    for told in (
        "at the latest 4",
        "tainted Its root can change without a log.",
        "from 1970-01-01 00:00:05 UTC until unix second 281474976710655",
        "nobody stored it",
        "Seen on chain in block 3, last in block 4.",
        "It stands in more managers than are shown",
        "unknown: nothing names it",
    ):
        assert told in seen
