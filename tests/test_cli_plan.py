"""`sessions plan` on the command line: the next set, the call that sets it, and nothing stored."""

from __future__ import annotations

import json
from typing import Any

from indexer.core.merkle import session_leaf
from indexer.core.session_export import session_as_json
from indexer.core.session_sets import ClientStatus, build_set
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
    nothing = "setMerkleRoot(0) revokes all, and there is nothing to import"
    assert nothing in text.out
    scripted = await run("sessions", "plan", *arguments, "--json", **env)
    assert (scripted.code, nothing in scripted.err) == (0, True)
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
    assert f"the account has the root 0x{'77' * 32} since block 9, not that of" in done.err
    # A root seen again stands since it was set, as `explain` says, too.
    await observe_root(connection, b"\x77" * 32, block=12)
    plan = await planned("--set", set_id, url=database_url)
    since = await connection.fetchval("SELECT block_number FROM watch.session_root_current")
    assert (plan["plan"]["indexed_root_block"], since) == (9, 9)


async def test_what_a_plan_says_of_roots_is_about_the_chain(
    database_url: str, connection: Connection
) -> None:
    """A stored root that does not stand is not called unchanged, nor its proofs valid."""
    one = the_set(SESSIONS[0], SESSIONS[3])
    (set_id,) = await store(database_url, one)
    await index_to(connection, NOW)

    async def told() -> str:
        done = await run("sessions", "plan", "--set", set_id, **with_database(database_url))
        assert done.code == 0, done.err
        return " ".join(done.out.split())

    unknown = await told()
    assert "no root of the account is indexed: it may not stand" in unknown
    assert "root on chain not indexed" in unknown
    for root, block, stands in (
        (b"\x77" * 32, 9, f"root on chain 0x{'77' * 32} since block 9"),
        (bytes(32), 10, "root on chain none (0) since block 10"),
    ):
        await observe_root(connection, root, block=block)
        other = await told()
        assert f"this is session set {set_id} as it is stored, but its root is not what" in other
        assert stands in other
        assert f"all 2 are as in session set {set_id}, of use once the new root stands" in other
        assert "what the account has to call:" in other
        assert "unchanged" not in other
        assert "nothing changes" not in other
    await observe_root(connection, one.root, block=11)
    same = await told()
    assert f"nothing changes: this is session set {set_id}, and its root stands since" in same
    assert "all 2 stay as they are" in same
    assert "the call, which would change nothing:" in same


async def test_counts_fit_the_rows(database_url: str, connection: Connection) -> None:
    """One is one; a session that repeats has one proof, told in one row."""
    single, repeated = the_set(SESSIONS[0]), the_set(SESSIONS[0], SESSIONS[3], SESSIONS[0])
    ids = await store(database_url, single, repeated)
    await index_to(connection, NOW)
    await observe_root(connection, single.root)

    async def told(set_id: str, *more: str, stdin: str = "") -> str:
        done = await run(
            "sessions", "plan", "--set", set_id, *more, stdin=stdin, **with_database(database_url)
        )
        assert done.code == 0, done.err
        return done.out

    alone = await told(ids[0])
    assert f"session set {ids[0]} with 1 session\n" in alone
    assert "the one stays as it is" in alone
    more = await told(ids[0], "--add", "-", stdin=document(NEW))
    assert "0 of 1 stay, 1 element changes; no order changes fewer" in more
    await observe_root(connection, repeated.root, block=10)
    twice = await told(ids[1])
    assert "all 2 stay as they are" in twice
    rows = [line for line in twice.splitlines() if line.startswith("kept")]
    assert sorted(line.split("no end")[1].strip() for line in rows) == [
        "that of #2",
        "unchanged",
        "unchanged",
    ]


async def test_what_the_clients_store_calls_revoked_is_dropped(
    database_url: str, connection: Connection
) -> None:
    """It is marked and counted; --keep-revoked keeps it."""
    statuses: tuple[ClientStatus | None, ...] = ("active", "revoked", None)
    listed = (SESSIONS[0], SESSIONS[3], SESSIONS[4])
    told = build_set(CHAIN_ID, MANAGER, ACCOUNT, listed, client_statuses=statuses)
    (set_id,) = await store(database_url, told)
    await index_to(connection, NOW)
    plan = await planned("--set", set_id, url=database_url)
    assert {one["leaf"] for one in plan["sessions"]} == {LEAVES[0], LEAVES[4]}
    assert [(one["leaf"], one["reason"]) for one in plan["plan"]["dropped"]] == [
        (LEAVES[3], "revoked")
    ]
    assert plan["plan"]["revoked_kept"] is False
    env = with_database(database_url)
    text = await run("sessions", "plan", "--set", set_id, **env)
    assert "dropped: your store calls 1 session revoked (--keep-revoked keeps it)" in text.out
    (row,) = [line for line in text.out.splitlines() if line.startswith("revoked ")]
    assert LEAVES[3] in row
    kept = await planned("--set", set_id, "--keep-revoked", url=database_url)
    assert (len(kept["sessions"]), kept["plan"]["revoked_kept"]) == (3, True)


async def test_the_tree_of_a_revocation_is_planned_as_what_is_wanted(
    database_url: str, connection: Connection
) -> None:
    """Each session once and none revoked, so that the next set is a wish and no such tree again."""
    kept, revoked = SESSIONS[0], SESSIONS[3]
    tree = build_set(
        CHAIN_ID, MANAGER, ACCOUNT, [kept, revoked, SESSIONS[4], kept, SESSIONS[4]],
        matched_form="revoke_form", client_statuses=("active", "revoked", None, "active", None),
    )  # fmt: skip
    (set_id,) = await store(database_url, tree)
    await index_to(connection, NOW)
    await observe_root(connection, tree.root)
    done = await run("sessions", "plan", "--set", set_id, "--json", **with_database(database_url))
    assert done.code == 0, done.err
    assert "(matched_form revoke_form); what repeats in it is planned once" in done.err
    plan = json.loads(done.out)
    assert sorted(one["leaf"] for one in plan["sessions"]) == sorted([LEAVES[0], LEAVES[4]])
    assert [one["reason"] for one in plan["plan"]["dropped"]] == ["revoked", *["repeated"] * 2]


async def observe_root(connection: Connection, root: bytes, *, block: int = 9) -> None:
    """Stand in for the daemon: the account's root after a block."""
    await connection.execute(
        """INSERT INTO chain.block (chain_id, block_number, hash, block_time)
           VALUES ($1, $2, $3, $4)""",
        CHAIN_ID,
        block,
        bytes(32),
        NOW,
    )
    await connection.execute(
        """INSERT INTO evidence.root_observation (chain_id, manager, account, block_number,
                                                  block_hash, root)
           VALUES ($1, $2, $3, $4, $5, $6)""",
        CHAIN_ID,
        MANAGER,
        ACCOUNT,
        block,
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
    assert "1 session is not added, because the client calls it REVOKED" in done.err
    assert [one["leaf"] for one in json.loads(done.out)["sessions"]] == [LEAVES[0], LEAVES[3]]
