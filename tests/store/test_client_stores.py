"""What clients say of their sessions, and what is stored only because the chain has it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from indexer.core.session_sets import build_set
from indexer.store.pool import Database
from indexer.store.sessions import import_sets, show_set
from indexer.store.verdict_inputs import load_inputs
from indexer.store.verdict_queue import queued_keys
from tests.store.filling import ACCOUNT, CHAIN_ID, KEY, MANAGER, OTHER_MANAGER, Filling, session_set


@pytest.fixture
async def database(database_url):
    async with Database.open(database_url, max_size=2) as opened:
        yield opened


@pytest.fixture
async def filling(database):
    found = Filling(database)
    await found.start(100)
    return found


def made(names, *statuses, form="all_leaves", manager=MANAGER):
    """A set of these sessions with a form, and what the client says of each."""
    return build_set(
        CHAIN_ID,
        manager,
        ACCOUNT,
        session_set(names).sessions,
        matched_form=form,
        client_statuses=statuses,
    )


async def store(database, *sets):
    return [row.set_id for row in await import_sets(database, [(one, "test") for one in sets])]


async def statuses_of(database, set_id):
    _, sessions = await show_set(database, set_id)
    return [session.client_status for session in sessions]


async def judged(database):
    """Return the names of the sets that verdicts are decided on, the oldest first."""
    async with database.connection() as connection:
        inputs = (await load_inputs(connection, CHAIN_ID, [KEY]))[KEY]
    return [one.set_id for one in sorted(inputs.sets, key=lambda s: (s.stored_at, s.set_id))]


async def test_what_the_client_says_is_shown_and_judged_beside_the_session(database, filling):
    """Each session carries the client's word in the view, in `show`, and in verdicts' inputs."""
    [set_id] = await store(database, made([1, 2, 3], "active", None, "revoked"))
    assert await statuses_of(database, set_id) == ["active", None, "revoked"]
    async with database.connection() as connection:
        seen = await connection.fetch(
            "SELECT client_status FROM watch.session WHERE set_id = $1 ORDER BY leaf_index", set_id
        )
        inputs = (await load_inputs(connection, CHAIN_ID, [KEY]))[KEY]
    assert [row[0] for row in seen] == ["active", None, "revoked"]
    assert [s.client_status for s in inputs.sets[0].sessions] == ["active", None, "revoked"]


async def test_importing_again_takes_over_new_statuses_and_queues_a_decision(database, filling):
    """The set stays as it was stored; null is no news; the account is to be decided again."""
    [set_id] = await store(database, made([1, 2, 3], "active", "pending", None))
    before, _ = await show_set(database, set_id)
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM chain.verdict_queue")

    again = made([1, 2, 3], "revoked", None, "active")
    assert await store(database, again, made([1, 2, 3])) == [set_id, set_id]
    assert await statuses_of(database, set_id) == ["revoked", "pending", "active"]
    assert (await show_set(database, set_id))[0] == before
    async with database.connection() as connection:
        queued = await queued_keys(connection, CHAIN_ID, 10)
    assert [(one.manager, one.account) for one in queued] == [KEY]


async def test_the_last_word_of_one_document_counts(database, filling):
    """A list that stands twice in a document is one set, with the later statuses."""
    one, two = await store(
        database, made([1, 2], "active", "active"), made([1, 2], "revoked", None)
    )
    assert one == two
    assert await statuses_of(database, one) == ["revoked", "active"]


async def test_a_revoke_form_is_linked_to_its_root_and_never_judged(database, filling):
    """The view of roots names the set and its form; verdicts are decided without it."""
    record = made([1, 2, 1], form="revoke_form")
    await filling.root(90, record.root)
    record_id, all_id, wish_id = await store(
        database, record, made([1, 2]), made([1], form="not_revoked")
    )
    assert await judged(database) == [all_id, wish_id]
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT set_id, matched_form FROM watch.session_root")
        forms = await connection.fetch("SELECT matched_form FROM watch.session_set ORDER BY set_id")
    assert tuple(row) == (record_id, "revoke_form")
    assert [form[0] for form in forms] == ["revoke_form", "all_leaves", "not_revoked"]


async def test_a_record_that_a_client_names_is_wanted_from_then_on(database, filling):
    """A list that is the tree on chain, leaf for leaf, is judged, though it was a record before."""
    [record_id] = await store(database, made([1, 2, 1], form="revoke_form"))
    assert await judged(database) == []
    assert await store(database, made([1, 2, 1], form="revoke_form")) == [record_id]
    assert await judged(database) == []
    assert await store(database, made([1, 2, 1])) == [record_id]
    assert await judged(database) == [record_id]
    # And stays so, whatever form the chain matches later.
    await store(database, made([1, 2, 1], form="revoke_form"))
    assert await judged(database) == [record_id]


@pytest.mark.parametrize("form", ["prefix", "active", "suffix"])
async def test_an_older_state_found_later_is_older_than_the_wish(database, filling, form):
    """The wish stays the newest set, also when what the chain has is found by a later import."""
    before_id, wish_id = await store(
        database, made([1, 2, 3], manager=OTHER_MANAGER), made([1, 2, 3])
    )
    await filling.index(120)
    found_id, again_id = await store(database, made([1, 2], form=form), made([1, 2, 3]))
    assert again_id == wish_id
    assert before_id < wish_id < found_id
    assert await judged(database) == [found_id, wish_id]
    found, wish = [(await show_set(database, one))[0] for one in (found_id, wish_id)]
    assert found.stored_at == wish.stored_at - timedelta(microseconds=1)
    assert (found.stored_block, wish.stored_block) == (100, 100)


async def test_what_is_found_with_a_new_wish_is_stored_now(database, filling):
    """Only a wish that was stored before dates what is found beside it."""
    [all_id] = await store(database, made([1, 2, 3]))
    await filling.index(120)
    found_id, _, wish_id = await store(
        database,
        made([1, 2], form="prefix"),
        made([1, 2, 3], None, "revoked", None),
        made([1, 3], form="not_revoked"),
    )
    assert await judged(database) == [all_id, found_id, wish_id]
    assert (await show_set(database, found_id))[0].stored_block == 120
