"""The row of one chain: taking it over, locking it, and what stands in it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import asyncpg

from indexer.core.passes import Pass
from indexer.core.settings import ChainSettings
from indexer.core.types import Hash32
from indexer.errors import FatalError, FencedError
from indexer.store.layouts import apply_layouts, shown_layouts
from indexer.store.pool import translated
from indexer.store.schema import FOLLOWER_LOCK_CLASS, check_version

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

NEVER = datetime.fromtimestamp(0, UTC)
"""Stands for the time of a head that was never asked for."""

LockMode = Literal["live", "history", "exclusive"]

# Which filters the cohorts of a source have; the same as core.debt.Wanted.of_cohort.
COHORT_FILTERS = """
SELECT has.filter FROM (VALUES ('accounts', ARRAY['stored', 'list', 'factory', 'tainted']),
        ('erc1155/touching', ARRAY['stored', 'list', 'factory', 'token'])) AS has(filter, sources)
 WHERE {source} = ANY(has.sources)"""

# Live and rewind against history do not conflict. FOR UPDATE against FOR SHARE would starve
# the live lane; only a change of epoch and a rewind below finality exclude everybody.
_LOCK_CLAUSE: dict[LockMode, str] = {
    "live": "FOR NO KEY UPDATE",
    "history": "FOR KEY SHARE",
    "exclusive": "FOR UPDATE",
}

_COLUMNS = """chain_id, name, epoch, watch_version, start_block, finalized_number, finalized_hash,
    indexed_number, indexed_hash, indexed_time, latest_number, confirmed_at, finality_violation,
    detail_from"""


@dataclass(frozen=True, slots=True)
class ChainRow:
    """One row of chain.chain. None where nothing has been indexed yet."""

    chain_id: int
    name: str
    epoch: int
    watch_version: int
    start_block: int | None
    finalized_number: int | None
    finalized_hash: Hash32 | None
    indexed_number: int | None
    indexed_hash: Hash32 | None
    indexed_time: int | None
    latest_number: int | None
    confirmed_at: datetime | None
    finality_violation: str | None
    detail_from: int | None
    """Retention has dropped raw rows of blocks below this one; None: of none."""


async def read_chain(connection: Connection, chain_id: int) -> ChainRow | None:
    """Return the chain's row, or None if no daemon has followed it yet."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM chain.chain WHERE chain_id = $1", chain_id
    )
    return ChainRow(**dict(row)) if row is not None else None


async def read_own_chain(connection: Connection, chain_id: int, epoch: int) -> ChainRow:
    """Return the chain's row, unlocked; FencedError if the epoch moved."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM chain.chain WHERE chain_id = $1", chain_id
    )
    return _own(row, chain_id, epoch)


def _own(row: asyncpg.Record | None, chain_id: int, epoch: int) -> ChainRow:
    if row is None or row["epoch"] != epoch:
        raise FencedError(
            f"another process follows chain {chain_id} now",
            remedy="stop one of the two: the one that started last goes on; "
            "after a rewind below finality, start this one again",
        )
    return ChainRow(**dict(row))


async def lock_chain(connection: Connection, chain_id: int, epoch: int, mode: LockMode) -> ChainRow:
    """Lock the chain's row as every write transaction must; FencedError if the epoch moved."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM chain.chain WHERE chain_id = $1 {_LOCK_CLAUSE[mode]}", chain_id
    )
    return _own(row, chain_id, epoch)


async def lock_row(connection: Connection, chain_id: int) -> ChainRow | None:
    """Lock the chain's row against every writer, whatever its epoch."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM chain.chain WHERE chain_id = $1 FOR UPDATE", chain_id
    )
    return ChainRow(**dict(row)) if row is not None else None


async def raise_epoch(connection: Connection, chain_id: int) -> None:
    """Fence every writer that took the chain over before."""
    await connection.execute(
        "UPDATE chain.chain SET epoch = epoch + 1 WHERE chain_id = $1", chain_id
    )


_SETTINGS = "SELECT settings FROM chain.chain WHERE chain_id = $1"

# What was read before traces were configured.
_QUEUE_TRACES = """
INSERT INTO chain.trace_queue (chain_id, block_number, manager, account)
SELECT r.chain_id, r.block_number, r.manager, r.account
  FROM chain.root_change AS r
  LEFT JOIN chain.root_attribution AS t ON t.chain_id = r.chain_id
   AND t.block_number = r.block_number AND t.manager = r.manager AND t.account = r.account
 WHERE r.chain_id = $1
   AND (coalesce(t.evidence, 'state') = 'state'
        OR (t.attribution = 'module' AND t.module IS NULL AND t.evidence <> 'trace'))
