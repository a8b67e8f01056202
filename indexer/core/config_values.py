"""From a value as it stands in a file or variable to a typed one, or what was wrong with it.

Pure. A parser raises ValueMistakeError; it never puts the value of a hidden key into its text.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from eth_hash.auto import keccak

from indexer.core.key_text import hide_keys
from indexer.core.presets import PRESETS
from indexer.core.session_layout import Layout, parse_layout
from indexer.core.types import Address

HIDDEN = "(hidden)"
_MAX_BLOCK = 2**63 - 1
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_KNOWN_SCHEMES = frozenset({"http", "https", "ws", "wss", "ftp", "file", "ipc", "mysql", "sqlite"})


class ValueMistakeError(ValueError):
    """A value that does not do. None: the caller says it from the key's description."""

    def __init__(self, found: str | None = None, expected: str | None = None) -> None:
        super().__init__(found, expected)
        self.found = found
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table. `kind` says how the text of an environment variable is read."""

    kind: Literal["text", "number", "list"]
    parse: Callable[[object], object]
    expected: str
    hidden: bool = False


def show(value: object) -> str:
    """Write a value that is not meant to be secret as TOML would, at most 80 characters of it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = '"' + "".join(c if c.isprintable() else "?" for c in value) + '"'
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, list):
        text = f"a list of {len(value)}"
    else:
        text = str(value)
    text = hide_keys(text)
    return text if len(text) <= 80 else text[:79] + "…"


def checksum_address(address: bytes) -> str:
    """Write 20 bytes with the mixed case of EIP-55."""
    digits = address.hex()
    hashed = keccak(digits.encode()).hex()
    pairs = zip(digits, hashed, strict=False)
    return "0x" + "".join(c.upper() if int(h, 16) >= 8 else c for c, h in pairs)


def parse_address(value: object) -> Address:
    """Read one address; mixed case must be the checksum of EIP-55."""
    if not isinstance(value, str):
        raise ValueMistakeError(show(value), "an address: 0x and 40 hex digits")
    digits = value.removeprefix("0x")
    if not value.startswith("0x") or not re.fullmatch(r"[0-9a-fA-F]{40}", digits):
        shown = show(value)
        if re.fullmatch(r"[0-9a-fA-F]*", digits) and digits in shown:
            shown += f" ({len(digits)} digits)"
        raise ValueMistakeError(shown, "an address: 0x and 40 hex digits")
    address = bytes.fromhex(digits)
    right = checksum_address(address)
    if value != right and digits not in {digits.lower(), digits.upper()}:
        raise ValueMistakeError(f"{show(value)}, a wrong checksum", right)
    if not any(address):
        raise ValueMistakeError("the zero address", "the address of a contract or account")
    return Address(address)


def _addresses(value: object) -> tuple[Address, ...]:
    items = value if isinstance(value, list) else [value]
    found: dict[Address, int] = {}
    for number, item in enumerate(items, start=1):
        where = f"item {number} of {len(items)}: " if isinstance(value, list) else ""
        try:
            address = parse_address(item)
        except ValueMistakeError as mistake:
            raise ValueMistakeError(f"{where}{mistake.found}", mistake.expected) from None
        if address in found:
            raise ValueMistakeError(
                f"{where}{show(item)}, which is item {found[address]} already", "each address once"
            )
        found[address] = number
    return tuple(found)


def _some_addresses(value: object) -> tuple[Address, ...]:
    addresses = _addresses(value)
    if not addresses:
        raise ValueMistakeError("an empty list")
    return addresses


def _session_layouts(value: object) -> dict[Address, Layout]:
    """Read a list of "module: session_key, recipient, token_id"."""
    layouts: dict[Address, Layout] = {}
    items = value if isinstance(value, list) else [value]
    for number, item in enumerate(items, start=1):
        where = f"item {number} of {len(items)}: " if isinstance(value, list) else ""
        if not isinstance(item, str):
            raise ValueMistakeError(where + show(item))
        module_text, _, layout_text = item.partition(":")
        try:
            module = parse_address(module_text.strip())
            layout = parse_layout(layout_text)
        except ValueMistakeError as mistake:
            raise ValueMistakeError(f"{where}{mistake.found}", mistake.expected) from None
        except ValueError as error:
            raise ValueMistakeError(f"{where}{show(item)}: {error}") from None
        if module in layouts:
            raise ValueMistakeError(f"{where}{show(item)}", "each module once")
        layouts[module] = layout
    return layouts


def _accounts(value: object) -> str | tuple[Address, ...]:
    if isinstance(value, str) and not value.startswith("0x"):
        if value in {"factory", "stored"}:
            return value
        raise ValueMistakeError
    return _addresses(value)


def _erc1155(value: object) -> str | tuple[Address, ...]:
    if isinstance(value, str) and not value.startswith("0x"):
        if value in {"all", "touching"}:
            return value
        raise ValueMistakeError
    return _addresses(value)


