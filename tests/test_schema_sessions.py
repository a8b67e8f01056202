"""What watch.session_use, session_mint and root_disagreement say, on small hand-made data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fixtures_database import Connection
from tests.schema_rows import (
    CHAIN,
    ZERO20,
    address,
    hash32,
    insert,
    make_chain,
    observe,
    rows,
    text,
)

MANAGER, OTHER, ALICE, TOKEN = address(0xAA), address(0xBB), address(1), address(0x70)
ROOT, NEXT, LEAF, INNER, OP = hash32(0xA), hash32(0xB), hash32(0x1EAF), hash32(0x1E), hash32(0x0B)


async def use(connection: Connection, **values: Any) -> None:
    given = {
        "block_number": 5,
        "log_index": 9,
        "use_index": 0,
        "user_op_hash": OP,
        "manager": MANAGER,
        "account": ALICE,
        "leaf": LEAF,
        "implied_root": ROOT,
        **values,
    }
    await insert(connection, "chain.session_use", **given)


async def stored(connection: Connection, root: bytes, *leaves: bytes, **values: Any) -> int:
    await insert(
        connection,
        "sessions.session_set",
        **{"manager": MANAGER, "account": ALICE, "root": root, "leaves_digest": root, **values},
    )
    set_id: int = await connection.fetchval("SELECT max(set_id) FROM sessions.session_set")
    for index, leaf in enumerate(leaves):
        await insert(
            connection, "sessions.session", set_id=set_id, leaf_index=index, leaf=leaf,
            valid_until=0, valid_after=0,
        )  # fmt: skip
    return set_id


@pytest.fixture
async def chain(connection: Connection) -> Connection:
    await make_chain(connection, final=10, tip=20)
    await connection.execute("UPDATE chain.chain SET managers = $1", [MANAGER])
    return connection


async def test_a_use_is_of_the_set_whose_root_was_proven(chain: Connection) -> None:
    """Else of the newest set with this leaf; of another account's or manager's sets never."""
    one = await stored(chain, ROOT, LEAF)
    newer = await stored(chain, NEXT, hash32(3), LEAF)
    await stored(chain, hash32(4), LEAF, account=address(2))
    await stored(chain, hash32(5), LEAF, manager=OTHER)
    await use(chain)
    await use(chain, use_index=1, implied_root=hash32(6))
    found = await rows(chain, "SELECT set_id, known FROM watch.session_use ORDER BY use_index")
    assert found == [(one, True), (newer, True)]


async def test_an_inner_node_that_a_proof_carries_is_no_session(chain: Connection) -> None:
    """32 bytes of session_key_data make an inner node's preimage: its proof is true, it is not."""
    await stored(chain, ROOT, LEAF, hash32(3))
    await observe(chain, 4, ROOT)
    await use(chain, leaf=INNER)
    found = await rows(chain, "SELECT known, set_id, root_state FROM watch.session_use")
    assert found == [(False, None, "held")]


async def test_where_a_proven_root_stood(chain: Connection) -> None:
    """At the end of the block before or of this one, inside it, or nowhere that was looked."""
    await observe(chain, 4, ROOT)
    await observe(chain, 5, NEXT)
    for index, root in enumerate((ROOT, NEXT, hash32(7), hash32(8))):
        await use(chain, use_index=index, implied_root=root)
    for index, evidence in enumerate(("calldata", "signature")):
        await insert(
            chain, "chain.root_hint", block_number=5, hint_index=index, root=hash32(7 + index),
            manager=MANAGER, account=ALICE, evidence=evidence,
        )  # fmt: skip
    found = await rows(chain, "SELECT root_state FROM watch.session_use ORDER BY use_index")
    assert [state for (state,) in found] == ["held", "held", "inside_block", "not_seen"]