ON CONFLICT DO NOTHING"""

_TAKE_OVER = """
INSERT INTO chain.chain (chain_id, name, epoch, start_block, managers, accounts_mode, settings)
VALUES ($1, $2, 1, $3, $4, $5, $6)
ON CONFLICT (chain_id) DO UPDATE
   SET epoch = chain.chain.epoch + 1, name = excluded.name,
       start_block = coalesce(excluded.start_block, chain.chain.start_block),
       managers = excluded.managers, accounts_mode = excluded.accounts_mode,
       settings = excluded.settings, updated_at = now()
RETURNING epoch, indexed_number"""

_STOP_FOLLOWING = """
UPDATE chain.coverage SET live_from = NULL
 WHERE chain_id = $1 AND live_from IS NOT NULL AND cohort = 0
   AND NOT (pass, filter) IN (SELECT * FROM unnest($2::text[], $3::text[]))"""

_FOLLOW = """
INSERT INTO chain.coverage (chain_id, pass, filter, cohort, live_from)
SELECT $1, pass, filter, 0,
       CASE WHEN filter NOT IN ('accounts', 'erc1155/touching') THEN $4::bigint END
  FROM unnest($2::text[], $3::text[]) AS wanted(pass, filter)
ON CONFLICT (chain_id, pass, filter, cohort) DO UPDATE
   SET live_from = coalesce(chain.coverage.live_from, excluded.live_from)"""

# What depends on accounts is followed from when discovery has named them all. A pass that is
# new, or a factory whose past is not known yet, makes it begin again (activate_accounts).
_PAUSE_ACCOUNTS = """
UPDATE chain.coverage SET live_from = NULL
 WHERE chain_id = $1 AND cohort = 0 AND filter IN ('accounts', 'erc1155/touching')
   AND live_from IS NOT NULL
   AND (EXISTS (SELECT FROM chain.coverage AS p WHERE p.chain_id = $1 AND p.cohort = 0
                   AND p.filter IN ('accounts', 'erc1155/touching') AND p.live_from IS NULL
                   AND (p.pass, p.filter) IN (SELECT * FROM unnest($2::text[], $3::text[])))
        OR EXISTS (SELECT FROM chain.coverage AS f, chain.chain AS c
             WHERE c.chain_id = $1 AND f.chain_id = $1 AND f.filter LIKE 'factory/%'
               AND (f.pass, f.filter) IN (SELECT * FROM unnest($2::text[], $3::text[]))
               AND CASE WHEN c.start_block <= c.finalized_number THEN
                   NOT f.blocks @> int8range(c.start_block, c.finalized_number + 1) END))"""

_COHORT_PASSES = f"""
INSERT INTO chain.coverage (chain_id, pass, filter, cohort)
SELECT $1, pass, filter, c.cohort_id
  FROM unnest($2::text[], $3::text[]) AS wanted(pass, filter)
 CROSS JOIN chain.cohort AS c
 WHERE c.chain_id = $1 AND filter IN ({COHORT_FILTERS.format(source="c.source")})
ON CONFLICT DO NOTHING"""

# Of accounts whose slots no creation says where to read: whether a new manager is enabled.
_READ_SLOTS_AGAIN = """
INSERT INTO chain.verdict_queue (chain_id, manager, account, read_state)
SELECT $1, m.manager, a.account, true
  FROM unnest($2::bytea[]) AS m(manager)
 CROSS JOIN chain.account AS a
 WHERE a.chain_id = $1 AND a.source <> 'factory'
   AND NOT EXISTS (SELECT FROM chain.coverage AS v
                    WHERE v.chain_id = $1 AND v.pass = 'roots/' || evidence.hex(m.manager))
 ORDER BY m.manager, a.account
