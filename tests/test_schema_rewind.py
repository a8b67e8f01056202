"""chain.rewind: every row above the ancestor moves, nothing else does, and nothing is forgotten."""

from __future__ import annotations

import json
from decimal import Decimal

import asyncpg
import pytest

from tests.fixtures_database import Connection
from tests.schema_rows import (
    CHAIN,
    LONG_AGO,
    ZERO20,
    address,
    cover,
    hash32,
    insert,
    make_chain,
    observe,
    text,
)

REWIND = "SELECT account FROM chain.rewind($1, $2, $3, $4)"
BELOW = "SELECT account FROM chain.rewind($1, $2, NULL, NULL, true)"

BY_BLOCK = """
SELECT c.relname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
 WHERE c.relnamespace = 'chain'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND a.attname = 'block_number' ORDER BY 1"""


async def test_rows_of_every_table_move(connection: Connection) -> None:
    """Each table's row above the kept block moves; rows at it and of other chains stay."""
    await make_chain(connection, final=10, tip=20)
    await insert(connection, "chain.block", chain_id=1, block_number=16)
    tables = [row[0] for row in await connection.fetch(BY_BLOCK)]
    assert len(tables) >= 13
    for table in tables:
        if table not in {"block", "tail"}:  # make_chain filled these
            for n, block in enumerate((15, 16)):
                (
                    await insert(
                        connection, f"chain.{table}", block_number=block, account=address(n)
                    )
                    if await _has_account(connection, table)
                    else await insert(connection, f"chain.{table}", block_number=block)
                )
    await connection.execute(REWIND, CHAIN, 15, 18, hash32(9918))
    for table in tables:
        left = await connection.fetchval(
            f"SELECT max(block_number) FROM chain.{table} WHERE chain_id = $1", CHAIN
        )
        assert left == 15, table
        moved = await connection.fetch(
            "SELECT row_data FROM chain.orphan WHERE table_name = $1", table
        )
        assert [json.loads(row[0])["block_number"] for row in moved] == (
            [16, 17, 18, 19, 20] if table in {"block", "tail"} else [16]
        ), table
    assert await connection.fetchval("SELECT count(*) FROM chain.block WHERE chain_id = 1") == 1


async def _has_account(connection: Connection, table: str) -> bool:
    query = (
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname ="
        " 'account')"
    )
    return bool(await connection.fetchval(query, f"chain.{table}"))


async def test_moved_rows_can_be_read_back_exactly(connection: Connection) -> None:
    """An orphan gives back the row, bytes and 2^256-1 included, whatever bytea_output is."""
    await make_chain(connection)
    await insert(connection, "chain.erc1155_transfer", block_number=16, contract=address(0xFF))
    before = await connection.fetchrow("SELECT * FROM chain.erc1155_transfer")
    await connection.execute("SET bytea_output = 'escape'")
    await connection.execute(REWIND, CHAIN, 15, 16, hash32(1))
    after = await connection.fetchrow(
        "SELECT r.* FROM chain.orphan AS o, jsonb_populate_record(NULL::chain.erc1155_transfer,"
        " o.row_data) AS r WHERE o.table_name = 'erc1155_transfer'"
    )
    assert before is not None
    assert after == before
    assert after["amount"] == Decimal(2**256 - 1)


async def test_the_tip_falls_to_the_kept_block_and_the_reorg_is_told(
    connection: Connection,
) -> None:
    """chain.chain points at the kept header; watch.reorg shows ancestor, depth and both tips."""
    await make_chain(connection, final=10, tip=20)
    await connection.execute(REWIND, CHAIN, 17, 19, hash32(9919))
    row = await connection.fetchrow("SELECT * FROM chain.chain")
    assert row is not None
    assert (row["indexed_number"], row["indexed_hash"], row["indexed_time"]) == (
        17,
        hash32(17),
        1017,
    )
    assert row["finalized_number"] == 10
    reorg = await connection.fetchrow("SELECT * FROM watch.reorg")
    assert reorg is not None
    assert (reorg["common_ancestor"], reorg["depth"], reorg["reason"]) == (17, 3, "reorg")
    assert (reorg["old_tip"], reorg["new_tip"]) == (text(hash32(20)), text(hash32(9919)))


async def test_verdicts_closed_on_the_lost_branch_hold_again(connection: Connection) -> None:
    """A verdict opened above goes, the one it had closed is open again."""
    await make_chain(connection)
    closed = {"closed_time": LONG_AGO}
    await insert(
        connection, "chain.verdict", block_number=11, closed_block=14, explanation="first", **closed
    )
    await insert(
        connection,
        "chain.verdict",
        block_number=14,
        closed_block=17,
        explanation="second",
        **closed,
    )
    await insert(
        connection, "chain.verdict", block_number=17, closed_block=18, explanation="third", **closed
    )
    await insert(connection, "chain.verdict", block_number=18, explanation="fourth")
    touched = await connection.fetch(REWIND, CHAIN, 15, 18, hash32(1))
    rows = await connection.fetch(
        "SELECT explanation, closed_block, closed_time FROM chain.verdict ORDER BY 1"
    )
    assert [tuple(r) for r in rows] == [("first", 14, LONG_AGO), ("second", None, None)]
    assert [r[0] for r in touched] == [address(1)]


