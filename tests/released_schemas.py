"""The schemas of released versions, with a row in every table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.schema_rows import Connection, address, cover, hash32, insert, make_chain, observe

RELEASED = Path(__file__).parent / "store" / "released"


def released(version: int) -> str:
    """Return schema.sql as it was released with this version."""
    return (RELEASED / f"{version:04}.sql").read_text(encoding="utf-8")


async def fill(connection: Connection) -> None:
    """Give every table a row, and every view something to show."""
    await make_chain(connection, final=10, tip=12, managers=[address(0xAA)])
    key = {"manager": address(0xAA), "account": address(1)}
    await observe(connection, 3, hash32(0x33), attributed=True)
    await observe(connection, 5, hash32(0x55), attributed=True)
    await connection.execute(
        "UPDATE chain.root_attribution SET contradicting_evidence = 'event',"
        " contradicting_root = $1 WHERE block_number = 5",
        hash32(0x99),
    )
    await insert(connection, "sessions.session_set", **key, root=hash32(0x55), session_count=1)
    set_id = await connection.fetchval("SELECT max(set_id) FROM sessions.session_set")
    await insert(connection, "sessions.session", set_id=set_id, leaf=hash32(7))
    await cover(connection, "logs", "accounts", (1, 4))
    drifted = {"verdict": "drifted", "cause": "unknown_root"}
    await insert(connection, "chain.verdict", **key, **drifted)
    await insert(connection, "chain.reorg")
    rest = await connection.fetch(TABLES)
    special: dict[str, dict[str, Any]] = {
        "chain.root_hint": {"root": hash32(0x99), "block_number": 5},
        "chain.session_use": {"leaf": hash32(7), "block_number": 5},
        "chain.user_operation": {"block_number": 5},
        "chain.erc1155_transfer": {"block_number": 5, "user_op_hash": hash32(1)},
        "evidence.unobserved": {"first_block": 4, "last_block": 6},
        "chain.orphan": {
            "reorg_id": await connection.fetchval("SELECT max(reorg_id) FROM chain.reorg")
        },
    }
    for (table,) in rest:
        if await connection.fetchval(f"SELECT count(*) FROM {table}") == 0:
            columns = await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass"
                " AND attname IN ('manager', 'account')",
                table,
            )
            known = {name: key[name] for (name,) in columns}
            await insert(connection, table, **(known | special.get(table, {})))


TABLES = """
SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('chain', 'evidence', 'sessions') AND c.relkind IN ('r', 'p')
   AND NOT c.relispartition ORDER BY 1"""

VIEWS = """
SELECT c.oid::regclass::text FROM pg_class AS c
 WHERE c.relnamespace = 'watch'::regnamespace AND c.relkind = 'v' ORDER BY 1"""


async def contents(connection: Connection, relations: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table or view, as JSON, in an order of their own."""
    found = {}
    for (name,) in await connection.fetch(relations):
        rows = await connection.fetch(f"SELECT to_jsonb(t)::text FROM {name} AS t")
        found[name] = [json.loads(text) for text in sorted(row[0] for row in rows)]
    return found
