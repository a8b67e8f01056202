"""The pitfalls that need a whole daemon: reorgs, nodes that fail, stores that lie, time.

One daemon follows one real chain for all tests of this file; each has accounts of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from indexer.core.session_import import parse_document
from indexer.core.types import ZERO_HASH, Session
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, SmartAccount, root_of_set, running_devnet
from indexer.devnet.anvil import running_anvil
from indexer.devnet.deploy import deploy
from indexer.devnet.operations import Call, Key, call_data, seed_session, set_root_call
from indexer.devnet.tools import Toolchain
from indexer.store.chain_row import Connection
from tests.daemon_process import configuration, running_daemon, settled, until
from tests.fixtures_database import temporary_database
from tests.node_proxy import NodeProxy
from tests.watching import Watch, hexed, tip_of, watching

VECTORS = Path(__file__).parent / "vectors"
EDGES = json.loads((VECTORS / "edge_cases.json").read_text())
CASES = json.loads((VECTORS / "sessions.json").read_text())["cases"]


@pytest.fixture(scope="module")
async def watch(
    toolchain: Toolchain,
    postgres_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Watch]:
    folder = tmp_path_factory.mktemp("pitfalls")
    async with (
        temporary_database(postgres_url, template_database) as url,
        watching(toolchain, url, folder) as running,
    ):
        yield running


@pytest.fixture
async def account(watch: Watch, request: pytest.FixtureRequest) -> SmartAccount:
    """An account of the test's own, deployed, with the manager enabled."""
    made = watch.devnet.account(request.node.name)
    await watch.devnet.create(made)
    await watch.devnet.enable_module(made, at.MANAGER)
    return made


def some_sessions(account: SmartAccount, count: int = 2, valid_until: int = 0) -> list[Session]:
    key = Key.named("pitfalls")
    return [
        seed_session(key.address, account.address, i, valid_until=valid_until) for i in range(count)
    ]


async def test_a_root_that_was_reorged_away_vanishes_without_a_log(
    watch: Watch, account: SmartAccount
) -> None:
    """No log is removed when V1's root falls back: the observation of the lost block goes."""
    first, second = b"\x01" * 32, b"\x02" * 32
    await watch.set_root(account, first)
    receipt = await watch.set_root(account, second)
    await watch.settled()
    assert await watch.roots(account) == [hexed(first), hexed(second)]

    await watch.devnet.rpc.reorg(1)
    assert await watch.devnet.root_of(at.MANAGER, account.address) == first
    await watch.settled()

    assert await watch.roots(account) == [hexed(first)]
    assert (await watch.verdict(account))["on_chain_root"] == hexed(first)
    lost = await watch.connection.fetchval(
        "SELECT count(*) FROM watch.session_root WHERE block_hash = $1", hexed(receipt.block_hash)
    )
    assert lost == 0


async def test_an_orphaned_hash_is_a_reorg_and_no_root(watch: Watch, account: SmartAccount) -> None:
    """The block is replaced between its header and the reading of its state: no zero, no end."""
    first = b"\x03" * 32
    await watch.set_root(account, first)
    await watch.settled()
    watch.proxy.errors.clear()
    watch.proxy.before_next("eth_getStorageAt", lambda _: watch.devnet.rpc.reorg(1))

    await watch.set_root(account, b"\x04" * 32)

    async def refused() -> bool:
        return ("eth_getStorageAt", -32001) in watch.proxy.errors

    await until(refused, "the node to say that it does not know the hash")
    await watch.settled()
    assert await watch.roots(account) == [hexed(first)]
    assert watch.daemon.process.returncode is None


