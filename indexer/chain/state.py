"""State at a block: storage slots by block hash, transactions, code. An error is never a zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from indexer.chain import wire
from indexer.chain.refusals import typed
from indexer.chain.rpc import Node
from indexer.core.types import Address, Hash32
from indexer.errors import NodeError

ManagerKind = Literal["v1", "events", "unknown", "none"]
"""v1: setMerkleRoot emits nothing. events: MerkleRootUpdated is emitted. none: no code there."""

MERKLE_ROOT_UPDATED: Final = bytes.fromhex(
    "2d3b238aa223af835b06f5ddeb56c45951f7cf4a29ab728434765ef33cb7598f"
)
_SET_MERKLE_ROOT: Final = bytes.fromhex("7cb64759")
_VALIDATE_SESSION_KEY: Final = bytes.fromhex("b13152ee")


@dataclass(frozen=True, slots=True)
class Transaction:
    """What decoding needs of a transaction in a block. `to` None: a contract creation.

    `sender` is who signed and sent it; for a bundle of user operations that is the bundler.
    """

    hash: Hash32
    block_hash: Hash32
    block_number: int
    sender: Address
    to: Address | None
    input: bytes


async def fetch_transactions(
    node: Node, places: Sequence[tuple[Hash32, int]]
) -> list[Transaction | None]:
    """Return the transactions at (block hash, index), in the order asked; None where unknown.

    By place and not by hash: a node keeps blocks for longer than its index of transactions, and
    another branch cannot answer. None proves nothing: a node that lags answers null too.
    """
    method = "eth_getTransactionByBlockHashAndIndex"
    distinct = list(dict.fromkeys(places))
    answers = await node.batch(
        [(method, [wire.to_hex(block_hash), hex(index)]) for block_hash, index in distinct],
        wire.TRANSACTION_OR_NULL,
    )
    found: dict[tuple[Hash32, int], Transaction | None] = {}
    for place, answer in zip(distinct, answers, strict=True):
        if isinstance(answer, NodeError):
            raise typed(answer)
        if answer is None:
            found[place] = None
            continue
        try:
            transaction = _transaction(answer)
        except ValueError as error:
            raise node.bad_answer(method, error) from None
        if transaction.block_hash != place[0]:
            raise node.bad_answer(method, "the transaction is of another block than asked for")
        found[place] = transaction
    return [found[place] for place in places]


def _transaction(raw: wire.RawTransaction) -> Transaction:
    if raw.block_hash is None or raw.block_number is None:
        raise ValueError("a transaction of a block says that it is in none")
    return Transaction(
        hash=wire.hash32(raw.hash),
        block_hash=wire.hash32(raw.block_hash),
        block_number=wire.quantity(raw.block_number),
        sender=wire.address(raw.sender),
        to=None if raw.to is None else wire.address(raw.to),
        input=wire.data(raw.input),
    )


async def read_code(node: Node, address: Address, block: int | str = "latest") -> bytes:
    """Return the code at an address after a block (a number or a tag); empty: no contract."""
    method = "eth_getCode"
    when = hex(block) if isinstance(block, int) else block
    try:
        text = await node.call(method, [wire.to_hex(address), when], str)
    except NodeError as error:
        raise typed(error) from None
    try:
        return wire.data(text)
    except ValueError as error:
        raise node.bad_answer(method, error) from None


def manager_kind(code: bytes) -> ManagerKind:
    """Say from its code how a SessionKeyManager shows its root changes.

    The topic in the code is the test, not VERSION(): the first versions with the event have none.
    A manager that has neither the topic nor V1's two functions is `unknown`.
    """
    if not code:
        return "none"
    if MERKLE_ROOT_UPDATED in code:
        return "events"
    if _SET_MERKLE_ROOT in code and _VALIDATE_SESSION_KEY in code:
        return "v1"
    return "unknown"


async def find_deployment_block(node: Node, address: Address, latest: int) -> int | None:
    """Return the first block whose state has code at `address`, or None if `latest` has none.

    Bisects eth_getCode, some 26 calls on a long chain. Code that was destroyed in between is not
    found. Raises StatePrunedError where the node has no archive: configure start_block then.
    """
    if not await read_code(node, address, latest):
        return None
    without, having = -1, latest
    while having - without > 1:
        middle = (without + having) // 2
        if await read_code(node, address, middle):
            having = middle
        else:
            without = middle
    return having
