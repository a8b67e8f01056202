"""A simulated node and a client of it, for every test of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from indexer.chain.rpc import Node
from tests.sim.node import SimNode
from tests.sim.settings import chain_settings


@pytest.fixture
async def sim() -> AsyncIterator[SimNode]:
    """A simulated node that is up."""
    async with SimNode() as running:
        yield running


@pytest.fixture
async def node(sim: SimNode) -> AsyncIterator[Node]:
    """A client of `sim` with a short deadline and a small cap."""
    async with Node(
        chain_settings(sim.url), request_timeout_seconds=5.0, max_response_bytes=1 << 20
    ) as client:
        yield client
