"""Verdicts in the database: deciding, writing what differs, telling who listens.

One decision is one row of chain.verdict; a row is closed by the next that differs. Whoever
changes an input queues the key in the same transaction; only the chain's daemon decides, under
the lock of the chain's row.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from indexer.core.root_search import RememberedSearches
from indexer.core.types import Address
from indexer.core.verdicts import Cause, Decision, Settings, Severity, Verdict, decide
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.searches import SEARCHES, BriefSearches, SearchDeferredError
from indexer.store.verdict_inputs import Key, load_histories, load_inputs
from indexer.store.verdict_queue import QueuedKey, dequeue, enqueue, queued_keys

__all__ = [
    "Key",
    "QueuedKey",
    "VerdictChange",
    "VerdictCount",
    "VerdictState",
    "count_open",
    "decide_touched",
    "due_keys",
    "enqueue",
    "load_inputs",
    "queued_keys",
    "withdraw",
]

NOTIFY_CHANNEL: Final = "sessionwatch_verdict"
_LAST_SECOND = 253_402_300_799  # of the year 9999: a block's time may be anything
_KEYS_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class VerdictState:
    """What metrics and listeners see of a verdict."""

    verdict: Verdict
    cause: Cause | None
    severity: Severity


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """A verdict that was replaced. `old` None: the first one."""

    manager: Address
    account: Address
    old: VerdictState | None
    new: VerdictState | None
    block_number: int


@dataclass(frozen=True, slots=True)
class VerdictCount:
    """How many open verdicts are alike."""

    verdict: Verdict
    cause: Cause | None
    severity: Severity
    count: int


_DUE = """
SELECT manager, account FROM chain.verdict
 WHERE chain_id = $1 AND closed_block IS NULL AND recheck_at <= $2
