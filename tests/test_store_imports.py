"""Clients' stores through the command line: what is stored of them, and what is said then.

The roots are those of a real run of the vendor's SDK, written as the daemon writes them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from indexer.core.merkle import merkle_root, session_leaf
from indexer.core.session_import import parse_document
from indexer.core.types import Address, Hash32
from indexer.core.verdicts import Settings
from indexer.store.pool import Database
from indexer.store.verdicts import decide_touched
from tests.store.filling import CHAIN_ID, MANAGER, OTHER_MANAGER, START, Filling
from tests.test_cli import ROOT, Done, run, with_database

STEPS = json.loads((ROOT / "tests/vectors/edge_cases.json").read_text())["sdkStoreSequence"][
    "steps"
]
STORE_V4 = json.loads((ROOT / "tests/vectors/sdk_store_v4.json").read_text())
LEAF = {
    "validUntil": 0,
    "validAfter": 0,
    "sessionValidationModule": "0x8e09744b738e9fec4a4df7ab5621f1857f6fa175",
}
ACCOUNT = Address(b"\xac" * 20)
GRACE_SECONDS = 600
IN_SYNC = ("in_sync", None, "info")
PENDING = ("pending", None, "info")
LOST = ("drifted", "superseded", "warning")
PROVABLE = ("drifted", "superseded", "critical")
UNKNOWN = ("drifted", "unknown_root", "critical")
REVOKED = ("drifted", "revoked_still_provable", "critical")


def raw(text: str) -> Hash32:
    return Hash32(bytes.fromhex(text[2:]))


def sdk_store(*statuses: str | None) -> dict[str, Any]:
    """A store of the SDK with a leaf per status, and a root that nobody should believe."""
    nodes = [
        {**LEAF, "sessionKeyData": f"0x{number:064x}", "sessionID": str(number), "status": status}
        for number, status in enumerate(statuses)
    ]
    return {"merkleRoot": "0x" + "77" * 32, "leafNodes": nodes}


def root_of(store: dict[str, Any], *positions: int) -> Hash32:
    (one,) = parse_document(json.dumps(store).encode(), name="store").sets
    leaves = [session_leaf(session) for session in one.sessions]
    return merkle_root([leaves[position] for position in positions])


class Chain:
    """A followed chain in the database, and the commands of its operator."""

    def __init__(self, database: Database, url: str) -> None:
        self.database = database
        self.filling = Filling(database)
        self.url = url

    async def root(
        self, number: int, root: Hash32, account: Address = ACCOUNT, manager: Address = MANAGER
    ) -> None:
        """Let the root stand from a block on, which is the tip."""
        await self.filling.root(number, root, key=(manager, account))
        await self.filling.index(number)

    async def imported(
        self, document: object, *options: str, account: Address | None = ACCOUNT
    ) -> Done:
        told = [] if account is None else ["--account", f"0x{account.hex()}"]
        done = await run(
            *("sessions", "import", "-", "--json", *told, *options),
            stdin=json.dumps(document),
            **with_database(self.url),
        )
        assert done.code == 0, done.err
        return done

    async def forms(self, account: Address = ACCOUNT) -> list[str]:
        """Return the forms of the account's sets, the oldest first."""
        return [
            row[0]
            for row in await self.fetch(
                "SELECT matched_form FROM watch.session_set WHERE account = $1"
                " ORDER BY stored_at, set_id",
                account,
            )
        ]

    async def form_on_chain(self, account: Address = ACCOUNT) -> tuple[str | None, int | None]:
        """Return the form and the number of sessions of the set whose root stands."""
        (row,) = await self.fetch(
            "SELECT r.matched_form, s.session_count FROM watch.session_root_current AS r"
            " LEFT JOIN watch.session_set AS s USING (set_id) WHERE r.account = $1",
            account,
        )
        return row[0], row[1]

    async def verdicts(self, account: Address = ACCOUNT) -> tuple[Any, Any]:
        """Return what is said of the account now, and once the grace is over."""
        said = []
        for seconds in (0, GRACE_SECONDS + 1):
            async with self.database.transaction() as connection:
                now = await connection.fetchval("SELECT clock_timestamp()")
                tip = await connection.fetchval("SELECT indexed_number FROM chain.chain")
                await decide_touched(
                    connection,
                    chain_id=CHAIN_ID,
                    confirmed_at=now + timedelta(seconds=seconds),
                    settings=Settings(grace_seconds=GRACE_SECONDS),
                    touched=[(tip, START + tip, frozenset([(MANAGER, account)]))],
                )
            (row,) = await self.fetch(
                "SELECT verdict, cause, severity FROM watch.verdict WHERE account = $1", account
            )
            said.append(tuple(row))
        return said[0], said[1]

    async def fetch(self, statement: str, account: Address) -> Sequence[Any]:
        async with self.database.connection() as connection:
            return await connection.fetch(statement, f"0x{account.hex()}")


