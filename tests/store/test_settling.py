"""Changes that wait for a trace: which, for how long, and what an answer settles."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from indexer.core.types import Address, Hash32
from indexer.errors import FencedError
from indexer.store.pool import Database
from indexer.store.settling import (
    MAX_ATTEMPTS,
    Answer,
    Question,
    TraceWrite,
    note_failure,
    read_questions,
    settle,
)
from tests.fixtures_database import Connection
from tests.schema_rows import CHAIN, address, hash32, insert, make_chain, observe, rows, text

MANAGER, ALICE, MODULE = Address(address(0xAA)), Address(address(1)), Address(address(0x30))
ROOT, OTHER = Hash32(hash32(0xA)), Hash32(hash32(0xB))
BUNDLER = Address(address(0xBD))
TX, OP, LEAF = Hash32(hash32(0x71)), Hash32(hash32(0x0B)), Hash32(hash32(0x1EAF))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.open(database_url, max_size=2) as opened:
        yield opened


@pytest.fixture
async def chain(connection: Connection) -> Connection:
    """A change at block 12 that waits; the epoch is 1."""
    await make_chain(connection, final=10, tip=20)
    await connection.execute("UPDATE chain.chain SET epoch = 1, managers = $1", [MANAGER])
    await observe(connection, 12, ROOT)
    await wait_for_trace(connection, 12)
    return connection


async def wait_for_trace(connection: Connection, block: int) -> None:
    await insert(
        connection, "chain.trace_queue", block_number=block, manager=MANAGER, account=ALICE
    )


def write(root: Hash32 = ROOT, **values: object) -> TraceWrite:
    given = {"module": None, "user_op_hash": None, "transaction_index": 3, "write_index": 0}
    given |= {"by_session": False, "sender": BUNDLER, "called": MANAGER}
    return TraceWrite(transaction_hash=TX, root=root, **(given | values))  # type: ignore[arg-type]


async def asked(database: Database) -> Question:
    (question,) = await read_questions(database, CHAIN, 10)
    return question


FOUND = """
SELECT evidence, attribution, transaction_hash, user_op_hash, leaf, module
  FROM watch.session_root"""


async def test_the_transactions_that_may_have_done_it_are_named(
    chain: Connection, database: Database
) -> None:
    """The one that was named; else those in which the account acted; else any of the block."""
    assert await asked(database) == Question(12, Hash32(hash32(12)), MANAGER, ALICE, ROOT, ())
    for index, transaction in enumerate((7, 7, 8)):
        await insert(
            chain, "chain.account_event", block_number=12, log_index=index, account=ALICE,
            transaction_hash=hash32(transaction),
        )  # fmt: skip
    assert (await asked(database)).transactions == (hash32(7), hash32(8))
    await insert(
        chain, "chain.root_attribution", block_number=12, manager=MANAGER, account=ALICE,
        evidence="state", transaction_hash=hash32(8),
    )  # fmt: skip
    assert (await asked(database)).transactions == (hash32(8),)


async def test_what_is_no_change_any_more_is_forgotten(
    chain: Connection, database: Database
) -> None:
    """History found the same root before it; a rewind takes the question with its block."""
    await observe(chain, 15, OTHER)
    await wait_for_trace(chain, 15)
    await observe(chain, 11, ROOT)
    assert (await asked(database)).block_number == 15
    await chain.execute("SELECT chain.rewind($1, 13, 99, '')", CHAIN)
    assert await read_questions(database, CHAIN, 10) == []


async def test_a_change_is_looked_for_so_often_and_no_more(
    chain: Connection, database: Database
) -> None:
    """A node that does not trace holds up nothing."""
    for _ in range(MAX_ATTEMPTS):
        await note_failure(database, CHAIN, await asked(database))
        assert await read_questions(database, CHAIN, 10) == []
        await chain.execute("UPDATE chain.trace_queue SET not_before = now()")
    assert await read_questions(database, CHAIN, 10) == []
    assert await chain.fetchval("SELECT count(*) FROM chain.trace_queue") == 0


@pytest.mark.parametrize(
    ("given", "leaves", "expected"),
    [
        ({}, [], ("transaction", None, None, None)),
        ({"user_op_hash": OP}, [], ("user_operation", text(OP), None, None)),
        ({"module": MODULE}, [], ("module", None, None, text(MODULE))),
        ({"user_op_hash": OP, "module": MODULE}, [], ("module", text(OP), None, text(MODULE))),
        ({"user_op_hash": OP}, [LEAF], ("session_key", text(OP), text(LEAF), None)),
        ({"user_op_hash": OP}, [LEAF, LEAF], ("session_key", text(OP), text(LEAF), None)),
        ({"user_op_hash": OP}, [LEAF, OTHER], ("session_key", text(OP), None, None)),
        ({"user_op_hash": OP, "by_session": True}, [], ("session_key", text(OP), None, None)),
    ],
)
async def test_the_last_write_names_who_did_it(
    chain: Connection,
    database: Database,
    given: dict[str, object],
    leaves: list[Hash32],
    expected: tuple[object, ...],
) -> None:
    """Operation, module, session key with its leaf; and a decision is asked for."""
    for index, leaf in enumerate(leaves):
        await insert(
            chain, "chain.session_use", block_number=12, use_index=index, user_op_hash=OP,
            account=ALICE, leaf=leaf, manager=MANAGER,
        )  # fmt: skip
    answer = Answer(await asked(database), (write(OTHER), write(write_index=1, **given)))
    assert await settle(database, CHAIN, 1, [answer]) == (1, [])
    attribution, operation, leaf_text, module = expected
    assert await rows(chain, FOUND) == [
        ("trace", attribution, text(TX), operation, leaf_text, module)
    ]
    assert await chain.fetchval("SELECT count(*) FROM chain.trace_queue") == 0
    assert await rows(chain, "SELECT manager, account FROM chain.verdict_queue") == [
        (MANAGER, ALICE)
    ]
    passing = "SELECT root, final_root, evidence FROM watch.session_root_transient"
    assert await rows(chain, passing) == [(text(OTHER), text(ROOT), "trace")]


async def test_a_trace_that_contradicts_state_settles_nothing(
    chain: Connection, database: Database
) -> None:
    """Both roots are shown; who did it stays open."""
    await insert(
        chain, "chain.root_attribution", block_number=12, manager=MANAGER, account=ALICE,
        evidence="state", attribution="ambiguous",
    )  # fmt: skip
    answer = Answer(await asked(database), (write(OTHER),))
    settled, (found,) = await settle(database, CHAIN, 1, [answer])
    assert (settled, found.evidence_root, found.state_root) == (0, text(OTHER), text(ROOT))
    assert [row[:2] for row in await rows(chain, FOUND)] == [("state", "ambiguous")]
    query = "SELECT state_root, evidence, evidence_root FROM watch.root_disagreement"
    assert await rows(chain, query) == [(text(ROOT), "trace", text(OTHER))]


async def test_an_answer_about_a_lost_block_writes_nothing(
    chain: Connection, database: Database
) -> None:
    """Nor does one of a process that was taken over from; an empty one only ends the question."""
    question = await asked(database)
    with pytest.raises(FencedError):
        await settle(database, CHAIN, 0, [Answer(question, (write(),))])
    await chain.execute("SELECT chain.rewind($1, 11, 99, '')", CHAIN)
    await insert(chain, "chain.block", block_number=12, hash=hash32(9912))
    await observe(chain, 12, OTHER, block_hash=hash32(9912))
    assert await settle(database, CHAIN, 1, [Answer(question, (write(),))]) == (0, [])
    assert [row[:2] for row in await rows(chain, FOUND)] == [("state", "none")]
    await wait_for_trace(chain, 12)
    assert await settle(database, CHAIN, 1, [Answer(await asked(database), ())]) == (0, [])
    assert await read_questions(database, CHAIN, 10) == []
