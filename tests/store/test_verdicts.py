"""Verdicts in the database: history block by block, the queue, notifications, rewinds."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from indexer.core.merkle import keccak
from indexer.core.types import ZERO_HASH, Address
from indexer.core.verdicts import Settings
from indexer.store import searches
from indexer.store.chain_row import NEVER
from indexer.store.pool import Database
from indexer.store.searches import SEARCHES
from indexer.store.sessions import import_sets
from indexer.store.verdicts import (
    NOTIFY_CHANNEL,
    VerdictState,
    count_open,
    decide_touched,
    due_keys,
    enqueue,
    load_inputs,
    queued_keys,
    withdraw,
)
from tests.store.filling import (
    ACCOUNT,
    CHAIN_ID,
    KEY,
    MANAGER,
    MODULE,
    OTHER_MANAGER,
    START,
    Filling,
    at,
    block_hash,
    listening,
    session_set,
)

SETTINGS = Settings(grace_seconds=600)
A, B = session_set([1, 2]), session_set([2, 3, 4])
FACTS = "verdict, cause, severity, since_block, block_number, closed_block, by_time_only"
IN_SYNC = VerdictState("in_sync", None, "info")


@pytest.fixture
async def database(database_url):
    async with Database.open(database_url, max_size=3) as opened:
        yield opened


@pytest.fixture
async def filling(database):
    found = Filling(database)
    await found.start(100)
    return found


async def store(database, *sets):
    """Store sets; give their ids and the database's time of storing."""
    rows = await import_sets(database, [(s, "plain") for s in sets])
    async with database.connection() as connection:
        stored_at = await connection.fetchval(
            "SELECT stored_at FROM sessions.session_set WHERE set_id = $1", rows[-1].set_id
        )
    return [r.set_id for r in rows], stored_at


async def step(database, *blocks: int, confirmed_at: datetime | None = None, keys=(KEY,), **more):
    """Decide the keys at blocks; the head was confirmed just now unless said otherwise."""
    async with database.transaction() as connection:
        now = confirmed_at or await connection.fetchval("SELECT clock_timestamp()")
        return await decide_touched(
            connection, chain_id=CHAIN_ID, confirmed_at=now, settings=SETTINGS,
            touched=[(number, START + number, frozenset(keys)) for number in blocks], **more,
        )  # fmt: skip


async def rows(database, columns=FACTS, key=KEY):
    async with database.connection() as connection:
        found = await connection.fetch(
            f"SELECT {columns} FROM chain.verdict WHERE manager = $1 AND account = $2 "
            "ORDER BY verdict_id",
            *key,
        )
    return [tuple(row) for row in found]


async def test_the_first_decision_opens_a_row(database, filling):
    """An account seen for the first time gets a verdict with all that it rests on."""
    [set_id], _ = await store(database, A)
    await filling.root(90, A.root)
    [change] = await step(database, 100)

    assert (change.old, change.new, change.block_number) == (None, IN_SYNC, 100)
    assert await rows(database, "on_chain_root, on_chain_set_id, expected_root, expected_set_id, "
                                "observed_block, closed_time, warnings") == [
        (A.root, set_id, A.root, set_id, 90, None, [])
    ]  # fmt: skip
    [(explanation,)] = await rows(database, "explanation")
    assert explanation.startswith(f"The chain has set {set_id} ")


async def test_the_same_decision_writes_nothing(database, filling, database_url):
    """Looking again, also at a later observation of the same root, changes no row."""
    await store(database, A)
    await filling.root(101, A.root)
    await step(database, 101)
    before = await rows(database, "*")
    await filling.root(105, A.root)
    async with listening(database_url, NOTIFY_CHANNEL) as heard:
        assert await step(database, 105) == []
        await step(database, 105, keys=[(OTHER_MANAGER, ACCOUNT)])
        assert json.loads(await heard.next())["manager"] == f"0x{OTHER_MANAGER.hex()}"
    assert await rows(database, "*") == before


async def test_a_differing_decision_closes_the_row_at_its_block(database, filling):
    """The old row ends where the new one begins."""
    await store(database, A)
    await filling.root(101, A.root)
    await step(database, 101)
    await filling.root(105, ZERO_HASH)
    [change] = await step(database, 105)

    assert (change.old, change.new.cause) == (IN_SYNC, "cleared_on_chain")
    assert await rows(database) == [
        ("in_sync", None, "info", 101, 101, 105, False),
        ("drifted", "cleared_on_chain", "warning", 105, 105, None, False),
    ]
    assert await rows(database, "closed_time") == [(at(105),), (None,)]


