"""Ranges of the past may be paid in any order, broken off anywhere: the rows are the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chain.rpc import Node
from indexer.core.debt import Task, next_logs, next_state
from indexer.core.passes import all_passes
from indexer.core.settings import ChainSettings
from indexer.devnet import addresses as at
from indexer.errors import StaleStepError
from indexer.filters import Contracts
from indexer.history import Historian
from indexer.ingest import keep_stepping
from indexer.store import chain_row, history, live
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.rows import RowCounts
from tests.daemon_process import dump
from tests.fixtures_database import connected, temporary_database
from tests.sim.node import SimNode
from tests.sim.settings import chain_settings
from tests.sim.story import MANAGERS, Story
from tests.test_law import balances_of, differing, root_changes

BLOCKS = 200
# Verdicts are the sweep's, and the tail is the live lane's.
HISTORY_TABLES = {
    "account",
    "account_event",
    "user_operation",
    "session_root",
    "session_root_transient",
    "erc1155_transfer",
    "erc1155_balance",
    "erc1155_approval",
    "erc1155_uri",
    "undecoded_log",
}


@dataclass
class Nobody:
    """Listens to a historian, and counts the ranges it commits."""

    ranges: int = 0
    troubles: list[str] = field(default_factory=list)

    def rows_committed(self, counts: RowCounts) -> None:
        self.ranges += 1

    def debt_known(
        self, missing_blocks: Mapping[str, int], unreadable_blocks: Mapping[str, int]
    ) -> None:
        pass

    def stepping(self, lane: str) -> AbstractContextManager[None]:
        return nullcontext()

    def retrying(self, lane: str, error: Exception) -> None:
        self.troubles.append(str(error))

    def recovered(self, lane: str) -> None:
        pass


@dataclass(frozen=True)
class Past:
    """A chain that has been told, and everything that indexes it needs."""

    story: Story
    node: SimNode
    settings: ChainSettings
    postgres_url: str
    template: str
    examples: int

    @asynccontextmanager
    async def historian(self) -> AsyncIterator[tuple[Historian, Connection]]:
        """A historian with a database of its own that owes the whole past."""
        async with (
            temporary_database(self.postgres_url, self.template) as url,
            connected(url) as connection,
            Database.open(url, max_size=8) as database,
            Node(self.settings) as node,
        ):
            async with database.transaction() as transaction:
                passes = all_passes(self.settings)
                epoch = await chain_row.take_over(transaction, self.settings, passes, {})
            tip = self.node.header(self.node.tip.number)
            await live.start_tail(database, self.settings.chain_id, epoch, tip)
            contracts = Contracts(self.settings, frozenset({at.EVENT_MANAGER}))
            yield Historian(database, node, contracts, epoch, Nobody()), connection


@pytest.fixture(
    scope="module",
    params=[
        ("all", 2),
        ("touching", 1),
        pytest.param(("all", 30), marks=pytest.mark.long),
        pytest.param(("touching", 30), marks=pytest.mark.long),
    ],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
async def past(
    request: pytest.FixtureRequest, postgres_url: str, template_database: str
) -> AsyncIterator[Past]:
    """Two hundred blocks of a story in which roots also change without a log."""
    mode, examples = request.param
    async with SimNode(seed=11, finality_depth=0) as node:
        node.timestamps_in_logs = True
        story = Story(node, random.Random(11), finality_depth=0, silent=True)
        while node.tip.number < BLOCKS:
            story.mine()
        settings_ = replace(
            chain_settings(node.url),
            managers=MANAGERS,
            factories=(at.FACTORY,),
            entry_points=(at.ENTRY_POINT,),
            implementations=(at.IMPLEMENTATION,),
            erc1155_mode=mode,
        )
        yield Past(story, node, settings_, postgres_url, template_database, examples)


async def rows_of(connection: Connection) -> dict[str, list[str]]:
    return {name: rows for name, rows in (await dump(connection)).items() if name in HISTORY_TABLES}


class Disorder:
    """Pays what is owed in an order that a seed draws, and breaks off what it likes."""

    def __init__(self, historian: Historian, seed: int) -> None:
        self._historian, self._random = historian, random.Random(seed)
        self.begun = self.broken = 0

    async def pay_all(self) -> None:
        while tasks := await self._some():
            async with asyncio.TaskGroup() as group:
                for task in tasks:
                    self.begun += 1
                    running = group.create_task(self._pay(task))
                    if self._random.random() < 0.3:
                        group.create_task(self._break_off(running))

    async def _pay(self, task: Task) -> None:
        try:
            await self._historian.pay(task)
        except StaleStepError:
            self.broken += 1  # another range has shown that more is to be read

    async def _break_off(self, running: asyncio.Task[None]) -> None:
        """Cancel it at one of its awaits, as a stop or a lost connection would."""
        for _ in range(self._random.randrange(60)):
            await asyncio.sleep(0)
        self.broken += running.cancel()

    async def _some(self) -> list[Task]:
        """Return one to three ranges that may be in flight beside each other."""
        historian = self._historian
        ledger = await history.read_ledger(historian.database, 80001)
        assert ledger is not None
        found: list[Task] = []
        for _ in range(self._random.randint(1, 3)):
            for passed_over in (True, False):
                # What somebody else seems to have in flight makes later ranges come first.
                others = self._in_flight() if passed_over else []
                task = self._next(ledger, [*found, *others])
                if task is not None:
                    found.append(task)
                    break
        return found

    def _in_flight(self) -> list[Task]:
        every = tuple(self._historian.wanted.every)
        return [
            Task("logs", every, cohort, first, first + self._random.randrange(60))
            for first in (self._random.randrange(BLOCKS) for _ in range(3))
            for cohort in range(3)
        ] + [Task("logs", every, 0, 0, self._random.randrange(BLOCKS))]

    def _next(self, ledger: history.Ledger, busy: list[Task]) -> Task | None:
        historian, blocks = self._historian, self._random.randint(1, 12)
        choices = [
            lambda: next_logs(ledger, historian.wanted, busy, blocks),
            lambda: next_state(ledger, historian.wanted, busy, blocks),
        ]
        self._random.shuffle(choices)
        return choices[0]() or choices[1]()


async def pay_all(historian: Historian) -> None:
    """Pay what is owed, as the lane does: a range that another has made stale is read again."""
    await keep_stepping("history", historian.step, _never_idle, Nobody(), until_idle=True)


async def _never_idle() -> None:
    raise AssertionError("it ends when there is nothing to do")


@pytest.mark.timeout(900)
async def test_any_order_and_any_end_give_the_same_rows(past: Past) -> None:
    """Two hundred ranges and more, out of order, some broken off: as paid one after the other."""
    async with past.historian() as (historian, connection):
        await pay_all(historian)
        in_order = await rows_of(connection)
        assert not differing(past.story.root_changes(), await root_changes(connection))
        if past.settings.erc1155_mode == "all":
            true = set(past.story.balances().items())
            assert not differing(true, await balances_of(connection))
    assert all(in_order[name] for name in ("account", "session_root", "erc1155_transfer"))

    @settings(max_examples=past.examples, deadline=None)
    @given(st.integers(0, 2**32))
    def same(seed: int) -> None:
        asyncio.run(in_disorder(seed))

    async def in_disorder(seed: int) -> None:
        async with past.historian() as (historian, connection):
            disorder = Disorder(historian, seed)
            await disorder.pay_all()
            assert disorder.begun >= BLOCKS
            found = await rows_of(connection)
        for name, rows in in_order.items():
            assert [row for row in rows if row not in found[name]] == [], f"{name} {seed}"
            assert [row for row in found[name] if row not in rows] == [], f"{name} {seed}"
            assert len(rows) == len(found[name]), f"{name} {seed}"

    await asyncio.to_thread(same)
