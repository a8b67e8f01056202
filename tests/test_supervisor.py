"""What systemd is told and when, over real sockets; test_watchdog has the daemon itself."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.config import Supervision, take_supervision
from indexer.log import configure_logging
from indexer.supervisor import DATABASE, HTTP, MAX_STATUS_CHARACTERS, Supervisor, attended

INTERVAL_SECONDS = 60.0


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Socket:
    """The receiving end, and a supervisor that speaks to it."""

    def __init__(
        self, address: str, *chains: str, watchdog: float | None = INTERVAL_SECONDS
    ) -> None:
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.end.bind(address.replace("@", "\0", 1))
        self.end.setblocking(False)
        self.clock = Clock()
        self.supervisor = Supervisor(address, watchdog, chains, self.clock)

    def heard(self) -> list[str]:
        """Return what has come since it was last asked."""
        found: list[str] = []
        while True:
            try:
                found.append(self.end.recv(4096).decode())
            except BlockingIOError:
                return found

    def started(self, *chains: str) -> Socket:
        """Let the start be over."""
        for part in (HTTP, DATABASE, *chains):
            self.supervisor.known(part)
        assert self.heard() == ["READY=1"]
        return self


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "notify")
    configure_logging()


Listen = Callable[..., Socket]


@pytest.fixture
def listen() -> Iterator[Listen]:
    with contextlib.ExitStack() as stack:

        def opened(*arguments: Any, **more: Any) -> Socket:
            listening = Socket(*arguments, **more)
            stack.callback(listening.end.close)
            return listening

        yield opened


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_ready_is_said_once_when_all_is_known(kind: str, address: str, listen: Listen) -> None:
    """At a path and at an abstract name; each part is waited for, in any order."""
    at = address if kind == "path" else f"@{address}"
    listening = listen(at, "amoy", "mumbai")
    for part in ("amoy", HTTP, HTTP, DATABASE):
        listening.supervisor.known(part)
        assert listening.heard() == []
    for _ in range(2):
        listening.supervisor.known("mumbai")
    assert listening.heard() == ["READY=1"]


def test_one_chain_that_does_not_move_starves_it(address: str, listen: Listen) -> None:
    """Each ping needs all chains anew; between two of them lies a quarter of the interval."""
    listening = listen(address, "amoy", "mumbai").started("amoy", "mumbai")
    supervisor, clock = listening.supervisor, listening.clock
    clock.seconds += 20
    supervisor.moved("amoy")
    supervisor.moved("amoy")
    assert listening.heard() == []
    supervisor.moved("mumbai")
    assert listening.heard() == ["WATCHDOG=1"]
    for _ in range(100):
        clock.seconds += 1
        supervisor.moved("mumbai")
    assert listening.heard() == []
    supervisor.moved("amoy")
    assert listening.heard() == ["WATCHDOG=1"]
    clock.seconds += 14
    supervisor.moved("amoy")
    supervisor.moved("mumbai")
    assert listening.heard() == []
    clock.seconds += 1
    supervisor.moved("mumbai")
    assert listening.heard() == ["WATCHDOG=1"]


def test_requests_are_moves_only_where_they_belong_to_a_live_step(
    address: str, listen: Listen
) -> None:
    """Not those of other lanes, not cancelled ones, and none while plans do not fit."""
    listening = listen(address, "mumbai").started("mumbai")

    def asks(outcome: str = "ok") -> list[str]:
        listening.clock.seconds += 20
        listening.supervisor.request_done("mumbai", "endpoint-1", "eth_call", outcome, 0.1, 0)
        return listening.heard()

    assert asks() == []
    with attended("mumbai"):
        assert asks() == ["WATCHDOG=1"]
        assert asks("unreachable") == ["WATCHDOG=1"]
        assert asks("cancelled") == []
        listening.clock.seconds += 20
        listening.supervisor.statement_done()
        assert listening.heard() == ["WATCHDOG=1"]
        listening.supervisor.doubted("mumbai")
        assert asks() == []
        listening.supervisor.statement_done()
        assert listening.heard() == []
        listening.supervisor.moved("mumbai")
        assert listening.heard() == ["WATCHDOG=1"]
        assert asks() == ["WATCHDOG=1"]
    assert asks() == []


def test_a_start_that_moves_is_given_more_time(address: str, listen: Listen) -> None:
    """Before READY=1 no watchdog, but a limit to the start; without a watchdog no pings."""
    listening = listen(address, "mumbai", watchdog=None)
    listening.clock.seconds += 20
    listening.supervisor.moved("mumbai")
    assert listening.heard() == ["EXTEND_TIMEOUT_USEC=60000000"]
    listening.started("mumbai")
    listening.clock.seconds += 20
    listening.supervisor.moved("mumbai")
    assert listening.heard() == []


def test_the_status_is_one_short_line_without_secrets(address: str, listen: Listen) -> None:
    """It is said when it has changed; no line break can smuggle in another message."""
    configure_logging(secrets=("https://node.example/s3cret",))
    listening = listen(address)
    for _ in range(2):
        listening.supervisor.show("mumbai: block 49\nWATCHDOG=1 https://node.example/s3cret")
    (said,) = listening.heard()
    assert said.startswith("STATUS=mumbai: block 49 WATCHDOG=1 ")
    assert "s3cret" not in said
    listening.supervisor.show("x" * 10_000)
    (said,) = listening.heard()
    assert len(said) == len("STATUS=") + MAX_STATUS_CHARACTERS
    listening.supervisor.stopping()
    assert listening.heard() == ["STOPPING=1"]


@pytest.mark.parametrize("hostile", ["\0", "\ud800", "\x1b", "\x85", "\u2028", "\u202e"])
def test_a_status_with_what_has_no_place_in_it_is_still_said(
    listen: Listen, address: str, hostile: str
) -> None:
    """Systemd drops a message that holds NUL, and half a character cannot even be sent."""
    listening = listen(address)
    listening.supervisor.show(f"ended: the node says {hostile}READY=1")
    assert listening.heard() == ["STATUS=ended: the node says READY=1"]


def test_a_lost_message_fails_nothing(
    address: str, listen: Listen, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody there: one line in the log, and the start is told as soon as somebody is."""
    configure_logging(json=True)
    supervisor = Supervisor(address, INTERVAL_SECONDS, ["mumbai"])
    for part in (HTTP, DATABASE, "mumbai"):
        supervisor.known(part)
    supervisor.show("mumbai: starting")
    assert capsys.readouterr().err.count("supervisor_not_reached") == 1
    listening = listen(address)
    supervisor.show("mumbai: starting")
    assert listening.heard() == ["READY=1", "STATUS=mumbai: starting"]


