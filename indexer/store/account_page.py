"""What the page shows of one account: bounded reads of one snapshot, from the views of people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg

from indexer.core.types import Address
from indexer.store.chain_row import Connection
from indexer.store.pool import Database

MAX_PLACES = 8
"""Pairs of chain and manager shown of one account."""
MAX_ROOTS = 50
MAX_SETS = 10
"""Newest sets shown, beside the one on chain and the expected one."""
MAX_SESSIONS = 25
"""Sessions shown of one set."""
MAX_USES = 25
MAX_MINTS = 25
COUNTED = 1000
"""How far rows are counted; one more stands for any larger number."""

STATEMENT_SECONDS = 0.5
"""What is slower is given up, and the page does without it where it can."""

_CHAINS = "SELECT chain_id, chain, indexed_block FROM watch.progress ORDER BY chain_id"

_WATCHED = """
SELECT chain_id, created_block, source, implementation, tainted, modules
  FROM watch.account WHERE account = $1 AND chain_id = ANY($2::bigint[]) ORDER BY chain_id"""

# On the tables, whose indexes answer however many roots and sets there are. What has drifted comes
# first. Sets that somebody stored for a chain that is not followed yet are found as well.
_PLACES = """
SELECT k.chain_id, evidence.hex(k.manager) AS manager
  FROM (SELECT v.chain_id, v.manager::bytea, CASE v.verdict WHEN 'drifted' THEN 1 ELSE 2 END
          FROM chain.verdict AS v
         WHERE v.closed_block IS NULL AND evidence.hex(v.account) = $1
        UNION
        SELECT s.chain_id, s.manager::bytea, 3 FROM sessions.session_set AS s
         WHERE evidence.hex(s.account) = $1
        UNION
        SELECT c.chain_id, m.manager, 3 FROM chain.chain AS c
         CROSS JOIN LATERAL unnest(c.managers) AS m (manager)
         WHERE EXISTS (
               SELECT FROM evidence.root_observation AS o
                WHERE o.chain_id = c.chain_id AND o.account = $2 AND o.manager = m.manager
                  AND o.root <> decode(repeat('00', 32), 'hex'))) AS k (chain_id, manager, rank)
 WHERE $3::bigint IS NULL OR k.chain_id = $3
 GROUP BY k.chain_id, k.manager
 ORDER BY min(k.rank), k.chain_id, k.manager
 LIMIT $4"""

_VERDICT = """
SELECT verdict, cause, severity, warnings, since_block, since_time, is_final, explanation,
       on_chain_root, expected_root, on_chain_set_id, expected_set_id
  FROM watch.verdict WHERE account = $1 AND chain_id = $2 AND manager = $3"""

# The newest first on the table, in the order of an index; the view then looks up who made these.
_ROOT_BLOCKS = """
SELECT block_number FROM chain.root_change
 WHERE chain_id = $2 AND account = $1 AND manager = $3
 ORDER BY block_number DESC LIMIT $4"""

_ROOTS = """
SELECT block_number, block_time, root, set_id, attribution, evidence, leaf, session_key, module,
       user_op_hash, transaction_hash, change_block_exact, is_final
  FROM watch.session_root
 WHERE account = $1 AND chain_id = $2 AND manager = $3 AND block_number = ANY($4::bigint[])
 ORDER BY block_number DESC"""

_SET_IDS = """
SELECT set_id FROM sessions.session_set WHERE chain_id = $2 AND account = $1 AND manager = $3
 ORDER BY stored_at DESC, set_id DESC LIMIT $4"""

_SETS = """
SELECT set_id, root, session_count, source, matched_form, stored_at, state,
       first_on_chain_block, last_on_chain_block
  FROM watch.session_set
 WHERE account = $1 AND chain_id = $2 AND manager = $3 AND set_id = ANY($4::bigint[])
 ORDER BY stored_at DESC, set_id DESC"""

_SESSIONS = """
SELECT s.set_id, s.leaf_index, s.leaf, s.valid_until, s.valid_after, s.session_validation_module,
       s.session_key, s.state, s.client_status, s.use_count, s.last_used_block, s.last_used_time
  FROM unnest($1::bigint[]) AS wanted (set_id)
 CROSS JOIN LATERAL (
       SELECT * FROM watch.session AS x
        WHERE x.set_id = wanted.set_id ORDER BY x.leaf_index LIMIT $2) AS s
 ORDER BY s.set_id, s.leaf_index"""

_USE_BLOCKS = """
SELECT block_number FROM chain.session_use
 WHERE evidence.hex(account) = $1 AND chain_id = $2 AND evidence.hex(manager) = $3
 ORDER BY block_number DESC LIMIT $4"""

_USES = """
SELECT block_number, block_time, user_op_hash, leaf, set_id, known, session_key, success, root_state
  FROM watch.session_use
 WHERE account = $1 AND chain_id = $2 AND manager = $3 AND block_number = ANY($4::bigint[])
 ORDER BY block_number DESC, log_index DESC, use_index DESC LIMIT $5"""

_MINTS = """
SELECT block_number, block_time, session_key, contract, token_id, amount, to_address, fits
  FROM watch.session_mint
 WHERE account = $1 AND chain_id = $2 AND manager = $3 AND block_number >= $4
 ORDER BY block_number DESC, log_index DESC, batch_index DESC LIMIT $5"""

_MINT_COUNT = """
SELECT count(*) FROM (
    SELECT FROM watch.session_mint WHERE account = $1 AND chain_id = $2 AND manager = $3
     LIMIT $4) AS counted"""

Row = Mapping[str, Any]
Part = TypeVar("Part")
_Key = tuple[str, int, str]
"""Account, chain and manager as the views have them."""
_RawKey = tuple[bytes, int, bytes]
"""The same as the tables have them."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The newest rows of a kind, newest first, and how many there are (see COUNTED)."""

    rows: Sequence[Row]
    count: int


