"""What a node's error means. Every provider has its own words; none of them means "empty".

What is not recognised stays `other`: the step is repeated, nothing is concluded from it.
Source of the wordings: error tables of Ponder, rindexer, Envio, Chainlink LogPoller, SQD and eRPC.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from indexer.chain.rpc import NodeRefusedError
from indexer.errors import BlockUnknownError, NodeError, RangeTooLargeError, StatePrunedError

Meaning = Literal[
    "narrow", "addresses", "block_unknown", "beyond_head", "pruned", "no_tag", "rate", "other"
]
"""narrow: fewer blocks. addresses: fewer of them in one filter. rate: wait. no_tag: the node does
not know `finalized`. The others as their names say."""

# First match wins, so a wording that could be taken for another stands before it.
TABLE: Sequence[tuple[Meaning, str]] = (
    # What a contract says when it reverts follows, and may be any of the texts below.
    ("other", r"^(vm exception.*: )?(execution )?revert(ed)?\b"),
    ("no_tag", r"finalized (block )?(not found|is not a supported)|safe block not found"),
    ("no_tag", r"malformed ?block ?number|unsupported (block )?tag|invalid block tag"),
    ("pruned", r"missing trie node|state .*(pruned|not available|unavailable)|pruned history"),
    ("pruned", r"history (has been |is )?pruned|block ?out ?of ?range ?error|required historical"),
    ("pruned", r"distance to target block exceeds|old data not available|no state (found|avail)"),
    ("pruned", r"historical state|archive (node|data|mode|state)|block is out of range"),
    ("beyond_head", r"beyond (the )?current head|beyond head|after last accepted block"),
    ("beyond_head", r"invalid block range|future block|greater than (the )?latest|above the head"),
    ("addresses", r"specify less number of address|addresses or topics per search position"),
    ("addresses", r"filters.*current limit is|too many addresses"),
    ("rate", r"rate limit|too many requests|exceeded the quota|under too much load|compute units"),
    (
        "rate",
        r"requests limited to|request (count|rate) exceeded|reached the free tier|monthly capacity",
    ),
    ("narrow", r"returned more than|try with this block range|block range should work"),
    ("narrow", r"log response size exceeded|limited to an? [\d,k]+|limited to [\d,k]+ block"),
    ("narrow", r"too wide|too large|is too big|too many (blocks|logs|results)|up to an? [\d,k]+"),
    ("narrow", r"range of more than|block range.*(limit|exceed|threshold|greater|max)"),
    ("narrow", r"blocks distance|ranges over [\d,k]+|max(imum)?( allowed)?( block)? range"),
    ("narrow", r"maximum allowed (number of requested blocks )?is|maximum is set to"),
    ("narrow", r"exceeds the range|range limit exceeded|range threshold exceeded"),
    ("narrow", r"limit the query to|query exceeds|exceeds? (max|limit)|exceeded max allowed"),
    ("narrow", r"must be smaller than size|more than [\d,k]+ (logs|results)|[\d,k]+ logs returned"),
    ("narrow", r"retry with the range|try paginating|should not greater than [\d,k]+ bytes"),
    ("narrow", r"request timed out|request timeout|context deadline|query timeout|timed out"),
    ("narrow", r"no backend is currently healthy"),
    ("block_unknown", r"unknown block|header not found|block not found|resource not found"),
    ("block_unknown", r"header for hash not found|could not find block|block .*not canonical"),
)
_TABLE = tuple((meaning, re.compile(pattern, re.IGNORECASE)) for meaning, pattern in TABLE)
_CODES: dict[int, Meaning] = {-32614: "narrow", -32001: "block_unknown", 4444: "pruned"}
"""Codes that mean one thing only. -32000, -32005 and -32602 mean everything."""

# Anvil says this of blocks above its head and of blocks whose state it dropped.
_HEIGHTS = re.compile(r"block height is (\d{1,19}) but requested was (\d{1,19})")
_HEX_RANGE = re.compile(r"\[(0x[0-9a-f]{1,16}), ?(0x[0-9a-f]{1,16})\]", re.IGNORECASE)
_BLOCKS = re.compile(
    r"(?:limited to(?: an?)?|max(?:imum)?(?: (?:allowed|block|range|distance|number|requested"
    r"|blocks|of|is|set|to))*:?|maximum:?|limit is|at most|up to an?|ranges over|distance:|max is"
    r"|maximum is set to|greater than|exceeds|a >) ?([\d,]{1,9})(k?)\b(?! ?(?:bytes|logs|results))",
    re.IGNORECASE,
)


def meaning_of(error: NodeRefusedError) -> Meaning:
    """Return what the node's error means; the wording decides, then the code."""
    heights = _HEIGHTS.search(error.text)
    if heights is not None:
        return "beyond_head" if int(heights[2]) > int(heights[1]) else "pruned"
    for meaning, pattern in _TABLE:
        if pattern.search(error.text):
            return meaning
    return _CODES.get(error.code, "other")


_REVERTED = re.compile(r"(?:vm exception[^:]*: )?(?:execution )?revert(?:ed)?\b", re.IGNORECASE)
_REVERT_CODE = 3


def is_revert(error: NodeRefusedError) -> bool:
    """Say whether it was the contract that refused, not the node.

    Source: execution-apis, eth_call: code 3; the wording is geth's, the longer one of Hardhat.
    """
    return error.code == _REVERT_CODE or _REVERTED.match(error.text) is not None


def suggested_blocks(text: str) -> int | None:
    """Return how many blocks a range may have, if the text says so."""
    exact = _HEX_RANGE.search(text)
    if exact is not None:
        blocks = int(exact[2], 16) - int(exact[1], 16) + 1
        return blocks if blocks >= 1 else None
    said = _BLOCKS.search(text)
    if said is None:
        return None
    digits = said[1].replace(",", "")
    blocks = int(digits or "0") * (1000 if said[2] else 1)
    return blocks if blocks >= 1 else None


class RangeRefusedError(RangeTooLargeError):
    """The node wants fewer blocks; `suggested_blocks` if it said how many."""

    def __init__(self, message: str, *, suggested_blocks: int | None = None) -> None:
        super().__init__(message, remedy="fewer blocks are asked for at once from now on")
        self.suggested_blocks = suggested_blocks


def typed(error: NodeError) -> NodeError:
    """Return a refusal as the error type for an unknown block or pruned state, else as it is."""
    if not isinstance(error, NodeRefusedError):
        return error
    meaning = meaning_of(error)
    if meaning in {"block_unknown", "beyond_head"}:
        return BlockUnknownError(str(error), remedy="the node lags, or a reorg took the block")
    if meaning == "pruned":
        return StatePrunedError(str(error), remedy="add the URL of an archive node to rpc")
    return error
