"""What the wordings of many providers mean. Texts as collected from their users' reports."""

from __future__ import annotations

import pytest

from indexer.chain.refusals import (
    Meaning,
    RangeRefusedError,
    is_revert,
    meaning_of,
    suggested_blocks,
    typed,
)
from indexer.chain.rpc import NodeRefusedError
from indexer.errors import BlockUnknownError, NodeAnswerError, StatePrunedError

NARROW: list[tuple[str, int, int | None]] = [
    (
        "query returned more than 10000 results. Try with this block range [0xA, 0x13].",
        -32005,
        10,
    ),
    (
        (
            "Log response size exceeded. You can make eth_getLogs requests with up to a 2K"
            " block range and no limit on the response size. Based on your parameters and the"
            " response size limit, this block range should work: [0x100, 0x1ff]"
        ),
        -32602,
        256,
    ),
    (
        (
            "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block"
            " range. Based on your parameters, this block range should work: [0x0, 0x9]."
        ),
        -32600,
        10,
    ),
    ("eth_getLogs is limited to a 10,000 range", -32614, 10_000),
    ("eth_getLogs is limited to a 1024 block range", -32000, 1024),
    ("block range is too wide", -32600, None),
    ("maximum [from, to] blocks distance: 1000", -32000, 1000),
    ("requested too many blocks from 1 to 9999, maximum is set to 2048", -32000, 2048),
    ("ranges over 10000 blocks are not supported on freetier", 35, 10_000),
    ("maximum block range: 50000", -32701, 50_000),
    ("Max range: 800", -32047, 800),
    ("Maximum allowed number of requested blocks is 1000", -32005, 1000),
    ("limited to 1024 block", -32602, 1024),
    ("exceeds the range allowed for your plan (10000 > 5000)", -32600, None),
    ("Block range limit exceeded.", -32602, None),
    ("please limit the query to at most 1000 blocks", -32602, 1000),
    ("query exceeds max block range 1000", -32000, 1000),
    ("block range greater than 2000 max", -32000, 2000),
    ("block range exceeds 1000", -32000, 1000),
    ("eth_getLogs range is too large, max is 1k blocks", -32600, 1000),
    ("query must be smaller than size 1024", -32000, None),
    ("block range is too wide (maximum 1024)", -32600, 1024),
    ("up to a 5000 block range", -32000, 5000),
    ("exceed max block range: 5000", -32000, 5000),
    ("eth_getLogs block range too large, range: 138001, max: 100000", -32005, 100_000),
    ("exceed maximum block range: 5000", -32000, 5000),
    ("maximum allowed is 2000 blocks", -32000, 2000),
    ("retry with the range 100-200", -32000, None),
    ("More than 10000 logs", -32000, None),
    ("10000 logs returned", -32000, None),
    ("too many logs", -32000, None),
    ("too wide blocks range, the limit is 500", -32000, 500),
    ("query exceeds max results 20000, retry with the range 10-20", -32000, None),
    ("logs matched by query exceeds limit of 10000", -32000, None),
    ("response size should not greater than 150000000 bytes", -32000, None),
    ("backend response too large", -32020, None),
    ("block range too large", -32000, None),
    ("allowed block range threshold exceeded", -32000, None),
    ("exceeded max allowed", -32000, None),
    ("range threshold exceeded", -32000, None),
    ("no backend is currently healthy to serve traffic", -32011, None),
    ("request timed out", -32002, None),
    ("408 Request Timed Out", -32002, None),
    ("context deadline exceeded", -32603, None),
    ("response is too big", -32008, None),
    ("the requested range is too large, max is 10k", -32000, 10_000),
    ("query exceeds limit", -32000, None),
    ("try paginating your request", -32000, None),
    ("anything else", -32614, None),
]
OTHERS: list[tuple[Meaning, str, int]] = [
    ("addresses", "please specify less number of addresses", -32602),
    ("addresses", "exceed max addresses or topics per search position", -32000),
    ("addresses", "filters count is 5000, current limit is 1000", -32602),
    ("rate", "rate limit exceeded", -32005),
    ("rate", "daily request count exceeded, request rate limited", -32005),
    ("rate", "Too Many Requests", -32005),
    ("rate", "requests limited to 25/second", -32007),
    ("rate", "Exceeded the quota usage", -32000),
    ("rate", "the service is under too much load", -32000),
    ("rate", "You have reached the free tier limit", -32000),
    ("rate", "Monthly capacity limit exceeded", 429),
    ("no_tag", "finalized block not found", -39001),
    ("no_tag", "safe block not found", -39001),
    ("no_tag", "finalized is not a supported commitment level", -32602),
    ("no_tag", "malformed blocknumber", -32602),
    ("block_unknown", "unknown block", -32000),
    ("block_unknown", "header not found", -32000),
    ("block_unknown", "Resource not found", -32001),
    ("block_unknown", "Block not found", -32001),
    ("block_unknown", "something of its own", -32001),
    ("beyond_head", "block range extends beyond current head block", -32000),
    ("beyond_head", "invalid block range", -32602),
    ("beyond_head", "BlockOutOfRangeError: block height is 7 but requested was 9", -32602),
    ("pruned", "BlockOutOfRangeError: block height is 700 but requested was 9", -32602),
    ("pruned", "missing trie node 5a (path ) state 0x5a is not available", -32000),
    ("pruned", "historical state 0xab is not available", -32000),
    ("pruned", "state at block #5 is pruned", -32000),
    ("pruned", "distance to target block exceeds maximum proof window", -32000),
    ("pruned", "pruned history unavailable", 4444),
    ("pruned", "required historical state unavailable (reexec=128)", -32000),
    ("other", "execution reverted", 3),
    ("other", "the method eth_getLogs does not exist/is not available", -32601),
    ("other", "", 0),
]