def _integer(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        # True is an int in Python, and 1.0 is none in TOML
        if type(value) is not int or not low <= value <= high:
            raise ValueMistakeError
        return value

    return parse


def _seconds(value: object) -> float:
    if type(value) not in {int, float}:
        raise ValueMistakeError
    seconds = float(value)  # type: ignore[arg-type]
    if not math.isfinite(seconds) or not 0.01 <= seconds <= 3600:
        raise ValueMistakeError
    return seconds


def _finality(value: object) -> int | None:
    """Return a depth in blocks, None for the node's `finalized` tag."""
    return None if value == "finalized" else _integer(0, 1_000_000)(value)


def _preset(value: object) -> str:
    if not isinstance(value, str) or value not in PRESETS:
        raise ValueMistakeError
    return value


def split_url(text: str) -> SplitResult | None:
    """Take a URL apart; None if it has no host, a bad port, or characters no URL has."""
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return parts if usable and re.fullmatch(r"[!-~]+", text) else None


def _scheme(text: str) -> str:
    scheme = text.partition("://")[0].lower()
    return f"{HIDDEN} with the scheme {scheme}" if scheme in _KNOWN_SCHEMES else HIDDEN


def _rpc(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    urls: list[str] = []
    for number, item in enumerate(items, start=1):
        where = f"item {number} of {len(items)}: " if isinstance(value, list) else ""
        if not isinstance(item, str):
            raise ValueMistakeError(f"{where}{HIDDEN}, not a text")
        parts = split_url(item)
        if parts is None or parts.scheme not in {"http", "https", "ws", "wss"}:
            raise ValueMistakeError(
                f"{where}{_scheme(item)}",
                "a URL that begins with http://, https://, ws:// or wss://",
            )
        if item in urls:
            raise ValueMistakeError(
                f"{where}the URL of item {urls.index(item) + 1}", "each URL once"
            )
        urls.append(item)
    if not any(url.startswith("http") for url in urls):
        raise ValueMistakeError(
            "WebSocket URLs only" if urls else "an empty list",
            "at least one http:// or https:// URL",
        )
    return tuple(urls)


def is_loopback(url: str) -> bool:
    """Say whether a node's URL stays on this machine."""
    return is_loopback_host(urlsplit(url).hostname or "")


def is_loopback_host(host: str) -> bool:
    """Say whether a host, an address without brackets or a name, is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _database_url(value: object) -> str:
    if not isinstance(value, str):
        raise ValueMistakeError
    if value == "embedded":
        return value
    if not re.match(r"postgres(ql)?://", value):
        raise ValueMistakeError(_scheme(value))
    try:
        _ = urlsplit(value).port
    except ValueError:
        raise ValueMistakeError(f"{HIDDEN} with a bad port or host") from None
    return value


def _listen(value: object) -> tuple[str, int]:
    """Return host and port of "127.0.0.1:9464" or "[::1]:9464"; port 0 means any free one."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+)):(\d{1,5})", str(value))
    if not isinstance(value, str) or match is None or int(match[3]) > 65535:
        raise ValueMistakeError
    return match[1] or match[2], int(match[3])


def _hosts(value: object) -> tuple[str, ...]:
    """Return names or addresses in lower case, as a browser sends them, without port."""
    items = value if isinstance(value, list) else [value]
    hosts: list[str] = []
    for number, item in enumerate(items, start=1):
        where = f"item {number} of {len(items)}: " if isinstance(value, list) else ""
        if not isinstance(item, str) or not _HOST.fullmatch(item):
            raise ValueMistakeError(f"{where}{show(item)}", "a host's name alone, without port")
        hosts.append(item.lower().strip("[]"))
    return tuple(dict.fromkeys(hosts))


def _folder(value: object) -> str:
    if not isinstance(value, str) or not value.startswith(("/", "~/")) or "\0" in value:
        raise ValueMistakeError
    return value


def _choice(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueMistakeError
        return value

    return parse


_CONTRACTS = "a list of contract addresses, at least one"
CHAIN_KEYS: Mapping[str, Key] = {
    "preset": Key("text", _preset, f"one of {', '.join(PRESETS)}"),
    "chain_id": Key("number", _integer(1, 2**63 - 1), "a whole number from 1"),
    "rpc": Key("list", _rpc, "a list of URLs of the chain's nodes", hidden=True),
    "start_block": Key("number", _integer(0, _MAX_BLOCK), "a block number"),
    "end_block": Key("number", _integer(0, _MAX_BLOCK), "a block number"),
    "poll_seconds": Key("number", _seconds, "a number of seconds from 0.01 to 3600"),
    "finality": Key("number", _finality, '"finalized" or a depth in blocks from 0 to 1000000'),
    "accounts": Key("list", _accounts, '"factory", "stored" or a list of addresses'),
    "erc1155": Key("list", _erc1155, 'a list of contract addresses, "touching" or "all"'),
    "managers": Key("list", _some_addresses, _CONTRACTS),
    "factories": Key("list", _some_addresses, _CONTRACTS),
    "routers": Key("list", _addresses, "a list of contract addresses"),
    "entry_points": Key("list", _some_addresses, _CONTRACTS),
    "implementations": Key("list", _some_addresses, _CONTRACTS),
    "traces": Key("text", _choice("off", "debug", "trace"), "off, debug or trace"),
    "session_layouts": Key(
        "list",
        _session_layouts,
        'a list of texts such as "0x8E09…: session_key, recipient, token_id"',
    ),
    "grace_seconds": Key("number", _integer(0, 30 * 86400), "whole seconds from 0 to 2592000"),
    "retention_blocks": Key(
        "number", _integer(10_000, _MAX_BLOCK), "a whole number of blocks from 10000"
    ),
    "audit_seconds": Key(
        "number", _integer(0, 30 * 86400), "whole seconds from 0 (no audit) to 2592000"
    ),
}
TABLES: Mapping[str, Mapping[str, Key]] = {
    "database": {
        "url": Key("text", _database_url, 'a postgresql:// URL or "embedded"', hidden=True),
        "data_dir": Key("text", _folder, "an absolute path"),
    },
    "http": {
        "listen": Key("text", _listen, 'host:port, such as "127.0.0.1:9464"'),
        "hosts": Key("list", _hosts, 'a list of host names, such as ["watch.example"]'),
    },
    "log": {
        "level": Key(
            "text", _choice("debug", "info", "warning", "error"), "debug, info, warning or error"
        ),
        "format": Key("text", _choice("auto", "json", "text"), "auto, json or text"),
    },
}
