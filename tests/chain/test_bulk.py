"""Many words at once, by whatever way a node allows, are the words it gives one by one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chain.bulk import StateRead, read_codes, read_state, read_state_each
from indexer.chain.questions import WORDS_PER_REQUEST
from indexer.chain.readers import MARK, MAX_READS
from indexer.chain.rpc import Node, NodeRefusedError
from indexer.core.merkle import root_slot
from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.errors import (
    BlockUnknownError,
    NodeUnreachableError,
    StatePrunedError,
    WrongChainError,
)
from tests.sim.blocks import SimBlock, Slot
from tests.sim.calls import Overrides
from tests.sim.faults import Answer, Body, Fault, Refuse, Status
from tests.sim.node import SimNode
from tests.sim.settings import chain_settings

MANAGER, OTHER_MANAGER, TOKEN = (Address(bytes([n]) * 20) for n in (1, 2, 3))
ACCOUNTS = [Address(n.to_bytes(20, "big")) for n in range(1, MAX_READS + 1)]
# 0xef is what the code of a contract may not begin with: a deployless answer is such code.
ROOTS = {
    (MANAGER, root_slot(account)): Hash32(b"\xef" + n.to_bytes(31, "big"))
    for n, account in enumerate(ACCOUNTS)
    if n % 3 == 0
}
CODE = {MANAGER: b"\x60"}
PRUNED = Refuse("missing trie node 00 (path ) state is not available")


def root_reads(block: SimBlock, accounts: Sequence[Address] = ACCOUNTS) -> list[StateRead]:
    """Return the reads of the accounts' roots after a block."""
    return [StateRead.root(block.hash, MANAGER, account) for account in accounts]


def told(slots: Mapping[Slot, Hash32], reads: Sequence[StateRead]) -> list[Hash32]:
    """Return the words that these writes left."""
    return [slots.get((read.contract, read.slot), ZERO_HASH) for read in reads]


def methods(sim: SimNode) -> list[list[str]]:
    """Return the methods of each HTTP request that came in, and forget them."""
    found = [[method for method, _ in calls] for calls in sim.requests]
    sim.requests.clear()
    return found


@pytest.mark.parametrize(
    ("overrides", "deployless", "probes", "elements"),
    [
        ("run", True, 1, ["eth_call"]),
        ("refused", True, 2, ["eth_call"]),
        ("ignored", True, 2, ["eth_call"]),
        ("refused", False, 2, ["eth_getStorageAt"] * MAX_READS),
        ("ignored", False, 2, ["eth_getStorageAt"] * MAX_READS),
    ],
)
async def test_500_roots_take_what_the_node_is_able_to(
    sim: SimNode,
    node: Node,
    overrides: Overrides,
    deployless: bool,
    probes: int,
    elements: list[str],
) -> None:
    """What it can do is asked once; then one call, or five requests of single reads."""
    block = sim.mine(1, slots=ROOTS, code=CODE)
    sim.overrides, sim.deployless = overrides, deployless
    reads = root_reads(block)
    assert await read_state(node, reads) == told(ROOTS, reads)
    assert methods(sim)[:probes] == [["eth_call"]] * probes
    assert await read_state(node, reads) == told(ROOTS, reads)
    asked = methods(sim)
    assert [method for calls in asked for method in calls] == elements
    assert len(asked) == math.ceil(len(elements) / 100)


async def test_a_single_slot_is_read_plainly(sim: SimNode, node: Node) -> None:
    """One slot of a contract needs neither a probe nor a call, also beside others."""
    block = sim.mine(1, slots=ROOTS, code=CODE)
    reads = [
        StateRead.root(block.hash, MANAGER, ACCOUNTS[0]),
        StateRead.root(block.hash, OTHER_MANAGER, ACCOUNTS[0]),
    ]
    assert await read_state(node, reads * 3) == told(ROOTS, reads) * 3
    assert methods(sim) == [["eth_getStorageAt"] * 2]


async def test_all_forms_travel_together(sim: SimNode, node: Node) -> None:
    """What is asked in different ways at different blocks is one HTTP request."""
    block = sim.mine(1, slots=ROOTS, code=CODE)
    reads = [
        *root_reads(block, ACCOUNTS[:9]),
        StateRead(block.hash, TOKEN, ZERO_HASH),
        *root_reads(sim.mine(), ACCOUNTS[:3]),
    ]
    assert await read_state(node, reads) == told(ROOTS, reads)
    assert methods(sim) == [["eth_call"], ["eth_call", "eth_getStorageAt", "eth_call"]]


