"""Fixtures of the local chain: real Anvil, real vendor contracts, a fresh chain for every test.

A chain with all contracts takes about 0.1 s, so nothing is shared between tests but the compiled
contracts, which are kept in the user's cache folder.
"""

from collections.abc import AsyncIterator

import pytest

from indexer.devnet.accounts import Devnet, running_devnet
from indexer.devnet.tools import Toolchain, prepare

__all__ = ["devnet", "toolchain"]


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """Anvil and the contracts; the first use on a machine downloads and compiles them."""
    return prepare()


@pytest.fixture
async def devnet(toolchain: Toolchain) -> AsyncIterator[Devnet]:
    """A chain of its own, mining one block per transaction, for one test."""
    async with running_devnet(toolchain) as running:
        yield running
