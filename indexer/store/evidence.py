"""What was read of state before, by block: all there is where no node has that state any more.

Evidence outlives its rows: after a restore, or a rewind below finality, the blocks it stands in are
indexed again, and it counts as soon as they are known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from indexer.core.debt import Span
from indexer.core.roots import AccountObservation, RootObservation
from indexer.core.types import Address, BlockHeader, Hash32
from indexer.store.chain_row import Connection
from indexer.store.pool import Database

_AT_BLOCKS = """
JOIN unnest($2::bigint[], $3::bytea[]) AS b(block_number, hash)
  ON b.block_number = o.block_number AND b.hash = o.block_hash
WHERE o.chain_id = $1"""

_ROOTS = f"""
SELECT o.block_number, o.block_hash, o.manager, o.account, o.root
  FROM evidence.root_observation AS o {_AT_BLOCKS} AND o.manager = ANY($4::bytea[])"""

_SLOTS = f"""
SELECT o.block_number, o.block_hash, o.account, o.implementation, o.fallback_handler,
       o.enabled_managers, o.tainted
  FROM evidence.account_observation AS o {_AT_BLOCKS}"""

_FORGOTTEN = """
SELECT DISTINCT o.block_number
  FROM (SELECT chain_id, block_number FROM evidence.root_observation
         WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3
        UNION ALL
        SELECT chain_id, block_number FROM evidence.account_observation
         WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3) AS o
 WHERE NOT EXISTS (SELECT FROM chain.block AS b
                    WHERE b.chain_id = o.chain_id AND b.block_number = o.block_number)
 ORDER BY 1"""

_OBSERVED = f"""
SELECT o.manager, o.account, bool_or(o.root <> decode(repeat('00', 32), 'hex')) AS had_root
  FROM evidence.root_observation AS o {_AT_BLOCKS} AND o.block_number BETWEEN $4 AND $5
 GROUP BY o.manager, o.account"""


async def observed_at(
    database: Database, chain_id: int, headers: Sequence[BlockHeader], managers: Collection[Address]
) -> tuple[list[RootObservation], list[AccountObservation]]:
    """Return every root of these managers, and all slots, that were read at these blocks."""
    blocks = ([h.number for h in headers], [h.hash for h in headers])
    async with database.connection() as connection:
        roots = await connection.fetch(_ROOTS, chain_id, *blocks, list(managers))
        slots = await connection.fetch(_SLOTS, chain_id, *blocks)
    return (
        [
            RootObservation(r[0], Hash32(r[1]), Address(r[2]), Address(r[3]), Hash32(r[4]))
            for r in roots
        ],
        [
            AccountObservation(
                r[0],
                Hash32(r[1]),
                Address(r[2]),
                Address(r[3]),
                Address(r[4]),
                tuple(map(Address, r[5])),
                r[6],
            )
            for r in slots
        ],
    )


async def forgotten_blocks(database: Database, chain_id: int, span: Span) -> list[int]:
    """Return the blocks of a range at which state was read, and of which nothing else is known."""
    async with database.connection() as connection:
        return [row[0] for row in await connection.fetch(_FORGOTTEN, chain_id, *span)]


async def keys_observed_at(
    connection: Connection, chain_id: int, headers: Collection[BlockHeader], span: Span
) -> dict[tuple[Address, Address], bool]:
    """Return the (manager, account) whose root was read at these blocks, and whether one stood."""
    rows = await connection.fetch(
        _OBSERVED, chain_id, [h.number for h in headers], [h.hash for h in headers], *span
    )
    return {(Address(row[0]), Address(row[1])): row[2] for row in rows}
