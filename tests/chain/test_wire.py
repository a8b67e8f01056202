"""Hex of nodes: what is right comes through unchanged, everything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.chain import wire


@given(st.integers(0, 2**63 - 1))
def test_every_number_up_to_63_bits_comes_back(value: int) -> None:
    """A quantity written by a node is read as the same number."""
    assert wire.quantity(hex(value)) == value


@given(st.binary(max_size=200))
def test_every_byte_string_comes_back(value: bytes) -> None:
    """Bytes written as 0x hex, in either case, are read as the same bytes."""
    assert wire.data(wire.to_hex(value)) == value
    assert wire.data("0x" + value.hex().upper()) == value


@given(st.integers(0, 2**256 - 1))
def test_a_shortened_word_is_padded(value: int) -> None:
    """A storage word without its leading zeros is the same 32 bytes as the full one."""
    full = value.to_bytes(32, "big")
    assert wire.word(hex(value)) == wire.word(wire.to_hex(full)) == full


@pytest.mark.parametrize(
    "text",
    ["", "0x", "12", "0X1", "0x_1", "0x1 ", " 0x1", "-0x1", "+0x1", "0xg", "0x1_0"],
)
def test_what_is_no_number_is_refused(text: str) -> None:
    """Signs, underscores, white space and other letters are no quantity."""
    with pytest.raises(ValueError, match="number"):
        wire.quantity(text)


@pytest.mark.parametrize("text", [hex(2**63), "0x" + "1" * 65, "0x\u0661", "0x1\n"])
def test_a_number_is_bounded_ascii(text: str) -> None:
    """Too many bits or digits, digits of other scripts and a line end are refused."""
    with pytest.raises(ValueError, match="number"):
        wire.quantity(text)


@pytest.mark.parametrize("text", ["", "ab", "0xabc", "0xzz", "0x a b", "0xab cd", "0xab\n", "0Xab"])
def test_what_is_no_byte_string_is_refused(text: str) -> None:
    """A missing 0x, half a byte and white space are refused."""
    with pytest.raises(ValueError, match="bytes"):
        wire.data(text)


@pytest.mark.parametrize("size", [0, 19, 20, 31, 33, 64])
def test_a_hash_has_32_bytes(size: int) -> None:
    """A hash of any other width is refused."""
    with pytest.raises(ValueError, match="32"):
        wire.hash32("0x" + "ab" * size)


def test_an_address_has_20_bytes_in_either_case() -> None:
    """Checksum case means nothing; another width is refused."""
    assert wire.address("0x" + "Ab" * 20) == bytes.fromhex("ab" * 20)
    with pytest.raises(ValueError, match="20"):
        wire.address("0x" + "ab" * 32)


def test_errors_do_not_repeat_what_the_node_sent() -> None:
    """A refused value, which may hold anything, is not part of the text."""
    with pytest.raises(ValueError, match="hex") as caught:
        wire.quantity("0xhttp://user:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"removed": True},
        {"topics": ["0x" + "00" * 32] * 5},
        {"topics": ["0x00"]},
        {"data": "0x0"},
        {"log_index": "0xffffffffff"},
        {"block_timestamp": "soon"},
    ],
)
def test_a_log_with_one_bad_field_is_refused(changes: dict[str, Any]) -> None:
    """One field out of shape spoils the log."""
    fields: dict[str, Any] = {
        "address": "0x" + "11" * 20,
        "topics": [],
        "data": "0x",
        "block_number": "0x1",
        "block_hash": "0x" + "22" * 32,
        "transaction_hash": "0x" + "33" * 32,
        "transaction_index": "0x0",
        "log_index": "0x0",
    }
    assert wire.LogReader().log(wire.RawLog(**fields)).block_number == 1
    with pytest.raises(ValueError, match=r"."):
        wire.LogReader().log(wire.RawLog(**{**fields, **changes}))
