"""The session key inside session_key_data, by the layout of its module."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.core.abi import keccak
from indexer.core.session_layout import (
    ABI_RULES,
    KNOWN_LAYOUTS,
    PACKED_KEY,
    SessionGrant,
    parse_layout,
    read_grant,
    session_key,
)
from indexer.core.types import Address

VECTORS = Path(__file__).parents[1] / "vectors"
CASES = {c["id"]: c for c in json.loads((VECTORS / "sessions.json").read_text())["cases"]}
ADDRESSES = json.loads((VECTORS / "addresses.json").read_text())
STORE = json.loads((VECTORS / "sdk_store_v4.json").read_text())

FIRST_WORD = ("session_key",)
PACKED = (PACKED_KEY,)
address = st.binary(min_size=20, max_size=20).map(Address)


def raw(text):
    return bytes.fromhex(text.removeprefix("0x"))


@pytest.mark.parametrize(
    ("case", "index", "key"),
    [
        ("particle-doc", 0, "0x1dacDa1087C4048774bEce7784EB8EC4CfBeDB2c"),
        ("seed-mint", 0, "0x08d303f1609c0DEe9Abf64273EbCA942Eb24fD47"),
        ("sdk-abi-svm", 0, "0xfcc8d760a3a7D590d0fc2F6C4EfB3b3B1B9AdF1C"),
        ("sdk-abi-svm", 1, "0x536C565C17463669D4cd9b74a0aFD89d76E79630"),
    ],
)
def test_known_modules_show_their_key(case, index, key):
    """The key that the vendor's own data names is found for each known module."""
    item = CASES[case]["sessions"][index]
    module, data = raw(item["sessionValidationModule"]), raw(item["sessionKeyData"])
    assert session_key(Address(module), data, {}) == raw(key)


def test_all_published_modules_are_known():
    """Both ERC20 modules, the ABI module and the mint module have a layout."""
    published = [ADDRESSES["abiSvm"], *ADDRESSES["erc20Svm"], ADDRESSES["seed"]["validationModule"]]
    assert {raw(module) for module in published} <= set(KNOWN_LAYOUTS)
    for layout in KNOWN_LAYOUTS.values():
        assert parse_layout(", ".join(layout)) == layout


def test_a_configured_module_shows_its_key():
    """A module that only the user knows is read by the layout the user gives it."""
    for leaf in STORE["store"]["leafNodes"]:
        module = Address(raw(leaf["sessionValidationModule"]))
        data = raw(leaf["sessionKeyData"])
        assert session_key(module, data, {}) is None
        assert session_key(module, data, {module: FIRST_WORD}) == raw(leaf["sessionPublicKey"])


@given(address, address, st.binary(max_size=80))
@settings(deadline=None)
def test_both_layouts_find_the_key_whatever_follows(module, key, rest):
    """Bytes behind the key do not matter."""
    assert session_key(module, bytes(12) + key + rest, {module: FIRST_WORD}) == key
    assert session_key(module, key + rest, {module: PACKED}) == key


@given(address, st.one_of(st.binary(max_size=31), st.binary(min_size=32, max_size=80)))
@settings(deadline=None)
@example(Address(bytes(20)), b"\x01" + bytes(31))
@example(Address(bytes(20)), bytes(11) + b"\x01" + bytes(20))
def test_data_that_does_not_fit_has_no_key(module, data):
    """Too short data or a word that is no address gives None, never other bytes."""
    key = session_key(module, data, {module: FIRST_WORD})
    assert (key is None) is (len(data) < 32 or any(data[:12]))
    assert (session_key(module, data, {module: PACKED}) is None) is (len(data) < 20)


def test_the_users_layout_overrules():
    """A configured layout wins over the known one."""
    module = Address(raw(ADDRESSES["abiSvm"]))
    data = bytes(12) + bytes(range(20))
    assert session_key(module, data, {}) == data[:20]
    assert session_key(module, data, {module: FIRST_WORD}) == data[12:]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("session_key, amount", "'amount' is no part of a layout"),
        ("", "'' is no part of a layout"),
        ("recipient, token_id", "without session_key"),
        ("session_key, token_id, token_id", "names each part once"),
        (f"{PACKED_KEY}, token_id", "'packed_session_key' says all of a layout, so it stands al"),
        (f"session_key, {ABI_RULES}", "'abi_rules' says all of a layout, so it stands alone"),
    ],
)
def test_a_layout_that_says_nothing_is_refused(text, problem):
    """A misspelt or useless layout is refused with what is wrong."""
    with pytest.raises(ValueError, match=problem):
        parse_layout(text)


