"""The watch list in the database: who is on it, and putting accounts there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.core.types import Address
from indexer.store.chain_row import Connection
from indexer.store.pool import Database


@dataclass(frozen=True, slots=True)
class WatchedRow:
    """One account of the watch list; `adopted_block` None for those of cohort 0."""

    account: Address
    seq: int
    cohort_id: int
    adopted_block: int | None


_WATCHED = """
SELECT a.account, a.seq, a.cohort_id, c.adopted_block
  FROM chain.account AS a LEFT JOIN chain.cohort AS c USING (chain_id, cohort_id)
 WHERE a.chain_id = $1 AND a.seq > $2 ORDER BY a.seq"""


async def read_watched(database: Database, chain_id: int, after_seq: int) -> list[WatchedRow]:
    """Return the accounts learnt after `after_seq`."""
    async with database.connection() as connection:
        rows = await connection.fetch(_WATCHED, chain_id, after_seq)
    return [WatchedRow(Address(r[0]), r[1], r[2], r[3]) for r in rows]


# Two lanes adopt, one after the other: each cohort has a number and a block of its own.
_ONE_ADOPTS = "SELECT indexed_number FROM chain.chain WHERE chain_id = $1 FOR NO KEY UPDATE"

# The cohort only with an account in it: an empty one would owe the chain's whole history.
_ADOPT = """
WITH adopted AS (
    INSERT INTO chain.account (chain_id, account, cohort_id, source)
    SELECT $1, account, next.cohort_id, $4
      FROM (SELECT coalesce(max(cohort_id), 0) + 1 AS cohort_id
              FROM chain.cohort WHERE chain_id = $1) AS next,
           unnest($2::bytea[]) AS account
    ON CONFLICT (chain_id, account) DO NOTHING
    RETURNING cohort_id
)
INSERT INTO chain.cohort (chain_id, cohort_id, adopted_block)
SELECT DISTINCT $1::bigint, cohort_id, $3::bigint FROM adopted
RETURNING cohort_id"""

_COHORT_DEBT = """
INSERT INTO chain.coverage (chain_id, pass, filter, cohort)
SELECT $1, pass, filter, $2 FROM chain.coverage
 WHERE chain_id = $1 AND cohort = 0 AND filter = 'accounts'
ON CONFLICT DO NOTHING"""


async def adopt_accounts(
    connection: Connection, chain_id: int, accounts: Sequence[Address], source: str
) -> None:
    """Watch accounts that no factory log announced, as a cohort with a history debt of its own.

    They are watched above the indexed block; the watch version moves, so that a step planned
    without them is planned again. `source` as in chain.account.
    """
    indexed_number = await connection.fetchval(_ONE_ADOPTS, chain_id)
    cohort_id = await connection.fetchval(_ADOPT, chain_id, list(accounts), indexed_number, source)
    if cohort_id is not None:
        await connection.execute(_COHORT_DEBT, chain_id, cohort_id)
        await connection.execute(
            "UPDATE chain.chain SET watch_version = watch_version + 1 WHERE chain_id = $1", chain_id
        )
