"""`sessionwatch demo`: a database, a chain with the real contracts, the daemon, and stories."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.status import Status
from rich.table import Table

from indexer.core.passes import hex_of
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, running_devnet
from indexer.devnet.stories import CHAIN_ID, LAYOUTS, Teller, play
from indexer.devnet.tools import Toolchain, prepare
from indexer.errors import FatalError
from indexer.log import configure_logging
from indexer.store import schema
from indexer.store.embedded import EmbeddedPostgres
from indexer.store.embedded_process import Account, launcher, postgres_binaries
from indexer.store.operator import fresh_database
from indexer.store.pool import Database

EXIT_UNEXPECTED = 1
GRACE_SECONDS = 4
FINALITY_BLOCKS = 16
TICK_SECONDS = 2.0
PATIENCE_SECONDS = 30.0
DEFAULT_PORT = 9464
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)

_STYLES = {
    "story": "bold",
    "chain": "cyan",
    "client": "magenta",
    "clock": "yellow",
    "daemon": "green",
    "wrong": "bold red",
}


def run_demo(*, exit_when_done: bool, data_dir: Path | None, http_port: int | None) -> int:
    """Play the demo; return 0 when every expected verdict appeared, else 1.

    Without `exit_when_done` the chain, the database and the daemon stay up until Ctrl-C, which is
    then the way it is meant to end (0); with it, whoever stops it early has not seen all (1).
    """
    configure_logging(level="warning")  # the story is told on this terminal, not the log
    console = _DemoConsole(highlight=False, soft_wrap=True)
    folder = (data_dir or Path.home() / ".local" / "share" / "sessionwatch") / "demo"
    port = _free_port(http_port)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FatalError(
            f"the folder {folder} cannot be made: {error.strerror}",
            remedy="give one that this user may write: sessionwatch demo --data-dir FOLDER",
        ) from error
    stopped = EXIT_UNEXPECTED if exit_when_done else 0
    try:
        with _stoppable(), _only_one(folder):
            # Before the event loop, which npm and the compiler would block.
            tools = _prepared(console)
            return asyncio.run(
                _demo(console, folder, tools, exit_when_done=exit_when_done, port=port)
            )
    except KeyboardInterrupt:
        return stopped
    except BaseExceptionGroup as group:
        if group.subgroup(BrokenPipeError) is None:
            raise
        raise BrokenPipeError from group


class _DemoConsole(Console):
    """A console that says when its reader has gone, as `| head` does, instead of exiting there."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the demo as Ctrl-C does, with all it has started."""

    def interrupt(number: int, _frame: object) -> None:
        # asyncio's own handler cancels the main task; without a loop it is KeyboardInterrupt
        del number
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in _STOP_SIGNALS}
    # A script's shell starts what it puts into the background deaf to Ctrl-C.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the demo's folder; the kernel lets go of it when the process ends, however it ends."""
    try:
        handle = (folder / "demo.lock").open("w")
    except OSError as error:
        raise FatalError(
            f"the folder {folder} cannot be written to: {error.strerror}",
            remedy="give one that this user may write: sessionwatch demo --data-dir FOLDER",
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FatalError(
                f"another demo runs in {folder}",
                remedy="look at that one, or start this one elsewhere: "
                "sessionwatch demo --data-dir FOLDER",
            ) from None
        yield


def _prepared(console: Console) -> Toolchain:
    with console.status("preparing the local chain (the first time takes a minute)") as status:
        return prepare(progress=lambda text: _progress(console, status, text))


async def _demo(
    console: Console, folder: Path, tools: Toolchain, *, exit_when_done: bool, port: int
) -> int:
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        with console.status("starting Postgres") as status:
            server = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres"))
            url = await fresh_database(server.url, "sessionwatch_demo")
            await schema.apply(url)
            status.update("starting the chain and its contracts")
            devnet = await stack.enter_async_context(running_devnet(tools))
            database = await stack.enter_async_context(Database.open(url))
            daemon = await stack.enter_async_context(
                _running_daemon(folder, _configuration(url, port, devnet.url))
            )
        console.print(
            f"Postgres, chain {CHAIN_ID} with the vendor's contracts, and the daemon "
            f"(process {daemon.pid}) are up after {time.monotonic() - began:.1f} s."
        )
        teller = Teller(
            devnet, database, lambda who, text: _say(console, who, text), _patiently(daemon)
        )
        await _play(teller, devnet)
        wrong = [what for what, right in teller.outcomes if not right]
        _say_how_to_look(console, url, port, devnet.url, folder)
        if wrong:
            console.print(f"[bold red]{len(wrong)} of {len(teller.outcomes)} did not appear.")
        else:
            console.print(f"All {len(teller.outcomes)} expected things appeared.")
        if not exit_when_done:
            console.print("Running until Ctrl-C.")
            await _tick_until(devnet, asyncio.Event())
    return EXIT_UNEXPECTED if wrong else 0


async def _play(teller: Teller, devnet: Devnet) -> None:
    """Play the stories while the chain's clock ticks."""
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_tick_until(devnet, done))
        await play(teller)
        done.set()


