"""`sessions plan` on the command line: the next set, the call that sets it, and nothing stored."""

from __future__ import annotations

import json
from typing import Any

from indexer.core.merkle import session_leaf
from indexer.core.session_export import session_as_json
from indexer.core.session_sets import build_set
from indexer.core.types import Address, Session
from tests.fixtures_database import Connection
from tests.test_cli import run, with_database
from tests.test_cli_export import ACCOUNT, CHAIN_ID, ERC20_MODULE, MANAGER, OTHER, store

NOW = 1_700_000_000
SECOND_MANAGER = Address(bytes.fromhex("000000456b395c4e107e0302553b90d1ef4a32e9"))
ENDS = [0, NOW - 1, NOW, 0, 0]
SESSIONS = [Session(end, 0, ERC20_MODULE, bytes([n])) for n, end in enumerate(ENDS)]
LEAVES = [f"0x{session_leaf(one).hex()}" for one in SESSIONS]
NEW = Session(0, 0, ERC20_MODULE, b"new")
NOBODY = ("--account", f"0x{OTHER.hex()}")
OF_ACCOUNT = ("--account", f"0x{ACCOUNT.hex()}")


def the_set(*sessions: Session, manager: Address = MANAGER) -> Any:
    return build_set(CHAIN_ID, manager, ACCOUNT, sessions)


def document(*sessions: Session, **place: object) -> str:
    return json.dumps({"sessions": [session_as_json(one) for one in sessions], **place})


async def index_to(connection: Connection, block_time: int) -> None:
    """Stand in for the daemon: block 9 with this time is the last one indexed."""
    await connection.execute(
        """INSERT INTO chain.chain (chain_id, name, indexed_number, indexed_hash, indexed_time)
           VALUES ($1, 'mumbai', 9, $2, $3)""",
        CHAIN_ID,
        bytes(32),
        block_time,
    )


async def planned(*arguments: str, url: str, stdin: str = "") -> dict[str, Any]:
    done = await run("sessions", "plan", *arguments, "--json", stdin=stdin, **with_database(url))
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


async def test_a_plan_is_read_back_by_import_with_the_same_root(
    database_url: str, connection: Connection
) -> None:
    """Expired and named ones go, new ones come; the document imports as the set it announces."""
    await store(database_url, the_set(*SESSIONS))
    await index_to(connection, NOW)
    plan = await planned(
        *OF_ACCOUNT, "--chain", "mumbai", "--drop", LEAVES[3], "--add", "-",
        url=database_url, stdin=document(NEW, SESSIONS[0], NEW),
    )  # fmt: skip

    assert [one["leaf"] for one in plan["plan"]["dropped"]] == [LEAVES[1], LEAVES[3]]
    assert [one["reason"] for one in plan["plan"]["dropped"]] == ["expired", "named"]
    assert [one["reason"] for one in plan["plan"]["not_added"]] == ["in the set", "repeated"]
    assert (plan["plan"]["indexed_block"], plan["plan"]["indexed_time"]) == (9, NOW)
    assert plan["plan"]["call"] == {
        "to": f"0x{MANAGER.hex()}",
        "data": "0x7cb64759" + plan["root"][2:],
    }
    assert {one["leaf"] for one in plan["sessions"]} == {
        LEAVES[0],
        LEAVES[2],
        LEAVES[4],
        f"0x{session_leaf(NEW).hex()}",
    }

    assert await connection.fetchval("SELECT count(*) FROM sessions.session_set") == 1
    read = await run(
        "sessions", "import", "-", "--json", stdin=json.dumps(plan), **with_database(database_url)
    )
    assert read.code == 0, read.err
    assert "warning" not in read.err
    (stored,) = json.loads(read.out)
    assert (stored["root"], stored["leaves"]) == (
        plan["root"],
        [one["leaf"] for one in plan["sessions"]],
    )
    again = await planned(*OF_ACCOUNT, url=database_url)
    assert (again["root"], again["plan"]["unchanged_proofs"]) == (plan["root"], 4)


async def test_the_text_says_all_of_it(database_url: str, connection: Connection) -> None:
    """One line per session with its fate, the time it goes by, roots, call and proofs."""
    (set_id,) = await store(database_url, the_set(*SESSIONS))
    await index_to(connection, NOW)
    done = await run("sessions", "plan", "--set", set_id, **with_database(database_url))
    plan = await planned("--set", set_id, url=database_url)

    assert done.code == 0, done.err
    assert "2023-11-14 22:13:20 UTC, of block 9" in done.out
    assert plan["plan"]["call"]["data"] in done.out
    words = [line.split() for line in done.out.splitlines()]
    rows = [line for line in words if len(line) > 3 and line[0] in {"kept", "expired"}]
    assert [line[0] for line in rows] == ["kept"] * 4 + ["expired"]
    assert rows[-1][1:3] == ["1", LEAVES[1]]
    assert max(map(len, done.out.splitlines())) <= 120
    assert "no order changes fewer" in done.out
    assert not done.err


async def test_time_is_the_chains_never_this_computers(
    database_url: str, connection: Connection
) -> None:
    """Without an indexed block nothing is expired, and it says so; --keep-expired keeps all."""
    (set_id,) = await store(database_url, the_set(*SESSIONS))
    env = with_database(database_url)
    unknown = await run("sessions", "plan", "--set", set_id, "--json", **env)
    assert "nothing of chain 80001 is indexed" in unknown.err
    assert len(json.loads(unknown.out)["sessions"]) == len(SESSIONS)
    await index_to(connection, 1_000)
    assert len((await planned("--set", set_id, url=database_url))["sessions"]) == len(SESSIONS)
    await connection.execute("UPDATE chain.chain SET indexed_time = $1", NOW + 1)
    assert len((await planned("--set", set_id, url=database_url))["sessions"]) == 3
    kept = await planned("--set", set_id, "--keep-expired", url=database_url)
    assert len(kept["sessions"]) == len(SESSIONS)


