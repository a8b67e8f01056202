"""Logs are taken only with proof of the block, or of the whole range, they belong to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from indexer.chain.endpoint import NodeTimeoutError
from indexer.chain.logs import (
    LogRequest,
    RangeSize,
    fetch_logs_by_hash,
    fetch_logs_in_range,
)
from indexer.chain.refusals import RangeRefusedError
from indexer.chain.rpc import Node, NodeRefusedError
from indexer.core.types import Address, Hash32, Log
from indexer.errors import (
    BlockUnknownError,
    NodeAnswerError,
    RangeTooLargeError,
    StatePrunedError,
)
from tests.sim.blocks import SimBlock, SimLog
from tests.sim.faults import Answer, Oversize, Refuse, Status
from tests.sim.node import SimNode

TOKEN, OTHER = Address(b"\x11" * 20), Address(b"\x22" * 20)
FIRST, SECOND = Hash32(b"\xaa" * 32), Hash32(b"\xbb" * 32)
ALL = LogRequest(None)
LOGS = [SimLog(TOKEN, (FIRST,), b"one"), SimLog(OTHER, (SECOND, FIRST), b"", 1), SimLog(OTHER)]


def expected(block: SimBlock, index: int) -> Log:
    """Return the log as it must come out."""
    log = block.logs[index]
    return Log(
        block_number=block.number,
        block_hash=block.hash,
        transaction_hash=block.transaction_hash(log.transaction),
        transaction_index=log.transaction,
        log_index=index,
        address=log.address,
        topics=log.topics,
        data=log.data,
        block_timestamp=None,
    )


def changed(block: SimBlock, index: int, **fields: Any) -> Answer:
    """Return an answer of one log with other fields."""
    return Answer([{**block.log_to_json(index, with_timestamp=False), **fields}])


def method_counts(sim: SimNode) -> list[int]:
    """Return how many logs calls each HTTP request held."""
    return [sum(name == "eth_getLogs" for name, _ in calls) for calls in sim.requests]


async def test_logs_by_hash_are_complete_and_sorted(sim: SimNode, node: Node) -> None:
    """Logs of several blocks come in order of block and index, whatever the order asked."""
    low, high = sim.mine(2, LOGS), sim.mine(3, LOGS[:1])
    found = await fetch_logs_by_hash(node, [high.header, low.header], [ALL])
    assert found == [*(expected(low, index) for index in range(3)), expected(high, 0)]
    sim.timestamps_in_logs = True
    found = await fetch_logs_by_hash(node, [high.header], [ALL])
    assert found[0].block_timestamp == high.header.timestamp


async def test_blocks_full_of_logs_are_asked_for_in_parts(sim: SimNode, node: Node) -> None:
    """Blocks whose logs together pass the cap on an answer come all the same; one alone may not."""
    big = SimLog(TOKEN, (FIRST,), bytes(200_000))
    headers = [sim.mine(1, [big]).header for _ in range(5)]
    assert [log.block_number for log in await fetch_logs_by_hash(node, headers, [ALL])] == [
        1, 2, 3, 4, 5,
    ]  # fmt: skip
    over = sim.mine(1, [big, big, big]).header
    with pytest.raises(RangeTooLargeError):
        await fetch_logs_by_hash(node, [over], [ALL])


async def test_overlapping_requests_give_each_log_once(sim: SimNode, node: Node) -> None:
    """A log that two filters match is one log."""
    block = sim.mine(1, LOGS)
    requests = [LogRequest((TOKEN,), ()), LogRequest(None, (FIRST,)), LogRequest((OTHER,), ())]
    found = await fetch_logs_by_hash(node, [block.header], requests)
    assert [log.log_index for log in found] == [0, 1, 2]
    ranged = await fetch_logs_in_range(node, 0, 1, requests)
    assert ranged.logs == found


async def test_filters_reach_the_node(sim: SimNode, node: Node) -> None:
    """Addresses and topic alternatives select what comes back."""
    block = sim.mine(1, LOGS)
    for request, indexes in (
        (LogRequest((TOKEN,), (FIRST, SECOND)), [0]),
        (LogRequest((TOKEN, OTHER), (SECOND,)), [1]),
        (LogRequest(None, (FIRST, SECOND)), [0, 1]),
        (LogRequest((OTHER,)), [1, 2]),
    ):
        found = await fetch_logs_by_hash(node, [block.header], [request])
        assert [log.log_index for log in found] == indexes


async def test_a_name_in_a_topic_reaches_the_node(sim: SimNode, node: Node) -> None:
    """Who is named where: in parts, as addresses are, and what does not name them is refused."""
    here = Hash32(bytes(12) + TOKEN)
    logs = [SimLog(OTHER, (FIRST, here)), SimLog(OTHER, (FIRST, SECOND, here)), SimLog(OTHER)]
    block = sim.mine(1, logs)
    node.addresses_per_filter = 1
    named = (OTHER, TOKEN)

    for position, index in ((1, 0), (2, 1)):
        request = LogRequest(None, (FIRST,), named, position)
        found = await fetch_logs_in_range(node, 1, 1, [request])
        assert found.logs == [expected(block, index)]
    assert method_counts(sim) == [2, 2]
    assert await fetch_logs_by_hash(node, [block.header], [LogRequest(None, (), named, 3)]) == []
    sim.fail(changed(block, 1), method="eth_getLogs", times=2)
    with pytest.raises(NodeAnswerError, match="not asked for"):
        await fetch_logs_in_range(node, 1, 1, [LogRequest(None, (FIRST,), named, 1)])


async def test_no_address_asks_nothing(sim: SimNode, node: Node) -> None:
    """An empty address list means no logs; sent to a node it would mean all of them."""
    block = sim.mine(1, LOGS)
    assert await fetch_logs_by_hash(node, [block.header], [LogRequest(())]) == []
    assert (await fetch_logs_in_range(node, 0, 1, [LogRequest(())])).logs == []
    assert method_counts(sim) == [0]


async def test_long_address_lists_are_split(sim: SimNode, node: Node) -> None:
    """2,500 addresses are three calls, and a node that wants fewer gets fewer from then on."""
    many = tuple(Address(number.to_bytes(20, "big")) for number in range(2499))
    block = sim.mine(1, LOGS)
    request = LogRequest((*many, TOKEN))
    found = await fetch_logs_by_hash(node, [block.header], [request])
    assert [log.log_index for log in found] == [0]
    sim.fail(Refuse("please specify less number of addresses"), method="eth_getLogs")
    assert await fetch_logs_by_hash(node, [block.header], [request]) == found
    sim.fail(Refuse("please specify less number of addresses"), method="eth_getLogs")
    assert (await fetch_logs_in_range(node, 1, 1, [request])).logs == found
    # 1,000, then 250, then 62 addresses per call.
    assert method_counts(sim) == [3, 3, 10, 10, 50]
    sim.fail(Refuse("too many addresses"), method="eth_getLogs", times=1000)
    with pytest.raises(NodeRefusedError, match="too many addresses"):
        await fetch_logs_by_hash(node, [block.header], [request])


async def test_a_block_that_lost_is_unknown(sim: SimNode, node: Node) -> None:
    """Logs of a hash the node does not know are an error of their own, not an empty list."""
    lost = sim.mine(3, LOGS)
    sim.fork(1)
    sim.mine(1)
    with pytest.raises(BlockUnknownError):
        await fetch_logs_by_hash(node, [lost.header], [ALL])


async def test_logs_of_another_block_are_refused(sim: SimNode, node: Node) -> None:
    """By hash, every log must carry the hash and the number of the block asked for."""
    one, two = sim.mine(1, LOGS), sim.mine(1, LOGS)
    sim.fail(changed(one, 0))
    with pytest.raises(NodeAnswerError, match="another block"):
        await fetch_logs_by_hash(node, [two.header], [ALL])
    sim.fail(changed(two, 0, blockNumber="0x1"))
    with pytest.raises(NodeAnswerError, match="another block"):
        await fetch_logs_by_hash(node, [two.header], [ALL])


@pytest.mark.parametrize(
    "fields",
    [
        {"removed": True},
        {"blockHash": None},
        {"logIndex": "1"},
        {"data": "0x1"},
        {"topics": ["0x" + "00" * 31]},
        {"address": "0x" + "11" * 21},
        {"topics": None},
    ],
)
async def test_a_malformed_log_is_refused(sim: SimNode, node: Node, fields: dict[str, Any]) -> None:
    """One bad field makes the answer an error; nothing of it is used."""
    block = sim.mine(1, LOGS)
    sim.fail(changed(block, 0, **fields), method="eth_getLogs", times=2)
    with pytest.raises(NodeAnswerError):
        await fetch_logs_by_hash(node, [block.header], [ALL])
    with pytest.raises(NodeAnswerError):
        await fetch_logs_in_range(node, 0, 1, [ALL])


@pytest.mark.parametrize("result", [None, {}, "0x", [None], 5])
async def test_what_is_no_list_is_an_error(sim: SimNode, node: Node, result: Any) -> None:
    """Null is not an empty list of logs."""
    block = sim.mine(1)
    sim.fail(Answer(result), method="eth_getLogs", times=2)
    with pytest.raises(NodeAnswerError):
        await fetch_logs_by_hash(node, [block.header], [ALL])
    with pytest.raises(NodeAnswerError):
        await fetch_logs_in_range(node, 0, 1, [ALL])


async def test_a_node_that_ignores_the_filter_is_refused(sim: SimNode, node: Node) -> None:
    """Logs of contracts or topics nobody asked for do not get in."""
    block = sim.mine(1, LOGS)
    for request, index in (
        (LogRequest((TOKEN,)), 1),
        (LogRequest(None, (SECOND,)), 0),
        (LogRequest(None, (SECOND,)), 2),
    ):
        sim.fail(changed(block, index))
        with pytest.raises(NodeAnswerError, match="not asked for"):
            await fetch_logs_by_hash(node, [block.header], [request])


async def test_one_place_holds_one_log(sim: SimNode, node: Node) -> None:
    """The same index with other content contradicts; the same log twice is one."""
    block = sim.mine(1, LOGS)
    one = block.log_to_json(0, with_timestamp=False)
    sim.fail(Answer([one, one]))
    assert len(await fetch_logs_by_hash(node, [block.header], [ALL])) == 1
    sim.fail(Answer([one, {**one, "data": "0x01"}]))
    with pytest.raises(NodeAnswerError, match="twice"):
        await fetch_logs_by_hash(node, [block.header], [ALL])


async def test_a_range_comes_with_its_last_header(sim: SimNode, node: Node) -> None:
    """Logs and the witness of the range come from one request."""
    low, _, high = sim.mine(3, LOGS), sim.mine(1), sim.mine(3, LOGS)
    found = await fetch_logs_in_range(node, 3, 7, [ALL], known_last=sim.header(7))
    assert found.logs == [expected(block, index) for block in (low, high) for index in range(3)]
    assert found.last_header == sim.header(7)
    assert [name for name, _ in sim.requests[0]] == ["eth_getLogs", "eth_getBlockByNumber"]
    assert (await fetch_logs_in_range(node, 1, 2, [ALL])).logs == []


async def test_a_lagging_back_end_proves_nothing(sim: SimNode, node: Node) -> None:
    """`[]` from a node that does not have the range's last block yet is not believed."""
    sim.mine(10, LOGS)
    sim.lag_blocks = 1
    with pytest.raises(BlockUnknownError, match="block 10"):
        await fetch_logs_in_range(node, 5, 10, [ALL])
    with pytest.raises(BlockUnknownError):
        await fetch_logs_in_range(node, 10, 10, [ALL])


