"""Reads of one block, as most tests ask for them."""

from __future__ import annotations

from collections.abc import Sequence

from indexer.chain.bulk import StateRead, read_state
from indexer.chain.rpc import Node
from indexer.core.types import Address, Hash32


async def read_slots(
    node: Node, block_hash: Hash32, slots: Sequence[tuple[Address, Hash32]]
) -> list[Hash32]:
    """Return the words of (contract, slot) after one block."""
    return await read_state(node, [StateRead(block_hash, where, slot) for where, slot in slots])
