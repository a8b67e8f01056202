"""What Prometheus and Alertmanager are given: it parses, names what exists, and is documented."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from indexer import metrics
from tests.deploy import promql
from tests.deploy.debian import program
from tests.deploy.monitoring import SHIPPED
from tests.deploy.runbook import RUNBOOK, anchor, sections

ALERTS_FILE, RULES_FILE = SHIPPED / "alerts.yml", SHIPPED / "rules.yml"
CASES = sorted((SHIPPED / "tests").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules_of(path: Path) -> list[dict[str, Any]]:
    return [rule for group in read(path)["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules_of(ALERTS_FILE)}


def recorded() -> dict[str, frozenset[str]]:
    """Return each recorded series with its labels; each may use those before it."""
    known: dict[str, frozenset[str]] = {}
    for rule in rules_of(RULES_FILE):
        assert not promql.unknown(rule["expr"], known), rule["record"]
        known[rule["record"]] = promql.labels_after(rule["expr"], known)
    return known


def test_recorded_series_are_made_of_the_daemons() -> None:
    """Every recording rule parses, and names only series and labels that exist."""
    assert len(recorded()) == len(rules_of(RULES_FILE)) > 0


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_names_what_exists(name: str) -> None:
    """Its series, their labels, and the labels its texts use."""
    alert = ALERTS[name]
    assert not promql.unknown(alert["expr"], recorded())
    known = promql.registered() | recorded()
    labels = promql.TARGET_LABELS.union(*(known[one.name] for one in promql.series(alert["expr"])))
    used = set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
    assert used <= labels


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_whole(name: str) -> None:
    """It has a severity, a summary, a description, and a section of the runbook under its name."""
    alert = ALERTS[name]
    assert name.startswith("Sessionwatch")
    assert set(alert["labels"]) == {"severity"}
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    file, _, found = alert["annotations"]["runbook"].partition("#")
    assert file == "deploy/runbook.md"
    assert found == anchor(name)
    assert name in sections()


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    """Each section named like an alert belongs to one, and says all that it must."""
    of_alerts = {name for name in sections() if name.startswith("Sessionwatch")}
    assert of_alerts == set(ALERTS)
    for name in of_alerts:
        for part in ("**Means:**", "**Look:**", "**Do:**", "**Over:**"):
            assert part in sections()[name], (name, part)


def test_every_link_of_the_runbook_leads_somewhere() -> None:
    """To a heading of its own, or to a file beside it."""
    links = re.findall(r"\]\(([^)]+)\)", RUNBOOK.read_text())
    assert len(links) >= 3
    headings = {"#" + anchor(heading) for heading in sections()}
    for link in links:
        assert link in headings or (RUNBOOK.parent / link).is_file(), link


def test_the_runbook_names_series_that_exist() -> None:
    """Every expression that it sends to Prometheus names what exists."""
    expressions = re.findall(r"'query=([^']+)'", RUNBOOK.read_text())
    assert len(expressions) >= 5
    for expression in expressions:
        assert not promql.unknown(expression, recorded()), expression


def test_every_alert_has_a_case_of_firing_and_one_of_not_firing() -> None:
    """And no case is of an alert that is gone."""
    firing: set[str] = set()
    quiet: set[str] = set()
    for path in CASES:
        for test in read(path)["tests"]:
            for case in test["alert_rule_test"]:
                (firing if case["exp_alerts"] else quiet).add(case["alertname"])
    assert firing == quiet == set(ALERTS)


def test_no_alert_about_progress_fires_for_a_finished_chain() -> None:
    """Those of the group leave out the chains that are finished."""
    (group,) = (
        one for one in read(ALERTS_FILE)["groups"] if one["name"] == "sessionwatch_progress"
    )
    for rule in group["rules"]:
        unless = "unless on (job, instance, chain) sessionwatch_chain_finished == 1"
        assert rule["expr"].endswith(unless)


def test_alerts_survive_the_loss_of_their_first_event() -> None:
    """Counters that alerts watch are there from the start: an increase from nothing is not seen."""
    metrics.show_chain("begun")
    shown = metrics.render().decode()
    for name in (
        "audit_mismatches_total",
        "root_disagreements_total",
        "undecoded_logs_total",
        "reorgs_total",
        "reorg_depth_blocks_count",
    ):
        assert re.search(rf'^sessionwatch_{name}{{chain="begun"}} 0\.0$', shown, re.MULTILINE)
    # The bound that tells deep reorgs is one of the histogram's.
    assert 'sessionwatch_reorg_depth_blocks_bucket{chain="begun",le="34.0"} 0.0' in shown
    assert '_bucket{le="34.0"}' in RULES_FILE.read_text()


def test_what_silences_an_alert_exists() -> None:
    """Inhibitions name alerts of ours, and grouping names labels that alerts have."""
    config = read(SHIPPED / "alertmanager.yml")
    for rule in config["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            _, pattern = re.split(r"=~|=", matcher, maxsplit=1)
            pattern = pattern.strip('"')
            matching = {name for name in ALERTS if re.fullmatch(pattern, name)}
            assert matching, matcher
            assert len(matching) >= pattern.count("|") + 1, matcher
    assert set(config["route"]["group_by"]) <= {"job", "chain", "severity"}
    receivers = {one["name"] for one in config["receivers"]}
    assert {config["route"]["receiver"]} | {
        route["receiver"] for route in config["route"]["routes"]
    } <= receivers


def test_what_an_expression_names_is_found() -> None:
    """In aggregations, ranges, subqueries and matchings; what does not exist is said."""
    expression = (
        'sum by (chain) (rate(sessionwatch_reorgs_total{chain="a"}[5m]))'
        " / on (chain) group_left (version) max_over_time(sessionwatch_lag_blocks[1h:5m])"
    )
    assert promql.series(expression) == {
        promql.Selected("sessionwatch_reorgs_total", frozenset({"chain"})),
        promql.Selected("sessionwatch_lag_blocks", frozenset()),
    }
    assert promql.grouping_labels(expression) == {"chain", "version"}
    assert promql.unknown(expression) == ["nothing in it has the label version"]
    assert promql.unknown('sessionwatch_lag{chain="a"}') == ["there is no series sessionwatch_lag"]
    assert promql.unknown('sessionwatch_lag_blocks{account="a"}') == [
        "sessionwatch_lag_blocks has no label account"
    ]
    assert not promql.unknown('sessionwatch_commit_seconds_bucket{le="1.0", instance="b"}')
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(")


@pytest.mark.long
@pytest.mark.timeout(180)
def test_debians_tools_accept_all_of_it() -> None:
    """Promtool checks configuration and rules and plays every case; amtool checks its own."""
    for command in (
        [program("promtool"), "check", "config", SHIPPED / "prometheus.yml"],
        [program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", RULES_FILE],
        [program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", ALERTS_FILE],
        [program("promtool"), "test", "rules", *CASES],
        [program("amtool"), "check-config", SHIPPED / "alertmanager.yml"],
    ):
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