async def test_uses_of_a_session_are_counted(chain: Connection) -> None:
    """By operation: one that presents a session twice is one use; a lost block's is none."""
    await stored(chain, ROOT, LEAF, hash32(3))
    await use(chain)
    await use(chain, use_index=1)
    await use(chain, block_number=12, user_op_hash=hash32(12))
    await use(chain, block_number=13, user_op_hash=hash32(13), manager=OTHER)
    query = """SELECT use_count, first_used_block, last_used_block, last_used_time IS NULL
                 FROM watch.session ORDER BY leaf_index"""
    assert await rows(chain, query) == [(2, 5, 12, False), (0, None, None, True)]
    await chain.execute("SELECT chain.rewind($1, 11, 99, '')", CHAIN)
    assert (await rows(chain, query))[0] == (1, 5, 5, False)


async def mint(connection: Connection, token_id: int = 1, **values: Any) -> None:
    given = {
        "block_number": 5,
        "log_index": token_id,
        "batch_index": 0,
        "contract": TOKEN,
        "from_address": ZERO20,
        "to_address": ALICE,
        "token_id": token_id,
        "amount": 1,
        "user_op_hash": OP,
        **values,
    }
    await insert(connection, "chain.erc1155_transfer", **given)


FITS = "SELECT fits, fits_contract, fits_recipient, fits_token_id FROM watch.session_mint"


@pytest.mark.parametrize(
    ("granted", "fits"),
    [
        ({}, (None, None, None, None)),
        ({"granted_recipient": ALICE, "granted_token_id": 1}, (True, None, True, True)),
        ({"granted_recipient": ALICE, "granted_token_id": 2}, (False, None, True, False)),
        ({"granted_recipient": TOKEN, "granted_token_id": 1}, (False, None, False, True)),
        ({"granted_contract": TOKEN}, (True, True, None, None)),
        ({"granted_contract": OTHER, "granted_recipient": ALICE}, (False, False, True, None)),
        ({"granted_token_id": 0}, (False, None, None, False)),
    ],
)
async def test_a_mint_is_held_against_what_was_granted(
    chain: Connection, granted: dict[str, Any], fits: tuple[bool | None, ...]
) -> None:
    """What the data does not name says nothing; of an unknown layout nothing is claimed."""
    await use(chain, **granted)
    await mint(chain)
    assert await rows(chain, FITS) == [fits]


async def test_of_several_sessions_the_one_that_stands_for_the_call(chain: Connection) -> None:
    """By the target of its call, then by what fits: one row per token that moved."""
    elsewhere = {"called": OTHER, "granted_recipient": ALICE, "granted_token_id": 1}
    await use(chain, leaf=hash32(1), **elsewhere)
    for index in (1, 2):
        await use(
            chain, use_index=index, leaf=hash32(10 + index), called=TOKEN, granted_token_id=index
        )
    for token_id in (1, 2, 3):
        await mint(chain, token_id)
    await mint(chain, 4, user_op_hash=None)
    found = await rows(chain, "SELECT token_id, leaf, fits FROM watch.session_mint ORDER BY 1")
    assert found == [
        (1, text(hash32(11)), True),
        (2, text(hash32(12)), True),
        (3, text(hash32(11)), False),
    ]


async def test_a_disagreement_shows_both_roots(chain: Connection) -> None:
    """While the state it contradicts is canonical."""
    await observe(chain, 12, ROOT)
    await insert(
        chain, "chain.root_attribution", block_number=12, manager=MANAGER, account=ALICE,
        evidence="state", contradicting_evidence="event", contradicting_root=NEXT,
    )  # fmt: skip
    query = """SELECT account, block_number, state_root, evidence, evidence_root, is_final
                 FROM watch.root_disagreement"""
    assert await rows(chain, query) == [(text(ALICE), 12, text(ROOT), "event", text(NEXT), False)]
    await chain.execute("SELECT chain.rewind($1, 11, 99, '')", CHAIN)
    assert await rows(chain, query) == []