async def test_catching_up_writes_the_history_of_following(database, filling):
    """Many blocks decided in one step leave the rows that one step per block leaves."""
    twin = Address(b"\x7b" * 20)
    story = [(101, A.root), (103, B.root), (104, B.root), (106, keccak(b"?")), (107, A.root)]
    await store(database, A, B)
    await store(database, session_set([1, 2], account=twin), session_set([2, 3, 4], account=twin))
    await filling.root(99, ZERO_HASH)
    await filling.root(99, ZERO_HASH, key=(MANAGER, twin))
    for number, root in story:
        await filling.root(number, root)
        await step(database, number)
    for number, root in story:
        await filling.root(number, root, key=(MANAGER, twin))
    await step(database, *(number for number, _ in story), keys=[(MANAGER, twin)])

    followed = await rows(database, FACTS + ", on_chain_root, expected_root, since_time")
    caught_up = await rows(
        database, FACTS + ", on_chain_root, expected_root, since_time", (MANAGER, twin)
    )
    assert len(followed) == 4
    assert caught_up == followed


async def test_grace_ends_by_the_sweep_and_by_time_only(database, filling):
    """A set that does not land becomes due at its deadline, and drift then, since the deadline."""
    _, stored_at = await store(database, A)
    await filling.root(100, ZERO_HASH)
    await step(database, 100, confirmed_at=stored_at)
    deadline = stored_at + timedelta(seconds=600)
    async with database.connection() as connection:
        early = deadline - timedelta(microseconds=1)
        assert await due_keys(connection, CHAIN_ID, early, 0, 10) == []
        assert await due_keys(connection, CHAIN_ID, deadline, 0, 10) == [KEY]

    await step(database, 100, confirmed_at=deadline)
    assert await rows(database) == [
        ("pending", None, "info", 100, 100, 100, False),
        ("drifted", "never_landed", "warning", 100, 100, None, True),
    ]
    assert (await rows(database, "since_time, recheck_at"))[1] == (deadline, None)
    async with database.connection() as connection:
        assert await due_keys(connection, CHAIN_ID, deadline, 0, 10) == []


async def test_a_landing_found_while_catching_up_is_never_called_late(database, filling):
    """Blocks before the confirmed head are judged no later than their own time."""
    _, stored_at = await store(database, A)
    await filling.root(99, ZERO_HASH)
    await filling.root(103, A.root)
    # Touched at 101, landed at 103, and only read long after the grace.
    await step(database, 101, 103, confirmed_at=stored_at + timedelta(hours=1))
    assert [row[0] for row in await rows(database)] == ["pending", "in_sync"]


async def test_expiry_moves_the_recheck_and_the_warnings(database, filling):
    """Block time makes a row due; what it changes is a new row, if it changes anything."""
    soon = session_set([1], valid_until=START + 200_000)
    await store(database, soon)
    await filling.root(101, soon.root)
    await step(database, 101)
    opens = START + 200_000 - 86_400
    async with database.connection() as connection:
        assert await due_keys(connection, CHAIN_ID, at(0), opens - 1, 10) == []
        assert await due_keys(connection, CHAIN_ID, at(0), opens, 10) == [KEY]
    for number in (200_000 - 86_400, 200_001):
        await filling.index(number)
        await step(database, number)
    assert await rows(database, "warnings, by_time_only, recheck_block_time") == [
        ([], False, opens),
        (["expiring_soon"], True, START + 200_001),
        (["all_expired", "expired_in_root"], True, None),
    ]


async def test_a_recheck_that_alone_differs_is_moved_in_place(database, filling):
    """A later deadline is no news: the row stays, and nothing is notified."""
    both = [session_set([1], valid_until=START + 900_000), session_set([1, 2, 3, 4])]
    _, stored_at = await store(database, both[0])
    await filling.root(101, both[0].root)
    await step(database, 101)
    async with database.transaction() as connection:
        await connection.execute("UPDATE chain.verdict SET recheck_at = $1", stored_at)
    assert await step(database, 102) == []
    assert await rows(database, "recheck_at, recheck_block_time") == [
        (None, START + 900_000 - 86_400)
    ]


