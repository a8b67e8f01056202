"""What people ask is answered from indexes: queries of the README, of dashboards, and usual ones.

The database is small, but large enough that reading a whole table shows. Rows are counted, not
times: how long it takes at full size is measured by tests/bench/queries.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from tests.bench.filled_database import Size, fill, sample_values
from tests.fixtures_database import Connection, connected, temporary_database
from tests.query_catalogue import Query, catalogue
from tests.schema_rows import small_slices
from tests.stored_reads import COUNTS, OF_ACCOUNT, OF_ALL, Read, recorded

# A block a minute, so that the last hour is little of it.
SIZE = Size(transfers=60_000, accounts=10_000, operations=20_000, block_seconds=60)

# A row per chain, cohort, filter, or block that is not final: small whatever happens.
SMALL = {"chain", "cohort", "coverage", "pace", "tail", "unobserved", "audit"}

MOST_ROWS = {"typical": 2_500, "busiest": 25_000, "": 4_000}
"""How many rows the scans of one query may read, of some 300,000."""

# Each of a hundred sets looks through the observations of its account, of whom this one has 900.
LONG = {("Grafana, account: Stored sets A", "busiest"): 100_000}

QUERIES = [query for query in catalogue() if not query.counts]
ASKED = [
    (query, of)
    for query in QUERIES
    for of in (("typical", "busiest") if query.needs_values else ("",))
]


class Filled(NamedTuple):
    url: str
    connection: Connection
    values: Mapping[str, Mapping[str, object]]


@pytest.fixture(scope="module")
async def filled(postgres_url: str, template_database: str) -> AsyncIterator[Filled]:
    """A database with tens of thousands of rows in several partitions, analysed."""
    async with temporary_database(postgres_url, template_database) as url, connected(url) as opened:
        await small_slices(opened, 20_000)
        await fill(opened, SIZE)
        values = await sample_values(opened)
        await opened.execute("SET max_parallel_workers_per_gather = 0")
        yield Filled(url, opened, values)


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The plan's nodes, the top one first."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def rows_read(node: Mapping[str, Any]) -> float:
    """How many rows a scan of a table looked at, also those it threw away."""
    removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    looked_at = node["Actual Rows"] + sum(node.get(name, 0) for name in removed)
    return float(looked_at * node["Actual Loops"])


def growing(node: Mapping[str, Any]) -> bool:
    """Whether the node scans a table that grows with the chain or with the sessions."""
    table = node.get("Relation Name")
    return table is not None and table not in SMALL


async def plan_of(filled: Filled, sql: str) -> Mapping[str, Any]:
    """The plan as it was executed, for who asks in Grafana."""
    async with filled.connection.transaction():
        await filled.connection.execute("SET LOCAL ROLE sessionwatch_reader")
        explained = await filled.connection.fetchval(
            f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}"
        )
    plan: Mapping[str, Any] = json.loads(explained)[0]["Plan"]
    return plan


@pytest.mark.parametrize(("query", "of"), ASKED, ids=[f"{q.name} {of}".strip() for q, of in ASKED])
async def test_a_question_reads_what_it_answers_and_little_more(
    filled: Filled, query: Query, of: str
) -> None:
    """No growing table is read whole, and no history is sorted of which the end is asked."""
    sql = query.of(filled.values[of]) if of else query.sql
    plan = await plan_of(filled, sql)
    scans = [node for node in nodes(plan) if growing(node)]
    shown = json.dumps(plan, indent=1)
    if of != "busiest":  # of whom there may be as much as a tenth of a small table
        assert not [n for n in scans if n["Node Type"] == "Seq Scan" and rows_read(n) > 1], shown
    assert sum(map(rows_read, scans)) <= LONG.get((query.name, of), MOST_ROWS[of]), shown


READS = [
    *((name, read, of) for name, read in OF_ACCOUNT.items() for of in ("typical", "busiest")),
    *((name, read, "") for name, read in (OF_ALL | COUNTS).items()),
]

MOST_READ = {"typical": 500, "busiest": 25_000, "": 15_000}
"""How many rows one statement may read, of some 300,000: the open verdicts are 10,000."""

MOST_READ_BY = {
    # The sets of this account's years, each of which looks through 900 observations.
    ("explain", "busiest"): 100_000,
}


@pytest.mark.parametrize(
    ("name", "read", "of"), READS, ids=[f"{n} {o}".strip() for n, _, o in READS]
)
async def test_what_is_read_again_and_again_is_bounded(
    filled: Filled, name: str, read: Read, of: str
) -> None:
    """Each statement of the page, of /status and of `explain`, with the values it had."""
    async with recorded(filled.url) as (database, statements):
        await read(database, filled.values[of or "typical"])
    assert statements
    for statement in statements:
        explained = await filled.connection.fetchval(
            f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement.sql}", *statement.values
        )
        plan = json.loads(explained)[0]["Plan"]
        scans = [node for node in nodes(plan) if growing(node)]
        shown = f"{statement.sql}\n{json.dumps(plan, indent=1)}"
        assert sum(map(rows_read, scans)) <= MOST_READ_BY.get((name, of), MOST_READ[of]), shown
