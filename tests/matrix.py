"""What the matrix of configuration changes stands on: one long chain, and who asked it what.

Most of its blocks are empty; what happens is drawn from a seed, so every test has the same chain
on a node of its own, and a database that was settled on it once serves as template for many.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from eth_hash.auto import keccak

from indexer.core.topics import TRANSFER_TOPICS
from indexer.core.types import Address
from indexer.devnet import addresses as at
from indexer.store.chain_row import Connection
from tests.daemon_process import Daemon, configuration, dump, running_daemon, settled, until
from tests.fixtures_database import connected, temporary_database
from tests.sim.blocks import hexed
from tests.sim.node import SimNode
from tests.sim.story import ACCOUNTS, Story, World, word

Keys = dict[str, Any]
Rows = dict[str, list[Any]]
Prepare = Callable[[str], Awaitable[None]]

FINALITY_DEPTH = 8
START_BLOCK = 200
BUSY_BLOCKS = 250
EMPTY_BLOCKS = 6
"""Between two busy ones."""
FREE_CALLS = 8

FOREIGN = tuple(Address(keccak(f"foreign {i}".encode())[12:]) for i in range(2))
"""Accounts of a factory that the narrow configuration does not name."""
LATE = Address(keccak(b"late")[12:])
"""An account that has tokens long before it is there."""
WORLD = World(
    accounts=(*ACCOUNTS, *FOREIGN, LATE),
    late=(LATE, *FOREIGN),
    factory_of=dict.fromkeys(FOREIGN, at.CUSTOM_FACTORY),
    tokens=(at.SEED_TOKEN, at.SECOND_TOKEN),
    silent_managers=(at.MANAGER, at.MANAGER_AUGUST),
    # What a tainted account costs depends on where ranges end: the law's chaos has them.
    taints=False,
)


def tell(node: SimNode) -> Story:
    """Let the chain's story happen on a new node; the newest blocks, not final yet, are busy."""
    # Words one by one, and logs that say when their block was made: then calls can be counted.
    node.overrides, node.deployless, node.timestamps_in_logs = "refused", False, True
    story = Story(node, random.Random(5), finality_depth=FINALITY_DEPTH, world=WORLD)
    for count in range(BUSY_BLOCKS):
        story.mine_empty(EMPTY_BLOCKS)
        story.mine()
        if count in {60, 120}:
            story.create(FOREIGN[count // 60 - 1])
    for _ in range(FINALITY_DEPTH // 2):
        story.mine()
    return story


def go_on(story: Story) -> None:
    """Let more happen, and become final; in no more blocks than the live lane catches up with."""
    for _ in range(5):
        story.mine_empty(EMPTY_BLOCKS)
        story.mine()
    make_final(story)


def make_final(story: Story) -> None:
    """Let what was the tail become final."""
    story.mine_empty(FINALITY_DEPTH + 2)


# --- what was asked ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of a node about the past, in JSON-RPC calls.

    `range_blocks`: eth_getLogs by range, each counted once for every block it reaches over, so
    that the size of ranges does not matter. `by_hash`: eth_getLogs of one block. `words`: slots
    of storage. `headers`: of final blocks, outside the requests whose witness they are.
    """

    range_blocks: int = 0
    by_hash: int = 0
    words: int = 0
    transactions: int = 0
    headers: int = 0

    def __add__(self, other: Asked) -> Asked:
        return Asked(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    @classmethod
    def past(cls, node: SimNode, began: int, tip: int) -> Asked:
        """Count requests from the `began`-th on, of blocks up to `tip`: the tip of long ago.

        Heads are left out: how often they are asked for is a matter of time. So are blocks above
        `tip`, which are the live lane's, whatever is owed.
        """
        known = {hexed(node.block(number).hash) for number in range(tip + 1)}
        ranges = by_hash = words = transactions = headers = 0
        for request in node.requests[began:]:
            has_range = False
            for method, params in request:
                match method, params:
                    case "eth_getLogs", [{"fromBlock": first, "toBlock": last}]:
                        ranges += int(last, 16) - int(first, 16) + 1
                        has_range = True
                    case "eth_getLogs", [{"blockHash": block_hash}]:
                        by_hash += block_hash in known
                    case "eth_getStorageAt", [_, _, {"blockHash": block_hash}]:
                        words += block_hash in known
                    case "eth_getTransactionByBlockHashAndIndex", [block_hash, _]:
                        transactions += block_hash in known
                    case "eth_getBlockByNumber", [number, _] if number.startswith("0x"):
                        headers += not has_range and int(number, 16) < tip - FINALITY_DEPTH
        return cls(ranges, by_hash, words, transactions, headers)

    def calls(self, range_size: int = 100) -> float:
        """Return how many calls these are of a node that answers so many blocks at once."""
        return (
            self.range_blocks / range_size
            + self.by_hash
            + self.words
            + self.transactions
            + self.headers
        )


# --- daemons ----------------------------------------------------------------------------------


@dataclass
class Life:
    """One life of a daemon on a database."""

    daemon: Daemon
    node: SimNode
    connection: Connection
    config: str
    began: int
    """How many requests the node had seen before."""

    async def settled(self) -> None:
        """Wait until the tip is indexed and nothing is owed."""
        tip = self.node.tip

        async def is_settled() -> bool:
            assert self.daemon.process.returncode is None, self.daemon.log()
            return await settled(self.connection, tip.number, tip.hash)

        # Before that the database is as the last life left it: settled.
        await self.daemon.following()
        await until(is_settled, "the debt to be paid", 20)

    async def alike(self) -> None:
        """Wait until no cohort is apart any more."""

        async def none_is_apart() -> bool:
            return not await self.connection.fetchval("SELECT count(*) FROM chain.cohort")

        await until(none_is_apart, "every cohort to dissolve", 20)

    async def watches(self, *accounts: Address) -> None:
        """Wait until these accounts are on the watch list."""
        query = "SELECT count(*) FROM chain.account WHERE account = ANY($1::bytea[])"

        async def watched() -> bool:
            return await self.connection.fetchval(query, list(accounts)) == len(accounts)

        await until(watched, "accounts to be watched", 20)

    def asked(self, tip: int) -> Asked:
        """Return what this life has asked so far about blocks up to `tip`."""
        return Asked.past(self.node, self.began, tip)

    async def dump(self) -> Rows:
        """Return what the law compares."""
        return await dump(self.connection)


@dataclass
class Matrix:
    """Makes databases that were settled under one configuration, and lives on copies of them."""

    postgres_url: str
    empty: str
    folder: Path
    stack: AsyncExitStack
    _bases: dict[str, str] = field(default_factory=dict)
    _fresh: dict[str, tuple[Rows, Asked]] = field(default_factory=dict)
    _lives: int = 0

    @asynccontextmanager
    async def copy(self, template: str) -> AsyncIterator[str]:
        """The URL of a copy of a database."""
        async with temporary_database(self.postgres_url, template) as url:
            yield url

    @asynccontextmanager
    async def life(self, url: str, node: SimNode, keys: Keys) -> AsyncIterator[Life]:
        """Run a daemon; it is stopped at the end."""
        self._lives += 1
        config = configuration(url, node.url, **keys)
        began = len(node.requests)
        async with (
            connected(url) as connection,
            running_daemon(self.folder, config, name=f"life-{self._lives}") as daemon,
        ):
            yield Life(daemon, node, connection, config, began)
            assert await daemon.stop() == 0

    async def base(self, keys: Keys, prepare: Prepare | None = None) -> str:
        """Return the name of a database that is settled under a configuration.

        `prepare` is called with the configuration file's text before the daemon begins.
        """
        name = repr((keys, prepare))
        if name not in self._bases:
            url = await self.stack.enter_async_context(self.copy(self.empty))
            async with SimNode(finality_depth=FINALITY_DEPTH) as node:
                tell(node)
                if prepare is not None:
                    await prepare(configuration(url, node.url, **keys))
                async with self.life(url, node, keys) as life:
                    await life.settled()
                    made = await life.connection.fetchval("SELECT current_database()")
            self._bases[name] = made
        return self._bases[name]

    async def fresh(
        self, node: SimNode, keys: Keys, *, prepare: Prepare | None = None, once: str = ""
    ) -> tuple[Rows, Asked]:
        """Return what an index writes that begins under this configuration, and asks for it.

        `once` names what several tests want of the very same chain and configuration.
        """
        if once in self._fresh:
            return self._fresh[once]
        async with self.copy(self.empty) as url:
            if prepare is not None:
                await prepare(configuration(url, node.url, **keys))
            async with self.life(url, node, keys) as life:
                await life.settled()
                found = await life.dump(), life.asked(node.tip.number)
        if once:
            self._fresh[once] = found
        return found


# --- the debt's share -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Owed:
    """What a change owes of the blocks `first` to `last`, by the terms of the change itself.

    `filters`: how many questions for logs each block is asked by range. `by_hash`: how many each
    of `blocks` is asked. The roots of `managers` (None: of all) are owed at every trigger of
    `accounts`, with `bodies` the inputs of their operations too.
    """

    first: int
    last: int
    filters: int = 0
    by_hash: int = 0
    blocks: Collection[int] = ()
    accounts: Collection[Address] = ()
    managers: Collection[Address] | None = None
    bodies: bool = False

    async def share(self, connection: Connection) -> Asked:
        """Return it in calls; the triggers are those whose rows are stored."""
        key = (list(self.accounts), self.first, self.last)
        managers = None if self.managers is None else list(self.managers)
        # An account's slots: implementation, handler, and each configured manager as a module.
        words = await connection.fetchval(
            """
            SELECT (SELECT count(*) FROM evidence.root_observation
                     WHERE account = ANY($1::bytea[]) AND block_number BETWEEN $2 AND $3
                       AND ($4::bytea[] IS NULL OR manager = ANY($4::bytea[])))
                 + (SELECT count(*) FROM evidence.account_observation
                     WHERE account = ANY($1::bytea[]) AND block_number BETWEEN $2 AND $3)
                 * (SELECT 2 + cardinality(managers) FROM chain.chain)""",
            *key,
            managers,
        )
        transactions = await connection.fetchval(
            "SELECT count(DISTINCT transaction_hash) FROM chain.user_operation "
            "WHERE sender = ANY($1::bytea[]) AND block_number BETWEEN $2 AND $3",
            *key,
        )
        return Asked(
            self.filters * (self.last - self.first + 1),
            self.by_hash * len(self.blocks),
            words,
            transactions if self.bodies else 0,
        )


def tail_again(tip: int, filters: int) -> Owed:
    """Return what it costs to begin with accounts' logs anew: the tail, block by block."""
    tail = range(tip - FINALITY_DEPTH + 1, tip + 1)
    return Owed(tail[0], tip, 0, filters, tail, WORLD.accounts, bodies=True)


def blocks_naming(node: SimNode, first: int, last: int, *accounts: Address) -> list[int]:
    """Return the blocks in which these accounts did anything, as their own logs or bundles say."""
    words = set(map(word, accounts))
    return [
        number
        for number in range(first, last + 1)
        if any(
            log.address in accounts
            or (log.address == at.ENTRY_POINT and not words.isdisjoint(log.topics))
            for log in node.block(number).logs
        )
    ]


def blocks_with_logs_of(node: SimNode, first: int, last: int, emitter: Address) -> list[int]:
    """Return the blocks in which a contract has logged anything."""
    return [
        number
        for number in range(first, last + 1)
        if any(log.address == emitter for log in node.block(number).logs)
    ]


def transfers_of(node: SimNode, first: int, last: int, account: Address) -> list[int]:
    """Return the blocks in which tokens went to an account or from it."""
    return [
        number
        for number in range(first, last + 1)
        if any(
            log.address in WORLD.tokens
            and log.topics[0] in TRANSFER_TOPICS
            and word(account) in log.topics[2:]
            for log in node.block(number).logs
        )
    ]


def excess(asked: Asked, share: Asked) -> list[str]:
    """Return where more was asked than a tenth above the share; nothing is the promise.

    A few calls more are free: which form of reading state a node takes is found out anew in each
    life, and who is adopted is looked at once at the tip.
    """
    found = []
    for name in Asked.__slots__:  # type: ignore[attr-defined]
        was, fair = getattr(asked, name), getattr(share, name)
        if was > 1.1 * fair + FREE_CALLS:
            found.append(f"{name}: {was} were asked, the debt's share is {fair}")
    return found