async def test_calls_are_bounded(sim: SimNode, node: Node) -> None:
    """At most 500 words a call and 10,000 an HTTP request, in the order asked."""
    count = WORDS_PER_REQUEST + MAX_READS + 1
    slots = {(MANAGER, Hash32(n.to_bytes(32, "big"))): Hash32(bytes([7]) * 32) for n in (0, count)}
    block = sim.mine(1, slots=slots)
    reads = [StateRead(block.hash, MANAGER, Hash32(n.to_bytes(32, "big"))) for n in range(count)]
    assert await read_state(node, reads) == told(slots, reads)
    assert [len(calls) for calls in methods(sim)] == [1, WORDS_PER_REQUEST // MAX_READS, 2]


@pytest.mark.parametrize("overrides", ["run", "refused"])
@pytest.mark.parametrize(
    "fault",
    [
        Answer("0x"),
        Answer("0x" + bytes(32 * MAX_READS).hex()),
        Answer("0x" + bytes(32 * (MAX_READS + 1)).hex()),
        Answer("0x" + (MARK + bytes(32 * (MAX_READS - 1))).hex()),
        Answer("0x" + (MARK + bytes(32 * MAX_READS + 1)).hex()),
        Answer(None),
        Refuse("execution reverted: missing trie node", 3),
        Refuse("out of gas"),
        Refuse("internal error", -32603),
    ],
)
async def test_a_bad_answer_to_a_call_is_not_believed(
    sim: SimNode, node: Node, overrides: Overrides, fault: Fault
) -> None:
    """Zeros without the mark, too few words or a revert: these reads are done one by one."""
    block = sim.mine(1, slots=ROOTS, code=CODE)
    sim.overrides = overrides
    reads = root_reads(block)
    await read_state(node, reads[:2])
    sim.fail(fault, method="eth_call")
    assert await read_state(node, reads) == told(ROOTS, reads)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Refuse("header not found"), BlockUnknownError),
        (Refuse("rate limit exceeded", -32005), NodeRefusedError),
        (PRUNED, StatePrunedError),
    ],
)
async def test_a_call_is_refused_as_single_reads_are(
    sim: SimNode, node: Node, fault: Fault, kind: type[Exception]
) -> None:
    """An unknown block, pruned state and a rate limit are no reason to ask in another way."""
    block = sim.mine(1, slots=ROOTS)
    await read_state(node, root_reads(block))
    methods(sim)
    sim.fail(fault, method="eth_call")
    with pytest.raises(kind):
        await read_state(node, root_reads(block))
    assert methods(sim) == [["eth_call"]]


async def test_a_manager_without_code_is_not_read_as_zeros(sim: SimNode, node: Node) -> None:
    """It returns nothing when called: its storage is asked instead, and may hold something."""
    block = sim.mine(1, slots=ROOTS)
    sim.overrides = "refused"
    reads = root_reads(block, ACCOUNTS[:4])
    assert await read_state(node, reads) == told(ROOTS, reads)
    assert methods(sim)[-2:] == [["eth_call"], ["eth_getStorageAt"] * 4]


async def test_slots_that_are_no_roots_are_not_asked_of_the_contract(
    sim: SimNode, node: Node
) -> None:
    """Without overrides only a manager's roots can be read at once."""
    block = sim.mine(1, slots=ROOTS, code=CODE)
    sim.overrides = "refused"
    reads = [StateRead(read.block_hash, MANAGER, read.slot) for read in root_reads(block)]
    assert await read_state(node, reads) == told(ROOTS, reads)
    assert methods(sim)[2:] == [["eth_getStorageAt"] * 100] * 5


@pytest.mark.parametrize("fault", [Status(503), Body(b"?"), Refuse("rate limit exceeded")])
async def test_a_probe_that_failed_proves_nothing(sim: SimNode, node: Node, fault: Fault) -> None:
    """The reads go on one by one, and a minute later the node is asked again."""
    block = sim.mine(1, slots=ROOTS, code=CODE)
    reads = root_reads(block, ACCOUNTS[:9])
    sim.fail(fault, method="eth_call", times=2)
    assert await read_state(node, reads) == told(ROOTS, reads)
    assert await read_state(node, reads) == told(ROOTS, reads)
    single = ["eth_getStorageAt"] * 9
    assert methods(sim) == [["eth_call"], ["eth_call"], single, single]
    assert node.state_habits.form_until_seconds <= asyncio.get_running_loop().time() + 60
    node.state_habits.form_until_seconds = 0
    assert await read_state(node, reads) == told(ROOTS, reads)
    assert methods(sim) == [["eth_call"], ["eth_call"]]


