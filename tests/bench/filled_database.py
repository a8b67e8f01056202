"""A database as a busy chain leaves it, out of nothing but a size and a seed.

Every number comes from a hash of a counter, so that a size gives the same rows whatever the plan. A
few accounts, contracts and tokens have most of the rows, as on a real chain; something happens in
every fourth block, and the last 64 blocks are not final. The rows, in filled_database.sql, go
through the tables of schema.sql with their checks; of large sizes the indexes are built afterwards,
which is faster than to keep them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures_database import Connection

CHAIN_ID = 80001
_BULK = 1_000_000
_STEP = re.compile(r"^-- step: (.+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is. Of ten user operations one sets a root, three are signed by a session."""

    transfers: int
    accounts: int
    operations: int
    seed: int = 1
    block_seconds: int = 2

    @property
    def blocks(self) -> int:
        """The number of the last block."""
        return max(self.transfers // 4 * 4, 4_000)


_SIZE = """
INSERT INTO size SELECT $1, $2, $3, $4, $5, $6::bigint,
       extract(epoch FROM now())::bigint - $6::bigint * $4::bigint"""

# Not those of primary keys and constraints.
_INDEXES = """
SELECT i.indexrelid::regclass::text AS name,
       replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ') AS definition
  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
 WHERE c.relnamespace IN ('chain'::regnamespace, 'evidence'::regnamespace, 'sessions'::regnamespace)
   AND NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
 ORDER BY 1"""

# Accounts that have stored sets and used them, the busiest first.
_ACCOUNTS = """
SELECT account FROM (SELECT account, i, count(*) AS operations FROM operation GROUP BY 1, 2) AS x
 WHERE EXISTS (SELECT FROM sessions.session_set AS s JOIN sessions.session AS l USING (set_id)
                 JOIN chain.session_use AS u ON u.account = s.account AND u.leaf = l.leaf
                WHERE s.account = x.account)
 ORDER BY operations DESC, i"""

_VALUES = """
SELECT evidence.hex(u.account) AS account, evidence.hex(u.account) AS owner, s.set_id,
       evidence.hex(u.user_op_hash) AS user_op_hash, evidence.hex(u.session_key) AS session_key,
       evidence.hex(p.transaction_hash) AS transaction_hash,
       evidence.hex(b.contract) AS contract, 1 AS token_id, b.token_id::text AS rare_token_id
  FROM sessions.session_set AS s JOIN sessions.session AS l USING (set_id)
  JOIN chain.session_use AS u ON u.account = s.account AND u.leaf = l.leaf
  JOIN chain.user_operation AS p ON p.block_number = u.block_number AND p.log_index = u.log_index
  JOIN (SELECT contract, token_id FROM chain.erc1155_balance
         WHERE contract = pg_temp.address('contract', $2) AND token_id > 100
         ORDER BY token_id LIMIT 1) AS b ON true
 WHERE s.account = $1 ORDER BY s.set_id DESC, u.block_number DESC LIMIT 1"""


def _ignore(_: str) -> None:
    pass


async def fill(connection: Connection, size: Size, say: Callable[[str], object] = _ignore) -> None:
    """Fill an empty database that has the schema, and analyse it. Needs a superuser."""
    steps = _STEP.split(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))[1:]
    named = dict(zip(steps[::2], steps[1::2], strict=True))
    await connection.execute(named.pop("tools"))
    numbers = (size.transfers, size.accounts, size.operations, size.blocks)
    await connection.execute(_SIZE, *numbers, size.seed, size.block_seconds)
    slice_blocks = await connection.fetchval("SELECT chain.slice_blocks()")
    for block in range(0, size.blocks + 1, slice_blocks):
        await connection.execute("SELECT chain.ensure_partitions($1, $2)", CHAIN_ID, block)
    indexes = await connection.fetch(_INDEXES) if size.transfers >= _BULK else []
    for name, _ in indexes:
        await connection.execute(f"DROP INDEX {name}")
    named |= {f"index {name}": definition for name, definition in indexes}
    await connection.execute("SET work_mem = '1GB'; SET maintenance_work_mem = '1GB'")
    for step, statements in {**named, "vacuum and analyse": "VACUUM ANALYZE"}.items():
        began = time.perf_counter()
        await connection.execute(statements)
        say(f"{step}: {time.perf_counter() - began:.1f} s\n")
    await connection.execute("RESET work_mem; RESET maintenance_work_mem")


async def sample_values(connection: Connection) -> dict[str, dict[str, object]]:
    """Return values for the words of queries.sql: of an account in the middle, and of the busiest.

    For the connection that filled the database.
    """
    accounts = [row["account"] for row in await connection.fetch(_ACCOUNTS)]
    chosen = {"typical": (accounts[len(accounts) // 2], 60), "busiest": (accounts[0], 0)}
    found = {}
    for name, (account, contract) in chosen.items():
        row = await connection.fetchrow(_VALUES, account, contract)
        assert row is not None
        found[name] = dict(row)
    return found