async def test_a_range_of_another_branch_is_refused(sim: SimNode, node: Node) -> None:
    """The last header must be the block already known at that number."""
    sim.mine(10)
    known = sim.header(10)
    sim.fork(3)
    sim.mine(3)
    with pytest.raises(NodeAnswerError, match="another block"):
        await fetch_logs_in_range(node, 5, 10, [ALL], known_last=known)


async def test_logs_and_witness_must_agree(sim: SimNode, node: Node) -> None:
    """A log at the range's end with another hash than the header is refused."""
    block = sim.mine(4, LOGS)
    sim.fail(changed(block, 0, blockHash="0x" + "77" * 32), method="eth_getLogs")
    with pytest.raises(NodeAnswerError, match="different blocks"):
        await fetch_logs_in_range(node, 1, 4, [ALL])


async def test_one_number_has_one_hash(sim: SimNode, node: Node) -> None:
    """Logs of two blocks with the same number are refused inside the range, too."""
    block = sim.mine(4, LOGS)
    sim.mine(1)
    one = block.log_to_json(0, with_timestamp=False)
    two = {**block.log_to_json(1, with_timestamp=False), "blockHash": "0x" + "77" * 32}
    sim.fail(Answer([one, two]), method="eth_getLogs")
    with pytest.raises(NodeAnswerError, match="two different blocks 4"):
        await fetch_logs_in_range(node, 1, 5, [ALL])


