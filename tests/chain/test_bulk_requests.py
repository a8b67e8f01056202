"""How many HTTP requests thousands of roots take."""

from __future__ import annotations

import math

import pytest

from indexer.chain.bulk import StateRead, read_state
from indexer.chain.head import fetch_headers
from indexer.chain.readers import MAX_READS, Form
from indexer.chain.rpc import Node
from indexer.core.merkle import root_slot
from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from tests.node_proxy import NodeProxy
from tests.sim.blocks import hexed
from tests.sim.settings import chain_settings

ACCOUNTS = [Address(n.to_bytes(20, "big")) for n in range(1, 5_001)]
ROOTS = {account: Hash32(b"\xef" + account.rjust(31, b"\0")) for account in ACCOUNTS[::7]}


@pytest.mark.parametrize("form", ["override", "deployless"])
async def test_5000_roots_take_one_request(devnet: Devnet, form: Form) -> None:
    """Once the node's abilities are known: ten calls of 500 roots, in one request."""
    await devnet.rpc.batch(
        [
            ("anvil_setStorageAt", [hexed(at.MANAGER), hexed(root_slot(account)), hexed(root)])
            for account, root in ROOTS.items()
        ]
    )
    await devnet.rpc.mine()
    async with NodeProxy(devnet.url) as proxy, Node(chain_settings(proxy.url)) as node:
        await node.verify_chain()
        (header,) = await fetch_headers(node, [await devnet.rpc.block_number()])
        assert header is not None
        if form == "deployless":
            proxy.refuse(
                "eth_call",
                {"error": {"code": -32602, "message": "too many arguments, want at most 2"}},
                lambda params: len(params) > 2,
            )
        reads = [StateRead.root(header.hash, at.MANAGER, account) for account in ACCOUNTS]
        expected = [ROOTS.get(account, ZERO_HASH) for account in ACCOUNTS]
        proxy.asked.clear()
        assert await read_state(node, reads) == expected
        assert node.state_habits.form == form
        # Probes before, each once: of overrides, and where they are refused of the other form.
        probes = [["eth_call"]] * (1 if form == "override" else 2)
        assert proxy.asked == [*probes, ["eth_call"] * (len(ACCOUNTS) // MAX_READS)]
        proxy.asked.clear()
        assert await read_state(node, reads) == expected
        assert len(proxy.asked) == 1


async def test_5000_roots_one_by_one_take_fifty_requests(devnet: Devnet) -> None:
    """Where a node takes neither form, a hundred single reads travel in each request."""
    await devnet.rpc.mine()
    async with NodeProxy(devnet.url) as proxy, Node(chain_settings(proxy.url)) as node:
        await node.verify_chain()
        (header,) = await fetch_headers(node, [await devnet.rpc.block_number()])
        assert header is not None
        node.state_habits.form, node.state_habits.form_until_seconds = "single", math.inf
        proxy.asked.clear()
        reads = [StateRead.root(header.hash, at.MANAGER, account) for account in ACCOUNTS]
        assert await read_state(node, reads) == [ZERO_HASH] * len(ACCOUNTS)
        assert proxy.asked == [["eth_getStorageAt"] * 100] * 50
