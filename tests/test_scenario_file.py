"""Every executed scenario of the file, by number: the node, and what a daemon wrote meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from indexer.core.merkle import root_slot
from indexer.core.session_sets import build_set
from indexer.core.types import ZERO_HASH, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, running_devnet
from indexer.devnet.operations import call_data, open_session
from indexer.devnet.rpc import DevnetRpcError
from indexer.devnet.tools import Toolchain
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.daemon_process import configuration, running_daemon, settled, until
from tests.fixtures_database import connected, temporary_database
from tests.routes import MANAGERS, truth
from tests.scenario_file import (
    FILE,
    SCENARIOS,
    SET_ROOT,
    FileStage,
    Json,
    Played,
    as_here,
    as_the_node_says,
    hexed,
    play,
)
from tests.scenario_run import Row, table
from tests.watching import tip_of

pytestmark = pytest.mark.timeout(120)

WATCHED = "ABCDN"
NO_ROWS = {
    "UserOperationEvent",
    "BeforeExecution",
    "SignatureAggregatorChanged",
    "TransferSingle",
    "Made",
}
"""Logs that are no event of an account: they have tables of their own, or none."""


@dataclass(frozen=True, slots=True)
class FileRun:
    """The whole file as it ran here. `says` is in the file's form, by number.

    `changes` are (manager, account, block, root) by eth_call at every block, of watched accounts.
    """

    devnet: Devnet
    stage: FileStage
    played: Mapping[str, Played]
    says: Mapping[str, Json]
    changes: set[tuple[str, str, int, str]]
    roots: list[Row]
    transient: list[Row]
    operations: list[Row]
    events: list[Row]

    def of(self, number: str, rows: list[Row]) -> list[Row]:
        """Return the rows of a scenario's last transaction, in the order of the logs."""
        hash_ = self.played[number].transaction["hash"]
        found = [row for row in rows if row["transaction_hash"] == hash_]
        return sorted(found, key=lambda row: row["log_index"])


