"""Starts and stops one Anvil node on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexer.devnet.child import running_child
from indexer.devnet.rpc import Rpc
from indexer.errors import NodeError, NodeUnreachableError, WrongChainError

CHAIN_ID: Final = 80001
"""Polygon Mumbai's."""

_START_SECONDS: Final = 30.0
_HOME_PREFIX: Final = "sessionwatch-anvil-"
_LISTENING: Final = re.compile(rb"Listening on 127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, slots=True)
class AnvilOptions:
    """How the node behaves.

    block_seconds: None mines a block per transaction, a number one block every so many seconds.
    slots_in_an_epoch: `finalized` is two epochs behind the tip; 1 gives the tip - 2, None 32 slots.
    prune_history: states of only so many blocks are kept, older ones are refused; None keeps all.
    port: 0 takes a free one. genesis_time: unix seconds, None is now.
    """

    chain_id: int = CHAIN_ID
    block_seconds: float | None = None
    slots_in_an_epoch: int | None = None
    prune_history: int | None = None
    port: int = 0
    genesis_time: int | None = None

    def arguments(self) -> list[str]:
        """Return the command line that says so."""
        given = {
            "--host": "127.0.0.1",
            "--port": self.port,
            "--chain-id": self.chain_id,
            "--block-time": self.block_seconds,
            "--slots-in-an-epoch": self.slots_in_an_epoch,
            "--prune-history": self.prune_history,
            "--timestamp": self.genesis_time,
            # In the order of arrival: the same script then makes the same blocks.
            "--order": "fifo",
        }
        values = [
            text for key, value in given.items() if value is not None for text in (key, str(value))
        ]
        return [*values, "--auto-impersonate", "--no-request-size-limit"]


@dataclass(frozen=True, slots=True)
class Anvil:
    """A running node."""

    url: str
    port: int
    process_id: int
    rpc: Rpc


@asynccontextmanager
async def running_anvil(binary: Path, options: AnvilOptions | None = None) -> AsyncIterator[Anvil]:
    """Run a node until the block is left; also ended when this process dies, however it dies.

    The node keeps the state of each block in files under its home; that is a folder of its own
    under the temporary folder, removed at the end. Raises NodeUnreachableError if it does not
    come up within 30 seconds, WrongChainError if something else answers.
    """
    options = options or AnvilOptions()
    _sweep_homes()
    home = Path(tempfile.mkdtemp(prefix=f"{_HOME_PREFIX}{os.getpid()}-"))
    output = home / "output.txt"
    try:
        with output.open("wb") as stdout:
            async with running_child(
                [str(binary), *options.arguments()],
                folder=home,
                environment={"HOME": str(home)},
                stdout=stdout,
                stderr=asyncio.subprocess.STDOUT,
            ) as process:
                port = await _port(process, output)
                async with Rpc(f"http://127.0.0.1:{port}") as rpc:
                    await _ready(rpc, options.chain_id)
                    yield Anvil(url=rpc.url, port=port, process_id=process.pid, rpc=rpc)
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _port(process: asyncio.subprocess.Process, output: Path) -> int:
    """Return the port that the node says it listens on."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                if found := _LISTENING.search(_read(output)):
                    return int(found.group(1))
                await asyncio.sleep(0.005)
    words = " ".join(_read(output).decode(errors="replace").split())
    raise NodeUnreachableError(
        f"Anvil did not start: {words[:200] or 'it said nothing'}",
        remedy="remove the packages-* folder in the cache folder and try again",
    )


def _read(output: Path) -> bytes:
    return output.read_bytes()


async def _ready(rpc: Rpc, chain_id: int) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                found = int(await rpc.call("eth_chainId"), 16)
            except NodeError:
                await asyncio.sleep(0.01)
                continue
            break
    if found != chain_id:
        raise WrongChainError(f"the local node serves chain {found}, not {chain_id}")


def _sweep_homes() -> None:
    """Remove what nodes of killed processes left: gigabytes, after long runs."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_HOME_PREFIX}*"):
        owner = folder.name.removeprefix(_HOME_PREFIX).split("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
