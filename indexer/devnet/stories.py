"""The demo's stories: what happens on the chain, and what the daemon has to say about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from indexer.core.abi import keccak
from indexer.core.passes import hex_of
from indexer.core.session_layout import Layout
from indexer.core.session_sets import build_set
from indexer.core.types import Address, Hash32, Session
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, SmartAccount, Transaction, root_of_set
from indexer.devnet.operations import Key, call_data, open_session, seed_session, set_root_call
from indexer.store import reports
from indexer.store.pool import Database
from indexer.store.sessions import import_sets

CHAIN_ID = 80001
LAYOUTS: Mapping[Address, Layout] = {at.OPEN_SESSION_MODULE: ("session_key",)}
"""Of the module that is not the vendor's; the daemon is configured with it, too."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The verdict a story must end with; `root` where an older one would look the same."""

    verdict: str
    cause: str | None = None
    root: Hash32 | None = None


class Teller:
    """Plays stories on a chain, stores sets as a client would, and waits for what is said."""

    def __init__(
        self,
        devnet: Devnet,
        database: Database,
        say: Callable[[str, str], None],
        wait_for: Callable[[Callable[[], Awaitable[bool]], str], Awaitable[bool]],
    ) -> None:
        self.devnet = devnet
        self.database = database
        self.say = say
        self._wait_for = wait_for
        self.outcomes: list[tuple[str, bool]] = []

    async def store(self, account: SmartAccount, sessions: Sequence[Session]) -> None:
        """Store a session set, as `sessionwatch sessions import` does."""
        stored = build_set(CHAIN_ID, at.MANAGER, account.address, sessions)
        await import_sets(self.database, [(stored, "demo")], layouts=LAYOUTS)

    async def hear(self, account: SmartAccount, expected: Expected) -> None:
        """Wait until the daemon says what is expected of an account; note if it does not."""
        manager, address = hex_of(at.MANAGER), hex_of(account.address)
        shown: list[reports.ShownVerdict] = []

        async def said() -> bool:
            found = await reports.verdict_of(self.database, manager, address)
            if found is None:
                return False
            shown[:] = [found]
            root_fits = expected.root is None or found.on_chain_root == hex_of(expected.root)
            return root_fits and (found.verdict, found.cause) == (expected.verdict, expected.cause)

        name = expected.cause or expected.verdict
        heard = await self._wait_for(said, f"{name} for {address}")
        self.outcomes.append((f"{account_name(account)}: {name}", heard))
        if heard:
            label = shown[0].verdict + (f" ({shown[0].cause})" if shown[0].cause else "")
            self.say("daemon", f"{label}: {shown[0].explanation}")
        else:
            found_text = f"{shown[0].verdict} ({shown[0].cause})" if shown else "nothing"
            self.say("wrong", f"expected {name}, the daemon says {found_text}")

    async def check(self, what: str, test: Callable[[], Awaitable[bool]]) -> bool:
        """Wait until something is true; note if it does not become so."""
        true = await self._wait_for(test, what)
        self.outcomes.append((what, true))
        if not true:
            self.say("wrong", f"expected: {what}")
        return true


def account_name(account: SmartAccount) -> str:
    """Return a short form of an account's address."""
    return hex_of(account.address)[:10]


def _session(name: str, token_id: int) -> tuple[Key, Session]:
    key = Key.named(name)
    return key, seed_session(key.address, key.address, token_id)


async def play(teller: Teller) -> None:
    """Play every story in order."""
    teller.say("story", "1. The story of the seed document")
    await _seed_story(teller)
    teller.say("story", "2. A set that was stored but never registered")
    await _never_registered(teller)
    teller.say("story", "3. A root that nobody knows")
    await _unknown_root(teller)
    teller.say("story", "4. A revoked session that still works")
    await _revoked_still_works(teller)
    teller.say("story", "5. Roots that others than the owner set")
    await _set_by_a_session_key(teller)
    await _set_by_a_module(teller)
    teller.say("story", "6. A reorg that takes a root back")
    await _reorg(teller)


