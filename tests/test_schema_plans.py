"""Views that people filter by account or contract answer from indexes, on tables that have rows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from tests.fixtures_database import Connection, connected, temporary_database
from tests.schema_rows import address, insert, make_chain, text

SAMPLE = address(1234)

# 4,000 accounts: enough that a scan of everything costs visibly more than an index.
MANAGER = r"'\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
FILL = f"""
CREATE TEMPORARY TABLE n ON COMMIT DROP AS
SELECT i, decode(lpad(to_hex(i), 40, '0'), 'hex') AS a,
       decode(lpad(to_hex(i), 64, '0'), 'hex') AS h,
       (i % 5000) + 1 AS block FROM generate_series(1, 4000) AS i;
INSERT INTO chain.block
SELECT 80001, b, decode(lpad(to_hex(b), 64, '0'), 'hex'), b FROM generate_series(21, 5001) AS b;
INSERT INTO chain.account (chain_id, account, block_number, source)
SELECT 80001, a, block, 'factory' FROM n;
INSERT INTO chain.account_event
SELECT 80001, block, i * 10 + k, 0, h, a, 'EnabledModule', '{{"module": "0x01"}}', NULL
  FROM n, generate_series(1, 3) AS k;
INSERT INTO chain.user_operation SELECT 80001, block, i, 0, h, h, a, a, a, i, true, 1, 1 FROM n;
INSERT INTO chain.user_operation_body SELECT 80001, block, i, h, NULL, a, '[]' FROM n;
INSERT INTO chain.bundle SELECT 80001, block, h, a, a FROM n;
INSERT INTO chain.session_use
SELECT 80001, block, i, 0, h, {MANAGER}, a, h, h, a, 0, 0, a, a, a, a, i, '' FROM n;
INSERT INTO chain.erc1155_transfer SELECT 80001, block, i, 0, h, a, a, a, a, i, 1, h FROM n;
INSERT INTO chain.erc1155_balance SELECT 80001, a, a, i, 1 FROM n;
INSERT INTO chain.erc1155_approval SELECT 80001, block, i, h, a, a, a, true FROM n;
INSERT INTO chain.erc1155_uri SELECT 80001, block, i, h, a, i, 'u' FROM n;
INSERT INTO chain.undecoded_log SELECT 80001, block, i, h, a, ARRAY[h], h, 'x' FROM n;
INSERT INTO chain.audit_finding (chain_id, block_number, manager, account, reason)
SELECT 80001, block, {MANAGER}, a, 'no_log' FROM n;
INSERT INTO evidence.root_observation
SELECT 80001, {MANAGER}, a, b, decode(lpad(to_hex(b), 64, '0'), 'hex'), h
  FROM n, LATERAL (VALUES (block), (block % 5000 + 1)) AS v (b);
INSERT INTO evidence.account_observation
SELECT 80001, a, block, h, a, a, '{{}}', false FROM n;
INSERT INTO chain.root_attribution
SELECT 80001, block, {MANAGER}, a, 'calldata', 'none', h, h, h, a, 'event', h FROM n;
INSERT INTO chain.root_hint
SELECT 80001, block, i, 0, {MANAGER}, a, decode(repeat('bb', 32), 'hex'), 'event', h, h FROM n;
INSERT INTO sessions.session_set
    (chain_id, manager, account, leaves_digest, root, session_count, source)
SELECT 80001, {MANAGER}, a, h, h, 1, 'plain' FROM n;
INSERT INTO sessions.session
SELECT set_id, 0, root, 0, 0, account, NULL, '' FROM sessions.session_set;
INSERT INTO chain.verdict (chain_id, block_number, closed_block, closed_time, manager, account,
    verdict, cause, severity, since_time, explanation)
SELECT 80001, block, CASE WHEN i % 2 = 1 THEN block END, now(), {MANAGER}, a,
       CASE WHEN i % 4 < 2 THEN 'drifted' ELSE 'in_sync' END,
       CASE WHEN i % 4 < 2 THEN 'unknown_root' END, 'info', now(), 'x' FROM n;
