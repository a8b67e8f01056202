"""The steps that change roots, numbered as in vectors/root_change_scenarios.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eth_abi.packed import encode_packed

from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Receipt, SmartAccount, Transaction
from indexer.devnet.operations import (
    Call,
    CallForm,
    Key,
    call_data,
    mint_call,
    open_session,
    seed_session,
    set_root_call,
)
from tests.foreign_accounts import foreign_address, make_foreign
from tests.routes import NAMES, Stage, StepFunction

_SET = "set(address,bytes32)"


async def create_accounts(s: Stage) -> None:
    """Accounts made by the factory alone, without an operation; frank and gina come later."""
    for name in NAMES:
        if name not in {"frank", "gina"}:
            await s.ready(name)


def _single(route: str, name: str, form: CallForm, manager: Address = at.MANAGER) -> StepFunction:
    async def run(s: Stage) -> None:
        account = await s.ready(name)
        root = s.new_root(account, route, manager=manager)
        receipt = await s.devnet.submit(account, [set_root_call(root, manager)], form=form)
        await s.changed(route, account, root, receipt, manager=manager)

    return run


def _batch(route: str, name: str, form: CallForm, manager: Address = at.MANAGER) -> StepFunction:
    async def run(s: Stage) -> None:
        account = s.actor(name)
        root = s.new_root(account, route, manager=manager)
        calls = [mint_call(account.address, 3, 1), set_root_call(root, manager)]
        if not await s.devnet.is_module_enabled(account.address, manager):
            calls[0] = Call(account.address, call_data("enableModule(address)", manager))
        s.hold(at.SEED_TOKEN, [account.address], [3])
        receipt = await s.devnet.submit(account, calls, form=form)
        await s.changed(route, account, root, receipt, manager=manager)

    return run


async def several_operations(s: Stage) -> None:
    """Two operations of one account in one bundle: only the last root is seen at block end."""
    route, alice = "06 two operations in one bundle", await s.ready("alice")
    passing, staying = s.new_root(alice, f"{route}/a"), s.new_root(alice, f"{route}/b")
    ops = [
        await s.devnet.owner_op(alice, [set_root_call(passing)]),
        await s.devnet.owner_op(alice, [set_root_call(staying)], nonce_key=7),
    ]
    await s.changed(route, alice, staying, await s.devnet.send(s.devnet.bundle(ops)))


async def wrapped_bundle(s: Stage) -> None:
    """A bundler contract: the transaction does not go to the EntryPoint."""
    route, alice = "08 bundler contract", await s.ready("alice")
    root = s.new_root(alice, route)
    op = await s.devnet.owner_op(alice, [set_root_call(root)])
    await s.changed(route, alice, root, await s.devnet.send(s.devnet.wrapped_bundles([[op]])))


async def opaque_bundle(s: Stage) -> None:
    """Operations read from storage: the transaction's input holds nothing of them."""
    route, carol = "09 operations from storage", await s.ready("carol")
    root = s.new_root(carol, route)
    op = await s.devnet.owner_op(carol, [set_root_call(root)])
    store, run = s.devnet.opaque_bundle([op])
    assert (await s.devnet.send(store)).succeeded
    await s.changed(route, carol, root, await s.devnet.send(run))


async def two_bundles(s: Stage) -> None:
    """Two handleOps in one transaction, for two accounts."""
    route, alice, bob = "10 two handleOps", await s.ready("alice"), await s.ready("bob")
    roots = {a.address: s.new_root(a, f"{route}/{a.address.hex()}") for a in (alice, bob)}
    bundles = [
        [await s.devnet.owner_op(a, [set_root_call(roots[a.address])])] for a in (alice, bob)
    ]
    receipt = await s.devnet.send(s.devnet.wrapped_bundles(bundles))
    for account in (alice, bob):
        await s.changed(route, account, roots[account.address], receipt)


async def aggregated_bundle(s: Stage) -> None:
    """A group without an aggregator, the only kind that a Biconomy account allows."""
    route, dave = "11 handleAggregatedOps", await s.ready("dave")
    root = s.new_root(dave, route)
    op = await s.devnet.owner_op(dave, [set_root_call(root)])
    await s.changed(route, dave, root, await s.devnet.send(s.devnet.aggregated_bundle([op])))


async def trailing_bytes(s: Stage) -> None:
    """Bytes after the root are accepted by the manager."""
    route, dave = "19 trailing bytes", await s.ready("dave")
    root = s.new_root(dave, route)
    call = Call(at.MANAGER, set_root_call(root).data + b"\x00\xffabc")
    await s.changed(route, dave, root, await s.devnet.submit(dave, [call]))


