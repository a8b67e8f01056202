"""Bulk reads against Anvil: the same words in every form, and state that a real node dropped."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from indexer.chain.bulk import StateRead, read_codes, read_state, read_state_each
from indexer.chain.head import fetch_headers
from indexer.chain.readers import MARK, MAX_READS, Form, deployless_request, probe
from indexer.chain.rpc import Node, NodeRefusedError
from indexer.chain.slots import FALLBACK_HANDLER_SLOT, implementation_slot
from indexer.core.merkle import root_slot
from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.devnet.anvil import Anvil, AnvilOptions, running_anvil
from indexer.devnet.operations import set_root_call
from indexer.devnet.tools import Toolchain
from indexer.errors import BlockUnknownError, StatePrunedError
from tests.sim.blocks import hexed
from tests.sim.settings import chain_settings

ACCOUNTS = [Address(n.to_bytes(20, "big")) for n in range(1, MAX_READS + 1)]
# A deployless answer is code to the node, and code may not begin with 0xef.
ROOTS = {account: Hash32(b"\xef" + account.rjust(31, b"\0")) for account in ACCOUNTS[::3]}
FORMS: tuple[Form, ...] = ("override", "deployless", "single")


@pytest.fixture
async def real(devnet: Devnet) -> AsyncIterator[Node]:
    """A client of Anvil."""
    async with Node(chain_settings(devnet.url)) as client:
        await client.verify_chain()
        yield client


def believe(node: Node, form: Form) -> None:
    """Make the node's state be read in this form from now on."""
    node.state_habits.form, node.state_habits.form_until_seconds = form, math.inf


async def write_roots(anvil: Anvil) -> None:
    """Put the roots into the manager's storage."""
    await anvil.rpc.batch(
        [
            ("anvil_setStorageAt", [hexed(at.MANAGER), hexed(root_slot(account)), hexed(root)])
            for account, root in ROOTS.items()
        ]
    )


async def tip_hash(node: Node, anvil: Anvil) -> Hash32:
    """Return the hash of the newest block."""
    (header,) = await fetch_headers(node, [await anvil.rpc.block_number()])
    assert header is not None
    return header.hash


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_reads_what_the_contracts_wrote(
    devnet: Devnet, real: Node, form: Form
) -> None:
    """Roots of the vendor's managers and slots of an account, at each of two blocks."""
    believe(real, form)
    account, root = devnet.account("alice"), Hash32(b"\xef" * 32)
    created = await devnet.create(account)
    changed = await devnet.submit(account, [set_root_call(root)])
    reads = [
        read
        for receipt in (created, changed)
        for manager in (at.MANAGER, at.EVENT_MANAGER, at.STRANGER)
        for read in (
            StateRead.root(receipt.block_hash, manager, account.address),
            StateRead.root(receipt.block_hash, manager, at.STRANGER),
        )
    ]
    assert await read_state(real, reads) == [root if n == 6 else ZERO_HASH for n in range(12)]
    own = [implementation_slot(account.address), FALLBACK_HANDLER_SLOT]
    found = await read_state(
        real, [StateRead(changed.block_hash, account.address, slot) for slot in own]
    )
    assert [word[12:] for word in found] == [at.IMPLEMENTATION, at.FALLBACK_HANDLER]


async def test_500_roots_are_the_same_in_every_form(devnet: Devnet, real: Node) -> None:
    """The bound of a call is one that a node with the usual limits of gas and code accepts."""
    await write_roots(devnet.anvil)
    await devnet.rpc.mine()
    block_hash = await tip_hash(real, devnet.anvil)
    reads = [StateRead.root(block_hash, at.MANAGER, account) for account in ACCOUNTS]
    expected = [ROOTS.get(account, ZERO_HASH) for account in ACCOUNTS]
    for form in FORMS:
        believe(real, form)
        assert await read_state(real, reads) == expected
    request = deployless_request(at.MANAGER, ACCOUNTS, {"blockHash": hexed(block_hash)})
    assert await real.call(*request, str) == hexed(MARK + b"".join(expected))


async def test_what_anvil_can_do_is_found_out(devnet: Devnet, real: Node) -> None:
    """It takes both forms; a manager that is none makes the deployless call revert."""
    for form in FORMS[:2]:
        assert await real.call(*probe(form), str) == hexed(MARK)
    block_hash = await tip_hash(real, devnet.anvil)
    reads = [StateRead.root(block_hash, at.MANAGER, account) for account in ACCOUNTS[:2]]
    assert await read_state(real, reads) == [ZERO_HASH] * 2
    assert real.state_habits.form == "override"
    for nothing in (at.STRANGER, at.ENTRY_POINT):
        with pytest.raises(NodeRefusedError, match="revert"):
            await real.call(*deployless_request(nothing, ACCOUNTS[:2], "latest"), str)


@pytest.mark.parametrize("form", FORMS)
async def test_a_lost_block_is_unknown_in_every_form(
    devnet: Devnet, real: Node, form: Form
) -> None:
    """After a reorg no form gives the state of the block that lost, or a zero for it."""
    believe(real, form)
    lost = await devnet.create(devnet.account("alice"))
    await devnet.rpc.reorg(1)
    with pytest.raises(BlockUnknownError):
        await read_state(
            real, [StateRead.root(lost.block_hash, at.MANAGER, one) for one in ACCOUNTS[:3]]
        )


@pytest.mark.parametrize("form", FORMS)
async def test_what_a_real_node_pruned_an_archive_gives(toolchain: Toolchain, form: Form) -> None:
    """Two nodes with the same blocks, one of which keeps the state of the newest only."""
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                running_anvil(
                    toolchain.anvil,
                    AnvilOptions(genesis_time=1_700_000_000, prune_history=kept),
                )
            )
            for kept in (5, None)
        ]
        for anvil in nodes:
            code = toolchain.contracts["SessionKeyManager"].runtime_code
            await anvil.rpc.set_code(at.MANAGER, code)
            await write_roots(anvil)
            for seconds in range(1_700_000_100, 1_700_000_160):
                await anvil.rpc.set_next_timestamp(seconds)
                await anvil.rpc.mine()
        pruned, archive = nodes
        alone = await stack.enter_async_context(Node(chain_settings(pruned.url)))
        both = await stack.enter_async_context(Node(chain_settings(pruned.url, archive.url)))
        headers = await fetch_headers(both, [10, 60])
        old, new = (header.hash for header in headers if header is not None)
        reads = [
            StateRead.root(block, at.MANAGER, one) for block in (old, new) for one in ACCOUNTS[:9]
        ]
        expected = [ROOTS.get(account, ZERO_HASH) for account in ACCOUNTS[:9]]
        for node in (alone, both):
            believe(node, form)
        found = await read_state_each(alone, reads)
        assert all(isinstance(one, StatePrunedError) for one in found[:9])
        assert found[9:] == expected
        assert await read_state(both, reads) == expected * 2
        assert both.state_habits.archive == "node-1"
        with pytest.raises(StatePrunedError):
            await read_codes(alone, [(old, at.MANAGER)])
        assert await read_codes(both, [(old, at.MANAGER)]) == [code]
