"""Hand-made rows: a test names the columns it is about, the catalogue fills in the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CHAIN = 80001
ZERO20, ZERO32 = bytes(20), bytes(32)
LONG_AGO = datetime(2023, 11, 1, tzinfo=UTC)


def address(n: int) -> bytes:
    """The n-th address of the tests."""
    return n.to_bytes(20, "big")


def hash32(n: int) -> bytes:
    """The n-th hash of the tests."""
    return n.to_bytes(32, "big")


def text(value: bytes) -> str:
    """The 0x text that views show."""
    return "0x" + value.hex()


# By domain or type; where a CHECK wants one of a list, by the column's name.
_BY_TYPE: dict[str, Any] = {
    "address": address(1),
    "hash32": hash32(1),
    "uint256": 2**256 - 1,
    "block_number": 1,
    "unix_seconds": 1_700_000_000,
    "int8": 1,
    "int4": 1,
    "numeric": 1,
    "float8": 1.0,
    "text": "x",
    "bool": False,
    "jsonb": "{}",
    "timestamptz": LONG_AGO,
    "bytea": b"\x00\xff",
    "_bytea": [hash32(1)],
    "_text": [],
    "int8multirange": [],
}
_BY_NAME: dict[str, Any] = {
    "chain_id": CHAIN,
    "source": "factory",
    "evidence": "event",
    "attribution": "none",
    "verdict": "in_sync",
    "severity": "info",
    "pass": "logs",
    "name": "mumbai",
    "reason": "no_log",
    "storage_proof": "complete",
}

_NEEDED = """
SELECT a.attname, t.typname FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
 WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND a.attnotnull AND NOT a.atthasdef
   AND a.attidentity = ''"""


async def insert(connection: Connection, table: str, **values: Any) -> None:
    """Insert one row; needed columns that are not given get a value of their type."""
    row = {
        name: _BY_NAME.get(name, _BY_TYPE[kind])
        for name, kind in await connection.fetch(_NEEDED, table)
    }
    row.update(values)
    columns = ", ".join(f'"{name}"' for name in row)
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", *row.values())


async def small_slices(connection: Connection, blocks: int = 100) -> None:
    """Let a partition hold few blocks, before the first is made."""
    await connection.execute(
        "CREATE OR REPLACE FUNCTION chain.slice_blocks() RETURNS bigint LANGUAGE sql IMMUTABLE"
        f" PARALLEL SAFE RETURN {blocks}"
    )


async def make_chain(
    connection: Connection, *, start: int = 1, final: int = 10, tip: int = 20, **more: Any
) -> None:
    """A chain whose block n has the hash n, final up to `final`, with a tail up to `tip`."""
    await connection.execute("SELECT chain.ensure_partitions(80001, 0)")
    await insert(
        connection,
        "chain.chain",
        start_block=start,
        finalized_number=final,
        finalized_hash=hash32(final),
        finalized_time=1000 + final,
        indexed_number=tip,
        indexed_hash=hash32(tip),
        indexed_time=1000 + tip,
        latest_number=tip + 2,
        latest_time=1000 + tip + 4,
        **more,
    )
    for n in range(final, tip + 1):
        await insert(
            connection,
            "chain.tail",
            block_number=n,
            hash=hash32(n),
            parent_hash=hash32(n - 1),
            block_time=1000 + n,
        )
    for n in range(1, tip + 1):
        await insert(connection, "chain.block", block_number=n, hash=hash32(n), block_time=1000 + n)


async def observe(
    connection: Connection,
    block: int,
    root: bytes,
    *,
    account: bytes = address(1),
    manager: bytes = address(0xAA),
    block_hash: bytes | None = None,
    attributed: bool = False,
) -> None:
    """A root read at a block; with `attributed`, at a trigger of that block."""
    key = {"account": account, "manager": manager, "block_number": block}
    await insert(
        connection,
        "evidence.root_observation",
        **key,
        block_hash=block_hash or hash32(block),
        root=root,
    )
    if attributed:
        await insert(connection, "chain.root_attribution", **key, evidence="calldata")


async def cover(
    connection: Connection,
    name: str,
    filter_: str,
    *ranges: tuple[int, int],
    cohort: int = 0,
    live_from: int | None = None,
) -> None:
    """Coverage by ranges with both ends included."""
    await insert(
        connection,
        "chain.coverage",
        **{"pass": name},
        filter=filter_,
        cohort=cohort,
        live_from=live_from,
        blocks=[asyncpg.Range(first, last + 1) for first, last in ranges],
    )


async def rows(connection: Connection, query: str, *args: Any) -> Sequence[tuple[Any, ...]]:
    """The rows as tuples."""
    return [tuple(row) for row in await connection.fetch(query, *args)]