@dataclass(frozen=True, slots=True)
class Place:
    """An account in one manager of one chain: rows of the views of these names.

    `verdict` None: none was decided yet. Of the others None means that it could not be read in
    time. `sessions` are those of each set in `sets`, by its id, in order and at most
    MAX_SESSIONS; `mints` those of the newest uses that were counted.
    """

    chain_id: int
    manager: str
    verdict: Row | None
    roots: Listed | None
    sets: Listed | None
    sessions: Mapping[int, Sequence[Row]]
    uses: Listed | None
    mints: Listed | None


@dataclass(frozen=True, slots=True)
class AccountPage:
    """One account. `chains` are all that are known, `watched` rows of watch.account, per chain."""

    account: str
    chains: Sequence[Row]
    watched: Sequence[Row]
    places: Sequence[Place]
    has_more_places: bool

    @property
    def is_known(self) -> bool:
        """Whether anything at all is stored about the account."""
        return bool(self.watched or self.places)


async def read_account_page(
    database: Database, account: Address, chain: str | None
) -> AccountPage | None:
    """Return what is known of an account, on one chain or all; None: no chain has that name.

    Raises DatabaseUnavailableError, also when the database takes longer than a page is worth.
    """
    async with database.brief_snapshot(STATEMENT_SECONDS, "this account") as connection:
        return await _read(connection, account, chain)


async def _read(connection: Connection, account: Address, chain: str | None) -> AccountPage | None:
    text = f"0x{account.hex()}"
    chains = await _rows(connection, _CHAINS)
    chain_id = next((row["chain_id"] for row in chains if row["chain"] == chain), None)
    if chain is not None and chain_id is None:
        return None
    asked = [chain_id] if chain_id is not None else [row["chain_id"] for row in chains]
    watched = await _rows(connection, _WATCHED, text, asked)
    places = await _rows(connection, _PLACES, text, account, chain_id, MAX_PLACES + 1)
    return AccountPage(
        text,
        chains,
        watched,
        [
            await _place(connection, account, row["chain_id"], row["manager"])
            for row in places[:MAX_PLACES]
        ],
        len(places) > MAX_PLACES,
    )


async def _place(connection: Connection, account: Address, chain_id: int, manager: str) -> Place:
    key = (f"0x{account.hex()}", chain_id, manager)
    raw = (account, chain_id, bytes.fromhex(manager[2:]))
    verdicts = await _rows(connection, _VERDICT, *key)
    verdict = verdicts[0] if verdicts else None
    roots = await _in_time(connection, lambda: _roots(connection, key, raw))
    sets = await _in_time(connection, lambda: _sets(connection, key, raw, verdict))
    uses = await _in_time(connection, lambda: _uses(connection, key))
    return Place(
        chain_id,
        manager,
        verdict,
        roots,
        sets[0] if sets else None,
        sets[1] if sets else {},
        uses[0] if uses else None,
        uses[1] if uses else None,
    )


async def _in_time(connection: Connection, read: Callable[[], Awaitable[Part]]) -> Part | None:
    """Read one part behind a savepoint; None if a statement of it took too long."""
    try:
        async with connection.transaction():
            return await read()
    except asyncpg.QueryCanceledError:
        return None


async def _roots(connection: Connection, key: _Key, raw: _RawKey) -> Listed:
    newest = await connection.fetch(_ROOT_BLOCKS, *raw, COUNTED + 1)
    blocks = [row["block_number"] for row in newest]
    return Listed(await _rows(connection, _ROOTS, *key, blocks[:MAX_ROOTS]), len(blocks))


async def _sets(
    connection: Connection, key: _Key, raw: _RawKey, verdict: Row | None
) -> tuple[Listed, Mapping[int, Sequence[Row]]]:
    ids = [row["set_id"] for row in await connection.fetch(_SET_IDS, *raw, COUNTED + 1)]
    shown = set(ids[:MAX_SETS])
    if verdict is not None:
        shown |= {verdict["on_chain_set_id"], verdict["expected_set_id"]} - {None}
    sessions: dict[int, list[Row]] = {set_id: [] for set_id in shown}
    for row in await _rows(connection, _SESSIONS, list(shown), MAX_SESSIONS):
        sessions[row["set_id"]].append(row)
    return Listed(await _rows(connection, _SETS, *key, list(shown)), len(ids)), sessions


async def _uses(connection: Connection, key: _Key) -> tuple[Listed, Listed]:
    """Return uses and mints."""
    newest = await connection.fetch(_USE_BLOCKS, *key, COUNTED + 1)
    blocks = [row["block_number"] for row in newest]
    if not blocks:
        return Listed([], 0), Listed([], 0)
    return (
        Listed(await _rows(connection, _USES, *key, blocks[:MAX_USES], MAX_USES), len(blocks)),
        Listed(
            await _rows(connection, _MINTS, *key, blocks[-1], MAX_MINTS),
            await connection.fetchval(_MINT_COUNT, *key, COUNTED + 1),
        ),
    )


async def _rows(connection: Connection, query: str, *values: object) -> list[Row]:
    return [dict(row) for row in await connection.fetch(query, *values)]
