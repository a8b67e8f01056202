"""What a session may do, by its validation module's layout of session_key_data.

A layout names the static words of abi.encode in order (`_`: a word of no interest), or is one of
two packed forms. Sources: bcnmy/scw-contracts, ERC20SessionValidationModule and
ABISessionValidationModule; the seed's mint module and that of Particle's RPC documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from indexer.core.key_text import hide_keys
from indexer.core.types import Address

Layout = tuple[str, ...]
"""Names out of WORDS, one per 32-byte word; or (PACKED_KEY,) or (ABI_RULES,)."""

WORDS: Final = ("session_key", "contract", "recipient", "token_id", "_")
PACKED_KEY: Final = "packed_session_key"
"""The key stands in the first 20 bytes, and nothing is known of the rest."""
ABI_RULES: Final = "abi_rules"
"""Of the ABI module: key 20, target 20, selector 4, value limit 16, rule count 2, rules of 35."""

_MINT: Final[Layout] = ("session_key", "recipient", "token_id")
_ERC20: Final[Layout] = ("session_key", "contract", "recipient", "_")


def _module(text: str) -> Address:
    return Address(bytes.fromhex(text))


KNOWN_LAYOUTS: Final[Mapping[Address, Layout]] = MappingProxyType(
    {
        # ERC20 module, the September 2023 deployment and the one of August before it.
        _module("000000D50C68705bd6897B2d17c7de32FB519fDA"): _ERC20,
        _module("000000dB3D753A1da5A6074a9F74F39a0A779d33"): _ERC20,
        _module("000006bC2eCdAe38113929293d241Cf252D91861"): (ABI_RULES,),
        # Mumbai's mint module: abi.encode(signer, recipient, token_id).
        _module("8E09744b738e9Fec4A4df7Ab5621f1857F6Fa175"): _MINT,
        # The module of Particle's RPC documentation: signer, token, recipient, id.
        _module("4b7f018Fa27a97b6a17b6d4d8Cb3c0e2D9340133"): (
            "session_key",
            "contract",
            "recipient",
            "token_id",
        ),
    }
)

_WORD = 32
_RULES_AT = 62
_RULE_BYTES = 35
_EQUAL = 0
# (selector) -> calldata offsets of recipient and token id, behind the selector.
_MOVES: Final[Mapping[bytes, tuple[int, int]]] = MappingProxyType(
    {
        bytes.fromhex("2baf2acb"): (0, 32),  # mintTo(address,uint256,uint256)
        bytes.fromhex("731133e9"): (0, 32),  # mint(address,uint256,uint256,bytes)
        bytes.fromhex("f242432a"): (32, 64),  # safeTransferFrom(from,to,id,amount,data)
    }
)


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """What session_key_data allows; None where the layout does not say, or is not known.

    `contract` is the one that may be called, `recipient` and `token_id` what may be moved to whom.
    """

    session_key: Address | None = None
    contract: Address | None = None
    recipient: Address | None = None
    token_id: int | None = None


def read_grant(module: Address, data: bytes, layouts: Mapping[Address, Layout]) -> SessionGrant:
    """Return what the data allows; nothing where the module is unknown or no key is found.

    A word that is missing or cannot be an address gives None for its part.

    `layouts` names further modules, or overrules the known ones.
    """
    layout = layouts.get(module) or KNOWN_LAYOUTS.get(module) or ()
    if layout == (PACKED_KEY,):
        return SessionGrant(session_key=Address(data[:20])) if len(data) >= 20 else SessionGrant()
    if layout == (ABI_RULES,):
        return _abi_rules(data)
    return _words(data, layout)


def session_key(module: Address, data: bytes, layouts: Mapping[Address, Layout]) -> Address | None:
    """Return the session key alone; see read_grant."""
    return read_grant(module, data, layouts).session_key


def parse_layout(text: str) -> Layout:
    """Return the layout written as "session_key, recipient, token_id"; ValueError says why not."""
    names = tuple(name.strip() for name in text.split(","))
    if names in {(PACKED_KEY,), (ABI_RULES,)}:
        return names
    for name in names:
        if name in {PACKED_KEY, ABI_RULES}:
            raise ValueError(f"{name!r} says all of a layout, so it stands alone")
        if name not in WORDS:
            known = ", ".join((*WORDS, PACKED_KEY, ABI_RULES))
            raise ValueError(f"{hide_keys(repr(name))} is no part of a layout, which knows {known}")
    if "session_key" not in names:
        raise ValueError("a layout without session_key says nothing of whose session it is")
    if any(names.count(name) > 1 for name in names if name != "_"):
        raise ValueError("a layout names each part once")
    return names


def _words(data: bytes, layout: Layout) -> SessionGrant:
    addresses: dict[str, Address] = {}
    token_id: int | None = None
    for name, start in zip(layout, range(0, len(data), _WORD), strict=False):
        word = data[start : start + _WORD]
        if len(word) < _WORD:
            break
        if name == "token_id":
            token_id = int.from_bytes(word, "big")
        elif name != "_" and not any(word[:12]):
            # A word with high bytes set is no address.
            addresses[name] = Address(word[12:])
    if "session_key" not in addresses:
        return SessionGrant()  # then this is not the layout
    return SessionGrant(
        addresses.get("session_key"),
        addresses.get("contract"),
        addresses.get("recipient"),
        token_id,
    )


def _abi_rules(data: bytes) -> SessionGrant:
    """Read the rules that ask for equality with the recipient or the id of a known call."""
    if len(data) < 20:
        return SessionGrant()
    grant = SessionGrant(session_key=Address(data[:20]))
    if len(data) < _RULES_AT:
        return grant
    wanted = dict(_equal_words(data))
    offsets = _MOVES.get(data[40:44])
    recipient = wanted.get(offsets[0]) if offsets is not None else None
    token_id = wanted.get(offsets[1]) if offsets is not None else None
    return SessionGrant(
        session_key=grant.session_key,
        contract=Address(data[20:40]),
        recipient=Address(recipient[12:]) if recipient is not None else None,
        token_id=int.from_bytes(token_id, "big") if token_id is not None else None,
    )


def _equal_words(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (calldata offset, wanted word) of each rule that asks for equality."""
    count = int.from_bytes(data[60:62], "big")
    for start in range(_RULES_AT, min(len(data), _RULES_AT + count * _RULE_BYTES), _RULE_BYTES):
        rule = data[start : start + _RULE_BYTES]
        if len(rule) == _RULE_BYTES and rule[2] == _EQUAL:
            yield int.from_bytes(rule[:2], "big"), rule[3:]
