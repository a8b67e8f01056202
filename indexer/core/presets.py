"""The chains and contracts known by name. Pure data; every value can be configured otherwise.

Source of the addresses: bcnmy/scw-contracts (salts of the deploy scripts), @biconomy/account 4.6.3
(constants), bcnmy/docs contracts.md. The contracts stand at the same address on every chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from indexer.core.types import Address


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text.removeprefix("0x")))


ENTRY_POINT_V06 = _address("0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789")
FACTORY_V2 = _address("0x000000a56Aaca3e9a4C479ea6b6CD0DbcB6634F5")
IMPLEMENTATION_200 = _address("0x0000002512019Dafb59528B82CB92D3c5D2423aC")

MANAGER_V1_0_1 = _address("0x000002FbFfedd9B33F4E7156F2DE8D48945E7489")
"""The SDK's default since September 2023 ("V1_0_1")."""
MANAGER_V1_0_0 = _address("0x000000456b395c4e107e0302553B90D1eF4a32e9")
"""The SDK's "V1_0_0" of August 2023, which early demos used."""
MANAGER_UNRELEASED = _address("0x000000D2767851a67dc5881B60B00eE01d17869a")
"""In the deploy script for three days of September 2023, in no SDK: not watched by default."""

MANAGERS = (MANAGER_V1_0_1, MANAGER_V1_0_0)
# BatchedSessionRouter, the SDK's default and the one before it.
ROUTERS = (
    _address("0x00000D09967410f8C76752A104c9848b57ebba55"),
    _address("0x000008dA71757C0E1D83CE56c823e25Aa49bC058"),
)
FACTORIES = (FACTORY_V2,)
ENTRY_POINTS = (ENTRY_POINT_V06,)
IMPLEMENTATIONS = (IMPLEMENTATION_200,)

OWNERSHIP_MODULES = (
    _address("0x0000001c5b32F37F5beA87BDD5374eB2aC54eA8e"),  # ECDSA registry
    _address("0x000000824dc138db84FD9109fc154bdad332Aa8E"),  # multichain ECDSA
    _address("0x00000c82d837331E2cbE997c241316A76364D7e9"),  # multi-owned ECDSA
    _address("0x000000C1f6dFCd41133D85aeCC91326dd74e220B"),  # smart contract registry
)
"""Modules that log OwnershipTransferred(smartAccount, oldOwner, newOwner)."""

MUMBAI_ERC1155 = _address("0x909E30bdBCb728131E3F8d17150eaE740C904649")
"""The collection of the Particle session key demo; only there on Mumbai."""

RETIRED: Mapping[int, str] = MappingProxyType(
    {
        80001: "Mumbai (80001) is retired, Amoy (80002) took its place; "
        "follow it from an archive node or a fork",
    }
)
"""By chain id: public chains that are gone, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What a chain's name stands for."""

    name: str
    chain_id: int
    erc1155: tuple[Address, ...] = ()


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset("mumbai", 80001, (MUMBAI_ERC1155,)),
            Preset("amoy", 80002),
            Preset("polygon", 137),
        )
    }
)
