"""The steps that look like a root change and are none: each must leave every root as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak

from indexer.core.types import ZERO_HASH, Address
from indexer.devnet import addresses as at
from indexer.devnet.accounts import SmartAccount, Transaction
from indexer.devnet.operations import Call, Key, UserOp, call_data, mint_call, set_root_call
from tests.routes import Stage, StepFunction

_SET = "set(address,bytes32)"


def topic(form: str) -> bytes:
    """Return topic0 of an event given as `Name(type,type)`."""
    return keccak(form.encode())


def padded(address: Address) -> bytes:
    """Return an address as a 32-byte word."""
    return bytes(12) + address


USER_OPERATION_EVENT = topic(
    "UserOperationEvent(bytes32,address,address,uint256,bool,uint256,uint256)"
)


async def _failed(s: Stage, name: str, calls: list[Call], **changes: Any) -> None:
    """Send an operation that is executed and fails: success=false, nothing remains of it."""
    account = await s.ready(name)
    op = replace(await s.devnet.op(account, calls), **changes)
    receipt = await s.devnet.send(s.devnet.bundle([op.signed_by_owner(account.owner)]))
    assert receipt.succeeded
    event = receipt.logs_of(at.ENTRY_POINT)[-1]
    assert event["topics"][0] == f"0x{USER_OPERATION_EVENT.hex()}"
    assert int(event["data"][66:130], 16) == 0, "the operation was meant to fail"


async def set_and_back(s: Stage) -> None:
    """One operation sets a root and then the old one again: a root only inside the block."""
    alice = await s.ready("alice")
    now = await s.devnet.root_of(at.MANAGER, alice.address)
    passing = s.new_root(alice, "07 passing")
    receipt = await s.devnet.submit(alice, [set_root_call(passing), set_root_call(now)])
    assert receipt.succeeded


async def set_and_back_in_one_block(s: Stage) -> None:
    """Two transactions of one block set a root and the old one again."""
    bob = await s.ready("bob", at.PUPPET_MODULE)
    now = await s.devnet.root_of(at.MANAGER, bob.address)
    passing = s.new_root(bob, "passing in one block")
    op = await s.devnet.owner_op(bob, [set_root_call(passing)])
    back = s.puppet(bob, at.MANAGER, set_root_call(now).data)
    receipts = await s.devnet.send_in_one_block([s.devnet.bundle([op]), back])
    assert receipts[0].block_number == receipts[1].block_number


async def value_refused(s: Stage) -> None:
    """The manager takes no ether."""
    call = set_root_call(s.new_root(await s.ready("alice"), "12"))
    await _failed(s, "alice", [replace(call, value_wei=1)])


async def later_call_reverts(s: Stage) -> None:
    """A later call of the batch reverts, and takes the root back."""
    call = set_root_call(s.new_root(await s.ready("bob"), "13"))
    await _failed(s, "bob", [call, Call(at.MANAGER, call_data("noSuchFunction()"))])


async def out_of_gas(s: Stage) -> None:
    """The operation's gas ends before the manager is reached."""
    call = set_root_call(s.new_root(await s.ready("carol"), "14"))
    await _failed(s, "carol", [call], call_gas_limit=3_000)


async def post_op_reverts(s: Stage) -> None:
    """The call succeeded, then the paymaster's postOp reverts and takes it back."""
    call = set_root_call(s.new_root(await s.ready("dave"), "15"))
    await _failed(s, "dave", [call], paymaster_and_data=at.OPEN_PAYMASTER + b"\x01")


async def truncated(s: Stage) -> None:
    """One byte of the root is missing."""
    call = set_root_call(s.new_root(await s.ready("dave"), "20"))
    await _failed(s, "dave", [replace(call, data=call.data[:-1])])


async def setup_and_enable(s: Stage) -> None:
    """Set up as a module, the manager returns no address: all of it reverts."""
    alice = await s.ready("alice")
    data = set_root_call(s.new_root(alice, "32")).data
    setup = call_data("setupAndEnableModule(address,bytes)", at.MANAGER, data)
    await _failed(s, "alice", [Call(alice.address, setup)])


async def bundle_reverts(s: Stage) -> None:
    """One wrong signature: the whole transaction is reverted, and there is no log."""
    alice, bob = await s.ready("alice"), await s.ready("bob")
    ops: list[UserOp] = []
    for account, owner in ((alice, alice.owner), (bob, Key.named("nobody"))):
        root = s.new_root(account, "16")
        op = await s.devnet.op(account, [set_root_call(root)])
        ops.append(op.signed_by_owner(owner))
    receipt = await s.devnet.send(s.devnet.bundle(ops))
    assert not receipt.succeeded
    assert not receipt.logs


async def foreign_aggregator(s: Stage) -> None:
    """An aggregator that the account did not ask for: AA24, all is reverted."""
    carol = await s.ready("carol")
    op = await s.devnet.owner_op(carol, [set_root_call(s.new_root(carol, "45"))])
    bundle = s.devnet.aggregated_bundle([op], aggregator=at.ROOT_HELPER)
    assert not (await s.devnet.send(bundle)).succeeded


