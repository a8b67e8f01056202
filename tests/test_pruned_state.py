"""A node that keeps the state of 128 blocks: what it lost is named, and an archive fills it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from indexer.core.session_sets import build_set
from indexer.devnet import addresses as at
from indexer.devnet.tools import Toolchain
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.daemon_process import configuration, dump, running_daemon, settled, until
from tests.fixtures_database import connected, temporary_database
from tests.fresh_index import *  # noqa: F403 - a fixture is found by its name here
from tests.fresh_index import FreshIndexer, differences
from tests.node_proxy import NodeProxy
from tests.pruned_story import KEPT_BLOCKS, Story
from tests.routes import MANAGERS, Stage, truth
from tests.sim.node import SimNode
from tests.sim.story import MANAGERS as SIM_MANAGERS
from tests.sim.story import Story as SimStory
from tests.sim.story import World
from tests.test_worker import metric
from tests.twin_nodes import running_twins
from tests.watching import hexed

RETRY_SECONDS = 0.4
PAUSES = 3
REQUESTS_PER_PAUSE = 4
FINALITY = 8


Row = tuple[Any, ...]


async def store_sets(database_url: str, stage: Stage) -> None:
    """Store every set of the story, as `sessions import` does."""
    sets = [build_set(80001, s.manager, s.account, s.sessions) for s in stage.report.sets.values()]
    async with Database.open(database_url) as database:
        await import_sets(database, [(one, "test") for one in sets])


async def owes_only_what_is_lost(connection: Connection, tip: tuple[int, bytes]) -> bool:
    """Say whether this tip is decided and all that is missing stands in watch.unobserved."""
    return bool(
        await connection.fetchval(
            """
            SELECT EXISTS (SELECT FROM chain.chain WHERE indexed_number = $1 AND indexed_hash = $2)
               AND NOT EXISTS (SELECT FROM chain.verdict_queue)
               AND EXISTS (SELECT FROM watch.unobserved)
               AND NOT EXISTS (
                   SELECT FROM watch.coverage AS c
                    WHERE coalesce(c.missing_blocks, 0) > 0
                      AND NOT (c.pass LIKE 'roots/%' AND c.missing::int8multirange <@ coalesce((
                          SELECT range_agg(int8range(u.first_block, u.last_block + 1))
                            FROM watch.unobserved AS u
                           WHERE 'roots/' || u.manager = c.pass), '{}')))""",
            *tip,
        )
    )


async def stretches(connection: Connection) -> set[Row]:
    """Return (manager, first block, last block) of watch.unobserved."""
    query = "SELECT manager, first_block, last_block FROM watch.unobserved"
    return {tuple(row) for row in await connection.fetch(query)}


async def observations(connection: Connection) -> set[Row]:
    """Return (manager, account, block number, root) of every root that was read."""
    query = """SELECT evidence.hex(manager), evidence.hex(account), block_number, evidence.hex(root)
                 FROM evidence.root_observation"""
    return {tuple(row) for row in await connection.fetch(query)}


def not_exactly_filled(named: set[Row], before: set[Row], after: set[Row]) -> list[str]:
    """Return what contradicts that new observations fill the named stretches, and only these."""
    read = {(manager, number) for manager, _, number, _ in after - before}
    outside = [
        f"{manager} {number} was read outside"
        for manager, number in sorted(read)
        if not any(m == manager and first <= number <= last for m, first, last in named)
    ]
    return outside + [
        f"{manager} {end} was named but not read"
        for manager, first, last in sorted(named)
        for end in (first, last)
        if (manager, end) not in read
    ]


async def verdicts(connection: Connection) -> dict[tuple[str, str], Row]:
    """Return what is said of each (manager, account), but for clocks."""
    rows = await connection.fetch(
        "SELECT manager, account, on_chain_root, verdict, cause, warnings, severity, since_block, "
        "explanation, is_final, expected_root FROM watch.verdict"
    )
    return {(row[0], row[1]): tuple(row)[2:] for row in rows}


async def true_changes(story: Story, last: int) -> dict[tuple[str, str], dict[int, str]]:
    """Return every change of a root by (manager, account) and block, as the archive has it."""
    accounts = story.stage.report.all_accounts()
    found = await truth(story.twins.devnet, MANAGERS, accounts, 0, last)
    return {
        (hexed(manager), hexed(account)): {number: hexed(root) for number, root in changes}
        for (manager, account), changes in found.items()
    }


def root_at(changes: dict[int, str], block: int) -> str:
    """Return the root after a block."""
    return next((changes[n] for n in sorted(changes, reverse=True) if n <= block), "0x" + "00" * 32)


async def nothing_is_wrong(
    connection: Connection,
    changes: dict[tuple[str, str], dict[int, str]],
    named: set[Row],
    passed_over: Collection[str] = (),
) -> None:
    """Check each root against the truth, and what is said of the block of its change.

    `named` are the stretches of all accounts but those `passed_over`.
    """
    rows = await connection.fetch(
        "SELECT * FROM watch.session_root WHERE NOT account = ANY($1)", list(passed_over)
    )
    seen = await observations(connection)
    assert rows
    for row in rows:
        manager, account, block = row["manager"], row["account"], row["block_number"]
        true = changes[manager, account]
        assert row["root"] == root_at(true, block)
        before = [n for m, a, n, _ in seen if (m, a) == (manager, account) and n < block]
        since = max(before, default=-1) + 1
        known = not any(
            m == manager and first <= block and last >= since for m, first, last in named
        )
        assert row["change_block_exact"] == (known and row["attribution"] != "none"), row
        if row["change_block_exact"]:
            assert true.get(block) == row["root"]
    for manager, account, root in await connection.fetch(
        "SELECT manager, account, root FROM watch.session_root_current"
    ):
        assert root == root_at(changes[manager, account], 1 << 62)


async def test_what_was_pruned_is_named_and_filled_by_an_archive(
    toolchain: Toolchain,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    postgres_url: str,
    template_database: str,
) -> None:
    """watch.unobserved names exactly what an archive fills; no root and no verdict is wrong.

    In the end everything is as on a daemon that had the archive from the start.
    """
    async with running_twins(toolchain, prune_history=KEPT_BLOCKS) as twins:
        story = Story(twins)
        await story.tell()
        tip, horizon = await twins.tip(), await twins.horizon()
        assert horizon == story.horizon_near
        changes = await true_changes(story, tip[0])
        keys: dict[str, Any] = {
            "managers": [hexed(m) for m in MANAGERS],
            "finality": FINALITY,
            "grace_seconds": 1,
        }
        config = configuration(database_url, twins.pruned.url, **keys)
        async with running_daemon(tmp_path, config, name="pruned") as daemon:
            await until(lambda: owes_only_what_is_lost(connection, tip), "what can be paid", 20)
            named = await stretches(connection)
            assert named == {(hexed(m), story.first_trigger, horizon - 1) for m in MANAGERS}
            await nothing_is_wrong(connection, changes, named)
            # An account of another factory, all of whose logs are pruned, is adopted late.
            await store_sets(database_url, story.stage)
            await until(lambda: decided_without_grace(connection), "the sets to be judged", 20)
            await until(lambda: owes_only_what_is_lost(connection, tip), "the cohort's past", 20)
            all_named, before = await stretches(connection), await observations(connection)
            late = {hexed(account) for account in story.stage.report.foreign_accounts}
            await nothing_is_wrong(connection, changes, named, late)
            assert await hints(connection) == {
                h for h in story.hints if inside(h[0], h[2], all_named)
            }
            doubtful = await verdicts(connection)
            assert await daemon.stop() == 0
        both = configuration(database_url, twins.pruned.url, **keys | {"rpc": twins.urls})
        async with running_daemon(tmp_path, both, name="both") as daemon:
            await until(lambda: settled(connection, *tip), "the archive to fill it", 20)
            assert await daemon.stop() == 0
        assert await stretches(connection) == set()
        after = {o for o in await observations(connection) if o[2] <= tip[0] - FINALITY}
        assert not not_exactly_filled(named, before, {o for o in after if o[1] not in late})
        new = {o for o in after - before if o[1] in late}
        assert {o[0] for o in new} == {hexed(m) for m in MANAGERS}
        assert all(inside(manager, number, all_named) for manager, _, number, _ in new)
        await nothing_is_wrong(connection, changes, set())
        filled, said = await dump(connection), await verdicts(connection)

        async with (
            temporary_database(postgres_url, template_database) as url,
            connected(url) as fresh,
            running_daemon(
                tmp_path, configuration(url, twins.devnet.url, **keys), name="fresh"
            ) as daemon,
        ):
            await until(lambda: settled(fresh, *tip), "a fresh index", 20)
            await store_sets(url, story.stage)
            await until(lambda: decided_without_grace(fresh), "the sets to be judged", 20)
            await until(lambda: settled(fresh, *tip), "a fresh index", 20)
            true, right = await dump(fresh), await verdicts(fresh)
            assert await daemon.stop() == 0
    assert said == right
    del filled["verdict"], true["verdict"]  # compared above, without the time of storing
    assert not differences(true, filled)
    for key, verdict in doubtful.items():
        # The root is true in any case; what rests on the past is marked, or is the same.
        assert verdict[0] == right[key][0]
        assert verdict[1:3] == right[key][1:3] or "unreadable_state" in verdict[3], (key, verdict)
    carol = (hexed(at.MANAGER), hexed(story.stage.actor("carol").address))
    assert (doubtful[carol][2], right[carol][2]) == ("never_landed", "cleared_on_chain")
    assert doubtful[carol][6].endswith("as far as its past could be read.")


async def decided_without_grace(connection: Connection) -> bool:
    """Say whether every stored set's account has a verdict that waits for nothing."""
    return bool(
        await connection.fetchval(
            """SELECT count(*) > 5 AND NOT bool_or(verdict IN ('pending', 'unmanaged'))
                 FROM watch.verdict"""
        )
    )


