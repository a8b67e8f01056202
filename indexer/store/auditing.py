"""What the daemon's own audits read: who is to be looked at, and what is stored of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from indexer.core.audit_changes import Stored
from indexer.core.passes import hex_of
from indexer.core.roots import AccountObservation
from indexer.core.settings import ChainSettings
from indexer.core.topics import TRIGGER_EVENTS
from indexer.core.types import Address, BlockHeader, Hash32
from indexer.store.chain_row import Connection, read_chain
from indexer.store.pool import Database
from indexer.store.sweep import NEWEST_REORG

Key = tuple[Address, Address]
"""Manager, account."""
Slots = tuple[Address, Address, frozenset[Address]]
"""Implementation, fallback handler, enabled managers."""

ROOTS_PER_FETCH = 2_000


@dataclass(frozen=True, slots=True)
class AuditedBlock:
    """A block of ours to read at. `settled`: another stands above it, so its state is at rest."""

    header: BlockHeader
    settled: bool
    reorg_id: int
    """The newest rewind when it was chosen; 0: none."""


@dataclass(frozen=True, slots=True)
class AuditChunk:
    """Accounts in the order of their addresses, and what is stored of them up to `block`.

    `last` is where the next chunk goes on; None: there is none.
    """

    block: AuditedBlock
    accounts: Sequence[Address]
    last: Address | None
    roots: Mapping[Key, Stored]
    slots: Mapping[Address, tuple[int, Slots]]
    """By account: the block at which its slots were read last, and what they were."""


_ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

_SETTLED = """
SELECT block_number, hash, parent_hash, block_time FROM chain.tail
 WHERE chain_id = $1 AND block_number >= $2 ORDER BY block_number LIMIT 1"""


async def read_block(database: Database, settings: ChainSettings) -> AuditedBlock | None:
    """Return the block to read at now; None: nothing is followed, or nothing more will come."""
    async with database.transaction() as connection:
        await connection.execute(_ONE_SNAPSHOT)
        return await _block(connection, settings)


async def _block(connection: Connection, settings: ChainSettings) -> AuditedBlock | None:
    chain = await read_chain(connection, settings.chain_id)
    if chain is None or chain.indexed_number is None or chain.finality_violation is not None:
        return None
    if chain.finalized_number == settings.end_block:
        return None
    row = await connection.fetchrow(_SETTLED, settings.chain_id, chain.indexed_number - 1)
    assert row is not None, "the tip is in the tail"
    reorg_id = await connection.fetchval(NEWEST_REORG, settings.chain_id)
    header = BlockHeader(row[0], Hash32(row[1]), Hash32(row[2]), row[3])
    return AuditedBlock(header, header.number < chain.indexed_number, reorg_id)


ZERO_ROOT = f"'\\x{bytes(32).hex()}'::bytea"

# As the index evidence.root_observation_ever has it: also those whose root has been cleared.
_TO_AUDIT = f"""
SELECT k.account, a.account IS NOT NULL
  FROM ((SELECT DISTINCT account FROM sessions.session_set
          WHERE chain_id = $1 AND account > $2::bytea ORDER BY account LIMIT $3)
        UNION
        (SELECT DISTINCT account FROM evidence.root_observation
          WHERE chain_id = $1 AND account > $2::bytea AND root <> {ZERO_ROOT}
          ORDER BY account LIMIT $3)) AS k
  LEFT JOIN chain.account AS a ON a.chain_id = $1 AND a.account = k.account
 ORDER BY k.account LIMIT $3"""

_EVERYONE = """
SELECT account, true FROM chain.account
 WHERE chain_id = $1 AND account > $2::bytea ORDER BY account LIMIT $3"""

_LATEST_ROOTS = """
SELECT m.manager, a.account, latest.block_number, latest.root
  FROM unnest($2::bytea[]) AS m(manager) CROSS JOIN unnest($3::bytea[]) AS a(account)
 CROSS JOIN LATERAL (
    SELECT o.block_number, o.root FROM chain.canonical_root AS o
     WHERE o.chain_id = $1 AND o.manager = m.manager AND o.account = a.account
       AND o.block_number <= $4
     ORDER BY o.block_number DESC LIMIT 1) AS latest"""

_LATEST_SLOTS = """
SELECT a.account, latest.* FROM unnest($2::bytea[]) AS a(account)
 CROSS JOIN LATERAL (
    SELECT o.block_number, o.implementation, o.fallback_handler, o.enabled_managers
      FROM chain.canonical_slots AS o
     WHERE o.chain_id = $1 AND o.account = a.account AND o.block_number <= $3
     ORDER BY o.block_number DESC LIMIT 1) AS latest"""


async def read_chunk(
    database: Database,
    settings: ChainSettings,
    managers: Sequence[Address],
    after: Address,
    limit: int,
    *,
    everyone: bool = False,
) -> AuditChunk | None:
    """Return the next accounts, with what is stored of their roots in these managers.

    Of the watched those who ever had a root, or have a stored set; `everyone`: all of them. None
    as of read_block.
    """
    async with database.transaction() as connection:
        await connection.execute(_ONE_SNAPSHOT)
        block = await _block(connection, settings)
        if block is None:
            return None
        query = _EVERYONE if everyone else _TO_AUDIT
        rows = await connection.fetch(query, settings.chain_id, after, limit)
        accounts = [Address(row[0]) for row in rows if row[1]]
        number = block.header.number
        roots = await stored_roots(connection, settings.chain_id, managers, accounts, number)
        slots = await stored_slots(connection, settings.chain_id, accounts, number)
    last = Address(rows[-1][0]) if len(rows) == limit else None
    return AuditChunk(block, accounts, last, roots, slots)


async def stored_roots(
    connection: Connection,
    chain_id: int,
    managers: Collection[Address],
    accounts: Collection[Address],
    block_number: int,
) -> dict[Key, Stored]:
    """Return the last canonical roots at or before a block, of every manager and account."""
    found = {(m, a): Stored(m, a, None) for m in managers for a in accounts}
    rows = await connection.fetch(
        _LATEST_ROOTS, chain_id, list(managers), list(accounts), block_number
    )
    for row in rows:
        key = (Address(row[0]), Address(row[1]))
        found[key] = Stored(*key, row[2], Hash32(row[3]))
    return found


async def stored_slots(
    connection: Connection, chain_id: int, accounts: Collection[Address], block_number: int
) -> dict[Address, tuple[int, Slots]]:
    """Return the slots last read at or before a block, each with the block; none: absent."""
    rows = await connection.fetch(_LATEST_SLOTS, chain_id, list(accounts), block_number)
    return {
        Address(row[0]): (
            row[1],
            (Address(row[2]), Address(row[3]), frozenset(map(Address, row[4]))),
        )
        for row in rows
    }


def same_slots(stored: Slots, seen: AccountObservation, managers: Collection[Address]) -> bool:
    """Say whether slots are as stored, as far as managers are still configured."""
    implementation, handler, enabled = stored
    return (implementation, handler, enabled & frozenset(managers)) == (
        *(seen.implementation, seen.fallback_handler),
        frozenset(seen.enabled_managers),
    )


# --- what a difference means ------------------------------------------------------------------

# Where a block after the last observation is owed or lost, a difference is no news: it is debt. So
# it is where a block after the last reading of the account's slots is: whether it could change its
# root without a log is not known yet. Nor is it news where the account is about to be read anyway,
# after a reorg or a change of configuration.
_COVERED = """
SELECT k.manager, k.account, since.block_number,
       EXISTS (SELECT FROM chain.canonical_slots AS s
                WHERE s.chain_id = $1 AND s.account = k.account AND s.tainted
                  AND s.block_number <= $5
                  AND NOT EXISTS (SELECT FROM chain.canonical_slots AS l
                       WHERE l.chain_id = $1 AND l.account = k.account
                         AND l.block_number > s.block_number
                         AND l.block_number < since.block_number))
  FROM unnest($2::bytea[], $3::bytea[], $4::bigint[]) AS k(manager, account, previous_block)
  JOIN chain.chain AS c ON c.chain_id = $1
  JOIN chain.account AS a ON a.chain_id = $1 AND a.account = k.account
  JOIN chain.covered AS v ON v.chain_id = $1 AND v.pass = 'roots/' || evidence.hex(k.manager)
   AND v.filter = 'accounts' AND v.cohort = a.cohort_id
 CROSS JOIN LATERAL (
    SELECT coalesce(k.previous_block + 1, a.block_number, c.start_block) AS block_number) AS since
 CROSS JOIN LATERAL (
    SELECT coalesce(max(s.block_number) + 1, a.block_number, c.start_block) AS block_number
      FROM chain.canonical_slots AS s
     WHERE s.chain_id = $1 AND s.account = k.account AND s.block_number <= $5) AS unread
 WHERE since.block_number <= $5
   AND int8range(least(since.block_number, unread.block_number), $5 + 1) <@ v.blocks
   AND NOT EXISTS (SELECT FROM chain.verdict_queue AS q
                    WHERE q.chain_id = $1 AND q.manager = k.manager AND q.account = k.account
                      AND q.read_state)"""


@dataclass(frozen=True, slots=True)
class Covered:
    """From `first_block` on nothing was owed; `tainted`: the account was so there, or since."""

    first_block: int
    tainted: bool


async def read_covered(
    database: Database, chain_id: int, previous: Mapping[Key, int | None], block_number: int
) -> dict[Key, Covered]:
    """Return the keys of which every block after the previous one is read, up to this block.

    So it is of the accounts' own slots, since they were read last.
    """
    managers, accounts = [key[0] for key in previous], [key[1] for key in previous]
    async with database.connection() as connection:
        rows = await connection.fetch(
            _COVERED, chain_id, managers, accounts, list(previous.values()), block_number
        )
    return {(Address(row[0]), Address(row[1])): Covered(row[2], row[3]) for row in rows}


_HAS_TRIGGER = """
SELECT EXISTS (SELECT FROM chain.user_operation
                WHERE chain_id = $1 AND sender = $2 AND block_number = $3)
    OR EXISTS (SELECT FROM chain.account_event
                WHERE chain_id = $1 AND account = $2 AND block_number = $3 AND event = ANY($4))
    OR EXISTS (SELECT FROM chain.root_hint
                WHERE chain_id = $1 AND account = $2 AND block_number = $3
                  AND evidence = 'event')"""


async def has_trigger(
    database: Database, chain_id: int, account: Address, block_number: int
) -> bool:
    """Say whether a log is stored that says: the account may have acted in this block."""
    events = sorted(TRIGGER_EVENTS)
    async with database.connection() as connection:
        return bool(
            await connection.fetchval(_HAS_TRIGGER, chain_id, account, block_number, events)
        )


# --- all roots of a manager -------------------------------------------------------------------

_ALL_ROOTS = f"""
SELECT k.account, latest.root
  FROM (SELECT DISTINCT account FROM evidence.root_observation
         WHERE chain_id = $1 AND manager = $2 AND root <> {ZERO_ROOT}) AS k
 CROSS JOIN LATERAL (
    SELECT o.root FROM chain.canonical_root AS o
     WHERE o.chain_id = $1 AND o.manager = $2 AND o.account = k.account AND o.block_number <= $3
     ORDER BY o.block_number DESC LIMIT 1) AS latest
 LIMIT $4"""

_NOTHING_OWED = """
SELECT coalesce(bool_and(int8range(c.start_block, $3 + 1) <@ v.blocks), false)
  FROM chain.covered AS v JOIN chain.chain AS c USING (chain_id)
 WHERE v.chain_id = $1 AND v.pass = $2 AND v.filter = 'accounts'"""

_LAST_TELLING = """
SELECT block_number, storage_proof FROM chain.audit
 WHERE chain_id = $1 AND manager = $2 AND block_number <= $3 AND storage_proof <> 'unavailable'
 ORDER BY block_number DESC LIMIT 1"""


@dataclass(frozen=True, slots=True)
class KnownRoots:
    """The roots of a manager by account, cleared ones as zero, at a block.

    `complete_at` is the block of the last audit that could tell, if all roots were known then.
    """

    block: AuditedBlock
    roots: Sequence[tuple[Address, Hash32]]
    nothing_owed: bool
    complete_at: int | None


async def read_known_roots(
    database: Database, settings: ChainSettings, manager: Address, most: int
) -> KnownRoots | None:
    """Return all known roots of a manager, at most so many; None as of read_block."""
    chain_id = settings.chain_id
    async with database.transaction() as connection:
        await connection.execute(_ONE_SNAPSHOT)
        block = await _block(connection, settings)
        if block is None:
            return None
        number = block.header.number
        nothing_owed = await connection.fetchval(
            _NOTHING_OWED, chain_id, f"roots/{hex_of(manager)}", number
        )
        told = await connection.fetchrow(_LAST_TELLING, chain_id, manager, number)
        complete_at = told[0] if told is not None and told[1] == "complete" else None
        # In parts: the live lane goes on between them.
        cursor = connection.cursor(
            _ALL_ROOTS, chain_id, manager, number, most, prefetch=ROOTS_PER_FETCH
        )
        roots = [(Address(row[0]), Hash32(row[1])) async for row in cursor]
    return KnownRoots(block, roots, bool(nothing_owed), complete_at)
