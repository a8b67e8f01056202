"""History in a process of its own, while there is much of it.

Decoding a long past takes a core; the live lane keeps its own. The worker is started by the
daemon, is told its job on stdin, says on stdout what the daemon's metrics have to know, logs to
the same stderr, and ends when nothing is owed, when its stdin is closed, or when it is fenced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import msgspec
import uvloop

from indexer import errors, metrics
from indexer.chain.rpc import Node
from indexer.core.settings import ChainSettings
from indexer.core.types import Address
from indexer.errors import (
    EXIT_FATAL,
    EXIT_STOPPED,
    EXIT_TRY_AGAIN,
    FatalError,
    RetryableError,
    SessionwatchError,
    WorkerEndedError,
)
from indexer.filters import Contracts
from indexer.history import Historian
from indexer.ingest import HistoryListener
from indexer.log import LogSetup, configure_logging, get_logger, log_setup
from indexer.store.pool import Database
from indexer.store.rows import RowCounts

log = get_logger()

NICENESS = 10
"""Both cores busy: the live lane and the database come first."""
STOP_SECONDS = 3.0
_MOST_LINE_BYTES = 1 << 20


class Job(msgspec.Struct, frozen=True):
    """What a worker needs to know. It holds credentials: it travels by pipe alone."""

    settings: ChainSettings
    database_url: str
    epoch: int
    event_managers: frozenset[Address]
    log: LogSetup

    def __repr__(self) -> str:
        return f"Job({self.settings!r})"


class Debt(msgspec.Struct, tag=True):
    """Blocks owed, by pass, and those of them that cannot be read."""

    missing_blocks: dict[str, int]
    unreadable_blocks: dict[str, int]


class Rows(msgspec.Struct, tag=True):
    """A range was committed."""

    counts: RowCounts


class Request(msgspec.Struct, tag=True):
    """An HTTP request to a node ended. As metrics.request_done."""

    chain: str
    endpoint: str
    method: str
    outcome: str
    seconds: float
    calls: int


class Trouble(msgspec.Struct, tag=True):
    """A range failed and is repeated; or, `fatal`, the worker ends with this."""

    kind: str
    text: str
    remedy: str
    fatal: bool = False

    @classmethod
    def of(cls, error: SessionwatchError, *, fatal: bool = False) -> Trouble:
        """Return what can be told of an error: its nearest kind that every process knows."""
        kind = next(k for k in type(error).__mro__ if k.__module__ == errors.__name__)
        return cls(kind.__name__, str(error), error.remedy, fatal)

    def error(self) -> SessionwatchError:
        """Return the error again."""
        kind: type[SessionwatchError] = getattr(errors, self.kind)
        return kind(self.text, remedy=self.remedy)


class Recovered(msgspec.Struct, tag=True):
    """A range was paid after trouble."""


Said = Debt | Rows | Request | Trouble | Recovered
_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)


# --- the daemon's side ------------------------------------------------------------------------


@dataclass(slots=True)
class HistoryWorker:
    """Starts workers for one chain, and passes on what they say."""

    settings: ChainSettings
    database_url: str
    epoch: int
    event_managers: frozenset[Address]
    listener: HistoryListener

    async def run(self) -> None:
        """Let a worker pay until nothing can be begun; cancelling stops it.

        Raises what ended it before: the error it named, or WorkerEndedError.
        """
        job = Job(self.settings, self.database_url, self.epoch, self.event_managers, log_setup())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MOST_LINE_BYTES,
        )
        log.info("history_worker_started", chain=self.settings.name, pid=process.pid)
        try:
            assert process.stdin is not None
            process.stdin.write(_ENCODER.encode(job) + b"\n")
            failed = await self._listen(process)
            code = await process.wait()
        finally:
            await _stop(process)
        log.info("history_worker_ended", chain=self.settings.name, exit_code=code)
        if failed is not None:
            raise failed
        if code != EXIT_STOPPED:
            raise WorkerEndedError(
                f"the process that pays history ended with code {code}",
                remedy="another is started; if it was killed, it may have needed too much memory",
            )

    async def _listen(self, process: asyncio.subprocess.Process) -> SessionwatchError | None:
        assert process.stdout is not None
        failed: SessionwatchError | None = None
        async for line in process.stdout:
            match _DECODER.decode(line):
                case Debt(missing_blocks, unreadable_blocks):
                    self.listener.debt_known(missing_blocks, unreadable_blocks)
                case Rows(counts):
                    self.listener.rows_committed(counts)
                case Request() as done:
                    metrics.request_done(*msgspec.structs.astuple(done))
                case Trouble(fatal=True) as trouble:
                    failed = trouble.error()
                case Trouble() as trouble:
                    error = trouble.error()
                    assert isinstance(error, RetryableError)
                    self.listener.retrying("history", error)
                case Recovered():
                    self.listener.recovered("history")
        return failed


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Close its stdin, which ends it; kill it if it takes too long."""
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