async def hints(connection: Connection) -> set[Row]:
    """Return (manager, account, block, root, hint) of watch.unobserved_hint."""
    query = "SELECT manager, account, block_number, root, hint FROM watch.unobserved_hint"
    return {tuple(row) for row in await connection.fetch(query)}


def inside(manager: str, block: int, named: set[Row]) -> bool:
    """Say whether a block lies in one of the manager's stretches."""
    return any(m == manager and first <= block <= last for m, first, last in named)


class Watched:
    """A simulated node whose state below some block is gone, and what it was asked for there."""

    def __init__(self, node: SimNode, blocks: int) -> None:
        self.node = node
        story = SimStory(node, random.Random(7), finality_depth=FINALITY, world=World(taints=False))
        for _ in range(blocks):
            story.mine()
        self.hashes = {hexed(node.block(n).hash): n for n in range(node.tip.number + 1)}
        self.tip = (node.tip.number, node.tip.hash)

    def lost_reads(self) -> set[int]:
        """Return the requests, by their index, that ask for state below the horizon."""
        return {
            index
            for index, calls in enumerate(self.node.requests)
            for method, params in calls
            if method in {"eth_getStorageAt", "eth_call", "eth_getCode"}
            and isinstance(params[-1 if method != "eth_call" else 1], dict)
            and self.hashes.get(params[-1 if method != "eth_call" else 1].get("blockHash"), 1 << 62)
            < self.node.prune_before
        }


