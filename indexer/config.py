"""Configuration: environment, credentials and one TOML file → frozen settings.

Every mistake is found before anything is said, and each names its source (file and line, or
variable), the key, what was found and what is expected. Values of rpc and url never appear.
The only module that reads the environment.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from indexer.config_sources import (
    CHAIN_NAME,
    CONFIG_VARIABLE,
    Given,
    KeyPath,
    Mistakes,
    read_credentials,
    read_environment,
    read_file,
)
from indexer.core.config_values import (
    CHAIN_KEYS,
    HIDDEN,
    TABLES,
    Key,
    ValueMistakeError,
    is_loopback,
    show,
)
from indexer.core.key_text import hide_keys
from indexer.core.presets import (
    ENTRY_POINTS,
    FACTORIES,
    IMPLEMENTATIONS,
    MANAGERS,
    PRESETS,
    RETIRED,
    ROUTERS,
)
from indexer.core.settings import AccountsMode, ChainSettings, Erc1155Mode
from indexer.core.types import Address
from indexer.errors import ConfigurationError
from indexer.log import scrub

DEFAULT_CONFIG_FILE = Path("/etc/sessionwatch/sessionwatch.toml")
# libpq's parameters that say where and as whom, and hold no key
_OPEN_PARAMETERS = frozenset({"host", "hostaddr", "port", "user", "dbname", "application_name"})


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the rows go. `url` may hold a password: never printed; "embedded" means `data_dir`."""

    url: str = field(repr=False)
    data_dir: Path

    @property
    def embedded(self) -> bool:
        """Whether the program brings its own Postgres."""
        return self.url == "embedded"


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where /metrics and the status page listen. Port 0: any free one.

    `hosts` are further names, in lower case, under which a reverse proxy may ask.
    """

    host: str = "127.0.0.1"
    port: int = 9464
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`format` auto: JSON unless a terminal reads."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that was configured. `sources` says of each given key ("http.listen") where it stood."""

    database: DatabaseSettings
    http: HttpSettings
    log: LogSettings
    chains: tuple[ChainSettings, ...]
    sources: Mapping[str, str] = field(default_factory=dict, repr=False)

    def chain(self, name: str) -> ChainSettings | None:
        """Return the chain of that name."""
        return next((chain for chain in self.chains if chain.name == name), None)

    def secrets(self) -> tuple[str, ...]:
        """Return what no text may contain: the URLs, and the parts of them that can be keys."""
        return secret_texts([self.database.url, *(url for c in self.chains for url in c.rpc)])


def load_settings(
    config_file: Path | None,
    *,
    environ: Mapping[str, str] | None = None,
    need_chains: bool = True,
    need_database: bool = True,
) -> Settings:
    """Read the configuration from all its sources.

    The environment wins over $CREDENTIALS_DIRECTORY, that over the file, that over presets.
    Without `need_chains` (`need_database`) a configuration without any chain (without
    database.url: then "embedded") will do. Raises ConfigurationError with every mistake.
    """
    env = os.environ if environ is None else environ  # noqa: TID251 - the one place
    mistakes = Mistakes()
    given: dict[KeyPath, Given] = {}
    tables: dict[str, str] = {}  # chain name → where its table stands
    file = _config_file(config_file, env)
    readable = file is None or read_file(file, given, tables, mistakes)
    read_credentials(env, given, mistakes)
    read_environment(env, given, mistakes)
    place = str(file) if file is not None else f"{DEFAULT_CONFIG_FILE} (which does not exist)"
    for path, one in given.items():
        if path[0] == "chains":
            tables.setdefault(path[1], one.source)

    values = dict(_parsed(given, mistakes))
    if need_database and readable and ("database", "url") not in given:
        mistakes.add(place, "database.url", "nothing", TABLES["database"]["url"].expected)
    if need_chains and readable and not tables:
        mistakes.add(place, "chains", "no chain", "a table such as [chains.mumbai] with rpc in it")
    chains = [_chain(name, source, given, values, mistakes) for name, source in tables.items()]
    _check_chain_ids([c for c in chains if c is not None], given, tables, mistakes)
    if mistakes.lines:
        count = len(mistakes.lines)
        title = "a mistake" if count == 1 else f"{count} mistakes"
        raise ConfigurationError(
            # names of files, keys and variables are quoted, too
            hide_keys("\n  ".join([f"the configuration has {title}:", *mistakes.lines])),
            remedy="correct it and run `sessionwatch check`"
            if file is not None
            else "write that file, or name another: --config FILE or $SESSIONWATCH_CONFIG",
        )

    data_dir = values.get(("database", "data_dir"))
    host, port = values.get(("http", "listen"), ("127.0.0.1", 9464))
    return Settings(
        database=DatabaseSettings(
            url=values.get(("database", "url"), "embedded"),
            data_dir=_home(data_dir, env) if data_dir else default_data_dir(env),
        ),
        http=HttpSettings(host, port, values.get(("http", "hosts"), ())),
        log=LogSettings(
            level=values.get(("log", "level"), "info"),
            format=values.get(("log", "format"), "auto"),
        ),
        chains=tuple(c for c in chains if c is not None),
        sources=MappingProxyType({".".join(path): one.source for path, one in given.items()}),
    )