ON CONFLICT (chain_id, manager, account) DO UPDATE SET read_state = true"""


# Of a back-up: it speaks of cohorts of the database it came from, and all is owed again anyway.
_NOTHING_IS_LOST_YET = "DELETE FROM evidence.unobserved WHERE chain_id = $1"

# A pass reads its triggers from rows. Where retention has dropped them, logs and inputs are owed
# again; what was noted as dropped is then so no longer, and a restart takes nothing back twice.
_READ_AGAIN = """
WITH gone AS (
    SELECT l.cohort, range_agg(l.dropped - coalesce(p.blocks, '{}')) AS blocks
      FROM chain.coverage AS l
     CROSS JOIN unnest($2::text[], $3::text[]) AS wanted(pass, filter)
      LEFT JOIN chain.coverage AS p ON p.chain_id = $1 AND p.pass = wanted.pass
       AND p.filter = wanted.filter AND p.cohort = l.cohort
     WHERE l.chain_id = $1 AND l.pass = 'logs' AND l.filter = 'accounts'
       AND wanted.filter = 'accounts'
     GROUP BY l.cohort
)
UPDATE chain.coverage AS v
   SET blocks = v.blocks - gone.blocks, dropped = v.dropped - gone.blocks
  FROM gone
 WHERE v.chain_id = $1 AND v.cohort = gone.cohort AND v.pass IN ('logs', 'bodies')
   AND v.filter = 'accounts' AND NOT isempty(gone.blocks)"""


async def take_over(
    connection: Connection, settings: ChainSettings, passes: list[Pass], shown: dict[str, Any]
) -> int:
    """Become the chain's one writer: raise the epoch and register the passes; return the epoch.

    A pass that is new to the live lane is followed from the indexed block on. What lies below
    is history debt, and with it the logs that it needs and whose rows retention has dropped.
    What sessions may do is derived again where a module's layout has changed.
    `shown` is the configuration as people may see it, without node URLs.
    FatalError, and nothing is changed, if blocks above the configured end are indexed already, or
    if the schema has another version by now.
    """
    await check_version(connection)
    # Excludes history writers of an older process too: their transactions end first.
    held = await lock_row(connection, settings.chain_id)
    _end_is_not_passed(held, settings)
    shown = {
        **shown,
        "traces": settings.traces,
        "passes": [[p.name, p.filter] for p in passes],
        "session_layouts": shown_layouts(settings.session_layouts),
    }
    before = json.loads(await connection.fetchval(_SETTINGS, settings.chain_id) or "{}")
    try:
        row = await connection.fetchrow(
            _TAKE_OVER,
            settings.chain_id,
            settings.name,
            settings.start_block,
            list(settings.managers),
            settings.accounts_mode,
            json.dumps(shown),
        )
    except asyncpg.UniqueViolationError as error:
        raise FatalError(
            f"the database knows another chain id under the name {settings.name!r}",
            remedy=f"rename [chains.{settings.name}] or use another database",
        ) from error
    assert row is not None
    if held is None:
        await connection.execute(_NOTHING_IS_LOST_YET, settings.chain_id)
    wanted = ([p.name for p in passes], [p.filter for p in passes])
    await connection.execute(_READ_SLOTS_AGAIN, settings.chain_id, list(settings.managers))
    await connection.execute(_STOP_FOLLOWING, settings.chain_id, *wanted)
    # Before the first step there is no tip: start_tail sets live_from then.
    await connection.execute(_FOLLOW, settings.chain_id, *wanted, row["indexed_number"])
    await connection.execute(_PAUSE_ACCOUNTS, settings.chain_id, *wanted)
    await connection.execute(_COHORT_PASSES, settings.chain_id, *wanted)
    await connection.execute(_READ_AGAIN, settings.chain_id, *wanted)
    layouts = before.get("session_layouts", {})
    await apply_layouts(connection, settings.chain_id, settings.session_layouts, layouts)
    if settings.traces != "off" and before.get("traces", "off") == "off":
        await connection.execute(_QUEUE_TRACES, settings.chain_id)
    return int(row["epoch"])


def _end_is_not_passed(held: ChainRow | None, settings: ChainSettings) -> None:
    end_block, name = settings.end_block, settings.name
    if held is None or held.indexed_number is None or end_block is None:
        return
    if held.indexed_number > end_block:
        final = end_block < (held.finalized_number or 0)
        raise FatalError(
            f"chain {name} is indexed to block {held.indexed_number}, beyond chains.{name}."
            f"end_block, which is {end_block}",
            remedy=f"set chains.{name}.end_block to {held.indexed_number} or above; or have the "
            f"blocks forgotten: sessionwatch rewind --chain {name} --to {end_block}"
            + (" --below-finality" if final else ""),
        )


async def set_start_block(connection: Connection, chain_id: int, start_block: int) -> None:
    """Record where history begins, as found on the chain."""
    await connection.execute(
        "UPDATE chain.chain SET start_block = $2 WHERE chain_id = $1", chain_id, start_block
    )


@asynccontextmanager
async def leadership(url: str, chain_id: int, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the session lock that lets one process follow a chain; FencedError if it is taken.

    It keeps a second process from starting by mistake; the epoch is what makes it safe. A
    process that has just been killed may hold it for a moment longer, hence the wait.
    """
    with translated():
        connection = await asyncpg.connect(url, timeout=10)
    try:
        with translated():
            await connection.execute(
                "SELECT set_config('lock_timeout', $1, false)", _ms(wait_seconds)
            )
            try:
                await connection.execute(
                    "SELECT pg_advisory_lock($1, hashtext($2))", FOLLOWER_LOCK_CLASS, str(chain_id)
                )
            except asyncpg.LockNotAvailableError as error:
                raise FencedError(
                    f"another process already follows chain {chain_id} in this database",
                    remedy="stop it first; or give this one a database of its own",
                ) from error
        yield
    finally:
        connection.terminate()


def _ms(seconds: float) -> str:
    return f"{int(seconds * 1000)}ms"
