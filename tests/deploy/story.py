"""A daemon on the local chain that has something to tell: drift, uses of a session, a reorg."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.core.types import Hash32, Session
from indexer.devnet.accounts import SmartAccount
from indexer.devnet.operations import Key, seed_session
from indexer.devnet.tools import Toolchain
from tests.watching import Watch, hexed, watching


@dataclass
class Story:
    """A running daemon, an account that has drifted critically, and the set that it should have.

    `variables` are what the runbook's placeholders stand for here; `target` is "host:port".
    """

    watch: Watch
    drifted: SmartAccount
    wanted: list[Session]
    target: str
    config_file: Path
    variables: dict[str, str]

    async def node_refuses_until(self, seen: Callable[[], Awaitable[object]]) -> None:
        """Have the node refuse each question for the head until something was seen."""
        no = {"error": {"code": -32000, "message": "no"}}
        self.watch.proxy.refuse("eth_getBlockByNumber", no)
        await seen()
        self.watch.proxy.heal()


@asynccontextmanager
async def told(toolchain: Toolchain, database_url: str, folder: Path) -> AsyncIterator[Story]:
    """Play: an account with an unknown root, one whose set never lands, a reorg."""
    async with watching(toolchain, database_url, folder, finality=2, grace_seconds=1) as watch:
        drifted, silent = watch.devnet.account("drifted"), watch.devnet.account("silent")
        key = Key.named("runbook")
        wanted = [seed_session(key.address, key.address, 1)]
        for account in (drifted, silent):
            await watch.store(account, wanted, wait=False)
        await watch.devnet.register(drifted, wanted)
        minted = await watch.devnet.mint_with_session(
            drifted, key, wanted, 0, to=key.address, token_id=1
        )
        assert minted.succeeded
        await watch.set_root(drifted, Hash32(b"\x5a" * 32))
        await watch.until_verdict(drifted, "drifted", "unknown_root")
        await watch.until_verdict(silent, "drifted", "never_landed")
        await watch.devnet.rpc.mine()
        await watch.settled()
        await watch.devnet.rpc.reorg(1)
        await watch.devnet.rpc.mine()
        await watch.set_root(drifted, Hash32(b"\x5b" * 32))
        await watch.settled()
        port = (await watch.daemon.logs("http_listening"))["port"]
        yield Story(
            watch,
            drifted,
            wanted,
            f"127.0.0.1:{port}",
            folder / "daemon.toml",
            {
                "CHAIN": "local",
                "ACCOUNT": hexed(drifted.address),
                "BLOCK": "3",
                "FOLDER": str(folder / "sets"),
                "HTTP": f"http://127.0.0.1:{port}",
            },
        )
