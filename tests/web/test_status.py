"""The status read from a real database, and what the HTTP side makes of it."""

import json
import time

import aiohttp
import asyncpg
import pytest

from indexer.store import status as status_store
from indexer.store.pool import Database
from indexer.store.status import MAX_DRIFTS, read_status
from indexer.web.health import ChainHealth, Health
from tests.web.serving import serving

MANAGER = bytes.fromhex("000002fbffedd9b33f4e7156f2de8d48945e7489")
HOSTILE = "<script>alert(1)</script> & </td>"


def account(number: int) -> bytes:
    return number.to_bytes(20, "big")


async def fill(connection: asyncpg.Connection) -> None:
    """Two chains: one with 60 drifts, a reorg and a violation, one that was never followed."""
    await connection.execute(
        """
        INSERT INTO chain.chain (chain_id, name, start_block, finalized_number, finalized_hash,
            finalized_time, indexed_number, indexed_hash, indexed_time, latest_number,
            latest_time, confirmed_at, finality_violation, managers)
        VALUES (80001, 'mumbai', 1, 90, $1, 1700000090, 100, $1, 1700000100, 103, 1700000106,
                now(), 'block 90 has another hash', ARRAY[$2::bytea])
        """,
        bytes(32),
        MANAGER,
    )
    await connection.execute("INSERT INTO chain.chain (chain_id, name) VALUES (80002, 'amoy')")
    await connection.execute(
        """
        INSERT INTO chain.coverage (chain_id, pass, filter, blocks)
        VALUES (80001, 'logs', 'accounts', '{[1,41)}'), (80002, 'logs', 'accounts', '{}')
        """
    )
    for number in range(60):
        await insert_verdict(connection, number, "drifted", "never_landed", minute=number % 60)
    await insert_verdict(connection, 60, "in_sync", None, minute=0)
    await insert_verdict(connection, 61, "drifted", "unknown_root", minute=0, closed_block=99)
    await connection.execute(
        """
        INSERT INTO chain.reorg (chain_id, common_ancestor, depth, old_tip_number, old_tip_hash,
            new_tip_number, new_tip_hash)
        VALUES (80001, 95, 2, 97, $1, 98, $1)
        """,
        b"\x01" * 32,
    )


async def insert_verdict(
    connection: asyncpg.Connection,
    number: int,
    verdict: str,
    cause: str | None,
    *,
    minute: int,
    closed_block: int | None = None,
) -> None:
    await connection.execute(
        """
        INSERT INTO chain.verdict (chain_id, block_number, closed_block, manager, account,
            verdict, cause, severity, since_block, since_time, explanation)
        VALUES (80001, 100, $1, $2, $3, $4, $5, 'critical', 98,
                timestamptz '2026-01-02 03:00:00+00' + $6 * interval '1 minute', $7)
        """,
        closed_block,
        MANAGER,
        account(number),
        verdict,
        cause,
        minute,
        f"explanation {number} {HOSTILE}",
    )


@pytest.fixture
async def database(database_url: str):
    async with Database.open(database_url) as opened:
        yield opened


async def test_an_empty_database_has_an_empty_status(database: Database):
    """Before the first start there is nothing to tell, and that is no error."""
    assert await read_status(database) == {"chains": []}


async def test_the_status_tells_what_the_tables_hold(database: Database):
    """Progress, open verdicts, causes, debt, violation, reorg and the newest drifts per chain."""
    async with database.transaction() as connection:
        await fill(connection)
    status = await read_status(database)
    mumbai, amoy = status["chains"]

    assert (mumbai["chain_id"], mumbai["chain"]) == (80001, "mumbai")
    progress = mumbai["progress"]
    assert (progress["latest_block"], progress["indexed_block"]) == (103, 100)
    assert (progress["finalized_block"], progress["lag_blocks"]) == (90, 3)
    assert progress["lag_seconds"] >= 0
    assert mumbai["verdicts"] == {
        "in_sync": 1,
        "pending": 0,
        "drifted": 60,
        "unmanaged": 0,
        "empty": 0,
        "unknown": 0,
    }
    assert mumbai["drifted_by_cause"] == {"never_landed": 60}
    assert mumbai["drifted_by_severity"] == {"critical": 60}
    assert mumbai["coverage_missing_blocks"] == {"logs": 50}
    assert mumbai["finality_violation"] == "block 90 has another hash"
    assert mumbai["last_reorg"] == mumbai["reorgs"][0]
    assert mumbai["last_reorg"]["depth"] == 2
    assert mumbai["last_reorg"]["old_tip_hash"] == "0x" + "01" * 32

    drifts = mumbai["newest_drifts"]
    assert len(drifts) == MAX_DRIFTS
    assert drifts[0]["account"] == "0x" + account(59).hex()
    assert drifts[0]["is_final"] is False
    assert drifts[0]["since_time"] == "2026-01-02T03:59:00+00:00"
    times = [drift["since_time"] for drift in drifts]
    assert times == sorted(times, reverse=True)

    assert amoy["progress"]["indexed_block"] is None
    assert amoy["coverage_missing_blocks"] == {}
    assert amoy["newest_drifts"] == amoy["reorgs"] == []
    assert amoy["last_reorg"] is None
    assert amoy["finality_violation"] is None
    assert json.loads(json.dumps(status)) == status