async def factory_setup(s: Stage) -> None:
    """The vendor's factory with the manager as the module to set up: reverted."""
    data = set_root_call(keccak(b"33")).data
    make = call_data("deployCounterFactualAccount(address,bytes,uint256)", at.MANAGER, data, s.seed)
    assert not (await s.devnet.send(Transaction(at.FACTORY, make))).succeeded


async def helper_sets_its_own(s: Stage) -> None:
    """The account calls a helper, which sets the helper's root."""
    alice = await s.ready("alice")
    call = Call(at.ROOT_HELPER, call_data(_SET, at.MANAGER, s.new_root(alice, "17")))
    assert (await s.devnet.submit(alice, [call])).succeeded
    assert await s.devnet.root_of(at.MANAGER, at.ROOT_HELPER) != ZERO_HASH


async def stranger_sets_its_own(s: Stage) -> None:
    """A plain address calls the manager: that is its own root."""
    data = set_root_call(keccak(f"18 {s.seed}".encode())).data
    receipt = await s.devnet.send(Transaction(at.MANAGER, data, sender=at.STRANGER))
    assert receipt.succeeded


async def same_selector(s: Stage) -> None:
    """Another contract with the same selector and the event of manager 1.1.0."""
    carol = await s.ready("carol")
    call = set_root_call(s.new_root(carol, "21"), at.AIRDROP)
    receipt = await s.devnet.submit(carol, [call])
    assert receipt.logs_of(at.AIRDROP)


async def unwatched_manager(s: Stage) -> None:
    """A manager of the same code that nobody watches."""
    dave = await s.ready("dave")
    root = s.new_root(dave, "unwatched", manager=at.MANAGER_THIRD)
    assert (await s.devnet.submit(dave, [set_root_call(root, at.MANAGER_THIRD)])).succeeded


async def module_call_fails(s: Stage) -> None:
    """The module's call runs out of gas: ExecutionFailure, the transaction succeeds."""
    alice = await s.ready("alice", at.PUPPET_MODULE)
    data = set_root_call(s.new_root(alice, "27")).data
    receipt = await s.devnet.send(s.puppet(alice, at.MANAGER, data, gas=3_000))
    failure = topic("ExecutionFailure(address,uint256,bytes,uint8,uint256)")
    assert receipt.logs[0]["topics"][0] == f"0x{failure.hex()}"


async def library_call_fails(s: Stage) -> None:
    """ExecutionSuccess, though the library's call to the manager failed inside."""
    bob = await s.ready("bob", at.PUPPET_MODULE)
    root = s.new_root(bob, "28")
    data = call_data("setWithoutGas(address,bytes32)", at.MANAGER, root)
    receipt = await s.devnet.send(s.puppet(bob, at.ROOT_LIBRARY, data, delegate=True))
    assert len(receipt.logs_of(bob.address)) == 1


async def delegatecall_to_manager(s: Stage) -> None:
    """The manager's code runs in the account's storage: ExecutionSuccess(to=manager), no change."""
    carol = await s.ready("carol", at.PUPPET_MODULE)
    data = set_root_call(s.new_root(carol, "delegatecall")).data
    receipt = await s.devnet.send(s.puppet(carol, at.MANAGER, data, delegate=True))
    assert receipt.logs_of(carol.address)


async def same_value(s: Stage) -> None:
    """The root that is there is written again."""
    carol = await s.ready("carol")
    now = await s.devnet.root_of(at.MANAGER, carol.address)
    assert (await s.devnet.submit(carol, [set_root_call(now)])).succeeded


async def manager_switched_off_and_on(s: Stage) -> None:
    """disableModule(manager) leaves the root; so does enabling it again."""
    bob = await s.ready("bob", at.MANAGER)
    sentinel = Address(bytes(19) + b"\x01")
    answer = await s.devnet.rpc.eth_call(
        bob.address, call_data("getModulesPaginated(address,uint256)", sentinel, 20)
    )
    words = [answer[i : i + 32] for i in range(0, len(answer), 32)]
    modules = [sentinel, *(Address(word[12:]) for word in words[3:])]
    before = modules[modules.index(at.MANAGER) - 1]
    off = call_data("disableModule(address,address)", before, at.MANAGER)
    assert (await s.devnet.submit(bob, [Call(bob.address, off)])).succeeded
    await s.devnet.enable_module(bob, at.MANAGER)


