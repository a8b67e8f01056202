"""Writing what an audit found: the repair, the finding, and what is owed again, at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from indexer.core.attribution import RootAttribution
from indexer.core.audit_changes import Finding
from indexer.core.roots import AccountObservation, RootObservation
from indexer.core.types import Address, BlockHeader
from indexer.errors import StaleStepError
from indexer.store.auditing import AuditChunk, AuditedBlock, stored_roots, stored_slots
from indexer.store.chain_row import Connection, lock_chain
from indexer.store.history import check_blocks
from indexer.store.observations import write_blocks, write_observations
from indexer.store.pool import Database
from indexer.store.sweep import check_not_rewound
from indexer.store.verdict_queue import enqueue
from indexer.store.watched import read_again

StorageProof = Literal["complete", "others_exist", "unavailable"]
"""complete: every root in the manager is known. others_exist: it has roots that are not known.
unavailable: nobody can tell."""


@dataclass(slots=True)
class Repairs:
    """What belongs into one transaction. `headers` are those of the blocks of its rows."""

    headers: list[BlockHeader] = field(default_factory=list)
    roots: list[RootObservation] = field(default_factory=list)
    slots: list[AccountObservation] = field(default_factory=list)
    attributions: list[RootAttribution] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


_NOT_OURS = """
SELECT EXISTS (
    SELECT FROM chain.tail AS t JOIN unnest($2::bigint[], $3::bytea[]) AS h(block_number, hash)
        ON t.block_number = h.block_number AND t.hash <> h.hash
     WHERE t.chain_id = $1)"""


async def apply_repairs(
    database: Database,
    chain_id: int,
    epoch: int,
    managers: Sequence[Address],
    chunk: AuditChunk,
    repairs: Repairs,
) -> list[Address]:
    """Write what was found of a chunk in one transaction; return accounts that owe roots again.

    StaleStepError if a reorg took a block that was read, or if what is stored of the accounts
    has changed since the chunk was read.
    """
    accounts = sorted({f.account for f in repairs.findings if f.account is not None})
    number = chunk.block.header.number
    async with database.transaction() as connection:
        chain = await lock_chain(connection, chain_id, epoch, "live")
        await _check_still_ours(connection, chain_id, chunk.block, repairs.headers)
        if chain.finality_violation is not None:
            raise StaleStepError("the node was found to contradict what is final")
        roots = await stored_roots(connection, chain_id, managers, accounts, number)
        slots = await stored_slots(connection, chain_id, accounts, number)
        if any(chunk.roots[key] != stored for key, stored in roots.items()) or any(
            chunk.slots.get(account) != found for account, found in slots.items()
        ):
            raise StaleStepError("an account was read again while it was audited")
        await write_blocks(connection, chain_id, repairs.headers)
        await write_observations(
            connection, chain_id, repairs.roots, repairs.slots, repairs.attributions
        )
        tainted = {(seen.account, seen.block_number) for seen in repairs.slots if seen.tainted}
        owing = await read_again(connection, chain_id, tainted) if tainted else []
        await _write_findings(connection, chain_id, repairs.findings)
        await _owe_missed(connection, chain_id)
        keys = {(manager, account) for manager in managers for account in accounts}
        await enqueue(connection, chain_id, keys)
        return owing


async def _check_still_ours(
    connection: Connection, chain_id: int, block: AuditedBlock, headers: Sequence[BlockHeader]
) -> None:
    await check_not_rewound(connection, chain_id, block.reorg_id, block.header.number)
    await check_blocks(connection, chain_id, headers)
    numbers, hashes = [h.number for h in headers], [h.hash for h in headers]
    if await connection.fetchval(_NOT_OURS, chain_id, numbers, hashes):
        raise StaleStepError("the node was on another branch while it was asked")


_INSERT_FINDINGS = """
INSERT INTO chain.audit_finding (chain_id, block_number, reason, manager, account, stored_root,
    found_root, previous_block, logs_owed)
