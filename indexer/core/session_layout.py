"""Where a validation module keeps the session key inside session_key_data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from indexer.core.types import Address

FIRST_WORD: Final = "first_word"
"""abi.encode(address session_key, …): 12 zero bytes, then the key."""
FIRST_20_BYTES: Final = "first_20_bytes"
"""Packed: the key stands in the first 20 bytes."""
LAYOUTS: Final = (FIRST_WORD, FIRST_20_BYTES)


def _module(text: str) -> Address:
    return Address(bytes.fromhex(text))


KNOWN_LAYOUTS: Final[Mapping[Address, str]] = MappingProxyType(
    {
        # ERC20 module, the September 2023 deployment and the one of August before it.
        _module("000000D50C68705bd6897B2d17c7de32FB519fDA"): FIRST_WORD,
        _module("000000dB3D753A1da5A6074a9F74F39a0A779d33"): FIRST_WORD,
        # ABI module: key 20, target 20, selector 4, value limit 16, rule count 2, rules of 35.
        _module("000006bC2eCdAe38113929293d241Cf252D91861"): FIRST_20_BYTES,
        # Mumbai's mint module: abi.encode(signer, recipient, token_id).
        _module("8E09744b738e9Fec4A4df7Ab5621f1857F6Fa175"): FIRST_WORD,
        # The module of Particle's RPC documentation: signer, token, recipient, id.
        _module("4b7f018Fa27a97b6a17b6d4d8Cb3c0e2D9340133"): FIRST_WORD,
    }
)


def session_key(module: Address, data: bytes, layouts: Mapping[Address, str]) -> Address | None:
    """Return the session key, or None where the module is unknown or the data does not fit.

    `layouts` names further modules, or overrules the known ones, by a name out of LAYOUTS;
    ValueError on any other name.
    """
    layout = layouts.get(module) or KNOWN_LAYOUTS.get(module)
    if layout is None:
        return None
    if layout == FIRST_WORD:
        # A word with high bytes set is no address: then this is not the layout.
        return Address(data[12:32]) if len(data) >= 32 and not any(data[:12]) else None
    if layout == FIRST_20_BYTES:
        return Address(data[:20]) if len(data) >= 20 else None
    raise ValueError(f"unknown layout {layout!r}, expected one of {', '.join(LAYOUTS)}")
