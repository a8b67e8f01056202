"""No URL of a node, and no key inside one, in anything that people or other programs read."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer import metrics
from indexer.chain.contracts import describe_endpoint, describe_manager
from indexer.chain.rpc import Node
from indexer.chain.scrub import MAX_TEXT_CHARACTERS, Scrubber
from indexer.core.types import Address
from indexer.errors import NodeError
from tests.sim.faults import Body, Fault, Oversize, Refuse, Reset, Status, Truncate
from tests.sim.node import SimNode
from tests.sim.settings import chain_settings

SECRETS = ("hunter2pass", "SECRETKEY1", "QUERYTOKEN9")


def secret_url(sim: SimNode) -> str:
    """Return the node's URL with a secret in every part that can hold one."""
    base = sim.url.replace("//", "//operator:hunter2pass@")
    return f"{base}/v3/SECRETKEY1?token=QUERYTOKEN9"


def everything_shown(error: BaseException | None) -> str:
    """Return the texts, arguments and traceback of an error and all it is chained to."""
    shown = ""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        shown += f"{error!r} {error.args!r} {getattr(error, 'remedy', '')}"
        shown += "".join(traceback.format_exception_only(error))
        error = error.__cause__ or error.__context__
    return shown


@pytest.mark.parametrize(
    "fault",
    [
        None,
        Status(502, b"proxy of /v3/SECRETKEY1"),
        Status(401),
        Status(302, headers={"Location": "http://127.0.0.1/v3/SECRETKEY1"}),
        Body(b"not found: /v3/SECRETKEY1?token=QUERYTOKEN9"),
        Refuse("bad key SECRETKEY1 for http://operator:hunter2pass@127.0.0.1/?token=QUERYTOKEN9"),
        Refuse("BAD KEY secretkey1"),
        Oversize(4 << 20),
        Truncate(),
        Reset(),
    ],
)
async def test_no_error_shows_a_url(sim: SimNode, fault: Fault | None) -> None:
    """Whatever goes wrong, error, chained errors, metrics and repr hold no part of the URL."""
    settings = chain_settings(secret_url(sim), name="secrets")
    if fault is None:
        await sim.stop()
    else:
        sim.fail(fault, times=4)
    async with Node(settings, max_response_bytes=1 << 20) as node:
        with pytest.raises(NodeError) as caught:
            await node.call("eth_chainId", [], str)
        shown = everything_shown(caught.value) + repr(node) + metrics.render().decode()
    report = await describe_endpoint(settings)
    assert report.error
    shown += repr(report)
    for secret in (*SECRETS, sim.url, "127.0.0.1", "operator"):
        assert secret.lower() not in shown.lower()


async def test_a_host_that_does_not_resolve_is_not_named() -> None:
    """The host name, which may itself be private, is not in the error."""
    url = "http://node.private-host.invalid/SECRETKEY1"
    async with Node(chain_settings(url)) as node:
        with pytest.raises(NodeError) as caught:
            await node.call("eth_chainId", [], str)
    with pytest.raises(NodeError) as by_web3:
        await describe_manager(chain_settings(url), Address(bytes(20)))
    for error in (caught.value, by_web3.value):
        assert "private-host" not in everything_shown(error)
        assert "SECRETKEY1" not in everything_shown(error)


@given(st.text(max_size=2000), st.text(max_size=2000))
def test_cleaned_texts_are_short_and_printable(before: str, after: str) -> None:
    """Around any other text the secrets vanish, and what stays is one bounded ASCII line."""
    scrubber = Scrubber(["https://user:hunter2pass@node.example.org/v3/SECRETKEY1?t=QUERYTOKEN9"])
    cleaned = scrubber.clean(f"{before} SECRETKEY1 https://other.example/x {after} hunter2pass")
    assert len(cleaned) <= MAX_TEXT_CHARACTERS
    assert cleaned.isascii()
    assert cleaned.isprintable() or not cleaned
    assert not any(secret in cleaned for secret in (*SECRETS, "://"))


def test_without_urls_nothing_is_hidden() -> None:
    """A scrubber that knows no secret leaves plain text alone."""
    assert Scrubber([]).clean("missing trie node") == "missing trie node"
