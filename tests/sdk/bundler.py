"""A real ERC-4337 bundler on the local chain, behind the URL that the vendor's SDK expects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.devnet.anvil import CHAIN_ID
from indexer.devnet.operations import Key
from indexer.devnet.rpc import hexed
from tests.sdk.vendor_process import vendor_process

_FUNDS_WEI = 10**20
_PATH = f"/api/v2/{CHAIN_ID}/devnet"
_GAS_PRICES = ("maxFeePerGas", "maxPriorityFeePerGas")


@dataclass
class Bundler:
    """A running bundler: its URL for the SDK, and why it refused what it refused."""

    url: str
    refusals: list[str]


@asynccontextmanager
async def running_bundler(packages: Path, folder: Path, devnet: Devnet) -> AsyncIterator[Bundler]:
    """Run a bundler on this chain until the block is left.

    Before its first operation it puts simulation contracts of its own on the chain.
    """
    executor, treasury = Key.named("bundler"), Key.named("bundler treasury")
    for key in (executor, treasury):
        await devnet.rpc.set_balance(key.address, _FUNDS_WEI)
    options = {
        "entrypoints": hexed(at.ENTRY_POINT),
        "executor-private-keys": hexed(executor.secret),
        "utility-private-key": hexed(treasury.secret),
        "rpc-url": devnet.url,
        "port": "0",
        # Its validation by tracing needs a node with JavaScript tracers.
        "safe-mode": "false",
        "block-time": "200",
        "json": "true",
        "log-level": "warn",
    }
    arguments = [text for key, value in options.items() for text in (f"--{key}", value)]
    script = packages / "node_modules/@pimlico/alto/esm/cli/alto.js"
    async with vendor_process(packages, folder, script, "run", *arguments) as alto:
        url = f"http://127.0.0.1:{await alto.says('listening')}"
        async with aiohttp.ClientSession() as client:
            found = await _ask(client, url, "eth_supportedEntryPoints", [])
            assert [one.lower() for one in found["result"]] == [hexed(at.ENTRY_POINT)]
            async with _vendors_manner(client, url) as bundler:
                yield bundler
        assert alto.said("refused") == []


@asynccontextmanager
async def _vendors_manner(client: aiohttp.ClientSession, url: str) -> AsyncIterator[Bundler]:
    """Serve a plain bundler as the vendor serves its own.

    The SDK wants a path with the chain id, gas prices among the estimates, an HTTP error with each
    JSON-RPC error, and sends a third parameter with operations that other bundlers refuse.
    """
    refusals: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        call = await request.json()
        method, params = call["method"], call["params"]
        if method == "eth_sendUserOperation":
            params = params[:2]
        answer = await _ask(client, url, method, params)
        if method == "eth_estimateUserOperationGas" and "result" in answer:
            prices = await _ask(client, url, "pimlico_getUserOperationGasPrice", [])
            answer["result"] |= {key: prices["result"]["fast"][key] for key in _GAS_PRICES}
        if "error" in answer:
            refusals.append(answer["error"]["message"])
        status = 400 if "error" in answer else 200
        return web.json_response(answer | {"id": call["id"]}, status=status)

    app = web.Application()
    app.router.add_post(_PATH, handle)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Bundler(f"http://127.0.0.1:{runner.addresses[0][1]}{_PATH}", refusals)
    finally:
        await runner.cleanup()


async def _ask(client: aiohttp.ClientSession, url: str, method: str, params: Any) -> dict[str, Any]:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with client.post(url, json=request) as response:
        answer: dict[str, Any] = await response.json()
    return answer