async def test_a_block_that_is_overtaken_while_it_is_read_is_read_again(
    watch: Watch, account: SmartAccount
) -> None:
    """A node that answers for its newest block with the next one's state is not believed."""
    first, second, third = (bytes([n]) * 32 for n in (0x11, 0x12, 0x13))
    await watch.set_root(account, first)
    await watch.settled()

    done = asyncio.Event()

    async def overtaken(calls: list[Any]) -> None:
        receipt = await watch.set_root(account, third)
        for call in calls:
            if call["method"] == "eth_getStorageAt":
                call["params"][2] = {"blockHash": hexed(receipt.block_hash)}
        done.set()

    watch.proxy.before_next("eth_getStorageAt", overtaken)
    await watch.set_root(account, second)
    await asyncio.wait_for(done.wait(), 20)
    await watch.settled()
    assert await watch.roots(account) == [hexed(root) for root in (first, second, third)]


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": -32000, "message": "missing trie node 1f (path ) <nil>"}},
        {"error": {"code": -32603, "message": "internal error"}},
        {"result": None},
        {"result": "0x"},
    ],
    ids=["pruned", "internal", "null", "empty"],
)
async def test_unreadable_state_is_never_a_zero_root(
    watch: Watch, account: SmartAccount, answer: dict[str, Any]
) -> None:
    """While the node cannot say what a root is nothing is written; then the truth is."""
    first, second = b"\x05" * 32, b"\x06" * 32
    await watch.set_root(account, first)
    await watch.settled()
    watch.proxy.refuse("eth_getStorageAt", answer)
    receipt = await watch.set_root(account, second)

    async def refused() -> bool:
        return watch.proxy.refused >= 7

    await until(refused, "the daemon to ask again")
    indexed = await watch.connection.fetchval("SELECT indexed_number FROM chain.chain")
    assert indexed < receipt.block_number
    assert await watch.roots(account) == [hexed(first)]

    watch.proxy.heal()
    await watch.settled()
    assert await watch.roots(account) == [hexed(first), hexed(second)]
    zeros = await watch.connection.fetchval(
        "SELECT count(*) FROM evidence.root_observation WHERE account = $1 AND manager = $2 "
        "AND root = $3 AND block_number >= $4",
        account.address,
        at.MANAGER,
        ZERO_HASH,
        receipt.block_number - 1,
    )
    assert zeros == 0


