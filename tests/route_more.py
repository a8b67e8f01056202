"""Steps that tell apart who made a change, beyond the script of the end-to-end test."""

from __future__ import annotations

from indexer.devnet import addresses as at
from indexer.devnet.accounts import Transaction
from indexer.devnet.operations import Call, call_data, mint_call, set_root_call
from tests.route_steps import set_handler
from tests.routes import Stage, StepFunction


async def two_modules_in_one_block(s: Stage) -> None:
    """Two transactions of one block, both by a module: the hash of its call tells which it was."""
    route, bob = "two modules in one block", await s.ready("bob", at.PUPPET_MODULE)
    roots = [s.new_root(bob, f"{route}/{i}") for i in range(2)]
    transactions = [s.puppet(bob, at.MANAGER, set_root_call(root).data) for root in roots]
    receipts = await s.devnet.send_in_one_block(transactions)
    await s.changed(route, bob, roots[1], receipts[1])


async def two_libraries_in_one_block(s: Stage) -> None:
    """The same by libraries in the account's place: nothing tells which root was the last."""
    route, bob = "two libraries in one block", await s.ready("bob", at.PUPPET_MODULE)
    roots = [s.new_root(bob, f"{route}/{i}") for i in range(2)]
    calls = [call_data("set(address,bytes32)", at.MANAGER, root) for root in roots]
    transactions = [s.puppet(bob, at.ROOT_LIBRARY, call, delegate=True) for call in calls]
    receipts = await s.devnet.send_in_one_block(transactions)
    await s.changed(route, bob, roots[1], receipts[1])


async def two_operations_by_wrapper(s: Stage) -> None:
    """Two operations of an account through a bundler contract: one transaction, either of two."""
    route, carol = "two operations by a bundler contract", await s.ready("carol")
    root = s.new_root(carol, route)
    ops = [
        await s.devnet.owner_op(carol, [set_root_call(root)]),
        await s.devnet.owner_op(carol, [mint_call(carol.address, 51, 1)], nonce_key=9),
    ]
    receipt = await s.devnet.send(s.devnet.wrapped_bundles([ops]))
    await s.changed(route, carol, root, receipt)


async def two_operations_with_event(s: Stage) -> None:
    """The same with the manager that emits an event: its place in the bundle tells."""
    route, carol = "two operations, manager with event", await s.ready("carol")
    root = s.new_root(carol, route, manager=at.EVENT_MANAGER)
    ops = [
        await s.devnet.owner_op(carol, [set_root_call(root, at.EVENT_MANAGER)]),
        await s.devnet.owner_op(carol, [mint_call(carol.address, 52, 1)], nonce_key=9),
    ]
    receipt = await s.devnet.send(s.devnet.wrapped_bundles([ops]))
    await s.changed(route, carol, root, receipt, manager=at.EVENT_MANAGER)


async def same_root_twice_in_one_block(s: Stage) -> None:
    """An operation sets a root of the manager with event, then a module sets it again."""
    route, dave = "the same root twice in one block", await s.ready("dave", at.PUPPET_MODULE)
    root = s.new_root(dave, route, manager=at.EVENT_MANAGER)
    call = set_root_call(root, at.EVENT_MANAGER)
    op = await s.devnet.owner_op(dave, [call])
    receipts = await s.devnet.send_in_one_block(
        [s.devnet.bundle([op]), s.puppet(dave, at.EVENT_MANAGER, call.data)]
    )
    await s.changed(route, dave, root, receipts[0], manager=at.EVENT_MANAGER)


async def stranger_with_event(s: Stage) -> None:
    """A stranger moves a tainted account; only the manager's own event names the account."""
    route, tom = "36 a stranger, manager with event", await s.ready("tom")
    await set_handler(s, tom, at.EVENT_MANAGER)
    root = s.new_root(tom, route, manager=at.EVENT_MANAGER)
    call = Transaction(tom.address, set_root_call(root).data, sender=at.STRANGER)
    await s.changed(route, tom, root, await s.devnet.send(call), manager=at.EVENT_MANAGER)
    await set_handler(s, tom, at.FALLBACK_HANDLER)


async def mints_of_a_failed_operation(s: Stage) -> None:
    """One bundle: an operation mints and fails, the next one mints and holds."""
    erin, gina = await s.ready("erin"), await s.ready("gina")
    refused = Call(at.MANAGER, call_data("noSuchFunction()"))
    ops = [
        await s.devnet.owner_op(erin, [mint_call(erin.address, 61, 1), refused]),
        await s.devnet.owner_op(gina, [mint_call(gina.address, 62, 1)]),
    ]
    assert (await s.devnet.send(s.devnet.bundle(ops))).succeeded


MORE: dict[str, StepFunction] = {
    "two modules in one block": two_modules_in_one_block,
    "two libraries in one block": two_libraries_in_one_block,
    "two operations by a bundler contract": two_operations_by_wrapper,
    "two operations, manager with event": two_operations_with_event,
    "the same root twice in one block": same_root_twice_in_one_block,
    "36 a stranger, manager with event": stranger_with_event,
    "a failed mint and a good one": mints_of_a_failed_operation,
}
"""Named as the change they make."""
