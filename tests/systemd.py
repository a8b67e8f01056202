"""A stand-in for systemd: takes what a service says at $NOTIFY_SOCKET, and has its watchdog."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.daemon_process import Daemon, until


@dataclass
class Systemd(asyncio.DatagramProtocol):
    """What one service has said; `starved` once it was silent for longer than the interval.

    As in systemd the watchdog begins with READY=1 and ends with STOPPING=1.
    """

    address: str
    watchdog_seconds: float | None = None
    messages: list[str] = field(default_factory=list)
    starved: bool = False
    _timer: asyncio.TimerHandle | None = None

    @property
    def variables(self) -> Mapping[str, str]:
        """What the service finds in its environment."""
        found = {"NOTIFY_SOCKET": self.address}
        if self.watchdog_seconds is not None:
            found["WATCHDOG_USEC"] = str(int(self.watchdog_seconds * 1_000_000))
        return found

    def datagram_received(self, data: bytes, addr: object) -> None:
        message = data.decode()
        self.messages.append(message)
        if message in {"READY=1", "WATCHDOG=1"}:
            self._arm()
        if message == "STOPPING=1" and self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.watchdog_seconds is not None and not self.starved:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.watchdog_seconds, self._starve)

    def _starve(self) -> None:
        self.starved = True

    @property
    def is_ready(self) -> bool:
        """Whether the service has said that it has started."""
        return "READY=1" in self.messages

    @property
    def status(self) -> str:
        """The last line for people."""
        lines = [one for one in self.messages if one.startswith("STATUS=")]
        return lines[-1].removeprefix("STATUS=") if lines else ""

    @property
    def pings(self) -> int:
        """How often the watchdog was fed."""
        return self.messages.count("WATCHDOG=1")

    async def hears(self, message: str) -> None:
        """Wait for a message."""

        async def heard() -> bool:
            return message in self.messages

        await until(heard, f"{message} among {self.messages}", 30)

    async def shows(self, *words: str) -> None:
        """Wait until the last line for people holds all these words."""

        async def shown() -> bool:
            return all(word in self.status for word in words)

        await until(shown, f"{words} in the status", 30)

    async def is_fed(self, daemon: Daemon, intervals: int = 2) -> None:
        """Wait until so many intervals have been bridged by pings; it must not starve meanwhile."""
        assert self.watchdog_seconds is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + intervals * self.watchdog_seconds

        async def enough() -> bool:
            assert not self.starved, f"{self.messages[-8:]} {daemon.log()[-3000:]}"
            return loop.time() > end

        before = self.pings
        await until(enough, "pings")
        assert self.pings - before >= intervals

    async def starves(self) -> None:
        """Wait until the watchdog has had enough."""

        async def has_starved() -> bool:
            return self.starved

        await until(has_starved, "the watchdog to starve", 20)


@asynccontextmanager
async def systemd(
    folder: Path, watchdog_seconds: float | None = None, *, abstract: bool = False
) -> AsyncIterator[Systemd]:
    """Listen at a socket of our own, as the service manager does for each service."""
    path = str(folder / "notify")
    listening = Systemd("@" + path if abstract else path, watchdog_seconds)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind("\0" + path if abstract else path)
        opened.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: listening, sock=opened)
        try:
            yield listening
        finally:
            transport.close()
            if listening._timer is not None:
                listening._timer.cancel()
