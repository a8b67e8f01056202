"""The block tree behind the simulated node: pure values with deterministic hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_hash.auto import keccak

from indexer.core.types import ZERO_HASH, Address, BlockHeader, Hash32

GENESIS_SECONDS = 1_700_000_000
BLOCK_SECONDS = 2
BUNDLER = Address(b"\xbd" * 20)
"""Who sends every transaction."""
Slot = tuple[Address, Hash32]


@dataclass(frozen=True, slots=True)
class SimTransaction:
    """A transaction by what decoding reads of it; its place in the block is its place in a list."""

    to: Address | None
    input: bytes = b""


@dataclass(frozen=True, slots=True)
class SimLog:
    """A log to be; `transaction` is the index in its block."""

    address: Address
    topics: tuple[Hash32, ...] = ()
    data: bytes = b""
    transaction: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SimBlock:
    """One block of the tree. `slots` and `code` are what the block writes, not all there is."""

    header: BlockHeader
    parent: SimBlock | None
    logs: tuple[SimLog, ...] = ()
    transactions: tuple[SimTransaction, ...] = ()
    slots: Mapping[Slot, Hash32] = field(default_factory=dict)
    code: Mapping[Address, bytes] = field(default_factory=dict)
    seed: int = 0

    @property
    def number(self) -> int:
        return self.header.number

    @property
    def hash(self) -> Hash32:
        return self.header.hash

    def transaction_hash(self, index: int) -> Hash32:
        """Return a hash that stays the same if the transaction is mined again in another branch."""
        known = self.transactions[index] if index < len(self.transactions) else None
        told = b"" if known is None else (known.to or b"") + known.input
        return Hash32(keccak(f"transaction {self.seed} {self.number} {index} ".encode() + told))

    def transaction_count(self) -> int:
        return max([len(self.transactions), *(log.transaction + 1 for log in self.logs)])

    def storage(self, slot: Slot) -> Hash32:
        """Return the word in a slot after this block."""
        block: SimBlock | None = self
        while block is not None:
            if slot in block.slots:
                return block.slots[slot]
            block = block.parent
        return ZERO_HASH

    def code_at(self, address: Address) -> bytes:
        """Return the code at an address after this block."""
        block: SimBlock | None = self
        while block is not None:
            if address in block.code:
                return block.code[address]
            block = block.parent
        return b""

    def to_json(self) -> dict[str, Any]:
        """Return the answer of eth_getBlockBy*."""
        return {
            "number": hex(self.number),
            "hash": hexed(self.hash),
            "parentHash": hexed(self.header.parent_hash),
            "timestamp": hex(self.header.timestamp),
            "extraData": hexed(bytes(97)),
            "transactions": [
                hexed(self.transaction_hash(index)) for index in range(self.transaction_count())
            ],
        }

    def log_to_json(self, index: int, *, with_timestamp: bool) -> dict[str, Any]:
        """Return one element of the answer of eth_getLogs."""
        log = self.logs[index]
        answer: dict[str, Any] = {
            "address": hexed(log.address),
            "topics": [hexed(topic) for topic in log.topics],
            "data": hexed(log.data),
            "blockNumber": hex(self.number),
            "blockHash": hexed(self.hash),
            "transactionHash": hexed(self.transaction_hash(log.transaction)),
            "transactionIndex": hex(log.transaction),
            "logIndex": hex(index),
            "removed": False,
        }
        if with_timestamp:
            answer["blockTimestamp"] = hex(self.header.timestamp)
        return answer

    def transaction_to_json(self, index: int) -> dict[str, Any]:
        """Return the answer of eth_getTransactionByBlockHashAndIndex."""
        known = index < len(self.transactions)
        transaction = self.transactions[index] if known else SimTransaction(Address(bytes(20)))
        return {
            "hash": hexed(self.transaction_hash(index)),
            "blockHash": hexed(self.hash),
            "blockNumber": hex(self.number),
            "transactionIndex": hex(index),
            "from": hexed(BUNDLER),
            "to": None if transaction.to is None else hexed(transaction.to),
            "input": hexed(transaction.input),
        }


def genesis(seed: int) -> SimBlock:
    """Return block 0 of a tree."""
    block_hash = Hash32(keccak(f"genesis {seed}".encode()))
    return SimBlock(BlockHeader(0, block_hash, ZERO_HASH, GENESIS_SECONDS), None, seed=seed)


def child(
    parent: SimBlock,
    branch: int,
    *,
    logs: Sequence[SimLog] = (),
    transactions: Sequence[SimTransaction] = (),
    slots: Mapping[Slot, Hash32] | None = None,
    code: Mapping[Address, bytes] | None = None,
) -> SimBlock:
    """Return the next block; another `branch` number gives another hash."""
    number = parent.number + 1
    block_hash = Hash32(keccak(f"block {number} {branch} ".encode() + parent.hash))
    seconds = GENESIS_SECONDS + number * BLOCK_SECONDS
    return SimBlock(
        header=BlockHeader(number, block_hash, parent.hash, seconds),
        parent=parent,
        logs=tuple(logs),
        transactions=tuple(transactions),
        slots=dict(slots or {}),
        code=dict(code or {}),
        seed=parent.seed,
    )


def hexed(value: bytes) -> str:
    """Return lower-case hex with 0x."""
    return "0x" + value.hex()


def unhexed(text: str) -> bytes:
    """Return the bytes of 0x hex."""
    return bytes.fromhex(text.removeprefix("0x"))