async def test_each_change_is_notified_in_its_transaction(database, filling, database_url):
    """Listeners get ids, verdict, cause, severity and block; of a rolled back decision nothing."""
    await store(database, A)
    await filling.root(101, keccak(b"nobody"))
    async with listening(database_url, NOTIFY_CHANNEL) as heard:

        async def fail():
            async with database.transaction() as connection:
                await decide_touched(
                    connection, chain_id=CHAIN_ID, confirmed_at=at(0), settings=SETTINGS,
                    touched=[(101, START + 101, [KEY])],
                )  # fmt: skip
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()
        assert await rows(database) == []
        await step(database, 101)
        assert json.loads(await heard.next()) == {
            "chain_id": CHAIN_ID,
            "manager": f"0x{MANAGER.hex()}",
            "account": f"0x{ACCOUNT.hex()}",
            "verdict": "drifted",
            "cause": "unknown_root",
            "severity": "critical",
            "block": 101,
            "retracted": False,
        }
        assert heard.nothing_more()


async def test_a_rewind_takes_verdicts_back_and_says_so(database, filling, database_url):
    """What was decided above the kept block is retracted, and the verdict before holds again."""
    await store(database, A, B)
    await filling.root(100, A.root)
    await step(database, 100)
    await filling.index(101, "lost")
    await filling.root(101, keccak(b"?"), branch="lost")
    await step(database, 101)
    assert (await rows(database))[-1][1] == "unknown_root"
    async with listening(database_url, NOTIFY_CHANNEL) as heard:
        async with database.transaction() as connection:
            await connection.fetch(
                "SELECT * FROM chain.rewind($1, 100, 101, $2)", CHAIN_ID, block_hash(101)
            )
            assert await withdraw(connection, CHAIN_ID) == 1
        retraction = json.loads(await heard.next())
    assert retraction["retracted"] is True
    assert (retraction["cause"], retraction["block"]) == ("unknown_root", 101)
    assert [(row[0], row[5]) for row in await rows(database)] == [("pending", None)]

    async with database.connection() as connection:
        inputs = (await load_inputs(connection, CHAIN_ID, [KEY]))[KEY]
    assert [change.root for change in inputs.changes] == [A.root]
    assert await step(database, 100) == []


async def test_only_what_was_taken_leaves_the_queue(database, filling):
    """A key queued again while its state was read stays, and so does what asks to be read."""
    await store(database, A)
    await filling.root(100, A.root)
    async with database.transaction() as connection:
        taken = await queued_keys(connection, CHAIN_ID, 10)
        assert [q.read_state for q in taken] == [True]
    await step(database, 100, taken=())
    await store(database, A)
    await step(database, 100, taken=taken)
    async with database.connection() as connection:
        [again] = await queued_keys(connection, CHAIN_ID, 10)
        assert again.queued_at > taken[0].queued_at
    await step(database, 100, taken=[again])
    async with database.transaction() as connection:
        assert await queued_keys(connection, CHAIN_ID, 10) == []
        await enqueue(connection, CHAIN_ID, [KEY, KEY])
    await step(database, 100, taken=())
    async with database.connection() as connection:
        assert await queued_keys(connection, CHAIN_ID, 10) == []


async def test_queueing_again_never_forgets_that_state_is_to_be_read(database, filling):
    """A plain request on top of one that asks for reading keeps asking."""
    async with database.transaction() as connection:
        await enqueue(connection, CHAIN_ID, [KEY], read_state=True)
    async with database.transaction() as connection:
        await enqueue(connection, CHAIN_ID, [KEY])
        assert [q.read_state for q in await queued_keys(connection, CHAIN_ID, 10)] == [True]
    await step(database, 100)
    async with database.connection() as connection:
        assert await queued_keys(connection, CHAIN_ID, 10) == []


async def test_deciding_does_not_wait_for_an_import(database, filling):
    """What an unfinished transaction queued is passed over, and stays for the next round."""
    await store(database, A)
    await filling.root(100, A.root)
    async with database.transaction() as importing:
        await enqueue(importing, CHAIN_ID, [KEY], read_state=True)
        assert len(await step(database, 100)) == 1
    async with database.connection() as connection:
        assert len(await queued_keys(connection, CHAIN_ID, 10)) == 1


async def test_only_canonical_observations_count(database, filling):
    """What was seen on a branch that lost is no change, and a first zero is none either."""
    await filling.root(95, ZERO_HASH)
    await filling.root(96, B.root, branch="lost", canonical=False)
    await filling.root(96, A.root)
    await filling.root(98, A.root)
    await filling.root(98, B.root, key=(OTHER_MANAGER, ACCOUNT))
    async with database.connection() as connection:
        inputs = (await load_inputs(connection, CHAIN_ID, [KEY]))[KEY]
    assert [(c.block_number, c.root) for c in inputs.changes] == [(96, A.root)]
    assert inputs.first_observation.block_number == 95
    assert inputs.other_roots == {OTHER_MANAGER: B.root}


