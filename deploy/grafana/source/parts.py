"""Panels and their queries.

Only panel types that have stood for years are made: stat, timeseries, table, bargauge, text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

Json = dict[str, Any]

GRID_COLUMNS = 24
PROMETHEUS: Json = {"type": "prometheus", "uid": "sessionwatch-prometheus"}
POSTGRES: Json = {"type": "grafana-postgresql-datasource", "uid": "sessionwatch-postgres"}
EMPTY_CELL = "–"  # noqa: RUF001 - what a cell without a value shows
GREEN, ORANGE, RED, BLUE, PLAIN = "green", "orange", "red", "blue", "text"

Steps = Sequence[tuple[float | None, str]]
"""Colours from a value on; the first has None."""

NEUTRAL: Steps = ((None, PLAIN),)
ANY_IS_BAD: Steps = ((None, GREEN), (1, RED))
ANY_IS_ODD: Steps = ((None, GREEN), (1, ORANGE))
ZERO_IS_BAD: Steps = ((None, RED), (1, GREEN))


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel, and the data source it goes to."""

    source: Json
    body: Json


def series(expression: str, legend: str) -> Query:
    """A PromQL expression over the dashboard's time."""
    body = {"expr": expression, "legendFormat": legend, "range": True, "instant": False}
    return Query(PROMETHEUS, {"editorMode": "code"} | body)


def now(expression: str, legend: str) -> Query:
    """A PromQL expression at the end of the dashboard's time."""
    body = {"expr": expression, "legendFormat": legend, "range": False, "instant": True}
    return Query(PROMETHEUS, {"editorMode": "code"} | body)


def labels_now(expression: str) -> Query:
    """A PromQL expression at the end of the dashboard's time as a table: a column per label."""
    one = now(expression, "")
    return Query(PROMETHEUS, one.body | {"format": "table"})


def rows(sql: str) -> Query:
    """A statement of SQL that gives rows."""
    return Query(POSTGRES, _sql("table", sql))


def rows_over_time(sql: str) -> Query:
    """A statement of SQL that gives time, metric (optional) and value, in the order of time."""
    return Query(POSTGRES, _sql("time_series", sql))


def _sql(form: str, sql: str) -> Json:
    text = dedent(sql).strip()
    return {"editorMode": "code", "format": form, "rawQuery": True, "rawSql": text}


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; width in the 24 columns of the grid, height in its rows."""

    kind: str
    title: str
    description: str
    width: int
    height: int
    queries: Sequence[Query] = ()
    options: Json = field(default_factory=dict)
    defaults: Json = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()


def _thresholds(steps: Steps) -> Json:
    return {
        "mode": "absolute",
        "steps": [{"color": color, "value": value} for value, color in steps],
    }


def words(meaning: Mapping[str, tuple[str, str]]) -> list[Json]:
    """Texts and colours that stand for values: {"1": ("up", "green")}."""
    options = {
        value: {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(meaning.items())
    }
    return [{"type": "value", "options": options}]


def link(title: str, url: str) -> Json:
    """What a click on a value offers."""
    return {"title": title, "url": url}


def stat(
    title: str,
    description: str,
    *queries: Query,
    nothing: str,
    unit: str = "none",
    width: int = 4,
    steps: Steps = NEUTRAL,
    meaning: Mapping[str, tuple[str, str]] | None = None,
    names: bool = False,
    graph: bool = False,
    links: Sequence[Json] = (),
) -> Panel:
    """A big number per series; `names` shows the series' names in its place."""
    colored = len(steps) > 1 or meaning is not None
    defaults: Json = {
        "unit": unit,
        "noValue": nothing,
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds(steps),
        "mappings": words(meaning or {}) if meaning else [],
    }
    if links:
        defaults["links"] = list(links)
    options = {
        "colorMode": "background" if colored else "none",
        "graphMode": "area" if graph else "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "name" if names else "auto",
        "wideLayout": True,
    }
    return Panel("stat", title, description, width, 4, queries, options, defaults)


