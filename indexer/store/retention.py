"""Retention: raw detail that is paid for and old goes, in whole partitions; what it told stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import asyncpg

from indexer.core.decoded import Erc1155Transfer
from indexer.core.types import Address
from indexer.errors import RetryableError, StaleStepError
from indexer.store.chain_row import ChainRow, Connection, lock_chain
from indexer.store.pool import Database

# Who waits for a table makes everybody wait who comes later, the live lane too. Shorter than
# deadlock_timeout: it is never the reader who loses.
LOCK_TIMEOUT_MS = 250

# In the order in which those who write rows lock them (store.copying).
TABLES = ("account_event", "user_operation", "erc1155_transfer")


@dataclass(frozen=True, slots=True)
class Dropped:
    """One partition that is gone. `rows` is the statistics' estimate."""

    table: str
    first_block: int
    last_block: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Partition:
    table: str
    first_block: int
    next_block: int


# The blocks below this one are old enough, and no pass that was configured when the daemon took
# over owes any of them, for any cohort: nobody is going to read their triggers from the tables.
_BEFORE = """
WITH asked AS (
    SELECT p ->> 0 AS pass, p ->> 1 AS filter
      FROM chain.chain, jsonb_array_elements(settings -> 'passes') AS p WHERE chain_id = $1
), members AS (
    SELECT 0 AS cohort, $3::bigint AS last_block
    UNION ALL
    SELECT cohort_id, least($3, adopted_block) FROM chain.cohort
     WHERE chain_id = $1 AND source <> 'token'
), owed AS (
    SELECT CASE WHEN m.last_block >= $2 THEN
           int8multirange(int8range($2, m.last_block + 1)) - coalesce(v.blocks, '{}') END AS blocks
      FROM asked AS a JOIN members AS m ON m.cohort = 0 OR a.filter = 'accounts'
      LEFT JOIN chain.coverage AS v ON v.chain_id = $1
       AND v.pass = a.pass AND v.filter = a.filter AND v.cohort = m.cohort
)
SELECT least(min(lower(blocks)), $3::bigint - $4 + 1) FROM owed"""

_PARTITIONS = r"""
SELECT parent.relname AS table_name, s.first_block, s.first_block + chain.slice_blocks()
  FROM pg_inherits AS i
  JOIN pg_class AS part ON part.oid = i.inhrelid
  JOIN pg_class AS parent ON parent.oid = i.inhparent
 CROSS JOIN LATERAL (
      SELECT substring(part.relname FROM format('^%s_c%s_p(\d+)$', parent.relname, $1::bigint))
             ::bigint * chain.slice_blocks() AS first_block) AS s
 WHERE parent.relnamespace = 'chain'::regnamespace AND parent.relname = ANY($3::text[])
   AND s.first_block + chain.slice_blocks() <= $2
   -- What stays of account_event has its partition for ever; nothing more is to be had from it.
   AND (parent.relname <> 'account_event' OR EXISTS (
        SELECT FROM chain.coverage AS v
         WHERE v.chain_id = $1 AND v.pass = 'logs' AND v.filter = 'accounts'
           AND (v.blocks - v.dropped) && int8range(s.first_block,
                                                   s.first_block + chain.slice_blocks())))
 ORDER BY s.first_block, array_position($3::text[], parent.relname::text)"""

# Once rows are gone, coverage alone says which transfers the balances hold (`uncounted`). Of a
# contract that was taken out of the configuration the balances may hold more than its coverage
# says, some of the tail: then the rows have to stay.
_BEYOND_COVERAGE = """
SELECT EXISTS (
    SELECT FROM (SELECT contract, min(block_number) AS first_block, max(block_number) AS last_block
                   FROM chain.erc1155_transfer
                  WHERE chain_id = $1 AND block_number >= $2 AND block_number < $3
                  GROUP BY contract) AS t
     WHERE NOT EXISTS (
        SELECT FROM chain.coverage AS v
         WHERE v.chain_id = $1 AND v.pass = 'logs' AND v.cohort = 0
           AND v.filter IN ('erc1155/all', 'erc1155/' || evidence.hex(t.contract))
        HAVING range_agg(v.blocks) @> int8range(t.first_block, t.last_block + 1)))"""