async def test_account_state_and_module_code_are_inputs(database, filling):
    """Taint, a disabled manager and a module without code each show; no code of the account: no."""
    await store(database, A)
    await filling.root(95, A.root)
    await filling.account(95, enabled=(), code=False)
    await step(database, 100)
    await filling.account(101)
    await step(database, 101)
    await filling.account(102, enabled=(OTHER_MANAGER,))
    await step(database, 102)
    await filling.account(103, tainted=True)
    await step(database, 103)
    await filling.account(104)
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO evidence.module_code VALUES ($1, $2, false, 104)", CHAIN_ID, MODULE
        )
    await step(database, 104)
    found = await rows(database, "cause, observed_block")
    assert found == [
        (None, 95),
        ("manager_disabled", 102),
        ("tainted_account", 103),
        ("module_without_code", 95),
    ]


async def test_a_set_for_a_manager_that_is_not_configured_is_not_called_disabled(database, filling):
    """Nobody looked whether the account enables it."""
    strange = Address(b"\x99" * 20)
    await store(database, session_set([1], manager=strange))
    await filling.root(95, session_set([1]).root, key=(strange, ACCOUNT))
    await filling.account(95)
    [change] = await step(database, 100, keys=[(strange, ACCOUNT)])
    assert change.new == IN_SYNC


async def test_a_stretch_without_state_warns_only_accounts_that_acted_there(database, filling):
    """The warning is for accounts with a trigger after their last observation, inside it."""
    quiet = Address(b"\x01" * 20)
    for account in (ACCOUNT, quiet):
        await store(database, session_set([1, 2], account=account))
        await filling.root(90, A.root, key=(MANAGER, account))
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO evidence.unobserved (chain_id, manager, first_block, last_block, reason) "
            "VALUES ($1, $2, 91, 99, 'pruned')",
            CHAIN_ID,
            MANAGER,
        )
        await connection.execute("SELECT chain.ensure_partitions(80001, 100)")
        await connection.execute(
            """INSERT INTO chain.account_event (
                   chain_id, block_number, log_index, transaction_index,
                   transaction_hash, account, event, args)
               VALUES ($1, 95, 0, 0, $2, $3, 'EnabledModule', '{}')""",
            CHAIN_ID, block_hash(1), ACCOUNT,
        )  # fmt: skip
    await step(database, 100, keys=[KEY, (MANAGER, quiet)])
    assert await rows(database, "warnings") == [(["unreadable_state"],)]
    assert await rows(database, "warnings", (MANAGER, quiet)) == [([],)]
    await filling.root(100, A.root)
    await step(database, 100)
    assert (await rows(database, "warnings"))[-1] == ([],)


async def test_nothing_known_is_unknown_once(database, filling):
    """A key without observation keeps one row, however often it is decided."""
    await step(database, 100)
    assert await step(database, 101) == []
    [(verdict, explanation)] = await rows(database, "verdict, explanation")
    assert (verdict, explanation) == ("unknown", "The root has not been read yet.")


async def test_no_confirmed_head_ends_no_grace(database, filling):
    """Before the first finished step no grace is over, however old the set."""
    await store(database, A)
    await filling.root(100, ZERO_HASH)
    async with database.transaction() as connection:
        [change] = await decide_touched(
            connection, chain_id=CHAIN_ID, confirmed_at=NEVER, settings=SETTINGS,
            touched=[(100, START + 100, [KEY])],
        )  # fmt: skip
    assert change.new.verdict == "pending"


async def test_a_block_time_of_any_size_is_stored(database, filling):
    """A node's nonsense for a time stops neither the step nor who reads of it."""
    await store(database, A)
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO chain.block VALUES ($1, 99, $2, $3)", CHAIN_ID, block_hash(99), 2**62
        )
    await filling.root(99, A.root)
    async with database.transaction() as connection:
        await decide_touched(
            connection, chain_id=CHAIN_ID, confirmed_at=at(0), settings=SETTINGS,
            touched=[(100, 2**62, [KEY])],
        )  # fmt: skip
        shown = await connection.fetchval("SELECT block_time FROM watch.session_root")
    assert [row[0] for row in await rows(database)] == ["in_sync"]
    assert shown == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "views can still be read"


