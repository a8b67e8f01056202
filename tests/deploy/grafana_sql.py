"""What Grafana makes of a panel's SQL before Postgres sees it: variables first, then macros."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

EVER = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""A dashboard's time that holds every block."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(?!__)(\w+)|\[\[(\w+)")
# As the server's own pattern: a macro's arguments end at the first closing bracket.
_MACRO = re.compile(r"\$(__\w+)\(([^)]*)\)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def expand(
    sql: str,
    *,
    time: tuple[datetime, datetime] = EVER,
    interval: str = "1m",
    **variables: str | Sequence[str],
) -> str:
    """Return the SQL that is run; a variable's value is a text, or a list of them (multi).

    Raises ValueError for a variable that is not given, one that is not quoted by :sqlstring, and
    for a macro that the Postgres data source does not have.
    """
    text = _VARIABLE.sub(lambda match: _quoted(match, variables), sql)
    text = _MACRO.sub(lambda match: _macro(match, time), text.replace("$__interval", interval))
    if "$__" in text:
        raise ValueError(f"not a macro of Grafana's: {text[text.index('$__') :][:40]}")
    return text


def names(sql: str) -> set[str]:
    """Return the names of the variables in a text, whatever their format."""
    found = {next(filter(None, (m[1], m[3], m[4]))) for m in _VARIABLE.finditer(sql)}
    return {name for name in found if not name.startswith("__")}


def _quoted(match: re.Match[str], variables: dict[str, str | Sequence[str]]) -> str:
    name, form = match[1], match[2]
    if form != "sqlstring":
        raise ValueError(f"{match[0]} is not quoted: write ${{{name or match[3]}:sqlstring}}")
    if name not in variables:
        raise ValueError(f"the variable {name} has no value")
    value = variables[name]
    values = [value] if isinstance(value, str) else value
    # Grafana also puts a backslash before ", which changes the value but ends no literal.
    escaped = [one.replace("'", "''").replace('"', '\\"') for one in values]
    return ",".join(f"'{one}'" for one in escaped)


def _macro(match: re.Match[str], time: tuple[datetime, datetime]) -> str:
    name, arguments = match[1], [one.strip() for one in match[2].split(",")]
    since, until = (f"'{one.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'" for one in time)
    match name, arguments:
        case "__timeFilter", [column] if column:
            return f"{column} BETWEEN {since} AND {until}"
        case "__timeFrom", [""]:
            return since
        case "__timeTo", [""]:
            return until
        case (("__timeGroup" | "__timeGroupAlias"), [column, span]):
            seconds = int(span[:-1]) * _SECONDS[span[-1]]
            group = f"floor(extract(epoch from {column})/{seconds})*{seconds}"
            return group + (' AS "time"' if name.endswith("Alias") else "")
    raise ValueError(f"not a macro of Grafana's, or not with these arguments: {match[0]}")
