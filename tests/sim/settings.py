"""Settings of a chain for tests that need no configuration file."""

from __future__ import annotations

from indexer.core.settings import ChainSettings


def chain_settings(
    *urls: str, name: str = "mumbai", chain_id: int = 80001, finality_depth: int | None = None
) -> ChainSettings:
    """Return settings that name these endpoints node-0, node-1 and so on."""
    return ChainSettings(
        name=name,
        chain_id=chain_id,
        rpc=urls,
        endpoint_names=tuple(f"node-{index}" for index in range(len(urls))),
        start_block=0,
        poll_seconds=0.05,
        finality_depth=finality_depth,
        accounts_mode="factory",
        accounts=(),
        erc1155_mode="all",
        erc1155=(),
        managers=(),
        factories=(),
        entry_points=(),
        implementations=(),
        grace_seconds=600,
        audit_seconds=300,
    )
