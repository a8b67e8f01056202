"""A new operator's way on a clean Debian with a running systemd: install, watch, upgrade, remove.

The unit is the shipped one, run by systemd itself behind all its walls; the chain, Prometheus and
Alertmanager run beside the machine, on loopback.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path

import pytest

from indexer.core.types import Session
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, SmartAccount
from indexer.devnet.operations import Key, open_session
from tests.daemon_process import until
from tests.deploy.debian_machine import SUITES, Machine, machine
from tests.deploy.monitoring import (
    alertmanager_config,
    prometheus_config,
    running_alertmanager,
    running_prometheus,
    webhook,
)
from tests.deploy.unit_file import DEPLOY

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

EXPOSURE = 11
"""The most that systemd-analyze may find, in tenths."""
CONFIG = "/etc/sessionwatch/sessionwatch.toml"
CREDENTIALS = "/etc/sessionwatch/credentials"
INSTALL = "/srv/sessionwatch/deploy/install.sh"
AS_THE_SERVICE = (
    *("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--uid=sessionwatch"),
    f"--property=LoadCredential=sessionwatch:{CREDENTIALS}",
)
PARTS = ("deploy", "indexer", "schema.sql", "pyproject.toml", "README.md", "LICENSE")
VOLATILE = ("var/lib/postgresql", "var/log", "tmp", "root")
# More blocks than the daemon pays by itself: its worker has to start behind the same walls.
LONG_PAST_BLOCKS = 3000


def put_program(debian: Machine, folder: str, *changes: tuple[str, str, str]) -> str:
    """Copy this clone into the machine, with (file, text, other text) changed; its install.sh."""
    target = debian.path(folder)
    target.mkdir(parents=True)
    for part in PARTS:
        source = DEPLOY.parent / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / part, ignore=ignored)
        else:
            shutil.copyfile(source, target / part)
    for name, text, other in changes:
        before = (target / name).read_text()
        assert text in before
        (target / name).write_text(before.replace(text, other))
    return f"{folder}/deploy/install.sh"


def commands(said: str) -> list[str]:
    """Return the lines that are no comment; a port that this machine forced on Postgres is cut."""
    lines = [line for line in said.splitlines() if not line.startswith("#")]
    return [re.sub(r"'(\S+)\?port=\d+'", r"\1", line) for line in lines]


async def state(debian: Machine) -> dict[str, str]:
    """What systemd knows of the service."""
    shown = await debian.run("systemctl", "show", "sessionwatch")
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


async def rows(debian: Machine, query: str) -> str:
    psql = ("runuser", "--user", "postgres", "--", "psql", "-XAtd", "sessionwatch", "-c", query)
    return (await debian.run(*psql)).strip()


def owner_and_mode(debian: Machine, path: str) -> tuple[str, str, str]:
    """Owner and group by the machine's own names, and the mode."""
    found = debian.path(path).stat()

    def name(kind: str, number: int) -> str:
        lines = [line.split(":") for line in debian.path(f"etc/{kind}").read_text().splitlines()]
        return next(fields[0] for fields in lines if fields[2] == str(number))

    return name("passwd", found.st_uid), name("group", found.st_gid), oct(found.st_mode & 0o7777)


@pytest.mark.parametrize("suite", SUITES)
async def test_systemd_finds_no_fault_with_the_unit(suite):
    """Neither a word from `verify`, nor more exposure than was settled."""
    async with machine(suite) as debian:
        unit = debian.path("/etc/systemd/system/sessionwatch.service")
        shutil.copyfile(DEPLOY / "systemd" / unit.name, unit)
        await debian.run("useradd", "--system", "sessionwatch")
        # What ExecStart names has to be there; what it does is not looked at.
        debian.path("/usr/local/bin/sessionwatch").symlink_to("/usr/bin/true")
        verified = await debian.try_run("systemd-analyze", "verify", unit.name)
        assert (verified.code, verified.complained) == (0, "")
        await debian.run(
            *("systemd-analyze", "security", "--no-pager", "--offline=true"),
            *(f"--threshold={EXPOSURE}", f"/etc/systemd/system/{unit.name}"),
        )


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
    assert not debian.path("/run/sessionwatch-check").exists()

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


async def an_upgrade_keeps_everything(debian: Machine) -> None:
    kept = debian.path(CONFIG).read_text()
    version = ("pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    newer = put_program(debian, "/srv/newer", version)
    said = commands(await debian.run(newer, "upgrade"))
    schema = next(n for n, line in enumerate(said) if line.endswith("schema apply"))
    assert said.index("systemctl stop sessionwatch") < schema
    assert schema < said.index("systemctl start sessionwatch")
    assert debian.path(CONFIG).read_text() == kept
    assert "0.2.0" in await debian.run("/usr/local/bin/sessionwatch", "--version")
    assert (await state(debian))["ActiveState"] == "active"
    assert await rows(debian, "SELECT verdict FROM watch.verdict") == "drifted"
    # The program before it stays, for the way back.
    assert programs(debian) == ["0.1.0", "0.2.0"]


def programs(debian: Machine) -> list[str]:
    folders = debian.path("/opt/sessionwatch").iterdir()
    return sorted(folder.name for folder in folders if not folder.is_symlink())


async def a_failing_upgrade_changes_nothing(debian: Machine) -> None:
    """A program that the database is too new for is refused; what ran before runs again."""
    schema = (DEPLOY.parent / "indexer/store/schema.py").read_text()
    (version,) = [line for line in schema.splitlines() if line.startswith("SCHEMA_VERSION = ")]
    older = put_program(
        debian,
        "/srv/older",
        ("pyproject.toml", 'version = "0.1.0"', 'version = "0.0.9"'),
        ("indexer/store/schema.py", version, "SCHEMA_VERSION = 0"),
    )
    answer = await debian.try_run(older, "upgrade")
    assert answer.code == 78
    assert "nothing was switched: /opt/sessionwatch/0.2.0 stays" in answer.complained
    assert "0.2.0" in await debian.run("/usr/local/bin/sessionwatch", "--version")
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
    credential.write_text(kept)
    await debian.run("systemctl", "start", "sessionwatch")


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


async def test_where_systemd_does_not_run():
    """In a container all but the service is there, and what was left out is said."""
    async with machine(SUITES[0], systemd=False) as debian:
        install = put_program(debian, "/srv/sessionwatch")
        said = (await debian.run(install)).splitlines()
        assert "# systemd does not run here: the service was not enabled and not started" in said
        assert debian.path("/etc/systemd/system/sessionwatch.service").exists()
        assert await rows(debian, "SELECT count(*) FROM watch.progress") == "0"
        await debian.run(install, "uninstall", "--purge")
        assert not debian.path("/opt/sessionwatch").exists()


async def test_without_a_database():
    """With --no-database no Postgres is installed, and none is needed to remove it again."""
    async with machine(SUITES[-1]) as debian:
        install = put_program(debian, "/srv/sessionwatch")
        said = await debian.run(install, "--no-database")
        assert "postgres" not in "\n".join(commands(said))
        assert (await debian.try_run("which", "psql")).code != 0
        assert "0.1.0" in await debian.run("/usr/local/bin/sessionwatch", "--version")
        await debian.run(install, "--no-database", "uninstall", "--purge")
        assert not debian.path("/etc/sessionwatch").exists()
