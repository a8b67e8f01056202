"""What a node proves of a whole contract: the root of its storage."""

from __future__ import annotations

import re

import msgspec

from indexer.chain import wire
from indexer.chain.refusals import typed
from indexer.chain.rpc import Node, NodeRefusedError
from indexer.core.types import Address, Hash32

_METHOD = "eth_getProof"
_METHOD_NOT_FOUND = -32601
_NO_SUCH_METHOD = re.compile(
    r"method .*(not (found|supported|available|allowed|exist)|does not exist|disabled)"
    r"|unsupported method|not whitelisted",
    re.IGNORECASE,
)


class _RawProof(msgspec.Struct, gc=False, rename="camel"):
    storage_hash: str


async def read_storage_root(node: Node, contract: Address, block_hash: Hash32) -> Hash32 | None:
    """Return the root of a contract's storage after the block with this hash (EIP-1186, EIP-1898).

    None: the node does not give proofs. Raises BlockUnknownError, StatePrunedError, and the other
    NodeErrors where another time may tell.
    """
    params = [wire.to_hex(contract), [], {"blockHash": wire.to_hex(block_hash)}]
    try:
        proof = await node.call(_METHOD, params, _RawProof)
    except NodeRefusedError as error:
        if error.code == _METHOD_NOT_FOUND or _NO_SUCH_METHOD.search(error.text):
            return None
        raise typed(error) from None
    try:
        return wire.hash32(proof.storage_hash)
    except ValueError as error:
        raise node.bad_answer(_METHOD, error) from None
