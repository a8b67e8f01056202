"""Sections of panels, laid out, and whole dashboards as the JSON that Grafana provisions.

schemaVersion 39 is what Grafana 10.4 writes; 11 and 12 bring it up to their own when they load it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from deploy.grafana.source.parts import GRID_COLUMNS, Json, Panel

SCHEMA_VERSION = 39


@dataclass(frozen=True, slots=True)
class Section:
    """A titled row and the panels below it, from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard. `since` is the time it opens with, such as now-6h."""

    uid: str
    title: str
    description: str
    sections: Sequence[Section]
    variables: Sequence[Json]
    since: str = "now-6h"
    refresh: Literal["", "30s", "1m", "5m"] = "1m"


def placed(section: Section, top: int) -> Iterator[tuple[Panel, Json]]:
    """Give each panel its place: lines of panels of one height, each as wide as the grid.

    Raises ValueError where a line is not filled or its panels differ in height.
    """
    left, height = 0, 0
    for panel in section.panels:
        if left == 0:
            height = panel.height
        if panel.height != height or left + panel.width > GRID_COLUMNS:
            raise ValueError(f"{section.title}: {panel.title} does not fit into its line")
        yield panel, {"h": height, "w": panel.width, "x": left, "y": top}
        left += panel.width
        if left == GRID_COLUMNS:
            left, top = 0, top + height
    if left:
        raise ValueError(f"{section.title}: the last line is not filled")


def _panel(panel: Panel, number: int, place: Json) -> Json:
    found: Json = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "gridPos": place,
    }
    if panel.queries:
        source = panel.queries[0].source
        found["datasource"] = source
        found["targets"] = [
            {"refId": chr(ord("A") + index), "datasource": query.source} | query.body
            for index, query in enumerate(panel.queries)
        ]
        found["fieldConfig"] = {"defaults": panel.defaults, "overrides": list(panel.overrides)}
    if panel.transformations:
        found["transformations"] = list(panel.transformations)
    return found | {"options": panel.options}


def _panels(sections: Sequence[Section]) -> Iterator[Json]:
    top = 0
    for index, section in enumerate(sections, start=1):
        # Numbers of a section of its own: a panel added to one leaves the others' addresses alone.
        number = index * 100
        place = {"h": 1, "w": GRID_COLUMNS, "x": 0, "y": top}
        row = {"id": number, "type": "row", "title": section.title, "collapsed": False}
        yield row | {"gridPos": place, "panels": []}
        top += 1
        for offset, (panel, spot) in enumerate(placed(section, top), start=1):
            yield _panel(panel, number + offset, spot)
            top = max(top, spot["y"])
        top += section.panels[-1].height


def text_of(dashboard: Dashboard) -> str:
    """Return the JSON text that is provisioned, byte for byte the same for the same dashboard."""
    links = {
        "type": "dashboards",
        "title": "Sessionwatch",
        "tags": ["sessionwatch"],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
    }
    whole = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["sessionwatch"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": dashboard.since, "to": "now"},
        "refresh": dashboard.refresh,
        "links": [links],
        "templating": {"list": list(dashboard.variables)},
        "annotations": {"list": []},
        "panels": list(_panels(dashboard.sections)),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
