"""Every PromQL expression of the dashboards on a Prometheus that scraped a running daemon."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from indexer.core.verdict_values import Cause, Severity
from indexer.devnet.accounts import Devnet
from tests.daemon_process import until
from tests.deploy.grafana_files import Asked, expand_promql, queries
from tests.deploy.grafana_story import CHAIN, following, tell
from tests.deploy.monitoring import Server, prometheus_config, running_prometheus

PATIENCE_SECONDS = 40
QUERIES = [one for one in queries() if one.promql]
# Panels that show nothing after the story, and why that is right.
NOTHING = {
    "overview: State unknown A": "every root could be read",
    "internals: Suspected and settled reorgs A": "suspicions are not counted yet",
}
VARIABLES = {"chain": [CHAIN], "cause": get_args(Cause), "severity": get_args(Severity)}


async def shown(prometheus: Server, asked: Asked) -> list[dict[str, Any]]:
    """Return the series that a panel shows of the last minutes: [{"metric": …, "values": …}]."""
    expression = expand_promql(asked.promql, rate_interval="15s", range_="10m", **VARIABLES)
    end = time.time()
    if not asked.over_time:
        found = await prometheus.query(expression)
        return [{"metric": one["metric"], "values": [one["value"]]} for one in found]
    answer = await prometheus.get(
        "/api/v1/query_range",
        query=expression,
        start=str(end - 180),
        end=str(end),
        step="1",
    )
    return list(answer["data"]["result"])


def has_numbers(series: list[dict[str, Any]]) -> bool:
    """Say whether any value is a number: a quantile of nothing is none."""
    return any(not math.isnan(float(value)) for one in series for _, value in one["values"])


@pytest.mark.long  # Prometheus is unpacked from Debian's package
@pytest.mark.timeout(240)
async def test_every_panel_shows_what_was_scraped(
    devnet: Devnet, database_url: str, tmp_path: Path
) -> None:
    """Scraped each second while the stories are told, every expression gives numbers."""
    async with following(devnet, database_url, tmp_path) as daemon:
        port = (await daemon.logs("http_listening"))["port"]
        config = prometheus_config(tmp_path, [f"127.0.0.1:{port}"])
        async with running_prometheus(tmp_path, config) as prometheus:
            await until(lambda: is_scraped(prometheus), "the first scrape")
            await tell(devnet, database_url)
            end = time.monotonic() + PATIENCE_SECONDS
            while (empty := await not_shown(prometheus)) != set(NOTHING):
                if time.monotonic() > end:
                    break
                await devnet.rpc.mine()
            assert empty == set(NOTHING)
            await values_are_right(prometheus)
        assert await daemon.stop() == 0


async def not_shown(prometheus: Server) -> set[str]:
    """Return the queries that give no number."""
    return {str(one) for one in QUERIES if not has_numbers(await shown(prometheus, one))}


async def is_scraped(prometheus: Server) -> bool:
    return bool(await prometheus.query("sessionwatch_indexed_block"))


async def values_are_right(prometheus: Server) -> None:
    """What can be known beforehand is what the panels come to show."""
    by_name = {str(one): one for one in QUERIES}
    awaited = {
        "Daemon": {1.0},
        "Ready": {1.0},
        "Database": {1.0},
        "Node": {1.0},
        "Finality": {0.0},
        "Missing of the past": {0.0},
        "Not final yet": {16.0},
        "Drifted, critical": {4.0},
        "Drifted, other": {2.0},
    }
    for name, values in awaited.items():
        asked = by_name[f"overview: {name} A"]

        async def shows(asked: Asked = asked, values: set[float] = values) -> bool:
            found = await shown(prometheus, asked)
            return {float(one["values"][-1][1]) for one in found} == values

        await until(shows, f"{name} to show {values}", 20)