async def test_an_empty_set_has_no_root_but_a_call(
    database_url: str, connection: Connection
) -> None:
    """Everything dropped: the call sets the root to zero, and import refuses the empty list."""
    (set_id,) = await store(database_url, the_set(SESSIONS[0]))
    await index_to(connection, NOW)
    arguments = ("--set", set_id, "--drop", LEAVES[0])
    plan = await planned(*arguments, url=database_url)
    assert (plan["root"], plan["sessions"]) == (None, [])
    assert plan["plan"]["call"]["data"] == "0x7cb64759" + "00" * 32

    env = with_database(database_url)
    text = await run("sessions", "plan", *arguments, **env)
    assert "setMerkleRoot(0) revokes all" in text.out
    refused = await run("sessions", "import", "-", stdin=json.dumps(plan), **env)
    assert (refused.code, "empty set has no root" in refused.err) == (2, True)


async def test_another_root_on_chain_is_a_warning(
    database_url: str, connection: Connection
) -> None:
    """A plan from a set that the chain does not have may start from the wrong place."""
    (set_id,) = await store(database_url, the_set(SESSIONS[0]))
    await index_to(connection, NOW)
    await observe_root(connection, b"\x77" * 32)
    done = await run("sessions", "plan", "--set", set_id, **with_database(database_url))
    assert done.code == 0, done.err
    assert f"the account's root is 0x{'77' * 32} as of block 9" in done.err


async def observe_root(connection: Connection, root: bytes) -> None:
    """Stand in for the daemon: the account's root after block 9."""
    await connection.execute(
        "INSERT INTO chain.block (chain_id, block_number, hash, block_time) VALUES ($1, 9, $2, $3)",
        CHAIN_ID,
        bytes(32),
        NOW,
    )
    await connection.execute(
        """INSERT INTO evidence.root_observation (chain_id, manager, account, block_number,
                                                  block_hash, root)
           VALUES ($1, $2, $3, 9, $4, $5)""",
        CHAIN_ID,
        MANAGER,
        ACCOUNT,
        bytes(32),
        root,
    )


async def test_the_newest_set_of_one_place_is_meant(
    database_url: str, connection: Connection
) -> None:
    """Of an account's sets the newest; under two managers it has to be said which."""
    await store(database_url, the_set(SESSIONS[0]), the_set(SESSIONS[3]))
    await index_to(connection, NOW)
    plan = await planned(*OF_ACCOUNT, url=database_url)
    assert plan["root"] == LEAVES[3]
    await store(database_url, the_set(SESSIONS[4], manager=SECOND_MANAGER))
    env = with_database(database_url)
    refused = await run("sessions", "plan", *OF_ACCOUNT, **env)
    assert (refused.code, "has session sets in 2 places" in refused.err) == (2, True)
    chosen = await planned(*OF_ACCOUNT, "--manager", f"0x{MANAGER.hex()}", url=database_url)
    assert chosen["root"] == LEAVES[3]


async def test_what_cannot_be_planned_is_refused(database_url: str) -> None:
    """Each refusal is one sentence and a way out, exit code 2."""
    (set_id,) = await store(database_url, the_set(*SESSIONS))
    env = with_database(database_url)

    async def refused(*arguments: str, stdin: str = "") -> str:
        done = await run("sessions", "plan", *arguments, stdin=stdin, **env)
        assert (done.code, done.out) == (2, ""), done
        return done.err

    of_set = ("--set", set_id)
    assert "name either --account or --set" in await refused()
    assert "name either --account or --set" in await refused(*of_set, *OF_ACCOUNT)
    assert "--set already says" in await refused(*of_set, "--chain", "mumbai")
    assert "no session set 999 is stored" in await refused("--set", "999")
    assert "is stored there" in await refused(*NOBODY)
    secret = "ab" * 33
    said = await refused(*of_set, "--drop", f"0x{secret}")
    assert "expected 32" in said
    assert secret not in said
    unknown = f"0x{'00' * 32}"
    assert "is not a leaf of the set" in await refused(*of_set, "--drop", unknown)
    both = document(SESSIONS[0])
    assert "to be dropped and to be added" in await refused(
        *of_set, "--drop", LEAVES[0], "--add", "-", stdin=both
    )
    other = document(NEW, account=f"0x{OTHER.hex()}")
    assert "is of account" in await refused(*of_set, "--add", "-", stdin=other)
    assert "standard input is empty" in await refused(*of_set, "--add", "-")
    many = document(*(Session(0, 0, ERC20_MODULE, n.to_bytes(4)) for n in range(10_000)))
    assert "at most 10000 make one" in await refused(*of_set, "--add", "-", stdin=many)


async def test_what_a_client_has_revoked_is_not_added(database_url: str) -> None:
    """A store of the SDK keeps REVOKED sessions in its list; a plan leaves them out."""
    (set_id,) = await store(database_url, the_set(SESSIONS[0]))
    nodes = [
        {**session_as_json(one), "status": status}
        for one, status in ((NEW, "REVOKED"), (SESSIONS[3], "ACTIVE"))
    ]
    done = await run(
        "sessions", "plan", "--set", set_id, "--add", "-", "--json",
        stdin=json.dumps({"merkleRoot": "", "leafNodes": nodes}), **with_database(database_url),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "1 sessions are not added, because the client calls them REVOKED" in done.err
    assert [one["leaf"] for one in json.loads(done.out)["sessions"]] == [LEAVES[0], LEAVES[3]]
