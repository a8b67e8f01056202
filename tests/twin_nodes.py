"""Two real nodes with the same blocks, one of which drops old state.

Blocks cannot be copied from one Anvil to another, so both are told the same: whatever changes the
chain goes to the archive and then to the other one, and block times follow from the block before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from indexer.core.types import Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.devnet.anvil import AnvilOptions, running_anvil
from indexer.devnet.deploy import deploy
from indexer.devnet.rpc import DevnetRpcError, Rpc, hexed
from indexer.devnet.tools import Toolchain

GENESIS_TIME = 1_700_000_000
_CHANGING = ("eth_send", "evm_", "anvil_set", "anvil_mine", "anvil_impersonate")


class TwinRpc(Rpc):
    """Speaks to the archive; what changes its chain is repeated on the twin."""

    def __init__(self, url: str, twin: Rpc) -> None:
        super().__init__(url)
        self._twin = twin
        self._automine = True

    async def call(self, method: str, *params: Any) -> Any:
        """Return the archive's result, once both nodes are as far."""
        found = await super().call(method, *params)
        if method.startswith(_CHANGING):
            await self._twin.call(method, *params)
        if method == "evm_setAutomine":
            self._automine = params[0]
        if method == "eth_sendTransaction" and self._automine:
            sent = Hash32(bytes.fromhex(found[2:]))
            await self.receipt(sent)
            await self._twin.receipt(sent)
        return found

    async def batch(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Return the archive's results in order."""
        found = await super().batch(requests)
        changing = [one for one in requests if one[0].startswith(_CHANGING)]
        if changing:
            await self._twin.batch(changing)
        return found


@dataclass(frozen=True, slots=True)
class Twins:
    """The same chain twice. `devnet` writes it, and reads the archive."""

    devnet: Devnet
    pruned: Rpc

    @property
    def urls(self) -> list[str]:
        """The node without old state, then the archive."""
        return [self.pruned.url, self.devnet.url]

    async def tip(self) -> tuple[int, bytes]:
        """Return number and hash of the last block, which is the same on both."""
        tips = [
            await rpc.call("eth_getBlockByNumber", "latest", False)
            for rpc in (self.devnet.rpc, self.pruned)
        ]
        assert tips[0]["hash"] == tips[1]["hash"]
        return int(tips[0]["number"], 16), bytes.fromhex(tips[0]["hash"][2:])

    async def horizon(self) -> int:
        """Return the first block whose state the pruned node still has."""
        last, _ = await self.tip()
        first = 0
        while first < last:
            middle = (first + last) // 2
            if await self._has_state(middle):
                last = middle
            else:
                first = middle + 1
        return first

    async def _has_state(self, number: int) -> bool:
        try:
            await self.pruned.call("eth_getBalance", hexed(at.BUNDLER), hex(number))
        except DevnetRpcError:
            return False
        return True


@asynccontextmanager
async def running_twins(tools: Toolchain, *, prune_history: int) -> AsyncIterator[Twins]:
    """Start both nodes with every contract in its place."""
    options = AnvilOptions(genesis_time=GENESIS_TIME)
    async with (
        running_anvil(tools.anvil, options) as archive,
        running_anvil(tools.anvil, replace(options, prune_history=prune_history)) as pruned,
        TwinRpc(archive.url, pruned.rpc) as rpc,
    ):
        await rpc.call("anvil_setBlockTimestampInterval", 1)
        await deploy(rpc, tools)
        yield Twins(Devnet(replace(archive, rpc=rpc), tools), pruned.rpc)
