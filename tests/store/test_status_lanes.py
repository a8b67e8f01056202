"""How far the lanes are, read from a database filled by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from indexer.store.pool import Database
from indexer.store.status import read_status
from tests.fixtures_database import Connection
from tests.schema_rows import CHAIN, address, cover, insert, make_chain, text

MANAGER = address(0x77)
ROOTS = f"roots/{text(MANAGER)}"


async def fill(connection: Connection) -> None:
    """Blocks 0 to 99 are final; a cohort of two accounts was adopted at block 49."""
    await make_chain(connection, start=0, final=99, tip=110)
    await insert(connection, "chain.cohort", cohort_id=1, adopted_block=49)
    for number in (1, 2):
        await insert(
            connection,
            "chain.account",
            account=address(number),
            cohort_id=1,
            token_cohort_id=0,
            source="stored",
        )
    await cover(connection, "logs", "factory/" + text(address(5)), (0, 99))
    await cover(connection, "logs", "accounts", (0, 79))
    await cover(connection, "logs", "accounts", cohort=1)
    await cover(connection, "logs", "erc1155/all", (0, 59))
    await cover(connection, "bodies", "accounts", (0, 99))
    await cover(connection, "bodies", "accounts", (0, 49), cohort=1)
    await cover(connection, ROOTS, "accounts", (40, 99))
    await cover(connection, ROOTS, "accounts", (0, 49), cohort=1)


async def pace(connection: Connection, pass_: str, age_seconds: float = 1.0) -> None:
    """100 blocks in 20 seconds with 50 requests."""
    await connection.execute(
        "INSERT INTO chain.pace (chain_id, pass, blocks, seconds, requests, updated_at)"
        " VALUES ($1, $2, 100, 20, 50, now() - $3 * interval '1 second')",
        CHAIN,
        pass_,
        age_seconds,
    )


async def status(database_url: str) -> dict[str, Any]:
    async with Database.open(database_url) as database:
        (chain,) = (await read_status(database))["chains"]
    assert json.loads(json.dumps(chain)) == chain
    return dict(chain)


def lane(chain: dict[str, Any], pass_: str, filter_: str = "accounts") -> dict[str, Any]:
    (found,) = (x for x in chain["lanes"] if (x["pass"], x["filter"]) == (pass_, filter_))
    return dict(found)


async def test_each_lane_says_what_it_owes(connection: Connection, database_url: str) -> None:
    """Cohorts are summed into their pass; time and requests follow the pace of that work."""
    await fill(connection)
    await pace(connection, "logs")
    await pace(connection, "roots")
    chain = await status(database_url)
    assert [one["lane"] for one in chain["lanes"]] == [
        *("live", "discovery", "logs", "logs", "bodies", "roots")
    ]
    accounts = lane(chain, "logs")
    assert (accounts["first_block"], accounts["last_block"]) == (0, 99)
    assert (accounts["missing_blocks"], accounts["accounts"]) == (20 + 50, 2)
    assert accounts["percent"] == pytest.approx(100 * 80 / 150)
    assert accounts["remaining_seconds"] == pytest.approx(70 * 20 / 100)
    assert accounts["remaining_requests"] == pytest.approx(70 * 50 / 100)
    assert accounts["basis"].startswith("5 blocks/s lately")
    paid = lane(chain, "bodies")
    assert (paid["percent"], paid["remaining_seconds"], paid["accounts"]) == (100, 0, 0)
    # The filters of cohort 0 share their ranges: 40 blocks, and 50 of the cohort.
    assert chain["remaining"]["seconds"] == pytest.approx((40 + 50) / 5)
    assert chain["remaining"]["requests"] == pytest.approx((90 + 40) / 2)


async def test_without_a_fresh_pace_nothing_is_promised(
    connection: Connection, database_url: str
) -> None:
    """No pace of one kind, or an old one: that lane and the whole have no estimate, and say why."""
    await fill(connection)
    await pace(connection, "logs")
    chain = await status(database_url)
    assert lane(chain, ROOTS)["remaining_seconds"] is None
    assert lane(chain, "logs")["remaining_seconds"] is not None
    assert chain["remaining"] == {
        "seconds": None,
        "requests": None,
        "basis": "nothing was paid yet of roots",
    }
    await pace(connection, "roots", age_seconds=7_190)
    chain = await status(database_url)
    assert lane(chain, ROOTS)["basis"] == "nothing was paid for 2 h"
    assert lane(chain, ROOTS)["remaining_requests"] is None
    assert chain["remaining"]["seconds"] is None


async def test_what_cannot_be_read_stands_apart(connection: Connection, database_url: str) -> None:
    """Lost stretches count as missing, not as work; of another cohort they count there."""
    await fill(connection)
    await pace(connection, "roots")
    for cohort, first, last in ((0, 0, 9), (0, 30, 45), (1, 0, 9)):
        await insert(
            connection,
            "evidence.unobserved",
            manager=MANAGER,
            cohort=cohort,
            first_block=first,
            last_block=last,
        )
    found = lane(await status(database_url), ROOTS)
    # Blocks 40 to 45 have been read since, and the cohort's too.
    assert (found["missing_blocks"], found["unreadable_blocks"]) == (40, 20)
    assert found["remaining_seconds"] == pytest.approx(20 / 5)


async def test_what_is_not_configured_any_more_is_no_work(
    connection: Connection, database_url: str
) -> None:
    """A pass that the daemon did not start with keeps its coverage, but has no bar."""
    await fill(connection)
    passes = json.dumps({"passes": [["logs", "accounts"], ["bodies", "accounts"]]})
    await connection.execute("UPDATE chain.chain SET settings = $1::jsonb", passes)
    chain = await status(database_url)
    assert [one["lane"] for one in chain["lanes"]] == ["live", "logs", "bodies"]


async def test_before_the_first_final_block_nothing_is_known(
    connection: Connection, database_url: str
) -> None:
    """No debt is known, so none is shown, and nothing is said of what remains."""
    await fill(connection)
    await connection.execute(
        "UPDATE chain.chain SET finalized_number = NULL, finalized_hash = NULL,"
        " finalized_time = NULL"
    )
    chain = await status(database_url)
    assert ([one["lane"] for one in chain["lanes"]], chain["remaining"]) == (["live"], None)