async def test_logs_outside_of_the_range_are_refused(sim: SimNode, node: Node) -> None:
    """A log below or above the blocks asked for spoils the answer."""
    block = sim.mine(4, LOGS)
    sim.mine(2)
    for first, last in ((1, 3), (5, 6)):
        sim.fail(changed(block, 0), method="eth_getLogs")
        with pytest.raises(NodeAnswerError, match="block 4 came for"):
            await fetch_logs_in_range(node, first, last, [ALL])


async def test_the_wrong_witness_is_refused(sim: SimNode, node: Node) -> None:
    """A header of another number, a list, or half a header is no witness."""
    sim.mine(5)
    results: list[Any] = [sim.block(4).to_json(), [], {"number": "0x5"}]
    for result in results:
        sim.fail(Answer(result), method="eth_getBlockByNumber")
        with pytest.raises(NodeAnswerError):
            await fetch_logs_in_range(node, 1, 5, [ALL])


async def test_every_request_of_a_long_list_has_its_witness(sim: SimNode, node: Node) -> None:
    """With more calls than fit in one request each request proves itself, and they must agree."""
    sim.mine(5, LOGS)
    requests = [LogRequest((Address(bytes([n]) * 20),)) for n in range(150)]
    found = await fetch_logs_in_range(node, 1, 5, requests)
    assert [log.log_index for log in found.logs] == [0, 1, 2]
    assert method_counts(sim) == [99, 51]
    assert [calls[-1][0] for calls in sim.requests] == ["eth_getBlockByNumber"] * 2
    other = {**sim.block(5).to_json(), "hash": "0x" + "77" * 32}
    sim.fail(Answer(other), method="eth_getBlockByNumber")
    with pytest.raises(NodeAnswerError, match=r"another block|different blocks"):
        await fetch_logs_in_range(node, 1, 5, requests)


