"""What the real daemon says of accounts while it follows: every way to be in sync, or not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.core.types import Address, Hash32, Session
from indexer.devnet import addresses as at
from indexer.devnet.accounts import SmartAccount, root_of_set
from indexer.devnet.operations import Call, Key, call_data, seed_session
from indexer.devnet.tools import Toolchain
from indexer.store.chain_row import Connection
from tests.bench.live_latency import measure
from tests.daemon_process import configuration, running_daemon, until
from tests.fixtures_database import connected, temporary_database
from tests.routes import MANAGERS, Stage, silent_script, truth
from tests.watching import Watch, hexed, tip_of, watching

DAY_SECONDS = 86_400
FOREIGN_ROOT = Hash32(b"\x77" * 32)


@pytest.fixture(scope="module")
async def watch(
    toolchain: Toolchain,
    postgres_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Watch]:
    """One chain and one daemon with a grace of two seconds; each test has its own account."""
    folder = tmp_path_factory.mktemp("verdicts")
    async with (
        temporary_database(postgres_url, template_database) as url,
        watching(toolchain, url, folder, grace_seconds=2) as running,
    ):
        yield running


@pytest.fixture
async def account(watch: Watch, request: pytest.FixtureRequest) -> SmartAccount:
    """An account of the test's own, deployed."""
    made = watch.devnet.account(request.node.name)
    await watch.devnet.create(made)
    return made


def sessions(account: SmartAccount, *ids: int, valid_until: int = 0) -> list[Session]:
    """One session for each token id."""
    key = Key.named("live verdicts")
    return [seed_session(key.address, account.address, i, valid_until=valid_until) for i in ids]