@pytest.fixture(scope="module")
async def run(
    toolchain: Toolchain,
    postgres_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[FileRun]:
    async with (
        running_devnet(toolchain) as devnet,
        temporary_database(postgres_url, template_database) as url,
    ):
        yield await follow_the_file(devnet, url, tmp_path_factory.mktemp("scenario_file"))


async def follow_the_file(devnet: Devnet, url: str, folder: Path) -> FileRun:
    """Play the file from its first scenario to its last before a daemon's eyes."""
    stage = FileStage(devnet)
    # N comes from a factory that nobody watches: its stored set is why the daemon knows it.
    stored = build_set(80001, at.MANAGER, stage.foreign, [open_session(at.STRANGER)])
    async with Database.open(url) as database:
        await import_sets(database, [(stored, "test")])
    config = configuration(url, devnet.url, managers=[hexed(manager) for manager in MANAGERS])
    async with connected(url) as connection, running_daemon(folder, config) as daemon:
        await daemon.following()
        played = {number: await play(stage, number) for number in SCENARIOS}
        tip = await tip_of(devnet)
        await until(lambda: settled(connection, *tip), "the file to be followed")
        roots = await table(connection, "SELECT * FROM watch.session_root")
        transient = await table(connection, "SELECT * FROM watch.session_root_transient")
        operations = await table(connection, "SELECT * FROM watch.user_operation")
        events = await table(connection, "SELECT * FROM watch.account_event")
        assert await daemon.stop() == 0
        assert "Traceback" not in daemon.log()
    who = stage.addresses()
    changes = await truth(devnet, MANAGERS, list(who.values()), 0, tip[0])
    at_blocks = {
        label: at_every_block(changes[at.MANAGER, account], tip[0])
        for label, account in who.items()
    }
    says = {number: await as_the_node_says(stage, one, at_blocks) for number, one in played.items()}
    watched = {who[label] for label in WATCHED}
    true = {
        (hexed(manager), hexed(account), number, hexed(root))
        for (manager, account), found in changes.items()
        if account in watched
        for number, root in found
    }
    return FileRun(devnet, stage, played, says, true, roots, transient, operations, events)


def at_every_block(changes: list[tuple[int, Hash32]], last: int) -> list[Hash32]:
    """Return the root after each block up to the last, from where it changed."""
    found = [ZERO_HASH] * (last + 1)
    for number, root in changes:
        found[number:] = [root] * (last + 1 - number)
    return found


@pytest.mark.parametrize("number", SCENARIOS)
async def test_the_node_says_what_the_file_says(run: FileRun, number: str) -> None:
    """Status, logs, input, traces, slots, proof, operations and roots, letter by letter."""
    assert run.says[number] == as_here(SCENARIOS[number])


@pytest.mark.parametrize("number", SCENARIOS)
async def test_the_daemon_wrote_the_changes_of_each_block(run: FileRun, number: str) -> None:
    """Every net change is there, in the very block; none is invented, also of E and H."""
    blocks = run.played[number].blocks
    rows = [
        (row["manager"], row["account"], row["block_number"], row["root"])
        for row in run.roots
        if row["block_number"] in blocks
    ]
    assert len(rows) == len(set(rows))
    assert set(rows) == {change for change in run.changes if change[2] in blocks}
    # In the words of the file: whose root is another one than before, and which.
    after = {hexed(a): label for label, a in run.stage.addresses().items() if label in WATCHED}
    last = {
        after[account]: root[:10]
        for manager, account, _, root in sorted(rows, key=lambda row: row[2])
        if manager == hexed(at.MANAGER)
    }
    scenario = SCENARIOS[number]
    changed = [label for label in scenario["changed"] if label in WATCHED]
    assert set(changed) <= last.keys()
    # 43 sets a root and clears it, in two blocks.
    assert last.keys() <= {*changed, *({"C"} if number == "43" else ())}
    assert last == {label: scenario["after"][label] for label in last}


@pytest.mark.parametrize("number", SCENARIOS)
async def test_the_daemon_wrote_the_operations(run: FileRun, number: str) -> None:
    """Who sent it, and whether its execution held; the nonce's key is beyond 64 bits."""
    found = run.of(number, run.operations)
    assert [
        f"{run.stage.label(row['sender'])}:{str(row['success']).lower()}" for row in found
    ] == as_here(SCENARIOS[number])["uoe"]
    keys = [row["nonce"] >> 64 for row in found]
    assert keys == ([0, 7] if number == "06" else [0] * len(keys))


@pytest.mark.parametrize("number", SCENARIOS)
async def test_the_daemon_wrote_the_events_of_the_accounts(run: FileRun, number: str) -> None:
    """What an account, its factory or the EntryPoint said of it, in the file's order."""
    logs = [log.split(".") for log in SCENARIOS[number]["logs"]]
    expected = [(emitter, event) for emitter, event in logs if event not in NO_ROWS]
    found = run.of(number, run.events)
    assert [row["event"] for row in found] == [event for _, event in expected]
    for row, (emitter, _) in zip(found, expected, strict=True):
        label = run.stage.label(row["account"])
        assert label in WATCHED
        assert emitter in {label, "EP", "FACT"}


async def test_roots_inside_a_block_are_those_that_the_file_traced(run: FileRun) -> None:
    """Set and set again in the same block: by operations, and in clear by a module's batch."""
    found = {
        (number, run.stage.label(row["account"]), row["root"][2:10])
        for number, one in run.played.items()
        for row in run.transient
        if row["block_number"] in one.blocks and row["manager"] == hexed(at.MANAGER)
    }
    traced = {
        (number, call["from"], call["root"])
        for number, one in SCENARIOS.items()
        for call in one["callTracer"]
        if not call["reverted"] and "0x" + call["root"] not in one["after"].values()
    }
    assert {number for number, _, _ in traced} == {"06", "07", "26"}
    assert found == traced


async def test_no_other_row_was_written(run: FileRun) -> None:
    """Also between and before the scenarios: the rows are the changes, no more and no fewer."""
    rows = [(r["manager"], r["account"], r["block_number"], r["root"]) for r in run.roots]
    assert sorted(rows) == sorted(run.changes)
    senders = {run.stage.label(row["sender"]) for row in run.operations}
    assert senders == {"A", "B", "C", "D"}


async def test_the_node_reads_state_as_the_file_says(run: FileRun) -> None:
    """By number, by hash and by proof it is one root; a hash it does not know is -32001."""
    rpc, said = run.devnet.rpc, FILE["rpc"]
    who = run.stage.addresses()
    number, block_hash = await tip_of(run.devnet)
    getter = {
        "to": hexed(at.MANAGER),
        "data": hexed(call_data("getSessionKeys(address)", who["C"])),
    }
    place = [hexed(at.MANAGER), hexed(root_slot(who["C"]))]
    by_hash = {"blockHash": hexed(block_hash)}
    assert await rpc.call("eth_call", getter, hex(number)) == said["eth_call_num"]
    assert await rpc.call("eth_call", getter, by_hash) == said["eth_call_hash"]
    assert await rpc.call("eth_getStorageAt", *place, by_hash) == said["storageAt_hash"]
    slots = [hexed(root_slot(who[label])) for label in "CA"]
    proof = await rpc.call("eth_getProof", hexed(at.MANAGER), slots, hex(number))
    assert [one["value"] for one in proof["storageProof"]] == said["proof"]["sp"]
    with pytest.raises(DevnetRpcError) as refused:
        await rpc.call("eth_call", getter, {"blockHash": hexed(b"\x07" * 32)})
    assert said["eth_call_badhash"] == f'ERR {{"code":{refused.value.code}}}'


async def test_the_node_answers_for_whole_blocks_as_the_file_says(run: FileRun) -> None:
    """Receipts of a block, and a filter over all blocks: the manager's calls and its birth."""
    rpc, said = run.devnet.rpc, FILE["rpc"]
    tip = hex((await tip_of(run.devnet))[0])
    assert len(await rpc.call("eth_getBlockReceipts", tip)) == said["blockReceipts"]
    asked = {"fromBlock": "0x0", "toBlock": tip, "toAddress": [hexed(at.MANAGER)]}
    traces = await rpc.call("trace_filter", asked)
    born = [one for one in traces if one["type"] == "create"]
    calls = [one for one in traces if one["action"].get("input", "").startswith(SET_ROOT)]
    assert len(born) + len(calls) == said["trace_filter"]
    # 43 and 44 are two transactions each, of which the file traces one.
    assert len(calls) == 2 + sum(len(one["callTracer"]) for one in FILE["scenarios"])