async def test_counting_verdicts_reads_the_index_of_open_ones(database: Database):
    """However many verdicts are over, counting those that hold never reads the table."""
    async with database.transaction() as connection:
        await fill(connection)
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = await connection.fetch("EXPLAIN " + status_store._VERDICTS)
    assert any("Index Only Scan using verdict_state" in row[0] for row in plan)


async def test_status_and_page_are_served_from_the_database(database: Database):
    """/status carries the read with uptime and version, and the page shows it, escaped."""
    async with database.transaction() as connection:
        await fill(connection)
    chain = ChainHealth(last_step_monotonic=time.monotonic(), lag_seconds=6.0)
    health = Health(started_monotonic=time.monotonic() - 5, chains={"mumbai": chain})
    async with serving(health, database=database) as port, aiohttp.ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{port}/status") as answer:
            assert answer.status == 200
            told = await answer.json()
        async with client.get(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            page = await answer.text()
    assert told["uptime_seconds"] >= 5
    assert told["version"]
    assert told["ready"] is True
    found = (await read_status(database))["chains"]
    for one in (*told["chains"], *found):
        assert one["progress"].pop("updated_seconds_ago") >= 0
    assert told["chains"] == found

    assert "newest 10 of 60" in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;/td&gt;" in page
    assert "mumbai: Finality violation: block 90 has another hash" in page
    assert ">all 60 drifted accounts</a>" in page


async def test_the_status_is_read_once_a_second_at_most(database: Database):
    """Many readers cost one query a second: the next read comes when the clock has moved on."""
    seconds = 1000.0

    def clock() -> float:
        return seconds

    async def chains(client: aiohttp.ClientSession, port: int) -> int:
        async with client.get(f"http://127.0.0.1:{port}/status") as answer:
            return len((await answer.json())["chains"])

    health = Health(started_monotonic=0.0)
    async with (
        serving(health, database=database, now=clock) as port,
        aiohttp.ClientSession() as client,
    ):
        assert await chains(client, port) == 0
        async with database.transaction() as connection:
            await fill(connection)
        assert await chains(client, port) == 0
        seconds = 1001.5
        assert await chains(client, port) == 2


async def test_a_database_that_went_away_is_a_sentence(database_url: str):
    """When the connections are gone, status and page are 503 with a sentence, livez stays 200."""
    async with Database.open(database_url) as gone:
        pass
    health = Health(started_monotonic=time.monotonic(), database_lost=True)
    async with serving(health, database=gone) as port, aiohttp.ClientSession() as client:
        for path in ("/status", "/"):
            async with client.get(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == 503
                text = await answer.text()
                assert "the database cannot be reached" in text
                assert "Traceback" not in text
                assert "asyncpg" not in text
        async with client.get(f"http://127.0.0.1:{port}/livez") as answer:
            assert answer.status == 200


async def test_a_locked_table_does_not_hold_the_status_up(database: Database, database_url: str):
    """A status that would take too long is given up with 503, and works again afterwards."""
    health = Health(started_monotonic=time.monotonic())
    blocker = await asyncpg.connect(database_url)
    try:
        async with serving(health, database=database) as port, aiohttp.ClientSession() as client:
            async with blocker.transaction():
                await blocker.execute("LOCK TABLE chain.verdict IN ACCESS EXCLUSIVE MODE")
                async with client.get(f"http://127.0.0.1:{port}/status") as answer:
                    assert answer.status == 503
                    assert "more than 4 seconds" in (await answer.json())["error"]
            async with client.get(f"http://127.0.0.1:{port}/status") as answer:
                assert answer.status == 200
    finally:
        await blocker.close()
