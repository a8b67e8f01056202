"""How long the questions people ask take on a large database.

    .venv/bin/python -m tests.bench.queries [--transfers 10000000] [--accounts 1000000]

Fills a database of its own (of the full size some ten minutes and 15 GB), then asks everything in
tests/query_catalogue.py as the reader's role, several times each, for an account in the middle and
for the busiest there is. Prints a table, and the same as a line of JSON. Times are those of the
client, planning included; `ratio` is the median beside that of one look-up by primary key in the
same run, which is what to compare between machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg

from indexer.store import schema
from indexer.store.embedded import EmbeddedPostgres
from tests.bench.filled_database import Size, fill, sample_values
from tests.fixtures_database import Connection, connected
from tests.query_catalogue import Query, catalogue

LIMIT_MS = 10.0
_RUNS, _ENOUGH_SECONDS, _TIMEOUT_MS = 40, 2_000.0, 30_000.0
_REFERENCE = Query("reference", "SELECT depth FROM watch.reorg WHERE reorg_id = 7")


@dataclass(frozen=True, slots=True)
class Measured:
    """One query with one account's values. `buffers`: pages of 8 KiB, each access counted."""

    name: str
    of: str
    rows: int
    median_ms: float
    p99_ms: float
    ratio: float
    planning_ms: float
    buffers: int
    counts: bool

    @property
    def mark(self) -> str:
        """Return what the table says of its time."""
        if self.p99_ms <= LIMIT_MS:
            return ""
        if self.counts:
            return "counts all"
        return "SLOW" if self.median_ms > LIMIT_MS else "slow at times"


async def measure(connection: Connection, query: Query, of: str, sql: str) -> Measured:
    """Ask until it is enough, not counting the first time; who takes the reader's 30 s is out."""
    times: list[float] = []
    try:
        while len(times) < _RUNS and sum(times) < _ENOUGH_SECONDS:
            began = time.perf_counter()
            rows = len(await connection.fetch(sql))
            times.append(1000 * (time.perf_counter() - began))
        explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")
    except asyncpg.QueryCanceledError:
        return Measured(query.name, of, 0, _TIMEOUT_MS, _TIMEOUT_MS, 0.0, 0.0, 0, query.counts)
    plan: dict[str, Any] = json.loads(explained)[0]
    buffers = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    ordered = sorted(times[1:] or times)
    worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    median = statistics.median(ordered)
    return Measured(
        query.name, of, rows, median, worst, 0.0, plan["Planning Time"], buffers, query.counts
    )


async def ask_all(
    connection: Connection, values: dict[str, dict[str, object]], queries: Sequence[Query]
) -> list[Measured]:
    """Ask every question, those of an account or contract of both, and compare."""
    reference = await measure(connection, _REFERENCE, "", _REFERENCE.sql)
    found = [reference]
    for query in queries:
        for of in values if query.needs_values else ("",):
            sql = query.of(values[of]) if of else query.sql
            found.append(await measure(connection, query, of, sql))
    return [_rounded(one, reference.median_ms) for one in found]


def _rounded(one: Measured, reference_ms: float) -> Measured:
    numbers = asdict(one) | {"ratio": round(one.median_ms / reference_ms, 1)}
    for name in ("median_ms", "p99_ms", "planning_ms"):
        numbers[name] = round(numbers[name], 2)
    return Measured(**numbers)


def table(found: Sequence[Measured]) -> str:
    """Return what was measured for people."""
    row = "{:<42} {:<8} {:>6} {:>10} {:>9} {:>7} {:>9} {:>8}  {}".format
    lines = [row("query", "of", "rows", "median ms", "p99 ms", "ratio", "plan ms", "buffers", "")]
    lines += [
        row(m.name, m.of, m.rows, m.median_ms, m.p99_ms, m.ratio, m.planning_ms, m.buffers, m.mark)
        for m in found
    ]
    slow = sum(m.mark in {"SLOW", "slow at times"} for m in found)
    return "\n".join([*lines, "", f"{slow} of {len(found)} are over {LIMIT_MS:g} ms", ""])


async def bench(size: Size, folder: Path) -> None:
    """Fill, ask, print."""
    async with EmbeddedPostgres(folder, fsync=False) as server:
        await schema.apply(server.url)
        async with connected(server.url) as filling:
            for setting in ("max_wal_size = '8GB'", "autovacuum = off"):
                await filling.execute(f"ALTER SYSTEM SET {setting}")
            await filling.execute("SELECT pg_reload_conf()")
            await fill(filling, size, sys.stderr.write)
            values = await sample_values(filling)
        reader = await asyncpg.connect(server.url, statement_cache_size=0)  # planned each time
        try:
            await reader.execute("SET ROLE sessionwatch_reader; SET statement_timeout = '30s'")
            found = await ask_all(reader, values, catalogue())
        finally:
            await reader.close()
    report = {"size": asdict(size), "queries": [asdict(one) for one in found]}
    sys.stdout.write("\n".join([table(found), json.dumps(report), ""]))


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--transfers", type=int, default=10_000_000)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--operations", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the database goes; it stays there")
    given = parser.parse_args()
    size = Size(given.transfers, given.accounts, given.operations, given.seed)
    if given.folder is not None:
        asyncio.run(bench(size, given.folder))
        return
    with tempfile.TemporaryDirectory(prefix="sessionwatch-") as folder:
        asyncio.run(bench(size, Path(folder)))


if __name__ == "__main__":
    main()