SIM_KEYS: dict[str, Any] = {"managers": [hexed(m) for m in SIM_MANAGERS], "finality": FINALITY}


async def test_lost_state_is_asked_for_again_after_a_pause(
    database_url: str, connection: Connection, tmp_path: Path, fresh_indexer: FreshIndexer
) -> None:
    """Few requests a pause, one range at a time; all is filled once the node has the state."""
    async with SimNode(seed=7, finality_depth=FINALITY) as node:
        watched = Watched(node, 70)
        node.prune_before = 35
        config = configuration(database_url, node.url, **SIM_KEYS)
        tweak = f"LOST_RETRY_SECONDS={RETRY_SECONDS}"
        async with running_daemon(tmp_path, config, tweak=tweak) as daemon:
            await until(lambda: owes_only_what_is_lost(connection, watched.tip), "the rest", 20)
            named, before = await stretches(connection), await observations(connection)
            assert {manager for manager, _, _ in named} == set(SIM_KEYS["managers"])
            _, text = await daemon.get("/metrics")
            unreadable = metric(text, "coverage_unreadable_blocks")
            assert unreadable == metric(text, "coverage_missing_blocks") > 0
            first, said = len(watched.lost_reads()), len(daemon.events("state_pruned"))
            await daemon.logs("state_pruned", said + PAUSES)
            assert len(watched.lost_reads()) - first <= PAUSES * REQUESTS_PER_PAUSE
            times = [
                datetime.fromisoformat(event["time"]) for event in daemon.events("state_pruned")
            ][said - 1 :]
            pauses = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
            assert min(pauses) >= RETRY_SECONDS
            assert await stretches(connection) == named
            node.prune_before = 0
            await until(lambda: settled(connection, *watched.tip), "what was lost", 20)
            found = await dump(connection)

            async def is_shown() -> bool:
                _, text = await daemon.get("/metrics")
                return metric(text, "coverage_unreadable_blocks") == 0

            await until(is_shown, "the metric to say so", 20)
            assert not not_exactly_filled(named, before, await observations(connection))
            assert await daemon.stop() == 0
        assert not differences(await fresh_indexer.dump(node.url, watched.tip, **SIM_KEYS), found)


