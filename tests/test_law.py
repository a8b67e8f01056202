"""The law: after any forks, faults and kills the database holds what the winning branch says."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from indexer.store.chain_row import Connection
from tests.daemon_process import Daemon, configuration, dump, running_daemon, settled, until
from tests.fresh_index import *  # noqa: F403 - a fixture is found by its name here
from tests.fresh_index import FreshIndexer, differences
from tests.sim.blocks import hexed
from tests.sim.faults import (
    Answer,
    Body,
    Drop,
    Element,
    Fault,
    Hold,
    Refuse,
    Reset,
    Status,
    Truncate,
    Twice,
)
from tests.sim.node import SimNode
from tests.sim.story import MANAGERS, Story

FINALITY_DEPTH = 8
AUDIT_AT_ONCE = "FIRST_AUDIT_SECONDS=0.05"
LONG_ABSENCE_BLOCKS = 50 + 2 * FINALITY_DEPTH
"""The live lane closes a gap of up to 50 blocks; beyond it the tail starts anew."""

METHODS = (
    None,
    "eth_call",
    "eth_getBlockByNumber",
    "eth_getCode",
    "eth_getLogs",
    "eth_getStorageAt",
    "eth_getTransactionByBlockHashAndIndex",
)
# None of them is a lie that nobody could tell from the truth.
FAULTS: tuple[Fault, ...] = (
    Answer(None),
    Answer({"number": "0x"}),
    Body(b"<html>bad gateway</html>"),
    Drop(),
    Element({"id": 10**9, "result": "0x"}),
    Refuse("header not found"),
    Refuse("internal error", -32603),
    Refuse("query returned more than 10000 results", -32005),
    Refuse("rate limit exceeded", -32005),
    Refuse("request timed out"),
    Reset(),
    Status(429),
    Status(503),
    Status(504),
    Truncate(),
    Twice(),
)
PRUNED = Refuse("missing trie node 00 (path ) state is not available")


class Chaos:
    """A story, the node that tells it badly, and the daemon that has to follow."""

    def __init__(self, seed: int, node: SimNode, connection: Connection, folder: Path) -> None:
        self.random = random.Random(seed)
        self.node, self.connection, self.folder = node, connection, folder
        self.story = Story(node, self.random, finality_depth=FINALITY_DEPTH, silent=True)
        self.finality = self.random.choice([FINALITY_DEPTH, "finalized"])
        node.serves_orphans = self.random.random() < 0.5
        node.timestamps_in_logs = self.random.random() < 0.5
        node.max_range_blocks = self.random.choice([None, 3, 20])
        self.done: list[str] = []
        """What was done, for the message when the law is broken."""
        self.pruned = False

    def keys(self) -> dict[str, Any]:
        """Return the configuration both daemons run with."""
        return {
            "managers": [hexed(m) for m in MANAGERS],
            "finality": self.finality,
            "audit_seconds": 1,
        }

    def mine(self, most: int = 3) -> None:
        """Mine some blocks."""
        count = self.random.randint(1, most)
        self.done.append(f"mine {count}")
        for _ in range(count):
            self.story.mine()

    async def run(self, database_url: str, lives: int, acts: int) -> None:
        """Let the daemon live and die; at the end the node is honest and the daemon follows it."""
        config = configuration(database_url, self.node.url, **self.keys())
        for life in range(lives):
            async with self._life(config, f"life {life}") as daemon:
                for _ in range(self.random.randint(0, 2 * acts)):
                    await self._act(daemon)
                    await self._asked(daemon, self.random.randrange(10))
                if life == lives - 1 and not self.pruned:
                    await self._settle(daemon)
                    return
                await self._end(daemon)
            self._absence()
        # What is refused as pruned in this life would be asked for again only after minutes.
        self.node.heal()
        async with self._life(config, "last life") as daemon:
            await self._settle(daemon)

    def _life(self, config: str, name: str) -> Any:
        self.done.append(name)
        return running_daemon(
            self.folder,
            config,
            name=name.replace(" ", "-"),
            # Some lives pay every debt in a process of its own, which is killed with the daemon. In
            # each the audit is there as soon as there is anything: it changes nothing that is true.
            tweak=AUDIT_AT_ONCE + self.random.choice(["", " WORKER_DEBT_BLOCKS=0"]),
        )

    async def _act(self, daemon: Daemon) -> None:
        acts = [self._mine_on] * 4 + [self._fork] * 3 + [self._fault] * 3
        acts += [self._lag, self._restart_node, self._hang, self._prune, self._caught_up]
        await self.random.choice(acts)(daemon)

    # --- acts ------------------------------------------------------------------------------------

    async def _mine_on(self, _: Daemon) -> None:
        self.mine()

    async def _fork(self, daemon: Daemon) -> None:
        if self.random.random() < 0.5:
            await self._caught_up(daemon)
        dropped = self.story.fork(self.random.randint(1, 6))
        self.done.append(f"fork {dropped}")
        if self.random.random() < 0.8:
            self.mine(6)

    async def _fault(self, _: Daemon) -> None:
        fault, method = self.random.choice(FAULTS), self.random.choice(METHODS)
        times = self.random.randint(1, 3)
        self.done.append(f"{fault} {method} x{times}")
        self.node.fail(fault, method=method, times=times)

    async def _prune(self, _: Daemon) -> None:
        # The history lane asks again for what was pruned only after minutes, or in a new life.
        self.pruned = True
        self.done.append("prune")
        self.node.fail(PRUNED, method="eth_getStorageAt", times=self.random.randint(1, 3))

    async def _lag(self, _: Daemon) -> None:
        self.node.lag_blocks = self.random.choice([0, 0, 1, 2, 4, FINALITY_DEPTH + 2])
        self.done.append(f"lag {self.node.lag_blocks}")

    async def _restart_node(self, _: Daemon) -> None:
        self.done.append("restart node")
        await self.node.stop()
        self.mine()
        await self.node.start()

    async def _hang(self, daemon: Daemon) -> None:
        """Answer a request only when the connection is gone."""
        self.done.append("hang")
        self.node.fail(Hold())

        async def is_held() -> bool:
            _alive(daemon)
            return not self.node.plans(Hold)

        # Not just asked: another fault may have spoilt that request first.
        await until(is_held, "a request to be held", 30)
        self.mine()
        await self._restart_node(daemon)

    async def _caught_up(self, daemon: Daemon) -> None:
        """Be honest until the daemon is at the tip."""
        self.done.append("caught up")
        self.node.heal()
        await self._restart_node_quietly()
        # A branch that is only shorter is what a lagging node shows: it has to win first.
        self.story.catch_up()
        self.mine()
        tip = self.node.tip

        async def at_tip() -> bool:
            _alive(daemon)
            query = "SELECT indexed_hash FROM chain.chain"
            return await self.connection.fetchval(query) == tip.hash

        await until(at_tip, f"block {tip.number} to be indexed", 30)

    async def _restart_node_quietly(self) -> None:
        # heal() lets go of held requests for good: a new server can hold again.
        await self.node.stop()
        await self.node.start()

    async def _asked(self, daemon: Daemon, more: int) -> None:
        """Wait until the daemon has sent so many more requests."""
        goal = len(self.node.requests) + more

        async def asked() -> bool:
            _alive(daemon)
            return len(self.node.requests) >= goal

        await until(asked, f"{more} more requests", 30)

    # --- ends ------------------------------------------------------------------------------------

    async def _end(self, daemon: Daemon) -> None:
        number = self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        self.done.append(number.name)
        if number == signal.SIGTERM:
            await daemon.following()
            assert await daemon.stop() == 0, daemon.log()[-2000:]
        else:
            await daemon.stop(number)

    def _absence(self) -> None:
        """Go on without the daemon, sometimes for longer than finality."""
        if self.random.random() < 0.5:
            dropped = self.story.fork(self.random.randint(1, 6))
            self.done.append(f"fork {dropped}")
        for _ in range(self.random.randrange(3)):
            self.mine()
        if self.random.random() < 0.4:
            self.done.append("long absence")
            for _ in range(LONG_ABSENCE_BLOCKS):
                self.story.mine()

    async def _settle(self, daemon: Daemon) -> None:
        """Be honest for good, and wait until everything is paid and decided."""
        self.node.heal()
        self.story.catch_up()
        self.mine()
        if self.pruned:
            # Roots that the tail could not read are debt of the history lane: once they are final.
            self.story.mine_empty(FINALITY_DEPTH)
        tip = self.node.tip
        self.done.append(f"settle at {tip.number}")
        await until(lambda: settled(self.connection, tip.number, tip.hash), "all settled", 120)
        assert await daemon.stop() == 0
        assert "Traceback" not in daemon.log()


def _alive(daemon: Daemon) -> None:
    assert daemon.process.returncode is None, daemon.log()[-2000:]


async def the_law_holds(
    seed: int,
    database_url: str,
    connection: Connection,
    folder: Path,
    fresh_indexer: FreshIndexer,
    *,
    lives: int,
    acts: int,
) -> None:
    async with SimNode(seed=seed, finality_depth=FINALITY_DEPTH) as node:
        chaos = Chaos(seed, node, connection, folder)
        try:
            await chaos.run(database_url, lives, acts)
            changes, balances = await root_changes(connection), await balances_of(connection)
            found = await dump(connection)
            true_balances = set(chaos.story.balances().items())
            for wrong in (
                differing(chaos.story.root_changes(), changes),
                differing(true_balances, balances),
            ):
                assert not wrong, "\n".join([f"seed {seed}: not what is true", *wrong])
            assert not await audit_findings(connection), "the node did not lie"
            async with node.without_orphans() as winner:
                tip = (node.tip.number, node.tip.hash)
                fresh = await fresh_indexer.dump(winner.url, tip, **chaos.keys())
            wrong = differences(fresh, found)
            assert not wrong, "\n".join([f"seed {seed}: not as seen by a fresh daemon", *wrong])
        except BaseException as error:
            error.add_note(f"seed {seed}: {'; '.join(chaos.done)}")
            raise


def differing(true: set[Any], found: set[Any]) -> list[str]:
    """Return what only one of two sets holds."""
    return [f"missing: {row}" for row in sorted(true - found)] + [
        f"too much: {row}" for row in sorted(found - true)
    ]


async def root_changes(connection: Connection) -> set[tuple[Any, ...]]:
    """Return what watch.session_root says, in the form of Story.root_changes."""
    rows = await connection.fetch(
        "SELECT manager, account, block_number, block_hash, root, previous_root "
        "FROM watch.session_root"
    )
    return {
        tuple(bytes.fromhex(value[2:]) if isinstance(value, str) else value for value in row)
        for row in rows
    }


async def audit_findings(connection: Connection) -> list[tuple[Any, ...]]:
    """Return what audits found, also of blocks that lost.

    A root of a tainted account may be found by an audit before the live lane reads the tail again.
    """
    rows = await connection.fetch(
        "SELECT reason, block_number FROM chain.audit_finding UNION ALL"
        " SELECT row_data ->> 'reason', (row_data ->> 'block_number')::bigint FROM chain.orphan"
        "  WHERE table_name = 'audit_finding'"
    )
    return [tuple(row) for row in rows if row[0] != "tainted"]


async def balances_of(connection: Connection) -> set[tuple[Any, ...]]:
    """Return what watch.erc1155_balance says, in the form of Story.balances."""
    rows = await connection.fetch("SELECT owner, token_id, balance FROM watch.erc1155_balance")
    return {((bytes.fromhex(row[0][2:]), int(row[1])), int(row[2])) for row in rows}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_law(
    seed: int,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    fresh_indexer: FreshIndexer,
) -> None:
    """After forks, faults, kills and absences: the winning branch's rows and the true roots."""
    await the_law_holds(seed, database_url, connection, tmp_path, fresh_indexer, lives=3, acts=8)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(100, 120))
async def test_the_law_for_long(
    seed: int,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    fresh_indexer: FreshIndexer,
) -> None:
    """The same over more lives and more trouble in each."""
    await the_law_holds(seed, database_url, connection, tmp_path, fresh_indexer, lives=5, acts=10)
