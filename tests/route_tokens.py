"""The steps that move ERC-1155 tokens: by session keys, by owners, by strangers, and by liars."""

from __future__ import annotations

from eth_abi.abi import encode

from indexer.core.types import Address
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Transaction
from indexer.devnet.operations import Call, call_data, mint_call, seed_session
from tests.route_decoys import padded, topic
from tests.routes import Stage, StepFunction

TRANSFER_SINGLE = topic("TransferSingle(address,address,address,uint256,uint256)")
TRANSFER_BATCH = topic("TransferBatch(address,address,address,uint256[],uint256[])")
URI = topic("URI(string,uint256)")
APPROVAL_FOR_ALL = topic("ApprovalForAll(address,address,bool)")


async def session_mint(s: Stage) -> None:
    """The seed document's story: a session key mints its token, and no other."""
    alice, key = await s.ready("alice"), s.key("mint")
    sessions = [seed_session(key.address, key.address, i) for i in (1, 2, 3)]
    await s.ensure_registered("set for minting", alice, sessions)
    s.hold(at.SEED_TOKEN, [key.address], [1, 2, 3])
    for index, amount in ((0, 1), (2, 10)):
        call = mint_call(key.address, index + 1, amount)
        op = await s.devnet.session_op(alice, key, sessions, index, call)
        assert (await s.devnet.send(s.devnet.bundle([op]))).succeeded
        s.report.session_ops.append(op.hash())
    refused = await s.devnet.mint_with_session(alice, key, sessions, 0, to=key.address, token_id=2)
    assert not refused.succeeded


async def session_mint_by_event_manager(s: Stage) -> None:
    """The same with the manager that emits an event."""
    bob, key = await s.ready("bob"), s.key("event mint")
    sessions = [seed_session(key.address, bob.address, 6)]
    await s.ensure_registered("set for minting", bob, sessions, manager=at.EVENT_MANAGER)
    s.hold(at.SEED_TOKEN, [bob.address], [6])
    call = mint_call(bob.address, 6, 3)
    op = await s.devnet.session_op(bob, key, sessions, 0, call, manager=at.EVENT_MANAGER)
    assert (await s.devnet.send(s.devnet.bundle([op]))).succeeded
    s.report.session_ops.append(op.hash())


async def router_mints(s: Stage) -> None:
    """Two mints in one batch, each under a session of its own, signed for the router."""
    carol, key = await s.ready("carol", at.ROUTER), s.key("router")
    sessions = [seed_session(key.address, carol.address, i) for i in (4, 5)]
    await s.ensure_registered("set for the router", carol, sessions)
    s.hold(at.SEED_TOKEN, [carol.address], [4, 5])
    op = await s.devnet.op(carol, [mint_call(carol.address, 5, 2), mint_call(carol.address, 4, 1)])
    op = op.signed_by_router(key, sessions, [1, 0])
    assert (await s.devnet.send(s.devnet.bundle([op]))).succeeded
    s.report.session_ops.append(op.hash())


async def batch_mint(s: Stage) -> None:
    """A batch may name a token twice and an amount of zero."""
    alice, bob = await s.ready("alice"), await s.ready("bob")
    s.hold(at.SEED_TOKEN, [alice.address, bob.address], [1, 2])
    signature = "mintBatchTo(address,uint256[],uint256[])"
    by_stranger = call_data(signature, alice.address, [1, 1, 2], [5, 0, 7])
    await s.devnet.send(Transaction(at.SEED_TOKEN, by_stranger, sender=at.STRANGER))
    by_owner = Call(at.SEED_TOKEN, call_data(signature, bob.address, [2, 1, 2], [1, 2, 3]))
    assert (await s.devnet.submit(bob, [by_owner])).succeeded


async def transfers(s: Stage) -> None:
    """A transfer, a transfer to oneself, a batch, an approval and its use."""
    alice, bob = await s.ready("alice"), await s.ready("bob")
    token, a, b = at.SEED_TOKEN, alice.address, bob.address
    one = "safeTransferFrom(address,address,uint256,uint256,bytes)"
    many = "safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)"
    calls = [
        mint_call(a, 7, 10),
        mint_call(a, 8, 20),
        Call(token, call_data(one, a, b, 7, 4, b"")),
        Call(token, call_data(one, a, a, 7, 6, b"")),
        Call(token, call_data(many, a, b, [8, 8, 7], [1, 2, 0], b"")),
        Call(token, call_data("setApprovalForAll(address,bool)", at.STRANGER, True)),
    ]
    s.hold(token, [a, b, at.STRANGER], [7, 8])
    assert (await s.devnet.submit(alice, calls)).succeeded
    taken = call_data(one, a, at.STRANGER, 7, 1, b"")
    assert (await s.devnet.send(Transaction(token, taken, sender=at.STRANGER))).succeeded


