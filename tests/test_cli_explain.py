"""`explain` on the command line: one account in words, and the same for scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from indexer.core.merkle import merkle_root
from indexer.core.session_sets import SessionSet
from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.core.verdicts import Settings
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from indexer.store.verdicts import decide_touched
from tests.store.filling import (
    ACCOUNT,
    CHAIN_ID,
    MANAGER,
    OTHER_MANAGER,
    START,
    Filling,
    session_set,
)
from tests.test_cli import run, with_database

OPERATION = Hash32(b"\x0b" * 32)
TRANSACTION = Hash32(b"\x7a" * 32)
NOBODYS = Hash32(b"\x77" * 32)
THREE, ONE = session_set([1, 2, 3]), session_set([1])


def hexed(value: bytes) -> str:
    return f"0x{value.hex()}"


@pytest.fixture
async def database(database_url):
    async with Database.open(database_url, max_size=2) as opened:
        yield opened


@pytest.fixture
async def filling(database):
    """A followed chain, indexed to block 100."""
    found = Filling(database)
    await found.start(100)
    return found


async def store(database: Database, *sets: SessionSet) -> list[int]:
    """Store sets one after the other; return their ids."""
    return [(await import_sets(database, [(one, "plain")]))[0].set_id for one in sets]


async def land(filling: Filling, block: int, root: Hash32, manager: Address = MANAGER) -> None:
    """Let a root be observed, set by an operation."""
    await filling.root(block, root, key=(manager, ACCOUNT))
    async with filling.database.transaction() as connection:
        await connection.execute(
            "INSERT INTO chain.root_attribution VALUES ($1, $2, $3, $4, 'calldata', "
            "'user_operation', $5, $6)",
            CHAIN_ID, block, manager, ACCOUNT, TRANSACTION, OPERATION,
        )  # fmt: skip


async def decide(database: Database, *managers: Address) -> None:
    """Decide on the account, long after every grace."""
    async with database.transaction() as connection:
        later = await connection.fetchval("SELECT clock_timestamp() + interval '1 hour'")
        await decide_touched(
            connection, chain_id=CHAIN_ID, confirmed_at=later, settings=Settings(600),
            touched=[(100, START + 100, [(manager, ACCOUNT) for manager in managers])],
        )  # fmt: skip


async def explained(database_url: str, *options: str) -> list[dict[str, Any]]:
    """What --json says of the account's managers."""
    done = await run("explain", hexed(ACCOUNT), "--json", *options, **with_database(database_url))
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["account"] == hexed(ACCOUNT)
    return list(found["managers"])


async def told(database_url: str, *options: str) -> str:
    """What is printed for people, without line breaks inside paragraphs."""
    done = await run("explain", hexed(ACCOUNT), *options, **with_database(database_url))
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    return " ".join(done.out.split())


async def test_an_account_in_sync(database, filling, database_url):
    """The verdict, what stands since when and by whom, the set it is, and nothing to do."""
    old, new = await store(database, ONE, THREE)
    await land(filling, 80, ONE.root)
    await land(filling, 90, THREE.root)
    await decide(database, MANAGER)

    text = await told(database_url)
    for words in (
        f"{hexed(ACCOUNT)} on mumbai (80001)",
        "verdict in_sync (info, not final), since block 100",
        f"why The chain has set {new}",
        f"on chain {hexed(THREE.root)} set at the latest in block 90, 2023-11-14 22:14:50 UTC",
        f"by a user operation of the account user operation {hexed(OPERATION)}",
        f"transaction {hexed(TRANSACTION)}",
        f"it is your set {new}",
        "on_chain the same",
        "only on chain: ",
        "warning not_final: the chain may still take this back",
        "to do Nothing.",
    ):
        assert words in text, words

    [found] = await explained(database_url)
    assert (found["verdict"], found["chain"], found["indexed_block"]) == ("in_sync", "mumbai", 100)
    assert found["tree"]["leaves"] == [hexed(leaf) for leaf in THREE.leaves]
    assert (found["tree"]["arrangement"], found["provable"]) == (None, [])
    assert [(s["set_id"], s["likeness"]) for s in found["sets"]] == [
        (new, "same"), (old, "other_sessions"),
    ]  # fmt: skip
    assert found["sets"][1]["extra"] == [hexed(leaf) for leaf in THREE.leaves[1:]]


