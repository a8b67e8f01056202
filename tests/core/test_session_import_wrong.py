"""Wrong documents are refused clearly, and no private key in them is ever repeated."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core.session_json import load_document
from indexer.core.session_sets import MAX_DOCUMENT_BYTES, MAX_SESSIONS
from indexer.errors import UsageError
from tests.core.session_documents import (
    ACCOUNT,
    KEY,
    MANAGER,
    MODULE,
    OTHER,
    PARTICLE,
    PLAIN,
    changed,
    only,
    parse,
    refused,
    without,
)


@pytest.mark.parametrize(
    "document",
    [
        {OTHER.lower(): {"pbKey": OTHER.lower(), "pvKey": "0x" + KEY}},
        {OTHER.lower(): {"privateKey": "0x" + KEY}},
        {"privateKey": KEY},
        [{"privateKey": KEY}],
        {"mnemonic": KEY},
        [{"pbKey": OTHER, "pvKey": KEY, "chainId": {"id": 80001, "name": "Mumbai"}}] * 2,
        {OTHER: {"pbKey": OTHER, "pvKey": KEY, "chainId": {"id": 80001}}},
        {"pbKey": OTHER, "pvKey": KEY, "chainId": {"id": 80001}},
        {f"{OTHER.lower()}_signers": {OTHER: {"pvKey": KEY}}},
        {f"{OTHER.lower()}_signers": json.dumps({OTHER: {"pvKey": KEY}})},
        {f"{OTHER.lower()}_sessions": {"privateKey": KEY, "leafNodes": []}},
    ],
)
def test_a_file_of_signers_is_refused(document):
    """A store of signers is refused as such, and no value of it is echoed."""
    message = refused(document)
    assert "holds signer keys (at $" in message
    assert "no sessions" in message


def test_a_signers_file_is_known_by_its_name():
    """Even an unreadable form is called a store of signers where the file is named so."""
    assert "holds signer keys and no" in refused({OTHER: KEY}, f"{OTHER}_signers.json")


@pytest.mark.parametrize(
    "name",
    [
        "privateKey",
        "private_key",
        "PRIVATE-KEY",
        "pvKey",
        "signerPrivKey",
        "hexEphSKWithout0x",
        "mnemonic",
        "secret",
        "clientSecret",
        "seed",
        "seedPhrase",
        "password",
        "signers",
    ],
)
def test_a_key_beside_sessions_is_dropped_unread(name):
    """A secret at any depth is removed, its path is told, its value is nowhere."""
    item = changed(danModuleInfo={"deep": [{name: {"nested": KEY}}]})
    result = parse({"sessions": [item], name: KEY})
    assert only(result).sessions == only(parse([PLAIN])).sessions
    (warning,) = result.warnings
    assert warning.count(name) == 2
    assert KEY not in repr(result)


@pytest.mark.parametrize(
    "field", [*PLAIN, "account", "manager", "chainId", "root", "sessions", KEY]
)
@pytest.mark.parametrize(
    "value", [KEY, "0x" + KEY, "0x" + KEY.upper(), [KEY], {KEY: KEY}, int(KEY, 16)]
)
def test_a_key_in_a_wrong_field_is_not_echoed(field, value):
    """Whatever field a private key was pasted into, no message repeats it."""
    document = {"sessions": [changed(**{field: value}), {}], field: value}
    assert KEY[:20] not in refused(document).lower()
    assert str(int(KEY, 16))[:20] not in refused(document)


def test_data_that_may_be_a_key_is_a_warning():
    """32 bytes that are no address are legal, but look like a key in the place of its address."""
    word = "0x" + "00" * 12 + OTHER[2:].lower()
    items = [changed(sessionKeyData=data) for data in (word, "0x" + KEY, f"{word}00", "0x12")]
    result = parse({"sessions": items})
    assert len(only(result).sessions) == 4
    (warning,) = result.warnings
    assert warning.startswith("sessionKeyData is 32 bytes long and no address: if it is a private")
    assert warning.endswith(": $.sessions[1]")
    assert KEY[:20] not in warning


def test_secrets_are_gone_before_anything_reads_the_document():
    """What is named like a secret is out of the parsed document, not merely overlooked later."""
    document = {"a": [{"pvKey": KEY, "b": 1}], f"{OTHER}_signers": {"x": {"pvKey": KEY}}}
    loaded = load_document(json.dumps(document).encode(), name="x.json")
    assert loaded.value == {"a": [{"b": 1}]}
    assert loaded.dropped == (f"$.{OTHER}_signers", "$.a[0].pvKey")


def test_a_key_in_broken_json_is_not_echoed():
    """Syntax errors give the place, not the text around it."""
    message = refused(b'{"privateKey": "' + KEY.encode() + b'",\n  "x": }')
    assert "at line 2, column 8" in message
    text = json.dumps('{"pvKey": "' + KEY + '"')
    inner = refused(('{"' + OTHER + '_sessions": ' + text + "}").encode())
    assert f"the text at $.{OTHER}_sessions is not JSON" in inner


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (changed(validUntil=-1), ".validUntil is negative (-1)"),
        (changed(validUntil=2**48), ".validUntil does not fit in 48 bits (281474976710656)"),
        (changed(validUntil=1.5), ".validUntil is the fraction 1.5"),
        (changed(validUntil=0.0), ".validUntil is the fraction 0.0"),
        (changed(validUntil=True), ".validUntil is true"),
        (changed(validUntil="soon"), '.validUntil is "soon"'),
        (changed(validUntil=" 5"), '.validUntil is " 5"'),
        (changed(validUntil="5\u202e\n"), '.validUntil is "5\ufffd\ufffd"'),
        (changed(validUntil="\u0665"), ".validUntil is"),
        (changed(validUntil="1_0"), ".validUntil is"),
        (changed(validUntil=""), ".validUntil is"),
        (changed(validUntil=[0]), ".validUntil is a list"),
        (changed(validUntil=None), "has null as validUntil (write 0 for no expiry)"),
        (without("validAfter"), "has no validAfter (write 0 for no start)"),
        (without("sessionValidationModule"), "has no sessionValidationModule"),
        (changed(valid_until=7), ".valid_until differs from validUntil"),
        (
            changed(sessionValidationModule=MODULE[2:]),
            ".sessionValidationModule has no 0x in front",
        ),
        (changed(sessionValidationModule=MODULE[:-1]), "has 39 hex digits, an address has 40"),
        (changed(sessionValidationModule=5), ".sessionValidationModule is 5, expected a 0x text"),
        (changed(sessionKeyData="0xabc"), ".sessionKeyData has an odd number of hex digits (3)"),
        (changed(sessionKeyData="abcd"), ".sessionKeyData has no 0x in front"),
        (changed(sessionKeyData="0xab cd"), ".sessionKeyData holds a character"),
        (changed(sessionKeyData="0x" + "00" * 24_577), ".sessionKeyData has 24577 bytes"),
        (without("sessionKeyData"), "has neither sessionKeyData nor sessionKeyDataInAbi"),
        (changed(sessionKeyDataInAbi=[["uint8"], [1]]), "is not the encoding of"),
        (
            without("sessionKeyData") | {"sessionKeyDataInAbi": [["uint8"], [256]]},
            ".sessionKeyDataInAbi[1][0] does not fit in 8 bits (256) for uint8",
        ),
        (7, "is 7, expected a session"),
    ],
)
def test_a_wrong_session_is_refused_with_its_place(item, problem):
    """Each mistake is told with the JSON path of the field and what is wrong with it."""
    message = refused([PLAIN, item])
    assert "$[1]" in message
    assert problem in message
    assert "sessions.json: $[1]" in message  # one mistake, one sentence


def test_all_mistakes_are_told_at_once_up_to_twenty():
    """One run shows every mistake, and a file of nothing but mistakes stays readable."""
    three = refused([changed(validUntil=-1), PLAIN, changed(sessionKeyData="0x1", validAfter=1.5)])
    assert "3 mistakes: $[0].validUntil" in three
    assert "; $[2].validAfter" in three
    assert "; $[2].sessionKeyData" in three
    many = refused([changed(validUntil=-1)] * 500)
    assert "at least 20 mistakes" in many
    assert "$[19]" in many
    assert "$[20]" not in many


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"chainId": 0, "sessions": [PLAIN]}, "$.chainId is 0"),
        ({"chainId": 2**64, "sessions": [PLAIN]}, "$.chainId does not fit in 63 bits"),
        ({"account": "0x12", "sessions": [PLAIN]}, "$.account has 2 hex digits"),
        ({"account": ACCOUNT, "smartAccount": OTHER, "sessions": [PLAIN]}, "differs from account"),
        (
            {"manager": MANAGER.replace("Fb", "fb"), "sessions": [PLAIN]},
            "right spelling is " + MANAGER,
        ),
        ({"root": "0x12", "sessions": [PLAIN]}, "$.root is 1 bytes long, expected 32"),
        ({"sessions": {"0": PLAIN}}, "$.sessions is an object, expected a list"),
        ({"sessions": []}, "$.sessions is an empty list"),
        ([], "$ is an empty list"),
        ([{"sessions": [PLAIN]}, {"x": 1}], "$[1] is an object, expected a session set"),
        ([{"x": 1}, {"sessions": [PLAIN]}], "$[0] is an object, expected a session set"),
        ({"leafNodes": []}, "holds no sessions: its lists are empty"),
        ({}, "holds no sessions in a form known here"),
        ("text", "holds no sessions in a form known here"),
        ([1, 2], "holds no sessions in a form known here"),
        ({"mumbai": {"account": ACCOUNT, "sessions": [PLAIN]}}, "in a form known here"),
        ({"id": 1, "error": {"code": -32602, "message": "x"}}, "$.error says that the call failed"),
        ({"result": "0x" + "ab" * 32}, "$.result is (hidden: 64 hex digits) without sessions"),
        (PARTICLE["validateSession"]["response"], "$.result is false without sessions"),
        (
            {"chainId": 1, "params": [{"name": "BICONOMY"}, 5]},
            "$.params[1] is 5, expected the list",
        ),
        (
            {"chainId": 1, "params": [{}, {"chainId": 2, "sessions": [PLAIN]}]},
            "$.params[1] names another chain id than what surrounds it",
        ),
        ({"0x12_sessions": {"leafNodes": [PLAIN]}}, 'the key $["0x12_sessions"] has 2 hex digits'),
        ({f"sessions_{OTHER}_0": {ACCOUNT: {"sessions": [PLAIN]}}}, "is 0, no chain has that id"),
        (
            {"userOp": 5, "tokenPaymaster": {}, "sessions": [PLAIN]},
            "$.userOp is 5, expected a user",
        ),
        ({"userOp": {}, "tokenPaymaster": {}, "sessions": [PLAIN]}, "$.userOp.sender is null"),
        ({f"{OTHER}_sessions": 5}, f"$.{OTHER}_sessions is 5, expected a store"),
        ({f"{OTHER}_sessions": ""}, f"the text at $.{OTHER}_sessions is empty"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(document, problem):
    """Documents without usable sessions are refused with what was found and where."""
    assert problem in refused(document)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "sessions.json is empty"),
        (b" \n", "sessions.json is empty"),
        (b"[\n  {,}\n]", "at line 2, column 4"),
        (b"[] []", "Extra data at line 1, column 4"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b'[{"validUntil": -Infinity}]', "-Infinity is not a JSON number"),
        (b"\xff\xfe[\x00]\x00", "is not UTF-8 (byte 0)"),
        (b'["\xc3\x28"]', "is not UTF-8 (byte 2)"),
        (b'{"a": [{"b": 1, "c": 2, "b": 3}]}', 'the key "b" twice in the object at $.a[0]'),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b"[" * 100_000, "deeper than 64"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deeper than 64"),
        (b"[" + b"[]," * 1_000_001 + b"[]]", "more than 2000000 values"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "at most 67108864 are accepted"),
        (b'[{"validUntil": ' + b"9" * 5000 + b"}]", "$[0].validUntil is the fraction inf"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_what_is_no_usable_json_is_refused(data, problem):
    """Broken, ambiguous and oversized documents are refused with the place where there is one."""
    assert problem in refused(data)


def test_the_name_in_a_message_is_harmless():
    """Control characters and length of a file's name do not reach the terminal."""
    with pytest.raises(UsageError) as caught:
        parse([], "\x1b[31m" + "n" * 500)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_a_byte_order_mark_is_no_mistake():
    """A file saved by a Windows editor is read like any other."""
    assert only(parse(b"\xef\xbb\xbf" + json.dumps([PLAIN]).encode())).sessions