# --- the worker's side ------------------------------------------------------------------------


def _say(said: Said) -> None:
    sys.stdout.buffer.write(_ENCODER.encode(said) + b"\n")
    sys.stdout.buffer.flush()


class _Reporter:
    """The listener of the worker's historian: says everything to the daemon."""

    def __init__(self) -> None:
        self._troubled = False

    def debt_known(
        self, missing_blocks: Mapping[str, int], unreadable_blocks: Mapping[str, int]
    ) -> None:
        _say(Debt(dict(missing_blocks), dict(unreadable_blocks)))

    def rows_committed(self, counts: RowCounts) -> None:
        _say(Rows(counts))

    def stepping(self, lane: str) -> AbstractContextManager[None]:
        del lane
        return contextlib.nullcontext()

    def retrying(self, lane: str, error: RetryableError) -> None:
        del lane
        self._troubled = True
        _say(Trouble.of(error))

    def recovered(self, lane: str) -> None:
        del lane
        if self._troubled:
            self._troubled = False
            _say(Recovered())


def _request_done(
    chain: str, endpoint: str, method: str, outcome: str, seconds: float, calls: int
) -> None:
    _say(Request(chain, endpoint, method, outcome, seconds, calls))


async def _work(job: Job) -> None:
    async with (
        Node(job.settings, on_request=_request_done) as node,
        Database.open(job.database_url, max_size=8) as database,
    ):
        await node.verify_chain()
        contracts = Contracts(job.settings, job.event_managers)
        await Historian(database, node, contracts, job.epoch, _Reporter()).run_until_paid()


async def _work_until_closed(job: Job) -> int:
    """Work until all is paid or the daemon has closed our stdin: it stops, or is no more."""
    loop = asyncio.get_running_loop()
    work = asyncio.current_task()
    assert work is not None

    def closed() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            loop.remove_reader(sys.stdin.fileno())
            work.cancel()

    loop.add_reader(sys.stdin.fileno(), closed)
    try:
        await _work(job)
    except asyncio.CancelledError:
        return EXIT_STOPPED
    except SessionwatchError as error:
        _say(Trouble.of(error, fatal=True))
        return EXIT_FATAL if isinstance(error, FatalError) else EXIT_TRY_AGAIN
    except BaseExceptionGroup as group:
        ours, others = group.split(SessionwatchError)
        if others is not None or ours is None:
            raise
        _say(Trouble.of(first_of(ours), fatal=True))
        return EXIT_FATAL
    return EXIT_STOPPED


def first_of(group: BaseExceptionGroup[SessionwatchError]) -> SessionwatchError:
    """Return the error to end with: a fatal one if there is any."""
    leaves: list[SessionwatchError] = []

    def collect(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                collect(inner)
        elif isinstance(error, SessionwatchError):
            leaves.append(error)

    collect(group)
    return next((e for e in leaves if isinstance(e, FatalError)), leaves[0])


def main() -> int:
    """Do the job that stands on stdin; return the exit code."""
    # They go to the whole process group: the daemon decides, and closes our stdin.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    line = bytearray()
    # Byte by byte: what stands behind the line is for the event loop to see.
    while (byte := os.read(sys.stdin.fileno(), 1)) not in {b"", b"\n"}:
        line += byte
    job = msgspec.json.decode(line, type=Job)
    configure_logging(
        json=job.log.json,
        level=job.log.level,
        secrets=job.log.secrets,
        colours=job.log.colours,
        journal=job.log.journal,
    )
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_work_until_closed(job))
        except (BrokenPipeError, BaseExceptionGroup) as error:
            if isinstance(error, BaseExceptionGroup) and error.subgroup(BrokenPipeError) is None:
                raise
            # The daemon is no more. Nobody reads what is still buffered: let the exit not try.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_STOPPED


if __name__ == "__main__":
    sys.exit(main())
