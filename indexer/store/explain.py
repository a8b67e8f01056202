"""What `explain` tells of one account: verdict, root, stored sets, in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from indexer.core.types import Address, Hash32
from indexer.core.verdict_values import VerdictInputs
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.verdict_inputs import Key, load_inputs

_ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

# The account as 0x text: each of these views answers it from an index.
_KEYS = """
SELECT k.chain_id, k.manager
  FROM (SELECT chain_id, manager FROM watch.verdict WHERE account = $1
        UNION
        SELECT chain_id, manager FROM watch.session_set WHERE account = $1
        UNION
        SELECT chain_id, manager FROM watch.session_root_current WHERE account = $1) AS k
 WHERE ($2::bigint IS NULL OR k.chain_id = $2) AND ($3::text IS NULL OR k.manager = $3)
 ORDER BY k.chain_id, k.manager"""

_WATCHED = """
SELECT chain_id FROM watch.account
 WHERE account = $1 AND ($2::bigint IS NULL OR chain_id = $2) ORDER BY chain_id"""

_CHAIN = "SELECT name, indexed_number, indexed_time FROM chain.chain WHERE chain_id = $1"

_VERDICT = """
SELECT verdict, cause, severity, warnings, since_block, since_time, is_final, explanation,
       on_chain_root, expected_root, on_chain_set_id, expected_set_id, decided_block
  FROM watch.verdict WHERE account = $1 AND chain_id = $2 AND manager = $3"""

_ROOT = """
SELECT root, block_number, block_time, attribution, evidence, leaf, session_key, module,
       user_op_hash, transaction_hash, change_block_exact, is_final
  FROM watch.session_root_current WHERE account = $1 AND chain_id = $2 AND manager = $3"""

_SETS = """
SELECT set_id, root, session_count, source, matched_form, stored_at, stored_block, state
  FROM watch.session_set WHERE account = $1 AND chain_id = $2 AND manager = $3
 ORDER BY stored_at DESC, set_id DESC"""

_SESSION_KEYS = """
SELECT DISTINCT leaf, session_key FROM sessions.session
 WHERE set_id = ANY($1::bigint[]) AND leaf = ANY($2::bytea[]) AND session_key IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """All that is known of an account in one manager; `verdict` and `root` None: none yet.

    `chain` and the indexed block are None where no daemon has followed the chain yet; `verdict`,
    `root` and `sets` (newest first) are rows of the views of these names.
    """

    chain_id: int
    chain: str | None
    indexed_block: int | None
    indexed_time: int | None
    manager: Address
    account: Address
    verdict: dict[str, Any] | None
    root: dict[str, Any] | None
    sets: list[dict[str, Any]]
    inputs: VerdictInputs


async def read_account(
    database: Database, account: Address, *, chain_id: int | None, manager: Address | None
) -> tuple[list[StoredAccount], list[int]]:
    """Return the account in each manager, and the chains on which it is watched."""
    async with database.transaction() as connection:
        await connection.execute(_ONE_SNAPSHOT)
        wanted = None if manager is None else _hex(manager)
        keys = await connection.fetch(_KEYS, _hex(account), chain_id, wanted)
        watched = await connection.fetch(_WATCHED, _hex(account), chain_id)
        found = [
            await _read(connection, row["chain_id"], (_bytes(row["manager"]), account))
            for row in keys
        ]
    return found, [row["chain_id"] for row in watched]


async def _read(connection: Connection, chain_id: int, key: Key) -> StoredAccount:
    manager, account = key
    asked = (_hex(account), chain_id, _hex(manager))
    chain = await connection.fetchrow(_CHAIN, chain_id)
    verdict = await connection.fetchrow(_VERDICT, *asked)
    root = await connection.fetchrow(_ROOT, *asked)
    return StoredAccount(
        chain_id,
        None if chain is None else chain["name"],
        None if chain is None else chain["indexed_number"],
        None if chain is None else chain["indexed_time"],
        manager,
        account,
        None if verdict is None else dict(verdict),
        None if root is None else dict(root),
        [dict(row) for row in await connection.fetch(_SETS, *asked)],
        (await load_inputs(connection, chain_id, [key]))[key],
    )


async def session_keys(
    database: Database, set_ids: Sequence[int], leaves: Sequence[Hash32]
) -> dict[Hash32, Address]:
    """Return who may sign for these leaves of these sets, where the module's layout is known."""
    async with database.connection() as connection:
        rows = await connection.fetch(_SESSION_KEYS, set_ids, leaves)
    return {Hash32(row[0]): Address(row[1]) for row in rows}


def _hex(value: bytes) -> str:
    return f"0x{value.hex()}"


def _bytes(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))
