"""What the views of `watch` mean, on small hand-made data."""

from __future__ import annotations

import json
from collections.abc import Mapping

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
    rows,
    text,
)

MANAGER, ALICE, BOB = address(0xAA), address(1), address(2)
ROOTS = f"roots/{text(MANAGER)}"
A, B, C = hash32(0xA), hash32(0xB), hash32(0xC)
REWIND = "SELECT account FROM chain.rewind($1, $2, 99, '')"

# The columns users and dashboards depend on.
COLUMNS = {
    "account": (
        "chain_id account factory created_block implementation fallback_handler tainted modules"
    ),
    "account_event": "chain_id account block_number log_index event args transaction_hash",
    "user_operation": (
        "chain_id user_op_hash sender nonce paymaster success actual_gas_cost actual_gas_used"
        " block_number log_index transaction_hash entry_point validation_module"
    ),
    "session_root": (
        "chain_id manager account block_number block_hash block_time root previous_root"
        " transaction_hash user_op_hash evidence attribution set_id matched_form change_block_exact"
        " is_final"
    ),
    "session_root_current": (
        "chain_id manager account block_number block_hash block_time root previous_root"
        " transaction_hash user_op_hash evidence attribution set_id matched_form change_block_exact"
        " is_final"
    ),
    "session_root_transient": (
        "chain_id manager account block_number root evidence transaction_hash user_op_hash"
    ),
    "session_set": (
        "chain_id manager account set_id root session_count source stored_at state"
        " first_on_chain_block last_on_chain_block"
    ),
    "session": (
        "chain_id account set_id leaf_index leaf valid_until valid_after session_validation_module"
        " session_key state"
    ),
    "session_use": "chain_id account user_op_hash leaf set_id block_number known",
    "session_mint": (
        "chain_id user_op_hash leaf contract token_id amount to_address fits granted_recipient"
        " granted_token_id"
    ),
    "root_disagreement": (
        "chain_id manager account block_number state_root evidence evidence_root"
    ),
    "verdict": (
        "chain_id manager account verdict cause warnings severity since_block since_time"
        " explanation is_final on_chain_root expected_root"
    ),
    "drift": (
        "chain_id manager account verdict cause warnings severity since_block since_time"
        " explanation is_final"
    ),
    "drift_history": "chain_id manager account verdict cause opened_block closed_block closed_time",
    "erc1155_transfer": (
        "chain_id contract block_number log_index batch_index operator from_address to_address"
        " token_id amount transaction_hash user_op_hash"
    ),
    "erc1155_balance": "chain_id contract owner token_id balance complete",
    "erc1155_approval": "chain_id contract account operator approved block_number log_index",
    "erc1155_uri": "chain_id contract token_id value block_number log_index",
    "progress": (
        "chain_id chain latest_block indexed_block finalized_block lag_blocks lag_seconds"
        " updated_at"
    ),
    "coverage": "chain_id pass filter first_block last_block missing_blocks missing",
    "pace": "chain_id pass blocks_per_second requests_per_block updated_at",
    "reorg": "chain_id detected_at common_ancestor depth old_tip new_tip",
    "undecoded_log": "chain_id address block_number log_index topics data reason",
    "audit": "chain_id manager block_number audited_at roots_read mismatches storage_proof",
    "audit_finding": "chain_id manager account block_number reason stored_root found_root"
    " previous_block found_at is_final explanation",
    "unobserved": "chain_id manager first_block last_block reason hinted_accounts hints",
    "unobserved_hint": "chain_id manager account block_number log_index root hint transaction_hash",
}


async def test_views_have_their_names_and_columns(connection: Connection) -> None:
    """Every promised view has every promised column; none shows raw bytes."""
    found: dict[str, set[str]] = {}
    for view, column, kind in await rows(
        connection,
        "SELECT table_name, column_name, udt_name FROM information_schema.columns WHERE"
        " table_schema = 'watch'",
    ):
        found.setdefault(view, set()).add(column)
        assert kind not in {"bytea", "_bytea"}, (view, column)
    assert set(found) == set(COLUMNS)
    assert {
        v: set(c.split()) - found[v] for v, c in COLUMNS.items() if set(c.split()) - found[v]
    } == {}


