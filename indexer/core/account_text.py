"""Words for the rows about one account: the same in a terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def author(root: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Say who changed a root, and what names them: pairs of a word and 0x text.

    `root` is a row of watch.session_root.
    """
    who = {
        "user_operation": "a user operation of the account",
        "module": "a module of the account",
        "session_key": "a session key, not the owner",
        "transaction": "a plain transaction",
        "ambiguous": "one of several transactions in that block",
    }.get(root["attribution"], "unknown: nothing names it")
    named = [
        ("session key", root["session_key"]),
        ("session", root["leaf"]),
        ("module", root["module"]),
        ("user operation", root["user_op_hash"]),
        ("transaction", root["transaction_hash"]),
    ]
    return who, [(word, value) for word, value in named if value]


def unix_text(unix_seconds: int) -> str:
    """Write a time of the chain, which may lie beyond what a calendar has."""
    try:
        return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"unix second {unix_seconds}"


def until_text(valid_until: int) -> str:
    """Say until when a session is valid; 0 means without end."""
    return unix_text(valid_until) if valid_until else "for ever"