async def foreign_events(s: Stage) -> None:
    """The events we watch, from contracts that are not ours, in right and wrong forms."""
    alice = await s.ready("alice")
    who, word = padded(alice.address), encode(["uint256"], [1])
    root_event = topic("MerkleRootUpdated(address,bytes32)")
    creation = topic("AccountCreation(address,address,uint256)")
    enabled = topic("EnabledModule(address)")
    executed = topic("ExecutionSuccess(address,uint256,bytes,uint8,uint256)")
    operation = encode(["uint256", "bool", "uint256", "uint256"], [0, True, 1, 1])
    logs: list[tuple[Address, list[bytes], bytes]] = [
        (at.LOG_EMITTER, [USER_OPERATION_EVENT, keccak(b"x"), who, bytes(32)], operation),
        (at.LOG_EMITTER, [USER_OPERATION_EVENT, who], operation),
        (at.LOG_EMITTER, [USER_OPERATION_EVENT], b""),
        (at.FACTORY_V1, [creation, who, padded(at.STRANGER), bytes(32)], b""),
        (at.LOG_EMITTER, [creation, who, padded(at.ECDSA_MODULE), bytes(32)], b""),
        (at.LOG_EMITTER, [creation, who], word),
        (at.LOG_EMITTER, [root_event], who + keccak(b"21")),
        (at.LOG_EMITTER, [root_event, who], keccak(b"21")),
        (at.LOG_EMITTER, [enabled, padded(at.MANAGER)], b""),
        (at.LOG_EMITTER, [executed, padded(at.MANAGER), bytes(32), keccak(b"d")], word * 2),
        (at.LOG_EMITTER, [], b"a log without topics"),
    ]
    for address, topics, data in logs:
        call = call_data("emitLog(bytes32[],bytes)", topics, data)
        receipt = await s.devnet.send(Transaction(address, call, sender=at.STRANGER))
        assert len(receipt.logs) == 1


async def own_events_in_wrong_form(s: Stage) -> None:
    """Events of an account itself with topics that are not the vendor's, as Safe's are."""
    tom = await s.ready("tom", at.PUPPET_MODULE)
    who = padded(at.MANAGER)
    for topics, data in (
        ([topic("EnabledModule(address)"), who], b""),
        ([topic("DisabledModule(address)"), who], b""),
        ([topic("ImplementationUpdated(address,address)"), who], who),
        ([topic("ChangedFallbackHandler(address,address)")], b"\x01"),
        ([topic("ExecutionSuccess(address,uint256,bytes,uint8,uint256)"), who], b""),
        ([USER_OPERATION_EVENT, keccak(b"x"), padded(tom.address), bytes(32)], b"short"),
    ):
        call = call_data("emitLog(bytes32[],bytes)", topics, data)
        receipt = await s.devnet.send(s.puppet(tom, at.ROOT_LIBRARY, call, delegate=True))
        assert len(receipt.logs) == 2


async def planned_only(s: Stage) -> None:
    """Root, selector, manager and account are in a transaction's input, and nothing happens."""
    erin = await s.ready("erin")
    data = set_root_call(s.new_root(erin, "only planned")).data
    plan = call_data("plan(address,address,bytes)", erin.address, at.MANAGER, data)
    assert (await s.devnet.send(Transaction(at.PUPPET_MODULE, plan))).succeeded
    # Taken back: the next validation by this module would carry it out.
    nothing = call_data("plan(address,address,bytes)", erin.address, bytes(20), b"")
    assert (await s.devnet.send(Transaction(at.PUPPET_MODULE, nothing))).succeeded


async def mint_in_operation(s: Stage) -> None:
    """An operation that only mints."""
    bob = await s.ready("bob")
    s.hold(at.SEED_TOKEN, [bob.address], [42])
    assert (await s.devnet.submit(bob, [mint_call(bob.address, 42, 5)])).succeeded


async def ether_received(s: Stage) -> None:
    """An account receives ether, and empty blocks are mined."""
    account: SmartAccount = await s.ready("alice")
    await s.devnet.send(Transaction(account.address, sender=at.STRANGER, value_wei=12345))
    await s.devnet.rpc.mine(2)


DECOYS: dict[str, StepFunction] = {
    "07 set and back": set_and_back,
    "07 set and back in one block": set_and_back_in_one_block,
    "12 value refused": value_refused,
    "13 later call reverts": later_call_reverts,
    "14 out of gas": out_of_gas,
    "15 postOp reverts": post_op_reverts,
    "16 bundle reverts": bundle_reverts,
    "17 helper": helper_sets_its_own,
    "18 stranger": stranger_sets_its_own,
    "20 truncated": truncated,
    "21 same selector": same_selector,
    "27 module call fails": module_call_fails,
    "28 library call fails": library_call_fails,
    "32 setupAndEnableModule": setup_and_enable,
    "33 factory set-up": factory_setup,
    "42 mint": mint_in_operation,
    "44 same value": same_value,
    "45 aggregator": foreign_aggregator,
    "delegatecall to the manager": delegatecall_to_manager,
    "unwatched manager": unwatched_manager,
    "manager off and on": manager_switched_off_and_on,
    "foreign events": foreign_events,
    "own events in a wrong form": own_events_in_wrong_form,
    "planned only": planned_only,
    "ether": ether_received,
}
