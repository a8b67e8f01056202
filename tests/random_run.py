"""A random run: operations of many accounts packed into random blocks, between forks.

What is true of it is asked of the node at every block, in bulk.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import product

from indexer.chain.readers import deployless_request, marked_words
from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, Transaction
from indexer.devnet.operations import Call, Key, call_data
from indexer.devnet.rpc import hexed
from tests.random_operations import (
    MANAGERS,
    MODULES,
    SILENT_SHARE,
    TOKEN_IDS,
    Acting,
    Actor,
    restored,
)
from tests.route_decoys import USER_OPERATION_EVENT

BLOCK_GAS = 10**9
DEEPEST_FORK = 8
BLOCK_SIZES = (0, 1, 1, 2, 3, 5, 8, 12)
FORK_CHANCE = 0.06
UNDEPLOYED_SHARE = 5
"""One of so many accounts is made by its first operation."""

TRUTH_CALLS = 100
"""In one request; each is some kilobytes."""

Change = tuple[str, str, int, str]
"""Manager, account, block number, root."""


class RandomRun:
    """Plays `operations` per account. `caught_up` is awaited before a fork."""

    def __init__(self, devnet: Devnet, seed: int, accounts: int, operations: int) -> None:
        self.devnet, self.rpc = devnet, devnet.rpc
        self.chance = random.Random(seed)
        self.forks: list[str] = []
        self.sent = 0
        self.actors = [self._actor(number, operations) for number in range(accounts)]
        self.acting = Acting(devnet, self.actors, self.chance)
        self._urgent: list[Transaction] = []
        self._begun: list[tuple[int, Actor]] = []
        self._waiting = list(self.actors)
        self._tip = self._highest = 0
        self._snapshot: tuple[str, int] | None = None

    def _actor(self, number: int, operations: int) -> Actor:
        return Actor(
            account=self.devnet.account(f"random/{number}"),
            key=Key.named(f"random/{number}/session"),
            silent=number % SILENT_SHARE == 0,
            pool=[Hash32(bytes([7, number, i]) + bytes(29)) for i in range(2)],
            left=operations,
        )

    @property
    def addresses(self) -> list[Address]:
        return [actor.address for actor in self.actors]

    async def prepare(self) -> None:
        """Make most accounts, with their modules; deeper than any fork reaches."""
        await self.rpc.call("evm_setBlockGasLimit", hex(BLOCK_GAS))
        await self.rpc.set_automine(False)
        await self.rpc.batch(
            [("anvil_setBalance", [hexed(one), hexed(10**21)]) for one in self.addresses]
        )
        early = [a for n, a in enumerate(self.actors) if n % UNDEPLOYED_SHARE]
        for start in range(0, len(early), 10):
            ops = [
                self.acting.signed(
                    actor,
                    [Call(actor.address, call_data("enableModule(address)", m)) for m in MODULES],
                )
                for actor in early[start : start + 10]
            ]
            await self._send(self.devnet.bundle(ops))
        await self._mine(DEEPEST_FORK + 1)
        await self._look()
        assert sum(actor.deployed for actor in self.actors) == len(early)

    async def play(self, caught_up: Callable[[], Awaitable[None]]) -> None:
        """Do everything, and mine on until the last branch is the longest there ever was."""
        while self._waiting:
            for _ in range(self.chance.choice(BLOCK_SIZES)):
                if self._waiting:
                    await self._let_act(self.chance.choice(self._waiting))
            await self._mine()
            if self.chance.random() < FORK_CHANCE:
                await caught_up()
                await self._fork()
        await self._mine()
        # What was put back without a log is seen where the account acts next, by either lane.
        for actor in self.actors:
            if actor.silent:
                call = self.acting.set_call(actor)
                await self._send(self.devnet.bundle([self.acting.signed(actor, [call])]))
        await self._mine(max(self._highest - self._tip, 0) + 3)

    async def _let_act(self, actor: Actor) -> None:
        left = actor.left
        transaction = self.acting.next_of(actor)
        if actor.left < left:
            self._begun.append((self._tip + 1, actor))
        if transaction is None:
            self._waiting.remove(actor)
        else:
            await self._send(transaction)

    async def _send(self, transaction: Transaction) -> None:
        await self.rpc.send(
            transaction.sender, transaction.to, transaction.data, gas=transaction.gas
        )
        self.sent += 1

    async def _mine(self, blocks: int = 1) -> None:
        await self.rpc.mine(blocks)
        self._tip = await self.rpc.block_number()
        self._highest = max(self._highest, self._tip)
        if self._snapshot is None:
            self._snapshot = await self.rpc.snapshot(), self._tip
        elif self._tip - self._snapshot[1] > DEEPEST_FORK:
            self._snapshot = None

    async def _fork(self) -> None:
        """Let another branch win: at once, by lower blocks that others follow, or by a snapshot."""
        depth = self.chance.randint(1, DEEPEST_FORK)
        kind = self.chance.choice(["reorg", "rollback", "revert"])
        if kind == "revert" and self._snapshot is not None and self._snapshot[1] < self._tip:
            kept = self._snapshot[1]
            await self.rpc.revert(self._snapshot[0])
        elif kind == "reorg":
            kept = self._tip - depth
            await self.rpc.reorg(depth)
        else:
            kind, kept = "rollback", self._tip - depth
            await self.rpc.rollback(depth)
        self.forks.append(kind)
        self._snapshot = None
        self._tip = await self.rpc.block_number()
        await self._look()
        for transaction in self._urgent:
            await self._send(transaction)
        self._urgent.clear()
        # What was lost is to be done again, as other operations.
        for number, actor in self._begun:
            actor.left += number > kept
        self._begun = [one for one in self._begun if one[0] <= kept]
        self._waiting = list(self.actors)

    async def _look(self) -> None:
        """See what the branch has of each account; what was begun on another one is over."""
        slots = [
            ("eth_getStorageAt", [hexed(a), hexed(a.rjust(32, b"\0")), "latest"])
            for a in self.addresses
        ]
        found = await self.rpc.batch(slots)
        for actor, slot in zip(self.actors, found, strict=True):
            implementation = bytes.fromhex(slot[-40:])
            actor.deployed = any(implementation)
            actor.now = iter(())
            if implementation == at.EVIL_IMPLEMENTATION:
                self._urgent.append(restored(actor))


async def true_changes(
    devnet: Devnet, managers: Sequence[Address], accounts: Sequence[Address], first: int, last: int
) -> set[Change]:
    """Return every root that differs from the block before, by getSessionKeys at each block.

    One eth_call asks for all accounts. `first` is the block before any root.
    """
    places = list(product(range(first, last + 1), managers))
    requests = [deployless_request(manager, accounts, hex(number)) for number, manager in places]
    answers: list[str] = []
    for start in range(0, len(requests), TRUTH_CALLS):
        answers += await devnet.rpc.batch(requests[start : start + TRUTH_CALLS])
    before = {manager: [ZERO_HASH] * len(accounts) for manager in managers}
    found: set[Change] = set()
    for (number, manager), answer in zip(places, answers, strict=True):
        roots = marked_words(answer, len(accounts))
        found |= {
            (hexed(manager), hexed(account), number, hexed(new))
            for account, old, new in zip(accounts, before[manager], roots, strict=True)
            if old != new
        }
        before[manager] = roots
    return found


async def true_operations(
    devnet: Devnet, accounts: Sequence[Address], last: int
) -> set[tuple[str, str, bool, int]]:
    """Return (userOpHash, sender, success, block number) of every event of these accounts."""
    asked = {
        "address": hexed(at.ENTRY_POINT),
        "topics": [hexed(USER_OPERATION_EVENT)],
        "fromBlock": "0x0",
        "toBlock": hex(last),
    }
    senders = {hexed(account) for account in accounts}
    return {
        (log["topics"][1], sender, bool(int(log["data"][66:130], 16)), int(log["blockNumber"], 16))
        for log in await devnet.rpc.call("eth_getLogs", asked)
        if (sender := "0x" + log["topics"][2][-40:]) in senders
    }


def holders(run: RandomRun) -> list[tuple[Address, Address, int]]:
    """Return whose balances of which tokens the run may have changed."""
    owners = [one for actor in run.actors for one in (actor.address, actor.key.address)]
    return [(at.SEED_TOKEN, owner, token_id) for owner in owners for token_id in TOKEN_IDS]


__all__ = ["MANAGERS", "RandomRun", "holders", "true_changes", "true_operations"]