async def test_touched_accounts_are_queued_for_reading(connection: Connection) -> None:
    """Who acted or was observed is returned; the watched are queued under every manager."""
    managers = [address(0xAA), address(0xBB)]
    await make_chain(connection, managers=managers)
    actor, sender, seen, slots, created, stranger, quiet = (address(n) for n in range(1, 8))
    for account in (actor, sender, quiet):
        await insert(connection, "chain.account", account=account, block_number=3)
    await insert(connection, "chain.account", account=created, block_number=18)
    await insert(connection, "chain.account_event", account=actor, block_number=16)
    await insert(connection, "chain.account_event", account=quiet, block_number=15)
    await insert(connection, "chain.user_operation", sender=sender, block_number=16)
    await insert(connection, "chain.erc1155_approval", account=stranger, block_number=16)
    await insert(connection, "sessions.session_set", account=seen, manager=address(0xCC))
    await insert(connection, "chain.verdict_queue", account=sender, manager=managers[0])
    await observe(connection, 17, hash32(5), account=seen, block_hash=hash32(777))
    await insert(connection, "evidence.account_observation", account=slots, block_number=20)
    touched = {row[0] for row in await connection.fetch(REWIND, CHAIN, 15, 18, hash32(1))}
    assert touched == {actor, sender, seen, slots, created, stranger}
    queue = {
        (r["account"], r["manager"]): r["read_state"]
        for r in await connection.fetch("SELECT * FROM chain.verdict_queue")
    }
    wanted = {(a, m) for a in (actor, sender, seen) for m in managers} | {(seen, address(0xCC))}
    assert queue == dict.fromkeys(wanted, True)


async def test_a_rewind_below_finality_needs_to_be_said(connection: Connection) -> None:
    """Without the flag a final block is refused, and so is one outside the tail."""
    await make_chain(connection, final=10, tip=20)
    for keep, complaint in ((9, "below the finalized block 10"), (21, "not in the tail")):
        with pytest.raises(asyncpg.InvalidParameterValueError, match=complaint):
            await connection.execute(REWIND, CHAIN, keep, 1, hash32(1))
    with pytest.raises(asyncpg.NoDataFoundError, match="chain 5 is not"):
        await connection.execute(REWIND, 5, 1, 1, hash32(1))
    assert await connection.fetchval("SELECT count(*) FROM chain.reorg") == 0
    await connection.execute(REWIND, CHAIN, 10, 1, hash32(1))


async def test_a_rewind_below_finality_unfolds_what_was_final(connection: Connection) -> None:
    """Balances equal the kept transfers, coverage ends at the kept block, the tail is gone."""
    await make_chain(connection, final=10, tip=12, finality_violation="at block 9")
    moves: list[tuple[int, int | bytes, int | bytes, int]] = [
        (5, ZERO20, 1, 100),
        (8, 1, 2, 30),
        (9, 2, 1, 5),
        (9, 1, 1, 7),
        (10, 1, ZERO20, 20),
        (11, 1, 2, 50),
    ]
    for n, (block, sender, receiver, amount) in enumerate(moves):
        ends = [e if isinstance(e, bytes) else address(e) for e in (sender, receiver)]
        await insert(
            connection,
            "chain.erc1155_transfer",
            block_number=block,
            log_index=n,
            token_id=7,
            from_address=ends[0],
            to_address=ends[1],
            amount=amount,
        )
    for owner, balance in ((1, 55), (2, 25)):  # after block 10
        await insert(
            connection, "chain.erc1155_balance", owner=address(owner), token_id=7, balance=balance
        )
    await cover(connection, "logs", "accounts", (1, 4), (6, 10), live_from=12)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM chain.chain FOR UPDATE")
        await connection.execute(BELOW, CHAIN, 8)
    balances = await connection.fetch(
        "SELECT owner, balance FROM chain.erc1155_balance WHERE balance <> 0"
    )
    assert {r["owner"]: r["balance"] for r in balances} == {address(1): 70, address(2): 30}
    shown = await connection.fetch("SELECT owner, balance FROM watch.erc1155_balance")
    assert {r["owner"]: r["balance"] for r in shown} == {text(address(1)): 70, text(address(2)): 30}
    blocks = await connection.fetchval("SELECT blocks::text FROM chain.coverage")
    assert blocks == "{[1,5),[6,9)}"
    assert await connection.fetchval("SELECT count(*) FROM chain.tail") == 0
    row = await connection.fetchrow(
        "SELECT finalized_number, finalized_hash, indexed_number, indexed_hash, finality_violation"
        " FROM chain.chain"
    )
    assert row is not None
    assert set(row.values()) == {None}
    assert await connection.fetchval("SELECT reason FROM watch.reorg") == "operator"


async def test_what_was_dropped_cannot_be_taken_back(connection: Connection) -> None:
    """Balances fold back by their transfers: where these may be gone, nothing is rewound."""
    await make_chain(connection, final=10, tip=20, detail_from=6)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="raw rows below block 6"):
        await connection.execute(BELOW, CHAIN, 4)
    assert await connection.fetchval("SELECT indexed_number FROM chain.chain") == 20
    await connection.execute(BELOW, CHAIN, 5)
    assert await connection.fetchval("SELECT max(block_number) FROM chain.block") == 5


async def test_filters_added_above_the_kept_block_are_followed_from_there(
    connection: Connection,
) -> None:
    """The live lane follows the new branch with all that is configured: no debt remains."""
    await make_chain(connection)
    await cover(connection, "logs", "accounts", live_from=18)
    await cover(connection, "logs", "erc1155/all", live_from=12)
    await connection.execute(REWIND, CHAIN, 15, 16, hash32(1))
    rows = await connection.fetch("SELECT filter, live_from FROM chain.coverage ORDER BY 1")
    assert [tuple(r) for r in rows] == [("accounts", 15), ("erc1155/all", 12)]