async def _seed_story(teller: Teller) -> None:
    devnet = teller.devnet
    alice = devnet.account("alice")
    key, session = _session("alice session", 1)
    teller.say("client", f"stores a set of one session for {hex_of(alice.address)}")
    await teller.store(alice, [session])
    receipt = await devnet.register(alice, [session])
    teller.say(
        "chain",
        f"block {receipt.block_number}: one user operation creates the account, enables the "
        "manager and sets the root",
    )
    await teller.hear(alice, Expected("in_sync"))

    receipt = await devnet.mint_with_session(alice, key, [session], 0, to=key.address, token_id=1)
    teller.say("chain", f"block {receipt.block_number}: an NFT is minted with the session key")
    owner = hex_of(key.address)

    async def minted() -> bool:
        mint = await reports.mint_to(teller.database, owner)
        return mint is not None and mint.user_op_hash is not None and mint.balance == mint.amount

    if await teller.check("the mint is linked to its user operation", minted):
        mint = await reports.mint_to(teller.database, owner)
        assert mint is not None
        teller.say(
            "daemon",
            f"user operation {(mint.user_op_hash or '')[:10]}… minted {mint.amount} of token "
            f"{mint.token_id} to {owner}, whose balance is {mint.balance}",
        )

    _, second = _session("alice second session", 2)
    teller.say("client", "stores a new set of two sessions and registers it")
    both = [second, session]
    await teller.store(alice, both)
    receipt = await devnet.register(alice, both)
    teller.say("chain", f"block {receipt.block_number}: the root is overwritten")
    await teller.hear(alice, Expected("in_sync", root=root_of_set(both)))


async def _never_registered(teller: Teller) -> None:
    bob = teller.devnet.account("bob")
    await teller.devnet.create(bob)
    _, session = _session("bob session", 1)
    teller.say("client", f"stores a set for {hex_of(bob.address)}; its transaction is never sent")
    await teller.store(bob, [session])
    await teller.hear(bob, Expected("pending"))
    teller.say("clock", "the grace of a few seconds passes")
    await teller.hear(bob, Expected("drifted", "never_landed"))


async def _unknown_root(teller: Teller) -> None:
    carol = teller.devnet.account("carol")
    _, session = _session("carol session", 1)
    await teller.store(carol, [session])
    receipt = await teller.devnet.register(carol, [session])
    teller.say(
        "chain",
        f"block {receipt.block_number}: a stored set is registered for {hex_of(carol.address)}",
    )
    await teller.hear(carol, Expected("in_sync"))
    foreign_key, foreign = _session("carol on another device", 3)
    receipt = await teller.devnet.register(carol, [foreign])
    teller.say("chain", f"block {receipt.block_number}: another device overwrites the root")
    await teller.hear(carol, Expected("drifted", "unknown_root"))
    receipt = await teller.devnet.mint_with_session(
        carol, foreign_key, [foreign], 0, to=foreign_key.address, token_id=3
    )
    teller.say("chain", f"block {receipt.block_number}: its session, which nobody stored, mints")

    async def noticed() -> bool:
        return await reports.unknown_uses(teller.database, hex_of(carol.address)) == 1

    if await teller.check("the use of the unknown session is noted", noticed):
        teller.say("daemon", "a session that no stored set holds was used")