async def _tick_until(devnet: Devnet, done: asyncio.Event) -> None:
    """Mine an empty block every so often, as a real chain does."""
    while not done.is_set():
        await devnet.rpc.mine()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), TICK_SECONDS)


def _patiently(
    daemon: asyncio.subprocess.Process,
) -> Callable[[Callable[[], Awaitable[bool]], str], Awaitable[bool]]:
    async def wait_for(test: Callable[[], Awaitable[bool]], what: str) -> bool:
        """Ask until it is true, or the daemon has ended, or patience has."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            if await test():
                return True
            if daemon.returncode is not None:
                raise FatalError(
                    f"the daemon ended with exit code {daemon.returncode} while {what} was awaited",
                    remedy="its last words are in daemon.log in the demo's folder",
                )
            await asyncio.sleep(0.05)
        return False

    return wait_for


def _configuration(database_url: str, port: int, node_url: str) -> str:
    """Return the demo's configuration file, as a user would write one."""
    layouts = [f"{hex_of(module)}: {', '.join(layout)}" for module, layout in LAYOUTS.items()]
    return f"""\
# Written by `sessionwatch demo`; try it: sessionwatch --config THIS_FILE status
[database]
url = "{database_url}"

[http]
listen = "127.0.0.1:{port}"

[chains.mumbai]
chain_id = {CHAIN_ID}
rpc = ["{node_url}"]
start_block = 0
finality = {FINALITY_BLOCKS}
erc1155 = ["{hex_of(at.SEED_TOKEN)}"]
session_layouts = {json.dumps(layouts)}
grace_seconds = {GRACE_SECONDS}
"""


@contextlib.asynccontextmanager
async def _running_daemon(
    folder: Path, configuration: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the daemon as a process of its own, as systemd would; its log goes to daemon.log."""
    config_file = folder / "sessionwatch.toml"
    config_file.unlink(missing_ok=True)
    config_file.touch(mode=0o600)
    config_file.write_text(configuration, encoding="utf-8")
    with (folder / "daemon.log").open("w") as log_file:
        daemon = await _start_daemon(config_file, log_file)
        try:
            yield daemon
        finally:
            if daemon.returncode is None:
                daemon.terminate()
                try:
                    await asyncio.wait_for(daemon.wait(), 10)
                except TimeoutError:
                    daemon.kill()
                    await daemon.wait()


async def _start_daemon(config_file: Path, log_file: TextIO) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "indexer", "--config", str(config_file), "run"]
    return await asyncio.create_subprocess_exec(
        # Stopped by the kernel if this process is killed: a daemon left behind would follow the
        # next demo's database. In a session of its own, so that Ctrl-C reaches it through us.
        *launcher(command, Account(-1, -1), signal.SIGTERM),
        start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log_file,
        stderr=log_file,
        # Nothing of the caller's environment may point the demo at another database.
        env={"PYTHONUNBUFFERED": "1"},
    )


def _free_port(wanted: int | None) -> int:
    """Return the port to listen on: the wanted or usual one, or any if the usual one is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT if wanted is None else wanted))
        except OSError as error:
            if wanted is not None:
                raise FatalError(
                    f"port {wanted} of 127.0.0.1 cannot be listened on: {error.strerror}",
                    remedy="name a free one with --port, or leave it out",
                ) from error
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _progress(console: Console, status: Status, text: str) -> None:
    status.update(text)
    if not console.is_terminal:
        console.print(text)


def _say(console: Console, who: str, text: str) -> None:
    style = _STYLES[who]
    if who == "story":
        console.print(f"\n[{style}]{text}[/]")
    elif not console.is_terminal:
        console.print(f"  {who:>7}  {text}", markup=False)
    else:
        line = Table.grid(padding=(0, 2))
        line.add_column(width=9, justify="right", no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(f"[{style}]{who}[/]", text)
        console.print(line, soft_wrap=False)


def _say_how_to_look(
    console: Console, database_url: str, port: int, node_url: str, folder: Path
) -> None:
    psql = shutil.which("psql") or str(postgres_binaries() / "psql")
    config_file = shlex.quote(str(folder / "sessionwatch.toml"))
    address = f"http://127.0.0.1:{port}"
    lines = [
        f"database   {psql} {shlex.quote(database_url)}",
        "           SELECT account, cause, explanation FROM watch.drift;",
        "           SELECT * FROM watch.session_root ORDER BY block_number;",
        f"command    {shlex.quote(_command())} --config {config_file} status",
        f"status     {address}/",
        f"metrics    {address}/metrics",
        f"node       {node_url} (chain id {CHAIN_ID})",
        f"log        {folder / 'daemon.log'}",
    ]
    console.print("\n[bold]Look for yourself[/]")
    for line in lines:
        console.print(f"  {line}", markup=False)
    console.print()


def _command() -> str:
    """Return how the reader can call us: by name where the shell finds it, else by path."""
    here = Path(sys.executable).with_name("sessionwatch")
    found = shutil.which("sessionwatch")
    return "sessionwatch" if found and Path(found).resolve() == here.resolve() else str(here)
