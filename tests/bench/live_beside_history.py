"""Whether paying for a long history delays what happens now.

    .venv/bin/python -m tests.bench.live_beside_history [--transfers 1000000] [--accounts 100000]

A simulated node in a process of its own, the real daemon, a real Postgres, together on whatever
cores there are. One account with a stored session set changes its root again and again. The clock
starts just before the node is told to mine the block with the change; it stops when a SELECT on
watch.verdict shows the verdict that goes with it.

Three phases, with the same account, the same pace of changes, at random moments:
idle     in a database of its own, from a start_block above all of history: nothing is owed
busy     in an empty database from start_block 0: discovery, logs, inputs and roots of everything;
         changes go on until the debt is paid, so there are as many as fit
settled  as idle, but in the database that holds everything

Nothing is measured against a fixed time: what is printed is busy beside idle. In the end the
database is compared with the chain; a difference ends the run with an error. Polling adds up to one
`--poll` interval to each latency; the default is short so that it does not hide the effect.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from indexer.core.session_sets import SessionSet, build_set
from indexer.core.types import Hash32
from indexer.devnet import addresses as at
from indexer.devnet.operations import Key, seed_session
from indexer.store import schema
from indexer.store.chain_row import Connection
from indexer.store.embedded import EmbeddedPostgres
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.bench.history_chain import (
    CHAIN_ID,
    WATCHED,
    HistoryChain,
    Size,
    Truth,
    account,
    truth_of,
)
from tests.bench.history_report import SAMPLE_SECONDS, Backfill, Latency, Payment, table
from tests.bench.processes import parent
from tests.daemon_process import Daemon, configuration, running_daemon, until
from tests.environment import environment
from tests.fixtures_database import connected, temporary_database

_PAUSE_SECONDS = 0.25
"""On average, between a verdict and the next change."""
_VERDICT_SECONDS = 60.0
_STALL_SECONDS = 180.0


class BenchNode:
    """The node's process, as the benchmark speaks to it."""

    def __init__(self, url: str, pid: int, client: aiohttp.ClientSession) -> None:
        self.url, self.pid, self._client = url, pid, client

    async def mine(self, root: Hash32) -> None:
        """Let the watched account set its root in a new block."""
        asked = {"account": WATCHED, "root": "0x" + root.hex()}
        async with self._client.post(f"{self.url}/mine", json=asked) as answer:
            answer.raise_for_status()

    async def asked(self) -> dict[str, int]:
        """Return how often it was asked what; `http_requests` counts batches once."""
        async with self._client.get(f"{self.url}/asked") as answer:
            found: dict[str, int] = await answer.json()
            return found


@asynccontextmanager
async def running_node(size: Size) -> AsyncIterator[BenchNode]:
    """Start the node; it ends with its standard input, also if this process is killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.history_node", json.dumps(asdict(size))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise RuntimeError("the node did not start")
        async with aiohttp.ClientSession() as client:
            yield BenchNode(url, process.pid, client)
    finally:
        process.stdin.close()
        await process.wait()


class Changes:
    """Changes the watched account's root, and measures until the verdict says so."""

    def __init__(self, node: BenchNode, seed: int) -> None:
        self._node, self._known = node, stored_set().root
        self._draw = random.Random(seed)
        self._count = 0
        self._account = "0x" + account(WATCHED).hex()

    async def one(self, connection: Connection) -> float:
        """Pause for a moment, then change; return the seconds until the verdict is there."""
        await asyncio.sleep(self._draw.uniform(0, 2 * _PAUSE_SECONDS))
        self._count += 1
        # A root nobody knows, and back: each changes the verdict.
        root = Hash32(self._count.to_bytes(32)) if self._count % 2 else self._known
        began = time.perf_counter()
        await self._node.mine(root)
        wanted = ("0x" + root.hex(), "in_sync" if root == self._known else "drifted")
        while await self._verdict(connection) != wanted:
            if time.perf_counter() - began > _VERDICT_SECONDS:
                raise RuntimeError(f"no verdict {wanted} but {await self._verdict(connection)}")
            await asyncio.sleep(0.002)
        return time.perf_counter() - began

    async def many(self, count: int, connection: Connection) -> list[float]:
        """Return the seconds of so many changes, one after the other."""
        return [await self.one(connection) for _ in range(count)]

    async def _verdict(self, connection: Connection) -> tuple[str, str] | None:
        row = await connection.fetchrow(
            "SELECT on_chain_root, verdict FROM watch.verdict WHERE account = $1 AND manager = $2",
            self._account,
            "0x" + at.MANAGER.hex(),
        )
        return None if row is None else (row[0], row[1])


