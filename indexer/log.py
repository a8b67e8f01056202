"""Logging: what happened, as `noun_verbed` events with values as fields, and never a secret.

One line per event on stderr: JSON when it is not a terminal, coloured text when it is. Whatever is
logged (by us, by a library, or as a traceback) passes the same scrubber. For systemd's journal each
line begins with its priority, as `<4>`, which the journal takes off (sd-daemon(3)).
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO, cast

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

HIDDEN = "(hidden)"
_MAX_DEPTH = 6
_MAX_TEXT = 20_000  # a hostile revert text must not fill the disk
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,31}://)(?P<rest>[^\s\"'<>|\\^`{}\[\]()]*(?:\[[0-9A-Fa-f:.]+\])?"
    r"[^\s\"'<>|\\^`{}()]*)"
)
_PAIR = re.compile(
    r"(?i)\b(password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|authorization)"
    r"(['\"]?\s*[=:]\s*)(bearer\s+|basic\s+)?(\"[^\"]*\"|'[^']*'|[^\s,;&'\"})]+)"
)
_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogSetup:
    """How logging was configured last: what another process of ours needs to log alike."""

    json: bool
    level: str
    secrets: tuple[str, ...] = field(repr=False)
    colours: bool = True
    journal: bool = False


_setup = LogSetup(json=True, level="info", secrets=())


def log_setup() -> LogSetup:
    """Return how logging was configured last."""
    return _setup


def scrub(text: str) -> str:
    """Return the text with every URL reduced to scheme://host:port/… and known secrets hidden.

    User, password, path, query and fragment of a URL may each hold an access key.
    """
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _URL.sub(_shorten, text)
    return _PAIR.sub(lambda match: f"{match[1]}{match[2]}{HIDDEN}", text)


def _shorten(match: re.Match[str]) -> str:
    authority = re.split(r"[/?#]", match["rest"], maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    same = host == match["rest"] or match["rest"] in (f"{host}/", f"{host}/…")
    return match["scheme"] + (match["rest"] if same else f"{host}/…")


def _clean(value: object, depth: int = 0) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        text = scrub(value)
        return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}… ({len(text)} characters)"
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        return f"0x{data.hex()}" if len(data) <= 64 else f"0x{data[:64].hex()}… ({len(data)} bytes)"
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {str(_clean(k, depth + 1)): _clean(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_clean(item, depth + 1) for item in value]
    return scrub(str(value))


def _scrubbed(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    for key, value in event_dict.items():
        if not key.startswith("_"):  # structlog's own: the record and its origin
            event_dict[key] = _clean(value)
    return event_dict


_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def _with_priority(renderer: Processor) -> Processor:
    """Let the journal know how urgent a line is: `journalctl --priority=warning` goes by it."""

    def render(logger: WrappedLogger, name: str, event_dict: EventDict) -> str:
        priority = _PRIORITIES.get(str(event_dict.get("level")), 6)
        text = str(renderer(logger, name, event_dict))
        return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))

    return render


def configure_logging(
    json: bool | None = None,
    level: str = "info",
    *,
    secrets: Sequence[str] = (),
    stream: TextIO | None = None,
    colours: bool = True,
    journal: bool = False,
) -> None:
    """Send every event to `stream` (stderr), as JSON if `json`, or if None and no terminal reads.

    `secrets` are texts that must never appear, such as the URLs of the configuration. `journal`:
    the stream is systemd's journal, and is told each priority. May be called again: once before the
    configuration is read, once after.
    """
    global _secrets, _setup  # noqa: PLW0603 - one process, one set of secrets
    _secrets = tuple(sorted((s for s in secrets if len(s) >= 6), key=len, reverse=True))
    out = stream if stream is not None else sys.stderr
    as_json = not out.isatty() if json is None else json
    _setup = LogSetup(as_json, level, tuple(secrets), colours, journal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _scrubbed,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False, sort_keys=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=colours and out.isatty(),
            timestamp_key="time",
            pad_event_to=28,
            # the default one prints local variables, and with them URLs
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    if journal:
        renderer = _with_priority(renderer)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # looked up anew when stream is None: whoever replaces sys.stderr is followed
        # One write for a line and its end: two processes of ours share this stream.
        logger_factory=lambda *_: structlog.WriteLogger(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for old in [h for h in root.handlers if getattr(h, "name", "") == "sessionwatch"]:
        root.removeHandler(old)
    handler.set_name("sessionwatch")
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """Return the logger: `log.info("noun_verbed", field=value)`."""
    if not structlog.is_configured():  # structlog's own default is stdout, which is for answers
        structlog.configure(logger_factory=lambda *_: structlog.WriteLogger(sys.stderr))
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger())


def describe(error: BaseException) -> str:
    """Return an unforeseen error as one scrubbed text with its traceback, for a last resort."""
    import traceback  # noqa: PLC0415 - only on the way down

    return scrub("".join(traceback.format_exception(error)))
