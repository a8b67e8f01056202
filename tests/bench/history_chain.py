"""A long chain out of nothing but a seed: accounts, user operations, roots and ERC-1155 transfers.

Pure values. Both sides of the benchmark compute it: the node serves it, and at the end the
database is compared with it, so that a wrong index cannot look fast.

The blocks 1 to `blocks` are history. The first two fifths create all accounts; the rest holds user
operations, of which every second sets a new root; transfers are spread over all of it. What is
mined above is up to the node.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import astuple, dataclass

from eth_abi import encode

from indexer.core.types import ZERO_ADDRESS, Address, Hash32
from indexer.core.user_operations import (
    EXECUTE_NCC,
    HANDLE_OPS,
    SET_MERKLE_ROOT,
    UserOperation,
    user_op_hash,
)
from indexer.devnet import addresses as at

CHAIN_ID = 80001
WATCHED = 0
"""The number of the account whose root changes live, and never in history."""
TOKEN_IDS = 4
_BATCH_ITEMS = 5
_GENESIS_SECONDS = 1_700_000_000
_BLOCK_SECONDS = 2
_CREATING = 0.4
_OP_TYPE = "(address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes)"


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is in history; `transfers` counts moved ids, not logs."""

    transfers: int
    accounts: int
    operations: int
    blocks: int
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Operation:
    """A user operation in a transaction of its own. `root` None: it changes none."""

    account: Address
    nonce: int
    root: Hash32 | None

    def decoded(self) -> UserOperation:
        """Return the operation as its sender signed it."""
        if self.root is None:
            target, data = at.STRANGER, b""
        else:
            target, data = at.MANAGER, SET_MERKLE_ROOT + self.root
        call = EXECUTE_NCC + encode(["address", "uint256", "bytes"], [target, 0, data])
        signature = encode(["bytes", "address"], [bytes(65), at.ECDSA_MODULE])
        numbers = (100_000, 100_000, 50_000, 2_000_000_000, 1_000_000_000)
        return UserOperation(self.account, self.nonce, b"", call, *numbers, b"", signature)

    def hash(self) -> Hash32:
        """Return its userOpHash."""
        return user_op_hash(self.decoded(), at.ENTRY_POINT, CHAIN_ID)

    def handle_ops(self) -> bytes:
        """Return the input of the transaction that executes it, and nothing else."""
        arguments = [[astuple(self.decoded())], at.BUNDLER]
        return HANDLE_OPS + encode([f"{_OP_TYPE}[]", "address"], arguments)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One TransferSingle (one item) or TransferBatch: items are (token id, amount)."""

    giver: Address
    taker: Address
    items: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Content:
    """What one block of history holds, in this order, each log in a transaction of its own."""

    created: tuple[Address, ...] = ()
    operations: tuple[Operation, ...] = ()
    transfers: tuple[Transfer, ...] = ()


def account(number: int) -> Address:
    """Return the address of an account by its number."""
    return Address(hashlib.sha256(f"account {number}".encode()).digest()[:20])


class HistoryChain:
    """The history of one size. The same size is the same chain, in any process."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.accounts = [account(number) for number in range(size.accounts)]
        self._creating = max(int(size.blocks * _CREATING), 1)

    def hash(self, number: int) -> Hash32:
        """Return the hash of a block, of history or above."""
        return Hash32(hashlib.sha256(f"block {self.size.seed} {number}".encode()).digest())

    def seconds(self, number: int) -> int:
        """Return the time of a block."""
        return _GENESIS_SECONDS + number * _BLOCK_SECONDS

    def content(self, number: int) -> Content:
        """Return what block `number` of history holds; block 0 is empty."""
        size = self.size
        if not 1 <= number <= size.blocks:
            return Content()
        draw = random.Random(f"{size.seed} {number}")
        place, later = number - 1, number - 1 - self._creating
        created: tuple[Address, ...] = ()
        operations: tuple[Operation, ...] = ()
        if later < 0:
            first, end = _share(size.accounts, place, self._creating)
            created = tuple(self.accounts[first:end])
        else:
            first, end = _share(size.operations, later, size.blocks - self._creating)
            # Without repetition: two roots of one account in one block would be one change.
            senders = draw.sample(range(WATCHED + 1, size.accounts), end - first)
            operations = tuple(
                Operation(
                    self.accounts[sender],
                    nonce,
                    Hash32(draw.randbytes(32)) if nonce % 2 else None,
                )
                for nonce, sender in enumerate(senders, first)
            )
        first, end = _share(size.transfers, place, size.blocks)
        return Content(created, operations, tuple(self._transfers(draw, end - first)))

    def _transfers(self, draw: random.Random, items: int) -> list[Transfer]:
        """Return singles and batches of so many items together; one in eight is a mint."""
        found: list[Transfer] = []
        while items:
            count = min(items, draw.choice((1, 1, 1, 1, _BATCH_ITEMS)))
            giver = ZERO_ADDRESS if draw.random() < 0.125 else draw.choice(self.accounts)
            moved = tuple((draw.randrange(TOKEN_IDS), draw.randint(1, 1000)) for _ in range(count))
            found.append(Transfer(giver, draw.choice(self.accounts), moved))
            items -= count
        return found


@dataclass(frozen=True, slots=True)
class Truth:
    """What an index of the history must hold."""

    accounts: frozenset[Address]
    operations: int
    root_changes: frozenset[tuple[Address, int, Hash32]]
    """(account, block number, root), all of them in one manager."""
    transfers: int
    balances: dict[tuple[Address, int], int]
    """By (owner, token id), without zeros and without the zero address."""


def truth_of(chain: HistoryChain) -> Truth:
    """Add the whole history up."""
    created: set[Address] = set()
    changes: set[tuple[Address, int, Hash32]] = set()
    balances: Counter[tuple[Address, int]] = Counter()
    operations = transfers = 0
    for number in range(1, chain.size.blocks + 1):
        content = chain.content(number)
        created.update(content.created)
        operations += len(content.operations)
        changes |= {(o.account, number, o.root) for o in content.operations if o.root is not None}
        for transfer in content.transfers:
            transfers += len(transfer.items)
            for token_id, amount in transfer.items:
                balances[transfer.giver, token_id] -= amount
                balances[transfer.taker, token_id] += amount
    kept = {key: n for key, n in balances.items() if n and key[0] != ZERO_ADDRESS}
    return Truth(frozenset(created), operations, frozenset(changes), transfers, kept)


def _share(total: int, place: int, places: int) -> tuple[int, int]:
    """Return first and end of the share that falls to one of so many places, evenly."""
    return total * place // places, total * (place + 1) // places
