"""Logging: JSON for machines, text for people, secrets for nobody."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from indexer.config import journal_reads
from indexer.log import configure_logging, describe, get_logger, scrub


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    configure_logging_secrets_reset()


def configure_logging_secrets_reset() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging(json=True, stream=stream)
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fail(text: str) -> None:
    raise ConnectionError(text)


def written(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_json_line_per_event_when_no_terminal_reads() -> None:
    """Each event is one JSON object with time, level and its fields; bytes are 0x hex."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    log = get_logger()
    log.info("root_changed", account=b"\x11" * 20, root=b"\x22" * 32, block_number=7, missing=None)
    log.debug("nothing_happened")
    log.info("set_listed", leaves=[b"\x01" * 32, ("https://a.example/key", {b"\x02" * 20: 1.5})])
    first, second = written(stream)
    assert first.pop("time")
    assert first == {
        "event": "root_changed",
        "level": "info",
        "account": "0x" + "11" * 20,
        "root": "0x" + "22" * 32,
        "block_number": 7,
        "missing": None,
    }
    leaves = ["0x" + "01" * 32, ["https://a.example/…", {"0x" + "02" * 20: 1.5}]]
    assert second["leaves"] == leaves


def test_a_terminal_gets_coloured_text() -> None:
    """People read colours, not JSON; both can be asked for."""
    terminal = Terminal()
    configure_logging(stream=terminal)
    get_logger().warning("node_unreachable", endpoint="endpoint-1")
    assert "\x1b[" in terminal.getvalue()
    assert "endpoint-1" in terminal.getvalue()
    plain = io.StringIO()
    configure_logging(json=False, stream=plain)
    get_logger().warning("node_unreachable", endpoint="endpoint-1")
    assert "\x1b[" not in plain.getvalue()
    forced = Terminal()
    configure_logging(json=True, level="error", stream=forced)
    get_logger().warning("node_unreachable")
    get_logger().error("node_lost")
    assert [line["event"] for line in written(forced)] == ["node_lost"]


@pytest.mark.parametrize("json_lines", [True, False])
def test_tracebacks_and_libraries_are_scrubbed_too(*, json_lines: bool) -> None:
    """A URL in an exception, in a library's log line or in a local variable is not written."""
    stream = io.StringIO()
    configure_logging(json=json_lines, stream=stream, secrets=["hunter2hunter2"])
    url = "https://me:sesame@node.example:8545/v2/opensesame?key=opensesame"
    try:
        fail(f"cannot reach {url} (hunter2hunter2)")
    except ConnectionError as error:
        get_logger().exception("node_failed", error=error, cause=repr(error))
        logging.getLogger("aiohttp").exception("failed for %s", url)
        text = describe(error)
    logging.getLogger("aiohttp").info("not of interest")
    out = stream.getvalue() + text
    assert "sesame" not in out
    assert "hunter2" not in out
    assert "https://node.example:8545/…" in out
    assert "ConnectionError" in out
    assert "Traceback" in out
    assert "not of interest" not in out


def test_texts_of_strangers_are_bounded() -> None:
    """A revert text of a megabyte does not fill the disk, nor does data of any length."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    get_logger().info(
        "log_undecoded", text="x" * 1_000_000, data=bytes(1000), deep=[[[[[[[[1]]]]]]]]
    )
    assert len(stream.getvalue()) < 25_000
    assert str(written(stream)[0]["data"]).endswith("… (1000 bytes)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("http://127.0.0.1:8545/", "http://127.0.0.1:8545/"),
        ("see https://h/key, please", "see https://h/… please"),
        ("URL('https://h/key')", "URL('https://h/…')"),
        ("wss://k@h", "wss://h/…"),
        ("https://h?key=1", "https://h/…"),
        ("https://h#key", "https://h/…"),
        ("postgresql://u:p@h:5432/d?x=y", "postgresql://h:5432/…"),
        ("postgresql:///d?host=/x", "postgresql:///…"),
        ("http://[::1]:8545/key", "http://[::1]:8545/…"),
        ("a https://h/1 b https://i/2 c", "a https://h/… b https://i/… c"),
        ("password=abc user=x", "password=(hidden) user=x"),
        ("Authorization: Bearer abc.def", "Authorization: (hidden)"),
        ("{'token': 'abc'}", "{'token': (hidden)}"),
        ("nothing here", "nothing here"),
    ],
)
def test_scrub_keeps_the_host_and_drops_the_rest(text: str, expected: str) -> None:
    """User, password, path, query and fragment go; scheme, host and port stay."""
    assert scrub(text) == expected


WORD = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.~%!$&*+,;=:", min_size=6, max_size=20)


@given(secret=WORD, place=st.sampled_from(["u:{}@h", "{}@h", "h/a/{}", "h?k={}", "h/#{}"]))
def test_no_part_of_a_url_that_can_be_a_key_survives(secret: str, place: str) -> None:
    """Wherever a key stands in a URL, scrubbing removes it, and scrubbing twice changes nothing."""
    secret = f"zq{secret}qz"
    once = scrub(f"failed: https://{place.format(secret)}")
    assert secret not in once
    assert scrub(once) == once


def test_the_journal_is_told_each_priority() -> None:
    """Each line begins with <N>, which journald takes for its priority; JSON stays as it was."""
    stream = io.StringIO()
    configure_logging(json=True, level="info", stream=stream, journal=True)
    get_logger().info("step_done")
    get_logger().warning("step_retried", reason="two\nlines")
    get_logger().error("part_failed")
    logging.getLogger("library").warning("theirs")
    lines = stream.getvalue().splitlines()
    assert [line[:3] for line in lines] == ["<6>", "<4>", "<3>", "<4>"]
    assert json.loads(lines[1][3:])["event"] == "step_retried"


def test_each_line_of_a_text_has_its_priority() -> None:
    """A traceback in the format text is several lines of the journal."""
    stream = io.StringIO()
    configure_logging(json=False, stream=stream, journal=True)
    try:
        json.loads("no")
    except ValueError:
        get_logger().exception("part_failed")
    lines = stream.getvalue().splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


def test_the_journal_is_known_by_its_stream() -> None:
    """$JOURNAL_STREAM is inherited by whom the journal does not read: it has to be our stderr."""
    stream = os.fstat(2)
    assert journal_reads({"JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"})
    assert not journal_reads({"JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino + 1}"})
    assert not journal_reads({})
