"""The same promises against Anvil with the vendor's contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from indexer.chain.contracts import describe_endpoint, describe_manager
from indexer.chain.head import fetch_head, fetch_headers
from indexer.chain.logs import LogRequest, fetch_logs_by_hash, fetch_logs_in_range
from indexer.chain.rpc import Node
from indexer.chain.slots import (
    FALLBACK_HANDLER_SLOT,
    SENTINEL_MODULE,
    address_in,
    implementation_slot,
    module_slot,
)
from indexer.chain.state import (
    fetch_transactions,
    find_deployment_block,
    manager_kind,
    read_code,
)
from indexer.core.merkle import root_slot
from indexer.core.types import ZERO_HASH, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, running_devnet
from indexer.devnet.anvil import AnvilOptions
from indexer.devnet.operations import Call, call_data, set_root_call
from indexer.devnet.tools import Toolchain
from indexer.errors import BlockUnknownError, NodeUnreachableError, StatePrunedError
from tests.chain.reading import read_slots
from tests.sim.settings import chain_settings

ROOT = Hash32(bytes(30) + b"\xab\xcd")


@pytest.fixture
async def real(devnet: Devnet) -> AsyncIterator[Node]:
    """A client of Anvil."""
    async with Node(chain_settings(devnet.url)) as client:
        await client.verify_chain()
        yield client


async def test_head_and_headers(devnet: Devnet, real: Node) -> None:
    """Tip, finalized block and linked headers come out of a real node."""
    await devnet.rpc.mine(100)
    head = await fetch_head(real, None)
    assert head.latest.number == await devnet.rpc.block_number()
    assert 0 < head.finalized.number < head.latest.number
    top = head.latest.number
    below, latest, above = await fetch_headers(real, [top - 1, top, top + 1])
    assert latest == head.latest
    assert below is not None
    assert below.hash == head.latest.parent_hash
    assert above is None
    assert (await fetch_head(real, 10)).finalized.number == top - 10


async def test_logs_by_hash_and_by_range_agree(devnet: Devnet, real: Node) -> None:
    """Both ways give the logs of the receipts, with the same values."""
    account = devnet.account("alice")
    first = await devnet.submit(account, [set_root_call(ROOT)])
    second = await devnet.create(devnet.account("bob"))
    headers = await fetch_headers(real, [first.block_number, second.block_number])
    request = LogRequest(None)
    by_hash = await fetch_logs_by_hash(real, [one for one in headers if one], [request])
    in_range = await fetch_logs_in_range(
        real, first.block_number, second.block_number, [request], known_last=headers[-1]
    )
    assert in_range.logs == by_hash
    told = [*first.logs, *second.logs]
    assert [log.log_index for log in by_hash] == [int(one["logIndex"], 16) for one in told]
    assert [log.data.hex() for log in by_hash] == [one["data"][2:] for one in told]
    only = await fetch_logs_in_range(real, 0, second.block_number, [LogRequest((at.FACTORY,))])
    assert {log.address for log in only.logs} == {at.FACTORY}
    (transaction,) = await fetch_transactions(real, [(first.block_hash, 0)])
    assert transaction is not None
    assert (transaction.to, transaction.hash) == (at.ENTRY_POINT, first.transaction_hash)


async def test_a_range_above_the_tip_is_not_empty(devnet: Devnet, real: Node) -> None:
    """Blocks that are not there yet are an error."""
    top = await devnet.rpc.block_number()
    for first in (0, top + 1):
        with pytest.raises(BlockUnknownError):
            await fetch_logs_in_range(real, first, top + 5, [LogRequest(None)])


async def test_roots_and_account_slots(devnet: Devnet, real: Node) -> None:
    """Root, implementation, handler and modules stand where slots.py says, at each block."""
    account = devnet.account("alice")
    created = await devnet.create(account)
    slots = [
        (at.MANAGER, root_slot(account.address)),
        (account.address, implementation_slot(account.address)),
        (account.address, FALLBACK_HANDLER_SLOT),
        (account.address, module_slot(at.ECDSA_MODULE)),
        (account.address, module_slot(at.MANAGER)),
    ]
    root, implementation, handler, ecdsa, manager = await read_slots(
        real, created.block_hash, slots
    )
    assert (root, manager) == (ZERO_HASH, ZERO_HASH)
    assert address_in(implementation) == at.IMPLEMENTATION
    assert address_in(handler) == at.FALLBACK_HANDLER
    assert address_in(ecdsa) == SENTINEL_MODULE

    enabled = await devnet.enable_module(account, at.MANAGER)
    assert enabled is not None
    changed = await devnet.submit(account, [set_root_call(ROOT)])
    root, _, _, ecdsa, manager = await read_slots(real, changed.block_hash, slots)
    assert root == ROOT
    assert address_in(manager) == at.ECDSA_MODULE
    assert address_in(ecdsa) == SENTINEL_MODULE
    assert (await read_slots(real, created.block_hash, slots))[0] == ZERO_HASH

    disable = call_data("disableModule(address,address)", SENTINEL_MODULE, at.MANAGER)
    disabled = await devnet.submit(account, [Call(account.address, disable)])
    assert disabled.succeeded
    assert (await read_slots(real, disabled.block_hash, slots))[4] == ZERO_HASH


async def test_a_block_that_lost_is_unknown(devnet: Devnet, real: Node) -> None:
    """After a reorg the old hash gives neither state nor logs, and no zero root."""
    account = devnet.account("alice")
    lost = await devnet.submit(account, [set_root_call(ROOT)])
    (header,) = await fetch_headers(real, [lost.block_number])
    assert header is not None
    await devnet.rpc.reorg(1)
    slot = (at.MANAGER, root_slot(account.address))
    with pytest.raises(BlockUnknownError):
        await read_slots(real, lost.block_hash, [slot])
    with pytest.raises(BlockUnknownError):
        await fetch_logs_by_hash(real, [header], [LogRequest(None)])
    (winner,) = await fetch_headers(real, [lost.block_number])
    assert winner is not None
    assert await read_slots(real, winner.hash, [slot]) == [ZERO_HASH]
    assert await fetch_transactions(real, [(lost.block_hash, 0)]) == [None]


async def test_pruned_state_is_told_apart(toolchain: Toolchain) -> None:
    """A real node without old state says pruned, by hash and in the bisection."""
    async with (
        running_devnet(toolchain, AnvilOptions(prune_history=10)) as devnet,
        Node(chain_settings(devnet.url)) as node,
    ):
        changed = await devnet.submit(devnet.account("alice"), [set_root_call(ROOT)])
        for _ in range(60):
            await devnet.rpc.mine()
        slot = (at.MANAGER, root_slot(devnet.account("alice").address))
        with pytest.raises(StatePrunedError):
            await read_slots(node, changed.block_hash, [slot])
        with pytest.raises(StatePrunedError):
            await find_deployment_block(node, at.FACTORY, await devnet.rpc.block_number())
        head = await fetch_head(node, 0)
        assert await read_slots(node, head.latest.hash, [slot]) == [ROOT]


async def test_the_deployment_block_of_an_account(devnet: Devnet, real: Node) -> None:
    """Bisecting finds the block that a receipt names."""
    account = devnet.account("alice")
    created = await devnet.create(account)
    await devnet.rpc.mine(30)
    top = await devnet.rpc.block_number()
    found = await find_deployment_block(real, account.address, top)
    assert found == created.block_number


async def test_manager_kinds_of_compiled_contracts(
    toolchain: Toolchain, devnet: Devnet, real: Node
) -> None:
    """The vendor's V1 has no event, the one with the event is seen, others are unknown."""
    for address, kind, version in (
        (at.MANAGER, "v1", ""),
        (at.EVENT_MANAGER, "events", "1.1.0"),
        (at.ENTRY_POINT, "unknown", ""),
        (at.STRANGER, "none", ""),
    ):
        assert manager_kind(await read_code(real, address)) == kind
        report = await describe_manager(chain_settings(devnet.url), address)
        assert (report.kind, report.has_code) == (kind, kind != "none")
        assert report.version == version
    assert manager_kind(toolchain.contracts["SessionKeyManager"].runtime_code) == "v1"


async def test_an_endpoint_describes_itself(devnet: Devnet) -> None:
    """web3 reports who the node is, how far it is and that it knows finality."""
    report = await describe_endpoint(chain_settings(devnet.url))
    assert report.error is None
    assert (report.endpoint, report.chain_id) == ("node-0", 80001)
    assert report.client_version.startswith("anvil/")
    assert report.latest == await devnet.rpc.block_number()
    assert report.has_finalized_tag
    assert report.finalized is not None
    assert report.latency_seconds is not None


async def test_a_node_that_goes_away_is_unreachable(toolchain: Toolchain) -> None:
    """A stopped node is an unreachable one, for the client and for web3."""
    async with running_devnet(toolchain) as devnet:
        settings = chain_settings(devnet.url)
    async with Node(settings) as node:
        with pytest.raises(NodeUnreachableError):
            await fetch_head(node, None)
    assert (await describe_endpoint(settings)).error
    with pytest.raises(NodeUnreachableError):
        await describe_manager(settings, at.MANAGER)