def test_the_longest_list_passes_and_one_more_does_not():
    """10,000 sessions make a set, 10,001 are refused before any is read."""
    result = parse([changed(validUntil=i) for i in range(MAX_SESSIONS)])
    assert len(only(result).sessions) == MAX_SESSIONS
    assert "$ has 10001 sessions, at most 10000" in refused([changed(validUntil="?")] * 10_001)


def test_data_of_twenty_thousand_bytes_in_a_hundred_sessions():
    """Long data is no reason to refuse."""
    long = "0x" + "ab" * 20_000
    imported = only(parse([changed(validUntil=i, sessionKeyData=long) for i in range(100)]))
    assert {len(session.session_key_data) for session in imported.sessions} == {20_000}


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
        st.sampled_from([ACCOUNT, "0x", "0x1", KEY]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.text(max_size=4),
                st.sampled_from(
                    [
                        *PLAIN,
                        "sessionKeyDataInAbi",
                        "sessions",
                        "leafNodes",
                        "result",
                        "params",
                        "userOp",
                        "verifyingPaymasterNative",
                        "transactions",
                        "chainId",
                        "root",
                        "privateKey",
                        f"{ACCOUNT}_sessions",
                        f"sessions_{ACCOUNT}_1",
                        ACCOUNT,
                        "ownerAddress",
                    ]
                ),
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=25,
)


@given(json_values)
@settings(max_examples=300, deadline=None)
def test_any_json_gives_sets_or_a_refusal(document):
    """No document of any shape gives another error than a refusal, or a set without sessions."""
    data = json.dumps(document).encode()
    try:
        result = parse(data)
    except UsageError:
        refused(data)
    else:
        assert result.sets
        assert all(imported.sessions for imported in result.sets)
        assert KEY not in " ".join(result.warnings)