async def test_a_tainted_account_is_believed_to_do_what_no_log_says(chain: Connection) -> None:
    """Its root may change beside its operations; the manager's own event tells of that, too."""
    await observe(chain, 12, ROOT)
    given = {"block_number": 12, "manager": MANAGER, "evidence": "state"}
    found = {"contradicting_root": NEXT, "account": ALICE, **given}
    await insert(chain, "chain.root_attribution", **found, contradicting_evidence="calldata")
    slots = {"account": ALICE, "implementation": OTHER, "fallback_handler": ZERO20}
    query = "SELECT evidence FROM watch.root_disagreement"
    for block, tainted in ((13, True), (11, False)):
        await insert(
            chain, "evidence.account_observation", block_number=block, block_hash=hash32(block),
            enabled_managers=[], tainted=tainted, **slots,
        )  # fmt: skip
    assert await rows(chain, query) == [("calldata",)]
    await insert(
        chain, "evidence.account_observation", block_number=12, block_hash=hash32(12),
        enabled_managers=[], tainted=True, **slots,
    )  # fmt: skip
    assert await rows(chain, query) == []
    await chain.execute("UPDATE chain.root_attribution SET contradicting_evidence = 'event'")
    assert await rows(chain, query) == [("event",)]


async def test_of_a_manager_without_code_nothing_is_claimed(chain: Connection) -> None:
    """A call of an address without code succeeds and sets nothing: none stood, none is missed."""
    await observe(chain, 12, bytes(32), manager=OTHER)
    given = {"block_number": 12, "manager": OTHER, "account": ALICE, "evidence": "state"}
    await insert(
        chain, "chain.root_attribution", **given, contradicting_evidence="calldata",
        contradicting_root=NEXT,
    )  # fmt: skip
    await insert(
        chain, "chain.root_hint", block_number=12, manager=OTHER, account=ALICE, root=NEXT,
        evidence="calldata",
    )  # fmt: skip
    views = ("root_disagreement", "session_root_transient")
    assert [await rows(chain, f"SELECT 1 FROM watch.{view}") for view in views] == [[], []]
    await observe(chain, 9, ROOT, manager=OTHER, account=address(9))
    assert [len(await rows(chain, f"SELECT 1 FROM watch.{view}")) for view in views] == [1, 1]


async def test_logs_alone_name_nobody_for_an_account_that_was_tainted(chain: Connection) -> None:
    """A stranger may have set the root beside an operation that did something else."""
    await observe(chain, 12, ROOT)
    await insert(
        chain, "chain.root_attribution", block_number=12, manager=MANAGER, account=ALICE,
        evidence="state", attribution="session_key", transaction_hash=hash32(7),
        user_op_hash=OP, leaf=LEAF,
    )  # fmt: skip
    query = "SELECT attribution, transaction_hash, user_op_hash, leaf FROM watch.session_root"
    named = [("session_key", text(hash32(7)), text(OP), text(LEAF))]
    assert await rows(chain, query) == named
    await insert(
        chain, "evidence.account_observation", account=ALICE, block_number=12,
        block_hash=hash32(12), tainted=True, enabled_managers=[],
    )  # fmt: skip
    assert await rows(chain, query) == [("ambiguous", None, None, None)]
    await chain.execute("UPDATE chain.root_attribution SET evidence = 'trace'")
    assert await rows(chain, query) == named


async def test_sessions_that_no_watched_manager_saw_are_not_told(chain: Connection) -> None:
    """Another module may take a signature of the same shape, and ask nobody."""
    await stored(chain, ROOT, LEAF)
    await use(chain, manager=OTHER)
    await mint(chain)
    assert await rows(chain, "SELECT 1 FROM watch.session_use") == []
    assert await rows(chain, "SELECT 1 FROM watch.session_mint") == []
    assert await rows(chain, "SELECT use_count FROM watch.session") == [(0,)]


async def test_a_log_index_at_its_limit_breaks_no_view(chain: Connection) -> None:
    """2^31 - 1 is a legal index, and the next one is none."""
    await stored(chain, ROOT, LEAF, call_hash=hash32(5))
    await insert(
        chain, "chain.account_event", block_number=12, log_index=2**31 - 1, account=ALICE,
        event="ExecutionSuccess",
        args=json.dumps(
            {"to": text(MANAGER), "dataHash": text(hash32(5)), "operation": 0}
        ),
    )  # fmt: skip
    await observe(chain, 12, NEXT)
    found = await rows(chain, "SELECT log_index, root FROM watch.session_root_transient")
    assert found == [(2**31 - 1, text(ROOT))]
