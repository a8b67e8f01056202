"""What the daemon knows, in one read: for /status, the status page and `sessionwatch status`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from indexer.core import estimate
from indexer.core.debt import Span, intersect, merge, subtract
from indexer.core.estimate import LaneProgress, Owed, RecentPace
from indexer.core.passes import ACCOUNTS, Pass, hex_of
from indexer.store.pool import Database

MAX_DRIFTS = 50
"""Newest drifted accounts listed per chain."""
MAX_REORGS = 10
"""Newest reorgs listed per chain."""

VERDICTS = ("in_sync", "pending", "drifted", "unmanaged", "empty", "unknown")

STATEMENT_SECONDS = 4.0
"""A status read must never hold the database up: better no answer than a late one."""

# `::float8`: the pool's codec reads numeric as whole numbers, which a fraction does not fit.
_PROGRESS = """
SELECT chain_id, chain, latest_block, indexed_block, finalized_block, lag_blocks,
       lag_seconds::float8 AS lag_seconds, start_block, confirmed_at, updated_at,
       extract(epoch FROM now() - updated_at)::float8 AS updated_seconds_ago, finality_violation,
       finished
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

# Of the few that have drifted: the severity stands in no index.
_SEVERITIES = """
SELECT chain_id, severity, count(*) AS accounts
  FROM chain.verdict
 WHERE closed_block IS NULL AND verdict = 'drifted'
 GROUP BY chain_id, severity
 ORDER BY chain_id, severity
"""

# Before the first finalized block nobody knows what a pass owes: then it is absent, not 0.
_COVERAGE = """
SELECT chain_id, pass, sum(missing_blocks)::bigint AS missing_blocks
  FROM watch.coverage
 GROUP BY chain_id, pass
HAVING count(missing_blocks) = count(*)
 ORDER BY chain_id, pass
"""

# Of the passes that the daemon last started with: what was taken out of the configuration keeps
# its coverage, but nobody pays its debt.
_DEBT = """
SELECT v.chain_id, v.pass, v.filter, v.cohort, v.blocks, c.start_block::bigint AS first_block,
       least(c.finalized_number, h.adopted_block)::bigint AS last_block,
       CASE WHEN v.cohort > 0 AND v.filter = 'accounts' THEN
           (SELECT count(*) FROM chain.account AS a
             WHERE a.chain_id = v.chain_id AND a.cohort_id = v.cohort AND a.cohort_id > 0)
            WHEN v.cohort > 0 THEN
           (SELECT count(*) FROM chain.account AS a WHERE a.chain_id = v.chain_id
               AND a.token_cohort_id = v.cohort AND a.token_cohort_id > 0)
            ELSE 0 END AS accounts
  FROM chain.coverage AS v
  JOIN chain.chain AS c ON c.chain_id = v.chain_id
  LEFT JOIN chain.cohort AS h ON h.chain_id = v.chain_id AND h.cohort_id = v.cohort
 WHERE c.start_block IS NOT NULL AND c.finalized_number IS NOT NULL
   AND (NOT c.settings ? 'passes'
        OR c.settings -> 'passes' @> jsonb_build_array(jsonb_build_array(v.pass, v.filter)))
 ORDER BY v.chain_id, v.pass, v.filter, v.cohort
"""

_LOST = """
SELECT chain_id, manager, cohort, range_agg(int8range(first_block, last_block + 1)) AS blocks
  FROM evidence.unobserved GROUP BY chain_id, manager, cohort
"""

_PACE = """
SELECT chain_id, pass, blocks, seconds, requests,
       extract(epoch FROM now() - updated_at)::float8 AS age_seconds
  FROM chain.pace
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

_FINDINGS = """
SELECT chain_id, count(*) AS findings FROM chain.audit_finding
 WHERE found_at > now() - interval '1 day' GROUP BY chain_id
