"""`status` and the bars of `run --once`, as a person at a terminal or a script sees them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon_process import command, configuration, until
from tests.environment import environment
from tests.fixtures_database import Connection, connected
from tests.sim.faults import Hold
from tests.sim.node import SimNode
from tests.store.test_status_lanes import ROOTS, fill, pace

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
COLOUR = re.compile(r"\x1b\[[0-9;]*[0-9]m")


async def test_status_shows_a_bar_per_lane(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    """Each lane has a bar, what is left, and an estimate or the reason why there is none."""
    await fill(connection)
    await pace(connection, "logs")
    await connection.execute("UPDATE chain.chain SET updated_at = now() - interval '3 hours'")
    config = configuration(database_url, "http://[::1]:1")
    code, text = await command(tmp_path, config, "status")
    assert code == 0, text
    lines = {line[2:].split("  [")[0].strip(): line for line in text.splitlines() if "  [" in line}
    assert list(lines) == [
        "live",
        "discovery 0x000000…0005",
        "logs accounts",
        "logs erc1155/all",
        "bodies",
        "roots 0x000000…0077",
    ]
    assert "[##########..........]  53 %  70 blocks left; about 14 s, 35 requests" in text
    assert "with the past of 2 accounts learnt later" in lines["logs accounts"]
    assert "40 blocks left; no estimate: nothing was paid yet" in lines["roots 0x000000…0077"]
    assert "no estimate: nothing was paid yet of roots; no daemon has written for 3 h" in text
    assert "\x1b" not in text

    code, text = await command(tmp_path, config, "status", "--json")
    (chain,) = json.loads(text)["chains"]
    (roots,) = (lane for lane in chain["lanes"] if lane["pass"] == ROOTS)
    assert (roots["missing_blocks"], roots["remaining_seconds"]) == (40, None)
    assert chain["remaining"]["seconds"] is None


@dataclass
class Terminal:
    """A command with a terminal of its own as its standard streams, and what it showed."""

    process: asyncio.subprocess.Process
    shown: str = ""

    async def ends(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 30)


async def in_terminal(config: Path, *arguments: str, **environ: str) -> Terminal:
    """Start a verb in a terminal of 40 lines and 120 columns."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "indexer", "--config", str(config), *arguments),
        **dict.fromkeys(("stdin", "stdout", "stderr"), its),
        env=environment(TERM="xterm-256color", **environ),
    )
    os.close(its)
    terminal = Terminal(process)
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            data = os.read(mine, 65_536)
        except OSError:  # EIO: how Linux says that nobody has the other end open any more
            data = b""
        if not data:
            loop.remove_reader(mine)
            os.close(mine)
        terminal.shown += data.decode(errors="replace")

    loop.add_reader(mine, read)
    return terminal


@pytest.mark.parametrize("no_color", ["", "1"])
async def test_run_once_shows_bars_on_a_terminal(
    database_url: str, tmp_path: Path, no_color: str
) -> None:
    """A bar per lane with blocks done and owed; the cursor comes back; NO_COLOR is respected."""
    file = tmp_path / "once.toml"
    async with SimNode(finality_depth=4) as node:
        node.mine(300)
        file.write_text(configuration(database_url, node.url, finality="finalized"))
        environ = {"NO_COLOR": no_color} if no_color else {}
        terminal = await in_terminal(file, "run", "--once", **environ)
        assert await terminal.ends() == 0, terminal.shown

        async def restored() -> bool:
            return terminal.shown.rstrip().endswith(SHOW_CURSOR)

        await until(restored, "the cursor to come back", 5)
    assert HIDE_CURSOR in terminal.shown
    plain = COLOUR.sub("", terminal.shown)
    assert re.search(r"local logs +━+ +\d+/\d+ blocks", plain)
    assert re.search(r"local bodies +━+ +297/297 blocks", plain)
    assert re.search(r"local roots 0x000002…7489 +━+ +297/297 blocks", plain)
    assert "debt_paid" in plain
    coloured = {code for code in COLOUR.findall(terminal.shown) if "3" in code[2:3]}
    assert bool(coloured) == (not no_color)


async def test_ctrl_c_leaves_a_clean_terminal(database_url: str, tmp_path: Path) -> None:
    """In the middle of the past: exit code 0, the cursor is back, no traceback."""
    file = tmp_path / "once.toml"
    async with SimNode(finality_depth=4) as node, connected(database_url) as connection:
        node.mine(300)
        node.max_range_blocks = 20
        file.write_text(configuration(database_url, node.url, finality="finalized"))
        terminal = await in_terminal(file, "run", "--once")

        async def paying() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM watch.pace"))

        await until(paying, "a range to be paid")
        node.fail(Hold(), times=1_000)

        async def barred() -> bool:
            return "blocks" in terminal.shown

        await until(barred, "a bar")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ends() == 0
        node.release()

        async def restored() -> bool:
            return terminal.shown.rstrip().endswith(SHOW_CURSOR)

        await until(restored, "the cursor to come back", 5)
    assert "Traceback" not in terminal.shown


async def test_run_once_has_no_bars_without_a_terminal(database_url: str, tmp_path: Path) -> None:
    """In a pipe, and with a log in JSON on a terminal, there are lines of log and nothing else."""
    async with SimNode(finality_depth=4) as node:
        node.mine(50)
        config = configuration(database_url, node.url, finality="finalized")
        code, said = await command(tmp_path, config, "run", "--once")
        assert code == 0
        file = tmp_path / "json.toml"
        file.write_text(config + '\n[log]\nformat = "json"\n')
        terminal = await in_terminal(file, "run", "--once")
        assert await terminal.ends() == 0
    for text in (said, terminal.shown):
        assert all(json.loads(line)["event"] for line in text.splitlines())
        assert "\x1b" not in text
