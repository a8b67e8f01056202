"""Keeps the URLs of nodes, and the keys inside them, out of every text people can see."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_TEXT_CHARACTERS = 300
# A scheme of any length would make a long text without "://" cost its square.
_ANY_URL = re.compile(r"[a-z][a-z0-9+.-]{0,31}://[^\s'\"<>]*", re.IGNORECASE)
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]+")
# A path such as /rpc or /v3 is no secret, and hiding three letters would garble every text.
_MIN_PIECE_CHARACTERS = 6
_MIN_PASSWORD_CHARACTERS = 3


def _pieces(url: str) -> set[str]:
    """Return the parts of a URL that give away where or with which key a node is reached."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return {url}
    found = {url, parts.netloc, host, unquote(parts.username or "")}
    found.update(parts.path.split("/"))
    found.update(value for _, value in parse_qsl(parts.query))
    found.add(parts.fragment)
    found.update([unquote(piece) for piece in found])
    kept = {piece for piece in found if len(piece) >= _MIN_PIECE_CHARACTERS}
    for password in (parts.password or "", unquote(parts.password or "")):
        if len(password) >= _MIN_PASSWORD_CHARACTERS:
            kept.add(password)
    return kept


class Scrubber:
    """Cleans texts of nodes and libraries; knows the URLs, shows nothing of them."""

    def __init__(self, urls: Iterable[str]) -> None:
        pieces = {piece for url in urls for piece in _pieces(url)}
        # Longest first, else a host would be cut out of the middle of its URL and leave the rest.
        ordered = sorted(pieces, key=lambda piece: (-len(piece), piece))
        pattern = "|".join(re.escape(piece) for piece in ordered)
        self._known = re.compile(pattern or r"(?!)", re.IGNORECASE)

    def clean(self, text: str) -> str:
        """Return `text` as one printable line of at most 300 characters without secrets."""
        # Bounded before the search (a node may send megabytes), then cut to what people read.
        bounded = _NOT_PRINTABLE.sub(" ", text[: 20 * MAX_TEXT_CHARACTERS])
        hidden = self._known.sub("[hidden]", _ANY_URL.sub("[hidden]", bounded))
        if len(hidden) <= MAX_TEXT_CHARACTERS:
            return hidden
        return hidden[: MAX_TEXT_CHARACTERS - 1].rstrip() + "~"