_DROP = """
SELECT dropped_first, dropped_last, row_estimate
  FROM chain.drop_partitions($1, $2, $3, $4)"""


async def drop_oldest(
    database: Database, chain_id: int, epoch: int, retention_blocks: int
) -> list[Dropped]:
    """Drop the partitions of the oldest slice that may go; return them, [] if there is none.

    A slice may go that ends `retention_blocks` below the finalized block or deeper, and that no
    pass owes a block of. Raises RetryableError while somebody holds the tables, StaleStepError
    if an account was adopted meanwhile: then some pass owes the slice after all.
    """
    async with database.transaction() as connection:
        # Until the first drop only as history does: the live lane goes on.
        chain = await lock_chain(connection, chain_id, epoch, "history")
        partitions = await _oldest(connection, chain, retention_blocks)
        if not partitions:
            return []
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                dropped = [
                    Dropped(part.table, *row)
                    for part in partitions
                    for row in await connection.fetch(
                        _DROP, chain_id, part.table, part.first_block, part.next_block
                    )
                ]
                # Adopting waits for the chain's row, which the drop holds by now.
                now = await lock_chain(connection, chain_id, epoch, "live")
        except asyncpg.LockNotAvailableError:
            raise RetryableError(
                f"the tables of chain {chain_id} are in use, so old detail is dropped later",
                remedy="end long queries on account_event, user_operation and erc1155_transfer",
            ) from None
        if now.watch_version != chain.watch_version:
            raise StaleStepError("an account was adopted while old detail was dropped")
    return dropped


async def _oldest(
    connection: Connection, chain: ChainRow, retention_blocks: int
) -> list[_Partition]:
    """Return the partitions of the oldest slice of which some may go."""
    start, final = chain.start_block, chain.finalized_number
    if start is None or final is None or chain.finality_violation is not None:
        return []
    before = await connection.fetchval(_BEFORE, chain.chain_id, start, final, retention_blocks)
    rows = await connection.fetch(_PARTITIONS, chain.chain_id, before, TABLES)
    parts = [_Partition(*row) for row in rows]
    for _, slice_ in groupby(parts, key=lambda part: part.first_block):
        may_go = [
            part
            for part in slice_
            if part.table != "erc1155_transfer"
            or not await connection.fetchval(
                _BEYOND_COVERAGE, chain.chain_id, part.first_block, part.next_block
            )
        ]
        if may_go:
            return may_go
    return []


_COUNTED = """
SELECT contract, range_agg(v.blocks) FROM unnest($2::bytea[]) AS asked(contract)
  JOIN chain.coverage AS v ON v.chain_id = $1 AND v.pass = 'logs' AND v.cohort = 0
   AND v.filter IN ('erc1155/all', 'erc1155/' || evidence.hex(contract))
 GROUP BY contract"""


async def uncounted(
    connection: Connection, chain: ChainRow, transfers: Sequence[Erc1155Transfer]
) -> list[Erc1155Transfer]:
    """Return those of the transfers, whose rows are new, that no balance holds yet.

    Above chain.detail_from that is all of them. Below it rows were dropped, and a transfer is
    counted if some pass that includes its contract covers its block. Called before the range's
    own coverage is written.
    """
    detail_from = chain.detail_from or 0
    old = sorted({t.contract for t in transfers if t.at.block_number < detail_from})
    if not old:
        return list(transfers)
    counted = {row[0]: row[1] for row in await connection.fetch(_COUNTED, chain.chain_id, old)}

    def is_counted(number: int, contract: Address) -> bool:
        spans = counted.get(contract, ())
        return number < detail_from and any(r.lower <= number < r.upper for r in spans)

    return [t for t in transfers if not is_counted(t.at.block_number, t.contract)]
