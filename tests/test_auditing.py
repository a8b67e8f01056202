"""The daemon's own audit on a real chain: what changed unnoticed is found, repaired, explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from indexer.core.merkle import root_slot
from indexer.core.types import Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import SmartAccount, Transaction, root_of_set
from indexer.devnet.operations import set_root_call
from indexer.devnet.tools import Toolchain
from tests.daemon_process import command, until
from tests.test_live_verdicts import sessions
from tests.watching import Watch, hexed, tip_of, watching

ROOT = Hash32(b"\x5a" * 32)
ANSWERS_NO_PROOF = {"error": {"code": -32601, "message": "the method eth_getProof does not exist"}}


async def findings(watch: Watch) -> list[dict[str, Any]]:
    rows = await watch.connection.fetch("SELECT * FROM watch.audit_finding ORDER BY finding_id")
    return [dict(row) for row in rows]


async def found(watch: Watch, count: int = 1) -> list[dict[str, Any]]:
    """Wait for so many findings."""

    async def are_there() -> bool:
        return len(await findings(watch)) >= count

    await until(are_there, f"{count} findings", 20)
    return await findings(watch)


async def audited(watch: Watch, times: int = 2) -> list[dict[str, Any]]:
    """Wait until so many audits more have ended; return what the last says of each manager."""
    for _ in range(times):
        last = await watch.connection.fetchval("SELECT max(audited_at) FROM watch.audit")

        async def again(last: Any = last) -> bool:
            newest = await watch.connection.fetchval("SELECT min(audited_at) FROM watch.audit")
            return newest is not None and (last is None or newest > last)

        await until(again, "another audit", 20)
    rows = await watch.connection.fetch("SELECT * FROM watch.audit")
    return [dict(row) for row in rows]


async def proofs(watch: Watch) -> dict[str, str]:
    """Return what a whole new audit says of each manager's storage."""
    return {row["manager"]: row["storage_proof"] for row in await audited(watch)}


async def mismatches(watch: Watch) -> float:
    _, text = await watch.daemon.get("/metrics")
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "sessionwatch_audit_mismatches_total"
    )


async def put(watch: Watch, contract: Address, slot: Hash32, word: bytes) -> None:
    """Write a word of storage as no transaction does: without a log."""
    await watch.devnet.rpc.call(
        "anvil_setStorageAt", hexed(contract), hexed(slot), hexed(word.rjust(32, b"\0"))
    )
    await watch.devnet.rpc.mine()


async def change_of(watch: Watch, account: SmartAccount) -> int:
    """Return the first block with ROOT by its state."""
    tip, _ = await tip_of(watch.devnet)
    for number in range(tip, 0, -1):
        if await watch.devnet.root_of(at.MANAGER, account.address, number - 1) != ROOT:
            return number
    raise AssertionError("it always had it")


async def registered(watch: Watch, name: str) -> SmartAccount:
    """An account whose stored set is on chain, some blocks ago."""
    account = watch.devnet.account(name)
    wanted = sessions(account, 1, 2)
    await watch.store(account, wanted, wait=False)
    await watch.devnet.register(account, wanted)
    await watch.until_verdict(account, "in_sync", None)
    for _ in range(12):
        await watch.devnet.rpc.mine()
    await watch.settled()
    return account


