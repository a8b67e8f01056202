"""Putting the program into a Debian, and looking at what the installer made of it."""

from __future__ import annotations

import re
import shutil
import tomllib

from tests.deploy.debian_machine import Machine
from tests.deploy.unit_file import DEPLOY

CONFIG = "/etc/sessionwatch/sessionwatch.toml"
CREDENTIALS = "/etc/sessionwatch/credentials"
AS_THE_SERVICE = (
    *("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--uid=sessionwatch"),
    f"--property=LoadCredential=sessionwatch:{CREDENTIALS}",
)
VERSION = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["version"]
PARTS = ("deploy", "indexer", "schema.sql", "pyproject.toml", "README.md", "LICENSE")


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


def programs(debian: Machine) -> list[str]:
    folders = debian.path("/opt/sessionwatch").iterdir()
    return sorted(folder.name for folder in folders if not folder.is_symlink())
