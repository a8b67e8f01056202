"""The watch list in the database: who is on it, putting accounts there, and cohorts' lives.

A cohort is open until a range is claimed for it: accounts learnt meanwhile join it and share its
one pass over the past. When all of it is paid, its accounts are like all others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from indexer.core.debt import CohortSource
from indexer.core.types import Address
from indexer.store.chain_row import COHORT_FILTERS, Connection, lock_chain
from indexer.store.pool import Database


@dataclass(frozen=True, slots=True)
class WatchedRow:
    """One account of the watch list; `adopted_block` None for those of cohort 0.

    `token_cohort_id` and `token_adopted_block` say the same of transfers that touch it.
    """

    account: Address
    seq: int
    cohort_id: int
    adopted_block: int | None
    token_cohort_id: int = 0
    token_adopted_block: int | None = None


_WATCHED = """
SELECT a.account, a.seq, a.cohort_id, c.adopted_block, a.token_cohort_id, t.adopted_block
  FROM chain.account AS a
  LEFT JOIN chain.cohort AS c ON c.chain_id = a.chain_id AND c.cohort_id = a.cohort_id
  LEFT JOIN chain.cohort AS t ON t.chain_id = a.chain_id AND t.cohort_id = a.token_cohort_id
 WHERE a.chain_id = $1 AND """


async def read_watched(database: Database, chain_id: int, after_seq: int) -> list[WatchedRow]:
    """Return the accounts learnt, or moved to another cohort, after `after_seq`."""
    query = _WATCHED + "a.seq > $2 ORDER BY a.seq"
    async with database.connection() as connection:
        rows = await connection.fetch(query, chain_id, after_seq)
    return [WatchedRow(Address(r[0]), *r[1:]) for r in rows]


async def watched_among(
    database: Database, chain_id: int, addresses: Collection[Address]
) -> list[WatchedRow]:
    """Return those of these addresses that are watched accounts."""
    if not addresses:
        return []
    query = _WATCHED + "a.account = ANY($2::bytea[])"
    async with database.connection() as connection:
        rows = await connection.fetch(query, chain_id, list(addresses))
    return [WatchedRow(Address(r[0]), *r[1:]) for r in rows]


_MEMBERS = """
SELECT account FROM chain.account WHERE chain_id = $1 AND {column} = $2 ORDER BY account LIMIT $3"""


async def read_members(
    database: Database, chain_id: int, cohort: int, most: int, *, tokens: bool
) -> list[Address]:
    """Return at most so many accounts of a cohort; `tokens`: of its transfers."""
    query = _MEMBERS.format(column="token_cohort_id" if tokens else "cohort_id")
    async with database.connection() as connection:
        rows = await connection.fetch(query, chain_id, cohort, most)
    return [Address(row[0]) for row in rows]


# Two lanes adopt, one after the other: each cohort has a number and a block of its own.
LOCK_FOR_ADOPTION = "SELECT indexed_number FROM chain.chain WHERE chain_id = $1 FOR NO KEY UPDATE"

_NEW = """
SELECT account FROM unnest($2::bytea[]) AS account
 WHERE NOT EXISTS (
     SELECT FROM chain.account AS a WHERE a.chain_id = $1 AND a.account = account.account)"""

_NEWEST_OF = """
SELECT max(cohort_id) FROM chain.cohort WHERE chain_id = $1 AND source = $2"""

# Who claims the cohort's first range waits, or has been first: then it is closed.
_IS_OPEN = """
SELECT NOT bool_or(begun) FROM (
    SELECT begun FROM chain.coverage WHERE chain_id = $1 AND cohort = $2
     ORDER BY pass, filter FOR UPDATE) AS locked"""

_JOIN = """
UPDATE chain.cohort SET adopted_block = greatest(adopted_block, $3)
 WHERE chain_id = $1 AND cohort_id = $2"""

_NEW_COHORT = """
WITH numbered AS (
    UPDATE chain.chain SET next_cohort = next_cohort + 1 WHERE chain_id = $1
    RETURNING next_cohort - 1 AS cohort_id
)
INSERT INTO chain.cohort (chain_id, cohort_id, adopted_block, source)
SELECT $1, cohort_id, $2, $3 FROM numbered
RETURNING cohort_id"""

_COHORT_DEBT = f"""
INSERT INTO chain.coverage (chain_id, pass, filter, cohort)
SELECT $1, pass, filter, $2 FROM chain.coverage
 WHERE chain_id = $1 AND cohort = 0 AND filter IN ({COHORT_FILTERS.format(source="$3::text")})
