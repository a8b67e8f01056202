"""What a live step is planned on, read in one snapshot of the database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from indexer.core.reorg import Tail
from indexer.core.roots import RootObservation
from indexer.core.types import Address, BlockHeader, Hash32
from indexer.errors import StaleStepError
from indexer.store.chain_row import ChainRow, read_own_chain
from indexer.store.pool import Database


@dataclass(frozen=True, slots=True)
class LiveView:
    """What a step is planned on, read in one snapshot.

    `tail` has only its two ends: with_blocks and with_tail load more of it. `asked_at` is the
    database's clock before the node is asked anything; `tainted` are the accounts whose roots
    are read at every block. While discovery has not named every account (`accounts_live` false)
    no account's logs are kept, and the roots of `stored`, the accounts with session sets, are
    read at every block too; `discovered` says that it has. `polled_roots` are the latest roots
    of those that are read at every block, by (manager, account).
    """

    chain: ChainRow
    tail: Tail | None
    tainted: frozenset[Address]
    tainted_in_tail: frozenset[tuple[Address, int]]
    """Accounts with the blocks at which they were seen tainted, as far as the tail knows it."""
    asked_at: datetime
    accounts_live: bool
    discovered: bool
    stored: frozenset[Address]
    polled_roots: Mapping[tuple[Address, Address], Hash32]


# The whole tail has thousands of blocks while finality stalls: a step looks at a few of them.
_BLOCKS_OF_TAIL = """
SELECT block_number, hash, parent_hash, block_time FROM chain.tail
 WHERE chain_id = $1 AND block_number = ANY($2::bigint[]) ORDER BY block_number"""

_ABOVE_IN_TAIL = """
SELECT block_number, hash, parent_hash, block_time FROM chain.tail
 WHERE chain_id = $1 AND block_number >= $2 ORDER BY block_number"""

# The latest canonical observation of each account that was ever seen tainted.
_TAINTED = """
SELECT candidate.account FROM (
    SELECT DISTINCT account FROM evidence.account_observation WHERE chain_id = $1 AND tainted
) AS candidate
CROSS JOIN LATERAL (
    SELECT o.tainted FROM chain.canonical_slots AS o
     WHERE o.chain_id = $1 AND o.account = candidate.account
     ORDER BY o.block_number DESC LIMIT 1
) AS latest
WHERE latest.tainted"""


# What was seen tainted in the tail, or last before it: since then roots may change without a log.
_TAINTED_IN_TAIL = """
SELECT o.account, o.block_number
  FROM chain.canonical_slots AS o JOIN chain.chain AS c ON c.chain_id = o.chain_id
 WHERE o.chain_id = $1 AND o.tainted
   AND (o.block_number > c.finalized_number OR NOT EXISTS (
        SELECT FROM chain.canonical_slots AS later
         WHERE later.chain_id = o.chain_id AND later.account = o.account
           AND later.block_number > o.block_number
           AND later.block_number <= c.finalized_number))"""

# Discovery is complete when every factory that is followed is covered up to the finalized block.
_ACCOUNTS_LIVE = """
SELECT EXISTS (SELECT FROM chain.coverage WHERE chain_id = $1 AND pass = 'logs'
           AND filter = 'accounts' AND cohort = 0 AND live_from IS NOT NULL),
       NOT EXISTS (SELECT FROM chain.coverage AS f, chain.chain AS c
         WHERE c.chain_id = $1 AND f.chain_id = $1 AND f.filter LIKE 'factory/%'
           AND f.live_from IS NOT NULL
           AND CASE WHEN c.start_block <= c.finalized_number THEN
               NOT f.blocks @> int8range(c.start_block, c.finalized_number + 1) END)"""

_POLLED_ROOTS = """
SELECT m.manager, a.account, latest.root
  FROM chain.chain AS c, unnest(c.managers) AS m(manager), unnest($2::bytea[]) AS a(account)
 CROSS JOIN LATERAL (
    SELECT o.root FROM chain.canonical_root AS o
     WHERE o.chain_id = $1 AND o.manager = m.manager AND o.account = a.account
     ORDER BY o.block_number DESC LIMIT 1
) AS latest
 WHERE c.chain_id = $1"""

MAX_STORED_READ_PER_BLOCK = 5000

_STORED = """
SELECT DISTINCT account FROM sessions.session_set WHERE chain_id = $1 LIMIT $2"""


async def read_live(database: Database, chain_id: int, epoch: int) -> LiveView:
    """Read the chain's row, the ends of its tail and the tainted; never remembered across steps.

    FencedError if the epoch moved: a view of another's epoch would let the step write in its name.
    """
    async with database.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        asked_at = await connection.fetchval("SELECT clock_timestamp()")
        chain = await read_own_chain(connection, chain_id, epoch)
        ends = [chain.finalized_number, chain.indexed_number]
        headers = _headers(await connection.fetch(_BLOCKS_OF_TAIL, chain_id, ends))
        tainted = {Address(row[0]) for row in await connection.fetch(_TAINTED, chain_id)}
        in_tail = await connection.fetch(_TAINTED_IN_TAIL, chain_id)
        accounts_live, discovered = await connection.fetchrow(_ACCOUNTS_LIVE, chain_id)  # type: ignore[misc]
        stored: set[Address] = set()
        if not accounts_live:
            found = await connection.fetch(_STORED, chain_id, MAX_STORED_READ_PER_BLOCK)
            stored = {Address(row[0]) for row in found}
        polled = sorted(tainted | stored)
        roots = await connection.fetch(_POLLED_ROOTS, chain_id, polled) if polled else []
    return LiveView(
        chain,
        Tail(headers) if headers else None,
        frozenset(tainted),
        frozenset((Address(row[0]), row[1]) for row in in_tail),
        asked_at,
        accounts_live,
        discovered,
        frozenset(stored),
        {(Address(row[0]), Address(row[1])): Hash32(row[2]) for row in roots},
    )


_TAIL_ROOTS = """
SELECT o.manager, o.account, o.block_number, o.block_hash, o.root
  FROM chain.canonical_root AS o
 WHERE o.chain_id = $1 AND o.account = ANY($2::bytea[]) AND o.block_number >= $3"""


async def read_tail_roots(
    database: Database, chain_id: int, accounts: Collection[Address], first_block: int
) -> list[RootObservation]:
    """Return what is known of these accounts' roots from a block on."""
    async with database.connection() as connection:
        rows = await connection.fetch(_TAIL_ROOTS, chain_id, sorted(accounts), first_block)
    return [
        RootObservation(r[2], Hash32(r[3]), Address(r[0]), Address(r[1]), Hash32(r[4]))
        for r in rows
    ]


