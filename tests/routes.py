"""A scripted run over the local chain: every way a root changes, between everything that looks so.

The steps are named and can be played one by one, so that a test may reorganise the chain, restart
the daemon or kill it between any two. A step reads nonces, code and modules from the chain and
puts right what it needs, so it can be played again on another branch. What is true is not taken
from the script but from `truth`, which asks the contracts at every block.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from eth_hash.auto import keccak

from indexer.core.types import ZERO_HASH, Address, Hash32, Session
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, Receipt, SmartAccount, Transaction, root_of_set
from indexer.devnet.operations import Key, call_data, seed_session
from indexer.devnet.rpc import hexed

MANAGERS = (at.MANAGER, at.MANAGER_AUGUST, at.EVENT_MANAGER)
"""The managers to watch: two of V1 without events, one that behaves like 1.1.0."""

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "gina", "tom")


@dataclass(frozen=True, slots=True)
class RouteSet:
    """A session set of the script, with its root. It may or may not have got on chain."""

    manager: Address
    account: Address
    sessions: tuple[Session, ...]
    root: Hash32


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A change that a step made, as the step saw it at the end of its block."""

    route: str
    manager: Address
    account: Address
    root: Hash32
    block_number: int
    transaction_hash: Hash32


@dataclass(slots=True)
class RoutesReport:
    """What the script did. After a reorg some of it is no longer on the chain.

    `accounts` come from the vendor's factory, `foreign_accounts` from another one.
    `holders` are (token contract, owner, token id) that occur in ERC-1155 transfers.
    `session_ops` are the hashes of operations that a session key signed and that were executed.
    """

    accounts: list[Address] = field(default_factory=list)
    foreign_accounts: list[Address] = field(default_factory=list)
    managers: tuple[Address, ...] = MANAGERS
    sets: dict[tuple[Address, Address, Hash32], RouteSet] = field(default_factory=dict)
    changes: list[RouteChange] = field(default_factory=list)
    look_alikes: list[str] = field(default_factory=list)
    holders: set[tuple[Address, Address, int]] = field(default_factory=set)
    session_ops: list[Hash32] = field(default_factory=list)

    def all_accounts(self) -> list[Address]:
        """Return every account the script knows, once each."""
        return list(dict.fromkeys([*self.accounts, *self.foreign_accounts]))


@dataclass(frozen=True, slots=True)
class Step:
    """One named piece of the script; mines one block or more.

    `changes_roots` False: a look-alike, which is checked to leave every root as it was.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    changes_roots: bool


StepFunction = Callable[["Stage"], Awaitable[None]]


class Stage:
    """What the steps share: the chain, the cast, and the record of what was done."""

    def __init__(self, devnet: Devnet, seed: int = 1) -> None:
        self.devnet = devnet
        self.seed = seed
        self.report = RoutesReport()
        self._cast: dict[str, SmartAccount] = {}

    def actor(self, name: str) -> SmartAccount:
        """Return an account of the cast by its name, deployed or not."""
        if name not in self._cast:
            self._cast[name] = self.devnet.account(f"{self.seed}/{name}")
            self.note_account(self._cast[name].address)
        return self._cast[name]

    def note_account(self, address: Address) -> None:
        """Remember an account of the vendor's factory."""
        if address not in self.report.accounts:
            self.report.accounts.append(address)

    async def ready(self, name: str, *modules: Address) -> SmartAccount:
        """Return an account that is deployed and has these modules, whatever a reorg took."""
        account = self.actor(name)
        if not await self.devnet.is_deployed(account):
            await self.devnet.create(account)
        for module in modules:
            await self.devnet.enable_module(account, module)
        return account

    def key(self, label: str) -> Key:
        """Return a session key of the script."""
        return Key.named(f"{self.seed}/session/{label}")

    def new_root(
        self, account: SmartAccount | Address, label: str, *, manager: Address = at.MANAGER
    ) -> Hash32:
        """Return the root of a session set of its own, one to five sessions, and note the set."""
        noise = keccak(f"{self.seed}/{label}".encode())
        signers = [Address(keccak(noise + bytes([i]))[12:]) for i in range(1 + noise[0] % 5)]
        sessions = [seed_session(s, s, i, valid_until=noise[1] * i) for i, s in enumerate(signers)]
        return self.note_set(account, sessions, manager=manager)

    def note_set(
        self,
        account: SmartAccount | Address,
        sessions: Sequence[Session],
        *,
        manager: Address = at.MANAGER,
    ) -> Hash32:
        """Note a session set of the script and return its root."""
        address = account.address if isinstance(account, SmartAccount) else account
        root = root_of_set(sessions)
        found = RouteSet(manager, address, tuple(sessions), root)
        self.report.sets[manager, address, root] = found
        return root

    async def ensure_registered(
        self,
        route: str,
        account: SmartAccount,
        sessions: Sequence[Session],
        *,
        manager: Address = at.MANAGER,
    ) -> None:
        """Register a set unless it is on chain with its manager enabled."""
        root = self.note_set(account, sessions, manager=manager)
        enabled = await self.devnet.is_module_enabled(account.address, manager)
        if not enabled or await self.devnet.root_of(manager, account.address) != root:
            receipt = await self.devnet.register(account, sessions, manager=manager)
            await self.changed(route, account, root, receipt, manager=manager)

    async def changed(
        self,
        route: str,
        account: SmartAccount | Address,
        root: Hash32,
        receipt: Receipt,
        *,
        manager: Address = at.MANAGER,
    ) -> None:
        """Check that the root stands at the end of the receipt's block; note it if it is new."""
        address = account.address if isinstance(account, SmartAccount) else account
        assert receipt.succeeded, f"{route}: the transaction was reverted"
        found = await self.devnet.root_of(manager, address, receipt.block_number)
        assert found == root, f"{route}: the root is {found.hex()}, not {root.hex()}"
        if await self.devnet.root_of(manager, address, receipt.block_number - 1) == root:
            return
        self.report.changes.append(
            RouteChange(
                route, manager, address, root, receipt.block_number, receipt.transaction_hash
            )
        )

    def puppet(
        self,
        account: SmartAccount,
        to: Address,
        data: bytes,
        *,
        delegate: bool = False,
        gas: int = 0,
    ) -> Transaction:
        """Return a stranger's transaction that makes an enabled module move the account."""
        call = call_data(
            "exec(address,address,bytes,uint8,uint256)",
            *(account.address, to, data, int(delegate), gas),
        )
        return Transaction(at.PUPPET_MODULE, call, sender=at.STRANGER)

    def hold(self, token: Address, owners: Iterable[Address], ids: Iterable[int]) -> None:
        """Note whose balances of which tokens can be compared later."""
        self.report.holders |= {(token, owner, one) for owner in owners for one in ids}

    async def roots_now(self) -> dict[tuple[Address, Address], Hash32]:
        """Return every root of the cast as it is now."""
        pairs = [(m, a) for m in MANAGERS for a in self.report.all_accounts()]
        block = await self.devnet.rpc.block_number()
        return dict(zip(pairs, (await _roots(self.devnet, pairs, [block]))[0], strict=True))


