"""sessionKeyDataInAbi, `[types, values]`, to the bytes ethers' defaultAbiCoder gives for it.

eth-abi does the encoding. Before it, types and values are brought from the JSON manner of
ethers (`tuple(address to)[]`, decimal and hex texts) to its own, and everything that eth-abi
would pad (short bytesN) or ethers would guess (texts for bool) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eth_abi.abi import encode

from indexer.core.session_fields import (
    FieldError,
    found,
    printable,
    read_address,
    read_hex,
    read_integer,
    read_sized_hex,
    step,
)
from indexer.core.session_sets import MAX_SESSION_KEY_DATA_BYTES

MAX_TYPE_CHARACTERS: Final = 4_096
MAX_TYPE_DEPTH: Final = 32
_MAX_WORDS: Final = MAX_SESSION_KEY_DATA_BYTES // 32
_TOKEN = re.compile(r"\s*(\[[0-9]{0,6}\]|[(),]|[A-Za-z_$][A-Za-z0-9_$]*)\s*", re.ASCII)
_SIMPLE = re.compile(r"(uint|int|bytes)([1-9][0-9]{0,2})?|address|bool|string", re.ASCII)


@dataclass(frozen=True, slots=True)
class AbiType:
    """One parsed type. `name` is canonical without dimensions, "" for a tuple.

    `lengths` are the array dimensions from the innermost out, None where dynamic.
    """

    name: str
    members: tuple[AbiType, ...] = ()
    member_names: tuple[str, ...] = ()
    lengths: tuple[int | None, ...] = ()

    def canonical(self) -> str:
        """Return the spelling that selectors and eth-abi use."""
        base = self.name or "(" + ",".join(member.canonical() for member in self.members) + ")"
        return base + "".join(f"[{'' if n is None else n}]" for n in self.lengths)

    def element(self) -> AbiType:
        """Return the type of one element of this array."""
        return AbiType(self.name, self.members, self.member_names, self.lengths[:-1])


@dataclass(slots=True)
class _Room:
    """Values left before the encoding must exceed the limit: each takes a word at least."""

    words: int = field(default=_MAX_WORDS)

    def take(self) -> None:
        self.words -= 1
        if self.words < 0:
            raise FieldError(f"encodes to more than {MAX_SESSION_KEY_DATA_BYTES} bytes")


def encode_session_key_data(in_abi: object) -> bytes:
    """Return session_key_data for a `[types, values]` pair as it stands in JSON.

    Integers may be JSON numbers, decimal or 0x texts; bytes are 0x texts of the exact length;
    tuples are lists, or objects with the member names of the type. Raises FieldError, whose
    `where` is the path below the pair (`[1][0]` is the first value).
    """
    if not isinstance(in_abi, list) or len(in_abi) != 2:
        raise FieldError(f"is {_shape(in_abi)}, expected [types, values]")
    types, values = in_abi
    for index, part in enumerate((types, values)):
        if not isinstance(part, list):
            raise FieldError(f"is {found(part)}, expected a list", f"[{index}]")
    if not types:
        raise FieldError("names no types", "[0]")
    if len(types) > _MAX_WORDS:
        raise FieldError(f"encodes to more than {MAX_SESSION_KEY_DATA_BYTES} bytes", "[0]")
    if len(types) != len(values):
        raise FieldError(f"has {len(types)} types but {len(values)} values")
    parsed = [_parsed(text, f"[0][{i}]") for i, text in enumerate(types)]
    room = _Room()
    converted = [
        _convert(kind, value, f"[1][{i}]", room)
        for i, (kind, value) in enumerate(zip(parsed, values, strict=True))
    ]
    data = encode([kind.canonical() for kind in parsed], converted)
    if len(data) > MAX_SESSION_KEY_DATA_BYTES:
        raise FieldError(
            f"encodes to {len(data)} bytes, at most {MAX_SESSION_KEY_DATA_BYTES} are accepted"
        )
    return data


def parse_type(text: str) -> AbiType:
    """Return the type of a text such as `tuple(address to, uint max)[2][] rules`; names dropped.

    Raises FieldError on anything that Solidity's ABI does not have.
    """
    if len(text) > MAX_TYPE_CHARACTERS:
        raise FieldError(f"is a type of {len(text)} characters, at most {MAX_TYPE_CHARACTERS}")
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _bad(text)
        tokens.append(match[1])
        at = match.end()
    kind, _, rest = _read_type(tokens, 0, text, 0)
    if rest != len(tokens):
        raise _bad(text)
    return kind


def _read_type(tokens: Sequence[str], at: int, text: str, depth: int) -> tuple[AbiType, str, int]:
    """Return type, member name ("" if none) and the index of the next token."""
    if depth > MAX_TYPE_DEPTH:
        raise FieldError(f"nests tuples deeper than {MAX_TYPE_DEPTH}")
    name = ""
    members: list[AbiType] = []
    names: list[str] = []
    word = _token(tokens, at)
    if word == "(" or (word == "tuple" and _token(tokens, at + 1) == "("):
        at += 1 if word == "(" else 2
        while True:
            member, member_name, at = _read_type(tokens, at, text, depth + 1)
            members.append(member)
            names.append(member_name)
            closing = _token(tokens, at)
            at += 1
            if closing == ")":
                break
            if closing != ",":
                raise _bad(text)
    else:
        name = _simple(word, text)
        at += 1
    lengths: list[int | None] = []
    while _token(tokens, at).startswith("["):
        digits = tokens[at][1:-1]
        if digits and int(digits) == 0:
            raise _bad(text)
        lengths.append(int(digits) if digits else None)
        at += 1
    own_name = ""
    # `address payable to` carries two words behind the type; the last one is the name.
    while _token(tokens, at) not in {"", ",", ")", "("} and not tokens[at].startswith("["):
        own_name = tokens[at]
        at += 1
    return AbiType(name, tuple(members), tuple(names), tuple(lengths)), own_name, at


def _token(tokens: Sequence[str], at: int) -> str:
    return tokens[at] if at < len(tokens) else ""


def _simple(word: str, text: str) -> str:
    match = _SIMPLE.fullmatch(word)
    if match is None:
        raise _bad(text)
    family, digits = match[1], match[2]
    if family in {"uint", "int"}:
        bits = int(digits or 256)
        if bits % 8 or bits > 256:
            raise _bad(text)
        return f"{family}{bits}"
    if family == "bytes" and digits and int(digits) > 32:
        raise _bad(text)
    return word


def _bad(text: str) -> FieldError:
    return FieldError(f"is not an ABI type ({printable(text)})")


def _parsed(text: object, where: str) -> AbiType:
    if not isinstance(text, str):
        raise FieldError(f"is {found(text)}, expected the text of a type", where)
    try:
        return parse_type(text)
    except FieldError as error:
        raise FieldError(error.problem, where) from None


def _convert(kind: AbiType, value: object, where: str, room: _Room) -> Any:
    """Return the value as eth-abi wants it."""
    if kind.lengths:
        return _convert_array(kind, value, where, room)
    if kind.members:
        return _convert_tuple(kind, value, where, room)
    room.take()
    try:
        return _convert_simple(kind.name, value)
    except FieldError as error:
        raise FieldError(f"{error.problem} for {kind.name}", where) from None


def _convert_array(kind: AbiType, value: object, where: str, room: _Room) -> list[Any]:
    if not isinstance(value, list):
        raise FieldError(f"is {found(value)}, expected a list for {_short(kind)}", where)
    length = kind.lengths[-1]
    if length is None:
        room.take()
    elif len(value) != length:
        raise FieldError(f"has {len(value)} elements, {_short(kind)} has {length}", where)
    element = kind.element()
    return [_convert(element, item, f"{where}[{i}]", room) for i, item in enumerate(value)]


def _convert_tuple(kind: AbiType, value: object, where: str, room: _Room) -> tuple[Any, ...]:
    paths = [f"{where}[{i}]" for i in range(len(kind.members))]
    if isinstance(value, dict):
        names = kind.member_names
        if "" in names or len(set(names)) != len(names) or set(value) != set(names):
            raise FieldError("is an object whose keys are not the member names of the type", where)
        paths = [where + step(name) for name in names]
        value = [value[name] for name in names]
    if not isinstance(value, list):
        raise FieldError(f"is {found(value)}, expected a list for {_short(kind)}", where)
    if len(value) != len(kind.members):
        raise FieldError(f"has {len(value)} members, {_short(kind)} has {len(kind.members)}", where)
    return tuple(
        _convert(member, item, path, room)
        for member, item, path in zip(kind.members, value, paths, strict=True)
    )


def _convert_simple(name: str, value: object) -> object:
    if name == "address":
        return read_address(value)
    if name == "bool":
        if not isinstance(value, bool):
            # ethers takes any value here and asks JavaScript whether it is truthy: "false" is.
            raise FieldError(f"is {found(value)}, expected true or false")
        return value
    if name == "string":
        return _text(value)
    if name == "bytes":
        return read_hex(value)
    if name.startswith("bytes"):
        return read_sized_hex(value, int(name[5:]))
    if name.startswith("uint"):
        return read_integer(value, int(name[4:]))
    return read_integer(value, int(name[3:]), signed=True)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise FieldError(f"is {found(value)}, expected a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FieldError("holds half of a surrogate pair, which has no UTF-8 form") from None
    return value


def _short(kind: AbiType) -> str:
    text = kind.canonical()
    return text if len(text) <= 60 else text[:57] + "..."


def _shape(value: object) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else found(value)
