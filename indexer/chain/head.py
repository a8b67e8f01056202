"""The node's tip, its last final block, and headers by number or by hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from indexer.chain import wire
from indexer.chain.refusals import meaning_of
from indexer.chain.rpc import Node, NodeRefusedError
from indexer.core.types import BlockHeader, ChainHead
from indexer.errors import BlockUnknownError, NodeAnswerError, NodeError

_BY_NUMBER = "eth_getBlockByNumber"
_BY_HASH = "eth_getBlockByHash"
_ABSENT = frozenset({"block_unknown", "beyond_head"})


def by_number(block: int | str) -> tuple[str, list[Any]]:
    """Return the request for a header; `block` is a number or a tag."""
    return _BY_NUMBER, [hex(block) if isinstance(block, int) else block, False]


async def fetch_head(
    node: Node, finality_depth: int | None, end_block: int | None = None
) -> ChainHead:
    """Ask for the tip and the last final block.

    A node that has reached `end_block`, the last block of a chain by the operator's word, is
    taken to have nothing above it, and the end to be final: on a chain that has stopped neither
    tag nor depth ever comes that far.

    `finality_depth` None asks for the tag `finalized` in the same batch; a depth in blocks takes
    the header that far below the tip, not below block 0. Raises NodeAnswerError if the node has
    no such tag, or if its two answers contradict each other.
    """
    if end_block is not None:
        first, second = await node.batch(
            [by_number("latest"), by_number(end_block)], wire.HEADER_OR_NULL
        )
        if _present(node, first, "latest").number >= end_block:
            end = _present(node, second, end_block)
            return ChainHead(latest=end, finalized=end)
    if finality_depth is None:
        first, second = await node.batch(
            [by_number("latest"), by_number("finalized")], wire.HEADER_OR_NULL
        )
        latest = _present(node, first, "latest")
        finalized = _finalized(node, second)
    else:
        raw = await node.call(*by_number("latest"), wire.HEADER_OR_NULL)
        latest = _present(node, raw, "latest")
        finalized = latest
        if finality_depth > 0:
            number = max(latest.number - finality_depth, 0)
            answer = await node.call(*by_number(number), wire.HEADER_OR_NULL)
            finalized = _present(node, answer, number)
    if finalized.number > latest.number or (
        finalized.number == latest.number and finalized.hash != latest.hash
    ):
        # Two back-ends behind one URL: the next answer may be from a single one.
        raise node.bad_answer(
            _BY_NUMBER,
            f"finalized block {finalized.number} is not at or below latest {latest.number}",
        )
    return ChainHead(latest=latest, finalized=finalized)


async def fetch_header(node: Node, block: int | str) -> BlockHeader:
    """Return the header at a number or a tag (`latest`, `safe`, `finalized`).

    Raises BlockUnknownError where the node has no such block (yet).
    """
    answer = await node.call(*by_number(block), wire.HEADER_OR_NULL)
    if answer is None:
        raise BlockUnknownError(
            f"{node.name}: the node has no block {block}", remedy="name another block"
        )
    return _present(node, answer, block)


async def fetch_tagged(node: Node, tag: str) -> BlockHeader | None:
    """Return the header under a tag that not every node has; None if this one does not."""
    (answer,) = await node.batch([by_number(tag)], wire.HEADER_OR_NULL)
    return None if _has_no_tag(answer) else _present(node, answer, tag)


async def fetch_headers(node: Node, numbers: Sequence[int]) -> list[BlockHeader | None]:
    """Return the headers at these numbers in their order; None where the node has no block.

    None proves nothing: the node may lag. Raises NodeAnswerError if a header has another number.
    """
    answers = await node.batch([by_number(number) for number in numbers], wire.HEADER_OR_NULL)
    return [
        header_or_none(node, answer, number)
        for number, answer in zip(numbers, answers, strict=True)
    ]


def header_or_none(
    node: Node, answer: wire.RawHeader | NodeError | None, number: int
) -> BlockHeader | None:
    """Return one element of a batch of headers by number; None where the node has no block."""
    if answer is None:
        return None
    if isinstance(answer, NodeRefusedError) and meaning_of(answer) in _ABSENT:
        return None
    if isinstance(answer, NodeError):
        raise answer
    found = _converted(node, answer, _BY_NUMBER)
    if found.number != number:
        raise node.bad_answer(_BY_NUMBER, f"block {found.number} came for block {number}")
    return found


def _converted(node: Node, raw: wire.RawHeader, method: str) -> BlockHeader:
    try:
        return wire.header(raw)
    except ValueError as error:
        raise node.bad_answer(method, error) from None


def _present(
    node: Node, answer: wire.RawHeader | NodeError | None, block: int | str
) -> BlockHeader:
    if isinstance(answer, NodeError):
        raise answer
    if answer is None:
        raise node.bad_answer(_BY_NUMBER, f"null for block {block}")
    found = _converted(node, answer, _BY_NUMBER)
    if isinstance(block, int) and found.number != block:
        raise node.bad_answer(_BY_NUMBER, f"block {found.number} came for block {block}")
    return found


def _finalized(node: Node, answer: wire.RawHeader | NodeError | None) -> BlockHeader:
    """Return the finalized header; say how to do without where the node has no such tag."""
    if _has_no_tag(answer):
        raise NodeAnswerError(
            f"{node.name}: the node has no block under the tag finalized",
            remedy=f"set chains.{node.name}.finality to a depth in blocks",
        )
    return _present(node, answer, "finalized")


def _has_no_tag(answer: wire.RawHeader | NodeError | None) -> bool:
    """Say whether a node knows no such tag; one that only wants to be asked later may know it."""
    refused = isinstance(answer, NodeRefusedError) and meaning_of(answer) != "rate"
    return answer is None or refused