async def test_a_horizon_that_moves_while_a_range_is_read(
    database_url: str, connection: Connection, tmp_path: Path, fresh_indexer: FreshIndexer
) -> None:
    """What was read before it moved is kept, what was not is named; an archive fills the rest."""
    async with SimNode(seed=8, finality_depth=FINALITY) as node, NodeProxy(node.url) as proxy:
        watched = Watched(node, 210)
        final = watched.tip[0] - FINALITY
        reads = 0

        async def moves(calls: list[Any]) -> None:
            nonlocal reads
            blocks = [
                watched.hashes[call["params"][1]["blockHash"]]
                for call in calls
                if call["method"] == "eth_call" and isinstance(call["params"][1], dict)
            ]
            reads += any(number < final for number in blocks)
            if reads > 3:
                node.prune_before = final - 20
            else:
                proxy.before_next("eth_call", moves)

        proxy.before_next("eth_call", moves)
        config = configuration(database_url, proxy.url, **SIM_KEYS)
        async with running_daemon(tmp_path, config, name="moving") as daemon:
            await until(lambda: owes_only_what_is_lost(connection, watched.tip), "the rest", 20)
            named, before = await stretches(connection), await observations(connection)
            assert reads > 3
            # Read by the first requests, and out of reach by now.
            assert any(number < node.prune_before for _, _, number, _ in before)
            assert await daemon.stop() == 0
        node.prune_before = 0
        async with running_daemon(tmp_path, config, name="whole") as daemon:
            await until(lambda: settled(connection, *watched.tip), "what was lost", 20)
            assert not not_exactly_filled(named, before, await observations(connection))
            found = await dump(connection)
            assert await daemon.stop() == 0
        assert not differences(await fresh_indexer.dump(node.url, watched.tip, **SIM_KEYS), found)