async def test_an_account_shows_creation_state_and_modules(connection: Connection) -> None:
    """Modules: the initial one, plus enabled, minus disabled, and managers seen in state."""
    await make_chain(connection)
    await insert(connection, "chain.account", account=ALICE, block_number=3)
    await insert(connection, "chain.account", account=BOB, source="list")
    ecdsa, router, other = address(0xE), address(0xF), address(0xD)

    async def event(block: int, name: str, args: Mapping[str, object]) -> None:
        await insert(
            connection,
            "chain.account_event",
            block_number=block,
            event=name,
            account=ALICE,
            args=json.dumps(args),
        )

    await event(
        3,
        "AccountCreation",
        {"factory": text(address(0xFA)), "initial_module": text(ecdsa), "index": "0"},
    )
    await event(4, "EnabledModule", {"module": text(router)})
    await event(5, "EnabledModule", {"module": text(other)})
    await event(6, "DisabledModule", {"module": text(router)})
    state = {"account": ALICE, "implementation": address(0x20), "enabled_managers": [MANAGER]}
    await insert(
        connection,
        "evidence.account_observation",
        block_number=7,
        block_hash=hash32(7),
        tainted=True,
        **state,
    )
    await insert(
        connection, "evidence.account_observation", block_number=9, block_hash=hash32(999), **state
    )
    query = (
        "SELECT factory, created_block, implementation, tainted, modules FROM watch.account WHERE"
        " account = $1"
    )
    assert await rows(connection, query, text(ALICE)) == [
        (
            text(address(0xFA)),
            3,
            text(address(0x20)),
            True,
            [text(other), text(ecdsa), text(MANAGER)],
        )
    ]
    await event(8, "DisabledModule", {"module": text(MANAGER)})
    assert (await rows(connection, query, text(ALICE)))[0][-1] == [text(other), text(ecdsa)]
    assert await rows(connection, query, text(BOB)) == [(None, None, None, None, [])]


async def test_sets_and_sessions_say_where_they_stand(connection: Connection) -> None:
    """A set is on the chain, was there, is expected or stored; sessions expire by block time."""
    await make_chain(connection, final=10, tip=20)  # indexed time 1020
    key = {"manager": MANAGER, "account": ALICE}
    ids = {}
    for n, (name, root) in enumerate(
        (("now", B), ("before", A), ("next", C), ("old", hash32(0xD)))
    ):
        ids[name] = n + 1
        await insert(connection, "sessions.session_set", root=root, leaves_digest=hash32(n), **key)
    for block, root in ((3, A), (5, A), (7, B), (9, B)):
        await observe(connection, block, root)
    await insert(connection, "chain.verdict", verdict="pending", expected_set_id=ids["next"], **key)
    assert await rows(
        connection,
        "SELECT set_id, state, first_on_chain_block, last_on_chain_block FROM watch.session_set"
        " ORDER BY 1",
    ) == [
        (1, "on_chain", 7, 9),
        (2, "was_on_chain", 3, 5),
        (3, "expected", None, None),
        (4, "stored", None, None),
    ]
    for index, (until, after) in enumerate(((0, 0), (1019, 0), (1020, 1020), (0, 1021))):
        await insert(
            connection,
            "sessions.session",
            set_id=1,
            leaf_index=index,
            valid_until=until,
            valid_after=after,
        )
    await insert(connection, "sessions.session", set_id=2, leaf_index=0)
    found = await rows(
        connection, "SELECT set_id, leaf_index, state FROM watch.session ORDER BY 1, 2"
    )
    assert found == [
        (1, 0, "active"),
        (1, 1, "expired"),
        (1, 2, "active"),
        (1, 3, "not_yet_valid"),
        (2, 0, "not_on_chain"),
    ]


async def test_a_verdict_is_final_when_its_history_is(connection: Connection) -> None:
    """Final needs a final observation and every block of the account's life covered."""
    await make_chain(connection, final=10, tip=20)
    await insert(connection, "chain.account", account=ALICE, block_number=3)
    await cover(connection, ROOTS, "accounts", (3, 10))
    closed = {"manager": MANAGER, "account": ALICE, "verdict": "drifted", "cause": "unknown_root"}
    await insert(
        connection, "chain.verdict", block_number=4, closed_block=8, closed_time=LONG_AGO, **closed
    )
    await insert(connection, "chain.verdict", block_number=9, observed_block=8, **closed)
    await insert(
        connection, "chain.verdict", block_number=9, observed_block=8, manager=MANAGER, account=BOB
    )
    final = "SELECT account, is_final FROM watch.verdict ORDER BY 1"
    assert await rows(connection, final) == [(text(ALICE), True), (text(BOB), False)]
    assert await rows(connection, "SELECT account, cause FROM watch.drift") == [
        (text(ALICE), "unknown_root")
    ]
    history = await rows(
        connection,
        "SELECT opened_block, closed_block, closed_time FROM watch.drift_history ORDER BY 1",
    )
    assert history == [(4, 8, LONG_AGO), (9, None, None)]
    await connection.execute("UPDATE chain.verdict SET observed_block = 11")
    assert await rows(connection, final) == [(text(ALICE), False), (text(BOB), False)]


