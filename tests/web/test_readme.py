"""What the README says is what the program has."""

import re
from pathlib import Path
from typing import get_args

import asyncpg
import pytest
from prometheus_client.metrics_core import Metric

import indexer
from indexer import errors
from indexer.core.config_values import CHAIN_KEYS, TABLES
from indexer.core.verdict_values import Cause, Verdict, VerdictWarning
from indexer.metrics import REGISTRY
from tests.deploy.runbook import anchor

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^```sql\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)

HEADINGS = re.findall(r"^##(#*) (.+)$", README, re.MULTILINE)


def test_the_contents_list_each_heading_in_order():
    """Those of the second and third level, as the text has them."""
    contents = README.split("\n## ")[0].split("\n- ", 1)[1]
    listed = re.findall(r"\[([^]]+)\]\(#([^)]+)\)", contents)
    assert listed == [(name, anchor(name)) for level, name in HEADINGS if level in ("", "#")]


def test_each_link_leads_somewhere():
    """To a heading that no other shares its anchor with, or to a file."""
    anchors = [anchor(name) for _, name in HEADINGS]
    assert len(anchors) == len(set(anchors)) > 20
    for link in re.findall(r"\]\(([^)]+)\)", README):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        else:
            assert (ROOT / link).is_file(), link


def test_the_readme_shows_queries():
    """The questions people ask are there as SQL."""
    assert len(QUERIES) >= 7


@pytest.mark.parametrize("query", QUERIES)
async def test_each_query_runs_as_the_role_for_people(query: str, database_url: str):
    """Every SQL block of the README runs on the schema, with the reader's rights alone."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SET ROLE sessionwatch_reader")
        await connection.execute(query)
    finally:
        await connection.close()


@pytest.mark.parametrize("key", [f"{table}.{key}" for table in TABLES for key in TABLES[table]])
def test_each_key_stands_with_its_variable(key: str):
    """Each key of the configuration stands beside its environment variable."""
    variable = "SESSIONWATCH_" + key.upper().replace(".", "__")
    assert re.search(rf"^\| `{key}` \|.*`{variable}`", README, re.MULTILINE)


@pytest.mark.parametrize("key", CHAIN_KEYS)
def test_each_key_of_a_chain_stands_with_its_variable(key: str):
    """Each key of a chain stands beside the tail of its environment variable."""
    assert re.search(rf"^\|.*`{key}`.*\|.*`…__{key.upper()}`", README, re.MULTILINE)


@pytest.mark.parametrize("word", [*get_args(Verdict), *get_args(Cause)])
def test_each_verdict_and_cause_is_explained(word: str):
    """Each value of the closed sets has a row with a meaning and what to do."""
    assert re.search(rf"^\| `{word}` \| [^|]{{10,}} \| [^|]+ \|$", README, re.MULTILINE)


@pytest.mark.parametrize("word", get_args(VerdictWarning))
def test_each_warning_is_explained(word: str):
    """Each warning is named with its meaning."""
    assert f"`{word}`" in README


def own_metrics() -> list[Metric]:
    return [metric for metric in REGISTRY.collect() if metric.name.startswith("sessionwatch_")]


def test_each_metric_is_listed():
    """Each metric of the program stands in the table, and the table names no other."""
    names = {
        metric.name.removeprefix("sessionwatch_") + ("_total" if metric.type == "counter" else "")
        for metric in own_metrics()
    }
    section = README.split("### Metrics")[1].split("###")[0]
    cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    assert set(re.findall(r"`([a-z_]+)", "".join(cells))) == names


def test_each_exit_code_is_listed():
    """Each exit code stands in the table, and the table names no other."""
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    section = README.split("### Exit codes")[1].split("###")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == codes


def test_the_map_names_each_file():
    """The docstring of the package has one line for each of its files, and no other."""
    found: set[str] = set()
    folder = ""
    for line in (indexer.__doc__ or "").splitlines():
        if head := re.match(r"(\w+/|The shell)", line):
            folder = head[1].replace("The shell", "")
        elif entry := re.match(r"    (\w+\.py) +\S", line):
            found.add(folder + entry[1])
    root = Path(indexer.__file__).parent
    there = {path.relative_to(root).as_posix() for path in root.rglob("*.py")}
    assert found == {path for path in there if not path.endswith("__init__.py")}
