"""Reports of `check`: a node's faults are told, never raised and never taken for answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from indexer.chain.contracts import EndpointReport, describe_endpoint, describe_manager
from indexer.core.types import Address
from indexer.errors import NodeUnreachableError
from tests.sim.faults import Answer, Body, Fault, Hold, Refuse, Status
from tests.sim.node import SimNode
from tests.sim.settings import chain_settings

MANAGER = Address(b"\x01" * 20)


async def test_a_node_without_finality_is_reported(sim: SimNode) -> None:
    """The missing tag is told apart from a block; the long extraData of Polygon is accepted."""
    sim.mine(10)
    sim.finality_depth = None
    report = await describe_endpoint(chain_settings(sim.url))
    assert report == EndpointReport(
        endpoint="node-0",
        chain_id=80001,
        client_version="sim/v1.0.0",
        latest=10,
        finalized=None,
        has_finalized_tag=False,
        latency_seconds=report.latency_seconds,
    )


@pytest.mark.parametrize(
    "fault",
    [
        Status(500),
        Status(307, headers={"Location": "/"}),
        Body(b"?"),
        Body(b"[]"),
        Answer("x"),
        Answer(None),
        Refuse("no"),
        Hold(),
    ],
)
async def test_faults_are_told(sim: SimNode, fault: Fault) -> None:
    """Whatever the node does, `check` gets a report with a reason, and no number from it."""
    sim.fail(fault, times=10)
    report = await describe_endpoint(chain_settings(sim.url), timeout_seconds=0.3)
    assert report.error
    assert report.error.startswith("node-0 could not be asked: ")
    assert (report.chain_id, report.latest) == (None, None)
    with pytest.raises(NodeUnreachableError):
        await describe_manager(chain_settings(sim.url), MANAGER, timeout_seconds=0.3)


async def test_websocket_endpoints_are_named_as_unused(sim: SimNode) -> None:
    """The second of two endpoints is asked by its number; a WebSocket one is not asked."""
    settings = chain_settings(sim.url, "wss://node.example/SECRETKEY1")
    report = await describe_endpoint(settings, 1)
    assert report.error == "node-1 is a WebSocket endpoint, which is not used"


async def test_an_address_without_code_is_no_manager(sim: SimNode) -> None:
    """Nothing deployed is said, not taken for a manager with empty roots."""
    report = await describe_manager(chain_settings(sim.url), MANAGER)
    assert (report.kind, report.has_code, report.code_bytes) == ("none", False, 0)
    sim.mine(1, code={MANAGER: b"\x60\x00"})
    report = await describe_manager(chain_settings(sim.url), MANAGER)
    assert (report.kind, report.has_code, report.code_bytes) == ("unknown", True, 2)


async def test_a_version_is_cleaned(sim: SimNode) -> None:
    """The text of VERSION() comes from a contract anybody can write: one short printable line."""
    sim.mine(1, code={MANAGER: b"\x60\x00"})
    text = b"1.1.0\n" + b"x" * 5000
    padded = text.ljust(-(-len(text) // 32) * 32, b"\0")
    word = (32).to_bytes(32, "big") + len(text).to_bytes(32, "big")
    sim.fail(Answer("0x" + (word + padded).hex()), method="eth_call")
    report = await describe_manager(chain_settings(sim.url), MANAGER)
    assert report.version.startswith("1.1.0 xxx")
    assert len(report.version) == 300


def test_web3_is_imported_when_it_is_needed() -> None:
    """Verbs that ask no contract do not pay for the import."""
    code = (
        "import sys, indexer.chain.contracts, indexer.chain.logs\n"
        "sys.exit(int('web3' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
