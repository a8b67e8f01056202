"""The transactions of the sweep: what waits to be decided, and deciding it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from indexer.core.roots import AccountObservation, RootObservation
from indexer.core.settings import ChainSettings
from indexer.core.types import Address, BlockHeader, Hash32
from indexer.core.verdict_values import Settings as VerdictSettings
from indexer.errors import StaleStepError
from indexer.store import verdicts
from indexer.store.chain_row import NEVER, Connection, lock_chain, read_chain
from indexer.store.observations import write_blocks, write_observations
from indexer.store.pool import Database
from indexer.store.searches import remember_searches
from indexer.store.watched import adopt_accounts, read_again

Key = tuple[Address, Address]


@dataclass(frozen=True, slots=True)
class Work:
    """Keys to decide as of `tip`, and what has to be read there first."""

    tip: BlockHeader
    reorg_id: int
    """The newest rewind when the tip was read; 0: none."""
    confirmed_at: datetime | None
    keys: frozenset[Key]
    queued: tuple[verdicts.QueuedKey, ...]
    read_accounts: frozenset[Address]
    adopt: tuple[tuple[Address, str], ...]
    modules_of: Mapping[Address, frozenset[Address]]
    """By account, the modules of its sets whose code has to be read."""
    more: bool

    @property
    def modules(self) -> list[Address]:
        """All modules whose code has to be read."""
        return sorted(set().union(*self.modules_of.values()))

    def without_reading(self) -> Work:
        """Return the part that needs no node, for while it is away."""
        reading = self.read_accounts | self.modules_of.keys()
        return replace(
            self,
            keys=frozenset(key for key in self.keys if key[1] not in reading),
            queued=tuple(q for q in self.queued if q.account not in reading),
            read_accounts=frozenset(),
            adopt=(),
            modules_of={},
        )


_QUEUE_STORED = """
INSERT INTO chain.verdict_queue (chain_id, manager, account, read_state)
SELECT DISTINCT chain_id, manager, account, true FROM sessions.session_set WHERE chain_id = $1
ON CONFLICT (chain_id, manager, account) DO UPDATE SET read_state = true"""


async def queue_stored(database: Database, chain_id: int) -> None:
    """Ask for the current root of every account with a stored set, as at each start."""
    async with database.transaction() as connection:
        await connection.execute(_QUEUE_STORED, chain_id)


_UNWATCHED = """
SELECT account FROM unnest($2::bytea[]) AS account
 WHERE NOT EXISTS (
     SELECT FROM chain.account AS a WHERE a.chain_id = $1 AND a.account = account.account)"""

_WITH_SETS = """
SELECT DISTINCT account FROM sessions.session_set
 WHERE chain_id = $1 AND account = ANY($2::bytea[])"""

# Code comes and, by a reorg, goes: modules are looked at whenever a set with them is decided here.
# Not once more at the same block, if that is final: a chain that has stopped needs no node for it.
_MODULES = """
SELECT ss.account, array_agg(DISTINCT s.session_validation_module)
  FROM sessions.session_set AS ss JOIN sessions.session AS s USING (set_id)
 WHERE ss.chain_id = $1 AND ss.account = ANY($2::bytea[])
   AND NOT EXISTS (
       SELECT FROM chain.chain AS c JOIN evidence.module_code AS m USING (chain_id)
        WHERE c.chain_id = $1 AND c.indexed_number = c.finalized_number
          AND m.module = s.session_validation_module AND m.block_number = c.indexed_number
          AND NOT EXISTS (
              SELECT FROM chain.reorg AS r
               WHERE r.chain_id = $1 AND r.common_ancestor < m.block_number
                 AND r.old_tip_number >= m.block_number))
 GROUP BY ss.account"""


async def read_work(database: Database, settings: ChainSettings, limit: int) -> Work | None:
    """Return what waits to be decided, or None before the first live step."""
    chain_id = settings.chain_id
    listed = settings.accounts if settings.accounts_mode == "list" else ()
    async with database.transaction() as connection:
        # One snapshot: a rewind between reading the tip and reading the newest reorg would go
        # unnoticed by apply_work, and what is read at the lost tip be written as our block.
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        chain = await read_chain(connection, chain_id)
        if chain is None or chain.indexed_number is None or chain.indexed_hash is None:
            return None
        assert chain.indexed_time is not None
        queued = await verdicts.queued_keys(connection, chain_id, limit)
        due = (
            await verdicts.due_keys(
                connection, chain_id, chain.confirmed_at, chain.indexed_time, limit
            )
            if chain.confirmed_at is not None
            else []
        )
        keys = {(q.manager, q.account) for q in queued} | set(due)
        accounts = sorted({account for _, account in keys})
        unwatched = [
            Address(row[0]) for row in await connection.fetch(_UNWATCHED, chain_id, accounts)
        ]
        with_sets = {
            Address(row[0]) for row in await connection.fetch(_WITH_SETS, chain_id, unwatched)
        }
        new_listed = [
            Address(row[0]) for row in await connection.fetch(_UNWATCHED, chain_id, list(listed))
        ]
        keys |= {(manager, account) for account in new_listed for manager in settings.managers}
        modules = await connection.fetch(_MODULES, chain_id, accounts)
        reorg_id = await connection.fetchval(NEWEST_REORG, chain_id)
    adopt = [(account, "stored") for account in sorted(with_sets)]
    adopt += [(account, "list") for account in new_listed if account not in with_sets]
    read_accounts = {q.account for q in queued if q.read_state} | {a for a, _ in adopt}
    # Accounts that are neither watched nor have a set were rewound away: nothing to read.
    read_accounts -= set(unwatched) - with_sets - set(new_listed)
    return Work(
        BlockHeader(
            chain.indexed_number, chain.indexed_hash, Hash32(bytes(32)), chain.indexed_time
        ),
        reorg_id,
        chain.confirmed_at,
        frozenset(keys),
        tuple(queued),
        frozenset(read_accounts),
        tuple(adopt),
        {Address(row[0]): frozenset(map(Address, row[1])) for row in modules},
        len(queued) == limit or len(due) == limit,
    )


_MODULE_CODE = """
INSERT INTO evidence.module_code (chain_id, module, has_code, block_number)
SELECT $1, module, has_code, $4 FROM unnest($2::bytea[], $3::boolean[]) AS m(module, has_code)
ON CONFLICT (chain_id, module) DO UPDATE
   SET has_code = excluded.has_code, block_number = excluded.block_number"""


async def apply_work(
    database: Database,
    chain_id: int,
    epoch: int,
    work: Work,
    roots: Sequence[RootObservation],
    slots: Sequence[AccountObservation],
    module_code: Mapping[Address, bool],
    settings: VerdictSettings,
) -> tuple[list[verdicts.VerdictChange], list[Address]]:
    """Write what was read and decide the keys; StaleStepError if a reorg took the tip meanwhile.

    Also returns the accounts that owe roots again: found tainted at a block which has become
    final since, with others above it that were passed over as of a clean account.
    """
    confirmed_at = work.confirmed_at or NEVER
    await remember_searches(database, chain_id, work.tip, confirmed_at, settings, work.keys)
    async with database.transaction() as connection:
        chain = await lock_chain(connection, chain_id, epoch, "live")
        await check_not_rewound(connection, chain_id, work.reorg_id, work.tip.number)
        assert chain.indexed_number is not None
        assert chain.indexed_time is not None
        for source in ("stored", "list"):
            accounts = [account for account, why in work.adopt if why == source]
            if accounts:
                await adopt_accounts(connection, chain_id, accounts, source)
        new_roots, new_slots = await _differing(connection, chain_id, roots, slots)
        if new_roots or new_slots:
            await write_blocks(connection, chain_id, [work.tip])
        await write_observations(connection, chain_id, new_roots, new_slots, ())
        tainted = {(o.account, o.block_number) for o in new_slots if o.tainted}
        owing = await read_again(connection, chain_id, tainted) if tainted else []
        if module_code:
            await connection.execute(
                _MODULE_CODE,
                chain_id,
                list(module_code),
                list(module_code.values()),
                work.tip.number,
            )
        changes = await verdicts.decide_touched(
            connection,
            chain_id=chain_id,
            confirmed_at=confirmed_at,
            settings=settings,
            touched=[(chain.indexed_number, chain.indexed_time, work.keys)],
            taken=work.queued,
        )
        if work.adopt and chain.indexed_number != work.tip.number:
            # Nobody watched these accounts between the two blocks: look once more.
            adopted = {account for account, _ in work.adopt}
            again = [key for key in work.keys if key[1] in adopted]
            await verdicts.enqueue(connection, chain_id, again, read_state=True)
        return changes, owing


NEWEST_REORG = "SELECT coalesce(max(reorg_id), 0) FROM chain.reorg WHERE chain_id = $1"

# Not by the tail: where finality is close, a block leaves it while many accounts are being read.
_REWOUND = """
SELECT EXISTS (SELECT FROM chain.reorg
                WHERE chain_id = $1 AND reorg_id > $2 AND common_ancestor < $3)"""


async def check_not_rewound(
    connection: Connection, chain_id: int, reorg_id: int, block_number: int
) -> None:
    """Raise StaleStepError if a rewind after this one took the block."""
    if await connection.fetchval(_REWOUND, chain_id, reorg_id, block_number):
        raise StaleStepError("a reorg took the block at which state was read")


# After a stretch that could not be read, also the same root is news: it was not known any more.
_LATEST_ROOTS = """
SELECT k.manager, k.account, latest.root
  FROM unnest($2::bytea[], $3::bytea[]) AS k(manager, account)
 CROSS JOIN LATERAL (
    SELECT o.root, o.block_number FROM chain.canonical_root AS o
     WHERE o.chain_id = $1 AND o.manager = k.manager AND o.account = k.account
     ORDER BY o.block_number DESC LIMIT 1
) AS latest
 WHERE NOT EXISTS (
    SELECT FROM evidence.unobserved AS u
     WHERE u.chain_id = $1 AND u.manager = k.manager AND u.last_block > latest.block_number)"""

_LATEST_SLOTS = """
SELECT k.account, latest.* FROM unnest($2::bytea[]) AS k(account)
 CROSS JOIN LATERAL (
    SELECT o.implementation, o.fallback_handler, o.enabled_managers, o.tainted
      FROM chain.canonical_slots AS o
     WHERE o.chain_id = $1 AND o.account = k.account
     ORDER BY o.block_number DESC LIMIT 1
) AS latest"""


async def _differing(
    connection: Connection,
    chain_id: int,
    roots: Sequence[RootObservation],
    slots: Sequence[AccountObservation],
) -> tuple[list[RootObservation], list[AccountObservation]]:
    """Return what is not known already: no trigger asked for it, only a start or a rewind.

    With slots that are new go the roots of their block: what is owed again of a taint that is
    found later ends below it, and an older root may turn out to have stood between.
    """
    known_roots = {
        (bytes(row[0]), bytes(row[1])): bytes(row[2])
        for row in await connection.fetch(
            _LATEST_ROOTS, chain_id, [o.manager for o in roots], [o.account for o in roots]
        )
    }
    known_slots = {
        bytes(row[0]): (row[1], row[2], frozenset(row[3]), row[4])
        for row in await connection.fetch(_LATEST_SLOTS, chain_id, [o.account for o in slots])
    }
    new_slots = [
        o
        for o in slots
        if known_slots.get(o.account)
        != (o.implementation, o.fallback_handler, frozenset(o.enabled_managers), o.tainted)
    ]
    wanted = {o.account for o in new_slots}
    new_roots = [
        o for o in roots if o.account in wanted or known_roots.get((o.manager, o.account)) != o.root
    ]
    return new_roots, new_slots
