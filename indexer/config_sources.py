"""Where settings stand: one TOML file, a folder of credentials, the environment.

Collects raw values with their sources, and the mistakes that show before any value is read.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.core.config_values import CHAIN_KEYS, TABLES
from indexer.core.presets import PRESETS

CONFIG_VARIABLE = "SESSIONWATCH_CONFIG"
CHAIN_NAME = re.compile(r"[a-z0-9_]+")
KeyPath = tuple[str, ...]
"""("http", "listen") or ("chains", "mumbai", "rpc")."""
_PREFIX = "SESSIONWATCH_"
_CREDENTIAL_PREFIX = _PREFIX.lower()


@dataclass(frozen=True, slots=True)
class Given:
    """A raw value and where it stood."""

    source: str
    value: object
    is_text: bool = False  # of a variable or credential: numbers and lists are still text


class Mistakes:
    """What is wrong, one line each, in the order it was found."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, source: str, key: str, found: str, expected: str) -> None:
        """Note a value that will not do. `found` holds no secret."""
        line = f"{source}: {key}: found {found}, expected {expected}"
        if line not in self.lines:
            self.lines.append(line)

    def unknown(self, source: str, key: str, known: Sequence[str]) -> None:
        """Note a key that does not exist, with the closest one that does."""
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
        line = f"{source}: {key}: not a known key{hint}"
        if line not in self.lines:
            self.lines.append(line)


def read_file(
    file: Path, given: dict[KeyPath, Given], tables: dict[str, str], mistakes: Mistakes
) -> bool:
    """Read a TOML file into `given`; `tables` gets each chain's name and where it stands.

    False if the file could not be read: what it would have held is then not missing.
    """
    try:
        text = file.read_bytes().decode("utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        mistakes.lines.append(f"{file}: the file cannot be read: {reason}")
        return False
    except UnicodeDecodeError as error:
        mistakes.lines.append(f"{file}: not UTF-8 text (byte {error.start})")
        return False
    except tomllib.TOMLDecodeError as error:
        match = re.fullmatch(
            r"(.*?) \(at (?:line (\d+), column (\d+)|(.*))\)", str(error), re.DOTALL
        )
        if match is None:
            mistakes.lines.append(f"{file}: not TOML")
            return False
        end = f":{match[2]}:{match[3]}" if match[2] else ""
        mistakes.lines.append(f"{file}{end}: not TOML: {match[1]}{'' if end else ' at the end'}")
        return False
    lines = _line_numbers(text)

    def source(*path: str) -> str:
        for length in range(len(path), 0, -1):
            if path[:length] in lines:
                return f"{file}:{lines[path[:length]]}"
        return str(file)

    for table, keys in content.items():
        if table != "chains" and table not in TABLES:
            mistakes.unknown(source(table), table, [*TABLES, "chains"])
        elif not isinstance(keys, dict):
            mistakes.add(source(table), table, "no table", f"a table: [{table}]")
        elif table != "chains":
            for key, value in keys.items():
                given[table, key] = Given(source(table, key), value)
        else:
            for name, chain in keys.items():
                if not isinstance(chain, dict):
                    # the value may be a URL that lacks its table: it is not shown
                    mistakes.add(source(table, name), f"chains.{name}", "no table", "[chains.NAME]")
                    continue
                tables[name] = source(table, name)
                for key, value in chain.items():
                    given[table, name, key] = Given(source(table, name, key), value)
    return True


def _line_numbers(text: str) -> dict[KeyPath, int]:
    """Find the line of each table and key; what stands in inline tables has its parent's."""
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[\s*([^\[\]=#]+?)\s*\]\s*(#.*)?$", line):
            table = _dotted(match[1])
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], number)
        elif match := re.match(r"\s*([\w.\"' -]+?)\s*=", line):
            path = (*table, *_dotted(match[1]))
            for length in range(len(table) + 1, len(path) + 1):
                found.setdefault(path[:length], number)
    return found


def _dotted(text: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


def _split_name(tail: str) -> KeyPath:
    """`chains__mumbai__rpc` → its path; a chain's own name may contain two underscores."""
    parts = tail.split("__")
    if parts[0] == "chains" and len(parts) > 3:
        return "chains", "__".join(parts[1:-1]), parts[-1]
    return tuple(parts)


def _known(path: KeyPath) -> bool:
    if path[0] == "chains":
        return len(path) == 3 and path[2] in CHAIN_KEYS
    return len(path) == 2 and path[1] in TABLES.get(path[0], {})


def _is_ours(name: str) -> bool:
    """Whether a credential is meant for us; other files may lie beside, but not in our folder."""
    return "__" in name or name.startswith(_CREDENTIAL_PREFIX)


def read_credentials(
    env: Mapping[str, str], given: dict[KeyPath, Given], mistakes: Mistakes
) -> None:
    """Read what systemd's LoadCredential= put down: files named like database__url.

    From a folder, `LoadCredential=sessionwatch:FOLDER`, they come as sessionwatch_database__url.
    """
    folder = env.get("CREDENTIALS_DIRECTORY", "")
    if not folder:
        return
    try:
        files = sorted(file for file in Path(folder).iterdir() if _is_ours(file.name))
    except OSError as error:
        mistakes.lines.append(f"{folder}: $CREDENTIALS_DIRECTORY cannot be read: {error.strerror}")
        return
    for file in files:
        name = file.name.removeprefix(_CREDENTIAL_PREFIX)
        path = _split_name(name)
        if not _known(path):
            mistakes.unknown(str(file), name, _names(given, path))
            continue
        try:
            text = file.read_bytes().decode("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            mistakes.add(str(file), ".".join(path), "an unreadable file", "UTF-8 text")
            continue
        given[path] = Given(str(file), text, is_text=True)


def read_environment(
    env: Mapping[str, str], given: dict[KeyPath, Given], mistakes: Mistakes
) -> None:
    """Read SESSIONWATCH_DATABASE__URL and its like; an unknown variable is a mistake."""
    for name in sorted(env):
        if not name.upper().startswith(_PREFIX) or name == CONFIG_VARIABLE:
            continue
        path = _split_name(name[len(_PREFIX) :].lower())
        if _known(path):
            given[path] = Given(name, env[name].strip(), is_text=True)
        else:
            known = [CONFIG_VARIABLE, *(_PREFIX + n.upper() for n in _names(given, path))]
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.6)
            hint = f"; did you mean {close[0]}?" if close else ""
            mistakes.lines.append(f"{name}: not a variable of sessionwatch{hint}")


def _names(given: Mapping[KeyPath, Given], path: KeyPath) -> list[str]:
    """List the names a variable could have, for the chains that are known or were meant."""
    chains = dict.fromkeys([*(p[1] for p in given if p[0] == "chains"), *PRESETS])
    if len(path) == 3 and CHAIN_NAME.fullmatch(path[1]):
        chains[path[1]] = None
    names = [f"{table}__{key}" for table, keys in TABLES.items() for key in keys]
    return names + [f"chains__{chain}__{key}" for chain in chains for key in CHAIN_KEYS]