SELECT $1, block_number, reason, manager, account, stored_root, found_root, previous_block,
       reason = 'missed_log'
  FROM unnest($2::bigint[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[],
              $8::bigint[])
    AS f(block_number, reason, manager, account, stored_root, found_root, previous_block)"""


async def _write_findings(
    connection: Connection, chain_id: int, findings: Sequence[Finding]
) -> None:
    names = (
        "block_number", "reason", "manager", "account", "stored_root", "found_root",
        "previous_block",
    )  # fmt: skip
    columns = [[getattr(finding, name) for finding in findings] for name in names]
    await connection.execute(_INSERT_FINDINGS, chain_id, *columns)


# Everything of such a block is read again, by every pass that counts it as done: the node that
# omitted one log may have omitted others. What retention has dropped stays dropped.
_TAKE_OWED = """
WITH owed AS (
    UPDATE chain.audit_finding AS f SET logs_owed = false
      FROM chain.chain AS c
     WHERE f.chain_id = $1 AND f.logs_owed AND c.chain_id = $1
       AND f.block_number <= c.finalized_number
    RETURNING f.block_number, c.detail_from)
SELECT array_agg(DISTINCT block_number) FROM owed WHERE block_number >= coalesce(detail_from, 0)"""

_OWE = """
WITH again AS (
    SELECT range_agg(int8range(block, block + 1)) AS blocks FROM unnest($2::bigint[]) AS block
), locked AS ( -- in the order in which history locks them
    SELECT v.pass, v.filter, v.cohort FROM chain.coverage AS v, again
     WHERE v.chain_id = $1 AND v.blocks && again.blocks
     ORDER BY v.pass, v.filter, v.cohort FOR UPDATE OF v)
UPDATE chain.coverage AS v SET blocks = v.blocks - again.blocks
  FROM again, locked AS l
 WHERE v.chain_id = $1 AND v.pass = l.pass AND v.filter = l.filter AND v.cohort = l.cohort"""


async def _owe_missed(connection: Connection, chain_id: int) -> None:
    """Owe the blocks of missed logs, as far as they are final: the history lane reads them."""
    blocks = await connection.fetchval(_TAKE_OWED, chain_id)
    if blocks:
        await connection.execute(_OWE, chain_id, blocks)


_HAS_OWED = "SELECT EXISTS (SELECT FROM chain.audit_finding WHERE chain_id = $1 AND logs_owed)"


async def owe_missed(database: Database, chain_id: int, epoch: int) -> None:
    """Owe what was found missed above finality and has become final since."""
    async with database.transaction() as connection:
        if await connection.fetchval(_HAS_OWED, chain_id):
            await lock_chain(connection, chain_id, epoch, "live")
            await _owe_missed(connection, chain_id)


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit says of one manager at a block."""

    manager: Address
    block: AuditedBlock
    roots_read: int
    mismatches: int
    storage_proof: StorageProof
    finding: Finding | None
    """A root that nobody knows, where all were known before."""


_RECORD = """
INSERT INTO chain.audit (chain_id, manager, block_number, roots_read, mismatches, storage_proof)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (chain_id, manager, block_number) DO UPDATE
   SET audited_at = excluded.audited_at, roots_read = excluded.roots_read,
       mismatches = excluded.mismatches, storage_proof = excluded.storage_proof"""

# A reorg takes the newest away: the last final one, and the last final one that tells, stay.
_FORGET = """
WITH final AS (
    SELECT max(a.block_number) AS newest,
           max(a.block_number) FILTER (WHERE a.storage_proof <> 'unavailable') AS telling
      FROM chain.audit AS a JOIN chain.chain AS c USING (chain_id)
     WHERE a.chain_id = $1 AND a.manager = $2 AND a.block_number <= c.finalized_number)
DELETE FROM chain.audit AS a USING final
 WHERE a.chain_id = $1 AND a.manager = $2 AND a.block_number < final.newest
   AND a.block_number IS DISTINCT FROM final.telling"""


async def record_audit(database: Database, chain_id: int, epoch: int, result: AuditResult) -> None:
    """Write what an audit says of a manager; StaleStepError if a reorg took its block."""
    async with database.transaction() as connection:
        await lock_chain(connection, chain_id, epoch, "live")
        await _check_still_ours(connection, chain_id, result.block, [result.block.header])
        await connection.execute(
            _RECORD,
            chain_id,
            result.manager,
            result.block.header.number,
            result.roots_read,
            result.mismatches,
            result.storage_proof,
        )
        await connection.execute(_FORGET, chain_id, result.manager)
        if result.finding is not None:
            await _write_findings(connection, chain_id, [result.finding])
