"""The real daemon as a subprocess, and what a test asks of the database it writes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from indexer.store.chain_row import Connection
from tests.environment import environment

PATIENCE_SECONDS = 60.0


async def until(
    test: Callable[[], Awaitable[bool]], what: str, seconds: float = PATIENCE_SECONDS
) -> None:
    """Ask until it is true; a missed deadline is an error that says what was awaited."""
    end = asyncio.get_running_loop().time() + seconds
    while not await test():
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        await asyncio.sleep(0.02)


@dataclass
class Daemon:
    """One running `sessionwatch run`."""

    process: asyncio.subprocess.Process
    log_file: Path

    def log(self) -> str:
        """Return everything it has logged."""
        return self.log_file.read_text()

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return the events it has logged, of one name or all; other lines are passed over."""
        found = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [event for event in found if name in {"", event["event"]}]

    async def logs(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait until it has logged an event so often; return the last."""

        async def logged() -> bool:
            ended = self.process.returncode
            assert ended is None or len(self.events(name)) >= count, f"{ended}: {self.log()}"
            return len(self.events(name)) >= count

        await until(logged, f"the event {name}", 30)
        return self.events(name)[count - 1]

    async def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP side; return status and text."""
        port = (await self.logs("http_listening"))["port"]
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://127.0.0.1:{port}{path}") as answer,
        ):
            return answer.status, await answer.text()

    async def is_ready(self) -> bool:
        """Say whether /readyz is green."""
        return (await self.get("/readyz"))[0] == 200

    async def ends(self, seconds: float = 20.0) -> int:
        """Wait for its end; return the exit code."""
        return await asyncio.wait_for(self.process.wait(), seconds)

    async def following(self) -> None:
        """Wait until it has taken its chain over."""

        async def taken_over() -> bool:
            return "chain_taken_over" in self.log()

        await until(taken_over, "the daemon to take its chain over")

    async def stop(self, number: int = signal.SIGTERM, seconds: float = 15.0) -> int:
        """Send a signal and return the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), seconds)


def configuration(
    database_url: str, node_url: str, *, port: int = 0, chain: str = "", **keys: object
) -> str:
    """Return a TOML file for the local chain; `keys` replace or add to [chains.local]."""
    values: dict[str, object] = {
        "chain_id": 80001,
        "rpc": [node_url],
        "start_block": 0,
        "poll_seconds": 0.02,
        "finality": 64,
        "erc1155": "all",
    } | keys
    lines = [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
    return "\n".join(
        [
            "[database]",
            f'url = "{database_url}"',
            "[http]",
            f'listen = "127.0.0.1:{port}"',
            f"[chains.{chain or 'local'}]",
            *lines,
        ]
    )


def second_chain(config: str, node_url: str) -> str:
    """Return the configuration with a chain `other`, id 80002, added."""
    other = configuration("unused", node_url, chain="other", chain_id=80002)
    return config + "\n" + other[other.index("[chains.other]") :]


def _toml(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, Sequence):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value).lower()


# The command line with some of the daemon's waiting times shortened. SIGUSR1 blocks it for good,
# and with it its event loop.
_TWEAKED = """
import signal, sys, time
from indexer import auditing, cli, counting, daemon, history, ingest, lanes
from indexer.store import pool
modules = (lanes, counting, history, daemon, auditing, ingest, pool)
for setting in sys.argv.pop(1).split():
    name, value = setting.split("=")
    module = next(one for one in modules if hasattr(one, name))
    setattr(module, name, float(value))
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
cli.main()
"""


@asynccontextmanager
async def running_daemon(
    folder: Path,
    config: str,
    *arguments: str,
    name: str = "daemon",
    tweak: str = "",
    variables: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Daemon]:
    """Run the daemon with this configuration; kill it at the end if it still runs.

    `tweak` shortens waiting times by their names in daemon, lanes, counting, history, auditing,
    ingest or store.pool: "GIVE_UP_SECONDS=1". A worker does not know of them. `variables` are added
    to its environment.
    """
    config_file = folder / f"{name}.toml"
    config_file.write_text(config)
    log_file = folder / f"{name}.log"
    with log_file.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(("-c", _TWEAKED, tweak) if tweak else ("-m", "indexer")),
            "--config",
            str(config_file),
            "run",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(PYTHONUNBUFFERED="1", **variables),
        )
    daemon = Daemon(process, log_file)
    try:
        yield daemon
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def command(folder: Path, config: str, *arguments: str) -> tuple[int, str]:
    """Run another verb with this configuration; return exit code and everything it said."""
    config_file = folder / "command.toml"
    config_file.write_text(config)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "indexer", "--config", str(config_file), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def indexed_block(connection: Connection) -> int:
    """Return how far the live lane has committed; -1 before the first step."""
    found = await connection.fetchval("SELECT max(indexed_block) FROM watch.progress")
    return -1 if found is None else int(found)


async def settled(connection: Connection, block: int, block_hash: bytes) -> bool:
    """Say whether this block is indexed, nothing waits to be decided, and no debt is left."""
    # One statement, one snapshot: a range that is paid between two of them queues what it changed.
    return bool(
        await connection.fetchval(
            """
            SELECT EXISTS (SELECT FROM chain.chain
                            WHERE chain_id = 80001 AND indexed_number = $1 AND indexed_hash = $2)
               AND NOT EXISTS (SELECT FROM chain.verdict_queue)
               AND NOT EXISTS (SELECT FROM watch.coverage
                                WHERE coalesce(missing_blocks, 0) > 0)
               AND NOT EXISTS (SELECT FROM chain.coverage WHERE cohort = 0 AND pass = 'logs'
                                  AND filter = 'accounts' AND live_from IS NULL)""",
            block,
            block_hash,
        )
    )


async def stored_text(connection: Connection) -> str:
    """Return every row of every table as text."""
    tables = await connection.fetch(
        "SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n "
        "ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') "
        "AND n.nspname IN ('chain', 'evidence', 'sessions')"
    )
    texts: list[str] = []
    for schema, table in tables:
        rows = await connection.fetch(f'SELECT t::text FROM "{schema}"."{table}" AS t')
        texts += [row[0] for row in rows]
    assert any("80001" in text for text in texts)
    return "\n".join(texts)


# What the law speaks of: everything but wall-clock columns, orphans, reorgs and counters.
_COMPARED = {
    # Not observed_block: slots that a reorg made the daemon read again are evidence, not a change.
    # Not cohort: who was learnt together, and when that ceased to matter, is bookkeeping.
    "account": "SELECT chain_id, account, factory, created_block, implementation, "
    "fallback_handler, tainted, modules, source FROM watch.account",
    "account_event": "SELECT * FROM watch.account_event",
    "user_operation": "SELECT * FROM watch.user_operation",
    "session_root": "SELECT chain_id, manager, account, block_number, block_hash, block_time, "
    "root, previous_root, transaction_hash, user_op_hash, evidence, attribution, leaf, "
    "session_key, module, bundler, matched_form, "
    "change_block_exact, is_final, is_current FROM watch.session_root",
    "session_root_transient": "SELECT * FROM watch.session_root_transient",
    "session_use": "SELECT chain_id, manager, account, user_op_hash, leaf, block_number, known, "
    "session_key, valid_until, valid_after, success, implied_root, root_state, called, "
    "granted_contract, granted_recipient, granted_token_id, log_index, use_index, is_final "
    "FROM watch.session_use",
    "session_mint": "SELECT * FROM watch.session_mint",
    "root_disagreement": "SELECT * FROM watch.root_disagreement",
    "erc1155_transfer": "SELECT * FROM watch.erc1155_transfer",
    "erc1155_balance": "SELECT * FROM watch.erc1155_balance",
    "erc1155_approval": "SELECT * FROM watch.erc1155_approval",
    "erc1155_uri": "SELECT * FROM watch.erc1155_uri",
    "undecoded_log": "SELECT * FROM watch.undecoded_log",
    "tail": "SELECT * FROM chain.tail",
    "verdict": "SELECT chain_id, manager, account, verdict, cause, warnings, severity, "
    "since_block, since_time, explanation, is_final, on_chain_root, expected_root "
    "FROM watch.verdict",
}


async def dump(connection: Connection) -> dict[str, list[Any]]:
    """Return every row the law compares, in an order of their own."""
    return {
        name: sorted(map(repr, map(tuple, await connection.fetch(query))))
        for name, query in _COMPARED.items()
    }
