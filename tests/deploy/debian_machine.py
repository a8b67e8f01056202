"""A Debian of its own: unpacked into a folder, booted in namespaces, and thrown away afterwards.

With systemd as process 1, so that units run as they will; or without, as in a container. It has
this machine's network, and its way to the registries of apt and pip. Needs root and cgroup v2;
this machine itself is not changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.devnet import npm
from indexer.devnet.child import running_child
from indexer.devnet.tools import default_cache_folder
from tests.daemon_process import until
from tests.deploy import debian

SUITES = ("bookworm", "trixie")
"""Debian 12 and 13."""

_BOOT = Path(__file__).with_name("boot_machine.sh")
_SYSTEMD = ("/lib/systemd/systemd", "systemd.unit=multi-user.target")
_NO_SYSTEMD = ("/bin/sleep", "infinity")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_CERTIFICATES = "/etc/registries.crt"
_BUILD_SECONDS = 600
_APT_SETTINGS = ("Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::Retries")


def prepare(say: Callable[[str], None] = print) -> None:
    """Get all that tests need from apt: programs and images of machines. Blocks, half a minute.

    Later calls only look.
    """
    debian.prepare(say)
    for suite in SUITES:
        image(suite, say)


def image(suite: str, say: Callable[[str], None] = lambda _text: None) -> Path:
    """Return a tar file with a minimal Debian and systemd, made on the first call."""
    cache = default_cache_folder() / "debian"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"machine-{suite}.tar"
    with npm.locked(cache / f"machine-{suite}.lock", say):
        if not target.exists():
            say(f"making a Debian {suite} with mmdebstrap")
            builder = debian.unpacked("mmdebstrap", say) / "usr" / "bin" / "mmdebstrap"
            part = target.with_suffix(".part.tar")
            options = ["--variant=minbase", "--include=systemd,systemd-sysv,dbus"]
            command = (str(builder), *options, suite, str(part))
            debian.run(*command, folder=cache, seconds=_BUILD_SECONDS)
            part.rename(target)
    return target


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command in a machine came to: its exit code, stdout and stderr."""

    code: int
    said: str
    complained: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A running Debian. `root` is its file system as seen from here, `process` its process 1."""

    root: Path
    process: int

    def path(self, inside: str) -> Path:
        """Return where a path of the machine is for us."""
        return self.root / inside.removeprefix("/")

    async def try_run(self, *command: str, stdin: str = "", seconds: float = 300.0) -> Answer:
        """Run a command in the machine as root; return what came of it."""
        spaces = ["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--root", "--wd"]
        process = await asyncio.create_subprocess_exec(
            *("nsenter", "--target", str(self.process), *spaces, "env", "--ignore-environment"),
            *(f"{name}={value}" for name, value in _environment().items()),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(seconds):
            said, complained = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Answer(process.returncode, said.decode(), complained.decode())

    async def run(self, *command: str, stdin: str = "") -> str:
        """Run a command that has to succeed; return what it said on stdout."""
        answer = await self.try_run(*command, stdin=stdin)
        assert answer.code == 0, f"{command}: {answer}"
        return answer.said

    def snapshot(self, *volatile: str) -> dict[str, tuple[object, ...]]:
        """Return all about each file but those below `volatile`, in memory, and the journal."""
        passed_over = [
            self.path(folder)
            for folder in ("proc", "sys", "dev", "run", "var/log/journal", *volatile)
        ]

        def facts(path: Path) -> tuple[object, ...]:
            found = path.lstat()
            link = str(path.readlink()) if stat.S_ISLNK(found.st_mode) else ""
            changed = 0 if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns
            return found.st_mode, found.st_uid, found.st_gid, found.st_size, changed, link

        facts_by_path = {}
        for folder, folders, files in os.walk(self.root):
            here = Path(folder)
            folders[:] = [name for name in folders if here / name not in passed_over]
            for name in (*folders, *files):
                facts_by_path[str((here / name).relative_to(self.root))] = facts(here / name)
        return facts_by_path


def _environment() -> dict[str, str]:
    """Return a root's environment in the machine, with this machine's settings for pip."""
    host = os.environ  # noqa: TID251 - how the registries are reached is this machine's affair
    names = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_PROXY")
    proxies = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
    given = {name: host[name] for name in (*names, *proxies) if name in host}
    return {"PATH": _PATH, "HOME": "/root", "PIP_CERT": _CERTIFICATES} | given


@asynccontextmanager
async def machine(suite: str, *, systemd: bool = True) -> AsyncIterator[Machine]:
    """Unpack and boot a Debian; at the end all its processes die and its files are removed."""
    assert os.geteuid() == 0, "a Debian of its own needs root: run tests/check --long as root"
    folder = Path(tempfile.mkdtemp(prefix=f"sessionwatch-{suite}-"))
    root = folder / "root"
    try:
        _unpack(image(suite), root)
        with _cgroup(folder.name) as group, (folder / "boot.log").open("wb") as log:
            command = [str(_BOOT), str(root), str(group), *(_SYSTEMD if systemd else _NO_SYSTEMD)]
            async with running_child(
                ["/bin/bash", *command],
                folder=folder,
                environment={"PATH": _PATH},
                stdout=log,
                stderr=log,
            ) as unshare:
                first = await _first_process(unshare, folder / "boot.log")
                try:
                    booted = Machine(root, first)
                    if systemd:
                        await _wait_for_systemd(booted)
                    yield booted
                finally:
                    os.kill(first, 9)  # the kernel kills all others with it
                    await unshare.wait()
    finally:
        shutil.rmtree(folder)


def _unpack(archive: Path, root: Path) -> None:
    """Unpack an image, and let the machine reach what this one reaches."""
    root.mkdir()
    unpack = ["tar", "--extract", "--preserve-permissions", "--file", archive, "-C", root]
    subprocess.run(unpack, check=True, timeout=_BUILD_SECONDS)
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(f"/etc/{name}", root / "etc" / name)
    shutil.copyfile(_HOST_CERTIFICATES, root / _CERTIFICATES.removeprefix("/"))
    settings = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True)
    lines = [line for line in settings.stdout.splitlines() if line.startswith(_APT_SETTINGS)]
    (root / "etc/apt/apt.conf.d/99registries").write_text("\n".join([*lines, ""]))


@contextlib.contextmanager
def _cgroup(name: str) -> Iterator[Path]:
    """Make a group of cgroup v2, wherever that is mounted; remove it with those below."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    group = Path(next(place for _, place, kind, *_ in mounts if kind == "cgroup2")) / name
    group.mkdir()
    try:
        yield group
    finally:
        for below, _, _ in os.walk(group, topdown=False):
            Path(below).rmdir()


async def _first_process(unshare: asyncio.subprocess.Process, log: Path) -> int:
    """Return the process 1 of the new namespaces, once it runs what it is there for."""

    async def runs() -> bool:
        assert unshare.returncode is None, _said(log)
        return _program_of(_child(unshare.pid)) in {_SYSTEMD[0], _NO_SYSTEMD[0]}

    await until(runs, "the machine to boot", 30)
    return _child(unshare.pid)


def _said(log: Path) -> str:
    return log.read_text()


def _child(parent: int) -> int:
    """Return the first child of a process, 0 if it has none."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(children[0]) if children else 0


def _program_of(process: int) -> str:
    """Return how a process calls its program, "" for none."""
    if process == 0:
        return ""
    return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode()


async def _wait_for_systemd(booted: Machine) -> None:
    said = ""

    async def is_running() -> bool:
        nonlocal said
        answer = await booted.try_run("systemctl", "is-system-running")
        said = answer.said.strip()
        return said in {"running", "degraded"}

    await until(is_running, f"systemd to be up; it says {said}", 60)
