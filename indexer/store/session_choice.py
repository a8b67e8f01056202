"""Which stored set is meant, and what is known of its account's root: for plans and proofs."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from indexer.core.root_search import MOST_BASES, Base
from indexer.core.session_export import StoredSet
from indexer.core.store_forms import RECORDED_FORMS
from indexer.core.types import Address, Hash32
from indexer.errors import UsageError
from indexer.store.pool import Database
from indexer.store.session_export import Selection, read_sets


@dataclass(frozen=True, slots=True)
class Indexed:
    """What the database knows; None where it knows nothing.

    `block_number` and `block_time` (unix seconds) are of the chain's last indexed block, `root` is
    the last one seen of the account. It stands since `root_block`, None if it never was another
    than zero.
    """

    block_number: int | None
    block_time: int | None
    root: Hash32 | None
    root_block: int | None


# By evidence.hex, because the index on the account alone is on that.
_NEWEST = """
SELECT max(set_id) AS set_id, chain_id, manager
  FROM sessions.session_set
 WHERE evidence.hex(account) = $1 AND matched_form <> ALL ($4::text[])
   AND ($2::bigint IS NULL OR chain_id = $2) AND ($3::bytea IS NULL OR manager = $3)
 GROUP BY chain_id, manager
 ORDER BY chain_id, manager"""

# The block is that of watch.session_root_current, which `explain` names, too.
_INDEXED = """
SELECT c.indexed_number, c.indexed_time, seen.root, change.block_number
  FROM (SELECT $1::bigint AS chain_id) AS asked
  LEFT JOIN chain.chain AS c USING (chain_id)
  LEFT JOIN LATERAL (
      SELECT o.root FROM chain.canonical_root AS o
       WHERE o.chain_id = asked.chain_id AND o.manager = $2 AND o.account = $3
       ORDER BY o.block_number DESC LIMIT 1) AS seen ON true
  LEFT JOIN LATERAL (
      SELECT r.block_number FROM chain.root_change AS r
       WHERE r.chain_id = asked.chain_id AND r.manager = $2 AND r.account = $3 AND r.is_current
       ORDER BY r.block_number DESC LIMIT 1) AS change ON true"""

# One more than a search looks at, so that it knows that there are more.
_BASES = f"""
SELECT s.set_id, array_agg(x.leaf::bytea ORDER BY x.leaf_index) AS leaves,
       array_agg(x.client_status ORDER BY x.leaf_index) AS statuses
  FROM (SELECT set_id FROM sessions.session_set
         WHERE chain_id = $1 AND manager = $2 AND account = $3
         ORDER BY set_id DESC LIMIT {MOST_BASES + 1}) AS s
  JOIN sessions.session AS x USING (set_id)
 GROUP BY s.set_id
 ORDER BY s.set_id DESC"""


async def newest_sets(
    database: Database,
    account: Address,
    *,
    chain_id: int | None = None,
    manager: Address | None = None,
) -> list[tuple[int, int, Address]]:
    """Return (set_id, chain_id, manager) of the newest set of each chain and manager.

    Not those that only record what a client's SDK left on chain (store_forms.RECORDED_FORMS).
    """
    async with database.connection() as connection:
        rows = await connection.fetch(
            _NEWEST, f"0x{account.hex()}", chain_id, manager, sorted(RECORDED_FORMS)
        )
    return [(row["set_id"], row["chain_id"], Address(row["manager"])) for row in rows]


async def stored_set(database: Database, set_id: int) -> StoredSet:
    """Return a stored set with its session_key_data. Raises UsageError if there is none."""
    async with aclosing(read_sets(database, Selection((set_id,)))) as found:
        async for stored in found:
            return stored
    raise UsageError(f"no session set {set_id} is stored", remedy="sessionwatch sessions list")


async def indexed(database: Database, chain_id: int, manager: Address, account: Address) -> Indexed:
    """Return what is indexed of a chain and of an account's root there."""
    async with database.connection() as connection:
        row = await connection.fetchrow(_INDEXED, chain_id, manager, account)
    assert row is not None
    number, time, root, root_block = row
    return Indexed(number, time, None if root is None else Hash32(root), root_block)


async def search_bases(
    database: Database, chain_id: int, manager: Address, account: Address
) -> list[Base]:
    """Return an account's newest stored sets, newest first, as root_search starts from them.

    Records of what a client's SDK left on chain are among them: they may stand.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(_BASES, chain_id, manager, account)
    return [
        Base(row["set_id"], tuple(map(Hash32, row["leaves"])), tuple(row["statuses"]))
        for row in rows
    ]