async def test_a_range_too_large_says_so(sim: SimNode, node: Node) -> None:
    """A refused width is RangeRefusedError with the node's number, which RangeSize takes up."""
    sim.mine(50, LOGS)
    sim.max_range_blocks = 10
    size = RangeSize(blocks=40)
    with pytest.raises(RangeRefusedError) as caught:
        await fetch_logs_in_range(node, 1, size.blocks, [ALL])
    size.narrow(caught.value)
    assert size.blocks == 10
    assert (await fetch_logs_in_range(node, 41, 50, [ALL])).last_header == sim.header(50)


async def test_a_timeout_means_fewer_blocks(sim: SimNode, node: Node) -> None:
    """A deadline missed on many blocks narrows the range; on one block it is a timeout."""
    sim.mine(5)
    sim.fail(Status(504))
    with pytest.raises(RangeRefusedError):
        await fetch_logs_in_range(node, 1, 5, [ALL])
    sim.fail(Status(504))
    with pytest.raises(NodeTimeoutError):
        await fetch_logs_in_range(node, 5, 5, [ALL])
    sim.fail(Oversize(4 << 20))
    with pytest.raises(RangeTooLargeError):
        await fetch_logs_in_range(node, 1, 5, [ALL])


async def test_other_refusals_keep_their_meaning(sim: SimNode, node: Node) -> None:
    """Pruned history, a head behind and an unknown error are three different errors."""
    block = sim.mine(5)
    for text, kind in (
        ("pruned history unavailable", StatePrunedError),
        ("block range extends beyond current head block", BlockUnknownError),
        ("internal error", NodeRefusedError),
    ):
        sim.fail(Refuse(text), method="eth_getLogs", times=2)
        with pytest.raises(kind):
            await fetch_logs_in_range(node, 1, 5, [ALL])
        with pytest.raises(kind):
            await fetch_logs_by_hash(node, [block.header], [ALL])


