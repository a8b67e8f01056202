"""`sessionwatch audit` against a real database, a simulated node, and damage done by hand."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from eth_abi import encode

from indexer.audit import AuditReport, run_audit
from indexer.core import topics as topic
from indexer.devnet import addresses as at
from indexer.errors import DatabaseUnavailableError, NodeUnreachableError
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from tests.daemon_process import command, configuration, running_daemon, settled, until
from tests.environment import environment
from tests.fixtures_database import connected, temporary_database
from tests.sim.blocks import SimLog, hexed
from tests.sim.faults import Hold
from tests.sim.node import SimNode
from tests.sim.settings import chain_settings
from tests.sim.story import ACCOUNTS, MANAGERS, Story, exists, word

FINALITY_DEPTH = 8
FINAL = 68
"""The finalized block of the story below."""
KEYS: dict[str, Any] = {
    "managers": [hexed(manager) for manager in MANAGERS],
    "finality": FINALITY_DEPTH,
}
CHAIN = ("audit", "--chain", "local")
COUNTED = {
    "account_event": "chain.account_event",
    "user_operation": "chain.user_operation",
    "erc1155_transfer": "chain.erc1155_transfer",
    "erc1155_approval": "chain.erc1155_approval",
    "erc1155_uri": "chain.erc1155_uri",
    "undecoded_log": "chain.undecoded_log",
    "root_hint": "chain.root_hint WHERE evidence = 'event'",
    "root_observation": "chain.canonical_root",
    "account_observation": "chain.canonical_slots",
}


@dataclass
class Indexed:
    """A chain that a daemon has followed to its tip, and a database of the test's own."""

    node: SimNode
    url: str
    connection: Connection
    folder: Path

    def config(self, **keys: object) -> str:
        """Return the daemon's configuration."""
        return configuration(self.url, self.node.url, **(KEYS | keys))

    async def audit(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run the verb for JSON; return exit code and report."""
        code, said = await command(self.folder, self.config(), *CHAIN, "--json", *arguments)
        assert said.startswith("{"), said
        return code, json.loads(said)

    async def says(self, *arguments: str, **keys: object) -> tuple[int, str]:
        """Run the verb for people; return exit code and what it said."""
        return await command(self.folder, self.config(**keys), *CHAIN, *arguments)

    async def finds(self, *wanted: tuple[str, str]) -> list[dict[str, Any]]:
        """Expect exactly these differences, as (kind, problem); return them."""
        code, report = await self.audit()
        findings: list[dict[str, Any]] = report["findings"]
        assert sorted((f["kind"], f["problem"]) for f in findings) == sorted(wanted), findings
        assert report["differences"] == len(wanted)
        assert code == (1 if wanted else 0)
        return findings


def mine_oddities(node: SimNode) -> None:
    """Add a block of what the story does not tell: a URI, and logs that fit no event."""
    account = next(a for a in ACCOUNTS if exists(node.tip, a))
    text = encode(["string"], ["ipfs://\0\x1b[31m"])
    node.mine(
        1,
        [
            SimLog(at.SEED_TOKEN, (topic.URI, word(5)), text),
            *(SimLog(who, (topic.ENABLED_MODULE,), b"cut") for who in (account, at.STRANGER)),
            SimLog(at.FACTORY, (topic.ACCOUNT_CREATION,)),
            SimLog(at.ENTRY_POINT, (topic.USER_OPERATION_EVENT,)),
            SimLog(at.EVENT_MANAGER, (topic.MERKLE_ROOT_UPDATED,), b"cut"),
            SimLog(at.SEED_TOKEN, (topic.TRANSFER_BATCH, word(1)), b"cut"),
        ],
    )


@pytest.fixture(scope="module")
async def told(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[SimNode, str]]:
    """A node with a story, and the name of a database that a daemon filled from it."""
    folder = tmp_path_factory.mktemp("told")
    async with SimNode(seed=3) as node, temporary_database(postgres_url, template_database) as url:
        story = Story(node, random.Random(3), finality_depth=FINALITY_DEPTH)
        for _ in range(60):
            story.mine()
        mine_oddities(node)
        async with (
            connected(url) as connection,
            running_daemon(folder, configuration(url, node.url, **KEYS)) as daemon,
        ):

            async def all_settled() -> bool:
                return await settled(connection, node.tip.number, node.tip.hash)

            await until(all_settled, "the story to be indexed", 40)
            mine_oddities(node)
            for _ in range(12):
                story.mine()
            story.mine_empty(1)
            await until(all_settled, "the story to be followed live", 40)
            assert await daemon.stop() == 0
            assert node.tip.number - FINALITY_DEPTH == FINAL
            name = await connection.fetchval("SELECT current_database()")
        yield node, name


@pytest.fixture
async def indexed(
    told: tuple[SimNode, str], postgres_url: str, tmp_path: Path
) -> AsyncIterator[Indexed]:
    """The same with a copy of the database, that a test may damage."""
    node, template = told
    async with (
        temporary_database(postgres_url, template) as url,
        connected(url) as connection,
    ):
        yield Indexed(node, url, connection, tmp_path)
    node.remember_logs()
    node.prune_before = 0
    node.max_range_blocks = None


async def test_all_agrees_and_every_row_is_counted(indexed: Indexed) -> None:
    """After a daemon has settled, each table's final rows are looked at, and each agrees."""
    code, report = await indexed.audit()
    assert (code, report["differences"], report["skipped"]) == (0, 0, [])
    assert (report["first"], report["last"], report["audited_to"]) == (0, FINAL, FINAL)
    assert report["finished"]
    for kind, source in COUNTED.items():
        word = "AND" if "WHERE" in source else "WHERE"
        query = f"SELECT count(*) FROM {source} {word} block_number <= $1"
        count = report["counts"][kind]
        assert count["rows"] == count["agreed"] == await indexed.connection.fetchval(query, FINAL)
        assert count["rows"] > 0, kind
    code, said = await indexed.says()
    assert code == 0
    assert said.splitlines()[-1].startswith(
        f"local, blocks 0 to {FINAL}: node and database agree on "
    )


async def test_the_ends_of_the_range_are_kept(indexed: Indexed) -> None:
    """Two halves count what the whole counts; a node with narrow ranges changes nothing."""
    _, whole = await indexed.audit()
    indexed.node.max_range_blocks = 7
    halves = [await indexed.audit("--to", "30"), await indexed.audit("--from", "31")]
    assert [code for code, _ in halves] == [0, 0]
    for kind, count in whole["counts"].items():
        assert count["rows"] == sum(half["counts"][kind]["rows"] for _, half in halves), kind


@pytest.mark.parametrize("table", ["account_event", "user_operation", "erc1155_transfer"])
async def test_a_row_that_is_gone_is_missing(indexed: Indexed, table: str) -> None:
    """One deleted row is one finding, which names its block and log."""
    gone = await indexed.connection.fetchrow(
        f"DELETE FROM chain.{table} WHERE (block_number, log_index) IN (SELECT block_number, "
        f"log_index FROM chain.{table} WHERE block_number <= 60 ORDER BY 1 DESC LIMIT 1) "
        "RETURNING block_number, log_index"
    )
    code, report = await indexed.audit()
    assert code == 1
    assert {(f["kind"], f["problem"]) for f in report["findings"]} == {(table, "missing")}
    for finding in report["findings"]:
        assert (finding["block_number"], finding["log_index"]) == tuple(gone)
        assert finding["text"].startswith(f"block {gone[0]}, log {gone[1]}: ")
    assert "rewind --chain local --below-finality --to " in report["remedy"]


async def test_a_creation_that_is_gone_is_missing(indexed: Indexed) -> None:
    """What a factory logged is compared with the coverage of that factory."""
    await indexed.connection.execute(
        "DELETE FROM chain.account_event WHERE event = 'AccountCreation' AND block_number = "
        "(SELECT min(block_number) FROM chain.account_event WHERE event = 'AccountCreation')"
    )
    _, report = await indexed.audit()
    assert report["counts"]["account_event"]["missing"] == report["differences"] > 0


@pytest.mark.parametrize(
    ("kind", "problem", "damage"),
    [
        (
            "erc1155_transfer",
            "different",
            "UPDATE chain.erc1155_transfer SET amount = amount + 1 WHERE {first}",
        ),
        (
            "account_event",
            "different",
            """UPDATE chain.account_event SET args = args || '{"a": 1}' WHERE {first}""",
        ),
        (
            "user_operation",
            "different",
            "UPDATE chain.user_operation SET success = NOT success WHERE {first}",
        ),
        (
            "user_operation",
            "too_much",
            (
                "INSERT INTO chain.user_operation SELECT chain_id, block_number, 900, "
                "transaction_index, transaction_hash, user_op_hash, entry_point, sender, "
                "paymaster, nonce, success, actual_gas_cost, actual_gas_used "
                "FROM chain.user_operation WHERE {first}"
            ),
        ),
        (
            "erc1155_uri",
            "different",
            "UPDATE chain.erc1155_uri SET value = 'somewhere else' WHERE {first}",
        ),
        ("undecoded_log", "missing", "DELETE FROM chain.undecoded_log WHERE {first}"),
        (
            "erc1155_approval",
            "different",
            "UPDATE chain.erc1155_approval SET operator = account WHERE {first}",
        ),
        (
            "root_hint",
            "different",
            "UPDATE chain.root_hint SET root = sha256(root) WHERE evidence = 'event' AND {first}",
        ),
        (
            "root_observation",
            "different",
            "UPDATE evidence.root_observation SET root = sha256(root) WHERE {first}",
        ),
        (
            "account_observation",
            "different",
            "UPDATE evidence.account_observation SET fallback_handler = account WHERE {first}",
        ),
    ],
)
async def test_damage_is_found(indexed: Indexed, kind: str, problem: str, damage: str) -> None:
    """One damaged row of any kind is found, and nothing else is reported."""
    schema = "evidence" if kind.endswith("observation") else "chain"
    where = " WHERE evidence = 'event'" if kind == "root_hint" else ""
    first = f"ctid = (SELECT ctid FROM {schema}.{kind}{where} ORDER BY block_number LIMIT 1)"
    if kind in {"user_operation", "account_event", "erc1155_transfer"}:
        # Partitioned: a place in a file says nothing of which file.
        first += f" AND tableoid = (SELECT tableoid FROM {schema}.{kind}{where} LIMIT 1)"
    done = await indexed.connection.execute(damage.replace("{first}", first))
    assert done.endswith(" 1")
    (found,) = await indexed.finds((kind, problem))
    assert found["text"].isprintable()


async def test_people_read_where_it_is_and_what_to_do(indexed: Indexed) -> None:
    """The report for people ends with the findings, their number, and a remedy."""
    await indexed.connection.execute(
        "UPDATE chain.erc1155_uri SET value = 'elsewhere' WHERE block_number = "
        "(SELECT min(block_number) FROM chain.erc1155_uri)"
    )
    code, said = await indexed.says()
    finding, summary, remedy = said.splitlines()[-3:]
    assert code == 1
    assert finding.endswith(
        'value is elsewhere in the database and "ipfs://\\u001b[31m" at the node'
    )
    assert summary.startswith(f"local, blocks 0 to {FINAL}: 1 difference, ")
    assert remedy.startswith("remedy: ask another endpoint first")
    assert "evidence" not in remedy
    await indexed.connection.execute("UPDATE evidence.root_observation SET root = sha256(root)")
    _, said = await indexed.says()
    assert said.endswith("delete the observations named above from schema evidence before\n")


async def test_another_block_is_the_gravest(indexed: Indexed) -> None:
    """A stored block hash that is not the node's is said first; its roots are not canonical."""
    number = await indexed.connection.fetchval(
        "UPDATE chain.block SET hash = sha256(hash) WHERE block_number = "
        "(SELECT max(block_number) FROM chain.block WHERE block_number <= 60) "
        "RETURNING block_number"
    )
    (found,) = await indexed.finds(("block", "different"))
    assert (found["block_number"], found["log_index"]) == (number, None)


async def test_what_the_node_forgot_is_too_much(indexed: Indexed) -> None:
    """A node that omits a block's logs is in contradiction to every row of that block."""
    block = await indexed.connection.fetchval(
        "SELECT max(block_number) FROM chain.user_operation WHERE block_number <= 60"
    )
    indexed.node.forget_logs(block)
    code, report = await indexed.audit()
    assert code == 1
    assert {f["problem"] for f in report["findings"]} == {"too_much"}
    assert {f["block_number"] for f in report["findings"]} == {block}
    rows = 0
    for kind, source in COUNTED.items():
        if not kind.endswith("observation"):
            word = "AND" if "WHERE" in source else "WHERE"
            query = f"SELECT count(*) FROM {source} {word} block_number = $1"
            rows += await indexed.connection.fetchval(query, block)
    assert report["differences"] == rows


async def test_pruned_state_is_unchecked(indexed: Indexed) -> None:
    """State that the node dropped is neither agreed nor different."""
    query = "SELECT count(*) FROM chain.canonical_root WHERE block_number {} 40"
    before = await indexed.connection.fetchval(query.format("<"))
    indexed.node.prune_before = 40
    code, report = await indexed.audit()
    count = report["counts"]["root_observation"]
    assert (code, report["differences"]) == (0, 0)
    assert count["unchecked"] == before > 0
    assert count["agreed"] + count["unchecked"] == count["rows"]
    code, said = await indexed.says()
    assert code == 0
    assert " could not be checked" in said.splitlines()[-1]


async def test_gaps_are_skipped_and_said(indexed: Indexed) -> None:
    """Nothing is expected, and nothing held against anybody, where a pass is not covered."""
    await indexed.connection.execute(
        "UPDATE chain.coverage SET blocks = blocks - '{[10,20)}' WHERE pass = 'logs'"
    )
    for table in ("user_operation", "erc1155_transfer"):
        gone = f"DELETE FROM chain.{table} WHERE block_number BETWEEN 10 AND 15"
        assert await indexed.connection.execute(gone) != "DELETE 0"
    whole = "SELECT count(*) FROM chain.erc1155_transfer WHERE block_number NOT BETWEEN 10 AND 19"
    counted = await indexed.connection.fetchval(f"{whole} AND block_number <= $1", FINAL)
    code, report = await indexed.audit("--from", "10")
    assert code == 0, report["findings"]
    gaps = [gap for gap in report["skipped"] if gap["pass_name"] == "logs"]
    assert {gap["filter"].split("/")[0] for gap in gaps} == {"accounts", "erc1155", "factory"}
    assert {(gap["first"], gap["last"]) for gap in gaps} == {(10, 19)}
    _, report = await indexed.audit()
    assert report["counts"]["erc1155_transfer"]["agreed"] == counted
    _, said = await indexed.says("--from", "10")
    assert "skipped: logs accounts: 10 to 19 not covered" in said


async def test_a_late_account_counts_where_its_cohort_is_covered(indexed: Indexed) -> None:
    """Rows of an account that was adopted are expected below that block by its own coverage."""
    account = await indexed.connection.fetchval(
        "SELECT sender FROM chain.user_operation WHERE block_number < 40 "
        "GROUP BY sender ORDER BY count(*) DESC LIMIT 1"
    )
    await indexed.connection.execute(
        "INSERT INTO chain.cohort (chain_id, cohort_id, adopted_block) VALUES (80001, 1, 40)"
    )
    await indexed.connection.execute(
        "INSERT INTO chain.coverage (chain_id, pass, filter, cohort) "
        "SELECT chain_id, pass, filter, 1 FROM chain.coverage WHERE filter = 'accounts'"
    )
    await indexed.connection.execute(
        "UPDATE chain.account SET cohort_id = 1 WHERE account = $1", account
    )
    deleted = await indexed.connection.execute(
        "DELETE FROM chain.user_operation WHERE sender = $1 AND block_number <= 40", account
    )
    code, report = await indexed.audit()
    assert code == 0, report["findings"]
    assert {gap["last"] for gap in report["skipped"] if gap["cohort"] == 1} == {40}
    await indexed.connection.execute(
        "UPDATE chain.coverage SET blocks = '{[0,41)}' WHERE pass = 'logs' AND cohort = 1"
    )
    code, report = await indexed.audit()
    assert (code, report["differences"]) == (1, int(deleted.split()[1]))
    assert report["counts"]["user_operation"]["missing"] == report["differences"]


async def test_what_nobody_asked_for_is_left_alone(indexed: Indexed) -> None:
    """Rows of a contract that is not configured any more are no findings."""
    code, said = await indexed.says(erc1155=["0x" + "77" * 20])
    assert code == 0, said
    assert f"skipped: logs erc1155/0x{'77' * 20}: 0 to {FINAL} not covered" in said


async def test_wrong_inputs(indexed: Indexed, database_url: str) -> None:
    """What cannot be compared is said, with what to do, and an exit code of its own."""
    for arguments, expected in (
        (("--from", "9", "--to", "3"), "--from 9 is above --to 3"),
        (("--from", str(FINAL + 1)), "no block that was asked for lies between the start block 0"),
    ):
        code, said = await indexed.says(*arguments)
        assert (code, expected in said, "remedy: " in said) == (2, True, True), said
    code, said = await command(indexed.folder, indexed.config(), "audit", "--chain", "nowhere")
    assert (code, "no chain 'nowhere' is configured" in said) == (2, True)
    code, said = await indexed.says("--from", "60", "--to", "500")
    assert (code, f"skipped: blocks {FINAL + 1} to 500 are not final" in said) == (0, True)
    empty = configuration(database_url, indexed.node.url, **KEYS)
    code, said = await command(indexed.folder, empty, *CHAIN)
    assert (code, "nothing of local is indexed" in said) == (2, True)
    indexed.node.chain_id = 137
    code, said = await indexed.says()
    indexed.node.chain_id = 80001
    assert (code, "serves chain 137" in said) == (78, True)
    await indexed.connection.execute("UPDATE chain.coverage SET blocks = '{}'")
    code, said = await indexed.says()
    assert (code, f"nothing of local is covered from block 0 to {FINAL}" in said) == (2, True)
    await indexed.connection.execute("UPDATE chain.chain SET start_block = 30")
    code, said = await indexed.says("--to", "20")
    assert (code, "the start block 30" in said) == (2, True)


async def test_a_node_or_database_that_stays_away(indexed: Indexed) -> None:
    """What is away is waited for and then raised as the error that exits with 75."""
    settings = chain_settings("http://127.0.0.1:1", name="local", finality_depth=FINALITY_DEPTH)
    report = AuditReport("local", None, None)
    async with Database.open(indexed.url, max_size=2) as database:
        with pytest.raises(NodeUnreachableError) as node:
            await run_audit(
                report, database, settings, progress=lambda *_: None, give_up_seconds=0.6
            )
        assert node.value.exit_code == 75
    nobody = Database.open("postgresql://127.0.0.1:1/none", schema_check=False)
    async with nobody as database:
        with pytest.raises(DatabaseUnavailableError):
            await run_audit(
                report, database, settings, progress=lambda *_: None, give_up_seconds=0.6
            )
    assert not report.finished


async def test_ctrl_c_shows_what_was_found(indexed: Indexed) -> None:
    """Interrupted while the node is silent, it says how far it came, and ends with 130."""
    # Nothing happened in block 1, so that only the second stretch asks for state.
    await indexed.connection.execute("UPDATE chain.coverage SET blocks = blocks - '{[2,4)}'")
    indexed.node.fail(Hold(), method="eth_getStorageAt", times=1000)
    asked = len(indexed.node.requests)
    config_file = indexed.folder / "interrupted.toml"
    config_file.write_text(indexed.config())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "indexer", "--config", str(config_file), *CHAIN, "--from", "1"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )

    async def waits_for_state() -> bool:
        return any(r[0][0] == "eth_getStorageAt" for r in indexed.node.requests[asked:])

    try:
        await until(waits_for_state, "state to be asked for", 20)
        process.send_signal(signal.SIGINT)
        said, _ = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        indexed.node.heal()
    assert process.returncode == 130, said.decode()
    assert "Traceback" not in said.decode()
    assert f"local, blocks 1 to 1 (ended early: {FINAL} was asked for)" in said.decode()


async def test_it_writes_nothing(indexed: Indexed) -> None:
    """An audit, with findings or without, leaves every table as it was."""

    async def written() -> Any:
        return await indexed.connection.fetch(
            "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables ORDER BY 1"
        )

    await indexed.connection.execute("SELECT pg_stat_force_next_flush()")
    before = await written()
    await indexed.audit()
    assert await written() == before


async def test_it_may_run_with_read_rights_of_the_writer(indexed: Indexed) -> None:
    """The writer's role is enough, also on a server that accepts no writes."""
    name = await indexed.connection.fetchval("SELECT current_database()")
    await indexed.connection.execute(
        f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'
    )
    code, report = await indexed.audit()
    assert (code, report["finished"]) == (0, True)
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with connected(indexed.url) as other:
            await other.execute("CREATE TABLE public.anything ()")
