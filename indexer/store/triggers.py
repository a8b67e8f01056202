"""What the tables say of a range whose bodies or roots are to be paid: triggers and hints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.core.debt import Task
from indexer.core.roots import MERKLE_ROOT_UPDATED, RootHint, Trigger, module_call
from indexer.core.types import Address, BlockHeader, Hash32
from indexer.store.history import KNOWN_BLOCKS
from indexer.store.pool import Database


@dataclass(frozen=True, slots=True)
class StoredTriggers:
    """The triggers of a range as the database has them, with the blocks they stand in.

    `known_inputs` are the operations whose input has been decoded.
    """

    triggers: list[Trigger]
    hints: list[RootHint]
    headers: dict[int, BlockHeader]
    known_inputs: frozenset[Hash32]


# The accounts of a cohort at a block. Cohort 0 is everybody above their block of adoption, found
# from the rows of the range; another is few, and found from its accounts.
_IN_COHORT_0 = """
JOIN chain.account AS a ON a.chain_id = t.chain_id AND a.account = {account}
LEFT JOIN chain.cohort AS c ON c.chain_id = a.chain_id AND c.cohort_id = a.cohort_id
WHERE t.chain_id = $1 AND t.block_number BETWEEN $2 AND $3
  AND $4 = 0 AND (c.cohort_id IS NULL OR t.block_number > c.adopted_block)"""
_IN_COHORT = """
JOIN chain.account AS a ON a.chain_id = t.chain_id AND a.account = {account}
JOIN chain.cohort AS c ON c.chain_id = a.chain_id AND c.cohort_id = a.cohort_id
WHERE t.chain_id = $1 AND t.block_number BETWEEN $2 AND $3
  AND a.cohort_id = $4 AND t.block_number <= c.adopted_block"""

_OPERATIONS = """
SELECT t.block_number, t.log_index, t.transaction_hash, t.sender, t.success, t.user_op_hash,
       t.entry_point, t.transaction_index
  FROM chain.user_operation AS t {members}
 ORDER BY t.block_number, t.log_index"""

_EVENTS = """
SELECT t.block_number, t.log_index, t.transaction_hash, t.account, t.event,
       (t.args ->> 'operation')::int, t.user_op_hash, t.args ->> 'to', t.args ->> 'dataHash'
  FROM chain.account_event AS t {members}
   AND t.event = ANY($5::text[])
 ORDER BY t.block_number, t.log_index"""

_HINTS = """
SELECT t.block_number, t.log_index, t.hint_index, t.transaction_hash, t.manager, t.account,
       t.root, t.evidence, t.user_op_hash, t.leaf
  FROM chain.root_hint AS t {members}
 ORDER BY t.block_number, t.log_index, t.hint_index"""

_KNOWN_INPUTS = """
SELECT user_op_hash FROM chain.user_operation_body
 WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3"""


def _of(query: str, cohort: int, account: str) -> str:
    members = (_IN_COHORT if cohort else _IN_COHORT_0).format(account=account)
    return query.format(members=members)


_NTH_TRIGGER_0 = """
SELECT block_number FROM (
    (SELECT block_number FROM chain.user_operation
      WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 ORDER BY block_number LIMIT $4 + 1)
    UNION ALL
    (SELECT block_number FROM chain.account_event
      WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 ORDER BY block_number LIMIT $4 + 1)
) AS t WHERE $5 = 0 ORDER BY block_number OFFSET $4 LIMIT 1"""

_NTH_TRIGGER = """
SELECT block_number FROM (
    SELECT t.block_number FROM chain.account AS a
      JOIN chain.user_operation AS t ON t.chain_id = a.chain_id AND t.sender = a.account
     WHERE a.chain_id = $1 AND a.cohort_id = $5 AND t.block_number BETWEEN $2 AND $3
    UNION ALL
    SELECT t.block_number FROM chain.account AS a
      JOIN chain.account_event AS t ON t.chain_id = a.chain_id AND t.account = a.account
     WHERE a.chain_id = $1 AND a.cohort_id = $5 AND t.block_number BETWEEN $2 AND $3
) AS t ORDER BY block_number OFFSET $4 LIMIT 1"""


async def cut_range(database: Database, chain_id: int, task: Task, most: int) -> int:
    """Return the last block such that the range holds at most so many triggers, or one block."""
    query = _NTH_TRIGGER if task.cohort else _NTH_TRIGGER_0
    async with database.connection() as connection:
        beyond = await connection.fetchval(query, chain_id, *task.span, most, task.cohort)
    return task.last if beyond is None else max(task.first, int(beyond) - 1)


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
        query = _of(_OPERATIONS, task.cohort, "t.sender")
        rows = await connection.fetch(query, chain_id, *task.span, task.cohort)
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
        events = await connection.fetch(
            _of(_EVENTS, task.cohort, "t.account"), *span, list(trigger_events)
        )
        hints = await connection.fetch(_of(_HINTS, task.cohort, "t.account"), *span)
        inputs = await connection.fetch(_KNOWN_INPUTS, chain_id, *task.span)
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
                module_call(r[4], {"operation": r[5], "to": r[7], "dataHash": r[8]}),
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
                Hash32(r[9]) if r[9] is not None else None,
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
    return StoredTriggers(
        triggers,
        named,
        await known_headers(database, chain_id, numbers),
        frozenset(Hash32(r[0]) for r in inputs),
    )


async def known_headers(
    database: Database, chain_id: int, numbers: Sequence[int]
) -> dict[int, BlockHeader]:
    """Return the blocks that rows refer to, by number; the parent's hash is not known."""
    async with database.connection() as connection:
        blocks = await connection.fetch(KNOWN_BLOCKS, chain_id, numbers)
    return {r[0]: BlockHeader(r[0], Hash32(r[1]), Hash32(bytes(32)), r[2]) for r in blocks}
