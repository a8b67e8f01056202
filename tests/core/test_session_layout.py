"""The session key inside session_key_data, by the layout of its module."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.core.session_layout import (
    FIRST_20_BYTES,
    FIRST_WORD,
    KNOWN_LAYOUTS,
    LAYOUTS,
    session_key,
)
from indexer.core.types import Address

VECTORS = Path(__file__).parents[1] / "vectors"
CASES = {c["id"]: c for c in json.loads((VECTORS / "sessions.json").read_text())["cases"]}
ADDRESSES = json.loads((VECTORS / "addresses.json").read_text())
STORE = json.loads((VECTORS / "sdk_store_v4.json").read_text())

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
    assert set(KNOWN_LAYOUTS.values()) <= set(LAYOUTS)


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
    assert session_key(module, key + rest, {module: FIRST_20_BYTES}) == key


@given(address, st.one_of(st.binary(max_size=31), st.binary(min_size=32, max_size=80)))
@settings(deadline=None)
@example(Address(bytes(20)), b"\x01" + bytes(31))
@example(Address(bytes(20)), bytes(11) + b"\x01" + bytes(20))
def test_data_that_does_not_fit_has_no_key(module, data):
    """Too short data or a word that is no address gives None, never other bytes."""
    key = session_key(module, data, {module: FIRST_WORD})
    assert (key is None) is (len(data) < 32 or any(data[:12]))
    assert (session_key(module, data, {module: FIRST_20_BYTES}) is None) is (len(data) < 20)


def test_the_users_layout_overrules_and_must_exist():
    """A configured layout wins over the known one, and a misspelt one is refused."""
    module = Address(raw(ADDRESSES["abiSvm"]))
    data = bytes(12) + bytes(range(20))
    assert session_key(module, data, {}) == data[:20]
    assert session_key(module, data, {module: FIRST_WORD}) == data[12:]
    with pytest.raises(ValueError, match="unknown layout 'middle'"):
        session_key(module, data, {module: "middle"})
