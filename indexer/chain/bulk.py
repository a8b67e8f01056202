"""State of many contracts at many block hashes, in one batch of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.chain import wire
from indexer.chain.refusals import typed
from indexer.chain.rpc import Node
from indexer.core.types import Address, Hash32
from indexer.errors import BlockUnknownError, NodeError, StatePrunedError


@dataclass(frozen=True, slots=True)
class StateRead:
    """One storage word: of `contract` at `slot`, after the block with this hash."""

    block_hash: Hash32
    contract: Address
    slot: Hash32


async def read_state(node: Node, reads: Sequence[StateRead]) -> list[Hash32]:
    """Return the words in the order asked; the same word is asked for once.

    Raises BlockUnknownError if the node does not know a hash, StatePrunedError if it dropped
    the state, NodeAnswerError for null or anything that is not a word. A contract without code
    reads as zeros: whether it is deployed is another question. Source: EIP-1898.
    """
    words: list[Hash32] = []
    for answer in await _words(node, reads):
        if isinstance(answer, NodeError):
            raise answer
        words.append(answer)
    return words


async def read_state_or_none(node: Node, reads: Sequence[StateRead]) -> list[Hash32 | None]:
    """Return the words in the order asked, None where the node has dropped the state or the block.

    None says nothing of the value. Every other error is raised, as by read_state.
    """
    words: list[Hash32 | None] = []
    for answer in await _words(node, reads):
        if isinstance(answer, StatePrunedError | BlockUnknownError):
            words.append(None)
        elif isinstance(answer, NodeError):
            raise answer
        else:
            words.append(answer)
    return words


async def _words(node: Node, reads: Sequence[StateRead]) -> list[Hash32 | NodeError]:
    """Return for each read its word, or what the node said instead; only bad words raise."""
    method = "eth_getStorageAt"
    distinct = list(dict.fromkeys(reads))
    answers = await node.batch(
        [
            (
                method,
                [
                    wire.to_hex(read.contract),
                    wire.to_hex(read.slot),
                    {"blockHash": wire.to_hex(read.block_hash)},
                ],
            )
            for read in distinct
        ],
        str,
    )
    words: dict[StateRead, Hash32 | NodeError] = {}
    for read, answer in zip(distinct, answers, strict=True):
        if isinstance(answer, NodeError):
            words[read] = typed(answer)
            continue
        try:
            words[read] = wire.word(answer)
        except ValueError as error:
            raise node.bad_answer(method, error) from None
    return [words[read] for read in reads]


async def read_codes(node: Node, reads: Sequence[tuple[Hash32, Address]]) -> list[bytes]:
    """Return the code at (block hash, address); empty: no contract. Errors as read_state."""
    method = "eth_getCode"
    answers = await node.batch(
        [
            (method, [wire.to_hex(address), {"blockHash": wire.to_hex(block_hash)}])
            for block_hash, address in reads
        ],
        str,
    )
    codes: list[bytes] = []
    for answer in answers:
        if isinstance(answer, NodeError):
            raise typed(answer)
        try:
            codes.append(wire.data(answer))
        except ValueError as error:
            raise node.bad_answer(method, error) from None
    return codes
