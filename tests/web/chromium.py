"""A headless Chromium, asked over its own protocol: what a page is like in a real browser."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp


class Tab:
    """One open page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.said: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        wanted = self._number
        await self._socket.send_json({"id": wanted, "method": method, "params": parameters})
        while True:
            said = await self._receive()
            if said.get("id") == wanted:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result

    async def _receive(self) -> dict[str, Any]:
        said: dict[str, Any] = await self._socket.receive_json(timeout=30)
        if said.get("method") == "Log.entryAdded":
            self.said.append(said["params"]["entry"]["text"])
        return said

    async def open(self, url: str, *, width: int, dark: bool) -> None:
        """Show a page at a width in CSS pixels, with the reader's wish for dark or light."""
        await self.call("Page.enable")
        await self.call("Log.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=844,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=width < 600,
        )
        scheme = "dark" if dark else "light"
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        await self.call("Page.navigate", url=url)
        while (await self._receive()).get("method") != "Page.loadEventFired":
            pass

    async def value(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def picture(self) -> bytes:
        """The whole page as PNG."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Tab]:
    """Start Chromium (Debian's package `chromium`) for the length of the block, with one tab."""
    program = shutil.which("chromium")
    assert program, "chromium is needed: apt-get install chromium"
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(process)
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = [one for one in await answer.json() if one["type"] == "page"]
            async with client.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                yield tab
                await tab.call("Browser.close")
        await asyncio.wait_for(process.communicate(), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _port(process: asyncio.subprocess.Process) -> int:
    assert process.stderr is not None
    async with asyncio.timeout(30):
        async for line in process.stderr:
            if line.startswith(b"DevTools listening on ws://"):
                return int(line.split(b":")[2].split(b"/")[0])
    raise AssertionError("chromium ended before it listened")
