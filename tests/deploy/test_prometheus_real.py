"""Debian's Prometheus and Alertmanager beside a real daemon whose accounts have drifted."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import yaml

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
                # Though no alert waits here, nothing else fires of a daemon that is well.
                assert await prometheus.firing() == {
                    "SessionwatchDriftCritical",
                    "SessionwatchDriftWarning",
                }

                await story.watch.set_root(story.drifted, root_of_set(story.wanted))

                async def is_over() -> bool:
                    ended = hook.alerts("resolved")
                    return any(
                        one["labels"]["alertname"] == "SessionwatchDriftCritical" for one in ended
                    )

                await until(is_over, "the end of the drift to be told")
                assert await story.watch.daemon.stop() == 0
                assert (await hook.receives("SessionwatchDown"))["labels"]["severity"] == "critical"


async def test_what_is_behind_another_alert_is_silent_there_and_only_there(tmp_path: Path) -> None:
    """A real Alertmanager suppresses each target of an inhibition, but not on another instance."""
    config = alertmanager_config(tmp_path, "http://127.0.0.1:1/alerts")
    rules = yaml.safe_load(config.read_text())["inhibit_rules"]
    async with running_alertmanager(tmp_path, config) as alertmanager:
        for number, rule in enumerate(rules):
            sources, targets = named(rule["source_matchers"]), named(rule["target_matchers"])
            here = f"{number}:1"
            posted = [labelled(name, here) for name in {sources[0], *targets}]
            # Each on an instance of its own: among themselves they may silence each other.
            posted += [labelled(name, f"{number}:{name}") for name in targets]
            await alertmanager.post("/api/v2/alerts", [{"labels": one} for one in posted])
            told = await alertmanager.get("/api/v2/alerts")
            suppressed = {
                (one["labels"]["alertname"], one["labels"]["instance"])
                for one in told
                if one["status"]["state"] == "suppressed"
            }
            assert {one for one in suppressed if one[1].startswith(f"{number}:")} == {
                (name, here) for name in targets
            }


def named(matchers: list[str]) -> list[str]:
    """Return the alerts that the matchers of an inhibition name."""
    return re.findall(r"Sessionwatch\w+", " ".join(matchers))


def labelled(name: str, instance: str) -> dict[str, str]:
    """Return the labels of an alert, those that all of them have and that of a chain."""
    severity = ALERTS[name]["labels"]["severity"]
    shared = {"alertname": name, "severity": severity, "job": "sessionwatch"}
    return shared | {"instance": instance, "chain": "local"}


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
