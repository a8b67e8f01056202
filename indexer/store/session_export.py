"""Stored session sets with their session_key_data, read one after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import asyncpg

from indexer.core.session_export import StoredSet
from indexer.core.types import Address, Hash32, Session
from indexer.store.pool import Database

_ROWS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sets; None asks for nothing. `state` is a word of watch.session_set.state."""

    set_ids: tuple[int, ...] | None = None
    chain_id: int | None = None
    account: Address | None = None
    manager: Address | None = None
    state: str | None = None

    def values(self) -> tuple[object, ...]:
        """Return the parameters $1 to $5 of the statements here."""
        account = None if self.account is None else f"0x{self.account.hex()}"
        return self.set_ids, self.chain_id, account, self.manager, self.state


# By evidence.hex, because the index on the account alone is on that.
_CHOSEN = """
  FROM sessions.session_set AS s
 WHERE ($1::bigint[] IS NULL OR s.set_id = ANY ($1))
   AND ($2::bigint IS NULL OR s.chain_id = $2)
   AND ($3::text IS NULL OR evidence.hex(s.account) = $3)
   AND ($4::bytea IS NULL OR s.manager = $4)
   AND ($5::text IS NULL
        OR $5 = (SELECT w.state FROM watch.session_set AS w WHERE w.set_id = s.set_id))"""

_COUNT_SESSIONS = f"SELECT coalesce(sum(s.session_count), 0)::bigint {_CHOSEN}"

# The order of set_id is the order of storing, so that the newest set stays the newest.
_READ = f"""
SELECT c.set_id, c.chain_id, c.manager, c.account, c.root, x.valid_until, x.valid_after,
       x.session_validation_module, x.session_key_data, x.session_key, x.client_status,
       c.matched_form
  FROM (SELECT s.set_id, s.chain_id, s.manager, s.account, s.root, s.matched_form {_CHOSEN}) AS c
  JOIN sessions.session AS x USING (set_id)
 ORDER BY c.set_id, x.leaf_index"""

_MISSING = """
SELECT wanted.set_id
  FROM unnest($1::bigint[]) WITH ORDINALITY AS wanted(set_id, place)
 WHERE NOT EXISTS (SELECT FROM sessions.session_set AS s WHERE s.set_id = wanted.set_id)
 ORDER BY wanted.place"""


async def missing_sets(database: Database, set_ids: tuple[int, ...]) -> list[int]:
    """Return which of these are not stored, in the order given."""
    async with database.connection() as connection:
        return [row[0] for row in await connection.fetch(_MISSING, set_ids)]


async def count_selected(database: Database, wanted: Selection) -> int:
    """Count the sessions of the sets asked for."""
    async with database.connection() as connection:
        count: int = await connection.fetchval(_COUNT_SESSIONS, *wanted.values())
    return count


async def read_sets(database: Database, wanted: Selection) -> AsyncGenerator[StoredSet]:
    """Yield the sets asked for, the oldest first, as one statement sees them.

    Holds one set and a thousand sessions at a time. Close it (contextlib.aclosing): it keeps a
    transaction open.
    """
    async with database.transaction() as connection:
        rows: list[asyncpg.Record] = []
        async for row in connection.cursor(_READ, *wanted.values(), prefetch=_ROWS_AT_ONCE):
            if rows and rows[0]["set_id"] != row["set_id"]:
                yield _stored_set(rows)
                rows = []
            rows.append(row)
        if rows:
            yield _stored_set(rows)


def _stored_set(rows: Sequence[asyncpg.Record]) -> StoredSet:
    """Build a set out of the rows of its sessions."""
    set_id, chain_id, manager, account, root = rows[0][:5]
    return StoredSet(
        set_id,
        chain_id,
        Address(manager),
        Address(account),
        Hash32(root),
        tuple(Session(*row[5:9]) for row in rows),
        tuple(None if row["session_key"] is None else Address(row["session_key"]) for row in rows),
        rows[0]["matched_form"],
        tuple(row["client_status"] for row in rows),
    )
