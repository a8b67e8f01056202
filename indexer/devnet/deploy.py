"""Puts every contract of the local chain at its address, in two blocks.

The vendor's contracts get to their public addresses by the vendor's own ways: EntryPoint by CREATE2
with salt 0, the rest by CREATE3 with the salts published in scw-contracts, scripts/utils/index.ts.
Contracts without a constructor's memory are placed by anvil_setCode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from eth_abi.abi import encode
from eth_hash.auto import keccak

from indexer.core.types import Address
from indexer.devnet import addresses as at
from indexer.devnet.rpc import Rpc, hexed
from indexer.devnet.tools import Artifact, Toolchain
from indexer.errors import FatalError

_DEPLOY: Final = keccak(b"deploy(bytes32,bytes)")[:4]
_DEPOSIT_TO: Final = keccak(b"depositTo(address)")[:4]
_PAYMASTER_DEPOSIT_WEI: Final = 10**21

CREATE3_SALTS: Final[Sequence[tuple[str, str, Address]]] = (
    ("SmartAccount", "PROD_WALLET_IMP_V2_05092023_ixWZVOM", at.IMPLEMENTATION),
    ("SmartAccountFactory", "PROD_WALLET_FACTORY_V2_0509023SexZu7Y", at.FACTORY),
    (
        "EcdsaOwnershipRegistryModule",
        "PROD_ECDSA_REGISTRY_MODULE_V1_22082023_ypI3tHh",
        at.ECDSA_MODULE,
    ),
    (
        "MultichainECDSAValidator",
        "PROD_MULTICHAIN_VALIDATOR_MODULE_V1_22082023_vdQZbfh",
        at.MULTICHAIN_MODULE,
    ),
    ("SessionKeyManager", "PROD_SESSION_KEY_MANAGER_MODULE_V2_02092023_lgskxU1", at.MANAGER),
    (
        "SessionKeyManager",
        "PROD_SESSION_KEY_MANAGER_MODULE_V1_22082023_o3aiYAr",
        at.MANAGER_AUGUST,
    ),
    ("SessionKeyManager", "PROD_SESSION_KEY_MANAGER_MODULE_V2_05092023_N2WXNDk", at.MANAGER_THIRD),
    # The package holds one router. Both public addresses get it: their calldata is the same.
    ("BatchedSessionRouter", "PROD_BATCHED_SESSION_ROUTER_MODULE_V3_soDi8rh", at.ROUTER),
    ("BatchedSessionRouter", "PROD_BATCHED_SESSION_ROUTER_MODULE_V1_JwFzn0L", at.ROUTER_V1),
    (
        "ERC20SessionValidationModule",
        "PROD_ERC20_SESSION_VALIDATION_MODULE_V2_05092023NdquNFM",
        at.ERC20_SESSION_MODULE,
    ),
    (
        "ERC20SessionValidationModule",
        "PROD_ERC20_SESSION_VALIDATION_MODULE_V1_22082023_QCLznax",
        at.ERC20_SESSION_MODULE_AUGUST,
    ),
    ("MultiSend", "PROD_MULTI_SEND_V0_30032023", at.MULTI_SEND),
)
"""(contract, salt text, the address it must land on)."""

_PLACED: Final[Sequence[tuple[str, Address]]] = (
    ("Deployer", at.CREATE3_DEPLOYER),
    ("SeedToken", at.SEED_TOKEN),
    ("SeedToken", at.SECOND_TOKEN),
    ("SeedSessionModule", at.SEED_SESSION_MODULE),
    ("EventManager", at.EVENT_MANAGER),
    ("OpenSessionModule", at.OPEN_SESSION_MODULE),
    ("OpenPaymaster", at.OPEN_PAYMASTER),
    ("BundlerWrapper", at.BUNDLER_WRAPPER),
    ("OpaqueForwarder", at.OPAQUE_FORWARDER),
    ("PuppetModule", at.PUPPET_MODULE),
    ("RootLibrary", at.ROOT_LIBRARY),
    ("RootHelper", at.ROOT_HELPER),
    ("Airdrop", at.AIRDROP),
    ("LogEmitter", at.LOG_EMITTER),
    ("LogEmitter", at.HOSTILE_TOKEN),
    ("LogEmitter", at.FACTORY_V1),
    ("EvilImplementation", at.EVIL_IMPLEMENTATION),
    ("CustomFactory", at.CUSTOM_FACTORY),
)


async def deploy(rpc: Rpc, tools: Toolchain) -> None:
    """Deploy everything on an empty chain; about 0.2 s, two blocks.

    Block 1 is empty, so that a search for the first block with code finds something. Raises
    FatalError if a contract did not land on its public address.
    """
    contracts = tools.contracts
    await rpc.mine()
    await rpc.batch(
        [
            ("anvil_setCode", [hexed(address), hexed(contracts[name].runtime_code)])
            for name, address in _PLACED
        ]
    )
    sender = Address(bytes.fromhex((await rpc.call("eth_accounts"))[0][2:]))
    async with rpc.without_automine():
        for to, data, value in _transactions(contracts, sender):
            # Gas close to the need: the node fills a block by limits, not by what is used.
            gas = 300_000 + 260 * len(data)
            await rpc.send(sender, to, data, value=value, gas=gas)
        await rpc.mine()
    await _verify(rpc)


def _transactions(
    contracts: Mapping[str, Artifact], owner: Address
) -> list[tuple[Address, bytes, int]]:
    """Return (to, data, wei) in order."""
    arguments = {
        "SmartAccount": encode(["address"], [at.ENTRY_POINT]),
        "SmartAccountFactory": encode(["address", "address"], [at.IMPLEMENTATION, owner]),
    }
    found = [(at.CREATE2_DEPLOYER, bytes(32) + contracts["EntryPoint"].creation_code, 0)]
    for name, salt, _ in CREATE3_SALTS:
        code = contracts[name].creation_code + arguments.get(name, b"")
        call = _DEPLOY + encode(["bytes32", "bytes"], [keccak(salt.encode()), code])
        found.append((at.CREATE3_DEPLOYER, call, 0))
    deposit = _DEPOSIT_TO + encode(["address"], [at.OPEN_PAYMASTER])
    found.append((at.ENTRY_POINT, deposit, _PAYMASTER_DEPOSIT_WEI))
    return found


async def _verify(rpc: Rpc) -> None:
    wanted = {
        "EntryPoint": at.ENTRY_POINT,
        "DefaultCallbackHandler": at.FALLBACK_HANDLER,
        **{salt: address for _, salt, address in CREATE3_SALTS},
    }
    codes = await rpc.batch(
        [("eth_getCode", [hexed(address), "latest"]) for address in wanted.values()]
    )
    missing = [name for name, code in zip(wanted, codes, strict=True) if code == "0x"]
    if missing:
        raise FatalError(f"not at their public addresses: {', '.join(missing)}")
