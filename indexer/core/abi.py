"""Bounds-checked slicing of ABI-encoded bytes, and events decoded by their declared form.

Everything here reads bytes that strangers chose. An offset or a length is compared with the
data at hand before it is used, so nothing is allocated and no loop runs beyond that data.
Source of the rules: what solc 0.8 generates for `abi.decode` and for calldata parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eth_hash.auto import keccak as _keccak

from indexer.core.types import Address, Hash32

MAX_TEXT = 200
"""The longest text of a DecodeError, in characters."""
_SIGN_BIT = 1 << 255
_WRAP = 1 << 256
_ZERO12 = bytes(12)
_EXPANSION = 8

AbiValue = int | bytes
"""A number as int; an address, hash or byte string as bytes."""


class DecodeError(ValueError):
    """Bytes that do not have the form asked for. The text is short and carries none of them."""

    def __init__(self, message: str) -> None:
        super().__init__(message[:MAX_TEXT])


class ByteBudget:
    """Limits what one input may expand to: 8 times its own size, or as often as is said.

    Offsets may point at the same bytes many times (compressing bundlers do that, a little);
    without a limit 100 kB of calldata could stand for gigabytes.
    """

    __slots__ = ("_left", "_times")

    def __init__(self, data: bytes, times: int = _EXPANSION) -> None:
        self._times = times
        self._left = times * len(data)

    def take(self, size: int) -> None:
        """Account for `size` decoded bytes; raises DecodeError when the limit is passed."""
        self._left -= size
        if self._left < 0:
            raise DecodeError(f"decodes to more than {self._times} times its own size")


def keccak(data: bytes) -> Hash32:
    """Return keccak256, the hash of Ethereum (not the later SHA3-256)."""
    return Hash32(_keccak(data))


def word_at(data: bytes, at: int) -> Hash32:
    """Return the 32 bytes at this position; raises DecodeError where they are not all there."""
    if at < 0 or at + 32 > len(data):
        raise DecodeError(f"{len(data)} bytes end before the word at byte {at}")
    return Hash32(data[at : at + 32])


def uint_at(data: bytes, at: int, bits: int = 256) -> int:
    """Return the unsigned number at this position; raises DecodeError if it needs more bits."""
    value = int.from_bytes(word_at(data, at), "big")
    if value >> bits:
        raise DecodeError(f"the number at byte {at} does not fit uint{bits}")
    return value


def address_of(word: bytes) -> Address:
    """Return the address in a 32-byte word; raises DecodeError if the 12 bytes before are dirty."""
    if word[:12] != _ZERO12:
        raise DecodeError("an address with dirty padding")
    return Address(word[12:])


def address_at(data: bytes, at: int) -> Address:
    """Return the address whose word stands at this position."""
    return address_of(word_at(data, at))


def bool_of(word: bytes) -> bool:
    """Return the bool in a 32-byte word; raises DecodeError if it is neither 0 nor 1."""
    value = int.from_bytes(word, "big")
    if value > 1:
        raise DecodeError("a bool that is neither 0 nor 1")
    return value == 1


def tail_at(data: bytes, base: int, head: int) -> int:
    """Return the position that the offset word at `head` points to, counted from `base`.

    As abi.decode does: an offset is at most 2^64-1 and one whole word must stand where it points.
    """
    at = base + uint_at(data, head, 64)
    if at + 32 > len(data):
        raise DecodeError(f"the offset at byte {head} points beyond the data")
    return at


def calldata_tail_at(data: bytes, base: int, head: int, size: int) -> int:
    """Return the position of a value nested in a calldata array or struct.

    There solc compares offsets as signed numbers, so one may legally point backwards: other
    encodings of the same user operation execute on chain just as well. `size` is the length
    of the value's head in bytes, which must lie within the data.
    """
    at = _calldata_position(data, base, head, size)
    if at < 0:
        raise DecodeError(f"the offset at byte {head} points before the data")
    return at


def calldata_bytes_at(data: bytes, base: int, head: int) -> bytes:
    """Return a byte string nested in a calldata array or struct; see calldata_tail_at."""
    at = _calldata_position(data, base, head, 32)
    # Before its first byte, calldata reads as zeros: a length of 0, and no revert.
    return bytes_at(data, at) if at >= 0 else b""


def calldata_array_at(data: bytes, base: int, head: int) -> tuple[int, int]:
    """Return (position of the first item, count) of a nested array; see calldata_tail_at."""
    at = _calldata_position(data, base, head, 32)
    return array_at(data, at) if at >= 0 else (0, 0)


def _calldata_position(data: bytes, base: int, head: int, size: int) -> int:
    offset = uint_at(data, head)
    if offset & _SIGN_BIT:
        offset -= _WRAP
    if base + offset + size > len(data):
        raise DecodeError(f"the offset at byte {head} points beyond the data")
    return base + offset


def bytes_at(data: bytes, at: int) -> bytes:
    """Return the byte string whose length word stands at this position; padding is optional."""
    length = uint_at(data, at, 64)
    if at + 32 + length > len(data):
        raise DecodeError(f"the byte string at byte {at} is longer than the data")
    return data[at + 32 : at + 32 + length]


def array_at(data: bytes, at: int) -> tuple[int, int]:
    """Return (position of the first item, count) of an array whose items are one word each."""
    count = uint_at(data, at, 64)
    if at + 32 + 32 * count > len(data):
        raise DecodeError(f"the array at byte {at} is longer than the data")
    return at + 32, count


def uint_array_at(data: bytes, at: int) -> list[int]:
    """Return the items of the uint256[] whose length word stands at this position."""
    first, count = array_at(data, at)
    return [int.from_bytes(data[i : i + 32], "big") for i in range(first, first + 32 * count, 32)]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an event: its name in the contract, its ABI type, where it travels."""

    name: str
    type: str
    indexed: bool


