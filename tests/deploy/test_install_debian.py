"""A new operator's way on a clean Debian with a running systemd: install, watch, upgrade, remove.

The unit is the shipped one, run by systemd itself behind all its walls; the chain, Prometheus and
Alertmanager run beside the machine, on loopback.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from indexer.core.types import Session
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, SmartAccount
from indexer.devnet.operations import Key, open_session
from tests.daemon_process import until
from tests.deploy.debian_machine import SUITES, Machine, machine
from tests.deploy.installing import (
    AS_THE_SERVICE,
    CONFIG,
    CREDENTIALS,
    VERSION,
    commands,
    owner_and_mode,
    programs,
    put_program,
    rows,
    state,
)
from tests.deploy.monitoring import (
    alertmanager_config,
    prometheus_config,
    running_alertmanager,
    running_prometheus,
    webhook,
)
from tests.deploy.unit_file import DEPLOY

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

NEWER = "99.0.0"
INSTALL = "/srv/sessionwatch/deploy/install.sh"
VOLATILE = ("var/lib/postgresql", "var/log", "tmp", "root")

# More blocks than the daemon pays by itself: its worker has to start behind the same walls.
LONG_PAST_BLOCKS = 3000


@pytest.mark.parametrize("suite", SUITES)
async def test_from_a_clean_machine_to_an_alert_and_back(suite, devnet, tmp_path):
    """Dry run, installation, the service, a drift alert, upgrades good and bad, removal."""
    async with machine(suite) as debian:
        put_program(debian, "/srv/sessionwatch")
        await a_dry_run_changes_nothing(debian)
        await it_installs_and_may_be_run_again(debian)
        await the_service_starts(debian, devnet)
        await drift_is_alerted(debian, devnet, tmp_path)
        await a_hung_process_is_started_again(debian)
        await an_upgrade_keeps_everything(debian)
        await a_failing_upgrade_changes_nothing(debian)
        await a_wrong_configuration_leaves_it_down(debian)
        await it_can_be_removed(debian)


async def a_dry_run_changes_nothing(debian: Machine) -> None:
    before = debian.snapshot()
    dry = await debian.run(INSTALL, "--dry-run")
    assert debian.snapshot() == before
    assert commands(dry)[0] == "apt-get --quiet=2 update"
    await debian.run("bash", "-n", "-c", dry)  # it could be pasted into a shell
    upgrade = await debian.try_run(INSTALL, "upgrade")
    assert upgrade.code == 2
    assert "there is nothing to upgrade" in upgrade.complained


async def it_installs_and_may_be_run_again(debian: Machine) -> None:
    dry = await debian.run(INSTALL, "--dry-run")
    said = await debian.run(INSTALL)
    assert "# no chain is configured yet" in said
    # The package has started Postgres already; all else was done as announced, in that order.
    announced = [line for line in commands(dry) if line != "systemctl start postgresql"]
    assert [line for line in commands(said) if line in announced] == announced

    assert {path: owner_and_mode(debian, path) for path in MODES} == MODES
    encoding = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = "
    assert await rows(debian, f"{encoding} 'sessionwatch'") == "UTF8"
    assert (await debian.run("systemctl", "is-enabled", "sessionwatch")).strip() == "enabled"
    assert (await state(debian))["ActiveState"] == "inactive"

    before = debian.snapshot(*VOLATILE)
    again = await debian.run(INSTALL)
    assert debian.snapshot(*VOLATILE) == before
    (only,) = [line for line in commands(again) if line.startswith(("runuser", "install", "ln"))]
    assert only.endswith("schema apply")


MODES = {
    "/etc/sessionwatch": ("root", "root", "0o755"),
    CONFIG: ("root", "sessionwatch", "0o640"),
    CREDENTIALS: ("root", "root", "0o700"),
    "/var/lib/sessionwatch": ("sessionwatch", "sessionwatch", "0o750"),
    "/opt/sessionwatch": ("root", "root", "0o755"),
    "/etc/systemd/system/sessionwatch.service": ("root", "root", "0o644"),
}


async def the_service_starts(debian: Machine, devnet: Devnet) -> None:
    """Ten lines of configuration and a credential; READY=1 is what `systemctl start` waits for."""
    await devnet.rpc.mine(LONG_PAST_BLOCKS)
    debian.path(CONFIG).write_text(
        f"""[database]
