"""The history lane's transactions: what is owed, and paying one range of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from indexer.core.balances import balance_deltas
from indexer.core.debt import Cohort, Ledger, Span, Task, without
from indexer.core.passes import ACCOUNTS, Pass, hex_of
from indexer.core.types import ZERO_HASH, Address, BlockHeader, Hash32
from indexer.errors import StaleStepError
from indexer.store.chain_row import Connection, lock_chain, read_chain
from indexer.store.evidence import keys_observed_at
from indexer.store.live import count_changes
from indexer.store.observations import write_blocks
from indexer.store.pool import Database
from indexer.store.retention import uncounted
from indexer.store.rows import BlockRows, add_to_balances, read_disagreements, write_rows
from indexer.store.verdict_queue import enqueue
from indexer.store.watched import (
    LOCK_FOR_ADOPTION,
    add_created,
    adopt_accounts,
    read_again,
)

_COVERAGE = "SELECT pass, filter, cohort, blocks FROM chain.coverage WHERE chain_id = $1"
_COHORTS = "SELECT cohort_id, adopted_block, source FROM chain.cohort WHERE chain_id = $1"
_LOST = """
SELECT manager, cohort, range_agg(int8range(first_block, last_block + 1)) AS blocks
  FROM evidence.unobserved WHERE chain_id = $1 GROUP BY manager, cohort"""


async def read_ledger(database: Database, chain_id: int) -> Ledger | None:
    """Return what is covered and what is owed, or None while nothing may be paid.

    That is before the first live step, and while the node contradicts what is final.
    """
    async with database.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
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
        cohorts = {
            row[0]: Cohort(row[1], row[2]) for row in await connection.fetch(_COHORTS, chain_id)
        }
        lost: dict[tuple[Pass, int], tuple[Span, ...]] = {
            (Pass(f"roots/{hex_of(row['manager'])}", ACCOUNTS), row["cohort"]): tuple(
                (r.lower, r.upper - 1) for r in row["blocks"]
            )
            for row in await connection.fetch(_LOST, chain_id)
        }
    return Ledger(covered, chain.start_block, chain.finalized_number, cohorts, lost)


async def read_marker(database: Database, chain_id: int) -> tuple[int, Hash32]:
    """Return number and hash of the finalized block; StaleStepError if there is none any more."""
    async with database.connection() as connection:
        chain = await read_chain(connection, chain_id)
    if chain is None or chain.finalized_number is None or chain.finalized_hash is None:
        raise StaleStepError("the chain was rewound while a range was prepared")
    return chain.finalized_number, chain.finalized_hash


@dataclass(frozen=True, slots=True)
class Pace:
    """What a range cost: seconds of wall clock, HTTP requests."""

    seconds: float
    requests: int


@dataclass(slots=True)
class Payment:
    """Everything that goes into the transaction of one range.

    `headers` are those of the blocks that rows refer to. `lost` are stretches whose state no
    node has: they stay missing; `lost_accounts` have something to read there. `silent` are the
    accounts that were read also where they left no log; None where roots are not what is paid.
    `pace` None: not worth an estimate.
    """

    task: Task
    headers: Collection[BlockHeader] = ()
    rows: BlockRows = field(default_factory=BlockRows)
    lost: Sequence[Span] = ()
    lost_reason: str = ""
    lost_accounts: frozenset[Address] = frozenset()
    silent: frozenset[Address] | None = None
    covers: bool = True
    """False: rows that belong to a range which is not paid yet."""
    pace: Pace | None = None


KNOWN_BLOCKS = """
SELECT block_number, hash, block_time FROM chain.block
 WHERE chain_id = $1 AND block_number = ANY($2::bigint[])"""

_COVER = """
INSERT INTO chain.coverage AS kept (chain_id, pass, filter, cohort, blocks, begun)
VALUES ($1, $2, $3, $4, $5, true)
ON CONFLICT (chain_id, pass, filter, cohort) DO UPDATE
   SET blocks = kept.blocks + excluded.blocks, begun = true"""

# The last ten ranges or so: an estimate follows the node's mood and the density of the chain.
_PACE = """
INSERT INTO chain.pace AS kept (chain_id, pass, blocks, seconds, requests)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (chain_id, pass) DO UPDATE
   SET blocks = 0.9 * kept.blocks + excluded.blocks,
       seconds = 0.9 * kept.seconds + excluded.seconds,
       requests = 0.9 * kept.requests + excluded.requests, updated_at = now()"""


_HAS_COHORT = "SELECT true FROM chain.cohort WHERE chain_id = $1 AND cohort_id = $2"
_ENSURE_PARTITIONS = """
SELECT chain.ensure_partitions($1, block) FROM generate_series(
    $2 - $2 % chain.slice_blocks(), $3::bigint, chain.slice_blocks()) AS block"""


async def apply_range(
    database: Database, chain_id: int, epoch: int, payment: Payment
) -> list[Address]:
    """Write one paid range in one transaction; its coverage last.

    Returns accounts that were found to have been able to act silently in blocks which are paid
    already: they owe those again. Raises StaleStepError if a block stands in the database under
    another hash, if the range is no longer final, or if another range has shown meanwhile that
    more accounts had to be read.
    """
    task, rows = payment.task, payment.rows
    async with database.transaction() as connection:
        chain = await lock_chain(connection, chain_id, epoch, "history")
        if chain.finalized_number is None or task.last > chain.finalized_number:
            raise StaleStepError("the range is not final any more")
        if chain.finality_violation is not None:
            raise StaleStepError("the node was found to contradict what is final")
        if task.cohort and not await connection.fetchval(_HAS_COHORT, chain_id, task.cohort):
            raise StaleStepError(f"cohort {task.cohort} has been paid meanwhile")
        await check_blocks(connection, chain_id, payment.headers)
        known = await _tainted_in(connection, chain_id, task.span)
        if payment.silent is not None and not payment.silent.issuperset(
            await _tainted_before(connection, chain_id, task.last)
        ):
            raise StaleStepError("an account was found tainted while its range was read")
        await connection.execute(_ENSURE_PARTITIONS, chain_id, task.first, task.last)
        await write_blocks(connection, chain_id, payment.headers)
        # Before what this range has read: what is there already counts from now on.
        returned = await keys_observed_at(connection, chain_id, payment.headers, task.span)
        await _write_discovered(connection, chain_id, task, rows)
        added = await write_rows(connection, chain_id, rows, task.span)
        if rows.roots or payment.lost_accounts or returned:
            await _enqueue(connection, chain_id, payment, returned)
        if rows.roots or payment.lost_accounts:
            rows.root_changes = await count_changes(connection, chain_id, task.first, task.last)
            rows.disagreements = await read_disagreements(connection, chain_id, rows, task.span)
        # Late, because the live lane folds into the same rows.
        counted = balance_deltas(await uncounted(connection, chain, added))
        await add_to_balances(connection, chain_id, counted)
        if not payment.covers:
            return []
        found = await _tainted_in(connection, chain_id, task.span) - known
        if found:
            # Before coverage, which whoever holds the chain's row may be waiting for.
            await connection.execute(LOCK_FOR_ADOPTION, chain_id)
        await _cover(connection, chain_id, payment)
        return await read_again(connection, chain_id, found) if found else []


_MAY_DIFFER = """
SELECT k.manager, k.account FROM unnest($2::bytea[], $3::bytea[]) AS k(manager, account)
 WHERE EXISTS (SELECT FROM chain.verdict AS v
                WHERE v.chain_id = $1 AND v.manager = k.manager AND v.account = k.account
                  AND v.closed_block IS NULL)
    OR EXISTS (SELECT FROM sessions.session_set AS s
                WHERE s.chain_id = $1 AND s.manager = k.manager AND s.account = k.account)"""


async def _enqueue(
    connection: Connection,
    chain_id: int,
    payment: Payment,
    returned: Mapping[tuple[Address, Address], bool],
) -> None:
    """Have the keys decided whose verdict may be another now.

    Most accounts never have a session: where no root was found and nothing is stored or decided,
    there is nothing to say.
    """
    seen = {(root.manager, root.account) for root in payment.rows.roots} | returned.keys()
    touched = {(r.manager, r.account) for r in payment.rows.roots if r.root != ZERO_HASH}
    touched |= {key for key, had_root in returned.items() if had_root}
    # That a past cannot be read is an input of verdicts, too.
    touched |= {
        (manager_of(pass_), account)
        for pass_ in payment.task.passes
        for account in payment.lost_accounts
    }
    zero = sorted(seen - touched)
    rows = await connection.fetch(_MAY_DIFFER, chain_id, [k[0] for k in zero], [k[1] for k in zero])
    touched |= {(Address(row[0]), Address(row[1])) for row in rows}
    if touched:
        await enqueue(connection, chain_id, touched)


async def _cover(connection: Connection, chain_id: int, payment: Payment) -> None:
    """Count the range as covered, but for what is lost."""
    task = payment.task
    if task.kind == "roots":
        for pass_ in task.passes:
            await _note_lost(connection, chain_id, payment, manager_of(pass_))
    if payment.pace is not None:
        await connection.execute(
            _PACE,
            chain_id,
            task.passes[0].name.partition("/")[0],
            float(task.last - task.first + 1),
            payment.pace.seconds,
            float(payment.pace.requests),
        )
    paid = [asyncpg.Range(first, last + 1) for first, last in without([task.span], payment.lost)]
    for pass_ in sorted(task.passes, key=lambda p: (p.name, p.filter)):
        await connection.execute(_COVER, chain_id, pass_.name, pass_.filter, task.cohort, paid)


_FORGET_LOST = """
WITH gone AS (
    DELETE FROM evidence.unobserved
     WHERE chain_id = $1 AND manager = $2 AND cohort = $3 AND first_block <= $5 AND last_block >= $4
    RETURNING first_block, last_block, reason, recorded_at
)
INSERT INTO evidence.unobserved (chain_id, manager, cohort, first_block, last_block, reason, recorded_at)
SELECT $1, $2, $3, first_block, $4::bigint - 1, reason, recorded_at FROM gone WHERE first_block < $4
UNION ALL
SELECT $1, $2, $3, $5::bigint + 1, last_block, reason, recorded_at FROM gone WHERE last_block > $5"""  # noqa: E501 - the columns in one line

_NOTE_LOST = """
INSERT INTO evidence.unobserved (chain_id, manager, cohort, first_block, last_block, reason)
SELECT $1, $2, $3, first_block, last_block, $6
  FROM unnest($4::bigint[], $5::bigint[]) AS lost(first_block, last_block)"""


async def _note_lost(
    connection: Connection, chain_id: int, payment: Payment, manager: Address
) -> None:
    """Say exactly what could not be read of this range; of longer stretches the rest stays."""
    task = payment.task
    key = (chain_id, manager, task.cohort)
    await connection.execute(_FORGET_LOST, *key, *task.span)
    if payment.lost:
        firsts, lasts = [s[0] for s in payment.lost], [s[1] for s in payment.lost]
        await connection.execute(_NOTE_LOST, *key, firsts, lasts, payment.lost_reason)


def manager_of(pass_: Pass) -> Address:
    """Return the manager whose roots a pass reads."""
    return Address(bytes.fromhex(pass_.name.removeprefix("roots/0x")))


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
    created = rows.created()
    if task.kind == "factory" and created:
        late = await connection.fetch(
            _COVERED_SINCE, chain_id, list(created), list(created.values())
        )
        if late:
            accounts = [Address(row[0]) for row in late]
            await adopt_accounts(connection, chain_id, accounts, "factory")
    await add_created(connection, chain_id, created)


async def check_blocks(
    connection: Connection, chain_id: int, headers: Collection[BlockHeader]
) -> None:
    """Raise StaleStepError if one of these blocks is stored under another hash."""
    known = {
        row[0]: row[1]
        for row in await connection.fetch(KNOWN_BLOCKS, chain_id, [h.number for h in headers])
    }
    for header in headers:
        if known.get(header.number, header.hash) != header.hash:
            raise StaleStepError(f"block {header.number} has another hash in the database")


_TAINTED_BEFORE = """
SELECT DISTINCT o.account FROM chain.canonical_slots AS o
 WHERE o.chain_id = $1 AND o.tainted AND o.block_number <= $2"""


# Also what was seen on a branch that lost counts again when its block is found on the chain.
_TAINTED_IN = """
SELECT o.account, o.block_number FROM chain.canonical_slots AS o
 WHERE o.chain_id = $1 AND o.tainted AND o.block_number BETWEEN $2 AND $3"""


async def _tainted_in(
    connection: Connection, chain_id: int, span: Span
) -> set[tuple[Address, int]]:
    rows = await connection.fetch(_TAINTED_IN, chain_id, *span)
    return {(Address(row[0]), row[1]) for row in rows}


async def _tainted_before(
    connection: Connection, chain_id: int, block_number: int
) -> list[Address]:
    rows = await connection.fetch(_TAINTED_BEFORE, chain_id, block_number)
    return [Address(row[0]) for row in rows]


async def tainted_before(database: Database, chain_id: int, block_number: int) -> list[Address]:
    """Return the accounts that were seen tainted at or before a block."""
    async with database.connection() as connection:
        return await _tainted_before(connection, chain_id, block_number)