async def test_a_node_that_breaks_its_promise_is_not_asked_for_a_minute(
    sim: SimNode, node: Node
) -> None:
    """One that takes calls at the tip but none by block hash costs one more request a minute."""
    block = sim.mine(1, slots=ROOTS, code=CODE)
    reads = root_reads(block, ACCOUNTS[:9])
    await read_state(node, reads)
    sim.fail(Refuse("invalid argument 1: hex string expected", -32602), method="eth_call")
    methods(sim)
    for _ in range(3):
        assert await read_state(node, reads) == told(ROOTS, reads)
    single = ["eth_getStorageAt"] * 9
    assert methods(sim) == [["eth_call"], single, single, single]


async def test_another_endpoint_that_ignores_overrides_is_not_believed(sim: SimNode) -> None:
    """After a failover the answers lack the mark: no contract can say what its storage holds."""
    block = sim.mine(1, slots=ROOTS, code=CODE)
    reads = root_reads(block)
    other = sim.without_orphans()
    other.overrides = "ignored"
    async with other, Node(chain_settings(sim.url, other.url)) as node:
        assert await read_state(node, reads) == told(ROOTS, reads)
        await sim.stop()
        forged = Answer("0x" + bytes(32 * len(reads)).hex())
        other.fail(forged, method="eth_call")
        assert await read_state(node, reads) == told(ROOTS, reads)
    assert methods(other) == [["eth_call"]] + [["eth_getStorageAt"] * 100] * 5


# --- state that an endpoint has dropped ----------------------------------------------------------


async def test_pruned_reads_have_the_error_in_their_place(sim: SimNode, node: Node) -> None:
    """Those whose state is there have their words beside it; read_state raises."""
    old = sim.mine(1, slots=ROOTS)
    new = sim.mine(5)
    sim.prune_before = new.number
    reads = [
        StateRead.root(new.hash, MANAGER, ACCOUNTS[0]),
        *root_reads(old, ACCOUNTS[:3]),
        StateRead(old.hash, TOKEN, ZERO_HASH),
        *root_reads(new, ACCOUNTS[1:3]),
    ]
    found = await read_state_each(node, reads)
    assert [isinstance(one, StatePrunedError) for one in found] == [False] + [True] * 4 + [
        False
    ] * 2
    assert [found[0], *found[5:]] == told(ROOTS, [reads[0], *reads[5:]])
    with pytest.raises(StatePrunedError):
        await read_state(node, reads)
    sim.fail(Refuse("internal error"), method="eth_getStorageAt", times=9)
    with pytest.raises(NodeRefusedError):
        await read_state_each(node, reads)


@pytest.mark.parametrize("overrides", ["run", "refused", "ignored"])
async def test_the_endpoint_that_has_the_state_is_asked_for_it(
    sim: SimNode, overrides: Overrides
) -> None:
    """Exactly the pruned reads go to the others; who had them is asked first for a minute."""
    old = sim.mine(1, slots=ROOTS, code=CODE)
    new = sim.mine(5)
    bare, archive = sim.without_orphans(), sim.without_orphans()
    sim.prune_before = bare.prune_before = new.number
    archive.overrides = overrides
    urls = (sim.url,)
    async with bare, archive, Node(chain_settings(*urls, bare.url, archive.url)) as node:
        reads = [*root_reads(old), *root_reads(new)]
        assert await read_state(node, reads) == told(ROOTS, reads)
        assert methods(bare)[0] == ["eth_call"]
        assert ("eth_call" in methods(archive)[-1]) == (overrides == "run")
        assert await read_codes(node, [(old.hash, MANAGER), (new.hash, TOKEN)]) == [b"\x60", b""]
        assert methods(archive) == [["eth_getCode"]]
        assert methods(bare) == []
        node.state_habits.archive_until_seconds = 0
        await read_codes(node, [(old.hash, MANAGER)])
        assert methods(bare) == [["eth_getCode"]]


