"""What may be asked for, and that nothing typed is repeated."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from indexer.core.config_values import checksum_address
from indexer.web.question import Question, QuestionError, link, read_question

ACCOUNT = bytes.fromhex("cbeba65449cbef0dcfd4a63cdf4090fa1d4a9f63")
LOWER = "0x" + ACCOUNT.hex()
CHECKSUM = checksum_address(ACCOUNT)


@pytest.mark.parametrize(
    "typed",
    [
        LOWER,
        CHECKSUM,
        f"  {LOWER}\n",
        LOWER.upper(),
        LOWER[2:],
        f"{LOWER[:10]} {LOWER[10:20]}\u00a0{LOWER[20:]}",
    ],
)
def test_an_account_may_be_typed_in_every_usual_way(typed: str):
    """Checksum, lower or upper case, without 0x, with spaces around and inside."""
    assert read_question([("account", typed)]) == Question(account=ACCOUNT)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (LOWER[:-1], "it has 39 hex digits, an account has 40"),
        (LOWER + "00", "it has 42 hex digits"),
        ("0x" + "ab" * 32, "it has 64 hex digits, an account has 40. If it was a private key"),
        ("ab" * 30, "it has 60 hex digits, an account has 40. If it was a private key"),
        ("vitalik.eth", "an account is written as 0x and 40 hex digits"),
        ("0x", "it has 0 hex digits"),
        (CHECKSUM.replace("C", "c", 1), "do not fit its digits"),
        ("0x" + "0" * 40, "The zero address"),
        ("\u0661" * 40, "an account is written as 0x and 40 hex digits"),
    ],
)
def test_what_is_no_account_is_said(typed: str, said: str):
    """A sentence with what was wrong."""
    with pytest.raises(QuestionError, match=said):
        read_question([("account", typed)])


def refusal(typed: str) -> str:
    with pytest.raises(QuestionError) as caught:
        read_question([("account", typed)])
    return str(caught.value)


@given(st.text(alphabet="0123456789abcdefABCDEFxX ghz<>'\"", min_size=8, max_size=80))
def test_nothing_that_was_typed_is_repeated(typed: str):
    """Whatever is wrong with it, no piece of it stands in the sentence."""
    assume(len("".join(typed.split())) not in {0, 40, 42})
    said = refusal(typed)
    pieces = [typed[at : at + 6] for at in range(len(typed) - 5)]
    assert not [one for one in pieces if one.strip() and one in said]


def test_empty_values_ask_for_the_front_page():
    """A form sent empty is no mistake."""
    question = read_question([("account", " "), ("chain", ""), ("cause", ""), ("severity", "")])
    assert (question, question.page) == (Question(), "front")
    assert read_question([("renew", "off")]) == Question(renews=False)


def test_drifts_are_asked_for_by_chain_cause_and_severity():
    """Each of the three alone, and with an account the chain narrows it."""
    for pair in (("chain", "mumbai"), ("cause", "never_landed"), ("severity", "critical")):
        assert read_question([pair]).page == "drifts"
    assert read_question([("chain", "mumbai"), ("account", LOWER)]).page == "account"


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([("acount", LOWER)], "none of account, chain, cause, severity, renew"),
        ([("account", LOWER), ("account", LOWER)], "the key account twice"),
        ([("cause", "unknown_rot")], "no such cause: it is one of tainted_account, "),
        ([("severity", "1' OR 1=1")], "no such severity: it is one of critical, warning, info"),
        ([("renew", "on")], "renew is off, or left out"),
    ],
)
def test_a_query_that_is_not_understood_is_refused(pairs: list, said: str):
    """Unknown keys, keys given twice and unknown words."""
    with pytest.raises(QuestionError, match=said):
        read_question(pairs)


def test_links_leave_out_what_is_open():
    """And write the rest so that nothing in it can end the address."""
    assert link() == "/"
    assert link(chain="mumbai", cause=None) == "/?chain=mumbai"
    assert link(chain="a&b'c") == "/?chain=a%26b%27c"