async def test_state_that_was_pruned_is_unobserved(
    toolchain: Toolchain, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """In the past too: the stretch is said to be unobserved, and read once an archive is there."""
    async with running_devnet(toolchain) as devnet, NodeProxy(devnet.url) as proxy:
        account = devnet.account("pruned")
        await devnet.create(account)
        receipt = await devnet.submit(account, [set_root_call(b"\x07" * 32)])
        await devnet.rpc.mine(5)
        old = hexed(receipt.block_hash)
        missing = {"error": {"code": -32000, "message": "missing trie node"}}
        proxy.refuse("eth_getStorageAt", missing, lambda params: params[2]["blockHash"] == old)
        config = configuration(database_url, proxy.url, finality=2, managers=[hexed(at.MANAGER)])

        async def unobserved() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM watch.unobserved"))

        async with running_daemon(tmp_path, config) as daemon:
            await until(unobserved, "the stretch to be called unobserved")
            assert await connection.fetch("SELECT FROM watch.session_root") == []
            owed = await connection.fetchval(
                "SELECT sum(missing_blocks) FROM watch.coverage WHERE pass LIKE 'roots/%'"
            )
            assert owed > 0
            assert await daemon.stop() == 0
        proxy.heal()
        async with running_daemon(tmp_path, config) as daemon:
            tip = await tip_of(devnet)
            await until(lambda: settled(connection, *tip), "the stretch to be read")
            assert await daemon.stop() == 0
    (row,) = await connection.fetch("SELECT block_number, root FROM watch.session_root")
    assert tuple(row) == (receipt.block_number, "0x" + "07" * 32)
    assert not await unobserved()


async def test_neither_status_nor_claimed_root_of_a_store_is_believed(
    watch: Watch, request: pytest.FixtureRequest
) -> None:
    """The vendor's stores after clearing, revoking, and a new instance: leaves alone count."""
    steps = EDGES["sdkStoreSequence"]["steps"]
    cleared, revoked, renewed = steps[2], steps[5], steps[6]
    cast = [watch.devnet.account(f"{request.node.name}/{i}") for i in range(3)]
    for account, step in zip(cast, (cleared, revoked, renewed), strict=True):
        await watch.devnet.create(account)
        await watch.devnet.enable_module(account, at.MANAGER)
        await watch.set_root(account, bytes.fromhex(step["treeRoot"][2:]))
    await watch.settled()

    async def form_on_chain(account: SmartAccount) -> str | None:
        found: str | None = await watch.connection.fetchval(
            "SELECT matched_form FROM watch.session_root_current WHERE account = $1 AND root <> $2",
            hexed(account.address),
            hexed(ZERO_HASH),
        )
        return found

    # The store claims the root that is on chain, and cannot give it any more.
    assert cleared["store"]["merkleRoot"] == cleared["treeRoot"]
    await watch.import_document(cast[0], cleared["store"])
    await watch.until_verdict(cast[0], "drifted", "unknown_root")
    assert await form_on_chain(cast[0]) is None

    # Revoked by the client: what remains was appended, and what was revoked can still be proved.
    await watch.import_document(cast[1], revoked["store"])
    await watch.until_verdict(cast[1], "drifted", "revoked_still_provable")
    assert await form_on_chain(cast[1]) == "revoke_form"

    # The tree on chain holds the session that the store calls revoked, whatever root it claims.
    assert renewed["store"]["merkleRoot"] != renewed["treeRoot"]
    await watch.import_document(cast[2], renewed["store"])
    await watch.until_verdict(cast[2], "drifted", "superseded")
    assert await form_on_chain(cast[2]) == "all_leaves"
    states = await watch.connection.fetch(
        "SELECT DISTINCT state FROM watch.session WHERE account = $1 AND client_status = 'revoked'",
        hexed(cast[2].address),
    )
    assert [row["state"] for row in states] == ["active"]


async def test_a_file_of_signers_leaves_no_trace(
    watch: Watch, account: SmartAccount, tmp_path: Path
) -> None:
    """It is refused with exit code 2; no key is stored, logged or printed."""
    secret = "c0ffee" * 10 + "beef"
    signer = hexed(Key.named("signer").address)
    file = tmp_path / f"{hexed(account.address)}_signers.json"
    file.write_text(json.dumps({signer: {"pbKey": signer, "pvKey": f"0x{secret}"}}))
    before = await watch.connection.fetchval("SELECT count(*) FROM sessions.session_set")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "indexer", "sessions", "import", str(file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            "SESSIONWATCH_DATABASE__URL": watch.database_url,
            "SESSIONWATCH_CHAINS__MUMBAI__RPC": watch.proxy.url,
        },
    )
    output, _ = await process.communicate()

    assert process.returncode == 2
    assert b"signers" in output
    assert secret.encode() not in output
    assert secret not in watch.daemon.log()
    assert await watch.connection.fetchval("SELECT count(*) FROM sessions.session_set") == before


async def test_a_set_that_never_lands_is_pending_and_then_drifted(
    watch: Watch, account: SmartAccount
) -> None:
    """No alarm while the operation may still come; one once the grace is over."""
    await watch.store(account, some_sessions(account))
    await watch.until_verdict(account, "drifted", "never_landed")
    said = await watch.connection.fetch(
        "SELECT verdict FROM chain.verdict WHERE account = $1 AND manager = $2 "
        "AND verdict <> 'empty' ORDER BY verdict_id",
        account.address,
        at.MANAGER,
    )
    assert [row["verdict"] for row in said] == ["pending", "drifted"]


async def test_a_disabled_manager_is_drift_though_the_root_matches(
    watch: Watch, account: SmartAccount
) -> None:
    """Calling disableModule leaves the root as it is, and no session can be used any more."""
    sessions = some_sessions(account)
    await watch.devnet.register(account, sessions)
    await watch.store(account, sessions)
    await watch.until_verdict(account, "in_sync", None)

    sentinel = bytes(19) + b"\x01"
    off = call_data("disableModule(address,address)", sentinel, at.MANAGER)
    assert (await watch.devnet.submit(account, [Call(account.address, off)])).succeeded
    assert not await watch.devnet.is_module_enabled(account.address, at.MANAGER)
    await watch.settled()
    found = await watch.verdict(account)
    assert (found["verdict"], found["cause"]) == ("drifted", "manager_disabled")
    assert found["on_chain_root"] == hexed(root_of_set(sessions))
    assert len(await watch.roots(account)) == 1

    await watch.devnet.enable_module(account, at.MANAGER)
    await watch.settled()
    assert (await watch.verdict(account))["verdict"] == "in_sync"