url = "{await database_url(debian)}"
[http]
listen = "127.0.0.1:{free_port()}"
[chains.mumbai]
start_block = 0
finality = 16
erc1155 = "all"
grace_seconds = 2
poll_seconds = 0.2
"""
    )
    debian.path(f"{CREDENTIALS}/chains__mumbai__rpc").write_text(f"{devnet.url}\n")
    checked = await debian.try_run(*AS_THE_SERVICE, "sessionwatch", "check")
    assert checked.code == 0, checked
    again = await debian.run(INSTALL)  # finds nothing wrong, and starts it
    assert commands(again)[-1] == "systemctl start sessionwatch"

    now = await state(debian)
    assert (now["ActiveState"], now["SubState"], now["NRestarts"]) == ("active", "running", "0")
    process = await debian.run("cat", f"/proc/{now['MainPID']}/status")
    confined = dict(line.split(":\t", 1) for line in process.splitlines() if ":\t" in line)
    assert (confined["Seccomp"], confined["NoNewPrivs"]) == ("2", "1")
    assert int(confined["CapEff"], 16) == int(confined["CapBnd"], 16) == 0

    async def worker_done() -> bool:
        return any(event.get("exit_code") == 0 for event in await events(debian, "ended"))

    await until(worker_done, "a worker to pay the past", 120)
    assert "block" in (await state(debian))["StatusText"]


async def database_url(debian: Machine) -> str:
    """Where the machine's Postgres listens: elsewhere if this machine has one of its own."""
    return f"postgresql:///sessionwatch?port={await rows(debian, 'SHOW port')}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def events(debian: Machine, worker: str) -> list[dict[str, object]]:
    journal = await debian.run("journalctl", "--unit=sessionwatch", "--output=cat")
    found = [json.loads(line) for line in journal.splitlines() if line.startswith("{")]
    return [event for event in found if event["event"] == f"history_worker_{worker}"]


def session_of(name: str) -> Session:
    return open_session(Key.named(name).address)


async def store(debian: Machine, account: SmartAccount, session: Session) -> None:
    """Give the daemon a session set as its operator would."""
    fields = {
        "validUntil": session.valid_until,
        "validAfter": session.valid_after,
        "sessionValidationModule": "0x" + session.session_validation_module.hex(),
        "sessionKeyData": "0x" + session.session_key_data.hex(),
    }
    document = {
        "chain_id": 80001,
        "manager": "0x" + at.MANAGER.hex(),
        "account": "0x" + account.address.hex(),
        "sessions": [fields],
    }
    command = ("sessionwatch", "sessions", "import", "-")
    await debian.run(*AS_THE_SERVICE, *command, stdin=json.dumps(document))


async def drift_is_alerted(debian: Machine, devnet: Devnet, folder: Path) -> None:
    """A root that nobody knows is scraped, and told to a webhook."""
    carol = devnet.account("carol")
    await store(debian, carol, session_of("stored"))
    await devnet.register(carol, [session_of("stored")])

    async def says(verdict: str) -> None:
        async def said() -> bool:
            return verdict == await rows(debian, "SELECT verdict FROM watch.verdict")

        await until(said, f"{carol} to be {verdict}", 60)

    await says("in_sync")
    listen = debian.path(CONFIG).read_text().split('listen = "')[1].split('"')[0]
    async with (
        webhook() as hook,
        running_alertmanager(folder, alertmanager_config(folder, hook.url)) as alerting,
        running_prometheus(folder, prometheus_config(folder, [listen], alerting.url)) as prometheus,
    ):

        async def scraped() -> bool:
            found = await prometheus.query('sessionwatch_accounts{verdict="in_sync"} == 1')
            return bool(found)

        await until(scraped, "Prometheus to scrape the daemon", 60)
        await devnet.register(carol, [session_of("of another device")])
        await says("drifted")
        alert = await hook.receives("SessionwatchDriftCritical")
    assert alert["labels"]["chain"] == "mumbai"
    assert alert["labels"]["cause"] == "unknown_root"


