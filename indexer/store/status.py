"""What the daemon knows, in one read: for /status, the status page and `sessionwatch status`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import asyncpg

from indexer.errors import DatabaseUnavailableError
from indexer.store.pool import Database

MAX_DRIFTS = 50
"""Newest drifted accounts listed per chain."""
MAX_REORGS = 10
"""Newest reorgs listed per chain."""

VERDICTS = ("in_sync", "pending", "drifted", "unmanaged", "empty", "unknown")

_ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
# A status read must never hold the database up: better no answer than a late one.
_LIMIT_TIME = "SET LOCAL statement_timeout = '4s'"

# `::float8`: the pool's codec reads numeric as whole numbers, which a fraction does not fit.
_PROGRESS = """
SELECT chain_id, chain, latest_block, indexed_block, finalized_block, lag_blocks,
       lag_seconds::float8 AS lag_seconds, start_block, confirmed_at, updated_at,
       finality_violation, finished
  FROM watch.progress
 ORDER BY chain_id
"""

# The table, not watch.verdict: only so does the partial index on open verdicts answer alone, and
# the rows of verdicts that are over stay unread.
_VERDICTS = """
SELECT chain_id, verdict, cause, count(*) AS accounts
  FROM chain.verdict
 WHERE closed_block IS NULL
 GROUP BY chain_id, verdict, cause
 ORDER BY chain_id, verdict, cause
"""

# Before the first finalized block nobody knows what a pass owes: then it is absent, not 0.
_COVERAGE = """
SELECT chain_id, pass, sum(missing_blocks)::bigint AS missing_blocks
  FROM watch.coverage
 GROUP BY chain_id, pass
HAVING count(missing_blocks) = count(*)
 ORDER BY chain_id, pass
"""

_DRIFTS = """
SELECT p.chain_id, d.account, d.manager, d.cause, d.severity, d.since_block, d.since_time,
       d.explanation, d.is_final
  FROM watch.progress p
 CROSS JOIN LATERAL (
       SELECT * FROM watch.drift v
        WHERE v.chain_id = p.chain_id
        ORDER BY v.since_time DESC, v.verdict_id DESC
        LIMIT $1) d
 ORDER BY p.chain_id, d.since_time DESC, d.verdict_id DESC
"""

_REORGS = """
SELECT p.chain_id, r.detected_at, r.common_ancestor, r.depth, r.reason,
       r.old_tip_number AS old_tip_block, r.old_tip AS old_tip_hash,
       r.new_tip_number AS new_tip_block, r.new_tip AS new_tip_hash
  FROM watch.progress p
 CROSS JOIN LATERAL (
       SELECT * FROM watch.reorg o
        WHERE o.chain_id = p.chain_id
        ORDER BY o.reorg_id DESC
        LIMIT $1) r
 ORDER BY p.chain_id, r.reorg_id DESC
"""


async def read_status(database: Database) -> dict[str, Any]:
    """Return progress, verdicts, debt, drifts and reorgs of every chain, from one snapshot.

    Shape, ready for JSON (times are ISO 8601 in UTC, addresses and hashes `0x…` text):
    `{"chains": [{"chain_id", "chain", "progress": {…}, "verdicts": {verdict: accounts},
    "drifted_by_cause": {cause: accounts}, "coverage_missing_blocks": {pass: blocks},
    "finality_violation": text or None, "last_reorg": {…} or None, "reorgs": […],
    "newest_drifts": […]}]}`. A pass's debt is summed over its filters; a pass
    that does not know its debt yet is absent. Raises
    DatabaseUnavailableError, also when the database takes longer than a status is worth.
    """
    async with database.transaction() as connection:
        try:
            await connection.execute(_ONE_SNAPSHOT)
            await connection.execute(_LIMIT_TIME)
            progress = await connection.fetch(_PROGRESS)
            verdicts = await connection.fetch(_VERDICTS)
            coverage = await connection.fetch(_COVERAGE)
            drifts = await connection.fetch(_DRIFTS, MAX_DRIFTS)
            reorgs = await connection.fetch(_REORGS, MAX_REORGS)
        except asyncpg.QueryCanceledError as error:
            raise DatabaseUnavailableError(
                "the database took more than 4 seconds for the status",
                remedy="look for long-running queries in pg_stat_activity",
            ) from error
    return {
        "chains": [
            _chain_status(
                row,
                _of_chain(verdicts, row["chain_id"]),
                _of_chain(coverage, row["chain_id"]),
                [_plain(drift) for drift in _of_chain(drifts, row["chain_id"])],
                [_plain(reorg) for reorg in _of_chain(reorgs, row["chain_id"])],
            )
            for row in progress
        ]
    }


def _chain_status(
    progress: asyncpg.Record,
    verdicts: list[asyncpg.Record],
    coverage: list[asyncpg.Record],
    drifts: list[dict[str, Any]],
    reorgs: list[dict[str, Any]],
) -> dict[str, Any]:
    counts = dict.fromkeys(VERDICTS, 0)
    causes: dict[str, int] = {}
    for row in verdicts:
        counts[row["verdict"]] += row["accounts"]
        if row["cause"] is not None:
            causes[row["cause"]] = row["accounts"]
    fields = _plain(progress)
    violation = fields.pop("finality_violation")
    return {
        "chain_id": progress["chain_id"],
        "chain": fields.pop("chain"),
        "progress": fields,
        "verdicts": counts,
        "drifted_by_cause": causes,
        "coverage_missing_blocks": {row["pass"]: row["missing_blocks"] for row in coverage},
        "finality_violation": violation,
        "last_reorg": reorgs[0] if reorgs else None,
        "reorgs": reorgs,
        "newest_drifts": drifts,
    }


def _of_chain(rows: Iterable[asyncpg.Record], chain_id: int) -> list[asyncpg.Record]:
    return [row for row in rows if row["chain_id"] == chain_id]


def _plain(row: asyncpg.Record) -> dict[str, Any]:
    """A row as JSON can carry it; the chain's id stands one level up."""
    return {
        key: value.isoformat() if isinstance(value, datetime) else value
        for key, value in row.items()
        if key != "chain_id"
    }