@dataclass(frozen=True, slots=True)
class Supervision:
    """How the supervisor that started this process wants to hear of it; see sd_notify(3).

    `socket` is empty if it does not. `watchdog_seconds` is how long it bears silence, None: for
    ever.
    """

    socket: str = ""
    watchdog_seconds: float | None = None


def take_supervision(environ: MutableMapping[str, str] | None = None) -> Supervision:
    """Read $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID, and remove them.

    They speak of this process: a child that found them, such as Postgres, would answer for us.
    """
    env = os.environ if environ is None else environ  # noqa: TID251 - the one place
    address, usec, pid = (
        env.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    )
    if address[:1] not in {"/", "@"}:
        return Supervision()
    watched = pid in {"", str(os.getpid())} and usec.isascii() and usec.isdigit() and int(usec) > 0
    return Supervision(address, int(usec) / 1_000_000 if watched else None)


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return where data lives unless configured: /var/lib for root, else the user's folder."""
    env = os.environ if environ is None else environ  # noqa: TID251 - the one place
    if os.geteuid() == 0:
        return Path("/var/lib/sessionwatch")
    base = env.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else _home("~/.local/share", env)) / "sessionwatch"


def colours_wanted(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether colours are welcome where a terminal reads (https://no-color.org)."""
    env = os.environ if environ is None else environ  # noqa: TID251 - the one place
    return not env.get("NO_COLOR")


def journal_reads(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether our stderr is systemd's journal: $JOURNAL_STREAM is its device and inode."""
    env = os.environ if environ is None else environ  # noqa: TID251 - the one place
    try:
        stream = os.fstat(2)
    except OSError:  # closed
        return False
    return env.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


def secret_texts(urls: Sequence[str]) -> tuple[str, ...]:
    """Return the URLs and those parts of them that may be keys: user, password, path, query.

    Of a database's URL only password and query: its path is the database's name, which is often
    the word that every remedy begins with.
    """
    found: set[str] = set()
    for url in urls:
        if "://" not in url:
            continue
        parts = urlsplit(url)
        query = parse_qsl(parts.query)
        if parts.scheme.startswith("postgres"):
            pieces = [value for key, value in query if key not in _OPEN_PARAMETERS]
        else:
            pieces = [parts.username or "", *parts.path.split("/")]
            pieces += [value for _, value in query]
        pieces.append(parts.password or "")
        # short pieces ("rpc", "postgres") are no keys, and hiding them would garble every text
        found.update(
            text for piece in pieces for text in (piece, unquote(piece)) if len(text) >= 12
        )
        found.update(text for text in (parts.password or "",) if len(text) >= 4)
        found.add(url)
    return tuple(found)


def _config_file(config_file: Path | None, env: Mapping[str, str]) -> Path | None:
    if config_file is not None:
        return config_file
    if env.get(CONFIG_VARIABLE):
        return Path(env[CONFIG_VARIABLE])
    return DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.exists() else None


def _home(path: str, env: Mapping[str, str]) -> Path:
    if not path.startswith("~/"):
        return Path(path)
    home = env.get("HOME", "")
    return (Path(home) if home.startswith("/") else Path.home()) / path[2:]


def _parsed(given: Mapping[KeyPath, Given], mistakes: Mistakes) -> Iterator[tuple[KeyPath, Any]]:
    for path, one in given.items():
        keys = CHAIN_KEYS if path[0] == "chains" else TABLES[path[0]]
        key = keys.get(path[-1])
        dotted = ".".join(path)
        if key is None:
            parent = ".".join(path[:-1])
            mistakes.unknown(one.source, dotted, [f"{parent}.{name}" for name in keys])
            continue
        try:
            value = _from_text(str(one.value), key) if one.is_text else one.value
            yield path, key.parse(value)
        except ValueMistakeError as mistake:
            found = mistake.found or (HIDDEN if key.hidden else show(one.value))
            # an address or a host may stand where somebody meant to put a URL
            mistakes.add(one.source, dotted, scrub(found), mistake.expected or key.expected)


def _from_text(text: str, key: Key) -> object:
    if key.kind == "number":
        if re.fullmatch(r"[+-]?\d{1,30}", text):
            return int(text)
        return float(text) if re.fullmatch(r"[+-]?\d{1,30}\.\d{1,30}", text) else text
    if key.kind == "list" and text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            found = f"{HIDDEN}, which is not JSON" if key.hidden else f"{show(text)}, not JSON"
            raise ValueMistakeError(found, f"{key.expected}, as JSON") from None
    return text


def _chain(
    name: str,
    source: str,
    given: Mapping[KeyPath, Given],
    values: Mapping[KeyPath, Any],
    mistakes: Mistakes,
) -> ChainSettings | None:
    """Put one chain together; None if something that has no default is missing or wrong."""
    if not CHAIN_NAME.fullmatch(name):
        mistakes.add(source, "chains", show(name), "a chain's name of a-z, 0-9 and _")
        return None

    def value(key: str, default: Any = None) -> Any:
        return values.get(("chains", name, key), default)

    preset = PRESETS.get(value("preset", name))
    chain_id = value("chain_id", preset.chain_id if preset else None)
    rpc: tuple[str, ...] | None = value("rpc")
    for key, missing in (("chain_id", chain_id is None), ("rpc", rpc is None)):
        if missing and ("chains", name, key) not in given:
            expected = CHAIN_KEYS[key].expected
            if key == "chain_id" and (close := difflib.get_close_matches(name, PRESETS, n=1)):
                expected += f"; did you mean the chain {close[0]}?"
            mistakes.add(source, f"chains.{name}.{key}", "nothing", expected)
    if chain_id is None or rpc is None:
        return None
    accounts: AccountsMode | tuple[Address, ...] = value("accounts", "factory")
    erc1155: Erc1155Mode | tuple[Address, ...] = value("erc1155", preset.erc1155 if preset else ())
    _check_retention(name, erc1155, given, mistakes)
    start_block, end_block = value("start_block"), value("end_block")
    if start_block is not None and end_block is not None and end_block < start_block:
        end_source = given["chains", name, "end_block"].source
        found = f"{end_block}, which is below start_block {start_block}"
        expected = "the chain's last block, not below its start_block"
        mistakes.add(end_source, f"chains.{name}.end_block", found, expected)
    local = all(is_loopback(url) for url in rpc)
    return ChainSettings(
        name=name,
        chain_id=chain_id,
        rpc=rpc,
        endpoint_names=tuple(f"endpoint-{number}" for number in range(1, len(rpc) + 1)),
        start_block=start_block,
        end_block=end_block,
        poll_seconds=value("poll_seconds", 0.25 if local else 1.0),
        finality_depth=value("finality"),
        accounts_mode="list" if isinstance(accounts, tuple) else accounts,
        accounts=accounts if isinstance(accounts, tuple) else (),
        erc1155_mode="list" if isinstance(erc1155, tuple) else erc1155,
        erc1155=erc1155 if isinstance(erc1155, tuple) else (),
        managers=value("managers", MANAGERS),
        factories=value("factories", FACTORIES),
        entry_points=value("entry_points", ENTRY_POINTS),
        routers=value("routers", ROUTERS),
        implementations=value("implementations", IMPLEMENTATIONS),
        grace_seconds=value("grace_seconds", 600),
        audit_seconds=value("audit_seconds", 300),
        retention_blocks=value("retention_blocks"),
        traces=value("traces", "off"),
        session_layouts=value("session_layouts", {}),
        retired=RETIRED.get(chain_id, ""),
    )


def _check_retention(
    name: str, erc1155: object, given: Mapping[KeyPath, Given], mistakes: Mistakes
) -> None:
    """Refuse to drop transfers of which only those that touch known accounts were counted."""
    one = given.get(("chains", name, "retention_blocks"))
    if erc1155 == "touching" and one is not None:
        mistakes.add(
            one.source,
            f"chains.{name}.retention_blocks",
            f'{show(one.value)} beside erc1155 = "touching"',
            'a list or "all" for erc1155, or no retention_blocks: with dropped transfers it is '
            "not known which of them the balances of accounts found later hold already",
        )


def _check_chain_ids(
    chains: Sequence[ChainSettings],
    given: Mapping[KeyPath, Given],
    tables: Mapping[str, str],
    mistakes: Mistakes,
) -> None:
    first: dict[int, str] = {}
    for chain in chains:
        other = first.setdefault(chain.chain_id, chain.name)
        if other != chain.name:
            one = given.get(("chains", chain.name, "chain_id"))
            mistakes.add(
                one.source if one else tables[chain.name],
                f"chains.{chain.name}.chain_id",
                f"{chain.chain_id}, which chains.{other} has already",
                "each chain once",
            )