async def with_blocks(
    database: Database, chain_id: int, tail: Tail, numbers: Collection[int]
) -> Tail:
    """Return the tail with its blocks of these numbers, as far as it has them."""
    lacking = [number for number in numbers if tail.lacks(number)]
    if not lacking:
        return tail
    async with database.connection() as connection:
        found = await connection.fetch(_BLOCKS_OF_TAIL, chain_id, lacking)
    return _joined(tail, _headers(found))


async def with_tail(database: Database, chain_id: int, tail: Tail, first: int) -> Tail:
    """Return the tail with all its blocks from `first` on; the finalized one stays in it."""
    async with database.connection() as connection:
        found = await connection.fetch(_ABOVE_IN_TAIL, chain_id, first)
    return _joined(tail, _headers(found))


def _headers(rows: Iterable[asyncpg.Record]) -> tuple[BlockHeader, ...]:
    return tuple(BlockHeader(row[0], Hash32(row[1]), Hash32(row[2]), row[3]) for row in rows)


def _joined(tail: Tail, more: Iterable[BlockHeader]) -> Tail:
    """Put what was loaded later into the tail; StaleStepError if the two do not fit together."""
    by_number = {header.number: header for header in (*more, *tail.headers)}
    try:
        found = Tail(tuple(by_number[number] for number in sorted(by_number)))
    except ValueError as error:
        raise StaleStepError(str(error)) from error
    if (found.finalized, found.tip) != (tail.finalized, tail.tip):
        raise StaleStepError("the tail moved while it was read")
    return found