def chart(
    title: str,
    description: str,
    *queries: Query,
    nothing: str,
    unit: str = "none",
    width: int = 12,
    stacked: bool = False,
    bars: bool = False,
    decimals: int | None = None,
    least: float | None = 0,
) -> Panel:
    """Lines or bars over time; `least` is where the axis begins, None leaves it to the data."""
    defaults: Json = {
        "unit": unit,
        "noValue": nothing,
        "color": {"mode": "palette-classic"},
        "custom": {
            "drawStyle": "bars" if bars else "line",
            "fillOpacity": 60 if bars else 20 if stacked else 5,
            "lineWidth": 1,
            "showPoints": "never" if bars else "auto",
            "spanNulls": False,
            "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        },
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    if least is not None:
        defaults["min"] = least
    options = {
        "legend": {
            "calcs": ["lastNotNull", "max"],
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel("timeseries", title, description, width, 8, queries, options, defaults)


def bar_list(
    title: str,
    description: str,
    query: Query,
    *,
    nothing: str,
    unit: str = "none",
    width: int = 8,
    steps: Steps = ((None, BLUE),),
    height: int = 8,
) -> Panel:
    """One bar per series, or per row (its first text is the name, its number the value)."""
    of_rows = query.source is POSTGRES
    defaults: Json = {
        "unit": unit,
        "noValue": nothing,
        "min": 0,
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds(steps),
    }
    options = {
        "displayMode": "basic",
        "namePlacement": "left",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": of_rows},
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    return Panel("bargauge", title, description, width, height, [query], options, defaults)


def table(
    title: str,
    description: str,
    query: Query,
    *,
    nothing: str,
    width: int = 24,
    height: int = 8,
    units: Mapping[str, str] | None = None,
    links: Mapping[str, Json] | None = None,
    widths: Mapping[str, int] | None = None,
    colors: Mapping[str, Mapping[str, tuple[str, str]]] | None = None,
    hidden: Sequence[str] = (),
) -> Panel:
    """Rows as plain text: whatever a cell holds, nothing in it is rendered or followed.

    `units`, `links`, `widths` and `colors` are by column.
    """
    defaults: Json = {
        "unit": "none",
        "noValue": nothing,  # of the whole table; that of a cell stands below
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        "mappings": [],
    }
    overrides: list[Json] = [
        {
            "matcher": {"id": "byRegexp", "options": "/.*/"},
            "properties": [{"id": "noValue", "value": EMPTY_CELL}],
        }
    ]
    properties: dict[str, list[Json]] = {}
    for column, unit in (units or {}).items():
        properties.setdefault(column, []).append({"id": "unit", "value": unit})
    for column, one in (links or {}).items():
        properties.setdefault(column, []).append({"id": "links", "value": [one]})
    for column, pixels in (widths or {}).items():
        properties.setdefault(column, []).append({"id": "custom.width", "value": pixels})
    for column, meaning in (colors or {}).items():
        properties.setdefault(column, []).extend(
            [
                {"id": "mappings", "value": words(meaning)},
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            ]
        )
    overrides += [
        {"matcher": {"id": "byName", "options": column}, "properties": found}
        for column, found in properties.items()
    ]
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    # Grafana's own way to hide a column has changed its name; this one has not.
    unwanted = {"id": "organize", "options": {"excludeByName": dict.fromkeys(hidden, True)}}
    return Panel(
        "table",
        title,
        description,
        width,
        height,
        [query],
        options,
        defaults,
        overrides,
        transformations=[unwanted] if hidden else (),
    )


def note(title: str, description: str, markdown: str, *, height: int = 3) -> Panel:
    """Words of our own; nothing of the chain, and no variable, stands in them."""
    options = {"mode": "markdown", "content": dedent(markdown).strip()}
    return Panel("text", title, description, GRID_COLUMNS, height, (), options)
