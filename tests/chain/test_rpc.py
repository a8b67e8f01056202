"""One request and its answer: matched, bounded, typed, whatever the node does."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from indexer import metrics
from indexer.chain.endpoint import NodeTimeoutError
from indexer.chain.rpc import BATCH_CALLS, Node, NodeRefusedError
from indexer.errors import (
    ConfigurationError,
    NodeAnswerError,
    NodeError,
    NodeUnreachableError,
    RangeTooLargeError,
    WrongChainError,
)
from tests.sim.faults import (
    Answer,
    Body,
    Drop,
    Element,
    Fault,
    Hold,
    Oversize,
    Refuse,
    Reset,
    Status,
    Truncate,
    Twice,
)
from tests.sim.node import SimNode
from tests.sim.settings import chain_settings

CHAIN_ID: tuple[str, list[Any]] = ("eth_chainId", [])


def counted(name: str, **labels: str) -> float:
    """Return the value of one sample of /metrics; 0 if it is not there."""
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


async def test_a_call_returns_the_typed_result(sim: SimNode, node: Node) -> None:
    """What comes back is of the type asked for."""
    assert await node.call("eth_chainId", [], str) == hex(sim.chain_id)
    assert await node.chain_id() == 80001
    assert sim.headers[0]["Content-Type"] == "application/json"


async def test_a_batch_is_split_and_keeps_its_order(sim: SimNode, node: Node) -> None:
    """250 calls are three HTTP requests, answered in the order asked."""
    sim.mine(250)
    calls: list[tuple[str, list[Any]]] = [
        ("eth_getBlockByNumber", [hex(number), False]) for number in range(250)
    ]
    answers = await node.batch(calls, dict[str, Any])
    assert [int(one["number"], 16) for one in answers if isinstance(one, dict)] == list(range(250))
    assert [len(request) for request in sim.requests] == [BATCH_CALLS, BATCH_CALLS, 50]


async def test_answers_are_matched_by_id(sim: SimNode, node: Node) -> None:
    """Answers in another order than the calls still reach the right call."""
    await node.call(*CHAIN_ID, str)
    sim.fail(Body(b'[{"id":3,"result":"0x3"},{"id":2,"result":"0x2"}]'))
    assert await node.batch([CHAIN_ID, CHAIN_ID], str) == ["0x2", "0x3"]


async def test_an_empty_batch_asks_nothing(sim: SimNode, node: Node) -> None:
    """No calls, no request."""
    assert await node.batch([], str) == []
    assert sim.requests == []


@pytest.mark.parametrize("fault", [Drop(), Twice(), Element({"id": 999}), Element({"id": "1"})])
async def test_a_missing_double_or_wrong_id_spoils_the_batch(
    sim: SimNode, node: Node, fault: Fault
) -> None:
    """A batch whose answers cannot be matched one to one is an error, never a guess."""
    sim.fail(fault, method="eth_blockNumber")
    with pytest.raises(NodeAnswerError):
        await node.batch([CHAIN_ID, ("eth_blockNumber", []), CHAIN_ID], str)


async def test_one_refused_element_leaves_the_others(sim: SimNode, node: Node) -> None:
    """An error or a null of one call stands in its place, the other answers are there."""
    sim.fail(Refuse("execution reverted", 3), method="eth_blockNumber")
    sim.fail(Answer(None), method="web3_clientVersion")
    first, second, third = await node.batch(
        [CHAIN_ID, ("eth_blockNumber", []), ("web3_clientVersion", [])], str
    )
    assert first == hex(80001)
    assert isinstance(second, NodeRefusedError)
    assert (second.code, second.text) == (3, "execution reverted")
    assert isinstance(third, NodeAnswerError)


async def test_a_batch_refused_as_a_whole_says_why(sim: SimNode, node: Node) -> None:
    """A single error object for a batch carries the node's reason."""
    sim.fail(Body(b'{"id":null,"error":{"code":-32005,"message":"batch too large"}}'))
    with pytest.raises(NodeRefusedError, match="batch too large"):
        await node.batch([CHAIN_ID, CHAIN_ID], str)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        b"null",
        b"[]",
        b"{}",
        b'{"id":1}',
        b'{"id":1,"result":',
        b'{"id":1,"result":null}',
        b'{"id":1,"result":5}',
        b'{"id":1,"result":{"a":"b"}}',
        b'{"id":2,"result":"0x1"}',
        b'{"id":1,"result":"\xff\xfe"}',
        b'{"id":1,"result":' + b"[" * 100_000,
        b'{"id":1,"result":"0x1"} trailing',
    ],
)
async def test_garbage_is_an_answer_error(sim: SimNode, node: Node, body: bytes) -> None:
    """What is not the asked JSON-RPC answer is one typed error, without the body in its text."""
    sim.fail(Body(body))
    with pytest.raises(NodeAnswerError) as caught:
        await node.call(*CHAIN_ID, str)
    assert "[[[" not in str(caught.value)
    assert "html" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (b'{"code":-32000,"message":"no"}', -32000, "no"),
        (b'{"code":"x","message":null}', 0, ""),
        (b'{"code":1e99}', 0, ""),
        (b'"overloaded"', 0, "overloaded"),
        (b'{"code":-32000,"message":"a\\nb\\u0000\\u001b[31mc"}', -32000, "a b [31mc"),
        (b'{"code":1,"message":"' + b"x" * 5000 + b'"}', 1, "x" * 299 + "~"),
    ],
)
async def test_errors_of_any_shape_are_refusals(
    sim: SimNode, node: Node, error: bytes, code: int, text: str
) -> None:
    """An error member means refused, whatever its shape; its text is one bounded printable line."""
    sim.fail(Body(b'{"id":null,"error":' + error + b"}"))
    with pytest.raises(NodeRefusedError) as caught:
        await node.call(*CHAIN_ID, str)
    assert (caught.value.code, caught.value.text) == (code, text)


