"""What the program's supervisor is told: systemd's notify protocol, in datagrams.

READY=1 once everything that a start can find wrong has been looked at: the HTTP side listens, the
database's schema is right and each chain's id too. What cannot be reached is not waited for: a
start must not hang, nor fail, because a node or the database is away.

WATCHDOG=1 is a consequence of work, never of a timer: every chain's live lane has to have moved
since the last one. The history lane does not count, or hours of back-fill would hide a live lane
that hangs. A chain moves when

- a live step has finished: blocks committed, or the head confirmed unchanged; so does one that
  finds the node behind, or in contradiction to what is final;
- a step, or a wait at the start, has ended with the refusal of a node or the database. To start
  again mends no node, and would take /metrics and /readyz away just when they are needed;
- within such a step a request to a node has ended, or a statement has done its work in the
  database. A live step after a long absence asks for much, several endpoints that are away are each
  waited for, and a slow disk makes one transaction last for minutes.

A step that never returns, a loop that is blocked and plans that never fit do none of this.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from indexer import metrics
from indexer.log import get_logger, scrub

log = get_logger()

HTTP = "http"
DATABASE = "database"
MAX_STATUS_CHARACTERS = 400
EXTENSION_SECONDS = 60
"""How much longer a start may take that has just moved."""
PINGS_PER_INTERVAL = 4

_attended: ContextVar[str | None] = ContextVar("attended", default=None)
"""The chain whose move it is."""


@contextmanager
def attended(chain: str) -> Iterator[None]:
    """Let requests and statements of this block, and of tasks begun in it, count as moves."""
    token = _attended.set(chain)
    try:
        yield
    finally:
        _attended.reset(token)


class Supervisor:
    """Tells one supervisor of the whole process. A lost message fails nothing, nor does it block.

    `address` is $NOTIFY_SOCKET: a path, or an abstract name behind "@"; empty: nobody listens.
    `watchdog_seconds` is how long it waits for the next WATCHDOG=1, None: it does not.
    """

    def __init__(
        self,
        address: str,
        watchdog_seconds: float | None,
        chains: Iterable[str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds
        self._chains = frozenset(chains)
        self._now = now
        self._unknown = {HTTP, DATABASE, *self._chains}
        """What has to be known, good or away, before the start counts as finished."""
        self._is_ready = False
        self._still = set(self._chains)
        """The chains that have not moved since the last ping."""
        self._doubted: set[str] = set()
        self._pinged_at = now()
        self._status = ""
        self._complained = False

    def known(self, part: str) -> None:
        """Note that HTTP listens, or that the database or a chain is right, or is away."""
        self._unknown.discard(part)
        self._say_ready()

    def moved(self, chain: str) -> None:
        """Note that a chain's live lane has finished something, or was refused it."""
        self._doubted.discard(chain)
        self._move(chain)

    def doubted(self, chain: str) -> None:
        """Note a failure with nobody outside to blame: requests and statements are no move now."""
        self._doubted.add(chain)

    def request_done(
        self, chain: str, endpoint: str, method: str, outcome: str, seconds: float, calls: int
    ) -> None:
        """Count a request as metrics.request_done, and as a move if it was attended."""
        metrics.request_done(chain, endpoint, method, outcome, seconds, calls)
        if outcome != "cancelled":
            self._move_attended()

    def statement_done(self) -> None:
        """Count a statement that the database has finished as a move if it was attended."""
        self._move_attended()

    def show(self, status: str) -> None:
        """Tell people in one line how things are, if that has changed."""
        self._say_ready()
        # A node's own words may hold what systemd, or UTF-8, has no place for.
        shown = (letter if letter.isprintable() else " " for letter in scrub(status))
        text = " ".join("".join(shown).split())
        if len(text) > MAX_STATUS_CHARACTERS:
            text = text[: MAX_STATUS_CHARACTERS - 1] + "…"
        if text != self._status and self._say(f"STATUS={text}"):
            self._status = text

    def stopping(self) -> None:
        """Tell that the process is about to end."""
        self._say("STOPPING=1")

    def _say_ready(self) -> None:
        # Again with the next status, if it was lost: a start that is never told counts as failed.
        if not self._unknown and not self._is_ready and self._say("READY=1"):
            self._is_ready = True
            self._pinged_at = self._now()

    def _move_attended(self) -> None:
        chain = _attended.get()
        if chain is not None and chain not in self._doubted:
            self._move(chain)

    def _move(self, chain: str) -> None:
        self._still.discard(chain)
        every_seconds = (self._watchdog_seconds or EXTENSION_SECONDS) / PINGS_PER_INTERVAL
        if self._still or self._now() - self._pinged_at < every_seconds:
            return
        message = (
            "WATCHDOG=1" if self._is_ready else f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS}000000"
        )
        if self._is_ready and self._watchdog_seconds is None:
            return
        if self._say(message):
            self._pinged_at = self._now()
            self._still = set(self._chains)

    def _say(self, message: str) -> bool:
        """Send one message; return whether it was taken, or nobody wants any."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.setblocking(False)
                end.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("supervisor_not_reached", reason=error.strerror)
            return False
        return True