def _module(route: str, name: str, form: str) -> StepFunction:
    async def run(s: Stage) -> None:
        account = await s.ready(name, at.PUPPET_MODULE)
        root = s.new_root(account, route)
        data = set_root_call(root).data
        calls = {
            "exec": s.puppet(account, at.MANAGER, data).data,
            "execFour": call_data(
                "execFour(address,address,bytes,uint8)", account.address, at.MANAGER, data, 0
            ),
            "execReturnData": call_data(
                "execReturnData(address,address,bytes,uint8)", account.address, at.MANAGER, data, 0
            ),
        }
        transaction = Transaction(at.PUPPET_MODULE, calls[form], sender=at.STRANGER)
        await s.changed(route, account, root, await s.devnet.send(transaction))

    return run


async def module_batch(s: Stage) -> None:
    """A module's batch sets one manager twice and another one once."""
    route, bob = "26 module batch", await s.ready("bob", at.PUPPET_MODULE)
    passing, staying = s.new_root(bob, f"{route}/a"), s.new_root(bob, f"{route}/b")
    august = s.new_root(bob, f"{route}/c", manager=at.MANAGER_AUGUST)
    calls = [set_root_call(passing), set_root_call(staying)]
    calls.append(set_root_call(august, at.MANAGER_AUGUST))
    receipt = await send_module_batch(s, bob, calls)
    await s.changed(route, bob, staying, receipt)
    await s.changed(route, bob, august, receipt, manager=at.MANAGER_AUGUST)


async def send_module_batch(s: Stage, account: SmartAccount, calls: Sequence[Call]) -> Receipt:
    """Make the account's puppet module run these calls in one batch."""
    data = call_data(
        "execBatch(address,address[],bytes[],uint8[])",
        *(account.address, [c.to for c in calls], [c.data for c in calls], [0] * len(calls)),
    )
    return await s.devnet.send(Transaction(at.PUPPET_MODULE, data, sender=at.STRANGER))


async def module_delegatecall(s: Stage) -> None:
    """A module runs a library in the account's place, which calls the manager."""
    route, carol = "24 module delegatecall", await s.ready("carol", at.PUPPET_MODULE)
    root = s.new_root(carol, route)
    data = call_data(_SET, at.MANAGER, root)
    receipt = await s.devnet.send(s.puppet(carol, at.ROOT_LIBRARY, data, delegate=True))
    await s.changed(route, carol, root, receipt)


async def module_delegatecall_hidden(s: Stage) -> None:
    """The library holds manager, selector and root itself; nobody stored a set for this root."""
    route, carol = "24 hidden in a library", await s.ready("carol", at.PUPPET_MODULE)
    data = call_data("setHidden(uint256)", s.seed)
    receipt = await s.devnet.send(s.puppet(carol, at.ROOT_LIBRARY, data, delegate=True))
    root = await s.devnet.root_of(at.MANAGER, carol.address)
    await s.changed(route, carol, root, receipt)


async def multi_send(s: Stage) -> None:
    """MultiSend packs its calls: the roots are not aligned to 32 bytes, two managers at once."""
    route, dave = "25 MultiSend", await s.ready("dave", at.PUPPET_MODULE)
    root = s.new_root(dave, route)
    august = s.new_root(dave, route, manager=at.MANAGER_AUGUST)
    packed = b"".join(
        encode_packed(
            ["uint8", "address", "uint256", "uint256", "bytes"], [0, c.to, 0, len(c.data), c.data]
        )
        for c in (set_root_call(root), set_root_call(august, at.MANAGER_AUGUST))
    )
    data = call_data("multiSend(bytes)", packed)
    receipt = await s.devnet.send(s.puppet(dave, at.MULTI_SEND, data, delegate=True))
    await s.changed(route, dave, root, receipt)
    await s.changed(route, dave, august, receipt, manager=at.MANAGER_AUGUST)


async def other_accounts_operation(s: Stage) -> None:
    """Alice's operation drives a module on bob: the UserOperationEvent is hers."""
    route, alice = "29 another account's operation", await s.ready("alice")
    bob = await s.ready("bob", at.PUPPET_MODULE)
    root = s.new_root(bob, route)
    call = Call(at.PUPPET_MODULE, s.puppet(bob, at.MANAGER, set_root_call(root).data).data)
    await s.changed(route, bob, root, await s.devnet.submit(alice, [call]))


