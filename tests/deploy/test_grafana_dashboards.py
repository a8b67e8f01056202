"""The dashboards as files: from one source, laid out without gaps, safe to look at, all wired."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, get_args

import pytest
import yaml

from deploy.grafana.source import layout, parts
from deploy.grafana.source.__main__ import DASHBOARDS
from indexer.core.verdict_values import Cause, Severity
from tests.deploy.grafana_files import (
    FILES,
    FOLDER,
    Asked,
    dashboards,
    expand_promql,
    panels,
    queries,
    variable_names,
)
from tests.deploy.grafana_sql import names
from tests.deploy.promql import unknown

BOARDS = dashboards()
QUERIES = list(queries())
SOURCES = {"sessionwatch-prometheus": "prometheus", "sessionwatch-postgres": "postgres"}
STABLE_KINDS = {"stat", "timeseries", "table", "bargauge", "text", "row"}
# What Grafana itself fills in where a link is followed.
BUILT_IN = re.compile(r"\$\{(__url_time_range|__data\.fields\.\w+|chain:queryparam)\}")


@pytest.fixture(params=sorted(BOARDS))
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return BOARDS[request.param]


def test_the_files_are_what_their_source_makes() -> None:
    """Nobody edited the JSON; `python -m deploy.grafana.source` writes it."""
    assert {path.stem for path in FILES} == set(DASHBOARDS)
    for path in FILES:
        assert path.read_text() == layout.text_of(DASHBOARDS[path.stem]), path.name


def test_panels_stand_side_by_side_and_under_each_other_without_gaps(board: dict[str, Any]) -> None:
    """Each cell of the grid, from the top to the lowest panel, belongs to exactly one panel."""
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert set(taken) == {(x, y) for x in range(24) for y in range(height)}
    order = [(one["gridPos"]["y"], one["gridPos"]["x"]) for one in board["panels"]]
    assert all(first < second for first, second in pairwise(order))


def test_a_line_that_is_not_filled_is_refused() -> None:
    """The layout is worked out, so a wrong width is an error, not a hole."""
    panel = parts.stat("A", "b.", nothing="0", width=5)
    with pytest.raises(ValueError, match="not filled"):
        list(layout.placed(layout.Section("S", [panel]), 0))
    with pytest.raises(ValueError, match="does not fit"):
        list(layout.placed(layout.Section("S", [panel] * 5), 0))


def test_every_panel_says_what_it_shows_and_what_nothing_means(board: dict[str, Any]) -> None:
    """Titles are unique on a dashboard, numbers too; each has a sentence, a unit, an empty text."""
    found = panels(board)
    ids = [panel["id"] for panel in board["panels"]]
    titles = [panel["title"] for panel in found]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    for panel in found:
        assert panel["type"] in STABLE_KINDS
        assert panel["description"].endswith((".", "?")), panel["title"]
        if panel["type"] == "text":
            continue
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]


def test_every_query_goes_to_one_of_the_two_data_sources(board: dict[str, Any]) -> None:
    """By uid; a panel's queries all go to the panel's own. A table asks for a table."""
    for panel in panels(board):
        if panel["type"] == "table":
            assert [target["format"] for target in panel["targets"]] == ["table"]
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"]
            kind = SOURCES[target["datasource"]["uid"]]
            assert ("expr" in target) == (kind == "prometheus")
            assert ("rawSql" in target) == (kind == "postgres")
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references)


def test_variables_are_defined_and_used(board: dict[str, Any]) -> None:
    """A query names no variable that the dashboard lacks; none stands there for nothing."""
    defined = {variable["name"] for variable in board["templating"]["list"]}
    asked = [one for one in QUERIES if one.uid == board["uid"]]
    used = {name for one in asked for name in variable_names(one.promql) | names(one.sql)}
    assert used == defined


def test_links_lead_to_dashboards_and_variables_that_exist(board: dict[str, Any]) -> None:
    """Of the table that a link stands in the columns are there, too."""
    for panel in panels(board):
        fields = panel.get("fieldConfig", {"defaults": {}, "overrides": []})
        links = list(fields["defaults"].get("links", ()))
        for override in fields["overrides"]:
            links += [
                one
                for changed in override["properties"]
                if changed["id"] == "links"
                for one in changed["value"]
            ]
        for link in links:
            match = re.fullmatch(r"/d/([\w-]+)\?(.*)", link["url"])
            assert match, link["url"]
            assert "$" not in BUILT_IN.sub("", link["url"])
            targets = {one["name"] for one in BOARDS[match[1]]["templating"]["list"]}
            assert set(re.findall(r"var-(\w+)=", link["url"])) <= targets
            for column in re.findall(r"__data\.fields\.(\w+)", link["url"]):
                assert re.search(rf"\.{column}\b", panel["targets"][0]["rawSql"])
    assert board["links"][0]["tags"] == board["tags"] == ["sessionwatch"]


def test_what_an_operator_follows_is_linked() -> None:
    """Overview leads to drift, both lead to the account."""
    text = {path.stem: path.read_text() for path in FILES}
    assert "/d/sessionwatch-drift?" in text["overview"]
    for name in ("overview", "drift", "sessions", "tokens"):
        assert "/d/sessionwatch-account?var-chain=" in text[name]


def test_text_from_the_chain_is_never_rendered(board: dict[str, Any]) -> None:
    """Cells show text as it is: no HTML, picture or JSON view; our notes hold no variable."""
    for panel in panels(board):
        if panel["type"] == "text":
            assert panel["options"]["mode"] == "markdown"
            assert "$" not in panel["options"]["content"]
            assert "<" not in panel["options"]["content"]
        if panel["type"] == "table":
            fields = panel["fieldConfig"]
            kinds = [fields["defaults"]["custom"]["cellOptions"]["type"]]
            kinds += [
                changed["value"]["type"]
                for override in fields["overrides"]
                for changed in override["properties"]
                if changed["id"] == "custom.cellOptions"
            ]
            assert set(kinds) <= {"auto", "color-text"}
        assert "$" not in panel["title"] + panel["description"]


def test_an_empty_cell_does_not_say_what_an_empty_table_says(board: dict[str, Any]) -> None:
    """The text of the whole table would stand in each cell without a value."""
    for panel in panels(board):
        if panel["type"] == "table":
            first = panel["fieldConfig"]["overrides"][0]
            assert first["matcher"] == {"id": "byRegexp", "options": "/.*/"}
            assert first["properties"] == [{"id": "noValue", "value": parts.EMPTY_CELL}]


def test_the_choices_of_causes_and_severities_are_all_there_are() -> None:
    """What the drift dashboard offers to choose from is what verdicts can say."""
    offered = {one["name"]: one for one in BOARDS["sessionwatch-drift"]["templating"]["list"]}
    assert tuple(offered["cause"]["query"].split(",")) == get_args(Cause)
    assert set(offered["severity"]["query"].split(",")) == set(get_args(Severity))


@pytest.mark.parametrize("asked", [one for one in QUERIES if one.promql], ids=str)
def test_expressions_name_series_that_the_daemon_has(asked: Asked) -> None:
    """It parses, and every series and label exists in the registry."""
    given = {name: ["x"] for name in variable_names(asked.promql)}
    assert unknown(expand_promql(asked.promql, **given)) == []


def test_variables_are_asked_of_series_that_exist() -> None:
    """label_values(series, label), too."""
    for board in BOARDS.values():
        for variable in board["templating"]["list"]:
            if variable.get("datasource", {}).get("type") == "prometheus":
                match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
                assert match
                assert unknown(f'{match[1]}{{{match[2]}=""}}') == []


def test_provisioning_fits_the_dashboards_and_holds_no_secret() -> None:
    """Two data sources under the uids that the panels use, the password from outside."""
    given = yaml.safe_load((FOLDER / "provisioning/datasources/sessionwatch.yml").read_text())
    by_uid = {one["uid"]: one for one in given["datasources"]}
    assert set(by_uid) == set(SOURCES)
    assert [one["type"] for one in by_uid.values()] == [
        parts.PROMETHEUS["type"],
        parts.POSTGRES["type"],
    ]
    database = by_uid["sessionwatch-postgres"]
    assert database["user"] == "sessionwatch_reader"
    assert database["secureJsonData"] == {"password": "$__env{SESSIONWATCH_READER_PASSWORD}"}
    scraped = yaml.safe_load((FOLDER.parent / "prometheus/prometheus.yml").read_text())
    interval = by_uid["sessionwatch-prometheus"]["jsonData"]["timeInterval"]
    assert interval == scraped["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((FOLDER / "provisioning/dashboards/sessionwatch.yml").read_text())[
        "providers"
    ]
    readme = (FOLDER.parents[1] / "README.md").read_text()
    assert provider["options"]["path"] in readme
    assert "SESSIONWATCH_READER_PASSWORD" in readme
