"""Where everything stands on the local chain: the vendor's public addresses, and our own."""

from __future__ import annotations

from typing import Final

from eth_hash.auto import keccak

from indexer.core.types import Address


def _at(text: str) -> Address:
    return Address(bytes.fromhex(text.removeprefix("0x")))


def _own(name: str) -> Address:
    """Return the address of a contract of our own: 20 bytes of the hash of its name."""
    return Address(keccak(f"sessionwatch devnet {name}".encode())[12:])


CREATE2_DEPLOYER: Final = _at("0x4e59b44847b379578588920cA78FbF26c0B4956C")
CREATE3_DEPLOYER: Final = _at("0x988C135a1049Ce61730724afD342fb7C56CD2776")

ENTRY_POINT: Final = _at("0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789")
IMPLEMENTATION: Final = _at("0x0000002512019Dafb59528B82CB92D3c5D2423aC")
FACTORY: Final = _at("0x000000a56Aaca3e9a4C479ea6b6CD0DbcB6634F5")
FALLBACK_HANDLER: Final = _at("0x0bBa6d96BD616BedC6BFaa341742FD43c60b83C1")
FACTORY_V1: Final = _at("0x000000F9eE1842Bb72F6BBDD75E6D3d4e3e9594C")
"""The factory of SmartAccount 1: here a LogEmitter, for foreign logs of the same topic."""

ECDSA_MODULE: Final = _at("0x0000001c5b32F37F5beA87BDD5374eB2aC54eA8e")
MULTICHAIN_MODULE: Final = _at("0x000000824dc138db84FD9109fc154bdad332Aa8E")
ROUTER: Final = _at("0x00000D09967410f8C76752A104c9848b57ebba55")
ROUTER_V1: Final = _at("0x000008dA71757C0E1D83CE56c823e25Aa49bC058")
ERC20_SESSION_MODULE: Final = _at("0x000000D50C68705bd6897B2d17c7de32FB519fDA")
ERC20_SESSION_MODULE_AUGUST: Final = _at("0x000000dB3D753A1da5A6074a9F74F39a0A779d33")
MULTI_SEND: Final = _at("0x072B87Dc4C439AD75748EA73cb120e06ee000E8a")

MANAGER: Final = _at("0x000002FbFfedd9B33F4E7156F2DE8D48945E7489")
"""SessionKeyManager V1, the vendor SDK's default. Emits nothing."""
MANAGER_AUGUST: Final = _at("0x000000456b395c4e107e0302553B90D1eF4a32e9")
MANAGER_THIRD: Final = _at("0x000000D2767851a67dc5881B60B00eE01d17869a")

SEED_TOKEN: Final = _at("0x909E30bdBCb728131E3F8d17150eaE740C904649")
SEED_SESSION_MODULE: Final = _at("0x8E09744b738e9Fec4A4df7Ab5621f1857F6Fa175")

EVENT_MANAGER: Final = _own("EventManager")
"""Behaves like manager 1.1.0: the same slots, and MerkleRootUpdated with nothing indexed."""
OPEN_SESSION_MODULE: Final = _own("OpenSessionModule")
OPEN_PAYMASTER: Final = _own("OpenPaymaster")
BUNDLER_WRAPPER: Final = _own("BundlerWrapper")
OPAQUE_FORWARDER: Final = _own("OpaqueForwarder")
PUPPET_MODULE: Final = _own("PuppetModule")
ROOT_LIBRARY: Final = _own("RootLibrary")
ROOT_HELPER: Final = _own("RootHelper")
AIRDROP: Final = _own("Airdrop")
LOG_EMITTER: Final = _own("LogEmitter")
HOSTILE_TOKEN: Final = _own("HostileToken")
"""A LogEmitter that plays an ERC-1155 whose logs cannot be true or cannot be decoded."""
SECOND_TOKEN: Final = _own("SecondToken")
"""A SeedToken at an address that no configuration names."""
EVIL_IMPLEMENTATION: Final = _own("EvilImplementation")
CUSTOM_FACTORY: Final = _own("CustomFactory")

BUNDLER: Final = _at("0x70997970C51812dc3A010C7d01b50e0d17dc79C8")
"""The unlocked address that hands in operations."""
STRANGER: Final = _at("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC")
"""An unlocked address that owns nothing."""

FALLBACK_HANDLER_SLOT: Final = bytes.fromhex(
    "6c9a6c4a39284e37ed1cf53d337577d14212a4870fb976a4366c693b939918d4"
)
"""The account's own slot that holds its fallback handler."""
