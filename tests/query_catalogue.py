"""What people ask of the schema `watch`: the README's queries, the dashboards', and the usual ones.

For the tests of plans and for the benchmark. One more is watched by a line in queries.sql; those of
the README and of the dashboards are read from where they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.deploy import grafana_files
from tests.deploy.grafana_sql import expand

_ROOT = Path(__file__).parents[1]
_IN_README = re.compile(r"```sql\n(SELECT .*?)```", re.DOTALL)
_USUAL = re.compile(r"^-- (counts: )?(.+)\n((?:SELECT|WITH) [^;]+);", re.MULTILINE)
_GIVEN = re.compile(
    r"\b(account|sender|owner|contract|session_key|user_op_hash|transaction_hash|token_id|set_id)"
    r" = ('0x[0-9a-f]+'|\d+)"
)
_WORD = re.compile(r"\{(\w+)\}")
_OPENED: Mapping[str, str | Sequence[str]] = {
    "chain": "mumbai",
    "account": "{account}",
    "owner": "{owner}",
    "contract": "",
    "within": "1 day",
    "severity": ["critical", "warning", "info"],
    "cause": ["superseded", "never_landed", "unknown_root", "lost_sessions"],
}
"""What the dashboards' variables hold: chain of the filled database, an account by a link."""


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
    """Return the SQL of Grafana's panels as it is run for the last hour, all else as it opens."""
    now = datetime.now(UTC)
    found = []
    for asked in grafana_files.queries():
        if asked.sql:
            sql = expand(asked.sql, time=(now - timedelta(hours=1), now), **_OPENED)
            found.append(Query(f"Grafana, {asked}", sql))
    return found


def usual_queries() -> list[Query]:
    """Return what queries.sql has."""
    text = (_ROOT / "tests" / "queries.sql").read_text(encoding="utf-8")
    return [Query(name, sql, bool(counts)) for counts, name, sql in _USUAL.findall(text)]


def _word(given: re.Match[str]) -> str:
    word = "account" if given[1] == "sender" else given[1]
    quote = "'" if given[2].startswith("'") else ""
    return f"{given[1]} = {quote}{{{word}}}{quote}"
