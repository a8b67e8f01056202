"""The provisioned dashboards as they stand in deploy/, and the queries in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
FILES = sorted((FOLDER / "dashboards").glob("*.json"))

_VARIABLE = re.compile(r"\$(?!__)(\w+)")


def dashboards() -> dict[str, dict[str, Any]]:
    """Return every dashboard by its uid."""
    found = [json.loads(path.read_text()) for path in FILES]
    return {one["uid"]: one for one in found}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a dashboard's panels without the rows that part them."""
    return [one for one in dashboard["panels"] if one["type"] != "row"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: where it stands, and its PromQL or SQL as written (the other is empty)."""

    uid: str
    panel: str
    reference: str
    promql: str
    sql: str
    over_time: bool

    def __str__(self) -> str:
        return f"{self.uid.removeprefix('sessionwatch-')}: {self.panel} {self.reference}"


def queries() -> Iterator[Asked]:
    """Return every query of every panel."""
    for uid, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                yield Asked(
                    uid,
                    panel["title"],
                    target["refId"],
                    target.get("expr", ""),
                    target.get("rawSql", ""),
                    target.get("range", False) or target.get("format") == "time_series",
                )


def variable_names(promql: str) -> set[str]:
    """Return the names of the variables in an expression."""
    return set(_VARIABLE.findall(promql))


def expand_promql(
    expression: str, *, rate_interval: str = "1m", range_: str = "1h", **variables: Sequence[str]
) -> str:
    """Return the expression as Grafana sends it; a variable's values become (a|b)."""
    text = expression.replace("$__rate_interval", rate_interval).replace("$__range", range_)
    return _VARIABLE.sub(lambda match: f"({'|'.join(variables[match[1]])})", text)