ON CONFLICT DO NOTHING"""

_ADOPT = """
INSERT INTO chain.account (chain_id, account, cohort_id, token_cohort_id, source)
SELECT $1, account, $3, $3, $4 FROM unnest($2::bytea[]) AS account
ON CONFLICT (chain_id, account) DO NOTHING"""

_REPLAN = "UPDATE chain.chain SET watch_version = watch_version + 1 WHERE chain_id = $1"


async def _open_cohort(
    connection: Connection, chain_id: int, source: CohortSource, adopted_block: int | None
) -> int:
    """Return a cohort that new accounts can join; the chain's row is locked."""
    newest = await connection.fetchval(_NEWEST_OF, chain_id, source)
    if newest is not None and await connection.fetchval(_IS_OPEN, chain_id, newest):
        await connection.execute(_JOIN, chain_id, newest, adopted_block)
        return int(newest)
    cohort = await connection.fetchval(_NEW_COHORT, chain_id, adopted_block, source)
    await connection.execute(_COHORT_DEBT, chain_id, cohort, source)
    return int(cohort)


async def adopt_accounts(
    connection: Connection, chain_id: int, accounts: Sequence[Address], source: CohortSource
) -> None:
    """Watch accounts that no factory log announced in time, in a cohort with a debt of its own.

    They are watched above the indexed block; the watch version moves, so that a step planned
    without them is planned again. `source`: stored, list or factory.
    """
    indexed_number = await connection.fetchval(LOCK_FOR_ADOPTION, chain_id)
    new = [row[0] for row in await connection.fetch(_NEW, chain_id, list(accounts))]
    if new:
        cohort = await _open_cohort(connection, chain_id, source, indexed_number)
        await connection.execute(_ADOPT, chain_id, new, cohort, source)
        await connection.execute(_REPLAN, chain_id)


_TOUCHING = """
SELECT begun FROM chain.coverage
 WHERE chain_id = $1 AND pass = 'logs' AND filter = 'erc1155/touching' AND cohort = 0"""
_TOKENS_BEGUN = _TOUCHING + " FOR UPDATE"

_CREATED = """
INSERT INTO chain.account (chain_id, account, cohort_id, token_cohort_id, block_number, source)
SELECT $1, account, 0, $4, block_number, 'factory'
  FROM unnest($2::bytea[], $3::bigint[]) AS made(account, block_number)
ON CONFLICT (chain_id, account) DO NOTHING"""


async def add_created(
    connection: Connection, chain_id: int, created: Mapping[Address, int]
) -> None:
    """Watch accounts that a factory made, by the block of their creation; known ones stay.

    Before its creation an account can do nothing, but tokens may have been sent to it: where
    the past was passed over without it, they are the debt of a cohort.
    """
    if not created:
        return
    token_cohort = 0
    if await connection.fetchval(_TOUCHING, chain_id) is not None:
        # The chain's row before any of coverage, as everybody locks them.
        indexed_number = await connection.fetchval(LOCK_FOR_ADOPTION, chain_id)
        begun = await connection.fetchval(_TOKENS_BEGUN, chain_id)
        if begun and await connection.fetch(_NEW, chain_id, list(created)):
            token_cohort = await _open_cohort(connection, chain_id, "token", indexed_number)
    accounts = sorted(created)
    await connection.execute(
        _CREATED, chain_id, accounts, [created[a] for a in accounts], token_cohort
    )