async def test_a_root_in_another_manager_is_drift(watch: Watch, account: SmartAccount) -> None:
    """Stored for one manager, set in another one: it did land, but where nobody looks."""
    sessions = some_sessions(account)
    await watch.devnet.register(account, sessions, manager=at.MANAGER_AUGUST)
    await watch.store(account, sessions)
    await watch.until_verdict(account, "drifted", "manager_mismatch")
    found = await watch.verdict(account, at.MANAGER_AUGUST)
    assert found["on_chain_root"] == hexed(root_of_set(sessions))


async def test_expired_sessions_in_the_root_are_judged_by_block_time(
    watch: Watch, account: SmartAccount
) -> None:
    """An expired session that is still in the tree is no mismatch; the chain's clock decides."""
    block = await watch.devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    in_a_year = int(block["timestamp"], 16) + 31_536_000
    sessions = some_sessions(account, valid_until=in_a_year)
    await watch.devnet.register(account, sessions)
    await watch.store(account, sessions)
    await watch.until_verdict(account, "in_sync", None)
    assert "all_expired" not in (await watch.verdict(account))["warnings"]

    await watch.devnet.rpc.set_next_timestamp(in_a_year + 1)
    await watch.devnet.rpc.mine()
    await watch.settled()

    async def warned() -> bool:
        return "all_expired" in (await watch.verdict(account))["warnings"]

    await until(warned, "the warning that all sessions have expired", seconds=20)
    assert (await watch.verdict(account))["verdict"] == "in_sync"


async def test_a_chain_without_contracts_is_said_and_waited_for(
    toolchain: Toolchain, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Managers without code are named, their empty storage is no root, and they are followed."""
    managers = [hexed(at.MANAGER), hexed(at.EVENT_MANAGER)]
    async with running_anvil(toolchain.anvil) as anvil:
        config = configuration(database_url, anvil.url, managers=managers)
        async with running_daemon(tmp_path, config) as daemon:
            await daemon.following()
            said = [line for line in daemon.log().splitlines() if "manager_without_code" in line]
            assert len(said) == 2
            assert all(manager in "".join(said) for manager in managers)
            assert await connection.fetch("SELECT FROM watch.session_root") == []

            await deploy(anvil.rpc, toolchain)
            devnet = Devnet(anvil, toolchain)
            account = devnet.account("early")
            await devnet.submit(account, [set_root_call(b"\x08" * 32)])
            tip = await tip_of(devnet)
            await until(lambda: settled(connection, *tip), "the contracts' blocks")
            assert await connection.fetchval("SELECT root FROM watch.session_root") == (
                "0x" + "08" * 32
            )
            assert await daemon.stop() == 0


async def test_every_published_list_is_linked_once_registered(
    watch: Watch, request: pytest.FixtureRequest
) -> None:
    """All lists made with the vendor's SDK, registered as its client does, have its root here."""
    expected: dict[str, tuple[str, str | None, str, bool]] = {}
    for case in CASES:
        account = watch.devnet.account(f"{request.node.name}/{case['id']}")
        document = json.dumps(case["sessions"]).encode()
        (found,) = parse_document(document, name=case["id"]).sets
        root = bytes.fromhex(case["root"][2:])
        calls = [*(await watch.devnet.enable_calls(account, at.MANAGER)), set_root_call(root)]
        assert (await watch.devnet.submit(account, calls)).succeeded
        await watch.store(account, found.sessions, wait=False)
        modules = {session.session_validation_module for session in found.sessions}
        usable = all([await watch.devnet.rpc.code(module) for module in modules])
        verdict = ("in_sync", None) if usable else ("drifted", "module_without_code")
        expected[hexed(account.address)] = (*verdict, case["root"], True)
    await watch.settled()
    rows = await watch.connection.fetch(
        "SELECT v.account, v.verdict, v.cause, r.root, r.set_id IS NOT NULL AS linked "
        "FROM watch.verdict AS v JOIN watch.session_root_current AS r "
        "USING (chain_id, manager, account) WHERE v.account = ANY($1::text[])",
        list(expected),
    )
    assert {row["account"]: tuple(row)[1:] for row in rows} == expected
    assert len(expected) == len(CASES) == 31
