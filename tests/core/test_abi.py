from __future__ import annotations

from contextlib import suppress

import pytest
from eth_abi import encode
from hypothesis import given
from hypothesis import strategies as st

from indexer.core import abi
from indexer.core.abi import DecodeError
from tests.core.make_logs import ADDRESSES, UINT256


def test_keccak_is_that_of_ethereum():
    """The hash is keccak256, not SHA3-256."""
    assert abi.keccak(b"").hex() == (
        "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )


@given(st.binary(max_size=200), st.lists(UINT256, max_size=6), ADDRESSES, st.booleans())
def test_slices_are_what_was_encoded(text, numbers, owner, flag):
    """Slicing an encoding gives back the values that were encoded."""
    data = encode(["bytes", "uint256[]", "address", "bool"], [text, numbers, owner, flag])
    assert abi.bytes_at(data, abi.tail_at(data, 0, 0)) == text
    assert abi.uint_array_at(data, abi.tail_at(data, 0, 32)) == numbers
    assert abi.address_at(data, 64) == owner
    assert abi.bool_of(abi.word_at(data, 96)) is flag


@given(st.binary(max_size=160), st.integers(-64, 200), st.integers(-64, 200))
def test_reading_anywhere_gives_bytes_of_the_data_or_a_decode_error(data, base, head):
    """Whatever the bytes and positions are, nothing is read beyond the data."""
    for read in (
        lambda: abi.bytes_at(data, abi.tail_at(data, base, head)),
        lambda: abi.bytes_at(data, head),
        lambda: abi.calldata_bytes_at(data, base, head),
        lambda: abi.word_at(data, head),
        lambda: b"".join(n.to_bytes(32, "big") for n in abi.uint_array_at(data, head)),
    ):
        with suppress(DecodeError):
            assert read() in data


@pytest.mark.parametrize("length", [33, 2**63, 2**64 - 1, 2**64, 2**255, 2**256 - 1])
def test_hostile_lengths_allocate_nothing(length):
    """A length beyond the data is refused before anything of that size is made."""
    data = length.to_bytes(32, "big") + bytes(32)
    for read in (abi.bytes_at, abi.array_at, abi.uint_array_at):
        with pytest.raises(DecodeError):
            read(data, 0)


@pytest.mark.parametrize("offset", [64, 2**64 - 1, 2**64, 2**255, 2**256 - 32])
def test_hostile_offsets_are_refused(offset):
    """An offset that leaves the data is refused, a wrapping one too."""
    data = offset.to_bytes(32, "big") + bytes(32)
    with pytest.raises(DecodeError):
        abi.tail_at(data, 0, 0)


def test_an_offset_may_point_backwards_in_calldata_only():
    """Nested calldata is read with signed offsets, as solc reads it; abi.decode is not."""
    data = encode(["uint256"], [3]) + b"abc".ljust(32, b"\0") + (2**256 - 64).to_bytes(32, "big")
    assert abi.calldata_bytes_at(data, 64, 64) == b"abc"
    with pytest.raises(DecodeError):
        abi.tail_at(data, 64, 64)


def test_calldata_before_its_start_reads_as_zeros():
    """An offset to before the calldata is an empty byte string on chain, and so here."""
    data = (2**256 - 4096).to_bytes(32, "big")
    assert abi.calldata_bytes_at(data, 0, 0) == b""
    assert abi.calldata_array_at(data, 0, 0) == (0, 0)
    with pytest.raises(DecodeError):
        abi.calldata_tail_at(data, 0, 0, 352)


@pytest.mark.parametrize("word", [b"\x01" + bytes(31), bytes(11) + b"\x01" + bytes(20)])
def test_dirty_padding_is_refused(word):
    """An address with bits above its 160, and a bool that is not 0 or 1, are no values."""
    with pytest.raises(DecodeError):
        abi.address_of(word)
    with pytest.raises(DecodeError):
        abi.bool_of(word)


def test_the_text_of_an_error_is_bounded():
    """An error's text cannot be made long by what was decoded."""
    assert len(str(DecodeError("x" * 10_000))) == abi.MAX_TEXT


def test_a_budget_ends():
    """What one input decodes to is limited by its own size."""
    budget = abi.ByteBudget(bytes(10))
    budget.take(80)
    with pytest.raises(DecodeError):
        budget.take(1)


@pytest.mark.parametrize("text", ["Transfer", "E(uint256 once indexed a)", "E(uint256 a"])
def test_a_wrong_declaration_is_refused(text):
    """A declaration that cannot be parsed is a mistake of the program, seen at import."""
    with pytest.raises(ValueError, match="not an event"):
        abi.event_form(text)


def test_a_type_without_decoder_is_refused():
    """A declared type that nothing decodes is a mistake of the program, not of the data."""
    form = abi.event_form("E(int7 a)")
    with pytest.raises(ValueError, match="no decoder for int7"):
        abi.decode_event(form, [bytes(32)], bytes(32))
