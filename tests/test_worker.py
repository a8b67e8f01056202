"""History in a process of its own: the same rows, and no way to lose it, leak it or leave it."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.store.chain_row import Connection
from tests.daemon_process import Daemon, configuration, dump, running_daemon, settled, until
from tests.fresh_index import *  # noqa: F403 - a fixture is found by its name here
from tests.fresh_index import FreshIndexer, differences
from tests.sim.blocks import hexed
from tests.sim.faults import Hold
from tests.sim.node import SimNode
from tests.sim.story import MANAGERS, Story, World

ALWAYS = "WORKER_DEBT_BLOCKS=0"
BLOCKS = 120
KEYS: dict[str, Any] = {"managers": [hexed(m) for m in MANAGERS], "finality": 8}
NODE_SECRET, DATABASE_SECRET = "s3cret-node-key", "s3cret-database-word"


@asynccontextmanager
async def told_chain() -> AsyncIterator[SimNode]:
    """A chain with a past worth a process."""
    async with SimNode(seed=5, finality_depth=8) as node:
        story = Story(node, random.Random(5), finality_depth=8, world=World(taints=False))
        for _ in range(BLOCKS):
            story.mine()
        yield node


async def worker_of(daemon: Daemon, count: int = 1) -> int:
    """Wait for the daemon's worker of this number; return its process id."""
    return int((await daemon.logs("history_worker_started", count))["pid"])


async def held(node: SimNode, daemon: Daemon) -> int:
    """Let the node hold what asks for ranges of logs; return the worker that waits for it."""
    worker = await worker_of(daemon)

    async def asks() -> bool:
        return any(
            method == "eth_getLogs" and "fromBlock" in params[0]
            for calls in node.requests
            for method, params in calls
        )

    await until(asks, "the worker to ask for a range", 20)
    return worker


def alive(process_id: int) -> bool:
    """Say whether a process runs; one that has ended and waits to be collected does not."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def arguments_and_environment(process_id: int) -> str:
    """Return what every process of the same user can read of a process."""
    names = ("cmdline", "environ")
    return "".join(Path(f"/proc/{process_id}/{name}").read_text() for name in names)


async def ended(process_id: int, seconds: float = 10) -> None:
    async def gone() -> bool:
        return not alive(process_id)

    await until(gone, "the worker to end", seconds)


async def all_paid(connection: Connection, node: SimNode) -> None:
    tip = node.tip
    await until(lambda: settled(connection, tip.number, tip.hash), "the past to be paid", 30)


def metric(text: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    found = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith(f"sessionwatch_{name}{{")
        and all(f'{key}="{value}"' in line for key, value in labels.items())
    ]
    assert found, f"no sample of {name} {labels}"
    return sum(found)


async def test_it_pays_the_same_rows_and_its_metrics_are_the_daemons(
    database_url: str, connection: Connection, tmp_path: Path, fresh_indexer: FreshIndexer
) -> None:
    """What a child process paid equals what the daemon pays itself; /metrics counts its work."""
    async with told_chain() as node:
        config = configuration(database_url, node.url, **KEYS)
        async with running_daemon(tmp_path, config, tweak=ALWAYS) as daemon:
            await all_paid(connection, node)
            worker = await worker_of(daemon)
            assert (await daemon.logs("history_worker_ended"))["exit_code"] == 0
            await ended(worker)
            _, text = await daemon.get("/metrics")
            assert await daemon.stop() == 0
        found = await dump(connection)
        fresh = await fresh_indexer.dump(node.url, (node.tip.number, node.tip.hash), **KEYS)
        assert not differences(fresh, found)

        asked = sum(m == "eth_getLogs" for calls in node.requests for m, _ in calls)
        assert asked > 0
        assert metric(text, "rpc_requests_total", method="eth_getLogs", outcome="ok") > 0
        stored = await connection.fetchval(
            "SELECT count(*) FROM chain.user_operation WHERE block_number <= $1", BLOCKS - 8
        )
        assert metric(text, "logs_total", event="UserOperationEvent") >= stored > 0
        assert metric(text, "coverage_missing_blocks") == 0


async def test_a_killed_worker_is_replaced(
    database_url: str, connection: Connection, tmp_path: Path, fresh_indexer: FreshIndexer
) -> None:
    """Killed in the midst of a range: one line says so, another is started, nothing is lost."""
    async with told_chain() as node:
        node.fail(Hold(), method="eth_getTransactionByBlockHashAndIndex", times=1)
        config = configuration(database_url, node.url, **KEYS)
        async with running_daemon(tmp_path, config, tweak=ALWAYS) as daemon:
            os.kill(await held(node, daemon), signal.SIGKILL)
            assert await worker_of(daemon, 2)
            node.release()
            await all_paid(connection, node)
            (said,) = daemon.events("step_retried")
            assert said["kind"] == "WorkerEndedError"
            assert "code -9" in said["reason"]
            assert await daemon.stop() == 0
        fresh = await fresh_indexer.dump(node.url, (node.tip.number, node.tip.hash), **KEYS)
        assert not differences(fresh, await dump(connection))
        assert "Traceback" not in daemon.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
async def test_no_worker_outlives_its_daemon(
    number: signal.Signals, database_url: str, tmp_path: Path
) -> None:
    """While its request is held: SIGTERM ends both with 0 in time; after SIGKILL it ends itself."""
    async with told_chain() as node:
        node.fail(Hold(), method="eth_getLogs", times=1000)
        config = configuration(database_url, node.url, **KEYS)
        async with running_daemon(tmp_path, config, tweak=ALWAYS) as daemon:
            worker = await held(node, daemon)
            code = await daemon.stop(number, seconds=10)
            await ended(worker, 5)
    assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    assert "Traceback" not in daemon.log()


async def test_both_end_when_another_takes_over(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """A raised epoch fences the worker in its next transaction: both end, with 75."""
    async with told_chain() as node:
        node.fail(Hold(), method="eth_getTransactionByBlockHashAndIndex", times=1000)
        config = configuration(database_url, node.url, **KEYS, poll_seconds=30)
        async with running_daemon(tmp_path, config, tweak=ALWAYS) as daemon:
            worker = await held(node, daemon)
            await connection.execute("UPDATE chain.chain SET epoch = epoch + 1")
            node.release()
            assert await daemon.ends() == 75
            await ended(worker, 5)
    assert "Traceback" not in daemon.log()


async def test_its_secrets_travel_by_pipe_alone(database_url: str, tmp_path: Path) -> None:
    """Neither a node's URL nor the database's password is in its arguments, environment or log."""
    async with told_chain() as node:
        node.fail(Hold(), method="eth_getLogs", times=1000)
        separator = "&" if "?" in database_url else "?"
        url = f"{database_url}{separator}password={DATABASE_SECRET}"
        config = configuration(url, f"{node.url}/{NODE_SECRET}", **KEYS)
        async with running_daemon(tmp_path, config, tweak=ALWAYS) as daemon:
            worker = await held(node, daemon)
            shown = arguments_and_environment(worker)
            assert "indexer.worker" in shown
            assert await daemon.stop(seconds=10) == 0
    for text in (shown, daemon.log()):
        for secret in (NODE_SECRET, DATABASE_SECRET, re.sub(r".*//", "", node.url)):
            assert secret not in text
