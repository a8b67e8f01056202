"""Stored session sets: importing in bulk, the roots they may belong to, listing, showing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from eth_hash.auto import keccak

from indexer.core.session_layout import Layout, session_key
from indexer.core.session_sets import SessionSet
from indexer.core.store_forms import RECORDED_FORMS
from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.core.user_operations import SET_MERKLE_ROOT
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.schema import check_version
from indexer.store.verdict_queue import enqueue

WAKE_CHANNEL: Final = "sessionwatch_wake"
"""NOTIFY channel; the payload is the chain id whose queue has something new."""

_SESSIONS_AT_ONCE = 50_000
_SETS_AT_ONCE = 10_000
_NO_LAYOUTS: Final[Mapping[Address, Layout]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ImportedRow:
    """One set of an import, in the order given. `stored` False: it was there already."""

    set_id: int
    stored: bool


@dataclass(frozen=True, slots=True)
class SetRow:
    """A stored set as people see it; `state` is one of the closed words of watch.session_set."""

    set_id: int
    chain_id: int
    manager: Address
    account: Address
    root: Hash32
    session_count: int
    source: str
    matched_form: str
    stored_at: datetime
    stored_block: int | None
    state: str


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session of a stored set, without its session_key_data."""

    leaf_index: int
    leaf: Hash32
    valid_until: int
    valid_after: int
    session_validation_module: Address
    session_key: Address | None
    session_key_data_bytes: int
    client_status: str | None


# One import at a time: the order of set_id and stored_at is then the order of committing, which
# is what "the newest stored set" means, and two imports cannot lock each other out.
_ONE_AT_A_TIME = """
SELECT pg_advisory_xact_lock(hashtextextended('sessionwatch import', 0))"""

_INSERT_SETS = """
INSERT INTO sessions.session_set
       (chain_id, manager, account, leaves_digest, root, call_hash, session_count, source,
        matched_form, stored_at, stored_block)
SELECT n.chain_id, n.manager, n.account, n.leaves_digest, n.root, n.call_hash, n.session_count,
       n.source, n.matched_form, coalesce(n.as_of, $11),
       CASE WHEN n.as_of IS NULL THEN c.indexed_number ELSE n.as_of_block END
  FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[],
              $7::int[], $8::text[], $9::text[], $10::timestamptz[], $12::bigint[]) WITH ORDINALITY
    AS n(chain_id, manager, account, leaves_digest, root, call_hash, session_count, source,
         matched_form, as_of, as_of_block, place)
  LEFT JOIN chain.chain AS c ON c.chain_id = n.chain_id
 ORDER BY n.place
ON CONFLICT (chain_id, manager, account, leaves_digest) DO NOTHING
RETURNING set_id"""

_FIND_SETS = """
SELECT s.set_id, s.stored_at, s.stored_block, n.place
  FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[]) WITH ORDINALITY
    AS n(chain_id, manager, account, leaves_digest, place)
  JOIN sessions.session_set AS s USING (chain_id, manager, account, leaves_digest)
 ORDER BY n.place"""


# The client has changed its mind about sessions that are stored. Null says nothing new.
_UPDATE_STATUSES = """
UPDATE sessions.session AS s SET client_status = n.client_status
  FROM unnest($1::bigint[], $2::int[], $3::text[]) AS n(set_id, leaf_index, client_status)
 WHERE s.set_id = n.set_id AND s.leaf_index = n.leaf_index
   AND s.client_status IS DISTINCT FROM n.client_status"""

# What was but the record of a tree on chain is a set that a client wants, now that one names it.
_NOW_WANTED = """
UPDATE sessions.session_set AS s SET matched_form = n.matched_form
  FROM unnest($1::bigint[], $2::text[]) AS n(set_id, matched_form)
 WHERE s.set_id = n.set_id AND s.matched_form = 'revoke_form'"""


async def import_sets(
    database: Database,
    sets: Sequence[tuple[SessionSet, str]],
    *,
    layouts: Mapping[Address, Layout] = _NO_LAYOUTS,
) -> list[ImportedRow]:
    """Store sets, each with the name of the form it came in; all of them or none.

    A set that is there keeps its set_id and stored_at, and takes over new client statuses. What
    is stored because the chain has it (store_forms.RECORDED_FORMS) never becomes newer than the
    wish after it: if that was stored before, it is dated just before the wish. Each (manager,
    account) is queued to be read and decided, also on a chain that no daemon has followed yet
    (stored_block is null then); a daemon finds it after its next look at the head. `layouts`: see
    session_layout.read_grant.
    """
    rows: list[ImportedRow] = []
    async with database.transaction() as connection:
        await check_version(connection)
        await connection.execute(_ONE_AT_A_TIME)
        stored_at = await connection.fetchval("SELECT clock_timestamp()")
        wishes = await _wishes_stored_before(connection, sets)
        for chunk in _chunks(sets):
            rows += await _import_chunk(connection, chunk, stored_at, wishes, layouts)
        # The queue last: what it locks, a deciding daemon would have to pass over.
        for chain_id in sorted({stored.chain_id for stored, _ in sets}):
            keys = {(s.manager, s.account) for s, _ in sets if s.chain_id == chain_id}
            await enqueue(connection, chain_id, keys, read_state=True)
            await connection.execute("SELECT pg_notify($1, $2)", WAKE_CHANNEL, str(chain_id))
    return rows