def test_a_supervisor_that_does_not_read_blocks_nobody(address: str, listen: Listen) -> None:
    """Its queue runs full; what comes next is lost, and said when there is room again."""
    listening = listen(address)
    for number in range(2000):
        listening.supervisor.show(f"block {number}")
    kept = listening.heard()
    assert 0 < len(kept) < 2000
    listening.supervisor.show("block 1999")
    assert listening.heard() == ["STATUS=block 1999"]


def test_without_a_socket_nothing_is_said() -> None:
    """As at a terminal: everything is accepted."""
    supervisor = Supervisor("", None, ["mumbai"])
    for part in (HTTP, DATABASE, "mumbai"):
        supervisor.known(part)
    supervisor.moved("mumbai")
    supervisor.show("mumbai: starting")
    supervisor.stopping()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, Supervision()),
        ({"NOTIFY_SOCKET": "/run/notify"}, Supervision("/run/notify")),
        ({"NOTIFY_SOCKET": "@notify", "WATCHDOG_USEC": "60000000"}, Supervision("@notify", 60.0)),
        (
            {"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())},
            Supervision("@n", 0.5),
        ),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}, Supervision("@n")),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "0"}, Supervision("@n")),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, Supervision("@n")),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, Supervision()),
        ({"WATCHDOG_USEC": "60000000"}, Supervision()),
    ],
)
def test_the_variables_are_read_and_taken_away(given: dict[str, str], taken: Supervision) -> None:
    """They are for this process alone: none is left for a child."""
    environ = {"HOME": "/root", **given}
    assert take_supervision(environ) == taken
    assert environ == {"HOME": "/root"}
