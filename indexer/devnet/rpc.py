"""A plain JSON-RPC client for the local chain: what tests and the demo say to a node.

The daemon's own client lives in chain/ and trusts nothing. This one talks to a node that we
started, so it only turns hex into numbers and errors into exceptions.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import aiohttp
import msgspec

from indexer.core.types import Address, Hash32
from indexer.errors import NodeAnswerError, NodeUnreachableError

_CALL_SECONDS: Final = 60.0
_BATCH: Final = 500

Json = Any


class DevnetRpcError(NodeAnswerError):
    """The local node answered with an error object. `code` and `data` are the node's own."""

    def __init__(self, method: str, error: Mapping[str, Json]) -> None:
        self.code = int(error.get("code", 0))
        self.data = error.get("data")
        super().__init__(f"{method}: {error.get('message', '')} ({self.code})")


def hexed(value: bytes | int) -> str:
    """Return bytes or a quantity as the `0x…` text of JSON-RPC."""
    return f"0x{value.hex()}" if isinstance(value, bytes) else hex(value)


class Rpc:
    """One node by its URL; use as an async context manager, or call `close`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, method: str, *params: Json) -> Json:
        """Return the result; raise DevnetRpcError for an error, NodeUnreachableError for none."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        return _result(method, await self._post(request))

    async def batch(self, requests: Sequence[tuple[str, Sequence[Json]]]) -> list[Json]:
        """Return the results in order; the first error of any of them is raised."""
        results: list[Json] = []
        for start in range(0, len(requests), _BATCH):
            part = [
                {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
                for method, params in requests[start : start + _BATCH]
            ]
            answers = {answer["id"]: answer for answer in await self._post(part)}
            results += [_result(str(one["method"]), answers[one["id"]]) for one in part]
        return results

    async def _post(self, body: Json) -> Json:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_CALL_SECONDS)
            )
        try:
            async with self._session.post(
                self.url,
                data=msgspec.json.encode(body),
                headers={"content-type": "application/json"},
            ) as response:
                return msgspec.json.decode(await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NodeUnreachableError(
                f"the local node does not answer: {type(error).__name__}"
            ) from error

    # What an Anvil node can do beyond other nodes.

    async def mine(self, blocks: int = 1) -> None:
        """Mine blocks now, whatever the mining mode; waiting transactions go into the first."""
        await self.call("anvil_mine", hex(blocks))

    async def set_automine(self, on: bool) -> None:
        """Mine a block per transaction (the default), or only when told to."""
        await self.call("evm_setAutomine", on)

    @asynccontextmanager
    async def without_automine(self) -> AsyncIterator[None]:
        """Mine no block for a transaction in here, then go on as before."""
        automine = bool(await self.call("anvil_getAutomine"))
        if automine:
            await self.set_automine(False)
        try:
            yield
        finally:
            if automine:
                await self.set_automine(True)

    async def set_next_timestamp(self, seconds: int) -> None:
        """Give the next block this time (unix seconds, not below the latest block's)."""
        await self.call("evm_setNextBlockTimestamp", seconds)

    async def snapshot(self) -> str:
        """Return an id that `revert` takes once."""
        return str(await self.call("evm_snapshot"))

    async def revert(self, snapshot_id: str) -> None:
        """Go back to a snapshot: the head is lowered silently, nobody is notified."""
        await self.call("evm_revert", snapshot_id)

    async def reorg(
        self, depth: int, transactions: Sequence[tuple[Mapping[str, Json], int]] = ()
    ) -> None:
        """Replace the last `depth` blocks by others; the head's number stays.

        `transactions` are (transaction, offset from the first replaced block). Those of the
        replaced blocks vanish and are not queued again.
        """
        await self.call("anvil_reorg", depth, [[dict(tx), at] for tx, at in transactions])

    async def rollback(self, depth: int) -> None:
        """Drop the last `depth` blocks: the head is lowered silently."""
        await self.call("anvil_rollback", depth)

    async def impersonate(self, address: Address) -> None:
        """Let transactions come from any address, also one with code."""
        await self.call("anvil_impersonateAccount", hexed(address))

    async def set_code(self, address: Address, code: bytes) -> None:
        """Put run-time code at an address."""
        await self.call("anvil_setCode", hexed(address), hexed(code))

    async def set_balance(self, address: Address, wei: int) -> None:
        """Give an address this balance, in wei."""
        await self.call("anvil_setBalance", hexed(address), hexed(wei))

    # What every node can do.

    async def block_number(self) -> int:
        """Return the number of the latest block."""
        return int(await self.call("eth_blockNumber"), 16)

    async def code(self, address: Address, block: int | str = "latest") -> bytes:
        """Return the code at an address; empty where there is none."""
        at = hex(block) if isinstance(block, int) else block
        return bytes.fromhex((await self.call("eth_getCode", hexed(address), at))[2:])

    async def eth_call(self, to: Address, data: bytes, block: int | str = "latest") -> bytes:
        """Return what a call answers, without a transaction."""
        at = hex(block) if isinstance(block, int) else block
        answer = await self.call("eth_call", {"to": hexed(to), "data": hexed(data)}, at)
        return bytes.fromhex(answer[2:])

    async def send(
        self,
        sender: Address,
        to: Address | None,
        data: bytes = b"",
        *,
        value: int = 0,
        gas: int = 15_000_000,
    ) -> Hash32:
        """Hand in a transaction of an unlocked address; return its hash, maybe not mined yet."""
        transaction = {"from": hexed(sender), "data": hexed(data), "value": hex(value)}
        transaction |= {"gas": hex(gas)} | ({"to": hexed(to)} if to else {})
        return Hash32(bytes.fromhex((await self.call("eth_sendTransaction", transaction))[2:]))

    async def receipt(self, transaction_hash: Hash32, *, seconds: float = 30.0) -> Json:
        """Return the receipt once the transaction is in a block; TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds):
            pause = 0.002
            while True:
                found = await self.call("eth_getTransactionReceipt", hexed(transaction_hash))
                if found is not None:
                    return found
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.25)


def _result(method: str, answer: Mapping[str, Json]) -> Json:
    if (error := answer.get("error")) is not None:
        raise DevnetRpcError(method, error)
    return answer["result"]
