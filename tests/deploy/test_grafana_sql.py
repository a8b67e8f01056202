"""Every statement of the dashboards on real Postgres, as the role that Grafana logs in with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from indexer.core.passes import hex_of
from indexer.devnet.accounts import running_devnet
from indexer.devnet.tools import Toolchain
from tests.deploy.grafana_files import Asked, dashboards, panels, queries
from tests.deploy.grafana_sql import EVER, expand, names
from tests.deploy.grafana_story import CHAIN, HEIDI, HOSTILE, OWNER, add_by_hand, following, tell
from tests.fixtures_database import Connection, connected, temporary_database

BOARDS = dashboards()
QUERIES = [one for one in queries() if one.sql]
ATTACKS = (
    "'; DROP TABLE chain.chain; --",
    "' OR 1 = 1 OR '' = '",
    "\\'; SELECT pg_sleep(9); --\"",
)
DEFINED = {
    uid: {variable["name"]: variable for variable in board["templating"]["list"]}
    for uid, board in BOARDS.items()
}


@pytest.fixture(scope="module")
async def filled(
    postgres_url: str,
    template_database: str,
    toolchain: Toolchain,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Connection, str]]:
    """A connection as the reader to a database with something in every panel, and an account."""
    folder: Path = tmp_path_factory.mktemp("story")
    async with (
        temporary_database(postgres_url, template_database) as url,
        connected(url) as opened,
    ):
        async with running_devnet(toolchain) as devnet:
            account = hex_of(devnet.account(HEIDI).address)
            async with following(devnet, url, folder) as daemon:
                await tell(devnet, url)
                assert await daemon.stop() == 0
        await add_by_hand(opened, account)
        await opened.execute("SET ROLE sessionwatch_reader")
        yield opened, account


def values(uid: str, account: str) -> dict[str, str | list[str]]:
    """Return what each variable of a dashboard holds when it is opened, or came to by a link."""
    found: dict[str, str | list[str]] = {}
    for name, variable in DEFINED[uid].items():
        if variable["type"] == "custom" and variable["multi"]:
            found[name] = variable["query"].split(",")
        else:
            found[name] = variable["current"]["value"]
    return found | {"chain": [CHAIN], "account": account, "owner": OWNER}


def columns_of_panel(asked: Asked) -> set[str]:
    """Return the columns that its panel formats by name."""
    (panel,) = [one for one in panels(BOARDS[asked.uid]) if one["title"] == asked.panel]
    return {
        override["matcher"]["options"]
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"]["id"] == "byName"
    }


async def wrong_with(connection: Connection, asked: Asked, account: str) -> str:
    """Return what a panel would not show rightly; empty if all is well."""
    sql = expand(asked.sql, interval="1s", **values(asked.uid, account))
    prepared = await connection.prepare(sql)
    given = {one.name: one.type.name for one in prepared.get_attributes()}
    found = await prepared.fetch()
    if not found:
        return "no rows"
    if missing := columns_of_panel(asked) - set(given):
        return f"no columns {missing}"
    # Grafana makes a number of 53 bits of numeric; of time it makes a time.
    kinds = {kind for name, kind in given.items() if (name, asked.over_time) != ("time", True)}
    if odd := kinds - {"text", "bool", "int4", "int8", "float8", "timestamptz"}:
        return f"columns of {odd}"
    if asked.over_time:
        times = [row["time"] for row in found]
        return "" if times == sorted(times) and len(found) > 1 else "not in the order of time"
    return ""


@pytest.mark.timeout(120)  # whichever test is the first tells the story
async def test_every_panel_shows_what_the_story_left(filled: tuple[Connection, str]) -> None:
    """Each statement runs and gives rows, with the columns that its panel formats."""
    connection, account = filled
    assert len(QUERIES) > 50
    wrong = {str(asked): await wrong_with(connection, asked, account) for asked in QUERIES}
    assert {name: what for name, what in wrong.items() if what} == {}


@pytest.mark.timeout(120)
async def test_nothing_chosen_and_nothing_known_is_no_error(
    filled: tuple[Connection, str],
) -> None:
    """No chain yet, an empty box, a time before the chain: every statement runs."""
    connection, account = filled
    long_ago = (EVER[0], EVER[0] + timedelta(hours=1))
    for asked in QUERIES:
        given = values(asked.uid, "")
        empty = {name: [] if isinstance(v, list) else v for name, v in given.items()}
        for chosen in (empty, values(asked.uid, account)):
            await connection.fetch(expand(asked.sql, time=long_ago, interval="5m", **chosen))


@pytest.mark.timeout(120)
async def test_the_time_of_the_dashboard_and_its_variables_narrow_what_is_shown(
    filled: tuple[Connection, str],
) -> None:
    """Another time, another chain, contract or cause: nothing is found."""
    connection, account = filled
    (transfers,) = [
        one.sql
        for one in QUERIES
        if (one.uid, one.panel) == ("sessionwatch-tokens", "Newest transfers")
    ]
    given = values("sessionwatch-tokens", account)
    assert await connection.fetch(expand(transfers, **given))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert not await connection.fetch(expand(transfers, time=(tomorrow, EVER[1]), **given))
    for changed in ({"chain": ["other"]}, {"contract": "0x" + "1" * 40}):
        assert not await connection.fetch(expand(transfers, **given | changed))
    contract = (await connection.fetch(expand(transfers, **given)))[0]["contract"]
    shouted = f"  {contract.upper().replace('0X', '0x')} "
    assert await connection.fetch(expand(transfers, **given | {"contract": shouted}))
    (drifts,) = [one.sql for one in QUERIES if one.panel == "Drifted accounts"]
    chosen = values("sessionwatch-drift", account) | {"cause": ["never_landed"]}
    assert {row["cause"] for row in await connection.fetch(expand(drifts, **chosen))} == {
        "never_landed"
    }


@pytest.mark.timeout(120)
async def test_what_a_variable_holds_is_a_value_and_never_sql(
    filled: tuple[Connection, str],
) -> None:
    """An address bar sets any variable to any text: it finds nothing, and does nothing."""
    connection, account = filled
    texts = {"account", "owner", "contract"}
    for asked in QUERIES:
        for name in names(asked.sql) & (texts | {"chain", "cause", "severity"}):
            for attack in ATTACKS:
                given = values(asked.uid, account)
                given[name] = attack if name in texts else [attack]
                found: list[Any] = await connection.fetch(expand(asked.sql, **given))
                if name == "account":
                    assert found == [], asked
    (expiring,) = [one for one in QUERIES if one.panel == "Expiring soon"]
    for attack in ATTACKS:
        sql = expand(expiring.sql, **values(expiring.uid, account) | {"within": attack})
        with pytest.raises(asyncpg.InvalidDatetimeFormatError):
            await connection.fetch(sql)
    assert await connection.fetchval("SELECT count(*) FROM watch.progress") == 1


@pytest.mark.timeout(120)
async def test_hostile_text_and_numbers_arrive_as_they_are(
    filled: tuple[Connection, str],
) -> None:
    """Markup is the text of a cell, 2^256 - 1 has all its digits, a year 8,921,556 is left out."""
    connection, account = filled
    by_panel = {(one.uid.removeprefix("sessionwatch-"), one.panel): one for one in QUERIES}

    async def shown(uid: str, panel: str) -> list[Any]:
        asked = by_panel[uid, panel]
        return list(await connection.fetch(expand(asked.sql, **values(asked.uid, account))))

    assert [row["reason"] for row in await shown("internals", "Undecoded logs")] == [HOSTILE]
    assert str(2**256 - 1) in {row["balance"] for row in await shown("account", "Tokens")}
    ends = [row["valid_until"] for row in await shown("account", "Sessions")]
    assert len(ends) == 2
    assert ends[0] is not None
    assert ends[1] is None
    assert (await shown("tokens", "Failed"))[0]["failed"] > 0


async def test_the_variable_of_chains_is_asked_for_as_the_reader(
    filled: tuple[Connection, str],
) -> None:
    """The query behind the choice of chains gives their names."""
    connection, _ = filled
    asked = {
        variable["query"]
        for defined in DEFINED.values()
        for variable in defined.values()
        if variable.get("datasource", {}).get("uid") == "sessionwatch-postgres"
    }
    assert [[tuple(row) for row in await connection.fetch(sql)] for sql in asked] == [[(CHAIN,)]]


def test_a_variable_that_is_not_quoted_is_refused() -> None:
    """So is one without a value, and a macro that Grafana does not have."""
    assert expand("SELECT ${a:sqlstring}", a="it's") == "SELECT 'it''s'"
    assert expand("ARRAY[${a:sqlstring}]", a=["x", "y"]) == "ARRAY['x','y']"
    for sql in ("SELECT $a", "SELECT ${a}", "SELECT '${a:raw}'", "SELECT [[a]]"):
        with pytest.raises(ValueError, match="not quoted"):
            expand(sql, a="x")
    with pytest.raises(ValueError, match="no value"):
        expand("SELECT ${b:sqlstring}", a="x")
    for sql in ("$__timeFiltre(x)", "$__timeGroup(x)", "$__timeFilter()", "$__unknown"):
        with pytest.raises(ValueError, match="not a macro"):
            expand(sql)
    assert expand("$__timeGroupAlias(t, $__interval)", interval="5m") == (
        'floor(extract(epoch from t)/300)*300 AS "time"'
    )