_BEGIN = """
UPDATE chain.coverage SET begun = true
 WHERE chain_id = $1 AND cohort = $2 AND NOT begun
   AND (pass, filter) IN (SELECT * FROM unnest($3::text[], $4::text[]))"""


async def begin(
    database: Database,
    chain_id: int,
    epoch: int,
    cohort: int,
    passes: Sequence[tuple[str, str]],
) -> None:
    """Close a cohort for newcomers, before its accounts are read for its first range."""
    async with database.transaction() as connection:
        await lock_chain(connection, chain_id, epoch, "history")
        await connection.execute(
            _BEGIN, chain_id, cohort, [p[0] for p in passes], [p[1] for p in passes]
        )


# --- taint that is found late -----------------------------------------------------------------

# Up to the block at which the account's slots are known next, roots were passed over: at logs
# only, as of a clean account.
_PASSED_OVER = """
SELECT f.account, f.block_number, next.block_number
  FROM unnest($2::bytea[], $3::bigint[]) AS f(account, block_number)
  JOIN chain.account AS a ON a.chain_id = $1 AND a.account = f.account
 CROSS JOIN LATERAL (
       SELECT min(o.block_number) AS block_number FROM chain.canonical_slots AS o
        WHERE o.chain_id = $1 AND o.account = f.account AND o.block_number > f.block_number) AS next
 WHERE EXISTS (SELECT FROM chain.covered AS v JOIN chain.chain AS c USING (chain_id)
                WHERE v.chain_id = $1 AND v.pass LIKE 'roots/%' AND v.filter = 'accounts'
                  AND v.cohort = a.cohort_id
                  AND v.blocks && int8range(f.block_number + 1, greatest(f.block_number + 1,
                                            least(next.block_number, c.finalized_number + 1))))
 ORDER BY f.account, f.block_number"""

# Where retention has dropped what the account did, its few logs and inputs are owed again.
_COPY_COVERAGE = """
INSERT INTO chain.coverage (chain_id, pass, filter, cohort, blocks, begun)
SELECT v.chain_id, v.pass, v.filter, $3,
       (v.blocks - CASE WHEN v.pass IN ('logs', 'bodies') THEN l.dropped ELSE '{}' END)
           * int8multirange(int8range(NULL, c.finalized_number + 1)), true
  FROM chain.covered AS v
  JOIN chain.chain AS c USING (chain_id)
  JOIN chain.coverage AS l ON l.chain_id = v.chain_id AND l.pass = 'logs' AND l.filter = v.filter
   AND l.cohort = v.cohort
 WHERE v.chain_id = $1 AND v.cohort = $2 AND v.filter = 'accounts'"""

_OWE_AGAIN = """
UPDATE chain.coverage SET blocks = blocks - int8multirange(int8range($3 + 1, $4))
 WHERE chain_id = $1 AND cohort = $2 AND pass LIKE 'roots/%'"""

# What an account adopted above finality did up to its adoption is owed still.
_LEAVES = """
SELECT a.account, a.cohort_id, greatest(c.finalized_number, h.adopted_block)
  FROM chain.account AS a
  JOIN chain.chain AS c USING (chain_id)
  LEFT JOIN chain.cohort AS h ON h.chain_id = a.chain_id AND h.cohort_id = a.cohort_id
 WHERE a.chain_id = $1 AND a.account = ANY($2::bytea[])"""

_MOVE = """
UPDATE chain.account SET cohort_id = $3, seq = DEFAULT
 WHERE chain_id = $1 AND account = ANY($2::bytea[])"""


