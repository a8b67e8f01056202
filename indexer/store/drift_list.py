"""Drifted accounts by chain, cause and severity: a longer list than the status carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.store.pool import Database

MAX_DRIFTS = 200

STATEMENT_SECONDS = 2.0

_CHAINS = "SELECT chain_id, chain FROM watch.progress ORDER BY chain_id"

_DRIFTS = """
SELECT chain_id, account, manager, cause, severity, since_block, since_time, explanation, is_final
  FROM watch.drift
 WHERE ($1::bigint IS NULL OR chain_id = $1) AND ($2::text IS NULL OR cause = $2)
   AND ($3::text IS NULL OR severity = $3)
 ORDER BY since_time DESC, verdict_id DESC LIMIT $4"""

_COUNTS = """
SELECT cause, severity, count(*) AS accounts
  FROM chain.verdict
 WHERE closed_block IS NULL AND verdict = 'drifted' AND ($1::bigint IS NULL OR chain_id = $1)
 GROUP BY cause, severity
 ORDER BY severity, cause"""


@dataclass(frozen=True, slots=True)
class DriftList:
    """The newest drifts that were asked for, rows of watch.drift.

    `counts` are accounts by cause and severity, of the chain that was asked for or of all.
    """

    chains: Sequence[Mapping[str, Any]]
    drifts: Sequence[Mapping[str, Any]]
    counts: Sequence[Mapping[str, Any]]


async def read_drift_list(
    database: Database, *, chain: str | None, cause: str | None, severity: str | None
) -> DriftList | None:
    """Return at most MAX_DRIFTS drifted accounts, newest first; None: no chain has that name.

    Raises DatabaseUnavailableError, also when the database takes longer than a page is worth.
    """
    async with database.brief_snapshot(STATEMENT_SECONDS, "the list of drifts") as connection:
        chains = await connection.fetch(_CHAINS)
        chain_id = next((row["chain_id"] for row in chains if row["chain"] == chain), None)
        if chain is not None and chain_id is None:
            return None
        drifts = await connection.fetch(_DRIFTS, chain_id, cause, severity, MAX_DRIFTS)
        counts = await connection.fetch(_COUNTS, chain_id)
    return DriftList(
        [dict(row) for row in chains],
        [dict(row) for row in drifts],
        [dict(row) for row in counts],
    )
