"""The lives of cohorts: who may join, what an account takes along, when nothing is left of one."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from indexer.chain.rpc import Node
from indexer.core.debt import Task
from indexer.core.passes import BODIES, LOGS_ACCOUNTS, Pass, all_passes, roots_pass
from indexer.core.roots import AccountObservation, RootObservation
from indexer.core.settings import ChainSettings
from indexer.core.types import ZERO_ADDRESS, Address, BlockHeader, Hash32
from indexer.core.verdict_values import Settings as VerdictSettings
from indexer.devnet import addresses as at
from indexer.errors import FencedError, StaleStepError
from indexer.filters import Contracts
from indexer.history import Historian
from indexer.store import chain_row, live, watched
from indexer.store.chain_row import Connection
from indexer.store.history import Payment, apply_range, read_ledger
from indexer.store.live_view import read_live
from indexer.store.pool import Database
from indexer.store.rows import BlockRows
from indexer.store.sweep import apply_work, read_work
from tests.fixtures_database import connected, temporary_database
from tests.sim.node import SimNode
from tests.sim.settings import chain_settings
from tests.sim.story import ACCOUNTS, MANAGERS, Story
from tests.test_history_order import Nobody, pay_all

BLOCKS = 80


@dataclass(frozen=True)
class Past:
    """A chain of final blocks, watched for stored accounts alone, and a historian that owes it."""

    settings: ChainSettings
    database: Database
    connection: Connection
    historian: Historian
    final: int

    async def adopt(self, *accounts: Address) -> None:
        async with self.database.transaction() as connection:
            await watched.adopt_accounts(connection, 80001, list(accounts), "stored")

    async def pay_all(self) -> None:
        await pay_all(self.historian)

    async def cohort_of(self, account: Address) -> int:
        query = "SELECT cohort_id FROM chain.account WHERE account = $1"
        return int(await self.connection.fetchval(query, account))

    async def rows_of(self, accounts: Sequence[Address]) -> list[tuple[int, int]]:
        """How many operations and events are stored of each."""
        return [
            (
                await self.connection.fetchval(
                    "SELECT count(*) FROM chain.user_operation WHERE sender = $1", account
                ),
                await self.connection.fetchval(
                    "SELECT count(*) FROM chain.account_event WHERE account = $1", account
                ),
            )
            for account in accounts
        ]

    async def cover(self, cohort: int, pass_: Pass, *lost: tuple[int, int]) -> None:
        """Count a pass as paid, but for what is lost."""
        kind = "roots" if pass_.name.startswith("roots/") else "logs"
        task = Task(kind, (pass_,), cohort, 0, self.final)
        await apply_range(
            self.database,
            80001,
            self.historian.epoch,
            Payment(task, lost=lost, lost_reason="pruned"),
        )


@asynccontextmanager
async def past_of(postgres_url: str, template: str) -> AsyncIterator[Past]:
    async with SimNode(seed=11, finality_depth=0) as node:
        story = Story(node, random.Random(11), finality_depth=0)
        while node.tip.number < BLOCKS:
            story.mine()
        settings = replace(
            chain_settings(node.url),
            managers=MANAGERS[:1],
            entry_points=(at.ENTRY_POINT,),
            implementations=(at.IMPLEMENTATION,),
            accounts_mode="stored",
            erc1155_mode="list",
        )
        async with (
            temporary_database(postgres_url, template) as url,
            connected(url) as connection,
            Database.open(url, max_size=8) as database,
            Node(settings) as client,
        ):
            async with database.transaction() as taking:
                epoch = await chain_row.take_over(taking, settings, all_passes(settings), {})
            await live.start_tail(database, 80001, epoch, node.header(node.tip.number))
            historian = Historian(
                database, client, Contracts(settings, frozenset()), epoch, Nobody()
            )
            yield Past(settings, database, connection, historian, node.tip.number)


@pytest.fixture
async def past(postgres_url: str, template_database: str) -> AsyncIterator[Past]:
    async with past_of(postgres_url, template_database) as made:
        yield made


async def test_nobody_joins_a_cohort_that_has_begun(
    past: Past, postgres_url: str, template_database: str
) -> None:
    """Not even where another cohort was begun, paid and dissolved before it."""
    await past.adopt(ACCOUNTS[0])
    await past.pay_all()
    assert await past.cohort_of(ACCOUNTS[0]) == 0

    await past.adopt(ACCOUNTS[1])
    past.historian.sizes["cohort"].blocks = BLOCKS // 2
    (task, *_) = await past.historian._claim()
    await past.historian.pay(task)
    past.historian._busy.clear()
    await past.adopt(ACCOUNTS[2])
    assert await past.cohort_of(ACCOUNTS[1]) != await past.cohort_of(ACCOUNTS[2])
    await past.pay_all()

    async with past_of(postgres_url, template_database) as fresh:
        await fresh.adopt(*ACCOUNTS[:3])
        assert len({await fresh.cohort_of(account) for account in ACCOUNTS[:3]}) == 1
        await fresh.pay_all()
        assert await past.rows_of(ACCOUNTS[:3]) == await fresh.rows_of(ACCOUNTS[:3])
    assert await past.connection.fetchval("SELECT count(*) FROM chain.cohort") == 0


async def test_an_account_found_tainted_owes_all_it_owed_before(past: Past) -> None:
    """It was adopted above the finalized block: up to there nobody has its logs."""
    final, account = past.final, ACCOUNTS[0]
    await past.connection.execute("UPDATE chain.coverage SET live_from = $1, begun = true", final)
    await past.connection.execute("UPDATE chain.chain SET indexed_number = $1", final + 10)
    await past.adopt(account)
    cohort = await past.cohort_of(account)
    for pass_ in (LOGS_ACCOUNTS, BODIES, roots_pass(MANAGERS[0])):
        await past.cover(cohort, pass_)
    await past.connection.execute("UPDATE chain.chain SET indexed_number = $1", final + 12)
    async with past.database.transaction() as connection:
        assert await watched.read_again(connection, 80001, {(account, 50)}) == [account]

    ledger = await read_ledger(past.database, 80001)
    assert ledger is not None
    moved = await past.cohort_of(account)
    assert ledger.cohorts[moved].adopted_block == final + 10
    assert ledger.missing(LOGS_ACCOUNTS, moved) == []
    assert ledger.missing(roots_pass(MANAGERS[0]), moved) == [(51, final)]
    query = "SELECT chain.is_covered(80001, 'logs', 'accounts', $1, $2, $3)"
    assert not await past.connection.fetchval(query, moved, final + 1, final + 10)


async def test_an_account_found_tainted_by_the_sweep_owes_what_became_final_meanwhile(
    past: Past,
) -> None:
    """State was read at a tip; by when it is written, blocks above that are final, and paid."""
    account, pass_ = ACCOUNTS[0], roots_pass(MANAGERS[0])
    await past.connection.execute(
        "INSERT INTO chain.account (chain_id, account, source) VALUES (80001, $1, 'factory')",
        account,
    )
    await past.cover(0, pass_)
    # Above the finalized block the live lane reads again.
    assert await swept_tainted(past, account, past.final + 5) == []
    assert await past.cohort_of(account) == 0

    assert await swept_tainted(past, account, 60) == [account]
    ledger = await read_ledger(past.database, 80001)
    assert ledger is not None
    assert ledger.missing(pass_, await past.cohort_of(account)) == [(61, past.final)]


async def test_a_root_is_kept_where_the_sweep_finds_new_slots(past: Past) -> None:
    """What is owed again below ends before that block, also if its root changed just there."""
    account, root = ACCOUNTS[0], Hash32(b"\x11" * 32)
    await past.connection.execute(
        "INSERT INTO chain.account (chain_id, account, source) VALUES (80001, $1, 'factory')",
        account,
    )
    await swept_tainted(past, account, 40, root)
    await swept_tainted(past, account, 60, root)
    found = await past.connection.fetch(
        "SELECT block_number FROM chain.canonical_root WHERE account = $1 ORDER BY 1", account
    )
    assert [row[0] for row in found] == [40, 60]


async def swept_tainted(
    past: Past, account: Address, block_number: int, root: Hash32 | None = None
) -> list[Address]:
    """Let the sweep write that it has found an account tainted; return who owes roots again."""
    work = await read_work(past.database, past.settings, 10)
    assert work is not None
    block_hash = Hash32(block_number.to_bytes(32))
    tip = BlockHeader(block_number, block_hash, Hash32(bytes(32)), 1_700_000_000)
    # Another implementation each time: what is known already is not written.
    implementation = Address(block_hash[-20:])
    seen = AccountObservation(
        block_number, block_hash, account, implementation, ZERO_ADDRESS, (), tainted=True
    )
    epoch, grace = past.historian.epoch, VerdictSettings(grace_seconds=1)
    work = replace(work, tip=tip)
    roots = [RootObservation(block_number, block_hash, MANAGERS[0], account, root)] if root else []
    _, owing = await apply_work(past.database, 80001, epoch, work, roots, (seen,), {}, grace)
    return owing


async def test_a_step_planned_before_an_account_was_found_tainted_is_planned_again(
    past: Past,
) -> None:
    """At the finalized block nothing was passed over yet: the step would be the first to do so."""
    view = await read_live(past.database, 80001, past.historian.epoch)
    assert view.tail is not None
    async with past.database.transaction() as connection:
        assert await watched.read_again(connection, 80001, {(ACCOUNTS[0], past.final)}) == []

    tip = view.tail.tip
    extension = live.Extension((), tip, tip, BlockRows(), None)
    with pytest.raises(StaleStepError):
        await live.apply_extension(past.database, view, extension, nothing)


async def nothing(_: Connection) -> None:
    """Decide no verdicts."""


async def test_what_retention_dropped_is_read_again_for_an_account_found_tainted(
    past: Past,
) -> None:
    """Roots are read at stored triggers: those that are gone have to come back first."""
    account = ACCOUNTS[0]
    await past.connection.execute(
        "INSERT INTO chain.account (chain_id, account, source) VALUES (80001, $1, 'factory')",
        account,
    )
    for pass_ in (LOGS_ACCOUNTS, BODIES, roots_pass(MANAGERS[0])):
        await past.cover(0, pass_)
    await past.connection.execute(
        "UPDATE chain.coverage SET dropped = '{[0,41)}' WHERE pass = 'logs'"
    )
    async with past.database.transaction() as connection:
        await watched.read_again(connection, 80001, {(account, 10)})

    ledger = await read_ledger(past.database, 80001)
    assert ledger is not None
    moved = await past.cohort_of(account)
    assert ledger.missing(LOGS_ACCOUNTS, moved) == [(0, 40)]
    assert ledger.missing(BODIES, moved) == [(0, 40)]


async def test_nothing_is_left_of_a_cohort_that_dissolves(past: Past) -> None:
    """What was lost to it is lost to cohort 0 as well, and found again with that."""
    await past.adopt(ACCOUNTS[0])
    for cohort in (0, 1):
        for pass_ in (LOGS_ACCOUNTS, BODIES):
            await past.cover(cohort, pass_)
        await past.cover(cohort, roots_pass(MANAGERS[0]), (10, 20))
    async with past.database.transaction() as connection:
        assert await watched.dissolve_cohorts(connection, 80001, past.historian.epoch) == 1
    await past.pay_all()

    assert await past.connection.fetchval("SELECT count(*) FROM evidence.unobserved") == 0
    with pytest.raises(StaleStepError, match="cohort 1 has been paid"):
        await past.cover(1, LOGS_ACCOUNTS)


async def test_another_process_ends_what_changes_cohorts(past: Past) -> None:
    """Closing and dissolving a cohort are writes like any other: fenced by the epoch."""
    await past.adopt(ACCOUNTS[0])
    await past.connection.execute("UPDATE chain.chain SET epoch = epoch + 1")
    with pytest.raises(FencedError):
        await past.historian.step()
    with pytest.raises(FencedError):
        async with past.database.transaction() as connection:
            await watched.dissolve_cohorts(connection, 80001, past.historian.epoch)


async def test_a_lost_stretch_that_can_be_read_is_asked_for_beside_one_that_cannot(
    past: Past,
) -> None:
    """Lost stretches take turns, the newest first: a node that prunes keeps what is new."""
    manager = roots_pass(MANAGERS[0])
    for pass_ in (LOGS_ACCOUNTS, BODIES):
        await past.cover(0, pass_)
    await past.cover(0, manager, (5, 9), (30, 70))
    asked = []
    for _ in range(2):
        past.historian._ask_lost_at = 0.0
        (task,) = await past.historian._claim()
        asked.append(task.span)
        past.historian._busy.clear()
        past.historian._probe = None
    assert asked == [(30, 70), (5, 9)]