async def a_hung_process_is_started_again(debian: Machine) -> None:
    """A process that no longer moves starves the watchdog; systemd ends it and starts another."""
    shorter = debian.path("/etc/systemd/system/sessionwatch.service.d/shorter.conf")
    shorter.parent.mkdir()
    shorter.write_text("[Service]\nWatchdogSec=4\nTimeoutAbortSec=2\nRestartSec=1\n")
    await debian.run("systemctl", "daemon-reload")
    await debian.run("systemctl", "restart", "sessionwatch")
    hung = (await state(debian))["MainPID"]
    stop = ("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "sessionwatch")
    await debian.run(*stop)

    async def runs_again() -> bool:
        now = await state(debian)
        return now["NRestarts"] == "1" and now["ActiveState"] == "active"

    await until(runs_again, "systemd to start it again", 60)
    assert (await state(debian))["MainPID"] != hung
    journal = await debian.run("journalctl", "--unit=sessionwatch", "--output=cat")
    assert "Watchdog timeout" in journal
    shorter.unlink()
    await debian.run("systemctl", "daemon-reload")
    await debian.run("systemctl", "restart", "sessionwatch")


def released_as(version: str) -> tuple[str, str, str]:
    """Return the change of a clone that makes it another version."""
    return "pyproject.toml", f'version = "{VERSION}"', f'version = "{version}"'


async def an_upgrade_keeps_everything(debian: Machine) -> None:
    kept = debian.path(CONFIG).read_text()
    newer = put_program(debian, "/srv/newer", released_as(NEWER))
    dry = commands(await debian.run(newer, "--dry-run", "upgrade"))
    said = commands(await debian.run(newer, "upgrade"))
    assert [line for line in said if line in dry] == dry
    schema = next(n for n, line in enumerate(said) if line.endswith("schema apply"))
    assert said.index("systemctl stop sessionwatch") < schema
    assert schema < said.index("systemctl start sessionwatch")
    assert debian.path(CONFIG).read_text() == kept
    assert NEWER in await debian.run("/usr/local/bin/sessionwatch", "--version")
    assert (await state(debian))["ActiveState"] == "active"
    assert await rows(debian, "SELECT verdict FROM watch.verdict") == "drifted"
    # The program before it stays, for the way back.
    assert programs(debian) == [VERSION, NEWER]


async def a_failing_upgrade_changes_nothing(debian: Machine) -> None:
    """A program that the database is too new for is refused; what ran before runs again."""
    schema = (DEPLOY.parent / "indexer/store/schema.py").read_text()
    (version,) = [line for line in schema.splitlines() if line.startswith("SCHEMA_VERSION")]
    older = put_program(
        debian,
        "/srv/older",
        released_as("0.0.1"),
        ("indexer/store/schema.py", version, "SCHEMA_VERSION = 0"),
    )
    answer = await debian.try_run(older, "upgrade")
    assert answer.code == 78
    assert f"nothing was switched: /opt/sessionwatch/{NEWER} stays" in answer.complained
    assert NEWER in await debian.run("/usr/local/bin/sessionwatch", "--version")
    assert (await state(debian))["ActiveState"] == "active"


async def a_wrong_configuration_leaves_it_down(debian: Machine) -> None:
    """Exit code 78: no restart until someone has looked."""
    credential = debian.path(f"{CREDENTIALS}/chains__mumbai__rpc")
    kept = credential.read_text()
    credential.write_text("ftp://example.org\n")
    assert (await debian.try_run("systemctl", "restart", "sessionwatch")).code != 0
    now = await state(debian)
    assert (now["ActiveState"], now["SubState"]) == ("failed", "failed")
    assert (now["ExecMainStatus"], now["NRestarts"]) == ("78", "0")

    refused = await debian.run("/srv/newer/deploy/install.sh")
    assert "# the configuration has mistakes" in refused
    assert commands(refused)[-1].endswith("sessionwatch check")
    credential.write_text(kept)
    mended = await debian.run("/srv/newer/deploy/install.sh")
    assert commands(mended)[-1] == "systemctl start sessionwatch"
    assert {VERSION, NEWER} <= set(programs(debian))


async def it_can_be_removed(debian: Machine) -> None:
    said = await debian.run(INSTALL, "uninstall")
    assert "# kept: /etc/sessionwatch" in said
    for path in ("/opt/sessionwatch", "/etc/systemd/system/sessionwatch.service"):
        assert not debian.path(path).exists()
    assert not debian.path("/usr/local/bin/sessionwatch").is_symlink()
    assert (await state(debian))["LoadState"] == "not-found"
    assert debian.path(CONFIG).exists()
    assert await rows(debian, "SELECT count(*) FROM watch.session_set") == "1"
    assert commands(await debian.run(INSTALL, "uninstall")) == []

    await debian.run(INSTALL, "uninstall", "--purge")
    assert not debian.path("/etc/sessionwatch").exists()
    assert not debian.path("/var/lib/sessionwatch").exists()
    assert "sessionwatch" not in debian.path("/etc/passwd").read_text()
    psql = ("runuser", "--user", "postgres", "--", "psql", "-XAtc")
    assert "sessionwatch" not in await debian.run(*psql, "SELECT datname FROM pg_database")
    assert "sessionwatch" not in await debian.run(*psql, "SELECT rolname FROM pg_roles")
