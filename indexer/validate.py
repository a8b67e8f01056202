"""`sessionwatch sessions validate`: what a node says of one session, all of it after one block."""

from __future__ import annotations

from collections.abc import Sequence

from indexer.audit import patiently
from indexer.chain.bulk import StateRead, read_codes, read_state, refusal
from indexer.chain.head import fetch_header, fetch_tagged
from indexer.chain.rpc import Node
from indexer.chain.slots import (
    FALLBACK_HANDLER_SLOT,
    address_in,
    implementation_slot,
    module_slot,
)
from indexer.core.other_tree import OtherTree, find_tree
from indexer.core.root_search import Base
from indexer.core.session_check import SessionState, can_be_asked
from indexer.core.session_proof import SessionProof, validate_session_key_call
from indexer.core.settings import ChainSettings
from indexer.core.types import ZERO_HASH, Address, BlockHeader
from indexer.errors import UsageError

GIVE_UP_SECONDS = 60.0
_REQUEST_SECONDS = 10.0


async def read_session_state(
    settings: ChainSettings,
    account: Address,
    manager: Address,
    proved: SessionProof,
    block: int | str,
    *,
    bases: Sequence[Base] | None = None,
    give_up_seconds: float = GIVE_UP_SECONDS,
) -> SessionState:
    """Ask the chain's node after one block, a number or a tag, which its hash then names.

    `bases` are the account's stored sets, newest first, among which a root that is not the set's
    is looked for. Raises UsageError if the block is above the node's tip or the node lacks the
    tag, WrongChainError, and what failed last once the node stays away for so long.
    """
    async with Node(settings, request_timeout_seconds=_REQUEST_SECONDS) as node:

        async def work() -> SessionState:
            await node.verify_chain()
            return await _read(node, account, manager, proved, block, bases)

        return await patiently(work, "the node", give_up_seconds, event="node_awaited")


async def _read(
    node: Node,
    account: Address,
    manager: Address,
    proved: SessionProof,
    block: int | str,
    bases: Sequence[Base] | None,
) -> SessionState:
    header = await _header(node, block)
    at = header.hash
    module = proved.session.session_validation_module
    codes = await read_codes(node, [(at, one) for one in (account, manager, module)])
    words = await read_state(
        node,
        [
            StateRead(at, account, implementation_slot(account)),
            StateRead(at, account, FALLBACK_HANDLER_SLOT),
            StateRead(at, account, module_slot(manager)),
            StateRead.root(at, manager, account),
        ],
    )
    root = words[3]
    other: OtherTree | None = None
    # An inner node is no session of whatever tree.
    if bases is not None and proved.index is not None and root not in (proved.root, ZERO_HASH):
        other = find_tree(proved, bases, root)
    refused = None
    if can_be_asked(codes[1]):
        shown = other.proved if other is not None and other.proved is not None else proved
        refused = await refusal(node, at, manager, validate_session_key_call(account, shown))
    return SessionState(
        block=header,
        account_code=codes[0],
        implementation=address_in(words[0]),
        fallback_handler=address_in(words[1]),
        module_word=words[2],
        root=root,
        manager_code=codes[1],
        validation_module_code=codes[2],
        refusal=refused,
        other=other,
    )


async def _header(node: Node, block: int | str) -> BlockHeader:
    """Return the block's header; UsageError where waiting would not help."""
    if isinstance(block, int):
        tip = await fetch_header(node, "latest")
        if block > tip.number:
            raise UsageError(
                f"{node.name} has no block {block} yet: the node's tip is block {tip.number}",
                remedy="name a block up to the tip, or leave out --at-block",
            )
    elif block != "latest":
        tagged = await fetch_tagged(node, block)
        if tagged is None:
            raise UsageError(
                f"{node.name}: the node has no block under the tag {block}",
                remedy="name the block by its number",
            )
        return tagged
    return await fetch_header(node, block)