@pytest.fixture
async def chain(database_url: str) -> AsyncIterator[Chain]:
    async with Database.open(database_url, max_size=2) as database:
        made = Chain(database, database_url)
        await made.filling.start(100)
        yield made


async def test_a_store_imported_along_the_vendors_sequence(chain: Chain) -> None:
    """Each state of a real run with the root it had: the form on chain and the verdict.

    At the end the revoked session can be proved still, whatever the store says.
    """
    expected = [
        (("all_leaves", 1), (IN_SYNC, IN_SYNC)),
        (("all_leaves", 3), (IN_SYNC, IN_SYNC)),
        # Cleared from the store, in the tree still: the set of the step before is on chain.
        (("all_leaves", 3), (PENDING, PROVABLE)),
        (("all_leaves", 2), (IN_SYNC, IN_SYNC)),
        (("all_leaves", 3), (IN_SYNC, IN_SYNC)),
        (("revoke_form", 5), (PENDING, REVOKED)),
        (("all_leaves", 3), (IN_SYNC, REVOKED)),
    ]
    for number, (step, (form, verdicts)) in enumerate(zip(STEPS, expected, strict=True)):
        await chain.root(110 + 10 * number, raw(step["treeRoot"]))
        await chain.imported(step["store"])
        assert await chain.form_on_chain() == form, step["step"]
        assert await chain.verdicts() == verdicts, step["step"]
    assert await chain.forms() == [*["all_leaves"] * 4, "revoke_form", "not_revoked"]


async def test_each_state_of_the_vendors_sequence_alone(chain: Chain) -> None:
    """The same states, each imported for an account of which nothing else is stored."""
    expected: list[Any] = [
        (["all_leaves"], "all_leaves", (IN_SYNC, IN_SYNC)),
        (["all_leaves"], "all_leaves", (IN_SYNC, IN_SYNC)),
        (["all_leaves"], None, (PENDING, UNKNOWN)),
        (["all_leaves"], "all_leaves", (IN_SYNC, IN_SYNC)),
        (["all_leaves"], "all_leaves", (IN_SYNC, IN_SYNC)),
        (["revoke_form", "all_leaves", "not_revoked"], "revoke_form", (PENDING, REVOKED)),
        (["all_leaves", "not_revoked"], "all_leaves", (PENDING, PROVABLE)),
    ]
    for number, (step, (forms, form, verdicts)) in enumerate(zip(STEPS, expected, strict=True)):
        account = Address(bytes([number + 1]) * 20)
        await chain.root(110 + number, raw(step["treeRoot"]), account)
        await chain.imported(step["store"], account=account)
        assert await chain.forms(account) == forms, step["step"]
        assert (await chain.form_on_chain(account))[0] == form, step["step"]
        assert await chain.verdicts(account) == verdicts, step["step"]