def _refused(text: str, code: int) -> NodeRefusedError:
    return NodeRefusedError("node-0", "eth_getLogs", code, text)


@pytest.mark.parametrize(("text", "code", "blocks"), NARROW)
def test_too_much_at_once_is_recognised(text: str, code: int, blocks: int | None) -> None:
    """Each wording means fewer blocks, and a number it names is the number of blocks."""
    assert meaning_of(_refused(text, code)) == "narrow"
    assert suggested_blocks(text) == blocks


@pytest.mark.parametrize(("meaning", "text", "code"), OTHERS)
def test_other_refusals_are_told_apart(meaning: Meaning, text: str, code: int) -> None:
    """Each wording has its one meaning, and an unknown one has none."""
    assert meaning_of(_refused(text, code)) == meaning


def test_refusals_become_the_errors_of_the_program() -> None:
    """An unknown block and a pruned state have types of their own; other errors stay."""
    assert isinstance(typed(_refused("unknown block", -32000)), BlockUnknownError)
    assert isinstance(typed(_refused("missing trie node", -32000)), StatePrunedError)
    for error in (_refused("execution reverted", 3), NodeAnswerError("no")):
        assert typed(error) is error


@pytest.mark.parametrize("text", ["[0xff, 0x1] range", "max 0", "", "limited to a fistful"])
def test_a_senseless_suggestion_is_none(text: str) -> None:
    """A range that ends before it begins, or no blocks at all, is not taken up."""
    assert suggested_blocks(text) is None


def test_the_suggestion_travels_with_the_error() -> None:
    """Who narrows the range can use the number the node named."""
    assert RangeRefusedError("too wide", suggested_blocks=7).suggested_blocks == 7


@pytest.mark.parametrize(
    ("text", "code", "reverted"),
    [
        ("execution reverted: SessionNotApproved", 3, True),
        ("execution reverted", -32000, True),
        ("Execution reverted", -32000, True),
        ("VM Exception while processing transaction: revert SessionNotApproved", -32603, True),
        ("SessionNotApproved", 3, True),
        ("out of gas", -32000, False),
        ("missing trie node: execution reverted", -32000, False),
        ("VM execution error.", -32015, False),
        ("reverting to a back-up", -32000, False),
        ("", 0, False),
    ],
)
def test_only_a_revert_is_the_contracts_word(text: str, code: int, reverted: bool) -> None:
    """A contract's refusal is told apart from every failure of the node."""
    assert is_revert(NodeRefusedError("endpoint-1", "eth_call", code, text)) is reverted