async def test_a_refusal_under_an_http_error_is_read(sim: SimNode, node: Node) -> None:
    """Providers that put JSON-RPC errors under HTTP 400 are understood."""
    sim.fail(Status(400, b'{"id":1,"error":{"code":-32602,"message":"block range too large"}}'))
    with pytest.raises(NodeRefusedError, match="too large"):
        await node.call(*CHAIN_ID, str)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429, 500, 502, 503])
async def test_an_http_error_page_is_no_answer(sim: SimNode, node: Node, status: int) -> None:
    """Any other HTTP status is an unreachable node with its number and a remedy."""
    sim.fail(Status(status, b"<html>no</html>"))
    with pytest.raises(NodeUnreachableError, match=str(status)) as caught:
        await node.call(*CHAIN_ID, str)
    assert caught.value.remedy


@pytest.mark.parametrize("status", [408, 504])
async def test_a_gateway_timeout_is_a_timeout(sim: SimNode, node: Node, status: int) -> None:
    """A gateway that gave up waiting counts as a missed deadline."""
    sim.fail(Status(status))
    with pytest.raises(NodeTimeoutError):
        await node.call(*CHAIN_ID, str)


async def test_a_redirect_is_not_followed(sim: SimNode, node: Node) -> None:
    """A node cannot send this program, and its credentials, to another place."""
    async with SimNode() as other:
        sim.fail(Status(307, headers={"Location": other.url}))
        with pytest.raises(NodeUnreachableError, match="307") as caught:
            await node.call(*CHAIN_ID, str)
    assert "redirects" in caught.value.remedy
    assert other.requests == []


async def test_a_silent_node_runs_into_the_deadline(sim: SimNode) -> None:
    """A request ends at its deadline."""
    sim.fail(Hold())
    async with Node(chain_settings(sim.url), request_timeout_seconds=0.1) as node:
        with pytest.raises(NodeTimeoutError, match=r"0\.1 s"):
            await node.call(*CHAIN_ID, str)


async def test_a_body_past_the_cap_is_not_read_on(sim: SimNode, node: Node) -> None:
    """More bytes than accepted end the request, even where no length was announced."""
    sim.fail(Oversize(8 << 20))
    with pytest.raises(RangeTooLargeError, match="bytes"):
        await node.call(*CHAIN_ID, str)
    sim.fail(Status(413))
    with pytest.raises(RangeTooLargeError, match="413"):
        await node.call(*CHAIN_ID, str)
    assert await node.chain_id() == 80001


@pytest.mark.parametrize("fault", [Reset(), Truncate()])
async def test_a_cut_connection_is_tried_once_more(sim: SimNode, node: Node, fault: Fault) -> None:
    """One cut goes unnoticed; two in a row are an unreachable node."""
    sim.fail(fault)
    assert await node.chain_id() == 80001
    assert len(sim.requests) == 2
    sim.fail(fault, times=2)
    with pytest.raises(NodeUnreachableError, match="cut"):
        await node.call(*CHAIN_ID, str)
    assert len(sim.requests) == 4