async def said(watch: Watch, account: SmartAccount) -> list[tuple[str, str | None]]:
    """Return every verdict of the account that stood, in order."""
    rows = await watch.connection.fetch(
        "SELECT verdict, cause FROM chain.verdict WHERE account = $1 AND manager = $2 "
        "ORDER BY verdict_id",
        account.address,
        at.MANAGER,
    )
    return [tuple(row) for row in rows]


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Collect what is notified on sessionwatch_verdict."""
    heard: list[dict[str, Any]] = []
    async with connected(url) as connection:
        await connection.add_listener(
            "sessionwatch_verdict", lambda *message: heard.append(json.loads(message[3]))
        )
        yield heard


# --- in sync ------------------------------------------------------------------------------------


async def test_set_first_then_root(watch: Watch, account: SmartAccount) -> None:
    """A set is pending from its storing until its root lands; listeners hear both."""
    wanted = sessions(account, 1, 2, 3)
    async with listening(watch.database_url) as heard:
        await watch.store(account, wanted)
        await watch.until_verdict(account, "pending", None)
        receipt = await watch.devnet.register(account, wanted)
        await watch.until_verdict(account, "in_sync", None)

        async def both_heard() -> bool:
            mine = [one for one in heard if one["account"] == hexed(account.address)]
            return [one["verdict"] for one in mine] == ["pending", "in_sync"]

        await until(both_heard, "both notifications", seconds=10)
    last = next(one for one in reversed(heard) if one["account"] == hexed(account.address))
    assert last == {
        "chain_id": 80001,
        "manager": hexed(at.MANAGER),
        "account": hexed(account.address),
        "verdict": "in_sync",
        "cause": None,
        "severity": "info",
        "block": receipt.block_number,
        "retracted": False,
    }
    found = await watch.verdict(account)
    assert found["on_chain_root"] == found["expected_root"] == hexed(root_of_set(wanted))
    assert found["since_block"] == receipt.block_number
    assert found["warnings"] == ["not_final"]


async def test_root_first_then_set(watch: Watch, account: SmartAccount) -> None:
    """A root without a set is unmanaged; storing its set later links it at once."""
    wanted = sessions(account, 4)
    await watch.devnet.register(account, wanted)
    await watch.settled()
    await watch.until_verdict(account, "unmanaged", None)
    await watch.store(account, wanted)
    await watch.until_verdict(account, "in_sync", None)
    linked = await watch.connection.fetchrow(
        "SELECT r.set_id, s.state FROM watch.session_root_current AS r JOIN watch.session_set AS s "
        "USING (set_id) WHERE r.account = $1",
        hexed(account.address),
    )
    assert linked is not None
    assert linked["state"] == "on_chain"


async def test_importing_an_old_set_again_changes_nothing(
    watch: Watch, account: SmartAccount
) -> None:
    """A set that has been on chain is not expected again because somebody stores it again."""
    first, second = sessions(account, 1), sessions(account, 1, 2)
    for wanted in (first, second):
        await watch.store(account, wanted)
        await watch.devnet.register(account, wanted)
        await watch.until_verdict(account, "in_sync", None)
    await watch.settled()
    before = await said(watch, account)
    await watch.store(account, first)
    assert await said(watch, account) == before
    assert (await watch.verdict(account))["expected_root"] == hexed(root_of_set(second))


# --- drifted ------------------------------------------------------------------------------------


async def test_a_set_that_does_not_land_in_time(watch: Watch, account: SmartAccount) -> None:
    """Nothing on chain: pending within the grace, never_landed after it, mended by landing."""
    wanted = sessions(account, 5)
    await watch.store(account, wanted)
    await watch.until_verdict(account, "drifted", "never_landed")
    assert await said(watch, account) == [("pending", None), ("drifted", "never_landed")]
    found = await watch.verdict(account)
    stored_at = await watch.connection.fetchval(
        "SELECT stored_at FROM watch.session_set WHERE account = $1", hexed(account.address)
    )
    assert (found["since_time"] - stored_at).total_seconds() == 2.0
    await watch.devnet.register(account, wanted)
    await watch.until_verdict(account, "in_sync", None)
    closed = await watch.connection.fetchrow(
        "SELECT closed_block, cause FROM watch.drift_history WHERE account = $1",
        hexed(account.address),
    )
    assert closed is not None
    assert closed["closed_block"] is not None


async def test_a_newer_set_that_does_not_land(watch: Watch, account: SmartAccount) -> None:
    """The chain still has the older set: superseded, critical since it proves what was dropped."""
    old, new = sessions(account, 1, 2), sessions(account, 2)
    await watch.store(account, old)
    await watch.devnet.register(account, old)
    await watch.until_verdict(account, "in_sync", None)
    await watch.store(account, new)
    await watch.until_verdict(account, "pending", None)
    await watch.until_verdict(account, "drifted", "superseded")
    found = await watch.verdict(account)
    assert found["severity"] == "critical"
    assert found["expected_root"] == hexed(root_of_set(new))


async def test_a_root_nobody_knows(watch: Watch, account: SmartAccount) -> None:
    """A root that no stored set has is flagged in the block that brought it."""
    wanted = sessions(account, 6)
    await watch.store(account, wanted)
    await watch.devnet.register(account, wanted)
    await watch.until_verdict(account, "in_sync", None)
    receipt = await watch.set_root(account, FOREIGN_ROOT)
    await watch.until_verdict(account, "drifted", "unknown_root")
    found = await watch.verdict(account)
    assert (found["severity"], found["since_block"]) == ("critical", receipt.block_number)


async def test_a_root_that_was_cleared(watch: Watch, account: SmartAccount) -> None:
    """A root set to zero while a set is expected is cleared_on_chain."""
    wanted = sessions(account, 7)
    await watch.store(account, wanted)
    await watch.devnet.register(account, wanted)
    await watch.until_verdict(account, "in_sync", None)
    await watch.set_root(account, bytes(32))
    await watch.until_verdict(account, "drifted", "cleared_on_chain")


async def test_a_root_that_went_back(watch: Watch, account: SmartAccount) -> None:
    """The older of two sets that landed stands again: what the newer revoked works again."""
    old, new = sessions(account, 1, 2), sessions(account, 2)
    for wanted in (old, new):
        await watch.store(account, wanted)
        await watch.devnet.register(account, wanted)
        await watch.until_verdict(account, "in_sync", None)
        await watch.settled()
    await watch.devnet.register(account, old)
    await watch.until_verdict(account, "drifted", "reverted_to_older_set")


async def test_the_other_manager(watch: Watch, account: SmartAccount) -> None:
    """Stored for one manager, registered in another: named as such once the grace is over."""
    wanted = sessions(account, 8)
    await watch.store(account, wanted)
    await watch.devnet.register(account, wanted, manager=at.MANAGER_AUGUST)
    await watch.until_verdict(account, "drifted", "manager_mismatch")
    assert hexed(at.MANAGER_AUGUST)[:8] in (await watch.verdict(account))["explanation"].lower()
    assert (await watch.verdict(account, at.MANAGER_AUGUST))["verdict"] == "unmanaged"


async def test_a_disabled_manager(watch: Watch, account: SmartAccount) -> None:
    """The root stands but the account has switched its manager off."""
    wanted = sessions(account, 9)
    await watch.store(account, wanted)
    await watch.devnet.register(account, wanted)
    await watch.until_verdict(account, "in_sync", None)
    sentinel = Address(bytes(19) + b"\x01")
    off = call_data("disableModule(address,address)", sentinel, at.MANAGER)
    receipt = await watch.devnet.submit(account, [Call(account.address, off)])
    await watch.until_verdict(account, "drifted", "manager_disabled")
    assert (await watch.verdict(account))["since_block"] == receipt.block_number


async def test_a_module_without_code(watch: Watch, account: SmartAccount) -> None:
    """A session whose validation module is not deployed cannot be used, and is said so."""
    (good,) = sessions(account, 10)
    nowhere = Address(b"\x5a" * 20)
    wanted = [good, Session(0, 0, nowhere, b"")]
    await watch.store(account, wanted)
    await watch.devnet.register(account, wanted)
    await watch.until_verdict(account, "drifted", "module_without_code")
    await watch.devnet.rpc.set_code(nowhere, b"\xfe")
    # Asked again with the next reason to decide.
    await watch.store(account, [*wanted, good])
    await watch.devnet.register(account, [*wanted, good])
    await watch.until_verdict(account, "in_sync", None)


# --- time and reorgs ----------------------------------------------------------------------------


async def test_a_reorg_retracts_what_was_said(watch: Watch, account: SmartAccount) -> None:
    """When the block of a root loses, its verdict is taken back to whoever listens."""
    wanted = sessions(account, 11)
    await watch.store(account, wanted)
    await watch.until_verdict(account, "pending", None)
    await watch.settled()
    async with listening(watch.database_url) as heard:
        receipt = await watch.devnet.register(account, wanted)
        await watch.until_verdict(account, "in_sync", None)
        await watch.devnet.rpc.reorg(1)
        await watch.devnet.rpc.mine()

        async def retracted() -> bool:
            return any(
                (one["account"], one["verdict"], one["block"])
                == (hexed(account.address), "in_sync", receipt.block_number)
                for one in heard
                if one["retracted"]
            )

        await until(retracted, "the retraction", seconds=10)
    await watch.settled()
    assert (await watch.verdict(account))["verdict"] in {"pending", "drifted"}
    assert await watch.roots(account) == []
    assert (await watch.devnet.register(account, wanted)).succeeded
    await watch.until_verdict(account, "in_sync", None)


async def test_expiry_follows_the_chains_clock(watch: Watch, account: SmartAccount) -> None:
    """A set goes from expiring soon to all expired by block time, and never drifts for it."""
    block = await watch.devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    now = int(block["timestamp"], 16)
    first, second = now + 2000, now + 5 * DAY_SECONDS
    wanted = sessions(account, 1, valid_until=first) + sessions(account, 2, valid_until=second)
    await watch.store(account, wanted)
    await watch.devnet.register(account, wanted)
    await watch.until_verdict(account, "in_sync", None)
    for seconds, expected in (
        (None, ["expiring_soon"]),
        (first + 1, ["expired_in_root"]),
        (second - DAY_SECONDS, ["expiring_soon", "expired_in_root"]),
        (second + 1, ["all_expired", "expired_in_root"]),
    ):
        if seconds is not None:
            await watch.devnet.rpc.set_next_timestamp(seconds)
            await watch.devnet.rpc.mine()
        await until(lambda: warned(watch, account, expected), str(expected), 10)  # noqa: B023
        assert (await watch.verdict(account))["verdict"] == "in_sync"
    states = await watch.connection.fetch(
        "SELECT state FROM watch.session WHERE account = $1", hexed(account.address)
    )
    assert {row["state"] for row in states} == {"expired"}


async def warned(watch: Watch, account: SmartAccount, expected: Sequence[str]) -> bool:
    found = (await watch.verdict(account))["warnings"]
    return sorted(set(found) - {"not_final"}) == sorted(expected)


# --- taint --------------------------------------------------------------------------------------


async def test_silent_changes_of_a_tainted_account_are_found_live(watch: Watch) -> None:
    """Changes without any log are found in their block, for the account was read as tainted."""
    stage = Stage(watch.devnet, 11)
    tom = await stage.ready("tom")
    wanted = sessions(tom, 12)
    await watch.store(tom, wanted)
    await watch.devnet.register(tom, wanted)
    await watch.until_verdict(tom, "in_sync", None)
    for step in silent_script(stage):
        await step.run()
    await watch.settled()
    last = (await tip_of(watch.devnet))[0]
    true = await truth(watch.devnet, MANAGERS, [tom.address], 0, last)
    rows = await watch.connection.fetch(
        "SELECT manager, block_number, root FROM watch.session_root WHERE account = $1",
        hexed(tom.address),
    )
    assert {tuple(row) for row in rows} == {
        (hexed(manager), number, hexed(root))
        for (manager, _), changes in true.items()
        for number, root in changes
    }
    assert len(rows) == 4
    causes = [cause for _, cause in await said(watch, tom)]
    assert causes.count("tainted_account") >= 3
    # It was mended without a log, which the next log shows; then the root itself is wrong.
    await watch.until_verdict(tom, "drifted", "tainted_account")
    assert (await watch.devnet.submit(tom, [])).succeeded
    await watch.until_verdict(tom, "drifted", "unknown_root")
    shown = await watch.connection.fetchval(
        "SELECT tainted FROM watch.account WHERE account = $1", hexed(tom.address)
    )
    assert shown is False


# --- whose accounts -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["stored", "list"])
async def test_only_accounts_that_are_asked_for(
    mode: str,
    watch: Watch,
    database_url: str,
    connection: Connection,
    tmp_path: Path,
) -> None:
    """With accounts = "stored" or a list the others are not watched; theirs is complete."""
    devnet = watch.devnet
    mine, other = devnet.account(f"mine of {mode}"), devnet.account(f"other of {mode}")
    for one in (mine, other):
        await devnet.register(one, sessions(one, 1))
        await devnet.register(one, sessions(one, 1, 2))
    await devnet.rpc.mine(3)
    accounts: object = "stored" if mode == "stored" else [hexed(mine.address)]
    managers = [hexed(manager) for manager in MANAGERS]
    config = configuration(
        database_url, devnet.url, accounts=accounts, managers=managers, finality=2
    )
    async with running_daemon(tmp_path, config) as daemon:
        view = Watch(devnet, watch.proxy, database_url, connection, daemon)
        await view.settled()
        if mode == "stored":
            assert await connection.fetchval("SELECT count(*) FROM watch.account") == 0
            await view.store(mine, sessions(mine, 1, 2))
        await devnet.register(mine, sessions(mine, 3))
        await devnet.register(other, sessions(other, 3))
        await devnet.rpc.mine(3)
        await view.settled()
        assert await view.roots(mine) == [
            hexed(root_of_set(sessions(mine, *ids))) for ids in ((1,), (1, 2), (3,))
        ]
        watched = await connection.fetch("SELECT account, source FROM watch.account")
        assert [tuple(row) for row in watched] == [(hexed(mine.address), mode)]
        assert await connection.fetchval("SELECT count(*) FROM watch.user_operation") == 3
        verdict, cause = ("drifted", "unknown_root") if mode == "stored" else ("unmanaged", None)
        await view.until_verdict(mine, verdict, cause)
        assert await view.verdict(other) == {}
        assert await daemon.stop() == 0
    assert "Traceback" not in daemon.log()


async def test_a_verdict_is_visible_within_a_second(
    toolchain: Toolchain, postgres_url: str, tmp_path: Path
) -> None:
    """From the node's mining of a block to the verdict: under 1 s; memory under 150 MiB."""
    measured = await measure(toolchain, postgres_url, tmp_path, 0.25, 12)
    assert measured.p50_ms < 1000, measured
    assert measured.peak_mib < 150, measured


async def test_once_pays_what_an_import_has_added(
    watch: Watch, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """`run --once` after an import reads the past of the new account, though no block is new."""
    devnet = watch.devnet
    late = devnet.account("late")
    await devnet.register(late, sessions(late, 1))
    await devnet.register(late, sessions(late, 1, 2))
    await devnet.rpc.mine(3)
    config = configuration(database_url, devnet.url, accounts="stored", finality=2)
    async with running_daemon(tmp_path, config, "--once", name="before") as daemon:
        assert await daemon.ends() == 0
    view = Watch(devnet, watch.proxy, database_url, connection, daemon)
    assert await view.roots(late) == []
    await view.store(late, sessions(late, 1, 2), wait=False)
    async with running_daemon(tmp_path, config, "--once", name="after") as daemon:
        assert await daemon.ends() == 0
    assert await view.roots(late) == [
        hexed(root_of_set(sessions(late, *ids))) for ids in ((1,), (1, 2))
    ]
    assert (await view.verdict(late))["verdict"] == "in_sync"