_SetKey = tuple[int, Address, Address]
_Stored = tuple[datetime, int | None]
"""stored_at and stored_block."""


def _key_of(stored: SessionSet) -> _SetKey:
    return stored.chain_id, stored.manager, stored.account


async def _wishes_stored_before(
    connection: Connection, sets: Sequence[tuple[SessionSet, str]]
) -> dict[_SetKey, _Stored]:
    """Return when the last wanted set was stored, where something is recorded beside it."""
    recorded = {_key_of(s) for s, _ in sets if s.matched_form in RECORDED_FORMS}
    wishes = {
        _key_of(s): s
        for s, _ in sets
        if s.matched_form not in RECORDED_FORMS and _key_of(s) in recorded
    }
    found = await connection.fetch(_FIND_SETS, *_identity(wishes.values()))
    keys = list(wishes)
    return {keys[row["place"] - 1]: (row["stored_at"], row["stored_block"]) for row in found}


def _identity(sets: Collection[SessionSet]) -> tuple[list[object], ...]:
    """Return the columns that identify sets: $1 to $4 of the statements here."""
    return (
        [s.chain_id for s in sets],
        [s.manager for s in sets],
        [s.account for s in sets],
        [s.leaves_digest for s in sets],
    )


def _chunks(sets: Sequence[tuple[SessionSet, str]]) -> Iterator[list[tuple[SessionSet, str]]]:
    chunk: list[tuple[SessionSet, str]] = []
    sessions = 0
    for stored, source in sets:
        if chunk and (
            len(chunk) == _SETS_AT_ONCE or sessions + len(stored.sessions) > _SESSIONS_AT_ONCE
        ):
            yield chunk
            chunk, sessions = [], 0
        chunk.append((stored, source))
        sessions += len(stored.sessions)
    if chunk:
        yield chunk


async def _import_chunk(
    connection: Connection,
    chunk: Sequence[tuple[SessionSet, str]],
    stored_at: datetime,
    wishes: Mapping[_SetKey, _Stored],
    layouts: Mapping[Address, Layout],
) -> list[ImportedRow]:
    identity = _identity([s for s, _ in chunk])
    as_of = [wishes.get(_key_of(s)) if s.matched_form in RECORDED_FORMS else None for s, _ in chunk]
    inserted = await connection.fetch(
        _INSERT_SETS,
        *identity,
        [s.root for s, _ in chunk],
        [keccak(SET_MERKLE_ROOT + s.root) for s, _ in chunk],
        [len(s.sessions) for s, _ in chunk],
        [source for _, source in chunk],
        [s.matched_form for s, _ in chunk],
        [None if wish is None else wish[0] - timedelta(microseconds=1) for wish in as_of],
        stored_at,
        [None if wish is None else wish[1] for wish in as_of],
    )
    new = {row["set_id"] for row in inserted}
    rows: list[ImportedRow] = []
    sessions: list[tuple[object, ...]] = []
    statuses: dict[tuple[int, int], str] = {}
    wanted: dict[int, str] = {}
    found = await connection.fetch(_FIND_SETS, *identity)
    for (stored, _), row in zip(chunk, found, strict=True):
        set_id = row["set_id"]
        rows.append(ImportedRow(set_id, set_id in new))
        said = stored.client_statuses or (None,) * len(stored.sessions)
        if set_id not in new:
            statuses |= {(set_id, n): status for n, status in enumerate(said) if status is not None}
            if stored.matched_form not in RECORDED_FORMS:
                wanted[set_id] = stored.matched_form
            continue
        # The same set twice in one document is stored once.
        new.remove(set_id)
        for index, (session, leaf) in enumerate(zip(stored.sessions, stored.leaves, strict=True)):
            module, data = session.session_validation_module, session.session_key_data
            sessions.append(
                (
                    set_id,
                    index,
                    leaf,
                    session.valid_until,
                    session.valid_after,
                    module,
                    session_key(module, data, layouts),
                    data,
                    said[index],
                )
            )
    await connection.copy_records_to_table(
        "session",
        schema_name="sessions",
        columns=[
            "set_id",
            "leaf_index",
            "leaf",
            "valid_until",
            "valid_after",
            "session_validation_module",
            "session_key",
            "session_key_data",
            "client_status",
        ],
        records=sessions,
    )
    if statuses:
        places = list(statuses)
        await connection.execute(
            _UPDATE_STATUSES,
            [set_id for set_id, _ in places],
            [index for _, index in places],
            list(statuses.values()),
        )
    if wanted:
        await connection.execute(_NOW_WANTED, list(wanted), list(wanted.values()))
    return rows