@given(address, address, address, st.integers(0, 2**256 - 1), st.binary(max_size=40))
@settings(deadline=None)
def test_words_are_found_where_the_layout_says(key, contract, recipient, token_id, rest):
    """Each named word is read from its place, whatever stands in words of no interest."""
    module = Address(b"\x07" * 20)
    words = [bytes(12) + key, b"\xff" * 32, token_id.to_bytes(32, "big")]
    words += [bytes(12) + recipient, bytes(12) + contract]
    layout = parse_layout("session_key, _, token_id, recipient, contract")
    grant = read_grant(module, b"".join(words) + rest, {module: layout})
    assert grant == SessionGrant(key, contract, recipient, token_id)
    cut = read_grant(module, b"".join(words)[:-1], {module: layout})
    assert cut == SessionGrant(key, None, recipient, token_id)


def test_the_seed_session_says_whom_it_may_mint_what():
    """abi.encode(signer, recipient, token_id) of the mint module, as the seed's document has it."""
    item = CASES["seed-mint"]["sessions"][0]
    data = raw(item["sessionKeyData"])
    grant = read_grant(Address(raw(item["sessionValidationModule"])), data, {})
    assert grant.recipient == data[44:64]
    assert grant.token_id == int.from_bytes(data[64:96], "big")
    assert grant.contract is None


def test_the_erc20_session_of_the_sdk_names_token_and_recipient():
    """The vendor's own datum for the ERC20 module."""
    item = CASES["sdk-abi-svm"]["sessions"][1]
    module = Address(raw(item["sessionValidationModule"]))
    _, token, recipient, _ = item["sessionKeyDataInAbi"][1]
    grant = read_grant(module, raw(item["sessionKeyData"]), {})
    assert (grant.contract, grant.recipient) == (raw(token), raw(recipient))
    assert grant.token_id is None


def abi_datum(selector, rules):
    packed = b"".join(
        offset.to_bytes(2, "big") + bytes([condition]) + word for offset, condition, word in rules
    )
    return (
        b"\x01" * 20 + b"\x02" * 20 + selector + bytes(16) + len(rules).to_bytes(2, "big") + packed
    )


def test_rules_of_the_abi_module_name_recipient_and_id():
    """Only equality binds, and only at the places of a call that is known."""
    module = Address(raw(ADDRESSES["abiSvm"]))
    recipient, token_id = bytes(12) + b"\x03" * 20, (62).to_bytes(32, "big")
    mint = keccak(b"mintTo(address,uint256,uint256)")[:4]
    move = keccak(b"safeTransferFrom(address,address,uint256,uint256,bytes)")[:4]
    datum = abi_datum(mint, [(0, 0, recipient), (32, 0, token_id)])
    key, target = Address(b"\x01" * 20), Address(b"\x02" * 20)
    grant = read_grant(module, datum, {})
    assert grant == SessionGrant(key, target, Address(b"\x03" * 20), 62)
    moved = read_grant(module, abi_datum(move, [(32, 0, recipient), (64, 0, token_id)]), {})
    assert moved == grant
    # "At most 62" is no wish for the token 62.
    at_most = read_grant(module, abi_datum(mint, [(0, 0, recipient), (32, 1, token_id)]), {})
    assert at_most == SessionGrant(key, target, Address(b"\x03" * 20), None)
    unknown = read_grant(module, abi_datum(b"\0\0\0\x01", [(0, 0, recipient)]), {})
    assert unknown == SessionGrant(key, target)
    # More rules are announced than there are bytes.
    assert read_grant(module, datum[:-1], {}) == SessionGrant(
        key, target, Address(b"\x03" * 20), None
    )
    assert parse_layout(ABI_RULES) == (ABI_RULES,)
