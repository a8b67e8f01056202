"""What blocks cost the node: state is read where something may have changed, and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from indexer.core.types import Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import SmartAccount, Transaction
from indexer.devnet.operations import Call, call_data, mint_call, set_root_call
from indexer.devnet.tools import Toolchain
from tests.fixtures_database import temporary_database
from tests.watching import Watch, watching

STATE = {"eth_call", "eth_getStorageAt", "eth_getProof", "eth_getCode"}
QUIET_BLOCKS = 12


@pytest.fixture(scope="module")
async def watch(
    toolchain: Toolchain,
    postgres_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Watch]:
    """One chain and daemon for the module: every test has accounts of its own."""
    async with (
        temporary_database(postgres_url, template_database) as url,
        watching(toolchain, url, tmp_path_factory.mktemp("requests")) as running,
    ):
        yield running


@pytest.fixture
async def account(watch: Watch, request: pytest.FixtureRequest) -> SmartAccount:
    """An account with a root, whose blocks are indexed."""
    found = watch.devnet.account(request.node.name)
    await watch.set_root(found, Hash32(b"\x01" * 32))
    await watch.settled()
    return found


async def asked_for_state(watch: Watch) -> list[list[str]]:
    """Return the HTTP requests with a read of state since the last call, as their methods."""
    await watch.settled()
    found = [methods for methods in watch.proxy.asked if STATE & set(methods)]
    watch.proxy.asked.clear()
    return found


async def set_handler(watch: Watch, account: SmartAccount, handler: Address) -> None:
    call = Call(account.address, call_data("setFallbackHandler(address)", handler))
    assert (await watch.devnet.submit(account, [call])).succeeded


async def test_a_quiet_block_costs_no_read_of_state(watch: Watch, account: SmartAccount) -> None:
    """Empty blocks, other people's, a token for the account and ether for it: logs alone."""
    await asked_for_state(watch)
    await watch.devnet.rpc.mine(QUIET_BLOCKS)
    mint = mint_call(account.address, 1, 1)
    stranger = {"sender": at.STRANGER}
    for transaction in (
        Transaction(at.MANAGER, set_root_call(b"\x02" * 32).data, **stranger),
        Transaction(at.EVENT_MANAGER, set_root_call(b"\x02" * 32).data, **stranger),
        Transaction(mint.to, mint.data, **stranger),
        Transaction(account.address, value_wei=5, **stranger),
    ):
        assert (await watch.devnet.send(transaction)).succeeded
    await watch.settled()
    asked = Counter(method for methods in watch.proxy.asked for method in methods)
    assert asked["eth_getLogs"] >= 1
    assert await asked_for_state(watch) == []


async def test_a_trigger_costs_one_request(watch: Watch, account: SmartAccount) -> None:
    """The roots under all managers, of every account that acted in the block, travel together."""
    others = [watch.devnet.account(f"counted {n}") for n in range(3)]
    for one in others:
        await watch.devnet.create(one)
    ops = [
        await watch.devnet.owner_op(one, [set_root_call(b"\x03" * 32)])
        for one in (account, *others)
    ]
    await asked_for_state(watch)
    assert (await watch.devnet.send(watch.devnet.bundle(ops))).succeeded
    assert len(await asked_for_state(watch)) == 1


async def test_a_tainted_account_costs_a_request_a_block(
    watch: Watch, account: SmartAccount
) -> None:
    """Its root may change without a log; once it is mended, quiet blocks cost nothing again."""
    await set_handler(watch, account, at.MANAGER)
    await asked_for_state(watch)
    for _ in range(QUIET_BLOCKS):
        await watch.devnet.rpc.mine()
        await watch.settled()
    assert len(await asked_for_state(watch)) == QUIET_BLOCKS
    await set_handler(watch, account, at.FALLBACK_HANDLER)
    await asked_for_state(watch)
    await watch.devnet.rpc.mine(QUIET_BLOCKS)
    assert await asked_for_state(watch) == []
