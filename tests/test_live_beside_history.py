"""The benchmark of live changes beside history, at a size that takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.history_chain import Size
from tests.bench.history_report import table
from tests.bench.live_beside_history import Scene, measure, running_node


@pytest.mark.timeout(60)
async def test_what_is_measured_is_a_right_index(postgres_url: str, tmp_path: Path) -> None:
    """A small history is paid, compared with the chain, and every phase has its latencies."""
    size = Size(transfers=2000, accounts=200, operations=40, blocks=500)
    async with running_node(size) as node:
        found = await measure(Scene(postgres_url, tmp_path, node, 0.02), size, changes=2)

    assert found["verified"]["transfers"] == 2000
    assert found["verified"]["accounts"] == 200
    assert found["verified"]["root_changes"] == 20
    assert found["backfill"]["retries"] == 0
    assert found["latency"]["idle"]["p50_ms"] > 0
    assert "settled" in table(found)