def _validation(route: str, name: str, *, execution_reverts: bool) -> StepFunction:
    async def run(s: Stage) -> None:
        account = await s.ready(name, at.PUPPET_MODULE)
        root = s.new_root(account, route)
        data = set_root_call(root).data
        plan = call_data("plan(address,address,bytes)", account.address, at.MANAGER, data)
        await s.devnet.send(Transaction(at.PUPPET_MODULE, plan, sender=at.STRANGER))
        # Neither here nor in the signature: the input does not name the manager.
        refused = [Call(at.ROOT_HELPER, call_data("noSuchFunction()"))]
        op = await s.devnet.op(account, refused if execution_reverts else [])
        bundle = s.devnet.bundle([op.signed_for(at.PUPPET_MODULE, b"")])
        await s.changed(route, account, root, await s.devnet.send(bundle))

    return run


async def custom_factory(s: Stage) -> None:
    """Another factory makes an account whose fallback handler is the manager, and sets a root."""
    route, salt = "34 custom factory", s.seed
    sessions = [seed_session(at.STRANGER, at.STRANGER, 34)]
    while await s.devnet.rpc.code(foreign_address(s, salt)):
        salt += 1
    account = foreign_address(s, salt)
    root = s.note_set(account, sessions)
    receipt = await make_foreign(s, salt, root)
    s.report.foreign_accounts.append(account)
    await s.changed(route, account, root, receipt)


async def set_handler(s: Stage, account: SmartAccount, handler: Address) -> None:
    """Let the owner choose the fallback handler."""
    call = Call(account.address, call_data("setFallbackHandler(address)", handler))
    assert (await s.devnet.submit(account, [call])).succeeded


async def through_own_fallback(s: Stage) -> None:
    """The account calls itself and its fallback forwards: the manager is not in the calldata."""
    route, tom = "37 own fallback handler", await s.ready("tom")
    await set_handler(s, tom, at.MANAGER)
    root = s.new_root(tom, route)
    receipt = await s.devnet.submit(tom, [Call(tom.address, set_root_call(root).data)])
    await s.changed(route, tom, root, receipt)
    await set_handler(s, tom, at.FALLBACK_HANDLER)


async def cleared(s: Stage) -> None:
    """A root is cleared: zero is a change like any other."""
    route, dave = "43 cleared", await s.ready("dave")
    if await s.devnet.root_of(at.MANAGER, dave.address) == ZERO_HASH:
        await _single(f"{route}/before", "dave", "execute_ncC")(s)
    receipt = await s.devnet.submit(dave, [set_root_call(ZERO_HASH)])
    await s.changed(route, dave, ZERO_HASH, receipt)


async def leading_zeros(s: Stage) -> None:
    """A root with leading zeros, which some node methods answer without them; it is no set's."""
    route, gina = "a root with leading zeros", await s.ready("gina")
    root = Hash32(bytes(30) + b"\xab\xcd")
    await s.changed(route, gina, root, await s.devnet.submit(gina, [set_root_call(root)]))


async def session_key_rotates(s: Stage) -> None:
    """A session key whose module permits everything replaces the root it came from."""
    route, erin, key = "a session key sets the root", await s.ready("erin"), s.key("open")
    sessions = [open_session(key.address), seed_session(key.address, key.address, 9)]
    await s.ensure_registered(f"{route}/before", erin, sessions)
    root = s.new_root(erin, route)
    op = await s.devnet.session_op(erin, key, sessions, 0, set_root_call(root))
    await s.changed(route, erin, root, await s.devnet.send(s.devnet.bundle([op])))
    s.report.session_ops.append(op.hash())


async def old_session_in_same_bundle(s: Stage) -> None:
    """One bundle: the root is replaced, then a session of the old root is used. Both succeed."""
    route, erin, key = "the old session in the same bundle", await s.ready("erin"), s.key("race")
    sessions = [seed_session(key.address, key.address, 17)]
    await s.ensure_registered(f"{route}/before", erin, sessions)
    root = s.new_root(erin, route)
    mint = mint_call(key.address, 17, 1)
    ops = [
        await s.devnet.owner_op(erin, [set_root_call(root)]),
        await s.devnet.session_op(erin, key, sessions, 0, mint, nonce_key=3),
    ]
    s.hold(at.SEED_TOKEN, [key.address], [17])
    await s.changed(route, erin, root, await s.devnet.send(s.devnet.bundle(ops)))
    s.report.session_ops.append(ops[1].hash())


async def older_set_again(s: Stage) -> None:
    """A set, its successor, and the first one again."""
    route, carol = "an older set again", await s.ready("carol")
    for label in ("a", "b", "a"):
        root = s.new_root(carol, f"{route}/{label}")
        receipt = await s.devnet.submit(carol, [set_root_call(root)])
        await s.changed(route, carol, root, receipt)


async def two_managers_at_once(s: Stage) -> None:
    """One operation sets the roots of all three managers."""
    route, dave = "three managers in one operation", await s.ready("dave")
    managers = (at.MANAGER, at.MANAGER_AUGUST, at.EVENT_MANAGER)
    roots = {m: s.new_root(dave, route, manager=m) for m in managers}
    receipt = await s.devnet.submit(dave, [set_root_call(roots[m], m) for m in managers])
    for manager in managers:
        await s.changed(route, dave, roots[manager], receipt, manager=manager)