"""


async def read_status(database: Database) -> dict[str, Any]:
    """Return progress, verdicts, debt, drifts and reorgs of every chain, from one snapshot.

    Shape, ready for JSON (times are ISO 8601 in UTC, addresses and hashes `0x…` text):
    `{"chains": [{"chain_id", "chain", "progress": {…}, "verdicts": {verdict: accounts},
    "drifted_by_cause": {cause: accounts}, "drifted_by_severity": {severity: accounts},
    "coverage_missing_blocks": {pass: blocks},
    "lanes": [{"lane", "pass", "filter", "first_block", "last_block", "missing_blocks",
    "unreadable_blocks", "percent", "accounts", "remaining_seconds", "remaining_requests",
    "basis"}], "remaining": {"seconds", "requests", "basis"} or None,
    "audit_findings_last_day": findings, "finality_violation": text or None,
    "last_reorg": {…} or None, "reorgs": […], "newest_drifts": […]}]}`. A pass's debt is
    summed over its filters; a pass that does not know its debt yet is absent, and so are the lanes
    and what remains. Raises DatabaseUnavailableError, also when the database takes longer than a
    status is worth.
    """
    async with database.brief_snapshot(STATEMENT_SECONDS, "the status") as connection:
        progress = await connection.fetch(_PROGRESS)
        verdicts = await connection.fetch(_VERDICTS)
        severities = await connection.fetch(_SEVERITIES)
        coverage = await connection.fetch(_COVERAGE)
        debt = await connection.fetch(_DEBT)
        lost = await connection.fetch(_LOST)
        pace = await connection.fetch(_PACE)
        drifts = await connection.fetch(_DRIFTS, MAX_DRIFTS)
        reorgs = await connection.fetch(_REORGS, MAX_REORGS)
        findings = {row[0]: row[1] for row in await connection.fetch(_FINDINGS)}
    return {
        "chains": [
            _chain_status(
                row,
                _of_chain(verdicts, row["chain_id"]),
                _of_chain(severities, row["chain_id"]),
                _of_chain(coverage, row["chain_id"]),
                [_plain(drift) for drift in _of_chain(drifts, row["chain_id"])],
                [_plain(reorg) for reorg in _of_chain(reorgs, row["chain_id"])],
            )
            | {"audit_findings_last_day": findings.get(row["chain_id"], 0)}
            | _lanes(
                row,
                _owed(_of_chain(debt, row["chain_id"]), _of_chain(lost, row["chain_id"])),
                {
                    one["pass"]: RecentPace(
                        one["blocks"], one["seconds"], one["requests"], one["age_seconds"]
                    )
                    for one in _of_chain(pace, row["chain_id"])
                },
            )
            for row in progress
        ]
    }


def _chain_status(
    progress: asyncpg.Record,
    verdicts: list[asyncpg.Record],
    severities: list[asyncpg.Record],
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
        "drifted_by_severity": {row["severity"]: row["accounts"] for row in severities},
        "coverage_missing_blocks": {row["pass"]: row["missing_blocks"] for row in coverage},
        "finality_violation": violation,
        "last_reorg": reorgs[0] if reorgs else None,
        "reorgs": reorgs,
        "newest_drifts": drifts,
    }


def _owed(debt: list[asyncpg.Record], lost: list[asyncpg.Record]) -> list[Owed]:
    """Subtract coverage from what is asked for."""
    gone = {
        (f"roots/{hex_of(row['manager'])}", row["cohort"]): _spans(row["blocks"]) for row in lost
    }
    found = []
    for row in debt:
        target = (row["first_block"], row["last_block"])
        missing = subtract(target, _spans(row["blocks"]))
        pass_ = Pass(row["pass"], row["filter"])
        pruned = gone.get((pass_.name, row["cohort"]), ()) if pass_.filter == ACCOUNTS else ()
        found.append(
            Owed(
                pass_,
                row["cohort"],
                target,
                missing,
                intersect(missing, merge(pruned)),
                row["accounts"],
            )
        )
    return found


def _spans(blocks: Iterable[Any]) -> list[Span]:
    """Half-open ranges of the database as first and last block."""
    return [(one.lower, one.upper - 1) for one in blocks]


def _lanes(
    progress: asyncpg.Record, owed: Sequence[Owed], paces: dict[str, RecentPace]
) -> dict[str, Any]:
    shown: list[LaneProgress] = []
    where = [progress[key] for key in ("start_block", "indexed_block", "latest_block")]
    if None not in where:
        shown.append(estimate.live_lane(*where))
    shown += estimate.lanes(owed, paces)
    rest = estimate.total(owed, paces) if owed else None
    return {
        "lanes": [_lane(one) for one in shown],
        "remaining": rest
        and {"seconds": rest.seconds, "requests": rest.requests, "basis": rest.basis},
    }


def _lane(bar: LaneProgress) -> dict[str, Any]:
    return {
        "lane": bar.lane,
        "pass": bar.pass_.name,
        "filter": bar.pass_.filter,
        "first_block": bar.first_block,
        "last_block": bar.last_block,
        "missing_blocks": bar.missing_blocks,
        "unreadable_blocks": bar.unreadable_blocks,
        "percent": bar.percent,
        "accounts": bar.accounts,
        "remaining_seconds": bar.remainder.seconds,
        "remaining_requests": bar.remainder.requests,
        "basis": bar.remainder.basis,
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