async def test_a_revocation_that_revoked_nothing(database, filling, database_url):
    """The arrangement, the sessions that still work and why they should not, and the remedy."""
    base, wish = await store(database, THREE, ONE)
    tree = (*THREE.leaves, THREE.leaves[0])
    await land(filling, 90, merkle_root(tree))
    await decide(database, MANAGER)

    [found] = await explained(database_url)
    assert (found["cause"], found["severity"]) == ("revoked_still_provable", "critical")
    assert found["tree"]["leaves"] == [hexed(leaf) for leaf in tree]
    assert found["tree"]["wanted_set_id"] == wish
    arrangement = found["tree"]["arrangement"]
    assert (arrangement["base_id"], arrangement["form"]) == (base, "revoke")
    assert [(s["leaf"], s["why"]) for s in found["provable"]] == [
        (hexed(leaf), "dropped") for leaf in THREE.leaves[1:]
    ]
    assert [s["likeness"] for s in found["sets"]] == ["other_sessions", "other_order"]

    text = await told(database_url)
    assert f"it is your set {base} with remaining sessions appended again" in text
    assert "2 sessions can be used that should not work:" in text
    assert f"{hexed(THREE.leaves[1])} not in set {wish} for ever unknown" in text
    assert "to do Register a set made only of the sessions that shall work." in text


async def test_a_root_that_nobody_knows(database, filling, database_url):
    """Nothing is claimed about a tree whose leaves nobody knows."""
    await store(database, THREE)
    await land(filling, 90, NOBODYS)
    await decide(database, MANAGER)

    [found] = await explained(database_url)
    assert found["cause"] == "unknown_root"
    assert (found["tree"]["leaves"], found["tree"]["arrangement"]) == (None, None)
    assert [s["likeness"] for s in found["sets"]] == ["not_known"]
    text = await told(database_url)
    assert "it is your set" not in text
    assert "not known, since nobody knows the tree's leaves" in text
    assert "to do Find who registered it" in text


async def test_a_cleared_root_lacks_everything(database, filling, database_url):
    """A zero is said in words."""
    await store(database, ONE)
    await land(filling, 80, ONE.root)
    await land(filling, 90, ZERO_HASH)
    await decide(database, MANAGER)

    assert "on chain a root of zero: no session works" in await told(database_url)
    [found] = await explained(database_url)
    assert (found["cause"], found["tree"]["leaves"]) == ("cleared_on_chain", [])
    assert found["sets"][0]["missing"] == [hexed(ONE.leaves[0])]


async def test_each_manager_has_its_own_answer(database, filling, database_url):
    """Two managers, two answers; --manager asks for one of them."""
    other = session_set([9], manager=OTHER_MANAGER)
    await store(database, THREE, other)
    await land(filling, 90, THREE.root)
    await land(filling, 91, NOBODYS, OTHER_MANAGER)
    await decide(database, MANAGER, OTHER_MANAGER)

    found = await explained(database_url)
    assert {one["manager"]: one["verdict"] for one in found} == {
        hexed(MANAGER): "in_sync",
        hexed(OTHER_MANAGER): "drifted",
    }
    asked = await explained(database_url, "--manager", hexed(OTHER_MANAGER), "--chain", "mumbai")
    assert [one["manager"] for one in asked] == [hexed(OTHER_MANAGER)]


async def test_before_any_daemon_the_stored_sets_are_shown(database, database_url):
    """An import alone is explained, too: nobody has decided yet."""
    await store(database, THREE)
    text = await told(database_url)
    assert "on a chain not followed yet (80001)" in text
    assert "verdict none yet: no daemon has decided on this account" in text
    [found] = await explained(database_url)
    assert (found["verdict"], found["root"], found["remedy"]) == (None, None, None)


async def test_a_watched_account_without_anything(database, filling, database_url):
    """Watched, but neither a root nor a set: that is an answer, not a mistake."""
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO chain.account (chain_id, account, block_number, source) "
            "VALUES ($1, $2, 50, 'factory')",
            CHAIN_ID, ACCOUNT,
        )  # fmt: skip
    assert "is watched: it has no root, and nothing is stored for it" in await told(database_url)
    assert await explained(database_url) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([hexed(ACCOUNT)], f"nothing is known of account {hexed(ACCOUNT)}: it is not watched"),
        ([hexed(ACCOUNT), "--chain", "amoy"], f"account {hexed(ACCOUNT)} on amoy: it is not"),
        (
            [hexed(ACCOUNT), "--manager", hexed(MANAGER)],
            f"account {hexed(ACCOUNT)} in manager {hexed(MANAGER)}: it is not",
        ),
        ([hexed(ACCOUNT), "--chain", "atlantis"], "no chain 'atlantis' is known"),
        (["0x1234"], "expected an address"),
        ([], "Missing argument 'ACCOUNT'"),
    ],
)
async def test_what_is_unknown_is_said_in_one_sentence(arguments, words, database_url):
    """Exit code 2, what is wrong, and what to do; nothing on standard output."""
    done = await run("explain", *arguments, **with_database(database_url))
    assert (done.code, done.out) == (2, "")
    assert words in done.err