async def test_a_range_that_ends_before_it_begins_is_a_mistake(node: Node) -> None:
    """A wrong range is the caller's mistake, and not sent."""
    with pytest.raises(ValueError, match="no range"):
        await fetch_logs_in_range(node, 5, 4, [ALL])


def test_the_range_size_stays_within_its_bounds() -> None:
    """Halving ends at one block, growing at the most blocks, and each step moves."""
    size = RangeSize()
    steps = 0
    while size.blocks > 1:
        before = size.blocks
        size.narrow()
        assert size.blocks < before
        steps += 1
    size.narrow()
    assert (size.blocks, steps) == (1, 8)
    for _ in range(100):
        size.grow(size.blocks)
    assert size.blocks == 20_000
    size.narrow(RangeRefusedError("too wide", suggested_blocks=30_000))
    assert size.blocks == 10_000
    size.narrow(RangeTooLargeError("too many bytes"))
    assert size.blocks == 5_000


def test_ranges_are_as_long_as_what_comes_allows() -> None:
    """Where logs are dense fewer blocks are asked for, where they are rare more."""
    size = RangeSize(blocks=1000, most_logs=500)
    size.grow(1000, 1000)
    assert size.blocks == 500
    size.grow(500, 450)
    assert size.blocks == 500
    size.grow(500, 400)
    assert size.blocks == 625
    size.grow(624, 0)
    assert size.blocks == 625, "a shorter range shows nothing of longer ones"
    size.grow(100, 1000)
    assert size.blocks == 50, "but that they would bring too much it shows"
    size.grow(50, 10**9)
    assert size.blocks == 1


def test_what_a_node_refused_is_not_asked_for_again_at_once() -> None:
    """A fixed limit costs one refusal, and another only after a hundred ranges."""
    size, limit, refusals = RangeSize(blocks=2_000), 300, 0
    for _ in range(250):
        if size.blocks > limit:
            refusals += 1
            size.narrow()
        else:
            size.grow(size.blocks)
    assert refusals <= 6
    size = RangeSize(blocks=2_000)
    size.narrow(RangeRefusedError("too wide", suggested_blocks=limit))
    for _ in range(99):
        size.grow(limit)
        assert size.blocks == limit
    size.grow(limit)
    assert size.blocks > limit


def test_a_request_for_nothing_is_not_a_request_for_all() -> None:
    """None and the empty tuple are different requests."""
    assert replace(ALL, addresses=()) != ALL
