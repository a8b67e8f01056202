"""What is exported, import reads as the same sets; what it would read otherwise is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.cli_export import _FORMS
from indexer.core import session_export
from indexer.core.merkle import MAX_UINT48, merkle_root, session_leaf
from indexer.core.session_export import FORMS, PLACES, Documents, StoredSet
from indexer.core.session_import import parse_document
from indexer.core.session_sets import CLIENT_STATUSES, MATCHED_FORMS
from indexer.core.store_forms import RECORDED_FORMS
from indexer.core.types import Address, Session
from indexer.errors import UsageError

CHAIN_ID = 80001
MANAGER = Address(bytes.fromhex("000002fbffedd9b33f4e7156f2de8d48945e7489"))
ACCOUNT = Address(b"\xac" * 20)
MODULE = Address(b"\x5e" * 20)
KEY = Address(b"\x11" * 20)

one_address = st.sampled_from([ACCOUNT, MANAGER]) | st.binary(min_size=20, max_size=20)
addresses = one_address.map(Address)
times = st.sampled_from([0, 1, MAX_UINT48]) | st.integers(0, MAX_UINT48)
sessions = st.builds(Session, times, times, addresses, st.binary(max_size=70))
pools = st.lists(sessions, min_size=1, max_size=5)
"""Few, so that lists drawn from one repeat them."""


def stored(
    set_id=1,
    *given,
    chain_id=CHAIN_ID,
    manager=MANAGER,
    account=ACCOUNT,
    keys=None,
    form="all_leaves",
    statuses=(),
):
    listed = tuple(given) or (Session(0, 0, MODULE, b"key"),)
    root = merkle_root([session_leaf(session) for session in listed])
    found = tuple(keys) if keys is not None else (KEY,) * len(listed)
    return StoredSet(set_id, chain_id, manager, account, root, listed, found, form, tuple(statuses))


@st.composite
def stored_sets(draw):
    """Any sets: of few accounts, chains and managers, so that some agree in them."""
    pool = draw(pools)
    made = []
    for set_id in range(1, draw(st.integers(1, 4)) + 1):
        listed = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=6))
        made.append(
            stored(
                set_id,
                *listed,
                chain_id=draw(st.sampled_from([1, CHAIN_ID, 2**63 - 1])),
                manager=draw(addresses),
                account=draw(addresses),
                keys=draw(st.sampled_from([None, [None] * len(listed)])),
                form=draw(st.sampled_from(["all_leaves", *MATCHED_FORMS])),
                statuses=[draw(st.sampled_from([None, *CLIENT_STATUSES])) for _ in listed],
            )
        )
    return made


def exported(form, sets, *, named="-"):
    """Return the documents by name, and what import has to be told."""
    documents = Documents(FORMS[form], named=named)
    texts: dict[str, str] = {}
    order: list[str] = []
    for one in sets:
        for name, text in documents.add(one):
            texts[name] = texts.get(name, "") + text
            order.append(name)
    for name, text in documents.end():
        texts[name] += text
        order.append(name)
    assert order == sorted(order, key=list(texts).index)  # one after the other
    return texts, documents


def read(texts, *, named="-"):
    return [
        one
        for name, text in texts.items()
        for one in parse_document(text.encode(), name=named or f"backup/{name}").sets
    ]


def refusal(form, sets, **options):
    with pytest.raises(UsageError) as caught:
        exported(form, sets, **options)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("named", ["-", None], ids=["one document", "split"])
@settings(max_examples=40)
@given(sets=stored_sets())
def test_import_reads_what_was_exported_or_nothing_was(form, named, sets):
    """Sessions and their order, root, and chain, account and manager come back, or it is refused.

    What the form does not carry is named, and then it is the same in all sets. Statuses and form
    come back where the form carries them; what records a tree on chain never as a wanted set.
    """
    try:
        texts, documents = exported(form, sets, named=named)
    except UsageError:
        assert form != "object"
        recorded = any(one.matched_form == "revoke_form" for one in sets)
        assert form != "particle_response" or recorded or (named and len(sets) > 1)
        return
    found = read(texts, named=named)
    assert [one.sessions for one in found] == [one.sessions for one in sets]
    for back, one in zip(found, sets, strict=True):
        assert back.claimed_root in {None, one.root}
        assert (back.claimed_root == one.root) is (
            form in {"object", "particle_response", "sdk_store", "sdk_dump"}
        )
        if form == "object":
            assert (back.matched_form, back.statuses) == (one.matched_form, one.client_statuses)
        else:
            assert back.matched_form is None
            wanted = form in {"sdk_store", "sdk_dump"} and one.matched_form not in RECORDED_FORMS
            assert back.statuses == (one.client_statuses if wanted else (None,) * len(one.sessions))
        told = {"chain": back.chain_id, "account": back.account, "manager": back.manager}
        for name in PLACES:
            if name in documents.missing:
                assert told[name] is None
                assert one.place(name) == documents.first.place(name)
            else:
                assert told[name] == one.place(name)


@pytest.mark.parametrize("form", FORMS)
def test_one_set_of_a_known_key_goes_into_every_form(form):
    """A set in the vendor's order, duplicates included, is refused by no form."""
    sessions = [
        Session(9, 1, MODULE, b"new"),
        Session(0, 0, MODULE, b""),
        Session(0, 0, MODULE, b""),
    ]
    texts, _ = exported(form, [stored(7, *sessions)])
    (back,) = read(texts)
    assert back.sessions == tuple(sessions)
    text = "".join(texts.values())
    assert text.isascii()
    assert text.endswith(("}\n", "]\n"))


