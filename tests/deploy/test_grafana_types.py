"""Every dashboard fits the types of the oldest and the newest Grafana; mistakes would be told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.grafana_files import dashboards, panels
from tests.deploy.grafana_types import NEWEST, OLDEST, complaints

Json = dict[str, Any]


def first(dashboard: Json, kind: str) -> Json:
    return next(one for one in panels(dashboard) if one["type"] == kind)


def height_as_text(dashboard: Json) -> None:
    first(dashboard, "stat")["gridPos"]["h"] = "4"


def misspelt_panels(dashboard: Json) -> None:
    dashboard["panelz"] = dashboard.pop("panels")


def misspelt_unit(dashboard: Json) -> None:
    first(dashboard, "stat")["fieldConfig"]["defaults"]["unitt"] = "s"


def wrong_unit(dashboard: Json) -> None:
    first(dashboard, "timeseries")["fieldConfig"]["defaults"]["unit"] = "secs"


def wrong_unit_of_a_column(dashboard: Json) -> None:
    table = next(
        one
        for one in panels(dashboard)
        if one["type"] == "table" and len(one["fieldConfig"]["overrides"]) > 1
    )
    table["fieldConfig"]["overrides"][1]["properties"].append({"id": "unit", "value": "secs"})


def misspelt_option(dashboard: Json) -> None:
    first(dashboard, "stat")["options"]["colourMode"] = "none"


def wrong_choice(dashboard: Json) -> None:
    first(dashboard, "timeseries")["options"]["tooltip"]["mode"] = "many"


def wrong_drawing(dashboard: Json) -> None:
    first(dashboard, "timeseries")["fieldConfig"]["defaults"]["custom"]["drawStyle"] = "lines"


def misspelt_query(dashboard: Json) -> None:
    target = first(dashboard, "stat")["targets"][0]
    target["expression"] = target.pop("expr")


def unknown_kind(dashboard: Json) -> None:
    first(dashboard, "stat")["type"] = "singlestat"


def wrong_variable(dashboard: Json) -> None:
    dashboard["templating"]["list"][0]["refresh"] = "always"


PLANTED: tuple[Callable[[Json], None], ...] = (
    height_as_text,
    misspelt_panels,
    misspelt_unit,
    wrong_unit,
    wrong_unit_of_a_column,
    misspelt_option,
    wrong_choice,
    wrong_drawing,
    misspelt_query,
    unknown_kind,
    wrong_variable,
)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_dashboards_fit_grafanas_types_and_each_planted_mistake_is_told(
    version: str, tmp_path: Path
) -> None:
    """One run of the compiler over all dashboards, and over the overview with each mistake."""
    good = dashboards()
    broken: dict[str, Json] = {}
    for mistake in PLANTED:
        broken[mistake.__name__] = copy.deepcopy(good["sessionwatch-overview"])
        mistake(broken[mistake.__name__])
    said = complaints(good | broken, version, tmp_path)
    assert {name: said[name] for name in good} == {name: [] for name in good}
    assert [name for name in broken if not said[name]] == []