async def _revoked_still_works(teller: Teller) -> None:
    devnet = teller.devnet
    dave = devnet.account("dave")
    _, kept = _session("dave kept", 1)
    revoked_key, revoked = _session("dave revoked", 2)
    both = [kept, revoked]
    await teller.store(dave, both)
    receipt = await devnet.register(dave, both)
    teller.say(
        "chain",
        f"block {receipt.block_number}: a stored set of two sessions is registered for "
        f"{hex_of(dave.address)}",
    )
    await teller.hear(dave, Expected("in_sync"))
    teller.say("client", "revokes a session: its new set holds one session only")
    await teller.store(dave, [kept])
    appended = [*both, kept]
    receipt = await devnet.register(dave, appended)
    teller.say(
        "chain",
        f"block {receipt.block_number}: the vendor's client appended the remaining session to "
        "the old tree instead of rebuilding it",
    )
    await teller.hear(dave, Expected("drifted", "revoked_still_provable"))
    mint = await devnet.mint_with_session(
        dave, revoked_key, appended, 1, to=revoked_key.address, token_id=2
    )
    outcome = "succeeds" if mint.succeeded else "fails"
    teller.say("chain", f"block {mint.block_number}: a mint with the revoked key {outcome}")

    async def worked() -> bool:
        return mint.succeeded

    await teller.check("the revoked key still mints", worked)


async def _set_by_a_session_key(teller: Teller) -> None:
    devnet = teller.devnet
    frank, key = devnet.account("frank"), Key.named("frank session")
    sessions = [open_session(key.address)]
    await teller.store(frank, sessions)
    receipt = await devnet.register(frank, sessions)
    teller.say(
        "chain",
        f"block {receipt.block_number}: {hex_of(frank.address)} registers a session whose module "
        "permits every call",
    )
    await teller.hear(frank, Expected("in_sync"))
    taken = keccak(b"a set of the key's holder alone")
    op = await devnet.session_op(frank, key, sessions, 0, set_root_call(taken))
    receipt = await devnet.send(devnet.bundle([op]))
    teller.say("chain", f"block {receipt.block_number}: its key replaces the root")
    await teller.hear(frank, Expected("drifted", "rotated_by_session_key"))


async def _set_by_a_module(teller: Teller) -> None:
    devnet = teller.devnet
    gina = devnet.account("gina")
    _, session = _session("gina session", 1)
    await teller.store(gina, [session])
    await devnet.register(gina, [session])
    receipt = await devnet.enable_module(gina, at.PUPPET_MODULE)
    assert receipt is not None
    teller.say(
        "chain",
        f"block {receipt.block_number}: {hex_of(gina.address)} enables a module that obeys anybody",
    )
    await teller.hear(gina, Expected("in_sync"))
    order = call_data(
        "exec(address,address,bytes,uint8,uint256)",
        *(gina.address, at.MANAGER, set_root_call(keccak(b"a stranger's set")).data, 0, 0),
    )
    receipt = await devnet.send(Transaction(at.PUPPET_MODULE, order, sender=at.STRANGER))
    teller.say(
        "chain",
        f"block {receipt.block_number}: a stranger has it replace the root, without a user "
        "operation",
    )
    await teller.hear(gina, Expected("drifted", "unknown_root"))


async def _reorg(teller: Teller) -> None:
    devnet = teller.devnet
    erin = devnet.account("erin")
    await devnet.create(erin)
    await devnet.rpc.mine(2)
    _, session = _session("erin session", 1)
    await teller.store(erin, [session])
    receipt = await devnet.register(erin, [session])
    teller.say(
        "chain",
        f"block {receipt.block_number}: a stored set is registered for {hex_of(erin.address)}",
    )
    await teller.hear(erin, Expected("in_sync"))
    before = await reports.reorg_count(teller.database)
    tip = await devnet.rpc.block_number()
    depth = tip - receipt.block_number + 1
    await devnet.rpc.reorg(depth)
    await devnet.rpc.mine()
    teller.say("chain", f"a reorg {depth} deep: the branch with the root has lost")

    async def seen() -> bool:
        return await reports.reorg_count(teller.database) > before

    if await teller.check("the reorg is recorded", seen):
        teller.say("daemon", f"a reorg is recorded; what stood above block {tip - depth} is gone")
    await teller.hear(erin, Expected("drifted", "never_landed"))
