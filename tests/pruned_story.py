"""What happens on two nodes with the same blocks, below and above the horizon of one of them."""

from __future__ import annotations

from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import SmartAccount, Transaction
from indexer.devnet.operations import call_data, open_session, seed_session, set_root_call
from tests.route_silent import silent_fallback
from tests.route_steps import custom_factory
from tests.routes import Stage
from tests.twin_nodes import Twins
from tests.watching import hexed

KEPT_BLOCKS = 128


class Story:
    """Root changes by every kind of route, and what names them. A step is a block or more."""

    def __init__(self, twins: Twins) -> None:
        self.twins = twins
        self.stage = Stage(twins.devnet)
        self.hints: set[tuple[str, str, int, str, str]] = set()
        """What watch.unobserved_hint has to show where state is lost: manager, account, block,
        root, hint."""
        self.first_trigger = self.horizon_near = 0

    def _named(
        self, hint: str, manager: Address, account: SmartAccount, at_: int, root: bytes
    ) -> None:
        self.hints.add((hexed(manager), hexed(account.address), at_, hexed(root), hint))

    async def operation(
        self, name: str, label: str, manager: Address = at.MANAGER, root: Hash32 | None = None
    ) -> None:
        account = await self.stage.ready(name)
        if root is None:
            root = self.stage.new_root(account, f"{name}/{label}", manager=manager)
        receipt = await self.stage.devnet.submit(account, [set_root_call(root, manager)])
        await self.stage.changed(label, account, root, receipt, manager=manager)
        self._named("calldata", manager, account, receipt.block_number, root)
        if manager == at.EVENT_MANAGER:
            self._named("event", manager, account, receipt.block_number, root)

    async def module(self, name: str, label: str, form: str) -> None:
        account = await self.stage.ready(name, at.PUPPET_MODULE)
        root = self.stage.new_root(account, f"{name}/{label}")
        data = set_root_call(root).data
        if form == "exec":
            transaction = self.stage.puppet(account, at.MANAGER, data)
        else:
            call = call_data(
                f"{form}(address,address,bytes,uint8)", account.address, at.MANAGER, data, 0
            )
            transaction = Transaction(at.PUPPET_MODULE, call, sender=at.STRANGER)
        receipt = await self.stage.devnet.send(transaction)
        await self.stage.changed(label, account, root, receipt)
        self._named("module", at.MANAGER, account, receipt.block_number, root)

    async def session(self, label: str) -> None:
        """A session key of erin's set sets nothing but proves the root it stands under."""
        key = self.stage.key("erin")
        sessions = [open_session(key.address), seed_session(key.address, key.address, 9)]
        erin = await self.stage.ready("erin")
        await self.stage.ensure_registered(label, erin, sessions)
        op = await self.stage.devnet.session_op(
            erin, key, sessions, 0, set_root_call(ZERO_HASH, at.MANAGER_AUGUST)
        )
        receipt = await self.stage.devnet.send(self.stage.devnet.bundle([op]))
        assert receipt.succeeded
        root = self.stage.note_set(erin, sessions)
        self._named("signature", at.MANAGER, erin, receipt.block_number, root)
        self._named("calldata", at.MANAGER_AUGUST, erin, receipt.block_number, ZERO_HASH)
        for change in self.stage.report.changes:
            if (change.route, change.account) == (label, erin.address):
                self._named("calldata", at.MANAGER, erin, change.block_number, root)

    async def tell(self, *, tainted: bool = True) -> None:
        """Let it happen; `tainted`: one account's root may change without a log."""
        mine = self.stage.devnet.rpc.mine
        self.first_trigger = await self.stage.devnet.rpc.block_number() + 1
        for name in ("alice", "bob", "carol", "dave", "erin", "frank", "gina", "tom"):
            await self.stage.ready(name)
        for name in ("alice", "bob", "carol", "dave", "frank"):
            await self.stage.ready(name, at.MANAGER)
        await self.operation("alice", "1")
        await self.module("bob", "1", "exec")
        await self.module("bob", "2", "execFour")
        await self.operation("carol", "1")
        await self.operation("carol", "cleared", root=ZERO_HASH)
        await self.operation("frank", "1")
        await self.operation("dave", "1", at.EVENT_MANAGER)
        await self.session("a session")
        if tainted:
            await silent_fallback(self.stage)
        await custom_factory(self.stage)
        await mine(40)
        await self.operation("alice", "2")
        await self.operation("dave", "2", at.EVENT_MANAGER)
        await self.operation("dave", "2")
        await self.module("bob", "3", "exec")
        self.horizon_near = await self.stage.devnet.rpc.block_number()
        await self.session("the same")
        await self.operation("alice", "3")
        await self.module("bob", "4", "execFour")
        await self.operation("dave", "3", at.EVENT_MANAGER)
        await mine(30)
        await self.operation("alice", "4")
        await self.module("bob", "5", "exec")
        await self.session("again")
        await self.operation("dave", "4", at.EVENT_MANAGER)
        number = await self.stage.devnet.rpc.block_number()
        await mine(self.horizon_near + KEPT_BLOCKS - number)
