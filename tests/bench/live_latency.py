"""How long a change takes from the node to a verdict in Postgres, and what memory that needs.

    .venv/bin/python -m tests.bench.live_latency [--changes 50]

A real Anvil, the real daemon, a real Postgres. The clock starts just before the node is told to
mine the block with the change, so mining is part of it; it stops when a SELECT on watch.verdict
shows the new verdict. Prints a table, and the same as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from indexer.core.session_sets import build_set
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, SmartAccount, root_of_set, running_devnet
from indexer.devnet.operations import Key, seed_session, set_root_call
from indexer.devnet.tools import Toolchain, prepare
from indexer.store import schema
from indexer.store.chain_row import Connection
from indexer.store.embedded import EmbeddedPostgres
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.daemon_process import Daemon, configuration, running_daemon, until
from tests.fixtures_database import connected, temporary_database

POLL_SECONDS = (0.25, 0.02)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. Times in milliseconds, memory in MiB: resident at the end, and its peak."""

    poll_seconds: float
    changes: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    resident_mib: float
    peak_mib: float


def memory_mib(daemon: Daemon, field: str) -> float:
    """Return VmRSS or VmHWM of the daemon."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


async def one_change(
    devnet: Devnet, connection: Connection, account: SmartAccount, root: bytes
) -> float:
    """Change the root; return the seconds until the verdict that goes with it can be selected."""
    op = await devnet.owner_op(account, [set_root_call(root)])
    bundle = devnet.bundle([op])
    async with devnet.rpc.without_automine():
        await devnet.rpc.send(bundle.sender, bundle.to, bundle.data, gas=bundle.gas)
        began = time.perf_counter()
        await devnet.rpc.mine()
    wanted = "0x" + root.hex()
    while True:
        found = await connection.fetchval(
            "SELECT on_chain_root FROM watch.verdict WHERE account = $1 AND manager = $2",
            "0x" + account.address.hex(),
            "0x" + at.MANAGER.hex(),
        )
        if found == wanted:
            return time.perf_counter() - began
        await asyncio.sleep(0.002)


async def measure(
    tools: Toolchain, server_url: str, folder: Path, poll_seconds: float, changes: int
) -> Measured:
    """Follow a chain of its own and measure so many changes, at random moments of the polling."""
    chance = random.Random(1)
    async with (
        running_devnet(tools) as devnet,
        temporary_database(server_url) as url,
    ):
        await schema.apply(url)
        account = devnet.account("bench")
        key = Key.named("bench")
        wanted = [seed_session(key.address, key.address, i) for i in range(3)]
        known = root_of_set(wanted)
        await devnet.register(account, wanted)
        config = configuration(url, devnet.url, poll_seconds=poll_seconds)
        async with (
            connected(url) as connection,
            Database.open(url) as database,
            running_daemon(folder, config, name=f"poll-{poll_seconds}") as daemon,
        ):
            stored = build_set(80001, at.MANAGER, account.address, wanted)
            await import_sets(database, [(stored, "bench")])

            async def in_sync() -> bool:
                found = await connection.fetchval("SELECT verdict FROM watch.verdict LIMIT 1")
                return bool(found == "in_sync")

            await until(in_sync, "the first verdict")
            seconds: list[float] = []
            for number in range(changes):
                await asyncio.sleep(chance.uniform(0, 2 * poll_seconds))
                # A root nobody knows, and back: each changes the verdict.
                root = known if number % 2 else (number + 1).to_bytes(32)
                seconds.append(await one_change(devnet, connection, account, root))
            resident, peak = memory_mib(daemon, "VmRSS"), memory_mib(daemon, "VmHWM")
            if await daemon.stop() != 0:
                raise RuntimeError(daemon.log())
    ordered = sorted(1000 * s for s in seconds)
    return Measured(
        poll_seconds=poll_seconds,
        changes=changes,
        p50_ms=round(statistics.median(ordered), 1),
        p99_ms=round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 1),
        worst_ms=round(ordered[-1], 1),
        resident_mib=round(resident, 1),
        peak_mib=round(peak, 1),
    )


async def run(changes: int) -> list[Measured]:
    """Measure with each polling interval."""
    tools = await asyncio.to_thread(prepare)
    with tempfile.TemporaryDirectory(prefix="live-latency-") as name:
        folder = Path(name)
        async with EmbeddedPostgres(folder / "postgres") as server:
            return [await measure(tools, server.url, folder, p, changes) for p in POLL_SECONDS]


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--changes", type=int, default=50)
    found = asyncio.run(run(parser.parse_args().changes))
    out = sys.stdout
    out.write("poll s   changes   p50 ms   p99 ms  worst ms   resident MiB   peak MiB\n")
    for one in found:
        out.write(
            f"{one.poll_seconds:6.2f} {one.changes:9d} {one.p50_ms:8.1f} {one.p99_ms:8.1f} "
            f"{one.worst_ms:9.1f} {one.resident_mib:14.1f} {one.peak_mib:10.1f}\n"
        )
    out.write(json.dumps({"live_latency": [asdict(one) for one in found]}) + "\n")


if __name__ == "__main__":
    main()