def test_each_form_says_where_its_sets_belong():
    """What import has to be told beside a document, by form; the name of a store tells more."""
    assert {form: exported(form, [stored()])[1].missing for form in FORMS} == {
        "object": (),
        "plain": PLACES,
        "particle_request": ("account", "manager"),
        "particle_response": (),
        "particle_validate": PLACES,
        "particle_send": ("chain", "manager"),
        "sdk_store": PLACES,
        "sdk_dump": ("chain", "manager"),
        "particle_demo_store": ("account", "manager"),
    }
    for named in (None, f"stores/0x{ACCOUNT.hex()}_sessions.json"):
        assert exported("sdk_store", [stored()], named=named)[1].missing == ("chain", "manager")
    texts, _ = exported("sdk_store", [stored()], named=None)
    assert list(texts) == [f"0x{ACCOUNT.hex()}_sessions.json"]


def test_the_command_line_offers_every_form():
    """--form lists the forms there are."""
    assert tuple(FORMS) == _FORMS


@pytest.mark.parametrize(
    ("form", "named", "other", "words"),
    [
        ("plain", "-", {}, "form plain holds one set, here are several (session sets 1, 2)"),
        ("sdk_store", "-", {}, "holds one set"),
        ("plain", None, {"account": KEY}, "1 and 2 are of different accounts"),
        ("sdk_dump", "-", {"chain_id": 5, "account": KEY}, "does not carry the chain"),
        ("sdk_dump", "-", {"manager": KEY, "account": KEY}, "does not carry the manager"),
        ("sdk_dump", "-", {}, "one place per account, and session set 2 is not the first of 0xac"),
        ("sdk_store", None, {}, "one place per account"),
        ("particle_demo_store", "-", {}, "one place per account and chain"),
        ("particle_demo_store", "-", {"account": KEY}, "does not carry the account"),
        ("particle_demo_store", "-", {"chain_id": 10**18}, "no room for the chain id"),
        ("particle_demo_store", "-", {"chain_id": 5, "keys": [None]}, "keys that are not known"),
    ],
)
def test_sets_that_would_come_back_differently_are_refused(form, named, other, words):
    """The second set does not fit to the first; the refusal names the form and a way out."""
    assert words in refusal(form, [stored(1), stored(2, **other)], named=named)


def test_the_demo_store_refuses_sessions_of_several_keys():
    """The demo keeps a list per key, so a list of two keys would become two sets."""
    two = stored(3, Session(0, 0, MODULE, b"a"), Session(0, 0, MODULE, b"b"), keys=[KEY, ACCOUNT])
    assert "session set 3 are of 2 keys" in refusal("particle_demo_store", [two])


@pytest.mark.parametrize("form", FORMS)
def test_a_name_that_says_another_account_is_refused(form):
    """Import takes the account from such a name, in whatever form the document is."""
    message = refusal(form, [stored()], named=f"/tmp/0x{KEY.hex()}_sessions.json")
    assert f"0x{ACCOUNT.hex()}" in message
    assert f"0x{KEY.hex()}_sessions.json" in message


@pytest.mark.parametrize("limit", ["MAX_DOCUMENT_BYTES", "MAX_VALUES"])
def test_documents_end_where_import_would_refuse_them(limit, monkeypatch):
    """Each holds as many sets as import accepts, and one document that is too large is refused."""
    sets = [stored(n, account=Address(n.to_bytes(20, "big"))) for n in range(1, 10)]
    whole = "".join(exported("object", sets[:4])[0].values())
    accepted = len(whole) if limit == "MAX_DOCUMENT_BYTES" else session_export._count_values(whole)
    monkeypatch.setattr(session_export, limit, accepted)

    texts, _ = exported("object", sets, named=None)
    assert [len(json.loads(text)) for text in texts.values()] == [4, 4, 1]
    assert list(texts) == [f"sessions-00000{n}.json" for n in (1, 2, 3)]
    assert [one.account for one in read(texts, named=None)] == [one.account for one in sets]
    message = refusal("object", sets)
    assert message.startswith("the document is full before session set 5: ")

    monkeypatch.setattr(session_export, limit, accepted // 5)
    assert "session set 1 as object passes" in refusal("object", sets, named=None)