def script(stage: Stage) -> list[Step]:
    """Return the whole run in an order that depends on the stage's seed alone."""
    from tests.route_decoys import DECOYS
    from tests.route_steps import ROUTES
    from tests.route_tokens import TOKENS

    order = random.Random(stage.seed)
    steps = [_step(stage, name, run, changes=True) for name, run in ROUTES.items()]
    others = [_step(stage, name, run, changes=False) for name, run in DECOYS.items()]
    others += [_step(stage, name, run, changes=True) for name, run in TOKENS.items()]
    order.shuffle(others)
    for step in others:
        steps.insert(order.randint(1, len(steps)), step)
    return steps


def silent_script(stage: Stage) -> list[Step]:
    """Return the steps whose changes leave no log at all; each first taints the account."""
    from tests.route_silent import SILENT_ROUTES

    return [_step(stage, name, run, changes=True) for name, run in SILENT_ROUTES.items()]


def _step(stage: Stage, name: str, run: StepFunction, *, changes: bool) -> Step:
    async def play() -> None:
        before = {} if changes else await stage.roots_now()
        await run(stage)
        if not changes:
            after = await stage.roots_now()
            moved = [key for key, root in before.items() if after[key] != root]
            assert not moved, f"{name} moved {len(moved)} roots"
            stage.report.look_alikes.append(name)

    return Step(name, play, changes)


async def play_routes(
    devnet: Devnet,
    *,
    seed: int = 1,
    silent: bool = False,
    on_block: Callable[[int], Awaitable[None]] | None = None,
) -> RoutesReport:
    """Play the whole script; `on_block` gets the latest block's number after every step."""
    stage = Stage(devnet, seed)
    for step in [*script(stage), *(silent_script(stage) if silent else [])]:
        await step.run()
        if on_block is not None:
            await on_block(await devnet.rpc.block_number())
    return stage.report


async def truth(
    devnet: Devnet,
    managers: Sequence[Address],
    accounts: Sequence[Address],
    first: int,
    last: int,
) -> dict[tuple[Address, Address], list[tuple[int, Hash32]]]:
    """Return the changes of every root in these blocks, by the managers' getters at each block.

    A change is a root that differs from the one at the end of the block before; pairs without any
    change have an empty list.
    """
    pairs = [(manager, account) for manager in managers for account in accounts]
    blocks = list(range(max(first - 1, 0), last + 1))
    rows = await _roots(devnet, pairs, blocks)
    before = rows[0] if first > 0 else [ZERO_HASH] * len(pairs)
    found: dict[tuple[Address, Address], list[tuple[int, Hash32]]] = {pair: [] for pair in pairs}
    for block, row in zip(blocks, rows, strict=True):
        if block >= first:
            for pair, old, new in zip(pairs, before, row, strict=True):
                if new != old:
                    found[pair].append((block, new))
            before = row
    return found


async def true_balances(
    devnet: Devnet, holders: Iterable[tuple[Address, Address, int]], block: int | None = None
) -> dict[tuple[Address, Address, int], int]:
    """Return balanceOf of every (token contract, owner, token id), after a block or now."""
    wanted = sorted(holders)
    at_block = "latest" if block is None else hex(block)
    requests = [
        _call(token, call_data("balanceOf(address,uint256)", owner, token_id), at_block)
        for token, owner, token_id in wanted
    ]
    answers = await devnet.rpc.batch(requests)
    return {holder: int(answer, 16) for holder, answer in zip(wanted, answers, strict=True)}


async def _roots(
    devnet: Devnet, pairs: Sequence[tuple[Address, Address]], blocks: Sequence[int]
) -> list[list[Hash32]]:
    """Return the roots of all pairs at each block. No code at the manager yet counts as zero."""
    calls = [(manager, call_data("getSessionKeys(address)", a)) for manager, a in pairs]
    requests = [_call(to, data, hex(block)) for block in blocks for to, data in calls]
    answers = await devnet.rpc.batch(requests)
    roots = [Hash32(bytes.fromhex(one[2:]) or ZERO_HASH) for one in answers]
    width = len(pairs)
    return [roots[i * width : (i + 1) * width] for i in range(len(blocks))]


def _call(to: Address, data: bytes, block: str) -> tuple[str, list[object]]:
    return "eth_call", [{"to": hexed(to), "data": hexed(data)}, block]