async def test_balances_are_folded_ones_and_the_tail(connection: Connection) -> None:
    """Final transfers count once, later ones are added; zeros and the zero address are out."""
    await make_chain(connection, start=5, final=10, tip=20)
    token = {"contract": address(0x77), "token_id": 2**255}
    for owner, balance in ((ALICE, 100), (BOB, 5)):
        await insert(connection, "chain.erc1155_balance", owner=owner, balance=balance, **token)
    for n, (block, sender, receiver, amount) in enumerate(
        (
            (9, ZERO20, ALICE, 999),
            (11, ALICE, address(3), 40),
            (12, BOB, ZERO20, 5),
            (13, ALICE, ALICE, 1),
            (14, ALICE, ALICE, 0),
        )
    ):
        await insert(
            connection,
            "chain.erc1155_transfer",
            block_number=block,
            log_index=n,
            from_address=sender,
            to_address=receiver,
            amount=amount,
            **token,
        )
    query = "SELECT owner, token_id, balance, complete FROM watch.erc1155_balance ORDER BY 1"
    alice, carol = (text(ALICE), 2**255, 60, False), (text(address(3)), 2**255, 40, False)
    assert await rows(connection, query) == [alice, carol]
    by_owner = (
        "SELECT owner, token_id, balance, complete FROM watch.erc1155_balance WHERE owner = $1"
    )
    assert await rows(connection, by_owner, text(ALICE)) == [alice]
    await cover(connection, "logs", f"erc1155/{text(address(0x77))}", (5, 7))
    assert not (await rows(connection, query))[0][-1]
    await cover(connection, "logs", "erc1155/all", (8, 10))
    assert (await rows(connection, query))[0][-1]
    # without its tail a chain has what is folded
    await connection.execute(REWIND, CHAIN, 10)
    assert await rows(connection, query) == [
        (text(ALICE), 2**255, 100, True),
        (text(BOB), 2**255, 5, True),
    ]


async def test_coverage_says_what_is_owed(connection: Connection) -> None:
    """The target runs from the start block to the finalized one, for a cohort to its adoption.

    A pass that is no longer configured owes nothing.
    """
    await make_chain(connection, start=3, final=10, tip=20)
    await insert(connection, "chain.cohort", cohort_id=1, adopted_block=6)
    await insert(connection, "chain.cohort", cohort_id=2, adopted_block=15)
    await cover(connection, "logs", "accounts", (1, 4), (7, 7))
    await cover(connection, "bodies", "accounts", (1, 10))
    await cover(connection, "logs", "accounts", cohort=1)
    await cover(connection, "logs", "accounts", cohort=2)
    query = (
        "SELECT pass, cohort, first_block, last_block, missing_blocks, missing FROM watch.coverage"
        " WHERE chain_id = $1 ORDER BY 1, 2"
    )
    assert await rows(connection, query, CHAIN) == [
        ("bodies", 0, 3, 10, 0, "{}"),
        ("logs", 0, 3, 10, 5, "{[5,7),[8,11)}"),
        ("logs", 1, 3, 6, 4, "{[3,7)}"),
        ("logs", 2, 3, 10, 8, "{[3,11)}"),
    ]
    configured = '{"passes": [["bodies", "accounts"]]}'
    await connection.execute("UPDATE chain.chain SET settings = $1", configured)
    assert [r[0] for r in await rows(connection, query, CHAIN)] == ["bodies"]
    await connection.execute("UPDATE chain.chain SET settings = '{}'")
    await connection.execute("UPDATE chain.chain SET start_block = 11")
    assert {r[4] for r in await rows(connection, query, CHAIN)} == {0}
    await connection.execute("UPDATE chain.chain SET start_block = NULL")
    assert {r[4:] for r in await rows(connection, query, CHAIN)} == {(None, None)}


async def test_pace_shows_what_estimates_rest_on(connection: Connection) -> None:
    """Speed and cost by kind of work; what took no time has no speed."""
    for pass_, blocks, seconds, requests in (("logs", 100, 20, 5), ("roots", 10, 0, 1)):
        await connection.execute(
            "INSERT INTO chain.pace (chain_id, pass, blocks, seconds, requests)"
            " VALUES ($1, $2, $3, $4, $5)",
            *(CHAIN, pass_, blocks, seconds, requests),
        )
    query = "SELECT pass, blocks_per_second, requests_per_block FROM watch.pace ORDER BY pass"
    assert await rows(connection, query) == [("logs", 5.0, 0.05), ("roots", None, 0.1)]


async def test_progress_and_the_rest_show_what_they_say(connection: Connection) -> None:
    """Lag in blocks and chain seconds; undecoded logs keep their topics in order."""
    await make_chain(connection, final=10, tip=20)
    query = (
        "SELECT chain, latest_block, indexed_block, finalized_block, lag_blocks, lag_seconds FROM"
        " watch.progress"
    )
    assert await rows(connection, query) == [("mumbai", 22, 20, 10, 2, 4)]
    await insert(connection, "chain.undecoded_log", topics=[hash32(3), hash32(1), hash32(2)])
    found = await connection.fetchrow("SELECT topics, data FROM watch.undecoded_log")
    assert found is not None
    assert tuple(found) == ([text(hash32(n)) for n in (3, 1, 2)], "0x00ff")
    await insert(connection, "evidence.unobserved", first_block=3, last_block=5)
    assert await rows(connection, "SELECT first_block, last_block FROM watch.unobserved") == [
        (3, 5)
    ]
    await insert(connection, "chain.user_operation", nonce=2**255, log_index=4)
    await insert(connection, "chain.user_operation_body", log_index=4, validation_module=MANAGER)
    assert await rows(connection, "SELECT nonce, validation_module FROM watch.user_operation") == [
        (2**255, text(MANAGER))
    ]
