"""Where a SmartAccount 2.0.0 keeps what is read of it: pure arithmetic over storage slots.

Source: bcnmy/scw-contracts, Proxy.sol, FallbackManager.sol and ModuleManager.sol; the compiler's
storage layout of SmartAccount puts `_modules` (address to address) at slot 0. Where a manager keeps
the root of an account is in core/merkle.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from indexer.core.abi import keccak
from indexer.core.types import ZERO_ADDRESS, Address, Hash32

SENTINEL_MODULE: Final = Address(bytes(19) + b"\x01")
"""Head and end of the account's linked list of modules; itself not a module."""
FALLBACK_HANDLER_SLOT: Final = Hash32(
    bytes.fromhex("6c9a6c4a39284e37ed1cf53d337577d14212a4870fb976a4366c693b939918d4")
)
"""In the account: the contract that answers calls the account has no function for."""
_MODULES_SLOT: Final = bytes(32)


def implementation_slot(account: Address) -> Hash32:
    """Return the slot in the account's proxy that holds its implementation: its own address."""
    return Hash32(account.rjust(32, b"\0"))


@lru_cache(maxsize=256)
def module_slot(module: Address) -> Hash32:
    """Return the slot in an account that is non-zero while `module` is enabled there.

    It holds the next module of a linked list, so its value changes when a neighbour does.
    """
    return keccak(module.rjust(32, b"\0") + _MODULES_SLOT)


def address_in(word: Hash32) -> Address:
    """Return the address a storage word holds; zero if the word holds something wider."""
    return ZERO_ADDRESS if any(word[:12]) else Address(word[12:])
