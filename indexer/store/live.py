"""The live lane's transactions: extend the tail, rewind it, restart it, say what is wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from indexer.core.types import Address, BlockHeader, Hash32
from indexer.errors import FinalityBehindError, StaleStepError
from indexer.store.chain_row import ChainRow, Connection, lock_chain, read_chain
from indexer.store.live_view import LiveView
from indexer.store.observations import write_blocks
from indexer.store.pool import Database
from indexer.store.rows import BlockRows, read_disagreements, write_rows
from indexer.store.watched import add_created

_START_TAIL = """
UPDATE chain.chain
   SET finalized_number = $2, finalized_hash = $3, finalized_time = $4,
       indexed_number = $2, indexed_hash = $3, indexed_time = $4, updated_at = now()
 WHERE chain_id = $1"""

_HIGHEST_KEPT = "SELECT max(block_number) FROM chain.block WHERE chain_id = $1"

_INSERT_TAIL = """
INSERT INTO chain.tail (chain_id, block_number, hash, parent_hash, block_time)
SELECT $1, * FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bigint[])"""


_ENSURE_PARTITIONS = "SELECT chain.ensure_partitions($1, $2)"


async def start_tail(database: Database, chain_id: int, epoch: int, finalized: BlockHeader) -> None:
    """Begin the tail at the node's finalized block; everything below is history debt.

    FinalityBehindError while rows stand above that block: after a rewind below finality the node's
    finality has to come past what was kept, or the live lane would write it again.

    Also after an absence longer than finality: what the old tail held is final then (its tip
    was found on the node's chain), is folded, and the gap becomes debt.
    """
    async with database.transaction() as connection:
        chain = await lock_chain(connection, chain_id, epoch, "live")
        if chain.finalized_number is not None and chain.indexed_number is not None:
            await _finalize(connection, chain, chain.indexed_number)
        kept = await connection.fetchval(_HIGHEST_KEPT, chain_id)
        if kept is not None and kept > finalized.number:
            raise FinalityBehindError(
                f"block {kept} is stored, and the node's finality is at {finalized.number} only",
                remedy="it is waited for; if it stays, check the node's synchronisation",
            )
        await connection.execute("DELETE FROM chain.tail WHERE chain_id = $1", chain_id)
        await _insert_tail(connection, chain_id, [finalized])
        await connection.execute(
            _START_TAIL, chain_id, finalized.number, finalized.hash, finalized.timestamp
        )
        await connection.execute(_FOLLOW_FROM, chain_id, finalized.number)
        await connection.execute(_ENSURE_PARTITIONS, chain_id, finalized.number)


# After a restart of the tail the live lane has nothing between the old tip and the new start.
# What depends on accounts waits until discovery has closed that gap (activate_accounts).
_FOLLOW_FROM = """
UPDATE chain.coverage
   SET live_from = CASE WHEN filter NOT IN ('accounts', 'erc1155/touching') THEN $2::bigint END
 WHERE chain_id = $1 AND cohort = 0
   AND (pass, filter) IN (
       SELECT p ->> 0, p ->> 1 FROM chain.chain, jsonb_array_elements(settings -> 'passes') AS p
        WHERE chain_id = $1)"""


async def _insert_tail(
    connection: Connection, chain_id: int, headers: Sequence[BlockHeader]
) -> None:
    await connection.execute(
        _INSERT_TAIL,
        chain_id,
        [h.number for h in headers],
        [h.hash for h in headers],
        [h.parent_hash for h in headers],
        [h.timestamp for h in headers],
    )


@dataclass(frozen=True, slots=True)
class Extension:
    """One live step: blocks to append, their rows, and how far finality has come.

    `confirmed_at` is the database's time before a head was asked for that is now reached.
    """

    headers: tuple[BlockHeader, ...]
    finalized: BlockHeader
    latest: BlockHeader
    rows: BlockRows
    confirmed_at: datetime | None


# The roots of the blocks before are history debt then, read again where the state still is.
_LEAVE_ROOTS = """
UPDATE chain.coverage SET live_from = $2
 WHERE chain_id = $1 AND cohort = 0 AND pass LIKE 'roots/%' AND live_from IS NOT NULL"""

_ADVANCE = """
UPDATE chain.chain
   SET indexed_number = $2, indexed_hash = $3, indexed_time = $4, latest_number = $5,
       latest_time = $6, confirmed_at = $7, finality_violation = NULL, updated_at = now()
 WHERE chain_id = $1"""


async def apply_extension(
    database: Database,
    view: LiveView,
    extension: Extension,
    decide: Callable[[Connection], Awaitable[None]],
) -> None:
    """Write one step in one transaction; StaleStepError if the plan no longer fits.

    `decide` writes the verdicts of what the step touched, inside the same transaction.
    """
    planned, chain_id = view.chain, view.chain.chain_id
    async with database.transaction() as connection:
        chain = await lock_chain(connection, chain_id, planned.epoch, "live")
        _still_fits(planned, chain)
        tip = extension.headers[-1] if extension.headers else None
        if tip is not None:
            await connection.execute(_ENSURE_PARTITIONS, chain_id, tip.number)
            touched = extension.rows.block_numbers()
            await write_blocks(
                connection, chain_id, [h for h in extension.headers if h.number in touched]
            )
            await add_created(connection, chain_id, extension.rows.created())
            span = (extension.headers[0].number, tip.number)
            await write_rows(connection, chain_id, extension.rows, span)
            await _insert_tail(connection, chain_id, extension.headers)
            if extension.rows.roots_missed:
                await connection.execute(_LEAVE_ROOTS, chain_id, tip.number)
        if extension.finalized.number > (chain.finalized_number or 0):
            await _finalize(connection, chain, extension.finalized.number)
        await connection.execute(
            _ADVANCE,
            chain_id,
            tip.number if tip else chain.indexed_number,
            tip.hash if tip else chain.indexed_hash,
            tip.timestamp if tip else chain.indexed_time,
            extension.latest.number,
            extension.latest.timestamp,
            extension.confirmed_at,
        )
        await decide(connection)
        if extension.rows.roots:
            first, last = extension.headers[0].number, extension.headers[-1].number
            extension.rows.root_changes = await count_changes(connection, chain_id, first, last)
            extension.rows.disagreements = await read_disagreements(
                connection, chain_id, extension.rows, (first, last)
            )


# As watch.session_root says it, without what costs most there and is not counted here.
_COUNT_CHANGES = """
SELECT coalesce(t.evidence, 'state'), count(*)
  FROM chain.root_change AS r
  LEFT JOIN chain.root_attribution AS t
    ON t.chain_id = r.chain_id AND t.block_number = r.block_number
   AND t.manager = r.manager AND t.account = r.account
 WHERE r.chain_id = $1 AND r.block_number BETWEEN $2 AND $3
 GROUP BY 1"""


async def count_changes(
    connection: Connection, chain_id: int, first: int, last: int
) -> dict[str, int]:
    """Count the changes of roots in a range of blocks, by evidence."""
    rows = await connection.fetch(_COUNT_CHANGES, chain_id, first, last)
    return {row[0]: row[1] for row in rows}


def _still_fits(planned: ChainRow, found: ChainRow) -> None:
    if (planned.indexed_hash, planned.watch_version, planned.finalized_number) != (
        found.indexed_hash,
        found.watch_version,
        found.finalized_number,
    ):
        raise StaleStepError("the tip or the watch list moved while the step was prepared")


# Nothing updated in place depends on an unfinalized block: balances and coverage take in a
# block when it is final. Transfers in (marker, new marker] were all written by the live lane.
_FOLD_BALANCES = """
INSERT INTO chain.erc1155_balance AS kept (chain_id, contract, owner, token_id, balance)
SELECT $1, contract, owner, token_id, sum(delta) FROM (
    SELECT contract, to_address AS owner, token_id, amount AS delta
      FROM chain.erc1155_transfer WHERE chain_id = $1 AND block_number > $2 AND block_number <= $3
    UNION ALL
    SELECT contract, from_address, token_id, -amount
      FROM chain.erc1155_transfer WHERE chain_id = $1 AND block_number > $2 AND block_number <= $3
) AS moved
WHERE owner <> '\\x0000000000000000000000000000000000000000'::bytea
GROUP BY contract, owner, token_id HAVING sum(delta) <> 0
ORDER BY contract, owner, token_id
ON CONFLICT (chain_id, contract, owner, token_id)
DO UPDATE SET balance = kept.balance + excluded.balance"""

_COVER_LIVE = """
WITH locked AS ( -- in the order in which history locks them
    SELECT pass, filter, cohort FROM chain.coverage
     WHERE chain_id = $1 AND live_from < $3 ORDER BY pass, filter, cohort FOR UPDATE
)
UPDATE chain.coverage AS v
   SET blocks = v.blocks + int8multirange(int8range(greatest($2, v.live_from) + 1, $3 + 1))
  FROM locked AS l
 WHERE v.chain_id = $1 AND v.pass = l.pass AND v.filter = l.filter AND v.cohort = l.cohort"""

_MOVE_MARKER = """
UPDATE chain.chain AS c
   SET finalized_number = t.block_number, finalized_hash = t.hash, finalized_time = t.block_time
  FROM chain.tail AS t
 WHERE c.chain_id = $1 AND t.chain_id = $1 AND t.block_number = $2"""


async def _finalize(connection: Connection, chain: ChainRow, final_number: int) -> None:
    """Move the marker from chain.finalized_number to `final_number`, which the tail holds."""
    old = chain.finalized_number
    assert old is not None
    await connection.execute(_FOLD_BALANCES, chain.chain_id, old, final_number)
    await connection.execute(_MOVE_MARKER, chain.chain_id, final_number)
    await connection.execute(
        "DELETE FROM chain.tail WHERE chain_id = $1 AND block_number < $2",
        chain.chain_id,
        final_number,
    )
    await connection.execute(_COVER_LIVE, chain.chain_id, old, final_number)


_CONFIRM = """
UPDATE chain.chain
   SET latest_number = $3, latest_time = $4, confirmed_at = coalesce($5, confirmed_at),
       finality_violation = CASE WHEN $5::timestamptz IS NULL THEN finality_violation END,
       updated_at = now()
 WHERE chain_id = $1 AND epoch = $2"""


async def confirm_head(
    database: Database, view: LiveView, latest: BlockHeader, *, confirmed: bool
) -> None:
    """Record a step that found nothing to write; `confirmed`: the node's tip is ours."""
    async with database.transaction() as connection:
        await lock_chain(connection, view.chain.chain_id, view.chain.epoch, "live")
        await connection.execute(
            _CONFIRM,
            view.chain.chain_id,
            view.chain.epoch,
            latest.number,
            latest.timestamp,
            view.asked_at if confirmed else None,
        )


async def rewind(
    database: Database,
    view: LiveView,
    keep: BlockHeader,
    new_tip: BlockHeader,
    withdraw: Callable[[Connection], Awaitable[None]],
) -> list[Address]:
    """Move every row above `keep` to chain.orphan; return the accounts that were touched.

    They stand in chain.verdict_queue, to be read again on the new branch.
    """
    async with database.transaction() as connection:
        chain = await lock_chain(connection, view.chain.chain_id, view.chain.epoch, "live")
        _still_fits(view.chain, chain)
        touched = await connection.fetch(
            "SELECT account FROM chain.rewind($1, $2, $3, $4)",
            chain.chain_id,
            keep.number,
            new_tip.number,
            new_tip.hash,
        )
        await withdraw(connection)
    return [Address(row[0]) for row in touched]


async def set_finality_violation(database: Database, view: LiveView, text: str) -> None:
    """Latch a finality violation; it clears when a step confirms that both sides agree."""
    async with database.transaction() as connection:
        await lock_chain(connection, view.chain.chain_id, view.chain.epoch, "live")
        await connection.execute(
            "UPDATE chain.chain SET finality_violation = $2, updated_at = now() "
            "WHERE chain_id = $1 AND finality_violation IS DISTINCT FROM $2",
            view.chain.chain_id,
            text,
        )


async def first_block(database: Database, chain_id: int) -> int:
    """Return where the chain's history begins; 0 if that is not known yet."""
    async with database.connection() as connection:
        chain = await read_chain(connection, chain_id)
    return chain.start_block or 0 if chain is not None else 0


_AT_OR_BELOW = """
SELECT block_number, hash FROM chain.block WHERE chain_id = $1 AND block_number <= $2
 ORDER BY block_number DESC LIMIT 1"""


async def block_at_or_below(
    database: Database, chain_id: int, block_number: int
) -> tuple[int, Hash32] | None:
    """Return number and hash of the highest block with rows up to this one, if there is any."""
    async with database.connection() as connection:
        row = await connection.fetchrow(_AT_OR_BELOW, chain_id, block_number)
    return None if row is None else (row[0], Hash32(row[1]))


_ACTIVATE = """
UPDATE chain.coverage SET live_from = $2, begun = true
 WHERE chain_id = $1 AND cohort = 0 AND filter IN ('accounts', 'erc1155/touching')
   AND (pass, filter) IN (
       SELECT p ->> 0, p ->> 1 FROM chain.chain, jsonb_array_elements(settings -> 'passes') AS p
        WHERE chain_id = $1)"""


async def add_to_tail(
    database: Database,
    view: LiveView,
    headers: Sequence[BlockHeader],
    rows: BlockRows,
    decide: Callable[[Connection], Awaitable[None]],
    *,
    activate: bool,
) -> None:
    """Write what was found late of blocks that the tail holds already, its `headers` but the first.

    `activate`: from the finalized block on the live lane keeps accounts' logs; `rows` are then
    all that accounts did in the tail.
    """
    chain_id = view.chain.chain_id
    async with database.transaction() as connection:
        chain = await lock_chain(connection, chain_id, view.chain.epoch, "live")
        _still_fits(view.chain, chain)
        touched = rows.block_numbers()
        await write_blocks(connection, chain_id, [h for h in headers if h.number in touched])
        if headers:
            span = (headers[0].number, headers[-1].number)
            await write_rows(connection, chain_id, rows, span)
        if activate:
            await connection.execute(_ACTIVATE, chain_id, chain.finalized_number)
        if rows.roots_missed:
            await connection.execute(_LEAVE_ROOTS, chain_id, chain.indexed_number)
        await decide(connection)
