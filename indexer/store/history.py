"""The history lane's transactions: what is owed, and paying one range of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from indexer.core.balances import balance_deltas
from indexer.core.debt import Ledger, Span, Task
from indexer.core.passes import Pass
from indexer.core.roots import MERKLE_ROOT_UPDATED, RootHint, Trigger
from indexer.core.types import Address, BlockHeader, Hash32
from indexer.errors import StaleStepError
from indexer.store.chain_row import Connection, lock_chain, read_chain
from indexer.store.live import count_changes, write_created
from indexer.store.observations import write_blocks
from indexer.store.pool import Database
from indexer.store.retention import uncounted
from indexer.store.rows import BlockRows, add_to_balances, write_rows
from indexer.store.verdict_queue import enqueue
from indexer.store.watched import adopt_accounts

_COVERAGE = "SELECT pass, filter, cohort, blocks FROM chain.coverage WHERE chain_id = $1"
_COHORTS = "SELECT cohort_id, adopted_block FROM chain.cohort WHERE chain_id = $1"


async def read_ledger(database: Database, chain_id: int) -> Ledger | None:
    """Return what is covered and what is owed, or None while nothing may be paid.

    That is before the first live step, and while the node contradicts what is final.
    """
    async with database.transaction() as connection:
        chain = await read_chain(connection, chain_id)
        if chain is None or chain.finalized_number is None or chain.start_block is None:
            return None
        if chain.finality_violation is not None:
            return None
        covered: dict[tuple[Pass, int], tuple[Span, ...]] = {
            (Pass(row["pass"], row["filter"]), row["cohort"]): tuple(
                (r.lower, r.upper - 1) for r in row["blocks"]
            )
            for row in await connection.fetch(_COVERAGE, chain_id)
        }
        adopted = {row[0]: row[1] for row in await connection.fetch(_COHORTS, chain_id)}
    return Ledger(covered, chain.start_block, chain.finalized_number, adopted)


async def read_marker(database: Database, chain_id: int) -> tuple[int, Hash32]:
    """Return number and hash of the finalized block; StaleStepError if there is none any more."""
    async with database.connection() as connection:
        chain = await read_chain(connection, chain_id)
    if chain is None or chain.finalized_number is None or chain.finalized_hash is None:
        raise StaleStepError("the chain was rewound while a range was prepared")
    return chain.finalized_number, chain.finalized_hash


_KNOWN_BLOCKS = """
SELECT block_number, hash, block_time FROM chain.block
 WHERE chain_id = $1 AND block_number = ANY($2::bigint[])"""

_COVER = """
INSERT INTO chain.coverage AS kept (chain_id, pass, filter, cohort, blocks)
VALUES ($1, $2, $3, $4, int8multirange(int8range($5, $6 + 1)))
ON CONFLICT (chain_id, pass, filter, cohort) DO UPDATE SET blocks = kept.blocks + excluded.blocks"""


_ENSURE_PARTITIONS = """
SELECT chain.ensure_partitions($1, block) FROM generate_series(
    $2 - $2 % chain.slice_blocks(), $3::bigint, chain.slice_blocks()) AS block"""


async def apply_range(
    database: Database,
    chain_id: int,
    epoch: int,
    task: Task,
    headers: Collection[BlockHeader],
    rows: BlockRows,
    touched: Collection[tuple[Address, Address]],
) -> None:
    """Write one paid range in one transaction; its coverage last.

    `headers` are those of the blocks that rows refer to. Raises StaleStepError if a block
    stands in the database under another hash, or if the range is no longer final.
    """
    async with database.transaction() as connection:
        chain = await lock_chain(connection, chain_id, epoch, "history")
        if chain.finalized_number is None or task.last > chain.finalized_number:
            raise StaleStepError("the range is not final any more")
        if chain.finality_violation is not None:
            raise StaleStepError("the node was found to contradict what is final")
        await _check_blocks(connection, chain_id, headers)
        await connection.execute(_ENSURE_PARTITIONS, chain_id, task.first, task.last)
        await write_blocks(connection, chain_id, headers)
        await _write_discovered(connection, chain_id, task, rows)
        added = await write_rows(connection, chain_id, rows, (task.first, task.last))
        added = await uncounted(connection, chain, added)
        await add_to_balances(connection, chain_id, balance_deltas(added))
        if touched:
            await enqueue(connection, chain_id, touched)
        if rows.roots:
            rows.root_changes = await count_changes(connection, chain_id, task.first, task.last)
        for pass_ in sorted(task.passes, key=lambda p: (p.name, p.filter)):
            await connection.execute(
                _COVER, chain_id, pass_.name, pass_.filter, task.cohort, task.first, task.last
            )


_COVERED_SINCE = """
SELECT account, block_number FROM unnest($2::bytea[], $3::bigint[]) AS found(account, block_number)
 WHERE EXISTS (SELECT FROM chain.coverage AS v WHERE v.chain_id = $1 AND v.pass = 'logs'
           AND v.filter = 'accounts' AND v.cohort = 0
           AND v.blocks && int8range(found.block_number, NULL))"""


async def _write_discovered(
    connection: Connection, chain_id: int, task: Task, rows: BlockRows
) -> None:
    """Put discovered accounts on the watch list.

    Those of a factory that was added later have a past in blocks which count as covered for
    everybody else: they form a cohort with a debt of its own.
    """
    creations = rows.decoded.creations if rows.decoded is not None else ()
    if task.kind == "factory" and creations:
        late = await connection.fetch(
            _COVERED_SINCE,
            chain_id,
            [c.account for c in creations],
            [c.at.block_number for c in creations],
        )
        if late:
            accounts = [Address(row[0]) for row in late]
            await adopt_accounts(connection, chain_id, accounts, "factory")
    await write_created(connection, chain_id, rows)


async def _check_blocks(
    connection: Connection, chain_id: int, headers: Collection[BlockHeader]
) -> None:
    known = {
        row[0]: row[1]
        for row in await connection.fetch(_KNOWN_BLOCKS, chain_id, [h.number for h in headers])
    }
    for header in headers:
        if known.get(header.number, header.hash) != header.hash:
            raise StaleStepError(f"block {header.number} has another hash in the database")


@dataclass(frozen=True, slots=True)
class StoredTriggers:
    """The triggers of a range as the database has them, with the blocks they stand in."""

    triggers: list[Trigger]
    hints: list[RootHint]
    headers: dict[int, BlockHeader]


# The accounts of a cohort at a block: cohort 0 is everybody above their block of adoption.
_IN_COHORT = """
JOIN chain.account AS a ON a.chain_id = t.chain_id AND a.account = {account}
LEFT JOIN chain.cohort AS c ON c.chain_id = a.chain_id AND c.cohort_id = a.cohort_id
WHERE t.chain_id = $1 AND t.block_number BETWEEN $2 AND $3
  AND CASE WHEN $4 = 0 THEN c.cohort_id IS NULL OR t.block_number > c.adopted_block
           ELSE a.cohort_id = $4 AND t.block_number <= c.adopted_block END"""

_OPERATIONS = f"""
SELECT t.block_number, t.log_index, t.transaction_hash, t.sender, t.success, t.user_op_hash,
       t.entry_point, t.transaction_index
  FROM chain.user_operation AS t {_IN_COHORT.format(account="t.sender")}
 ORDER BY t.block_number, t.log_index"""

_EVENTS = f"""
SELECT t.block_number, t.log_index, t.transaction_hash, t.account, t.event,
       (t.args ->> 'operation')::int, t.user_op_hash
  FROM chain.account_event AS t {_IN_COHORT.format(account="t.account")}
   AND t.event = ANY($5::text[])
 ORDER BY t.block_number, t.log_index"""

_HINTS = f"""
SELECT t.block_number, t.log_index, t.hint_index, t.transaction_hash, t.manager, t.account,
       t.root, t.evidence, t.user_op_hash
  FROM chain.root_hint AS t {_IN_COHORT.format(account="t.account")}
 ORDER BY t.block_number, t.log_index, t.hint_index"""


_NTH_TRIGGER = """
SELECT block_number FROM (
    SELECT block_number FROM chain.user_operation
     WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3
    UNION ALL
    SELECT block_number FROM chain.account_event
     WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3
) AS t ORDER BY block_number OFFSET $4 LIMIT 1"""


async def cut_range(database: Database, chain_id: int, first: int, last: int, most: int) -> int:
    """Return the last block such that the range holds at most so many triggers, or one block."""
    async with database.connection() as connection:
        beyond = await connection.fetchval(_NTH_TRIGGER, chain_id, first, last, most)
    return last if beyond is None else max(first, int(beyond) - 1)


@dataclass(frozen=True, slots=True)
class StoredOperation:
    """A stored UserOperationEvent whose input is to be decoded."""

    trigger: Trigger
    entry_point: Address
    transaction_index: int


async def read_operations(
    database: Database, chain_id: int, task: Task, operation_event: str
) -> list[StoredOperation]:
    """Return the stored user operations of a cohort in a range."""
    async with database.connection() as connection:
        rows = await connection.fetch(_OPERATIONS, chain_id, task.first, task.last, task.cohort)
    return [
        StoredOperation(
            Trigger(
                r[0],
                r[1],
                Hash32(r[2]),
                Address(r[3]),
                operation_event,
                r[4],
                None,
                Hash32(r[5]),
            ),
            Address(r[6]),
            r[7],
        )
        for r in rows
    ]


async def read_triggers(
    database: Database,
    chain_id: int,
    task: Task,
    *,
    trigger_events: Sequence[str],
    operation_event: str,
) -> StoredTriggers:
    """Return every stored trigger and hint of a cohort in a range."""
    span = (chain_id, task.first, task.last, task.cohort)
    operations = await read_operations(database, chain_id, task, operation_event)
    async with database.connection() as connection:
        events = await connection.fetch(_EVENTS, *span, list(trigger_events))
        hints = await connection.fetch(_HINTS, *span)
        triggers = [o.trigger for o in operations]
        triggers += [
            Trigger(
                r[0],
                r[1],
                Hash32(r[2]),
                Address(r[3]),
                r[4],
                None,
                r[5],
                Hash32(r[6]) if r[6] is not None else None,
            )
            for r in events
        ]
        named = [
            RootHint(
                r[0],
                r[1],
                r[2],
                Hash32(r[3]),
                Address(r[4]),
                Address(r[5]),
                Hash32(r[6]),
                r[7],
                Hash32(r[8]) if r[8] is not None else None,
            )
            for r in hints
        ]
        # A manager's event may be the only log that names the account: a tainted one, moved
        # by a stranger.
        triggers += [
            Trigger(
                hint.block_number,
                hint.log_index,
                hint.transaction_hash,
                hint.account,
                MERKLE_ROOT_UPDATED,
                None,
                None,
                hint.user_op_hash,
            )
            for hint in named
            if hint.evidence == "event"
        ]
        triggers.sort(key=lambda t: (t.block_number, t.log_index))
        numbers = sorted({t.block_number for t in triggers})
        blocks = await connection.fetch(_KNOWN_BLOCKS, chain_id, numbers)
    return StoredTriggers(
        triggers,
        named,
        {r[0]: BlockHeader(r[0], Hash32(r[1]), Hash32(bytes(32)), r[2]) for r in blocks},
    )


_UNOBSERVED = """
INSERT INTO evidence.unobserved (chain_id, manager, first_block, last_block, reason)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (chain_id, manager, first_block) DO UPDATE
   SET last_block = greatest(unobserved.last_block, excluded.last_block)"""


async def mark_unobserved(
    database: Database, chain_id: int, epoch: int, manager: Address, span: Span, reason: str
) -> None:
    """Record a stretch whose state the node no longer has; its coverage stays missing."""
    async with database.transaction() as connection:
        await lock_chain(connection, chain_id, epoch, "history")
        await connection.execute(_UNOBSERVED, chain_id, manager, span[0], span[1], reason)


# Ranges are cut anew at each attempt: the stretch that was marked may begin or end elsewhere.
_OBSERVED = """
WITH gone AS (
    DELETE FROM evidence.unobserved
     WHERE chain_id = $1 AND manager = $2 AND first_block <= $4 AND last_block >= $3
    RETURNING first_block, last_block, reason, recorded_at
)
INSERT INTO evidence.unobserved (chain_id, manager, first_block, last_block, reason, recorded_at)
SELECT $1, $2, first_block, $3::bigint - 1, reason, recorded_at FROM gone WHERE first_block < $3
UNION ALL
SELECT $1, $2, $4::bigint + 1, max(last_block), min(reason), min(recorded_at)
  FROM gone WHERE last_block > $4 HAVING max(last_block) > $4
ON CONFLICT (chain_id, manager, first_block) DO UPDATE
   SET last_block = greatest(unobserved.last_block, excluded.last_block)"""


async def clear_unobserved(
    database: Database, chain_id: int, epoch: int, manager: Address, span: Span
) -> None:
    """Forget that these blocks could not be read; of a longer stretch the rest stays."""
    async with database.transaction() as connection:
        await lock_chain(connection, chain_id, epoch, "history")
        await connection.execute(_OBSERVED, chain_id, manager, *span)


_TAINTED_BEFORE = """
SELECT DISTINCT o.account FROM chain.canonical_slots AS o
 WHERE o.chain_id = $1 AND o.tainted AND o.block_number <= $2"""


async def tainted_before(database: Database, chain_id: int, block_number: int) -> list[Address]:
    """Return the accounts that were seen tainted at or before a block."""
    async with database.connection() as connection:
        rows = await connection.fetch(_TAINTED_BEFORE, chain_id, block_number)
    return [Address(row[0]) for row in rows]
