"""`sessionwatch sessions validate`: what a node says of one session, all of it after one block."""

from __future__ import annotations

from indexer.audit import patiently
from indexer.chain.bulk import StateRead, read_codes, read_state, refusal
from indexer.chain.head import fetch_header
from indexer.chain.rpc import Node
from indexer.chain.slots import (
    FALLBACK_HANDLER_SLOT,
    address_in,
    implementation_slot,
    module_slot,
)
from indexer.core.session_check import SessionState, can_be_asked
from indexer.core.session_proof import SessionProof, validate_session_key_call
from indexer.core.settings import ChainSettings
from indexer.core.types import Address

GIVE_UP_SECONDS = 60.0
_REQUEST_SECONDS = 10.0


async def read_session_state(
    settings: ChainSettings,
    account: Address,
    manager: Address,
    proved: SessionProof,
    block: int | str,
    *,
    give_up_seconds: float = GIVE_UP_SECONDS,
) -> SessionState:
    """Ask the chain's node after one block, a number or a tag, which its hash then names.

    Raises WrongChainError, and what failed last once the node stays away for so long.
    """
    async with Node(settings, request_timeout_seconds=_REQUEST_SECONDS) as node:

        async def work() -> SessionState:
            await node.verify_chain()
            return await _read(node, account, manager, proved, block)

        return await patiently(work, "the node", give_up_seconds, event="node_awaited")


async def _read(
    node: Node, account: Address, manager: Address, proved: SessionProof, block: int | str
) -> SessionState:
    header = await fetch_header(node, block)
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
    refused = None
    if can_be_asked(codes[1]):
        refused = await refusal(node, at, manager, validate_session_key_call(account, proved))
    return SessionState(
        block=header,
        account_code=codes[0],
        implementation=address_in(words[0]),
        fallback_handler=address_in(words[1]),
        module_word=words[2],
        root=words[3],
        manager_code=codes[1],
        validation_module_code=codes[2],
        refusal=refused,
    )
