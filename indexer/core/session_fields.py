"""Read one field of a document somebody else wrote: addresses, hex, whole numbers.

Everything here refuses with a FieldError, a clause that fits behind the field's JSON path.
What was found is quoted only where it is short: a private key pasted into the wrong field
(64 hex digits, 44 characters of base64, a dozen words) must never reach a terminal or a log.
"""

from __future__ import annotations

import re
from typing import Final

from indexer.core.abi import keccak
from indexer.core.key_text import hide_keys
from indexer.core.types import Address

MAX_QUOTED_CHARACTERS: Final = 42
"""An address fits, no usual spelling of a private key does."""

_HEX = re.compile(r"0[xX]([0-9a-fA-F]*)", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,80}", re.ASCII)
_HEX_NUMBER = re.compile(r"-?0[xX][0-9a-fA-F]{1,66}", re.ASCII)


class FieldError(ValueError):
    """One field is wrong: `where` is the JSON path below the field, `problem` the clause."""

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(f"{where} {problem}".lstrip())
        self.problem = problem
        self.where = where


def printable(text: str, limit: int = MAX_QUOTED_CHARACTERS) -> str:
    """Return the text in quotes without control characters; too long ones only by their length."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    quoted = hide_keys(f'"{plain}"')
    return quoted if len(quoted) <= limit + 2 else f"a text of {len(text)} characters"


def found(value: object) -> str:
    """Return how a JSON value is named in a sentence, never more of it than is safe."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "a number beyond 18 digits"
    if isinstance(value, float):
        return f"the fraction {value!r}"
    return "a list" if isinstance(value, list) else "an object"


def step(key: str) -> str:
    """Return one step of a JSON path; keys that could be a secret are not spelt out."""
    if re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$]{0,41}", key, re.ASCII):
        return f".{key}"
    # `0x…_sessions`, the vendor's own key, is longer than what is quoted otherwise.
    if re.fullmatch(r"0[xX][0-9a-fA-F]{40}(_[a-z]{1,10})?", key, re.ASCII):
        return f".{key}"
    return f"[{printable(key)}]"


def checksum(address: Address) -> str:
    """Return the EIP-55 spelling of an address."""
    digits = address.hex()
    digest = keccak(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit
        for digit, nibble in zip(digits, digest, strict=False)
    )


def read_hex(value: object) -> bytes:
    """Return the bytes of an even-length `0x…` text, upper or lower case; `0x` is empty."""
    digits = _hex_digits(value)
    if len(digits) % 2:
        raise FieldError(f"has an odd number of hex digits ({len(digits)})")
    return bytes.fromhex(digits)


def read_sized_hex(value: object, size_bytes: int) -> bytes:
    """Return exactly this many bytes; shorter ones are refused, not padded."""
    data = read_hex(value)
    if len(data) != size_bytes:
        raise FieldError(f"is {len(data)} bytes long, expected {size_bytes}")
    return data


def read_address(value: object) -> Address:
    """Return an address written lower-case, upper-case or with its EIP-55 checksum."""
    digits = _hex_digits(value)
    if len(digits) != 40:
        raise FieldError(f"has {len(digits)} hex digits, an address has 40")
    address = Address(bytes.fromhex(digits))
    if digits not in {digits.lower(), digits.upper()} and checksum(address)[2:] != digits:
        raise FieldError(
            f"has a wrong checksum in {printable(str(value))}, the right spelling is "
            f"{checksum(address)}"
        )
    return address


def read_integer(value: object, bits: int, *, signed: bool = False) -> int:
    """Return a whole number given as a JSON integer, a decimal text or a `0x…` text.

    Out of range is refused, never wrapped; so are fractions (also 1e3), booleans and blanks.
    """
    number = _whole_number(value)
    if number < 0 and not signed:
        raise FieldError(f"is negative ({found(number)})")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if not low <= number <= high:
        raise FieldError(f"does not fit in {bits} bits ({found(number)})")
    return number


def _hex_digits(value: object) -> str:
    if not isinstance(value, str):
        raise FieldError(f"is {found(value)}, expected a 0x text")
    match = _HEX.fullmatch(value)
    if match is None:
        if value[:2].lower() != "0x":
            raise FieldError(f"has no 0x in front ({found(value)})")
        raise FieldError("holds a character that is not a hex digit")
    return match[1]


def _whole_number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    if isinstance(value, str) and _HEX_NUMBER.fullmatch(value):
        return int(value, 16)
    raise FieldError(f"is {found(value)}, expected a whole number (or its decimal or 0x text)")
