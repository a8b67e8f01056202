"""How far a node's word on finality is taken, and where node and database last agreed."""

from __future__ import annotations

from indexer.chain.head import fetch_headers
from indexer.chain.rpc import Node
from indexer.core.types import BlockHeader
from indexer.errors import NodeAnswerError
from indexer.store import live
from indexer.store.pool import Database


async def shown_again(node: Node, finalized: BlockHeader) -> None:
    """Refuse to start at a block that the node cannot show by its number, on its parent.

    Nothing links it to what is stored, and a marker beyond the chain's end would hold the
    live lane up until an operator rewinds: one odd answer must not be enough for that.
    """
    numbers = range(max(finalized.number - 1, 0), finalized.number + 1)
    *before, again = await fetch_headers(node, numbers)
    linked = all(one is not None and one.hash == finalized.parent_hash for one in before)
    if again != finalized or not linked:
        raise NodeAnswerError(
            f"the node named block {finalized.number} as final, but does not show it again"
        )


async def last_agreed(database: Database, node: Node, chain_id: int, contradicted: int) -> int:
    """Return the highest stored block on which node and database agree, by bisecting.

    Hashes are stored of blocks with rows only, and an empty block that lost may have rows on
    the other branch: so all above the last block that is known to be shared has to go.
    """
    kept = max((await live.first_block(database, chain_id)) - 1, 0)
    agreed, differs = -1, contradicted
    while differs - agreed > 1:
        middle = (agreed + differs) // 2
        stored = await live.block_at_or_below(database, chain_id, middle)
        if stored is None or stored[0] <= agreed:
            agreed = middle
            continue
        number, ours = stored
        (theirs,) = await fetch_headers(node, [number])
        if theirs is None:
            raise NodeAnswerError(f"the node does not have block {number} just now")
        if theirs.hash == ours:
            agreed = kept = number
        else:
            differs = number
    return kept