_OWED = """
SELECT pass || ' ' || filter AS name, sum(coalesce(missing_blocks, 1))::bigint AS missing
  FROM watch.coverage GROUP BY 1"""
_WAITING = "SELECT count(*) FROM chain.verdict_queue"


async def is_paid(connection: Connection) -> bool:
    """Say whether nothing is owed and nothing waits to be decided."""
    owed = await connection.fetch(_OWED)
    paid = bool(owed) and all(row["missing"] == 0 for row in owed)
    return paid and not await connection.fetchval(_WAITING)


async def watch_payment(followed: Followed, node: BenchNode) -> Backfill:
    """Look at debt, memory and processor time until everything is paid."""
    found, daemon = Backfill(), followed.daemon
    owed_before, moved_at = None, followed.began
    async with connected(followed.url) as connection:
        postgres = parent(await connection.fetchval("SELECT pg_backend_pid()"))
        while True:
            now = time.perf_counter() - followed.began
            owed = await connection.fetch(_OWED)
            if owed != owed_before:
                owed_before, moved_at = owed, time.perf_counter()
            elif time.perf_counter() - moved_at > _STALL_SECONDS:
                raise RuntimeError(f"nothing was paid for {_STALL_SECONDS:g} s: {daemon.log()}")
            for row in owed:
                found.passes.setdefault(row["name"], Payment()).seen(row["missing"], now)
            found.daemon.look_at(daemon.process.pid)
            found.node.look_at(node.pid)
            found.postgres.look_at(postgres)
            if daemon.process.returncode is not None:
                raise RuntimeError(daemon.log()[-5000:])
            if await is_paid(connection):
                found.seconds = time.perf_counter() - followed.began
                found.retries = len(daemon.events("step_retried"))
                return found
            await asyncio.sleep(SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Scene:
    """What stays the same from phase to phase."""

    server_url: str
    folder: Path
    node: BenchNode
    poll_seconds: float


@dataclass(frozen=True, slots=True)
class Followed:
    """A daemon that has taken the chain over at `began` and knows the watched account."""

    daemon: Daemon
    url: str
    connection: Connection
    began: float


@asynccontextmanager
async def following(scene: Scene, start_block: int, name: str) -> AsyncIterator[Followed]:
    """Run a daemon on a database of its own, with the one session set stored."""
    async with temporary_database(scene.server_url) as url:
        await schema.apply(url)
        text = configuration(
            url,
            scene.node.url,
            start_block=start_block,
            poll_seconds=scene.poll_seconds,
            finality=None,
        )
        async with (
            connected(url) as connection,
            Database.open(url) as database,
            running_daemon(scene.folder, text, name=name) as daemon,
        ):
            await daemon.following()
            began = time.perf_counter()
            await import_sets(database, [(stored_set(), "bench")])

            async def decided() -> bool:
                return bool(await connection.fetchval("SELECT count(*) FROM watch.verdict"))

            await until(decided, "the first verdict")
            yield Followed(daemon, url, connection, began)
            if await daemon.stop() != 0:
                raise RuntimeError(daemon.log()[-5000:])


def stored_set() -> SessionSet:
    """Return the one set of sessions that is stored, of the account whose root changes."""
    key = Key.named("bench")
    sessions = [seed_session(key.address, key.address, token_id) for token_id in range(3)]
    return build_set(CHAIN_ID, at.MANAGER, account(WATCHED), sessions)


async def verify(connection: Connection, truth: Truth, blocks: int) -> dict[str, int]:
    """Compare the database with the chain; return how much there is. Raises on a difference."""
    found: dict[str, tuple[object, object]] = {
        "accounts": (
            {row[0] for row in await connection.fetch(_ACCOUNTS)},
            set(truth.accounts),
        ),
        "operations": (await connection.fetchval(_OPERATIONS, blocks), truth.operations),
        "transfers": (await connection.fetchval(_TRANSFERS, blocks), truth.transfers),
        "root_changes": (
            {tuple(row) for row in await connection.fetch(_ROOTS, at.MANAGER, blocks)},
            set(truth.root_changes),
        ),
        "balances": (
            {(r[0], int(r[1])): int(r[2]) for r in await connection.fetch(_BALANCES)},
            truth.balances,
        ),
    }
    for name, (here, there) in found.items():
        if here != there:
            raise RuntimeError(f"{name} are not those of the chain: {differing(here, there)}")
    return {
        name: there if isinstance(there, int) else len(there)  # type: ignore[arg-type]
        for name, (_, there) in found.items()
    }


def differing(here: object, there: object) -> str:
    """Say how two values differ, briefly."""
    if isinstance(here, dict) and isinstance(there, dict):
        here, there = set(here.items()), set(there.items())
    if isinstance(here, set) and isinstance(there, set):
        return f"{len(here - there)} too many, {len(there - here)} missing"
    return f"{here}, not {there}"


_ACCOUNTS = "SELECT account FROM chain.account WHERE chain_id = 80001"
_OPERATIONS = "SELECT count(*) FROM chain.user_operation WHERE block_number <= $1"
_TRANSFERS = "SELECT count(*) FROM chain.erc1155_transfer WHERE block_number <= $1"
_ROOTS = """
SELECT account, block_number, root FROM chain.root_change
 WHERE manager = $1 AND block_number <= $2"""
_BALANCES = "SELECT owner, token_id, balance FROM chain.erc1155_balance WHERE balance <> 0"


async def measure(scene: Scene, size: Size, changes: int) -> dict[str, Any]:
    """Run the three phases and the comparison; return everything that was measured."""
    node, changing = scene.node, Changes(scene.node, size.seed)
    phases: dict[str, list[float]] = {}
    async with following(scene, size.blocks + 1, "idle") as followed:
        await until(lambda: is_paid(followed.connection), "nothing owed")
        phases["idle"] = await changing.many(changes, followed.connection)
    before = await node.asked()
    async with following(scene, 0, "busy") as followed:
        async with asyncio.TaskGroup() as group:
            paying = group.create_task(watch_payment(followed, node))
            phases["busy"] = []
            while not paying.done():
                phases["busy"].append(await changing.one(followed.connection))
        backfill, after = paying.result(), await node.asked()
        backfill.asked = {name: n - before.get(name, 0) for name, n in after.items()}
        phases["settled"] = await changing.many(changes, followed.connection)
        truth = await asyncio.to_thread(truth_of, HistoryChain(size))
        verified = await verify(followed.connection, truth, size.blocks)
    return {
        "poll_seconds": scene.poll_seconds,
        "size": asdict(size),
        "latency": {name: asdict(Latency.of(seconds)) for name, seconds in phases.items()},
        "backfill": backfill.report(verified),
        "verified": verified,
    }


async def run(size: Size, polls: list[float], changes: int) -> None:
    """Measure with each polling interval, and print."""
    with tempfile.TemporaryDirectory(prefix="live-beside-history-") as name:
        folder = Path(name)
        async with EmbeddedPostgres(folder / "postgres") as server, running_node(size) as node:
            for poll_seconds in polls:
                scene = Scene(server.url, folder, node, poll_seconds)
                found = await measure(scene, size, changes)
                sys.stdout.write(table(found))
                sys.stdout.write(json.dumps({"live_beside_history": found}) + "\n")
                sys.stdout.flush()


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--transfers", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--operations", type=int, help="default: a fifth of the accounts")
    parser.add_argument("--blocks", type=int, help="default: a block per 40 transfers")
    parser.add_argument("--changes", type=int, default=200, help="idle and settled: so many")
    parser.add_argument("--poll", type=float, nargs="+", default=[0.02], metavar="SECONDS")
    given = parser.parse_args()
    size = Size(
        given.transfers,
        given.accounts,
        given.accounts // 5 if given.operations is None else given.operations,
        max(given.transfers // 40, 1000) if given.blocks is None else given.blocks,
    )
    asyncio.run(run(size, given.poll, given.changes))


if __name__ == "__main__":
    main()