async def test_the_next_endpoint_takes_over_and_stays(sim: SimNode) -> None:
    """Where the first endpoint is down, the second answers, and is asked first from then on."""
    async with SimNode() as other, Node(chain_settings(sim.url, other.url)) as node:
        await sim.stop()
        assert await node.chain_id() == 80001
        await sim.start()
        assert await node.chain_id() == 80001
        assert len(other.requests) == 2
        await other.stop()
        assert await node.chain_id() == 80001
        assert len(sim.requests) == 1
        await sim.stop()
        with pytest.raises(NodeUnreachableError, match=r"node-\d.*; node-\d.*"):
            await node.chain_id()


async def test_an_endpoint_of_another_chain_is_fatal(sim: SimNode) -> None:
    """A wrong chain id names the endpoint, both numbers and what to change."""
    settings = chain_settings(sim.url, chain_id=80002)
    async with Node(settings) as node:
        with pytest.raises(WrongChainError, match=r"node-0 serves chain 80001.*80002") as caught:
            await node.verify_chain()
    assert "chains.mumbai.chain_id" in caught.value.remedy


async def test_a_stand_in_is_verified_before_it_is_used(sim: SimNode) -> None:
    """An endpoint that was down at the start cannot bring in another chain later."""
    other = SimNode(chain_id=1)
    await other.start()
    await other.stop()
    async with Node(chain_settings(sim.url, other.url)) as node:
        await node.verify_chain()
        await sim.stop()
        await other.start()
        try:
            with pytest.raises(WrongChainError, match="node-1 serves chain 1"):
                await node.call("eth_blockNumber", [], str)
        finally:
            await other.stop()
    assert [calls[0][0] for calls in other.requests] == ["eth_chainId"]


async def test_verify_waits_for_nobody_but_needs_one(sim: SimNode) -> None:
    """With every endpoint down the chain is not verified but unreachable."""
    await sim.stop()
    async with Node(chain_settings(sim.url)) as node:
        with pytest.raises(NodeUnreachableError):
            await node.verify_chain()


def test_websocket_endpoints_alone_are_refused() -> None:
    """A clear mistake at the start, instead of a failure at the first request."""
    with pytest.raises(ConfigurationError, match=r"chains\.mumbai\.rpc") as caught:
        Node(chain_settings("wss://node.example/key"))
    assert "node.example" not in str(caught.value) + caught.value.remedy


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Answer("80001"), NodeAnswerError),
        (Answer("0x" + "1" * 17), NodeAnswerError),
        (Answer(None), NodeAnswerError),
        (Refuse("no"), NodeRefusedError),
    ],
)
async def test_a_chain_id_that_is_none_is_no_wrong_chain(
    sim: SimNode, node: Node, fault: Fault, kind: type[NodeError]
) -> None:
    """Only a number proves another chain; anything else is tried again."""
    sim.fail(fault, times=2)
    with pytest.raises(kind):
        await node.verify_chain()
    with pytest.raises(kind):
        await node.chain_id()


async def test_a_url_that_is_none_is_passed_over(sim: SimNode) -> None:
    """A malformed URL beside a good one does not stop the good one, nor is it shown."""
    async with Node(chain_settings("http://[SECRETKEY1", sim.url)) as node:
        assert await node.chain_id() == 80001


async def test_credentials_in_the_url_are_sent(sim: SimNode) -> None:
    """A user and password in the URL reach the node as basic authentication."""
    url = sim.url.replace("//", "//user:pass%20word@")
    async with Node(chain_settings(url)) as node:
        assert await node.chain_id() == 80001
    assert sim.headers[0]["Authorization"].startswith("Basic ")


async def test_requests_are_counted(sim: SimNode) -> None:
    """Every HTTP request is counted by endpoint, method and outcome, every batched call too."""
    sim.fail(Refuse("no"), method="web3_clientVersion")
    sim.fail(Body(b"?"), method="eth_blockNumber")
    async with Node(chain_settings(sim.url, name="counted")) as node:
        await node.batch([CHAIN_ID, CHAIN_ID], str)
        with pytest.raises(NodeRefusedError):
            await node.call("web3_clientVersion", [], str)
        with pytest.raises(NodeAnswerError):
            await node.call("eth_blockNumber", [], str)
    for method, outcome in (
        ("eth_chainId", "ok"),
        ("web3_clientVersion", "refused"),
        ("eth_blockNumber", "bad_answer"),
    ):
        labels = {"chain": "counted", "endpoint": "node-0", "method": method, "outcome": outcome}
        assert counted("sessionwatch_rpc_requests_total", **labels) == 1
    assert counted("sessionwatch_rpc_batch_elements_total", chain="counted") == 2
    assert counted("sessionwatch_rpc_request_seconds_count", chain="counted") == 3
