"""What looks like a private key is hidden where input is quoted, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.config_values import show
from indexer.core.key_text import hide_keys
from indexer.core.session_fields import printable

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x000002FbFfedd9B33F4E7156F2DE8D48945E7489"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (KEY, "(hidden: 64 hex digits)"),
        (f"0x{KEY.upper()}", "(hidden: 64 hex digits)"),
        (f"No such command '0X{KEY}'.", "No such command (hidden: 64 hex digits)."),
        (f"/tmp/{KEY[:60]}.json", "/tmp/(hidden: 60 hex digits).json"),
        (f'"{ADDRESS}: 0x{KEY}"', f'"{ADDRESS}: (hidden: 64 hex digits)"'),
        (f"0x{KEY[:59]}", f"0x{KEY[:59]}"),
        (ADDRESS, ADDRESS),
    ],
)
def test_a_key_is_hidden_with_its_length(text, shown):
    """With or without 0x and quotes, anywhere in a text; an address stays."""
    assert hide_keys(text) == shown


@given(
    st.text(max_size=20),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.text(max_size=20),
    st.sampled_from(["", "0x", "0X"]),
    st.booleans(),
)
def test_no_quoting_function_shows_a_key(before, key, after, prefix, upper):
    """Whatever stands around it, and before anything is cut off."""
    key = key.upper() if upper else key
    text = f"{before}{prefix}{key}{after}"
    for shown in (hide_keys(text), show(text), printable(text), show(int(key, 16) + 10**76)):
        assert key not in shown
        assert key[:50] not in shown


@given(st.text(alphabet="0123456789abcdefABCDEFx\"' :", max_size=59))
def test_what_is_too_short_for_a_key_stays(text):
    """Less than sixty characters are no key."""
    assert hide_keys(text) == text


def test_numbers_are_keys_too():
    """TOML takes a key without quotes for a number."""
    assert show(int(KEY, 16)) == "(hidden: 77 hex digits)"
    assert show(137) == "137"
