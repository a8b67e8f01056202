"""A daemon that follows a chain through a proxy that can make single calls fail."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.core.session_sets import build_set
from indexer.core.types import Address, Session
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, Receipt, SmartAccount, running_devnet
from indexer.devnet.operations import set_root_call
from indexer.devnet.tools import Toolchain
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.daemon_process import Daemon, configuration, running_daemon, settled, until
from tests.fixtures_database import connected
from tests.node_proxy import NodeProxy


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


async def tip_of(devnet: Devnet) -> tuple[int, bytes]:
    """Return number and hash of the chain's last block."""
    block = await devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    return int(block["number"], 16), bytes.fromhex(block["hash"][2:])


@dataclass(slots=True)
class Watch:
    """A chain, a daemon that follows it through a proxy, and the database it writes."""

    devnet: Devnet
    proxy: NodeProxy
    database_url: str
    connection: Connection
    daemon: Daemon

    async def settled(self) -> None:
        """Wait until everything up to the node's tip is indexed and decided."""
        tip = await tip_of(self.devnet)
        await until(lambda: settled(self.connection, *tip), f"block {tip[0]} to be decided")

    async def set_root(
        self, account: SmartAccount, root: bytes, manager: Address = at.MANAGER
    ) -> Receipt:
        receipt = await self.devnet.submit(account, [set_root_call(root, manager)])
        assert receipt.succeeded
        return receipt

    async def roots(self, account: SmartAccount) -> list[str]:
        """Return the account's roots as people see them, in block order."""
        rows = await self.connection.fetch(
            "SELECT root FROM watch.session_root WHERE account = $1 ORDER BY block_number",
            hexed(account.address),
        )
        return [row["root"] for row in rows]

    async def store(
        self,
        account: SmartAccount,
        *sets: Sequence[Session],
        manager: Address = at.MANAGER,
        wait: bool = True,
    ) -> None:
        """Store session sets one after the other, as `sessions import` does."""
        built = [build_set(80001, manager, account.address, sessions) for sessions in sets]
        async with Database.open(self.database_url) as database:
            for one in built:
                await import_sets(database, [(one, "test")])
        if wait:
            await self.settled()

    async def import_document(self, account: SmartAccount, document: object) -> None:
        """Import a document with the command line, and wait until it is decided on."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "indexer", "sessions", "import", "-"),
            *("--account", hexed(account.address)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                "SESSIONWATCH_DATABASE__URL": self.database_url,
                "SESSIONWATCH_CHAINS__MUMBAI__RPC": self.proxy.url,
            },
        )
        output, _ = await process.communicate(json.dumps(document).encode())
        assert process.returncode == 0, output.decode()
        await self.settled()

    async def verdict(self, account: SmartAccount, manager: Address = at.MANAGER) -> dict[str, Any]:
        row = await self.connection.fetchrow(
            "SELECT * FROM watch.verdict WHERE account = $1 AND manager = $2",
            hexed(account.address),
            hexed(manager),
        )
        return {} if row is None else dict(row)

    async def until_verdict(self, account: SmartAccount, verdict: str, cause: str | None) -> None:
        async def stands() -> bool:
            found = await self.verdict(account)
            return (found.get("verdict"), found.get("cause")) == (verdict, cause)

        await until(stands, f"the verdict {verdict} {cause or ''}", seconds=20)


@asynccontextmanager
async def watching(
    toolchain: Toolchain, database_url: str, folder: Path, **keys: Any
) -> AsyncIterator[Watch]:
    managers = [hexed(at.MANAGER), hexed(at.MANAGER_AUGUST), hexed(at.EVENT_MANAGER)]
    async with (
        running_devnet(toolchain) as devnet,
        NodeProxy(devnet.url) as proxy,
        connected(database_url) as connection,
    ):
        settings: dict[str, Any] = {"managers": managers, "grace_seconds": 2}
        config = configuration(database_url, proxy.url, **(settings | keys))
        async with running_daemon(folder, config) as daemon:
            await daemon.following()
            yield Watch(devnet, proxy, database_url, connection, daemon)
            assert await daemon.stop() == 0
            assert "Traceback" not in daemon.log()
