"""Strict reading of a JSON document that may lie beside private keys.

Refused: what is not UTF-8, syntax errors (with line and column), NaN and Infinity, a key
written twice in one object, nesting past MAX_DEPTH, too many bytes or values. Whatever is
named like a secret is removed before anything else looks at the document; only the path
of it is kept.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from indexer.core.key_text import hide_keys
from indexer.core.session_fields import printable, step
from indexer.core.session_sets import MAX_DOCUMENT_BYTES
from indexer.errors import UsageError

MAX_DEPTH: Final = 64
MAX_VALUES: Final = 2_000_000
"""Commas and opening brackets: a list of 30 million empty lists would need gigabytes."""

_SECRET = re.compile(
    r"privatekey|privkey|pvkey|secret|mnemonic|seedphrase|recoveryphrase|passphrase|password|ephsk"
)
_SECRET_NAMES: Final = frozenset({"seed", "sk", "signers"})

_Trail = tuple["_Trail", str] | tuple[()]
"""A path as a chain of (parent, step): spelt out only where it is reported."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document without its secrets; `dropped` are the paths of what was removed unread."""

    value: Any
    dropped: tuple[str, ...]


class _TwiceKeyed(dict[str, Any]):
    """An object in which a key stood twice; JSON readers disagree on which one counts."""

    twice = ""


class _NotJsonError(ValueError):
    pass


def load_document(data: bytes, *, name: str) -> Loaded:
    """Return the parsed document of a file. Raises UsageError naming file and place."""
    shown = show_name(name)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise UsageError(
            f"{shown} has {len(data)} bytes, at most {MAX_DOCUMENT_BYTES} are accepted",
            remedy="split it into one file per account",
        )
    try:
        # Windows editors put a byte order mark in front; it carries no meaning in UTF-8.
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{shown} is not UTF-8 (byte {error.start})", remedy="save it as UTF-8"
        ) from None
    return load_text(text, name=name, path="$")


def load_text(text: str, *, name: str, path: str) -> Loaded:
    """Parse one JSON text found at `path`: the document, or a text that holds JSON itself."""
    where = show_name(name) if path == "$" else f"{show_name(name)}: the text at {path}"
    if not text.strip():
        raise UsageError(f"{where} is empty", remedy="give a JSON document with sessions")
    if sum(map(text.count, "[{,")) > MAX_VALUES:
        raise UsageError(
            f"{where} holds more than {MAX_VALUES} values", remedy="split it into smaller files"
        )
    if _is_too_deep(text):
        raise _too_deep(where)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            remedy="correct the document at that place",
        ) from None
    except _NotJsonError as error:
        raise UsageError(f"{where} is not JSON: {error}", remedy="use whole numbers") from None
    except RecursionError:
        raise _too_deep(where) from None
    return Loaded(value, tuple(_clean(value, where, path)))


def show_name(name: str) -> str:
    """Return a file's name as it may stand in a message."""
    base = hide_keys("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name))
    return base if len(base) <= 120 else "..." + base[-117:]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    marked = _TwiceKeyed(plain)
    times = Counter(key for key, _ in pairs)
    marked.twice = next(key for key, count in times.items() if count > 1)
    return marked


def _constant(word: str) -> NoReturn:
    raise _NotJsonError(f"{word} is not a JSON number")


def _integer(digits: str) -> int | float:
    # Past 4300 digits int() raises; as an infinite float it is refused where a field needs it.
    return int(digits) if len(digits) <= 100 else float(digits)


# A string (left open at the end of a broken document), or a bracket outside strings.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _is_too_deep(text: str) -> bool:
    """Say whether brackets nest past MAX_DEPTH, without nesting calls: the parser does that.

    Python's own guard is the recursion limit, and with that raised the parser dies of its stack.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        mark = found[0]
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif mark in "]}":
            depth -= 1
    return False


def _clean(value: Any, where: str, path: str) -> Iterator[str]:
    """Remove secrets in place, yield their paths; refuse double keys and too much depth."""
    queue: list[tuple[Any, _Trail, int]] = [(value, (), 1)]
    while queue:
        node, trail, depth = queue.pop()
        if depth > MAX_DEPTH:
            raise _too_deep(where)
        if isinstance(node, list):
            queue += [
                (item, (trail, f"[{index}]"), depth + 1)
                for index, item in reversed(list(enumerate(node)))
                if isinstance(item, (dict, list))
            ]
        elif isinstance(node, dict):
            if isinstance(node, _TwiceKeyed):
                raise UsageError(
                    f"{where} has the key {printable(node.twice)} twice in the object at "
                    f"{_spelt(path, trail)}",
                    remedy="remove one of them; readers of JSON disagree on which one counts",
                )
            for key in [key for key in node if _names_secret(key)]:
                del node[key]
                yield _spelt(path, (trail, step(key)))
            queue += [
                (item, (trail, step(key)), depth + 1)
                for key, item in reversed(node.items())
                if isinstance(item, (dict, list))
            ]


def _names_secret(key: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", key.lower())
    return plain in _SECRET_NAMES or plain.endswith("signers") or bool(_SECRET.search(plain))


def _spelt(path: str, trail: _Trail) -> str:
    steps: list[str] = []
    while trail:
        trail, part = trail
        steps.append(part)
    return path + "".join(reversed(steps))


def _too_deep(where: str) -> UsageError:
    return UsageError(
        f"{where} nests lists and objects deeper than {MAX_DEPTH}",
        remedy="give the list of sessions itself",
    )