async def burns(s: Stage) -> None:
    """Minted and burnt in one operation, singly and in a batch."""
    dave = await s.ready("dave")
    single = call_data("burn(address,uint256,uint256)", dave.address, 11, 3)
    batch = call_data("burnBatch(address,uint256[],uint256[])", dave.address, [11, 11], [1, 2])
    calls = [mint_call(dave.address, 11, 9), Call(at.SEED_TOKEN, single)]
    s.hold(at.SEED_TOKEN, [dave.address], [11])
    assert (await s.devnet.submit(dave, [*calls, Call(at.SEED_TOKEN, batch)])).succeeded


async def huge_numbers(s: Stage) -> None:
    """A token id and an amount that no 64-bit column holds."""
    erin, token_id = await s.ready("erin"), 2**256 - 1
    s.hold(at.SEED_TOKEN, [erin.address], [token_id])
    calls = [mint_call(erin.address, token_id, 2**250)]
    assert (await s.devnet.submit(erin, calls)).succeeded


async def second_contract(s: Stage) -> None:
    """A contract that nobody configured, between the same accounts."""
    alice = await s.ready("alice")
    s.hold(at.SECOND_TOKEN, [alice.address], [1])
    calls = [mint_call(alice.address, 1, 99, at.SECOND_TOKEN)]
    assert (await s.devnet.submit(alice, calls)).succeeded


async def names(s: Stage) -> None:
    """A URI as usual."""
    data = call_data("setUri(string,uint256)", "ipfs://seed/{id}.json", 1)
    await s.devnet.send(Transaction(at.SEED_TOKEN, data, sender=at.STRANGER))


async def hostile(s: Stage) -> None:
    """Logs of an ERC-1155 that cannot be true or cannot be decoded; see HOSTILE_TOKEN."""
    alice = await s.ready("alice")
    a, nobody = padded(alice.address), bytes(32)
    most = 2**256 - 1
    arrays = encode(["uint256[]", "uint256[]"], [[1, 2, 3], [most, most]])
    logs: list[tuple[list[bytes], bytes]] = [
        ([TRANSFER_SINGLE, a, nobody, a], encode(["uint256", "uint256"], [1, most])),
        ([TRANSFER_SINGLE, a, nobody, a], encode(["uint256", "uint256"], [1, most])),
        ([TRANSFER_SINGLE, a, a, nobody], encode(["uint256", "uint256"], [2, most])),
        ([TRANSFER_SINGLE, a, nobody, a], b"short"),
        ([TRANSFER_SINGLE, b"\xff" * 32, nobody, a], encode(["uint256", "uint256"], [1, 1])),
        ([TRANSFER_SINGLE, a, nobody], encode(["uint256", "uint256"], [1, 1])),
        ([TRANSFER_BATCH, a, nobody, a], arrays),
        ([TRANSFER_BATCH, a, nobody, a], most.to_bytes(32) + (64).to_bytes(32)),
        ([TRANSFER_BATCH, a, nobody, a], (64).to_bytes(32) * 2 + most.to_bytes(32)),
        ([TRANSFER_BATCH, a, nobody, a], encode(["uint256[]", "uint256[]"], [[], []])),
        ([URI, nobody], encode(["string"], ["a\x00b"])),
        ([URI, nobody], encode(["bytes"], [b"\xff\xfe not UTF-8"])),
        ([URI, nobody], (32).to_bytes(32) + most.to_bytes(32)),
        ([APPROVAL_FOR_ALL, a, a], (2).to_bytes(32)),
    ]
    for topics, data in logs:
        await _emit(s, at.HOSTILE_TOKEN, call_data("emitLog(bytes32[],bytes)", topics, data))
    for fill in (b"A", b"\x00"):
        size = call_data("emitUri(uint256,uint256,bytes1)", 1, 100_000, fill)
        await _emit(s, at.HOSTILE_TOKEN, size)


async def _emit(s: Stage, contract: Address, data: bytes) -> None:
    transaction = Transaction(contract, data, sender=at.STRANGER, gas=12_000_000)
    assert len((await s.devnet.send(transaction)).logs) == 1


TOKENS: dict[str, StepFunction] = {
    "session mint": session_mint,
    "session mint, manager with event": session_mint_by_event_manager,
    "router mints": router_mints,
    "batch mint": batch_mint,
    "transfers": transfers,
    "burns": burns,
    "huge numbers": huge_numbers,
    "second contract": second_contract,
    "names": names,
    "hostile token": hostile,
}
