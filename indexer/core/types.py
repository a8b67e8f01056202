"""The values that travel from a node to a row: bytes inside, `0x…` text only at the edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

Address = NewType("Address", bytes)
"""20 bytes."""
Hash32 = NewType("Hash32", bytes)
"""32 bytes: a block, transaction or user operation hash, a leaf, a root, a topic."""

ZERO_ADDRESS = Address(bytes(20))
ZERO_HASH = Hash32(bytes(32))


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What we keep of a block's header. `timestamp` is unix seconds of the chain."""

    number: int
    hash: Hash32
    parent_hash: Hash32
    timestamp: int


@dataclass(frozen=True, slots=True)
class ChainHead:
    """A node's tip and its last final block, asked for in one request."""

    latest: BlockHeader
    finalized: BlockHeader


@dataclass(frozen=True, slots=True)
class Log:
    """One log of eth_getLogs, hex decoded. `block_timestamp` only where the node gives it."""

    block_number: int
    block_hash: Hash32
    transaction_hash: Hash32
    transaction_index: int
    log_index: int
    address: Address
    topics: tuple[Hash32, ...]
    data: bytes
    block_timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One session as SessionKeyManager V1 hashes it. Times are unix seconds, 0 = unbounded."""

    valid_until: int
    valid_after: int
    session_validation_module: Address
    session_key_data: bytes
