"""The local chain plays the vendor's part for real: addresses, accounts, sessions, mints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.core.abi import keccak
from indexer.core.types import Address
from indexer.devnet import addresses as at
from indexer.devnet.accounts import SmartAccount, Transaction, root_of_set
from indexer.devnet.operations import (
    Call,
    Key,
    call_data,
    mint_call,
    open_session,
    seed_session,
    set_root_call,
)

VECTORS = Path(__file__).parent.parent / "vectors"
KEY = Key.named("a session key")


def bytes_of(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


async def test_everything_stands_at_its_public_address(devnet):
    """The addresses are those of the vectors, and each has code after the second block."""
    published = json.loads((VECTORS / "addresses.json").read_text())
    pairs = {
        "create2Proxy": at.CREATE2_DEPLOYER,
        "create3Deployer": at.CREATE3_DEPLOYER,
        "entryPointV06": at.ENTRY_POINT,
        "factoryV2": at.FACTORY,
        "factoryV1": at.FACTORY_V1,
        "implementation200": at.IMPLEMENTATION,
        "defaultFallbackHandler": at.FALLBACK_HANDLER,
        "ecdsaOwnershipModule": at.ECDSA_MODULE,
        "multichainModule": at.MULTICHAIN_MODULE,
    }
    found = {bytes_of(published[name]): address for name, address in pairs.items()}
    managers = [at.MANAGER, at.MANAGER_AUGUST, at.MANAGER_THIRD]
    found |= dict(zip(map(bytes_of, published["sessionKeyManagers"]), managers, strict=True))
    routers = [at.ROUTER, at.ROUTER_V1]
    found |= dict(zip(map(bytes_of, published["batchedSessionRouters"]), routers, strict=True))
    modules = [at.ERC20_SESSION_MODULE, at.ERC20_SESSION_MODULE_AUGUST]
    found |= dict(zip(map(bytes_of, published["erc20Svm"]), modules, strict=True))
    found[bytes_of(published["seed"]["erc1155"])] = at.SEED_TOKEN
    found[bytes_of(published["seed"]["validationModule"])] = at.SEED_SESSION_MODULE
    for wanted, address in found.items():
        assert wanted == address
        assert await devnet.rpc.code(address)
    assert await devnet.rpc.block_number() == 2
    assert not await devnet.rpc.code(at.FACTORY, 1), "a search for the first block finds one"
    assert bytes_of(published["slots"]["fallbackHandler"].split()[0]) == at.FALLBACK_HANDLER_SLOT


async def test_account_addresses_equal_public_ones(devnet):
    """The owner in Particle's documents has the account address given there."""
    owner = Key(b"", Address(bytes_of("c19dd1f3e212b39a30036EF3DE3F83dEf5a66E41")))
    expected = bytes_of("cbeba65449cBeF0DcfD4a63CDf4090fA1D4A9F63")
    assert devnet.account(owner).address == expected
    production = "b9231a15257f6be69c9afc3df98ae82ab64da5e3e39b8364f52eebaab321342c"
    assert keccak(devnet.proxy_creation_code[:-32]).hex() == production


async def test_the_factory_creates_where_it_was_computed(devnet):
    """The factory emits AccountCreation with the address computed offline."""
    for index in (0, 1, 2**200):
        account = devnet.account("owner", index)
        (log,) = (await devnet.create(account)).logs_of(at.FACTORY)
        assert bytes_of(log["topics"][1])[12:] == account.address
        assert bytes_of(log["topics"][2])[12:] == at.ECDSA_MODULE
        assert int(log["topics"][3], 16) == index
        assert await devnet.is_deployed(account)
        assert await devnet.is_module_enabled(account.address, at.ECDSA_MODULE)


async def test_an_undeployed_account_registers_sessions_in_one_operation(devnet):
    """initCode, enableModule and setMerkleRoot in one operation, with the hash we computed."""
    alice, sessions = devnet.account("alice"), [seed_session(KEY.address, KEY.address, 1)]
    op = await devnet.owner_op(
        alice,
        [
            Call(alice.address, call_data("enableModule(address)", at.MANAGER)),
            set_root_call(root_of_set(sessions)),
        ],
    )
    receipt = await devnet.send(devnet.bundle([op]))
    assert receipt.succeeded
    assert bytes_of(receipt.logs[-1]["topics"][1]) == op.hash()
    assert await devnet.root_of(at.MANAGER, alice.address) == root_of_set(sessions)
    assert await devnet.root_of(at.MANAGER, alice.address, 2) == bytes(32)
    assert not receipt.logs_of(at.MANAGER), "V1 emits nothing"


async def minted(devnet, account: SmartAccount, key: Key, sessions, index, to, token_id) -> bool:
    receipt = await devnet.mint_with_session(
        account, key, sessions, index, to=to, token_id=token_id
    )
    return receipt.succeeded


