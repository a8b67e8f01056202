"""The unit and the installer on other kinds of machine: no systemd, no database, only a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.debian_machine import SUITES, machine
from tests.deploy.installing import VERSION, commands, put_program, rows
from tests.deploy.unit_file import DEPLOY, SERVICE

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

EXPOSURE = 11
"""The most that systemd-analyze may find, in tenths."""
EXPOSURE_WITHOUT_THE_WORLD = 10
"""The same where the unit's option IPAddressDeny is taken."""


@pytest.mark.parametrize("suite", SUITES)
async def test_systemd_finds_no_fault_with_the_unit(suite):
    """Neither a word from `verify`, nor more exposure than was settled; also with its option."""
    text = SERVICE.read_text()
    closed = text.replace("#IPAddress", "IPAddress")
    assert closed != text
    async with machine(suite) as debian:
        unit = debian.path(f"/etc/systemd/system/{SERVICE.name}")
        await debian.run("useradd", "--system", "sessionwatch")
        # What ExecStart names has to be there; what it does is not looked at.
        debian.path("/usr/local/bin/sessionwatch").symlink_to("/usr/bin/true")
        for content, most in ((text, EXPOSURE), (closed, EXPOSURE_WITHOUT_THE_WORLD)):
            unit.write_text(content)
            verified = await debian.try_run("systemd-analyze", "verify", unit.name)
            assert (verified.code, verified.complained) == (0, "")
            await debian.run(
                *("systemd-analyze", "security", "--no-pager", "--offline=true"),
                *(f"--threshold={most}", f"/etc/systemd/system/{unit.name}"),
            )


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


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """The wheel of this clone."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", tmp_path, DEPLOY.parent], check=True, timeout=300)
    (built,) = tmp_path.glob("*.whl")
    return built


async def test_a_wheel_and_no_database(wheel):
    """From a wheel beside the script; no Postgres is installed, and none is needed to remove it."""
    async with machine(SUITES[-1]) as debian:
        folder = debian.path("/srv/deploy")
        shutil.copytree(DEPLOY, folder)
        refused = await debian.try_run("/srv/deploy/install.sh", "--dry-run")
        assert (refused.code, refused.said) == (2, "")
        assert "there is no program" in refused.complained

        shutil.copy(wheel, folder)
        install = ("/srv/deploy/install.sh", "--no-database")
        said = await debian.run(*install)
        assert "postgres" not in "\n".join(commands(said))
        assert (await debian.try_run("which", "psql")).code != 0
        assert VERSION in await debian.run("/usr/local/bin/sessionwatch", "--version")
        await debian.run(*install, "uninstall", "--purge")
        assert not debian.path("/etc/sessionwatch").exists()


async def test_only_root_on_a_known_debian_is_served():
    """Another system is refused with 78, another user with 2; nothing was begun."""
    async with machine(SUITES[0], systemd=False) as debian:
        install = put_program(debian, "/srv/sessionwatch")
        nobody = await debian.try_run("runuser", "--user", "nobody", "--", install, "--dry-run")
        assert (nobody.code, nobody.said) == (2, "")
        assert "this is user nobody, not root" in nobody.complained
        release = debian.path("/usr/lib/os-release")
        release.write_text(release.read_text().replace('VERSION_ID="12"', 'VERSION_ID="11"'))
        old = await debian.try_run(install)
        assert (old.code, old.said) == (78, "")
        assert "this is debian 11, not Debian 12 or 13" in old.complained