@pytest.mark.parametrize(
    ("statuses", "positions", "forms", "verdicts"),
    [
        # What is on chain is older than what the store wants.
        (["ACTIVE", "PENDING"], [0], ["active", "all_leaves"], (PENDING, LOST)),
        (["PENDING", "PENDING"], [0], ["prefix", "all_leaves"], (PENDING, LOST)),
        ([None, None, None], [0, 1], ["prefix", "all_leaves"], (PENDING, LOST)),
        (
            ["ACTIVE", "REVOKED", "PENDING"],
            [0, 1],
            ["prefix", "all_leaves", "not_revoked"],
            (PENDING, PROVABLE),
        ),
        (
            ["ACTIVE", "REVOKED", "PENDING"],
            [0, 1, 2],
            ["all_leaves", "not_revoked"],
            (PENDING, PROVABLE),
        ),
        # What it wants is there.
        (["ACTIVE", "REVOKED"], [0], ["all_leaves", "not_revoked"], (IN_SYNC, IN_SYNC)),
    ],
)
async def test_the_form_that_the_chain_has_is_stored_before_the_wish(
    chain: Chain,
    statuses: list[str | None],
    positions: list[int],
    forms: list[str],
    verdicts: tuple[Any, Any],
) -> None:
    """An older state on chain is waited for, then superseded; a second import adds nothing."""
    store = sdk_store(*statuses)
    await chain.root(110, root_of(store, *positions))
    done = await chain.imported(store)
    assert [one["matched_form"] for one in json.loads(done.out)] == forms
    assert await chain.forms() == forms
    assert await chain.verdicts() == verdicts
    assert sum("its root is on chain" in line for line in done.err.splitlines()) == 1
    again = await chain.imported(store)
    assert again.out == done.out
    assert again.err.count("was stored before") == len(forms)
    assert await chain.forms() == forms
    assert await chain.verdicts() == verdicts


async def test_a_call_that_revoked_several_is_recognised(chain: Chain) -> None:
    """Only the last of them is left out of what is appended: all can be proved still."""
    store = sdk_store("ACTIVE", "REVOKED", "REVOKED")
    await chain.root(110, root_of(store, 0, 1, 2, 0, 1))
    await chain.imported(store)
    assert await chain.form_on_chain() == ("revoke_form", 5)
    assert await chain.forms() == ["revoke_form", "all_leaves", "not_revoked"]
    now, late = await chain.verdicts()
    assert (now, late[0], late[2]) == (PENDING, "drifted", "critical")


async def test_what_the_chain_has_may_be_found_by_a_later_import(chain: Chain) -> None:
    """A store imported before its root was known is imported again: the wish stays the newest."""
    store = sdk_store("ACTIVE", "PENDING", "PENDING")
    await chain.imported(store)
    assert await chain.forms() == ["all_leaves"]
    await chain.root(110, root_of(store, 0, 1))
    await chain.imported(store)
    assert await chain.forms() == ["prefix", "all_leaves"]
    assert await chain.form_on_chain() == ("prefix", 2)


async def test_the_manager_is_where_any_form_is_found(chain: Chain) -> None:
    """Not only all leaves: an older state or a revocation names the manager as well."""
    store = sdk_store("ACTIVE", "REVOKED", "ACTIVE")
    forms = {"prefix": [0, 1], "revoke_form": [0, 1, 2, 0, 2], "not_revoked": [0, 2]}
    for number, (form, positions) in enumerate(forms.items()):
        account = Address(bytes([number + 1]) * 20)
        await chain.root(110 + number, root_of(store, *positions), account, OTHER_MANAGER)
        done = await chain.imported(store, account=account)
        sets = json.loads(done.out)
        assert {one["manager"] for one in sets} == {f"0x{OTHER_MANAGER.hex()}"}
        assert form in [one["matched_form"] for one in sets]
        # An option that says otherwise is obeyed, and what stands elsewhere is not recorded.
        done = await chain.imported(store, "--manager", f"0x{MANAGER.hex()}", account=account)
        sets = json.loads(done.out)
        assert [one["matched_form"] for one in sets] == ["all_leaves", "not_revoked"]
        assert {one["manager"] for one in sets} == {f"0x{MANAGER.hex()}"}


