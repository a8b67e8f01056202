"""The demo, as the README's first command starts it."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from indexer.store.embedded import EmbeddedPostgres
from tests.environment import environment
from tests.fixtures_database import connected

MEBIBYTE_KB = 1024


def peak_of(process_id: int) -> int:
    """The most memory a process has had, in kB."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def is_running(process_id: int) -> bool:
    return Path(f"/proc/{process_id}").exists()


@pytest.mark.timeout(150)
@pytest.mark.usefixtures("toolchain")
async def test_the_demo_shows_every_verdict_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """With --exit it ends with 0 when all appeared; its daemon stays under 150 MiB and ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "indexer", "demo", "--exit", "--data-dir", str(tmp_path)),
        *("--port", "0"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(HOME=str(Path.home()), PYTHONUNBUFFERED="1", PATH="/usr/bin:/bin"),
    )
    assert process.stdout is not None
    said, daemon_id, peak_kb = "", 0, 0
    async for line in process.stdout:
        said += line.decode()
        if found := re.search(r"\(process (\d+)\)", said):
            daemon_id = int(found[1])
        if "Look for yourself" in said and not peak_kb:
            peak_kb = peak_of(daemon_id)
    assert await process.wait() == 0, said
    said = " ".join(said.split())  # lines are wrapped to the width of the terminal
    for verdict in (
        "in_sync",
        "pending",
        "drifted (never_landed)",
        "drifted (unknown_root)",
        "drifted (revoked_still_provable)",
        "mint with the revoked key succeeds",
        "drifted (rotated_by_session_key)",
        "6. A reorg that takes a root back",
    ):
        assert verdict in said
    assert "expected things appeared" in said
    assert 0 < peak_kb < 150 * MEBIBYTE_KB
    assert not is_running(daemon_id)
    await the_readme_is_true_of(tmp_path / "demo" / "postgres")


async def the_readme_is_true_of(folder: Path) -> None:
    """Every query of the README's two sections runs on the demo's database, and shows it."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    sections = readme[readme.index("## Questions people ask") : readme.index("## Verdicts")]
    queries = re.findall(r"```sql\n(.*?)```(?:\n\n```text\n(.*?)```)?", sections, re.DOTALL)
    assert len(queries) >= 15
    async with EmbeddedPostgres(folder) as server:
        url = urlsplit(server.url)._replace(path="/sessionwatch_demo").geturl()
        async with connected(url) as connection:
            await connection.execute("SET ROLE sessionwatch_reader")
            for sql, shown in queries:
                prepared = await connection.prepare(sql)
                found = [tuple(row) for row in await prepared.fetch()]
                if shown:
                    heading = [name.strip() for name in shown.splitlines()[0].split("|")]
                    assert heading == [one.name for one in prepared.get_attributes()], sql
                    assert bool(found) == ("(0 rows)" not in shown), sql
                if "FROM watch.session_root WHERE chain_id" in sql:
                    assert {"user_operation", "session_key", "module"} <= {row[2] for row in found}


_WAITS_FOR_EVER = """
import asyncio
from indexer.devnet.demo import _stoppable

async def wait():
    print("waits", flush=True)
    await asyncio.Event().wait()

with _stoppable():
    try:
        asyncio.run(wait())
    except KeyboardInterrupt:
        print("stopped")
"""


async def test_the_demo_can_be_stopped_in_the_background_of_a_script() -> None:
    """There the shell has SIGINT ignored, by which SIGTERM ends everything, too."""
    script = 'trap "" INT; exec "$0" -c "$1"'
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script, sys.executable, _WAITS_FOR_EVER), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"waits\n"
    process.terminate()
    assert (await process.stdout.read(), await process.wait()) == (b"stopped\n", 0)
