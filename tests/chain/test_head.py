"""Tip, finalized block and headers: absent is None, contradictory is an error."""

from __future__ import annotations

import pytest

from indexer.chain.head import fetch_head, fetch_header, fetch_headers, fetch_tagged
from indexer.chain.rpc import Node, NodeRefusedError
from indexer.core.types import ChainHead
from indexer.errors import BlockUnknownError, NodeAnswerError
from tests.sim.faults import Answer, Drop, Fault, Refuse
from tests.sim.node import SimNode

BY_NUMBER = "eth_getBlockByNumber"


async def test_the_head_is_one_request(sim: SimNode, node: Node) -> None:
    """Tip and finalized block come from one batch, so from one back-end."""
    sim.mine(100)
    assert await fetch_head(node, None) == ChainHead(sim.header(100), sim.header(36))
    assert len(sim.requests) == 1


@pytest.mark.parametrize(("depth", "number"), [(0, 10), (3, 7), (10, 0), (500, 0)])
async def test_a_depth_replaces_the_tag(sim: SimNode, node: Node, depth: int, number: int) -> None:
    """Finality by depth is that far below the tip, and never below block 0."""
    sim.finality_depth = None
    sim.mine(10)
    assert await fetch_head(node, depth) == ChainHead(sim.header(10), sim.header(number))


@pytest.mark.parametrize("answer", [Refuse("finalized block not found", -39001), Answer(None)])
async def test_a_node_without_the_tag_is_explained(sim: SimNode, node: Node, answer: Fault) -> None:
    """Where the node knows no finalized block the remedy is to configure a depth."""
    sim.mine(3)
    right = sim.block(3).to_json()
    sim.fail(Answer(right), method=BY_NUMBER)
    sim.fail(answer, method=BY_NUMBER)
    with pytest.raises(NodeAnswerError, match="finalized") as caught:
        await fetch_head(node, None)
    assert caught.value.remedy == "set chains.mumbai.finality to a depth in blocks"


async def test_the_simulated_node_can_lack_the_tag(sim: SimNode, node: Node) -> None:
    """The error of a node without finality has the same remedy."""
    sim.finality_depth = None
    with pytest.raises(NodeAnswerError, match="tag finalized"):
        await fetch_head(node, None)


async def test_a_finalized_block_above_the_tip_is_a_contradiction(sim: SimNode, node: Node) -> None:
    """Two back-ends of different height in one answer are not believed."""
    sim.mine(5)
    sim.fail(Answer(sim.block(2).to_json()), method=BY_NUMBER)
    sim.fail(Answer(sim.block(4).to_json()), method=BY_NUMBER)
    with pytest.raises(NodeAnswerError, match="finalized block 4"):
        await fetch_head(node, None)


@pytest.mark.parametrize("fault", [Answer(None), Answer({"number": "0x1"}), Answer([]), Drop()])
async def test_a_head_without_a_tip_is_an_error(sim: SimNode, node: Node, fault: Fault) -> None:
    """Null or half a header for `latest` is an error, not an empty chain."""
    sim.fail(fault, method=BY_NUMBER)
    with pytest.raises(NodeAnswerError):
        await fetch_head(node, None)


async def test_a_refused_tip_is_an_error(sim: SimNode, node: Node) -> None:
    """A node that refuses `latest` is refused, and a bad depth header is told by its number."""
    sim.mine(5)
    sim.fail(Refuse("internal error"), method=BY_NUMBER)
    with pytest.raises(NodeRefusedError):
        await fetch_head(node, None)
    for result in (sim.block(2).to_json(), {**sim.block(3).to_json(), "hash": "0x00"}):
        sim.fail(Answer(sim.block(5).to_json()), method=BY_NUMBER)
        sim.fail(Answer(result), method=BY_NUMBER)
        with pytest.raises(NodeAnswerError):
            await fetch_head(node, 2)


async def test_headers_above_the_tip_are_none(sim: SimNode, node: Node) -> None:
    """A block the node does not have is None in its place, by null or by a refusal."""
    sim.mine(5)
    sim.lag_blocks = 1
    assert await fetch_headers(node, [3, 4, 5, 9]) == [sim.header(3), sim.header(4), None, None]
    sim.fail(Refuse("block range extends beyond current head block"), method=BY_NUMBER)
    assert await fetch_headers(node, [3]) == [None]
    assert await fetch_headers(node, []) == []


async def test_another_refusal_is_not_absence(sim: SimNode, node: Node) -> None:
    """An error that does not speak of the block stays an error."""
    sim.fail(Refuse("rate limit exceeded", -32005), method=BY_NUMBER)
    with pytest.raises(NodeRefusedError):
        await fetch_headers(node, [0])


async def test_a_header_of_another_number_is_refused(sim: SimNode, node: Node) -> None:
    """The header of another block is not taken for the one asked for."""
    sim.mine(5)
    sim.fail(Answer(sim.block(2).to_json()), method=BY_NUMBER)
    with pytest.raises(NodeAnswerError, match="block 2 came for block 3"):
        await fetch_headers(node, [3])


async def test_a_single_header_by_number_or_tag(sim: SimNode, node: Node) -> None:
    """The header asked for; a block the node does not have is unknown, another one an error."""
    sim.mine(100)
    assert await fetch_header(node, 7) == sim.header(7)
    assert await fetch_header(node, "latest") == sim.header(100)
    assert await fetch_header(node, "finalized") == sim.header(36)
    with pytest.raises(BlockUnknownError, match="no block 101"):
        await fetch_header(node, 101)
    sim.fail(Answer(sim.block(4).to_json()), method=BY_NUMBER)
    with pytest.raises(NodeAnswerError, match="block 4 came for block 7"):
        await fetch_header(node, 7)


async def test_a_tag_that_a_node_lacks_is_none(sim: SimNode, node: Node) -> None:
    """Null or a refusal of the tag is absence; a node that wants to be asked later may have it."""
    sim.mine(100)
    assert await fetch_tagged(node, "finalized") == sim.header(36)
    for absent in (Answer(None), Refuse("safe block not found", -39001)):
        sim.fail(absent, method=BY_NUMBER)
        assert await fetch_tagged(node, "safe") is None
    sim.fail(Refuse("rate limit exceeded", -32005), method=BY_NUMBER)
    with pytest.raises(NodeRefusedError):
        await fetch_tagged(node, "safe")