async def test_an_archive_that_cannot_be_reached_is_passed_over(sim: SimNode) -> None:
    """Then the state is pruned, not unknown; a helper's trouble stops nothing."""
    old = sim.mine(1, slots=ROOTS)
    sim.mine(5)
    archive, lagging = sim.without_orphans(), SimNode()
    sim.prune_before = 5
    await archive.start()
    async with lagging, Node(chain_settings(sim.url, archive.url, lagging.url)) as node:
        reads = root_reads(old, ACCOUNTS[:2])
        assert await read_state(node, reads) == told(ROOTS, reads)
        for fault in (Status(500), Body(b"?"), Refuse("upgrade your plan", -32601)):
            archive.fail(fault, times=2)
            with pytest.raises(StatePrunedError):
                await read_state(node, reads[:1])
            archive.heal()
        await archive.stop()
        assert all(isinstance(one, StatePrunedError) for one in await read_state_each(node, reads))
        with pytest.raises(StatePrunedError):
            await read_codes(node, [(old.hash, MANAGER)])
        await sim.stop()
        await lagging.stop()
        with pytest.raises(NodeUnreachableError):
            await read_state_each(node, reads)


async def test_an_archive_of_another_chain_is_not_asked(sim: SimNode) -> None:
    """An endpoint that was down at the start is verified before it gives state."""
    old = sim.mine(1, slots=ROOTS)
    sim.mine(5)
    sim.prune_before = 5
    other = SimNode(chain_id=1)
    await other.start()
    await other.stop()
    async with Node(chain_settings(sim.url, other.url)) as node:
        await node.verify_chain()
        await other.start()
        with pytest.raises(WrongChainError):
            await read_state_each(node, root_reads(old, ACCOUNTS[:1]))
        await other.stop()
    assert methods(other) == [["eth_chainId"]]


# --- whatever the node is able to ----------------------------------------------------------------


@st.composite
def chains(draw: st.DrawFn) -> dict[str, Any]:
    """Return slots written block by block, who has code, and reads of some of them."""
    words = st.binary(min_size=32, max_size=32).map(Hash32) | st.just(ZERO_HASH)
    accounts = ACCOUNTS[:6]
    contracts = [MANAGER, OTHER_MANAGER]
    slots = st.sampled_from(
        [(contract, root_slot(account)) for contract in contracts for account in accounts]
    )
    reads = st.tuples(
        st.integers(0, 2), st.sampled_from(contracts), st.sampled_from(accounts), st.booleans()
    )
    return {
        "writes": draw(st.lists(st.dictionaries(slots, words, max_size=8), min_size=3, max_size=3)),
        "with_code": draw(st.sets(st.sampled_from(contracts))),
        "reads": draw(st.lists(reads, max_size=30)),
        "overrides": draw(st.sampled_from(["run", "refused", "ignored"])),
        "archive_overrides": draw(st.sampled_from(["run", "refused", "ignored"])),
        "deployless": draw(st.booleans()),
        "prune_before": draw(st.integers(0, 3)),
        "has_archive": draw(st.booleans()),
    }


@given(chains())
@settings(max_examples=60, deadline=None)
async def test_bulk_reads_equal_single_reads(drawn: dict[str, Any]) -> None:
    """For any abilities of the endpoints, each word is the one eth_getStorageAt gives."""
    sim = SimNode()
    code = dict.fromkeys(drawn["with_code"], b"`")
    blocks = [sim.mine(1, slots=slots, code=code) for slots in drawn["writes"]]
    archive = sim.without_orphans()
    sim.prune_before, sim.deployless = drawn["prune_before"] + 1, drawn["deployless"]
    sim.overrides, archive.overrides = drawn["overrides"], drawn["archive_overrides"]
    reads = [
        StateRead.root(blocks[index].hash, contract, account)
        if known
        else StateRead(blocks[index].hash, contract, root_slot(account))
        for index, contract, account, known in drawn["reads"]
    ]
    async with sim, archive:
        urls = (sim.url, archive.url) if drawn["has_archive"] else (sim.url,)
        async with Node(chain_settings(*urls)) as node:
            found = await read_state_each(node, reads)
            for read, word in zip(reads, found, strict=True):
                if isinstance(word, StatePrunedError):
                    with pytest.raises(StatePrunedError):
                        await read_state(node, [read])
                else:
                    assert [word] == await read_state(node, [read])
    pruned = [index < drawn["prune_before"] for index, *_ in drawn["reads"]]
    expected = [one and not drawn["has_archive"] for one in pruned]
    assert [isinstance(word, StatePrunedError) for word in found] == expected