async def three_transactions_in_one_block(s: Stage) -> None:
    """One block: an operation, a module's call, and a second operation of the first account."""
    route, alice = "three transactions in one block", await s.ready("alice")
    bob = await s.ready("bob", at.PUPPET_MODULE)
    roots = [s.new_root(a, f"{route}/{i}") for i, a in enumerate((alice, bob, alice))]
    first = await s.devnet.owner_op(alice, [set_root_call(roots[0])])
    second = await s.devnet.owner_op(alice, [set_root_call(roots[2])], nonce_key=5)
    receipts = await s.devnet.send_in_one_block(
        [
            s.devnet.bundle([first]),
            s.puppet(bob, at.MANAGER, set_root_call(roots[1]).data),
            s.devnet.bundle([second]),
        ]
    )
    await s.changed(route, bob, roots[1], receipts[1])
    await s.changed(route, alice, roots[2], receipts[2])


async def failure_between(s: Stage) -> None:
    """One bundle: the first and the third operation change a root, the second one fails."""
    route = "a failed operation between two"
    cast = [await s.ready(name) for name in ("alice", "bob", "carol")]
    roots = [s.new_root(a, f"{route}/{i}") for i, a in enumerate(cast)]
    calls = [[set_root_call(root)] for root in roots]
    calls[1] = [replace(calls[1][0], value_wei=1)]
    ops = [await s.devnet.owner_op(a, c) for a, c in zip(cast, calls, strict=True)]
    receipt = await s.devnet.send(s.devnet.bundle(ops))
    await s.changed(route, cast[0], roots[0], receipt)
    await s.changed(route, cast[2], roots[2], receipt)


async def account_without_index(s: Stage) -> None:
    """An account by deployAccount: its address is known from the log alone."""
    route, owner = "an account without index", Key.named(f"{s.seed}/no index")
    setup = call_data("initForSmartAccount(address)", owner.address)
    data = call_data("deployAccount(address,bytes)", at.ECDSA_MODULE, setup)
    made = await s.devnet.send(Transaction(at.FACTORY, data, sender=at.STRANGER))
    address = Address(bytes.fromhex(made.logs_of(at.FACTORY)[0]["topics"][1][-40:]))
    account = SmartAccount(owner, -1, address, b"")
    s.note_account(address)
    root = s.new_root(account, route)
    receipt = await s.devnet.submit(account, [set_root_call(root)])
    await s.changed(route, account, root, receipt)


ROUTES: dict[str, StepFunction] = {
    "accounts by the factory": create_accounts,
    "01 execute_ncC": _single("01 execute_ncC", "alice", "execute_ncC"),
    "02 execute": _single("02 execute", "alice", "execute"),
    "02 another manager": _single("02 other manager", "bob", "execute", at.MANAGER_AUGUST),
    "01 manager with event": _single("01 event", "alice", "execute_ncC", at.EVENT_MANAGER),
    "03 executeBatch_y6U": _batch("03 executeBatch_y6U", "bob", "executeBatch_y6U"),
    "04 executeBatch": _batch("04 executeBatch", "carol", "executeBatch"),
    "05 undeployed": _batch("05 undeployed", "frank", "executeBatch_y6U"),
    "05 undeployed, other manager": _batch(
        "05 undeployed, other manager", "gina", "executeBatch_y6U", at.MANAGER_AUGUST
    ),
    "06": several_operations,
    "08": wrapped_bundle,
    "09": opaque_bundle,
    "10": two_bundles,
    "11": aggregated_bundle,
    "19": trailing_bytes,
    "22": _module("22 module, five arguments", "alice", "exec"),
    "23": _module("23 module, four arguments", "alice", "execFour"),
    "23 return data": _module("23 module, return data", "bob", "execReturnData"),
    "24": module_delegatecall,
    "24 hidden": module_delegatecall_hidden,
    "25": multi_send,
    "26": module_batch,
    "29": other_accounts_operation,
    "30": _validation("30 in validation, then fails", "alice", execution_reverts=True),
    "31": _validation("31 in validation, nothing else", "bob", execution_reverts=False),
    "34": custom_factory,
    "35 and 37": through_own_fallback,
    "43": cleared,
    "leading zeros": leading_zeros,
    "session key": session_key_rotates,
    "old session": old_session_in_same_bundle,
    "older set": older_set_again,
    "three managers": two_managers_at_once,
    "three transactions": three_transactions_in_one_block,
    "failure between": failure_between,
    "without index": account_without_index,
}