UNION
SELECT manager, account FROM chain.verdict
 WHERE chain_id = $1 AND closed_block IS NULL AND recheck_block_time <= $3
 LIMIT $4"""


async def due_keys(
    connection: Connection, chain_id: int, confirmed_at: datetime, block_time: int, limit: int
) -> list[Key]:
    """Return keys whose verdict time alone may have changed."""
    rows = await connection.fetch(_DUE, chain_id, confirmed_at, block_time, limit)
    return [(Address(row[0]), Address(row[1])) for row in rows]


# --- deciding ---------------------------------------------------------------------------------

# What makes two decisions differ. The rest follows from these, or is bookkeeping.
_FACTS = (
    "verdict", "cause", "warnings", "severity", "since_block", "since_time",
    "on_chain_root", "on_chain_set_id", "expected_root", "expected_set_id",
)  # fmt: skip
_RECHECKS = ("recheck_at", "recheck_block_time")
# History that is filled in later may find the same facts at an earlier block.
_MOVED = (*_RECHECKS, "explanation", "observed_block")
# If these are the same and a recheck was due, time alone made the difference.
_ROOTS_AND_SETS = _FACTS[6:]

_OPEN = f"""
SELECT v.verdict_id, v.manager, v.account, {", ".join("v." + c for c in _FACTS + _MOVED)},
       v.block_number, c.indexed_number, c.indexed_time
  FROM chain.verdict AS v
  JOIN chain.chain AS c USING (chain_id)
  JOIN unnest($2::bytea[], $3::bytea[]) AS k(manager, account)
    ON v.manager = k.manager AND v.account = k.account
 WHERE v.chain_id = $1 AND v.closed_block IS NULL"""

_CLOSE = """
UPDATE chain.verdict AS v SET closed_block = c.closed_block, closed_time = c.closed_time
  FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[])
    AS c(verdict_id, closed_block, closed_time)
 WHERE v.verdict_id = c.verdict_id"""

_MOVE = """
UPDATE chain.verdict AS v
   SET recheck_at = c.recheck_at, recheck_block_time = c.recheck_block_time,
       explanation = c.explanation, observed_block = c.observed_block
  FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::text[], $5::bigint[])
    AS c(verdict_id, recheck_at, recheck_block_time, explanation, observed_block)
 WHERE v.verdict_id = c.verdict_id"""

_COLUMNS = (
    "chain_id", "manager", "account", "block_number", "closed_block", "closed_time",
    *_FACTS, *_MOVED, "by_time_only",
)  # fmt: skip

_NOTIFY = f"SELECT pg_notify('{NOTIFY_CHANNEL}', payload) FROM unnest($1::text[]) AS payload"

Touched = Sequence[tuple[int, int, Collection[Key]]]
"""(block_number, block_time, keys), ascending by block."""


async def decide_touched(
    connection: Connection,
    *,
    chain_id: int,
    confirmed_at: datetime,
    settings: Settings,
    touched: Touched,
    taken: Sequence[QueuedKey] | None = None,
    brief: bool = False,
) -> list[VerdictChange]:
    """Decide each key as of each of its blocks, write what differs, notify, and say it.

    Deciding block by block makes catching up write the history that following live writes. Runs
    in the caller's transaction, under the lock of the chain's row. `confirmed_at` is the
    database's time just before the head was asked for that the last of the blocks belongs to;
    grace at the blocks before it is judged no later than their own time.

    Removes the decided keys from the queue: all of them, or, given `taken`, those that ask for
    no reading and those still as they were taken. `brief`: keys whose decision needs long searches
    are queued instead, for who holds nobody up.
    """
    search: BriefSearches | RememberedSearches = BriefSearches() if brief else SEARCHES
    by_key: dict[Key, list[tuple[int, int]]] = {}
    for block_number, block_time, keys in touched:
        for key in sorted(keys):
            by_key.setdefault(key, []).append((block_number, block_time))
    every = sorted(by_key)
    changes: list[VerdictChange] = []
    for start in range(0, len(every), _KEYS_AT_ONCE):
        chunk = {key: by_key[key] for key in every[start : start + _KEYS_AT_ONCE]}
        # The queue first: an input that is committed after this leaves its row there.
        await dequeue(connection, chain_id, chunk, taken)
        changes += await _decide_chunk(connection, chain_id, confirmed_at, settings, chunk, search)
    changes.sort(key=lambda change: (change.block_number, change.manager, change.account))
    await connection.execute(_NOTIFY, [_payload(chain_id, change) for change in changes])
    return changes


async def _decide_chunk(
    connection: Connection,
    chain_id: int,
    confirmed_at: datetime,
    settings: Settings,
    chunk: dict[Key, list[tuple[int, int]]],
    search: BriefSearches | RememberedSearches,
) -> list[VerdictChange]:
    confirmed = confirmed_at.timestamp()
    histories = await load_histories(connection, chain_id, chunk)
    searched = SEARCHES.made
    managers, accounts = [key[0] for key in chunk], [key[1] for key in chunk]
    open_rows = {
        (Address(row["manager"]), Address(row["account"])): dict(row)
        for row in await connection.fetch(_OPEN, chain_id, managers, accounts)
    }
    closed: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    changes: list[VerdictChange] = []
    deferred: list[Key] = []
    for key, blocks in chunk.items():
        held = open_rows.get(key)
        ordered = blocks if held is None else _not_before(held, blocks)
        for index, (block_number, block_time) in enumerate(ordered):
            is_last = index == len(ordered) - 1
            clock = confirmed if is_last else min(confirmed, float(block_time))
            inputs = histories.cut(key, None if is_last else block_number)
            if SEARCHES.made > searched:
                # A search takes some 0.1 s: whoever waits for the loop goes first.
                searched = SEARCHES.made
                await asyncio.sleep(0)
            try:
                decision = decide(
                    inputs,
                    head_number=block_number,
                    head_time=block_time,
                    confirmed_at=clock,
                    settings=settings,
                    search=search,
                )
            except SearchDeferredError:
                deferred.append(key)
                break
            if held is None and decision.verdict == "empty" and not inputs.changes:
                # Most accounts never have a session: no row says the same, a million times over.
                continue
            row = _row(chain_id, key, block_number, decision)
            if held is not None and _alike(held, row):
                row["observed_block"] = _earlier(held["observed_block"], row["observed_block"])
                if any(held[name] != row[name] for name in _MOVED):
                    held.update({name: row[name] for name in _MOVED})
                    if "verdict_id" in held:
                        moved.append(held)
                continue
            row["by_time_only"] = held is not None and _by_time_only(held, row, clock, block_time)
            if held is not None:
                held["closed_block"], held["closed_time"] = block_number, _at(block_time)
                if "verdict_id" in held:
                    closed.append(held)
            changes.append(VerdictChange(*key, _state(held), _state(row), block_number))
            new.append(row)
            held = row
    await _write(connection, closed, moved, new)
    if deferred:
        await enqueue(connection, chain_id, deferred)
    return changes


def _not_before(held: dict[str, Any], blocks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the blocks from the open verdict's on; the tip, if it was opened after all of them.

    A verdict closed before it began would be open again beside its successor after a rewind.
    """
    kept = [block for block in blocks if block[0] >= held["block_number"]]
    return kept or [(held["indexed_number"], held["indexed_time"])]


async def _write(
    connection: Connection,
    closed: Sequence[dict[str, Any]],
    moved: Sequence[dict[str, Any]],
    new: Sequence[dict[str, Any]],
) -> None:
    if closed:
        names = ("verdict_id", "closed_block", "closed_time")
        await connection.execute(_CLOSE, *([row[name] for row in closed] for name in names))
    if moved:
        columns = ("verdict_id", *_MOVED)
        await connection.execute(_MOVE, *([row[name] for row in moved] for name in columns))
    if new:
        await connection.copy_records_to_table(
            "verdict",
            schema_name="chain",
            columns=list(_COLUMNS),
            records=[tuple(row[name] for name in _COLUMNS) for row in new],
        )