"""

PARTITIONED = ("account_event", "user_operation", "erc1155_transfer")

# Small whatever happens: a row per chain, cohort, filter, block that is not final; empty: the
# partitions made ahead.
SMALL = {"chain", "cohort", "coverage", "tail"}
SMALL |= {f"{table}_c80001_p1" for table in PARTITIONED}

COLUMNS = {
    "account": ("account",),
    "account_event": ("account",),
    "user_operation": (
        "sender",
        "user_op_hash",
    ),
    "session_root": ("account",),
    "session_root_current": ("account",),
    "session_root_transient": ("account",),
    "session_set": ("account",),
    "session": ("account",),
    "session_use": ("account", "user_op_hash"),
    "session_mint": ("account", "contract"),
    "root_disagreement": ("account",),
    "verdict": ("account",),
    "drift": ("account",),
    "drift_history": ("account",),
    "erc1155_transfer": (
        "contract",
        "from_address",
        "to_address",
    ),
    "erc1155_balance": (
        "contract",
        "owner",
    ),
    "erc1155_approval": (
        "contract",
        "account",
    ),
    "erc1155_uri": ("contract",),
    "undecoded_log": ("address",),
    "audit_finding": ("account",),
}
FILTERS = [(view, column) for view, columns in COLUMNS.items() for column in columns]


@pytest.fixture(scope="module")
async def filled(postgres_url: str, template_database: str) -> AsyncIterator[Connection]:
    """A database with a few thousand rows in every table, analysed."""
    async with temporary_database(postgres_url, template_database) as url, connected(url) as opened:
        await make_chain(opened)
        await insert(opened, "chain.coverage", filter="accounts")
        async with opened.transaction():
            await opened.execute(FILL)
        await opened.execute(
            "UPDATE chain.chain SET finalized_number = 4000, indexed_number = 5000,"
            f" managers = ARRAY[{MANAGER}]::bytea[]"
        )
        await opened.execute("VACUUM ANALYZE")
        yield opened


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The plan's nodes, the top one first."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize(("view", "column"), FILTERS, ids=[".".join(f) for f in FILTERS])
async def test_a_filter_by_account_or_contract_reads_no_whole_table(
    filled: Connection, view: str, column: str
) -> None:
    """Every table is reached by an index condition, one of them on the hex text itself."""
    value = text(SAMPLE) if column != "user_op_hash" else "0x" + SAMPLE.hex().zfill(64)
    query = f"SELECT * FROM watch.{view} WHERE {column} = '{value}'"
    async with filled.transaction():
        await filled.execute("SET LOCAL ROLE sessionwatch_reader")  # who asks in Grafana
        explained = await filled.fetchval(f"EXPLAIN (FORMAT JSON, COSTS OFF) {query}")
    plan = json.loads(explained)[0]["Plan"]
    conditions = []
    for node in nodes(plan):
        if node["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}:
            assert "Index Cond" in node, json.dumps(node, indent=1)
            conditions.append(node["Index Cond"])
        elif node["Node Type"] == "Seq Scan":
            assert node["Relation Name"] in SMALL, json.dumps(node, indent=1)
    assert any("encode(" in condition and value in condition for condition in conditions)
    if view not in {
        "drift",
        "drift_history",
        "verdict",
    }:  # only some of the rows are open, or drifted
        assert await filled.fetch(query) or view == "session_root_transient"


async def test_the_newest_drifts_come_from_an_index(filled: Connection) -> None:
    """What a status page asks for needs no sort of all drifts."""
    plan = await filled.fetchval(
        "EXPLAIN (FORMAT JSON) SELECT account FROM chain.verdict WHERE chain_id = 80001 AND verdict"
        " = 'drifted' AND closed_block IS NULL ORDER BY since_time DESC, verdict_id DESC LIMIT 10"
    )
    found = [node.get("Index Name") for node in nodes(json.loads(plan)[0]["Plan"])]
    assert found == [None, "verdict_drifted"]
