"""The queue of (manager, account) to decide: whoever changes an input puts the key there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from indexer.core.types import Address
from indexer.store.chain_row import Connection
from indexer.store.verdict_inputs import Key


@dataclass(frozen=True, slots=True)
class QueuedKey:
    """A key to decide; `read_state`: its account and root are to be read before."""

    manager: Address
    account: Address
    read_state: bool
    queued_at: datetime


_ENQUEUE = """
INSERT INTO chain.verdict_queue AS q (chain_id, manager, account, read_state, queued_at)
SELECT $1, k.manager, k.account, $4, clock_timestamp()
  FROM (SELECT DISTINCT manager, account
          FROM unnest($2::bytea[], $3::bytea[]) AS u(manager, account)
         ORDER BY manager, account) AS k
ON CONFLICT (chain_id, manager, account) DO UPDATE
   SET read_state = q.read_state OR excluded.read_state, queued_at = excluded.queued_at"""


async def enqueue(
    connection: Connection, chain_id: int, keys: Collection[Key], *, read_state: bool = False
) -> None:
    """Ask the chain's daemon to decide these keys, in the transaction that changed an input."""
    managers, accounts = [k[0] for k in keys], [k[1] for k in keys]
    await connection.execute(_ENQUEUE, chain_id, managers, accounts, read_state)


_QUEUED = """
SELECT manager, account, read_state, queued_at FROM chain.verdict_queue
 WHERE chain_id = $1 ORDER BY queued_at, manager, account LIMIT $2"""


async def queued_keys(connection: Connection, chain_id: int, limit: int) -> list[QueuedKey]:
    """Return the keys that have waited longest."""
    rows = await connection.fetch(_QUEUED, chain_id, limit)
    return [QueuedKey(Address(r[0]), Address(r[1]), r[2], r[3]) for r in rows]


# What an import holds locked is left: it was not part of what is decided now, and the live lane
# must not wait for it.
_DEQUEUE = """
WITH taken AS (
    SELECT q.manager, q.account FROM chain.verdict_queue AS q
      JOIN unnest($2::bytea[], $3::bytea[]) AS k(manager, account)
        ON q.manager = k.manager AND q.account = k.account
     WHERE q.chain_id = $1
       AND ($4 OR NOT q.read_state
            OR (q.manager, q.account, q.queued_at) IN (
                SELECT * FROM unnest($5::bytea[], $6::bytea[], $7::timestamptz[])))
       FOR UPDATE OF q SKIP LOCKED)
DELETE FROM chain.verdict_queue AS q USING taken
 WHERE q.chain_id = $1 AND q.manager = taken.manager AND q.account = taken.account"""


async def dequeue(
    connection: Connection,
    chain_id: int,
    keys: Iterable[Key],
    taken: Sequence[QueuedKey] | None,
) -> None:
    """Remove keys that are decided now; call it before their inputs are read.

    `taken` None: all of them. Else those that ask for no reading, and those that still stand as
    they were taken: one queued again meanwhile has to be read again.
    """
    listed = list(keys)
    exact = taken or ()
    await connection.execute(
        _DEQUEUE,
        chain_id,
        [key[0] for key in listed],
        [key[1] for key in listed],
        taken is None,
        [q.manager for q in exact],
        [q.account for q in exact],
        [q.queued_at for q in exact],
    )