@pytest.mark.parametrize("manager", [at.MANAGER, at.MANAGER_AUGUST, at.EVENT_MANAGER])
async def test_a_session_key_mints_what_its_session_says_and_nothing_else(devnet, manager):
    """The seed document's story, and each way to go beyond the session is refused."""
    alice, other = devnet.account("alice"), Key.named("another key")
    sessions = [seed_session(KEY.address, KEY.address, i) for i in (1, 2, 3)]
    await devnet.register(alice, sessions, manager=manager)

    async def mint(key=KEY, index=0, to=KEY.address, token_id=1, proof_of=sessions):
        op = await devnet.session_op(
            alice, key, proof_of, index, mint_call(to, token_id, 1), manager=manager
        )
        return (await devnet.send(devnet.bundle([op]))).succeeded

    assert await mint()
    assert await mint(index=2, token_id=3)
    assert not await mint(token_id=2), "another token"
    assert not await mint(to=other.address), "another recipient"
    assert not await mint(key=other), "another key"
    assert not await mint(proof_of=sessions[:1]), "a set that is not on chain"
    assert await devnet.balance_of(at.SEED_TOKEN, KEY.address, 1) == 1
    assert await devnet.balance_of(at.SEED_TOKEN, KEY.address, 3) == 1


async def test_a_revoked_and_an_expired_session_are_refused(devnet):
    """A replaced root ends its sessions; a session ends by its own time."""
    alice = devnet.account("alice")
    block = await devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    soon = int(block["timestamp"], 16) + 1000
    sessions = [seed_session(KEY.address, KEY.address, 1, valid_until=soon)]
    await devnet.register(alice, sessions)
    assert await minted(devnet, alice, KEY, sessions, 0, KEY.address, 1)
    await devnet.rpc.set_next_timestamp(soon + 1)
    await devnet.rpc.mine()
    assert not await minted(devnet, alice, KEY, sessions, 0, KEY.address, 1)
    fresh = [seed_session(KEY.address, KEY.address, 1)]
    await devnet.register(alice, fresh)
    assert await minted(devnet, alice, KEY, fresh, 0, KEY.address, 1)
    await devnet.register(alice, sessions)
    assert not await minted(devnet, alice, KEY, fresh, 0, KEY.address, 1)


@pytest.mark.parametrize("router", [at.ROUTER, at.ROUTER_V1])
async def test_the_router_takes_one_session_for_each_call(devnet, router):
    """A batch signed for the router is accepted with its sessions, and not with swapped ones."""
    alice = devnet.account("alice")
    sessions = [seed_session(KEY.address, alice.address, i) for i in (1, 2)]
    await devnet.register(alice, sessions)
    await devnet.enable_module(alice, router)
    calls = [mint_call(alice.address, 1, 4), mint_call(alice.address, 2, 5)]
    for indexes, accepted in (([1, 0], False), ([0, 1], True)):
        op = await devnet.op(alice, calls)
        op = op.signed_by_router(KEY, sessions, indexes, router=router)
        assert (await devnet.send(devnet.bundle([op]))).succeeded == accepted
    assert await devnet.balance_of(at.SEED_TOKEN, alice.address, 2) == 5


async def test_a_session_key_of_an_open_module_replaces_the_root(devnet):
    """A module that permits every call lets its key rotate the root."""
    alice = devnet.account("alice")
    sessions, root = [open_session(KEY.address)], keccak(b"another root")
    await devnet.register(alice, sessions)
    op = await devnet.session_op(alice, KEY, sessions, 0, set_root_call(root))
    assert (await devnet.send(devnet.bundle([op]))).succeeded
    assert await devnet.root_of(at.MANAGER, alice.address) == root


async def test_a_paymaster_pays_and_a_wrong_owner_is_refused(devnet):
    """The paymaster stands in the event; a foreign signature reverts the bundle without a log."""
    alice = devnet.account("alice")
    op = replace(await devnet.op(alice, []), paymaster_and_data=at.OPEN_PAYMASTER)
    refused = await devnet.send(devnet.bundle([op.signed_by_owner(KEY)]))
    assert not refused.succeeded
    assert not refused.logs
    paid = await devnet.send(devnet.bundle([op.signed_by_owner(alice.owner)]))
    assert bytes_of(paid.logs[-1]["topics"][3])[12:] == at.OPEN_PAYMASTER


async def test_transactions_of_one_block_stay_in_order(devnet):
    """Sent together, transactions are mined together, and automine goes on afterwards."""
    alice = devnet.account("alice")
    await devnet.create(alice)
    ops = [await devnet.owner_op(alice, [], nonce_key=key) for key in (1, 2, 3)]
    receipts = await devnet.send_in_one_block([devnet.bundle([op]) for op in ops])
    assert len({receipt.block_hash for receipt in receipts}) == 1
    found = [bytes_of(receipt.logs[-1]["topics"][1]) for receipt in receipts]
    assert found == [op.hash() for op in ops]
    assert (await devnet.send(Transaction(at.STRANGER, value_wei=1))).succeeded


async def test_what_a_reorg_takes_can_be_done_again(devnet):
    """After a reorg the same calls build operations for the new branch."""
    alice, sessions = devnet.account("alice"), [seed_session(KEY.address, KEY.address, 1)]
    first = await devnet.register(alice, sessions)
    await devnet.rpc.reorg(1)
    assert await devnet.root_of(at.MANAGER, alice.address, first.block_number) == bytes(32)
    second = await devnet.register(alice, sessions)
    assert second.succeeded
    assert second.block_hash != first.block_hash
    assert await devnet.root_of(at.MANAGER, alice.address) == root_of_set(sessions)


def test_keys_never_show_their_secret():
    """The text of a key holds its address and nothing of the secret."""
    assert KEY.secret.hex() not in repr(KEY)
    assert str(KEY.secret) not in repr(KEY)
