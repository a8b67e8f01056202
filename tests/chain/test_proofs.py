"""Whether a node gives proofs: only its word that it has no such method is for good."""

from __future__ import annotations

import pytest

from indexer.chain.proofs import read_storage_root
from indexer.chain.rpc import Node, NodeRefusedError
from indexer.core.types import Address, Hash32
from indexer.errors import BlockUnknownError, NodeAnswerError, StatePrunedError
from tests.sim.faults import Answer, Refuse
from tests.sim.node import SimNode

MANAGER, BLOCK, ROOT = Address(b"\x01" * 20), Hash32(b"\xbb" * 32), b"\x77" * 32


async def read(sim: SimNode, node: Node, fault: Answer | Refuse) -> Hash32 | None:
    sim.fail(fault, method="eth_getProof")
    return await read_storage_root(node, MANAGER, BLOCK)


async def test_the_root_of_the_storage_is_read(sim: SimNode, node: Node) -> None:
    """What else the proof holds is ignored."""
    assert await read(sim, node, Answer({"storageHash": "0x" + ROOT.hex(), "nonce": "0x1"})) == ROOT


@pytest.mark.parametrize(
    "fault",
    [
        Refuse("the method eth_getProof does not exist/is not available", -32601),
        Refuse("Unsupported method: eth_getProof", -32000),
        Refuse("Method not allowed", -32000),
    ],
)
async def test_a_node_without_proofs_says_so_for_good(
    sim: SimNode, node: Node, fault: Refuse
) -> None:
    """Then it need not be asked again."""
    assert await read(sim, node, fault) is None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Refuse("internal error", -32603), NodeRefusedError),
        (Refuse("distance to target block exceeds maximum proof window"), StatePrunedError),
        (Refuse("header not found"), BlockUnknownError),
        (Answer({"storageHash": "0x12"}), NodeAnswerError),
        (Answer(None), NodeAnswerError),
    ],
)
async def test_a_failure_says_nothing_of_the_next_time(
    sim: SimNode, node: Node, fault: Answer | Refuse, kind: type[Exception]
) -> None:
    """One bad answer does not end the proofs until the next start."""
    with pytest.raises(kind):
        await read(sim, node, fault)
