"""The ways to change a root that leave no log at all.

Each taints the account first, with a log, then changes the root without one, and mends the account
at the end.
"""

from __future__ import annotations

from indexer.core.types import Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import SmartAccount, Transaction
from indexer.devnet.operations import Call, call_data, set_root_call
from tests.route_steps import set_handler
from tests.routes import Stage, StepFunction


async def silent_fallback(s: Stage) -> None:
    """A stranger calls an account whose fallback handler is the manager."""
    route, tom = "36 a stranger through the fallback", await s.ready("tom")
    await set_handler(s, tom, at.MANAGER)
    await stranger_sets_root(s, route, tom, s.new_root(tom, route))
    await set_handler(s, tom, at.FALLBACK_HANDLER)


async def silent_fallback_by_slot(s: Stage) -> None:
    """The handler was set by a delegatecall, without ChangedFallbackHandler."""
    route, tom = "39 a handler set silently", await s.ready("tom", at.PUPPET_MODULE)
    await set_handler_silently(s, tom)
    await stranger_sets_root(s, route, tom, s.new_root(tom, route))
    await set_handler(s, tom, at.FALLBACK_HANDLER)


async def silent_implementation(s: Stage) -> None:
    """The implementation was replaced; then anybody moves the account, and puts it back."""
    route, tom = "41 another implementation", await s.ready("tom")
    await replace_implementation(s, tom)
    await anybody_sets_root(s, route, tom, s.new_root(tom, route))
    back = call_data("restore(address)", at.IMPLEMENTATION)
    await s.devnet.send(Transaction(tom.address, back, sender=at.STRANGER))


async def set_handler_silently(s: Stage, account: SmartAccount) -> None:
    """Write the manager into the handler's slot; the account must have the puppet module."""
    slot = call_data("setSlot(bytes32,bytes32)", at.FALLBACK_HANDLER_SLOT, bytes(12) + at.MANAGER)
    await s.devnet.send(s.puppet(account, at.ROOT_LIBRARY, slot, delegate=True))


async def stranger_sets_root(s: Stage, route: str, account: SmartAccount, root: Hash32) -> None:
    """Call an account whose handler is the manager: its fallback forwards, and nothing logs."""
    data = set_root_call(root).data
    receipt = await s.devnet.send(Transaction(account.address, data, sender=at.STRANGER))
    assert not receipt.logs
    await s.changed(route, account, root, receipt)


async def replace_implementation(s: Stage, account: SmartAccount) -> None:
    """Let the owner put an implementation in place that obeys anybody."""
    replace_it = call_data("updateImplementation(address)", at.EVIL_IMPLEMENTATION)
    await s.devnet.submit(account, [Call(account.address, replace_it)])


async def anybody_sets_root(s: Stage, route: str, account: SmartAccount, root: Hash32) -> None:
    """Move an account of that implementation."""
    go = call_data("go(address,bytes32)", at.MANAGER, root)
    receipt = await s.devnet.send(Transaction(account.address, go, sender=at.STRANGER))
    assert not receipt.logs
    await s.changed(route, account, root, receipt)


SILENT_ROUTES: dict[str, StepFunction] = {
    "36": silent_fallback,
    "38 and 39": silent_fallback_by_slot,
    "40 and 41": silent_implementation,
}