@dataclass(frozen=True, slots=True)
class EventForm:
    """An event as its contract declares it. `topic_count` includes topic0."""

    name: str
    signature: str
    topic_count: int
    parameters: tuple[Parameter, ...]


def event_form(declaration: str) -> EventForm:
    """Parse `Name(type [indexed] name, …)`; raises ValueError on anything else.

    An indexed `bytes` travels as its keccak256, so the parameter becomes a bytes32 called
    `<name>Hash`: its content cannot be had from the log.
    """
    match = re.fullmatch(r"(\w+)\((.*)\)", declaration)
    if match is None:
        raise ValueError(f"not an event declaration: {declaration}")
    name, inside = match.groups()
    types: list[str] = []
    parameters: list[Parameter] = []
    for part in filter(None, inside.split(", ")):
        type_, *indexed, parameter = part.split(" ")
        if indexed not in ([], ["indexed"]):
            raise ValueError(f"not an event parameter: {part}")
        types.append(type_)
        if indexed and type_ == "bytes":
            parameters.append(Parameter(f"{parameter}Hash", "bytes32", indexed=True))
        else:
            parameters.append(Parameter(parameter, type_, indexed=bool(indexed)))
    return EventForm(
        name=name,
        signature=f"{name}({','.join(types)})",
        topic_count=1 + sum(parameter.indexed for parameter in parameters),
        parameters=tuple(parameters),
    )


def decode_event(form: EventForm, topics: Sequence[bytes], data: bytes) -> dict[str, AbiValue]:
    """Return the event's parameters by name, in declared order.

    Raises DecodeError on a wrong number of topics, missing data, dirty padding, or a length
    beyond the data. Bytes after the data are ignored, as every ABI decoder does. Types:
    address, uint*, bytes32, bytes.
    """
    if len(topics) != form.topic_count:
        raise DecodeError(f"{form.name} has {len(topics)} topics, not {form.topic_count}")
    values: dict[str, AbiValue] = {}
    topic, head = 1, 0
    for parameter in form.parameters:
        if parameter.indexed:
            word = topics[topic]
            topic += 1
        else:
            word = word_at(data, head)
            if parameter.type == "bytes":
                values[parameter.name] = bytes_at(data, tail_at(data, 0, head))
            head += 32
        if parameter.type != "bytes":
            values[parameter.name] = _value_of(parameter, word)
    return values


def _value_of(parameter: Parameter, word: bytes) -> AbiValue:
    match parameter.type:
        case "address":
            return address_of(word)
        case "bytes32":
            return word
        case type_ if type_.startswith("uint"):
            return uint_at(word, 0, int(type_.removeprefix("uint")))
        case _:
            raise ValueError(f"no decoder for {parameter.type}")
