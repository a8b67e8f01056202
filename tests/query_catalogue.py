"""What people ask of the schema `watch`: the README's queries, the dashboards', and the usual ones.

For the tests of plans and for the benchmark. One more is watched by a line in queries.sql; those of
the README and of the dashboards are read from where they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_DASHBOARDS = _ROOT / "deploy" / "grafana" / "dashboards"
_IN_README = re.compile(r"```sql\n(SELECT .*?)```", re.DOTALL)
_USUAL = re.compile(r"^-- (counts: )?(.+)\n((?:SELECT|WITH) [^;]+);", re.MULTILINE)
_GIVEN = re.compile(
    r"\b(account|sender|owner|contract|session_key|user_op_hash|transaction_hash|token_id|set_id)"
    r" = ('0x[0-9a-f]+'|\d+)"
)
_WORD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Query:
    """A question; words in braces stand for values, as queries.sql says.

    `counts`: it reads everything there is of its kind, and takes as long as that takes.
    """

    name: str
    sql: str
    counts: bool = False

    @property
    def needs_values(self) -> bool:
        """Whether it is about one account, contract, hash or key."""
        return _WORD.search(self.sql) is not None

    def of(self, values: Mapping[str, object]) -> str:
        """Return the statement with the values in the place of the words."""
        return _WORD.sub(lambda found: str(values[found[1]]), self.sql)


def catalogue() -> list[Query]:
    """Return every question there is."""
    return [*readme_queries(), *dashboard_queries(), *usual_queries()]


def readme_queries() -> list[Query]:
    """Return the queries of the README, with words in the place of the demo's values."""
    found = []
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    for number, sql in enumerate(_IN_README.findall(text), 1):
        statement = _GIVEN.sub(_word, sql.strip().rstrip(";"))
        found.append(
            Query(f"README {number}, {statement.split('watch.')[1].split()[0]}", statement)
        )
    return found


def dashboard_queries() -> list[Query]:
    """Return the SQL of Grafana's panels and variables, with its macros expanded."""
    found = []
    for path in sorted(_DASHBOARDS.glob("*.json")):
        from tests.deploy.grafana_sql import expand

        for title, sql in _raw_sql(json.loads(path.read_text(encoding="utf-8")), path.stem):
            found.append(Query(f"{path.stem}: {title}", expand(sql)))
    return found


def usual_queries() -> list[Query]:
    """Return what queries.sql has."""
    text = (_ROOT / "tests" / "queries.sql").read_text(encoding="utf-8")
    return [Query(name, sql, bool(counts)) for counts, name, sql in _USUAL.findall(text)]


def _word(given: re.Match[str]) -> str:
    word = "account" if given[1] == "sender" else given[1]
    quote = "'" if given[2].startswith("'") else ""
    return f"{given[1]} = {quote}{{{word}}}{quote}"


def _raw_sql(node: Any, title: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        title = node.get("title") or node.get("name") or title
        if isinstance(sql := node.get("rawSql"), str):
            yield title, sql
        for child in node.values():
            yield from _raw_sql(child, title)
    elif isinstance(node, list):
        for child in node:
            yield from _raw_sql(child, title)
