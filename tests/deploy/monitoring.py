"""Debian's Prometheus and Alertmanager as processes, and a webhook that keeps what it is told.

    async with webhook() as hook:
        async with running_alertmanager(folder, alertmanager_config(folder, hook.url)) as alerting:
            config = prometheus_config(folder, ["127.0.0.1:9464"], alerting.url)
            async with running_prometheus(folder, config) as prometheus:
                await hook.receives("SessionwatchDown")

The configurations are those of deploy/prometheus, with other addresses and shorter waits.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from indexer.devnet.child import running_child
from tests.daemon_process import until
from tests.deploy.debian import program, unpacked

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus"

_LISTENING = re.compile(r'"?(?:Listening on|TLS is disabled\.)"? .*address=127\.0\.0\.1:(\d+)')


@dataclass(frozen=True, slots=True)
class Server:
    """A running Prometheus or Alertmanager."""

    url: str
    log_file: Path

    async def get(self, path: str, **parameters: str) -> Any:
        """Ask its HTTP interface; return the decoded answer. A refusal fails with its words."""
        async with (
            aiohttp.ClientSession() as client,
            client.get(self.url + path, params=parameters) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def post(self, path: str, document: Any) -> None:
        """Send JSON to its HTTP interface. A refusal fails with its words."""
        async with (
            aiohttp.ClientSession() as client,
            client.post(self.url + path, json=document) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what Prometheus answers to an expression now: [{"metric": …, "value": …}]."""
        data = (await self.get("/api/v1/query", query=expression))["data"]
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        return list(data["result"])

    async def has(self, expression: str, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Wait until an expression has an answer; return it."""

        async def answered() -> bool:
            return bool(await self.query(expression))

        await until(answered, f"Prometheus to know {expression}", seconds)
        return await self.query(expression)

    async def firing(self) -> set[str]:
        """Return the names of the alerts that fire in Prometheus now."""
        alerts = (await self.get("/api/v1/alerts"))["data"]["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}


@dataclass(slots=True)
class Webhook:
    """A receiver of Alertmanager's messages."""

    url: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def alerts(self, status: str = "firing") -> list[dict[str, Any]]:
        """Return every alert received with this status, the oldest first."""
        found = [alert for message in self.messages for alert in message["alerts"]]
        return [alert for alert in found if alert["status"] == status]

    async def receives(self, name: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for a firing alert of this name; return it."""

        def of_that_name() -> list[dict[str, Any]]:
            return [one for one in self.alerts() if one["labels"]["alertname"] == name]

        async def received() -> bool:
            return bool(of_that_name())

        await until(received, f"the webhook to receive {name}", seconds)
        return of_that_name()[0]

    async def _keep(self, request: web.Request) -> web.Response:
        self.messages.append(await request.json())
        return web.Response()


@asynccontextmanager
async def webhook() -> AsyncIterator[Webhook]:
    """Listen on loopback for what Alertmanager posts."""
    hook = Webhook()
    app = web.Application()
    app.router.add_post("/alerts", hook._keep)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/alerts"
        yield hook
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running_prometheus(folder: Path, config: Path) -> AsyncIterator[Server]:
    """Run Prometheus with its data in `folder`, on a free port of loopback."""
    command = [
        str(program("prometheus")),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus-data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    async with _running(command, folder, "prometheus") as server:
        yield server


@asynccontextmanager
async def running_alertmanager(folder: Path, config: Path) -> AsyncIterator[Server]:
    """Run Alertmanager with its data in `folder`, on a free port of loopback, without a cluster."""
    command = [
        str(program("prometheus-alertmanager")),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager-data'}",
        "--web.listen-address=127.0.0.1:0",
        "--cluster.listen-address=",
    ]
    # It reads its templates below /usr/share and nowhere else: a view of the file system of its own
    # has those of the unpacked package there.
    shares = unpacked("prometheus-alertmanager") / "usr" / "share"
    script = f"mount --bind {shlex.quote(str(shares))} /usr/share && exec {shlex.join(command)}"
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    own_view = ["/usr/bin/unshare", "--mount", *as_root, "/bin/sh", "-c", script]
    async with _running(own_view, folder, "alertmanager") as server:
        yield server


@asynccontextmanager
async def _running(command: Sequence[str], folder: Path, name: str) -> AsyncIterator[Server]:
    log_file = folder / f"{name}.log"
    with log_file.open("wb") as output:
        async with running_child(
            command,
            folder=folder,
            environment={"PATH": "/usr/bin:/bin"},
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        ) as process:

            async def listens() -> bool:
                assert process.returncode is None, log_file.read_text()
                return _LISTENING.search(log_file.read_text()) is not None

            await until(listens, f"{name} to listen", 30)
            found = _LISTENING.search(log_file.read_text())
            assert found is not None
            server = Server(f"http://127.0.0.1:{found[1]}", log_file)

            async def ready() -> bool:
                async with (
                    aiohttp.ClientSession() as client,
                    client.get(server.url + "/-/ready") as answer,
                ):
                    return answer.status == 200

            await until(ready, f"{name} to be ready", 30)
            yield server


def prometheus_config(
    folder: Path, targets: Sequence[str], alertmanager_url: str | None = None
) -> Path:
    """Write the shipped configuration for these targets ("host:port") into `folder`; return it.

    It scrapes and evaluates each second, and alerts wait for nothing.
    """
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    config["global"] |= {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    config["scrape_configs"][0]["static_configs"] = [{"targets": list(targets)}]
    if alertmanager_url is None:
        del config["alerting"]
    else:
        address = alertmanager_url.removeprefix("http://")
        config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [address]}]
    for name in config["rule_files"]:
        _write(folder / name, _hastened(yaml.safe_load((SHIPPED / name).read_text())))
    return _write(folder / "prometheus.yml", config)


def alertmanager_config(folder: Path, webhook_url: str) -> Path:
    """Write the shipped configuration for this webhook into `folder`; return it. Nothing waits."""
    config = yaml.safe_load((SHIPPED / "alertmanager.yml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route["group_wait"] = route["group_interval"] = "1s"
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": webhook_url, "send_resolved": True}]
    return _write(folder / "alertmanager.yml", config)


def _hastened(rules: dict[str, Any]) -> dict[str, Any]:
    for group in rules["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule.pop("for", None)
            rule.pop("keep_firing_for", None)
    return rules


def _write(path: Path, document: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path