async def test_a_root_that_changed_without_a_log(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """Found, written at its true block, counted once, and the verdict is another."""
    async with watching(toolchain, database_url, tmp_path, audit_seconds=1) as watch:
        account = await registered(watch, "anna")
        await audited(watch)
        assert (await findings(watch), await mismatches(watch)) == ([], 0)
        before = await watch.connection.fetchval("SELECT max(block_number) FROM watch.session_root")
        await put(watch, at.MANAGER, root_slot(account.address), ROOT)
        for _ in range(20):
            await watch.devnet.rpc.mine()
        changed = await change_of(watch, account)
        (one,) = await found(watch)
        assert (one["reason"], one["account"]) == ("no_log", hexed(account.address))
        assert (one["block_number"], one["previous_block"]) == (changed, changed - 1)
        assert before < changed
        assert one["stored_root"] == hexed(root_of_set(sessions(account, 1, 2)))
        assert one["found_root"] == hexed(ROOT)
        assert f"in block {changed}, in which the node shows no log" in one["explanation"]
        await watch.until_verdict(account, "drifted", "unknown_root")
        row = await watch.connection.fetchrow(
            "SELECT block_number, root, change_block_exact, attribution"
            "  FROM watch.session_root_current WHERE account = $1 AND manager = $2",
            hexed(account.address),
            hexed(at.MANAGER),
        )
        assert tuple(row) == (changed, hexed(ROOT), True, "none")
        await audited(watch)
        assert len(await findings(watch)) == 1
        assert await mismatches(watch) == 1
        (said,) = watch.daemon.events("audit_mismatch")
        assert (said["level"], said["reason"], said["block"]) == ("warning", "no_log", changed)
        assert watch.daemon.events("audit_finished")[0]["mismatches"] == 1
        assert len(watch.daemon.events("audit_finished")) == 1
        config = (tmp_path / "daemon.toml").read_text()
        _, status = await command(tmp_path, config, "status")
        assert "local: 1 findings of audits in the last day: see watch.audit_finding" in status


async def test_an_account_that_was_tainted_unnoticed(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """Its slot says so, and then its roots are read at every block: no second finding."""
    async with watching(toolchain, database_url, tmp_path, audit_seconds=1) as watch:
        account = await registered(watch, "bert")
        await put(watch, account.address, at.FALLBACK_HANDLER_SLOT, at.MANAGER)
        await put(watch, at.MANAGER, root_slot(account.address), ROOT)
        await watch.devnet.rpc.mine()
        told = {row["reason"]: row for row in await found(watch, 2)}
        assert set(told) == {"changed_slots", "tainted"}
        assert told["changed_slots"]["manager"] is None
        assert told["tainted"]["block_number"] == await change_of(watch, account)
        await watch.until_verdict(account, "drifted", "tainted_account")
        tainted = await watch.connection.fetchval(
            "SELECT tainted FROM watch.account WHERE account = $1", hexed(account.address)
        )
        assert tainted is True

        data = set_root_call(Hash32(b"\x77" * 32)).data
        await watch.devnet.send(Transaction(account.address, data, sender=at.STRANGER))
        await watch.devnet.rpc.mine()
        await watch.settled()
        assert (await watch.roots(account))[-1] == "0x" + "77" * 32
        await audited(watch)
        assert len(await findings(watch)) == 2


async def test_a_manager_whose_every_root_is_known_and_then_is_not(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """A plain address sets a root of its own: no mismatch, but somebody unknown; said once."""
    async with watching(toolchain, database_url, tmp_path, audit_seconds=1) as watch:
        account = await registered(watch, "carl")
        assert set((await proofs(watch)).values()) == {"complete"}
        await watch.set_root(account, Hash32(bytes(32)))  # also where the node keeps zeros
        await watch.devnet.rpc.mine()
        await watch.settled()
        assert set((await proofs(watch)).values()) == {"complete"}
        data = set_root_call(ROOT).data
        await watch.devnet.send(Transaction(at.MANAGER, data, sender=at.STRANGER))
        for _ in range(3):
            await watch.devnet.rpc.mine()
        (one,) = await found(watch)
        assert (one["reason"], one["manager"]) == ("unknown_user", hexed(at.MANAGER))
        assert (one["account"], one["found_root"]) == (None, None)
        told = await proofs(watch)
        assert told.pop(hexed(at.MANAGER)) == "others_exist"
        assert set(told.values()) == {"complete"}
        assert len(await findings(watch)) == 1
        assert await mismatches(watch) == 0
        assert len(watch.daemon.events("audit_mismatch")) == 1


async def test_a_node_without_proofs(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """Asked once, then not any more; roots are audited all the same."""
    async with watching(toolchain, database_url, tmp_path, audit_seconds=1) as watch:
        watch.proxy.refuse("eth_getProof", ANSWERS_NO_PROOF)
        account = await registered(watch, "dora")
        assert set((await proofs(watch)).values()) == {"unavailable"}
        assert watch.proxy.refused == 1
        assert not watch.daemon.events("step_retried")
        await put(watch, at.MANAGER, root_slot(account.address), ROOT)
        await watch.devnet.rpc.mine()
        (one,) = await found(watch)
        assert one["reason"] == "no_log"


@pytest.mark.parametrize("words", ["missing trie node 00 (path )", "backend failure 17"])
async def test_a_change_in_blocks_whose_state_is_gone(
    toolchain: Toolchain, database_url: str, tmp_path: Path, words: str
) -> None:
    """Known to stand at the audited block, and not to have changed there, however it is worded."""
    async with watching(toolchain, database_url, tmp_path, audit_seconds=1) as watch:
        account = await registered(watch, "emil")
        await audited(watch)
        pruned = {"error": {"code": -32000, "message": words}}
        hashes: set[str] = set()
        for method in ("eth_getStorageAt", "eth_call"):
            watch.proxy.refuse(method, pruned, lambda params: _old(params, hashes))
        tip, _ = await tip_of(watch.devnet)
        stored = await watch.connection.fetchval(
            "SELECT max(block_number) FROM watch.session_root WHERE account = $1",
            hexed(account.address),
        )
        # Every block that there is now is too old to be read once there are some more.
        for number in range(tip + 1):
            block = await watch.devnet.rpc.call("eth_getBlockByNumber", hex(number), False)
            hashes.add(block["hash"])
        await watch.devnet.rpc.call(
            "anvil_setStorageAt", hexed(at.MANAGER), hexed(root_slot(account.address)), hexed(ROOT)
        )
        await watch.devnet.rpc.call("anvil_mine", hex(3))
        (one,) = await found(watch)
        assert one["reason"] == "unknown"
        assert one["block_number"] > tip
        assert one["previous_block"] == stored
        row = await watch.connection.fetchrow(
            "SELECT block_number, change_block_exact FROM watch.session_root_current"
            " WHERE account = $1 AND manager = $2",
            hexed(account.address),
            hexed(at.MANAGER),
        )
        assert tuple(row) == (one["block_number"], False)
        await watch.until_verdict(account, "drifted", "unknown_root")


def _old(params: Any, hashes: set[str]) -> bool:
    return any(isinstance(one, dict) and one.get("blockHash") in hashes for one in params)


async def test_a_first_root_whose_log_the_node_omitted(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """The proof tells that a root is missing, so everybody is read; the rows come when final."""
    async with watching(toolchain, database_url, tmp_path, audit_seconds=1, finality=8) as watch:
        await registered(watch, "frida")
        gustav = watch.devnet.account("gustav")
        await watch.devnet.create(gustav)
        await watch.devnet.rpc.mine()
        await watch.settled()
        assert set((await proofs(watch)).values()) == {"complete"}
        watch.proxy.refuse("eth_getLogs", {"result": []})
        receipt = await watch.set_root(gustav, ROOT)
        await watch.settled()
        watch.proxy.heal()
        await watch.devnet.rpc.mine()
        (one,) = await found(watch)
        assert (one["reason"], one["account"]) == ("missed_log", hexed(gustav.address))
        assert one["block_number"] == receipt.block_number
        assert set((await proofs(watch)).values()) == {"complete"}
        await watch.until_verdict(gustav, "unmanaged", None)

        await watch.devnet.rpc.call("anvil_mine", hex(12))

        async def is_attributed() -> bool:
            return await watch.connection.fetchrow(
                "SELECT attribution, evidence FROM watch.session_root JOIN watch.user_operation"
                " AS o USING (user_op_hash) WHERE account = $1 AND o.success",
                hexed(gustav.address),
            ) == ("user_operation", "calldata")

        await until(is_attributed, "the rows of the block", 20)
        assert len(await findings(watch)) == 1


async def test_a_root_that_was_read_wrongly(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """What was seen at a block's hash stays; the truth shows from the block after it on."""
    async with watching(toolchain, database_url, tmp_path, audit_seconds=1) as watch:
        account = await registered(watch, "hanna")
        block = await watch.connection.fetchval(
            "UPDATE evidence.root_observation SET root = $1 WHERE account = $2 AND manager = $3"
            " AND root <> $4 RETURNING block_number",
            *(ROOT, account.address, at.MANAGER, bytes(32)),
        )
        (one,) = await found(watch)
        assert (one["reason"], one["block_number"]) == ("misread", block + 1)
        assert one["stored_root"] == hexed(ROOT)
        await audited(watch)
        assert len(await findings(watch)) == 1
        assert (await watch.roots(account))[-1] == hexed(root_of_set(sessions(account, 1, 2)))


async def test_a_reorg_while_a_mismatch_is_looked_into(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """The blocks that were read are gone, and with them the change: nothing is written."""
    async with watching(toolchain, database_url, tmp_path, audit_seconds=5) as watch:
        account = await registered(watch, "ida")
        before = await watch.roots(account)
        await audited(watch)
        tip, _ = await tip_of(watch.devnet)
        await put(watch, at.MANAGER, root_slot(account.address), ROOT)
        await watch.devnet.rpc.call("anvil_mine", hex(4))
        await watch.settled()

        async def reorg(_: list[Any]) -> None:
            newest, _ = await tip_of(watch.devnet)
            await watch.devnet.rpc.call("anvil_reorg", newest - tip + 1, [])

        # No block is new: whoever asks for logs now looks for those of the change.
        watch.proxy.before_next("eth_getLogs", reorg)

        async def is_rewound() -> bool:
            return bool(await watch.connection.fetchval("SELECT count(*) FROM chain.reorg"))

        await until(is_rewound, "the reorg", 20)
        await watch.devnet.rpc.mine()
        await watch.settled()
        await audited(watch)
        assert await findings(watch) == []
        assert await watch.roots(account) == before
        await watch.until_verdict(account, "in_sync", None)
