"""What an audit reads of the database; it writes nothing."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg

from indexer.core.audit_claims import COLUMNS, Covered, LogRow, Membership, accounts_in
from indexer.core.debt import Span
from indexer.core.passes import Pass
from indexer.core.roots import RootObservation
from indexer.core.types import Address, Hash32
from indexer.store.chain_row import read_chain
from indexer.store.pool import Database

_ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

# What retention has dropped was covered, but cannot be compared any more.
_COVERED = """
SELECT pass, filter, cohort,
       (c.blocks - coalesce(v.dropped, '{}')) * int8multirange(int8range($2, $3 + 1)) AS blocks
  FROM chain.covered AS c JOIN chain.coverage AS v USING (chain_id, pass, filter, cohort)
 WHERE chain_id = $1"""

_COHORTS = "SELECT cohort_id, adopted_block FROM chain.cohort WHERE chain_id = $1"


async def read_covered(database: Database, chain_id: int) -> Covered | None:
    """Return what is covered from the start block to the finalized one; None: nothing can be."""
    async with database.transaction() as connection:
        await connection.execute(_ONE_SNAPSHOT)
        chain = await read_chain(connection, chain_id)
        if chain is None or chain.start_block is None or chain.finalized_number is None:
            return None
        rows = await connection.fetch(_COVERED, chain_id, chain.start_block, chain.finalized_number)
        cohorts = await connection.fetch(_COHORTS, chain_id)
    return Covered(
        chain.start_block,
        chain.finalized_number,
        {
            (Pass(row["pass"], row["filter"]), row["cohort"]): [
                (span.lower, span.upper - 1) for span in row["blocks"]
            ]
            for row in rows
        },
        {row[0]: row[1] for row in cohorts},
    )


@dataclass(frozen=True, slots=True)
class StoredSlots:
    """An account's own slots as they were read at a block hash."""

    block_number: int
    block_hash: Hash32
    account: Address
    implementation: Address
    fallback_handler: Address


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """What the database has of some blocks.

    `blocks` are the known hashes by number; `members` has the cohorts of every watched account
    that was asked for or has a row here.
    """

    blocks: dict[int, Hash32]
    rows: list[LogRow]
    roots: list[RootObservation]
    slots: list[StoredSlots]
    members: dict[Address, Membership]


# The finalized block is known by its marker, whether or not anything happened in it.
_BLOCKS = """
SELECT block_number, hash FROM chain.block
 WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3
UNION
SELECT finalized_number, finalized_hash FROM chain.chain
 WHERE chain_id = $1 AND finalized_number BETWEEN $2 AND $3
 ORDER BY 1"""

_ROWS = """
SELECT {columns} FROM chain.{table}
 WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3{condition}
 ORDER BY block_number, log_index"""

_ROOTS = """
SELECT block_number, block_hash, manager, account, root FROM chain.canonical_root
 WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3
 ORDER BY block_number, manager, account"""

_SLOTS = """
SELECT block_number, block_hash, account, implementation, fallback_handler
  FROM chain.canonical_slots
 WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3
 ORDER BY block_number, account"""

_COHORTS_OF = """
SELECT account, cohort_id, token_cohort_id FROM chain.account
 WHERE chain_id = $1 AND account = ANY($2::bytea[])"""


async def read_chunk(
    database: Database, chain_id: int, span: Span, accounts: Collection[Address]
) -> StoredChunk:
    """Return everything an audit compares of these blocks, from one snapshot."""
    rows: list[LogRow] = []
    async with database.transaction() as connection:
        await connection.execute(_ONE_SNAPSHOT)
        blocks = await connection.fetch(_BLOCKS, chain_id, *span)
        for kind, columns in COLUMNS.items():
            condition = " AND evidence = 'event'" if kind == "root_hint" else ""
            query = _ROWS.format(columns=", ".join(columns), table=kind, condition=condition)
            found = await connection.fetch(query, chain_id, *span)
            rows += [LogRow(kind, _plain(row)) for row in found]
        roots = await connection.fetch(_ROOTS, chain_id, *span)
        slots = await connection.fetch(_SLOTS, chain_id, *span)
        asked = sorted({*accounts, *(account for row in rows for account in accounts_in(row))})
        cohorts = await connection.fetch(_COHORTS_OF, chain_id, asked)
    return StoredChunk(
        {row[0]: Hash32(row[1]) for row in blocks},
        rows,
        [
            RootObservation(r[0], Hash32(r[1]), Address(r[2]), Address(r[3]), Hash32(r[4]))
            for r in roots
        ],
        [
            StoredSlots(r[0], Hash32(r[1]), Address(r[2]), Address(r[3]), Address(r[4]))
            for r in slots
        ],
        {Address(row[0]): Membership(row[1], row[2]) for row in cohorts},
    )


def _plain(row: asyncpg.Record) -> dict[str, Any]:
    """Return a row with numbers, JSON and arrays as decoding gives them."""
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value)
    if name == "args":
        return json.loads(value)
    return tuple(value) if isinstance(value, list) else value