# The latest canonical root of each account in each manager.
_CURRENT_ROOTS = """
SELECT k.chain_id, k.account, latest.manager, latest.root
  FROM unnest($1::bigint[], $2::bytea[]) AS k(chain_id, account)
 CROSS JOIN LATERAL (
    SELECT DISTINCT ON (o.manager) o.manager, o.root
      FROM chain.canonical_root AS o
     WHERE o.chain_id = k.chain_id AND evidence.hex(o.account) = evidence.hex(k.account)
     ORDER BY o.manager, o.block_number DESC) AS latest
  LEFT JOIN chain.chain AS c ON c.chain_id = k.chain_id
 WHERE latest.root <> $3
 ORDER BY array_position(c.managers, latest.manager::bytea) NULLS LAST, latest.manager"""


async def current_roots(
    database: Database, accounts: Collection[tuple[int, Address]]
) -> dict[tuple[int, Address], dict[Address, Hash32]]:
    """Return the roots that stand now, by (chain_id, account) and manager.

    Managers stand in their configured order, then others; zero roots are left out, and with
    them accounts that have no other.
    """
    roots: dict[tuple[int, Address], dict[Address, Hash32]] = {}
    chain_ids, addresses = [key[0] for key in accounts], [key[1] for key in accounts]
    async with database.connection() as connection:
        rows = await connection.fetch(_CURRENT_ROOTS, chain_ids, addresses, ZERO_HASH)
    for chain_id, account, manager, root in rows:
        roots.setdefault((chain_id, Address(account)), {})[Address(manager)] = Hash32(root)
    return roots


_SHOWN = """
SELECT s.set_id, s.chain_id, s.manager, s.account, s.root, s.session_count, s.source,
       s.matched_form, s.stored_at, s.stored_block, w.state
  FROM sessions.session_set AS s JOIN watch.session_set AS w USING (set_id)"""

_LIST = f"""
{_SHOWN}
 WHERE s.set_id IN (
    SELECT set_id FROM sessions.session_set
     WHERE ($1::bigint IS NULL OR chain_id = $1)
       AND ($2::text IS NULL OR evidence.hex(account) = $2)
     ORDER BY set_id DESC LIMIT $3)
 ORDER BY s.set_id DESC"""


async def list_sets(
    database: Database,
    *,
    chain_id: int | None = None,
    account: Address | None = None,
    limit: int = 100,
) -> list[SetRow]:
    """Return stored sets, the newest first; None filters nothing."""
    hex_account = None if account is None else f"0x{account.hex()}"
    async with database.connection() as connection:
        rows = await connection.fetch(_LIST, chain_id, hex_account, limit)
    return [SetRow(**dict(row)) for row in rows]


_SHOW = f"{_SHOWN} WHERE s.set_id = $1"

_SHOW_SESSIONS = """
SELECT leaf_index, leaf, valid_until, valid_after, session_validation_module, session_key,
       octet_length(session_key_data) AS session_key_data_bytes, client_status
  FROM sessions.session WHERE set_id = $1 ORDER BY leaf_index"""


async def show_set(database: Database, set_id: int) -> tuple[SetRow, list[SessionRow]] | None:
    """Return a stored set and its sessions in order, or None if there is no such set."""
    async with database.connection() as connection:
        row = await connection.fetchrow(_SHOW, set_id)
        if row is None:
            return None
        sessions = await connection.fetch(_SHOW_SESSIONS, set_id)
    return SetRow(**dict(row)), [SessionRow(**dict(session)) for session in sessions]


SESSION_STATES = ("active", "expired", "not_yet_valid", "not_on_chain")

# As watch.session tells it, by sets: the root of each account is looked up once, and sessions are
# read only of the sets on chain.
_COUNT_SESSIONS = """
WITH stored AS MATERIALIZED (
    SELECT s.set_id, s.session_count, now.root = s.root AS on_chain
      FROM (SELECT DISTINCT manager, account FROM sessions.session_set WHERE chain_id = $1) AS k
      LEFT JOIN LATERAL (
           SELECT o.root FROM chain.canonical_root AS o
            WHERE o.chain_id = $1 AND o.manager = k.manager AND o.account = k.account
            ORDER BY o.block_number DESC LIMIT 1) AS now ON true
      JOIN sessions.session_set AS s
        ON s.chain_id = $1 AND s.manager = k.manager AND s.account = k.account)
SELECT 'not_on_chain' AS state, coalesce(sum(session_count), 0)::bigint AS sessions
  FROM stored WHERE on_chain IS NOT TRUE
UNION ALL
SELECT CASE WHEN x.valid_until <> 0 AND x.valid_until < c.indexed_time THEN 'expired'
            WHEN x.valid_after > c.indexed_time THEN 'not_yet_valid' ELSE 'active' END, count(*)
  FROM stored AS s JOIN sessions.session AS x USING (set_id)
  LEFT JOIN chain.chain AS c ON c.chain_id = $1
 WHERE s.on_chain
 GROUP BY 1"""


async def count_sessions(database: Database, chain_id: int) -> dict[str, int]:
    """Count the sessions of all stored sets by state; every state is there, also with zero."""
    async with database.connection() as connection:
        rows = await connection.fetch(_COUNT_SESSIONS, chain_id)
    return dict.fromkeys(SESSION_STATES, 0) | {row[0]: row[1] for row in rows}
