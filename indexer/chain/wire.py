"""The JSON shapes of a node's answers and strict conversion of their hex.

Functions raise ValueError and do not repeat the value: it comes from outside, it may be anything.
Fields a node adds are ignored; fields it leaves out fail the decode. Source: Ethereum
execution-apis, schemas of eth_getLogs, eth_getBlockBy* and eth_getTransactionByHash.
"""

from __future__ import annotations

import re
from typing import cast

import msgspec

from indexer.core.types import Address, BlockHeader, Hash32, Log

MAX_TOPICS = 4
MAX_UNIX_SECONDS = 253_402_300_799
"""The last second of the year 9999: later ones no driver can show, and soon no timestamptz hold."""
MAX_BLOCK_NUMBER = 1_000_000_000_000
"""The last block the database has room for (chain.ensure_partitions)."""
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")


class RawLog(msgspec.Struct, gc=False, rename="camel"):
    """One element of eth_getLogs. A pending log has null here and is refused by the decode."""

    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    transaction_index: str
    log_index: str
    removed: bool = False
    block_timestamp: str | None = None


class RawHeader(msgspec.Struct, gc=False, rename="camel"):
    """What we read of a block. A pending block has a null hash and is refused by the decode."""

    number: str
    hash: str
    parent_hash: str
    timestamp: str


class RawTransaction(msgspec.Struct, gc=False, rename="camel"):
    """What we read of a transaction. Nulls: pending, or the creation of a contract."""

    hash: str
    input: str
    sender: str = msgspec.field(name="from")
    block_hash: str | None = None
    block_number: str | None = None
    to: str | None = None


# A union is no type[T] for the type checker, though it is one for the decoder.
HEADER_OR_NULL = cast("type[RawHeader | None]", RawHeader | None)
TRANSACTION_OR_NULL = cast("type[RawTransaction | None]", RawTransaction | None)
RAW_LOGS = list[RawLog]


def to_hex(value: bytes) -> str:
    """Return lower-case hex with 0x."""
    return "0x" + value.hex()


def quantity(text: str, *, bits: int = 63) -> int:
    """Return the number of `0x` hex digits; the default bound is what Postgres' bigint holds."""
    if _QUANTITY.fullmatch(text) is None:
        raise ValueError("a number is not 0x and 1 to 64 hex digits")
    value = int(text, 16)
    if value >> bits:
        raise ValueError(f"a number does not fit in {bits} bits")
    return value


def block_number(text: str) -> int:
    """Return a block's number, refused where the database would refuse it."""
    value = quantity(text)
    if value > MAX_BLOCK_NUMBER:
        raise ValueError(f"a block's number is beyond {MAX_BLOCK_NUMBER}")
    return value


def unix_seconds(text: str) -> int:
    """Return a block's time: one that cannot be shown would make every view of its rows fail."""
    value = quantity(text)
    if value > MAX_UNIX_SECONDS:
        raise ValueError("a block's time is after the year 9999")
    return value


def data(text: str) -> bytes:
    """Return the bytes of `0x` and an even number of hex digits."""
    if not text.startswith("0x"):
        raise ValueError("bytes do not begin with 0x")
    try:
        value = bytes.fromhex(text[2:])
    except ValueError:
        raise ValueError("bytes are not an even number of hex digits") from None
    # fromhex skips white space: the length tells.
    if 2 * len(value) + 2 != len(text):
        raise ValueError("bytes hold white space")
    return value


def hash32(text: str) -> Hash32:
    """Return exactly 32 bytes."""
    value = data(text)
    if len(value) != 32:
        raise ValueError(f"a hash has {len(value)} bytes instead of 32")
    return Hash32(value)


def address(text: str) -> Address:
    """Return exactly 20 bytes; the case of the digits means nothing."""
    value = data(text)
    if len(value) != 20:
        raise ValueError(f"an address has {len(value)} bytes instead of 20")
    return Address(value)


def word(text: str) -> Hash32:
    """Return a storage word: nodes may write it shortened (`0x0`, `0xabcd`), so it is padded."""
    return Hash32(quantity(text, bits=256).to_bytes(32, "big"))


def header(raw: RawHeader) -> BlockHeader:
    """Return the header we keep."""
    return BlockHeader(
        number=block_number(raw.number),
        hash=hash32(raw.hash),
        parent_hash=hash32(raw.parent_hash),
        timestamp=unix_seconds(raw.timestamp),
    )


class LogReader:
    """Turns the logs of one answer into ours.

    Block hashes, addresses, topics and block numbers repeat from log to log: each is converted
    once, which doubles the speed. Lives as long as the answer, so it is bounded by its bytes.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, Hash32] = {}
        self._addresses: dict[str, Address] = {}
        self._numbers: dict[str, int] = {}

    def log(self, raw: RawLog) -> Log:
        """Return the log; one that says `removed` belongs to a block that lost and is refused."""
        if raw.removed:
            raise ValueError("a log is marked removed")
        if len(raw.topics) > MAX_TOPICS:
            raise ValueError(f"a log has {len(raw.topics)} topics")
        place = self._addresses.get(raw.address)
        if place is None:
            place = self._addresses[raw.address] = address(raw.address)
        seconds = raw.block_timestamp
        return Log(
            block_number=self._number(raw.block_number),
            block_hash=self._hash(raw.block_hash),
            transaction_hash=self._hash(raw.transaction_hash),
            transaction_index=self._index(raw.transaction_index),
            log_index=self._index(raw.log_index),
            address=place,
            topics=tuple([self._hash(topic) for topic in raw.topics]),
            data=data(raw.data),
            block_timestamp=None if seconds is None else unix_seconds(seconds),
        )

    def _hash(self, text: str) -> Hash32:
        found = self._hashes.get(text)
        if found is None:
            found = self._hashes[text] = hash32(text)
        return found

    def _number(self, text: str) -> int:
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = quantity(text)
        return found

    def _index(self, text: str) -> int:
        """Return a position in a block, which is an int4 in the database."""
        found = self._number(text)
        if found >> 31:
            raise ValueError("a position in a block does not fit in 31 bits")
        return found
