"""Debian's Prometheus and Alertmanager beside a real daemon whose accounts have drifted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from indexer.devnet.accounts import root_of_set
from indexer.devnet.tools import Toolchain
from tests.daemon_process import until
from tests.deploy import promql
from tests.deploy.debian import program
from tests.deploy.monitoring import (
    alertmanager_config,
    prometheus_config,
    running_alertmanager,
    running_prometheus,
    webhook,
)
from tests.deploy.story import told
from tests.deploy.test_prometheus import ALERTS, RULES_FILE, rules_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


async def test_every_expression_has_data_on_a_real_prometheus(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """Each recorded series has values; so has each series that an alert asks for."""
    async with told(toolchain, database_url, tmp_path) as story:
        config = prometheus_config(tmp_path, [story.target])
        async with running_prometheus(tmp_path, config) as prometheus:
            await prometheus.has("up == 1")
            await story.node_refuses_until(
                lambda: prometheus.has("sessionwatch:rpc_refused:ratio10m > 0")
            )
            asked = [one for alert in ALERTS.values() for one in promql.series(alert["expr"])]
            failed = "sessionwatch:rpc_failed:ratio10m"
            for name in {one.name for one in asked} - {failed}:
                await prometheus.has(name)
            # The node goes away: what is counted then has values, too.
            await story.watch.settled()
            await story.watch.proxy.__aexit__()
            await prometheus.has(f"{failed} > 0")
            for rule in rules_of(RULES_FILE):
                assert await prometheus.query(rule["record"]), rule
                assert await prometheus.query(rule["expr"]), rule
            for alert in ALERTS.values():
                await prometheus.query(alert["expr"])
            await prometheus.has('ALERTS{alertname="SessionwatchNodeDown", alertstate="firing"}')


async def test_drift_reaches_a_webhook_and_leaves_it_when_it_is_over(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """Daemon, Prometheus, Alertmanager, webhook: drift by cause; its end; the daemon's end."""
    async with told(toolchain, database_url, tmp_path) as story, webhook() as hook:
        alerting = running_alertmanager(tmp_path, alertmanager_config(tmp_path, hook.url))
        async with alerting as alertmanager:
            config = prometheus_config(tmp_path, [story.target], alertmanager.url)
            async with running_prometheus(tmp_path, config) as prometheus:
                received = await hook.receives("SessionwatchDriftCritical")
                assert received["labels"]["cause"] == "unknown_root"
                assert received["labels"]["severity"] == "critical"
                assert received["labels"]["chain"] == "local"
                assert received["annotations"]["runbook"].endswith("#sessionwatchdriftcritical")
                assert "SessionwatchDriftWarning" in await prometheus.firing()

                await story.watch.set_root(story.drifted, root_of_set(story.wanted))

                async def is_over() -> bool:
                    ended = hook.alerts("resolved")
                    return any(
                        one["labels"]["alertname"] == "SessionwatchDriftCritical" for one in ended
                    )

                await until(is_over, "the end of the drift to be told")
                assert await story.watch.daemon.stop() == 0
                assert (await hook.receives("SessionwatchDown"))["labels"]["severity"] == "critical"


async def test_metrics_are_written_as_prometheus_wants_them(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """Names, units and help of all that /metrics shows pass promtool's lint."""
    async with told(toolchain, database_url, tmp_path) as story:
        status, text = await story.watch.daemon.get("/metrics")
        assert status == 200
        process = await asyncio.create_subprocess_exec(
            *(str(program("promtool")), "check", "metrics"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate(text.encode())
        assert (process.returncode, said.decode()) == (0, "")