async def read_again(
    connection: Connection, chain_id: int, found: Collection[tuple[Address, int]]
) -> list[Address]:
    """Owe the roots above blocks at which accounts were found tainted; return those accounts.

    `found` are accounts with those blocks, not known before; call it when the range that showed
    them counts as covered. Above the finalized block it is the live lane that reads again,
    before it goes on: also where nothing is owed, a step planned without knowing is planned again.
    """
    listed = sorted(found)
    await connection.fetchval(LOCK_FOR_ADOPTION, chain_id)
    await connection.execute(_REPLAN, chain_id)
    rows = await connection.fetch(
        _PASSED_OVER, chain_id, [account for account, _ in listed], [block for _, block in listed]
    )
    if not rows:
        return []
    accounts = sorted({Address(row[0]) for row in rows})
    cohorts: dict[int, int] = {}
    moved: dict[Address, int] = {}
    for account, before, adopted_block in await connection.fetch(_LEAVES, chain_id, accounts):
        if before not in cohorts:
            cohort = await connection.fetchval(_NEW_COHORT, chain_id, adopted_block, "tainted")
            await connection.execute(_COPY_COVERAGE, chain_id, before, cohort)
            cohorts[before] = cohort
        await connection.execute(_MOVE, chain_id, [account], cohorts[before])
        moved[Address(account)] = cohorts[before]
    for account, block_number, next_number in rows:
        await connection.execute(
            _OWE_AGAIN, chain_id, moved[Address(account)], block_number, next_number
        )
    return accounts


# --- the end of a cohort ----------------------------------------------------------------------

# Up to its adoption, which is final, the same is covered for it as for cohort 0.
_DISSOLVED = f"""
DELETE FROM chain.cohort AS h USING chain.chain AS c
 WHERE h.chain_id = $1 AND c.chain_id = $1 AND h.adopted_block <= c.finalized_number
   AND NOT EXISTS (
       SELECT FROM chain.coverage AS v
        CROSS JOIN (SELECT int8multirange(int8range(NULL, h.adopted_block + 1)) AS blocks) AS past
        WHERE v.chain_id = $1 AND v.cohort IN (0, h.cohort_id)
          AND v.filter IN ({COHORT_FILTERS.format(source="h.source")})
        GROUP BY v.pass, v.filter, past.blocks
       HAVING coalesce(range_agg(v.blocks) FILTER (WHERE v.cohort = 0), '{{}}') * past.blocks
           <> coalesce(range_agg(v.blocks) FILTER (WHERE v.cohort > 0), '{{}}') * past.blocks)
RETURNING h.cohort_id"""

# Cohort 0 owes the same blocks, with the same stretches lost or asked for anew.
_FORGET_LOST = """
DELETE FROM evidence.unobserved WHERE chain_id = $1 AND cohort = ANY($2::int[])"""
_FORGET_COVERAGE = """
DELETE FROM chain.coverage WHERE chain_id = $1 AND cohort = ANY($2::int[])"""
_SETTLE = """
UPDATE chain.account SET cohort_id = 0 WHERE chain_id = $1 AND cohort_id = ANY($2::int[])"""
_SETTLE_TOKENS = """
UPDATE chain.account SET token_cohort_id = 0
 WHERE chain_id = $1 AND token_cohort_id = ANY($2::int[])"""


async def dissolve_cohorts(connection: Connection, chain_id: int, epoch: int) -> int:
    """Let cohorts that nothing sets apart be part of cohort 0; return how many there were.

    Else each import would leave one behind for ever, and each new manager a pass for each. No
    range may be in flight: it was begun for the accounts that belonged to its cohort then.
    """
    await lock_chain(connection, chain_id, epoch, "live")
    rows = await connection.fetch(_DISSOLVED, chain_id)
    paid = [row[0] for row in rows]
    if paid:
        for statement in (_FORGET_LOST, _FORGET_COVERAGE, _SETTLE, _SETTLE_TOKENS):
            await connection.execute(statement, chain_id, paid)
    return len(paid)
