"""The transactions of the sweep: what waits to be decided, and deciding it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from indexer.core.roots import AccountObservation, RootObservation
from indexer.core.settings import ChainSettings
from indexer.core.types import Address, BlockHeader, Hash32
from indexer.core.verdict_values import Settings as VerdictSettings
from indexer.errors import StaleStepError
from indexer.store import verdicts
from indexer.store.chain_row import NEVER, lock_chain, read_chain
from indexer.store.pool import Database
from indexer.store.rows import write_blocks, write_observations
from indexer.store.watched import adopt_accounts

Key = tuple[Address, Address]


@dataclass(frozen=True, slots=True)
class Work:
    """Keys to decide as of `tip`, and what has to be read there first."""

    tip: BlockHeader
    confirmed_at: datetime | None
    keys: frozenset[Key]
    queued: tuple[verdicts.QueuedKey, ...]
    read_accounts: frozenset[Address]
    adopt: tuple[tuple[Address, str], ...]
    modules: tuple[Address, ...]
    more: bool


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

# Modules of stored sets that were never looked at, or had no code when last looked at.
_MODULES = """
SELECT DISTINCT s.session_validation_module
  FROM sessions.session_set AS ss JOIN sessions.session AS s USING (set_id)
  LEFT JOIN evidence.module_code AS m
         ON m.chain_id = ss.chain_id AND m.module = s.session_validation_module
 WHERE ss.chain_id = $1 AND ss.account = ANY($2::bytea[]) AND m.has_code IS NOT TRUE"""


async def read_work(database: Database, settings: ChainSettings, limit: int) -> Work | None:
    """Return what waits to be decided, or None before the first live step."""
    chain_id = settings.chain_id
    listed = settings.accounts if settings.accounts_mode == "list" else ()
    async with database.transaction() as connection:
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
    adopt = [(account, "stored") for account in sorted(with_sets)]
    adopt += [(account, "list") for account in new_listed if account not in with_sets]
    read_accounts = {q.account for q in queued if q.read_state} | {a for a, _ in adopt}
    # Accounts that are neither watched nor have a set were rewound away: nothing to read.
    read_accounts -= set(unwatched) - with_sets
    return Work(
        BlockHeader(
            chain.indexed_number, chain.indexed_hash, Hash32(bytes(32)), chain.indexed_time
        ),
        chain.confirmed_at,
        frozenset(keys),
        tuple(queued),
        frozenset(read_accounts),
        tuple(adopt),
        tuple(Address(row[0]) for row in modules),
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
) -> list[verdicts.VerdictChange]:
    """Write what was read and decide the keys; StaleStepError if the tip moved meanwhile."""
    async with database.transaction() as connection:
        chain = await lock_chain(connection, chain_id, epoch, "live")
        if chain.indexed_hash != work.tip.hash:
            raise StaleStepError("the tip moved while state was read")
        for source in ("stored", "list"):
            accounts = [account for account, why in work.adopt if why == source]
            if accounts:
                await adopt_accounts(connection, chain_id, accounts, work.tip.number, source)
        if roots or slots:
            await write_blocks(connection, chain_id, [work.tip])
        await write_observations(connection, chain_id, roots, slots, ())
        if module_code:
            await connection.execute(
                _MODULE_CODE,
                chain_id,
                list(module_code),
                list(module_code.values()),
                work.tip.number,
            )
        return await verdicts.decide_touched(
            connection,
            chain_id=chain_id,
            confirmed_at=work.confirmed_at or chain.confirmed_at or NEVER,
            settings=settings,
            touched=[(work.tip.number, work.tip.timestamp, work.keys)],
            taken=work.queued,
        )