async def test_open_verdicts_are_counted_alike(database, filling):
    """The counts are those of the open rows, by verdict, cause and severity."""
    await store(database, A)
    await filling.root(100, A.root)
    others = [(MANAGER, Address(bytes([n]) * 20)) for n in range(5)]
    for key in others:
        await filling.root(100, B.root, key=key)
    await step(database, 100, keys=[KEY, *others])
    await filling.root(101, ZERO_HASH)
    await step(database, 101)
    counts = await count_open(database, CHAIN_ID)
    assert [(c.verdict, c.cause, c.severity, c.count) for c in counts] == [
        ("drifted", "cleared_on_chain", "warning", 1),
        ("unmanaged", None, "info", 5),
    ]


async def test_only_an_account_that_had_something_gets_an_empty_row(database, filling):
    """Accounts without sessions are many and get no row; one whose root is cleared gets one."""
    await filling.root(100, ZERO_HASH)
    assert await step(database, 100) == []
    assert await rows(database) == []
    await filling.root(101, B.root)
    await step(database, 101)
    await filling.root(102, ZERO_HASH)
    await step(database, 102)
    assert [row[0] for row in await rows(database)] == ["unmanaged", "empty"]


async def test_thousands_of_keys_are_decided_in_chunks(database, filling):
    """A chunk is a fixed number of statements, so many keys take seconds, not minutes."""
    keys = [(MANAGER, Address(n.to_bytes(20, "big"))) for n in range(5_000)]
    changes = await step(database, 100, keys=keys)
    assert [c.account for c in changes] == [account for _, account in keys]
    [count] = await count_open(database, CHAIN_ID)
    assert (count.verdict, count.count) == ("unknown", 5_000)


async def test_a_change_is_loaded_with_who_made_it(database, filling):
    """The attribution of a change's own block; none where nothing names it."""
    await filling.root(90, A.root)
    await filling.root(95, B.root)
    operation, transaction = keccak(b"operation"), keccak(b"transaction")
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO chain.root_attribution VALUES ($1, 95, $2, $3, 'calldata', "
            "'user_operation', $4, $5)",
            CHAIN_ID, MANAGER, ACCOUNT, transaction, operation,
        )  # fmt: skip
        found = await load_inputs(connection, CHAIN_ID, [KEY])
    first, second = found[KEY].changes
    assert (first.attribution, first.user_op_hash, first.transaction_hash) == ("none", None, None)
    assert (second.attribution, second.user_op_hash) == ("user_operation", operation)
    assert second.transaction_hash == transaction


async def test_many_unknown_roots_let_others_work_between_them(database, filling):
    """After each search the loop is given to others; asked again, none is made."""
    accounts = [Address(bytes([0xC0, n]) * 10) for n in range(5)]
    keys = [(MANAGER, account) for account in accounts]
    for number, key in enumerate(keys):
        await store(database, session_set([number, 50, 51], account=key[1]))
        await filling.root(100, keccak(b"nobody's %d" % number), key=key)
    made_before = SEARCHES.made
    made: set[int] = set()

    async def others() -> None:
        while True:
            made.add(SEARCHES.made - made_before)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        busy = group.create_task(others())
        later = at(0) + timedelta(days=100_000)
        changes = await step(database, 100, confirmed_at=later, keys=keys)
        again = await step(database, 100, confirmed_at=later, keys=keys)
        busy.cancel()
    assert [change.new.cause for change in changes] == ["unknown_root"] * 5
    assert made == {0, 1, 2, 3, 4, 5}
    assert again == []


async def test_a_brief_decision_leaves_long_searches_to_others(database, filling, monkeypatch):
    """The live lane holds the chain's row: what it has no time for is queued, and not forgotten."""
    monkeypatch.setattr(searches, "LIVE_SEARCH_SECONDS", 0.0)
    await store(database, session_set([1, 2, 3]))
    await filling.root(100, keccak(b"nobody's, briefly"))
    later = at(0) + timedelta(days=100_000)
    assert await step(database, 100, confirmed_at=later, taken=(), brief=True) == []
    async with database.connection() as connection:
        assert [q.account for q in await queued_keys(connection, CHAIN_ID, 10)] == [ACCOUNT]

    (change,) = await step(database, 100, confirmed_at=later)
    assert change.new.cause == "unknown_root"
    # Remembered now, it costs the live lane nothing.
    assert await step(database, 100, confirmed_at=later, taken=(), brief=True) == []
    async with database.connection() as connection:
        assert await queued_keys(connection, CHAIN_ID, 10) == []