async def test_a_store_whose_sessions_are_all_revoked_wants_no_set(chain: Chain) -> None:
    """An empty set has no root: the operator is told, and what was registered is kept."""
    done = await chain.imported(sdk_store("REVOKED", "REVOKED"))
    assert await chain.forms() == ["all_leaves"]
    assert "calls every session REVOKED" in done.err
    (set_id,) = [row[0] for row in await chain.fetch(
        "SELECT set_id FROM watch.session_set WHERE account = $1", ACCOUNT)]  # fmt: skip
    shown = await run("sessions", "show", str(set_id), **with_database(chain.url))
    assert shown.out.count("client_status             revoked") == 2
    assert "matched_form   all_leaves" in shown.out


async def test_the_session_key_is_read_by_a_configured_layout(chain: Chain) -> None:
    """A module of one's own is known to import as it is to the daemon."""
    key, module = "0x" + "11" * 20, "0x" + "5e" * 20
    session = {
        **LEAF,
        "sessionValidationModule": module,
        "sessionKeyData": "0x" + key[2:].zfill(64),
    }
    done = await run(
        *("sessions", "import", "-", "--account", f"0x{ACCOUNT.hex()}"),
        stdin=json.dumps([session]),
        SESSIONWATCH_CHAINS__MUMBAI__SESSION_LAYOUTS=json.dumps([f"{module}: session_key"]),
        **with_database(chain.url),
    )
    assert done.code == 0, done.err
    rows = await chain.fetch("SELECT session_key FROM watch.session WHERE account = $1", ACCOUNT)
    assert [row[0] for row in rows] == [key]


async def test_a_dry_run_shows_all_leaves_and_then_the_wish() -> None:
    """Without a database nothing is known of the chain: two sets, in the order of storing."""
    arguments = ["sessions", "import", "-", "--dry-run", "--json", "--chain", "mumbai"]
    done = await run(
        *arguments, "--account", STORE_V4["account"], stdin=json.dumps(STORE_V4["store"])
    )
    everything, wish = json.loads(done.out)
    assert set(everything) == {"chain_id", "manager", "account", "matched_form", "root", "leaves"}
    assert [everything["matched_form"], wish["matched_form"]] == ["all_leaves", "not_revoked"]
    assert wish["leaves"] == [wish["root"]] == everything["leaves"][1:]
    assert everything["account"] == STORE_V4["account"].lower()


async def test_a_back_up_comes_back_with_forms_and_statuses(
    chain: Chain, empty_database_url: str, tmp_path: Path
) -> None:
    """What was exported is stored elsewhere as the same sets, and wants nothing new."""
    store = sdk_store("ACTIVE", "REVOKED", "ACTIVE")
    await chain.root(110, root_of(store, 0, 1, 2, 0, 2))
    await chain.imported(store)
    exported = await run("sessions", "export", **with_database(chain.url))
    sets = json.loads(exported.out)
    assert [one["matched_form"] for one in sets] == ["revoke_form", "all_leaves", "not_revoked"]
    assert [s["client_status"] for s in sets[1]["sessions"]] == ["active", "revoked", "active"]

    other = with_database(empty_database_url)
    assert (await run("schema", "apply", **other)).code == 0
    done = await run("sessions", "import", "-", **other, stdin=exported.out)
    assert done.code == 0, done.err
    assert (await run("sessions", "export", **other)).out == exported.out

    # The SDK's own form keeps the statuses, and refuses what it would make a wish of.
    one = await run("sessions", "export", "2", "--form", "sdk_store", **other)
    assert [node["status"] for node in json.loads(one.out)["leafNodes"]] == [
        *("ACTIVE", "REVOKED", "ACTIVE")
    ]
    refused = await run("sessions", "export", "1", "--form", "sdk_store", **other)
    assert (refused.code, "matched_form revoke_form" in refused.err) == (2, True)