def _at(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(min(unix_seconds, _LAST_SECOND), UTC)


def _row(chain_id: int, key: Key, block_number: int, decision: Decision) -> dict[str, Any]:
    row = {name: getattr(decision, name) for name in (*_FACTS, *_RECHECKS)}
    row |= {
        "chain_id": chain_id,
        "manager": key[0],
        "account": key[1],
        "block_number": block_number,
        "closed_block": None,
        "closed_time": None,
        "warnings": list(decision.warnings),
        "since_time": _at(decision.since_time),
        "recheck_at": None if decision.recheck_at is None else _at(decision.recheck_at),
        "explanation": decision.explanation,
        "observed_block": decision.observed_block,
        "by_time_only": False,
    }
    return row


def _alike(held: dict[str, Any], row: dict[str, Any]) -> bool:
    # What was never observed began at no instant.
    unknown = held["verdict"] == row["verdict"] == "unknown"
    return all(
        held[name] == row[name]
        for name in _FACTS
        if not (unknown and name in {"since_block", "since_time"})
    )


def _earlier(held: int | None, found: int | None) -> int | None:
    """Return on which block the facts rest: one that is seen again later stays where it was."""
    return found if held is None or (found is not None and found < held) else held


def _by_time_only(held: dict[str, Any], row: dict[str, Any], clock: float, block_time: int) -> bool:
    due = (held["recheck_at"] is not None and held["recheck_at"] <= _at(clock)) or (
        held["recheck_block_time"] is not None and held["recheck_block_time"] <= block_time
    )
    return due and all(held[name] == row[name] for name in _ROOTS_AND_SETS)


def _state(row: dict[str, Any] | asyncpg.Record | None) -> VerdictState | None:
    if row is None:
        return None
    return VerdictState(row["verdict"], row["cause"], row["severity"])


def _payload(chain_id: int, change: VerdictChange, *, retracted: bool = False) -> str:
    """Return the notification: ids and closed words only, some 300 of 8,000 bytes."""
    shown = change.old if retracted else change.new
    assert shown is not None
    return json.dumps(
        {
            "chain_id": chain_id,
            "manager": f"0x{change.manager.hex()}",
            "account": f"0x{change.account.hex()}",
            "verdict": shown.verdict,
            "cause": shown.cause,
            "severity": shown.severity,
            "block": change.block_number,
            "retracted": retracted,
        },
        separators=(",", ":"),
    )


# --- after a rewind, and at start -------------------------------------------------------------

_WITHDRAWN = """
SELECT (o.row_data ->> 'manager')::bytea AS manager, (o.row_data ->> 'account')::bytea AS account,
       o.row_data ->> 'verdict' AS verdict, o.row_data ->> 'cause' AS cause,
       o.row_data ->> 'severity' AS severity,
       (o.row_data ->> 'block_number')::bigint AS block_number
  FROM chain.orphan AS o
 WHERE o.table_name = 'verdict' AND o.reorg_id = coalesce($2,
       (SELECT max(reorg_id) FROM chain.reorg WHERE chain_id = $1))
 ORDER BY (o.row_data ->> 'verdict_id')::bigint DESC"""


async def withdraw(connection: Connection, chain_id: int, reorg_id: int | None = None) -> int:
    """Notify that the verdicts a rewind moved away no longer hold; return how many.

    Runs in the transaction of chain.rewind; `reorg_id` None: the newest of the chain. Each
    notification repeats the verdict it takes back, newest first, with `retracted` true.
    """
    rows = await connection.fetch(_WITHDRAWN, chain_id, reorg_id)
    payloads = [
        _payload(
            chain_id,
            VerdictChange(r["manager"], r["account"], _state(r), None, r["block_number"]),
            retracted=True,
        )
        for r in rows
    ]
    await connection.execute(_NOTIFY, payloads)
    return len(rows)


_COUNTS = """
SELECT verdict, cause, severity, count(*) AS count FROM chain.verdict
 WHERE chain_id = $1 AND closed_block IS NULL
 GROUP BY verdict, cause, severity ORDER BY verdict, cause, severity"""


async def count_open(database: Database, chain_id: int) -> list[VerdictCount]:
    """Count the open verdicts of a chain, once at start and after a rewind; changes keep it."""
    async with database.connection() as connection:
        rows = await connection.fetch(_COUNTS, chain_id)
    return [VerdictCount(**dict(row)) for row in rows]
