"""Every error this program raises on purpose.

SessionwatchError
├── RetryableError       try the whole step again; the process exits 75 if it must give up
│   ├── NodeError            a node did not answer, or answered something unusable
│   │   ├── NodeUnreachableError     no connection, a timeout, HTTP 5xx
│   │   ├── NodeAnswerError          an answer that breaks the protocol or contradicts itself
│   │   ├── RangeTooLargeError       the node wants a narrower range of blocks
│   │   ├── BlockUnknownError        the node does not know this block (lag, or a reorg)
│   │   ├── StatePrunedError         the node no longer has the state of this block
│   │   └── FinalityBehindError      the node's finality has not come to what is stored
│   ├── DatabaseUnavailableError     Postgres is away or refused a connection
│   ├── WorkerEndedError     the process that pays history ended before it was done
│   ├── StaleStepError       another transaction moved the tip or the watch list: plan again
│   └── FencedError          another process follows this chain now
└── FatalError           wake someone; the process exits 78
    ├── ConfigurationError   one or more mistakes, each with file, key, found, expected
    ├── UsageError           wrong input on the command line; exit code 2
    ├── WrongChainError      the node serves another chain
    ├── SchemaVersionError   the database was prepared for another version
    └── FinalityViolationError   node and database disagree at or below finality
"""

from __future__ import annotations

EXIT_STOPPED = 0
EXIT_USAGE = 2
EXIT_STUCK = 70
EXIT_TRY_AGAIN = 75
EXIT_FATAL = 78


class SessionwatchError(Exception):
    """The root: `str()` says what is wrong and where, `remedy` what to do about it."""

    exit_code: int = EXIT_FATAL

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class RetryableError(SessionwatchError):
    """Back off and repeat the whole step."""

    exit_code = EXIT_TRY_AGAIN


class FatalError(SessionwatchError):
    """Repeating cannot help; a person has to act."""


class NodeError(RetryableError):
    """A node did not give a usable answer. The text names the endpoint, never its URL."""


class NodeUnreachableError(NodeError):
    """No connection, a deadline missed, or an HTTP status that is not an answer."""


class NodeAnswerError(NodeError):
    """An answer that breaks JSON-RPC, misses a field, or contradicts itself."""


class RangeTooLargeError(NodeError):
    """The node wants fewer blocks, or returned more bytes than are accepted."""


class BlockUnknownError(NodeError):
    """The node does not know a block it was asked about by hash: it lags, or a reorg took it."""


class StatePrunedError(NodeError):
    """The node no longer has the state of this block. Never a zero."""


class FinalityBehindError(NodeError):
    """The node's finalized block is below a block that is stored, and has to come past it."""


class DatabaseUnavailableError(RetryableError):
    """Postgres cannot be reached, or closed the connection."""


class WorkerEndedError(RetryableError):
    """The process that pays history ended before it was done; what it had begun is owed still."""


class StaleStepError(RetryableError):
    """What the step was planned on has moved; nothing was written."""


class FencedError(RetryableError):
    """Another process has taken over this chain; nothing was written."""


class ConfigurationError(FatalError):
    """One or more mistakes in the configuration."""


class UsageError(FatalError):
    """Wrong input on the command line."""

    exit_code = EXIT_USAGE


class WrongChainError(FatalError):
    """The node answers eth_chainId with another number than configured."""


class SchemaVersionError(FatalError):
    """The database schema is missing or of another version."""


class FinalityViolationError(FatalError):
    """The node contradicts a block that was already final. Latched, not an exit."""
