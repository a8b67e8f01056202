"""The frozen settings of one chain, as config.py hands them to everything below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from indexer.core.session_layout import Layout
from indexer.core.types import Address

TraceMode = Literal["off", "debug", "trace"]
"""Which tracing method of a node may be used: none, debug_ or trace_transaction."""
AccountsMode = Literal["factory", "stored", "list"]
Erc1155Mode = Literal["list", "touching", "all"]


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """What to follow on one chain.

    `finality_depth` None means the node's `finalized` tag. `accounts` is only used with
    accounts_mode "list", `erc1155` only with erc1155_mode "list". `start_block` None means:
    found by bisecting eth_getCode of the factory. `rpc` are URLs with credentials: never
    printed; `endpoint_names` are what logs and metrics show instead.
    """

    name: str
    chain_id: int
    rpc: tuple[str, ...]
    endpoint_names: tuple[str, ...]
    start_block: int | None
    poll_seconds: float
    finality_depth: int | None
    accounts_mode: AccountsMode
    accounts: tuple[Address, ...]
    erc1155_mode: Erc1155Mode
    erc1155: tuple[Address, ...]
    managers: tuple[Address, ...]
    factories: tuple[Address, ...]
    entry_points: tuple[Address, ...]
    implementations: tuple[Address, ...]
    grace_seconds: int
    audit_seconds: int
    retention_blocks: int | None = None
    """How far below finality raw detail is kept; None: for ever."""
    end_block: int | None = None
    """The chain's last block by the operator's word; nothing above it is followed or stored."""
    routers: tuple[Address, ...] = ()
    """Batched session routers: the modules whose signatures carry sessions of several calls."""
    traces: TraceMode = "off"
    """Whether traces are asked for to settle who changed a root."""
    session_layouts: Mapping[Address, Layout] = field(default_factory=dict)
    """How modules beyond the known ones lay out session_key_data."""
    retired: str = ""
    """Not empty: the public chain is gone; the sentence says since when and what to use."""

    def __repr__(self) -> str:
        return f"ChainSettings({self.name}, chain_id={self.chain_id})"
