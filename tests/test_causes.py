"""Causes that clients make, each by a real sequence on a real chain, as the real daemon says it.

The others are in test_live_verdicts.py; those of pruned state in test_pruned_state.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer.core.merkle import session_leaf
from indexer.core.root_story import short
from indexer.core.types import Session
from indexer.devnet.accounts import SmartAccount, root_of_set
from indexer.devnet.operations import Key, open_session, seed_session, set_root_call
from indexer.devnet.tools import Toolchain
from tests.daemon_process import command, configuration
from tests.fixtures_database import temporary_database
from tests.watching import Watch, hexed, watching


@pytest.fixture(scope="module")
async def watch(
    toolchain: Toolchain,
    postgres_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Watch]:
    """One chain and one daemon with a grace of two seconds; each test has its own account."""
    folder = tmp_path_factory.mktemp("causes")
    async with (
        temporary_database(postgres_url, template_database) as url,
        watching(toolchain, url, folder, grace_seconds=2) as running,
    ):
        yield running


@pytest.fixture
async def account(watch: Watch, request: pytest.FixtureRequest) -> SmartAccount:
    """An account of the test's own, deployed."""
    made = watch.devnet.account(request.node.name)
    await watch.devnet.create(made)
    return made


def key_of(number: int) -> Key:
    return Key.named(f"causes {number}")


def sessions(*numbers: int) -> list[Session]:
    """One session per number: its key may mint the token of that number to itself."""
    return [seed_session(key_of(n).address, key_of(n).address, n) for n in numbers]


def leaf(number: int) -> str:
    return short(session_leaf(sessions(number)[0]))


async def registered(watch: Watch, account: SmartAccount, *numbers: int) -> None:
    """Store a set, register it, and wait until it is in sync."""
    await watch.store(account, sessions(*numbers))
    await watch.devnet.register(account, sessions(*numbers))
    await watch.until_verdict(account, "in_sync", None)
    await watch.settled()


async def explained(watch: Watch, account: SmartAccount, folder: Path) -> dict[str, Any]:
    """What `explain` says of the account in the first manager."""
    config = configuration(watch.database_url, watch.devnet.url)
    code, text = await command(folder, config, "explain", hexed(account.address), "--json")
    assert code == 0, text
    return next(one for one in json.loads(text)["managers"] if one["verdict"] == "drifted")


async def overwrite(
    watch: Watch, account: SmartAccount, cause: str, *numbers: int
) -> dict[str, Any]:
    """Register a list that is not stored; wait for its cause and return the verdict."""
    receipt = await watch.devnet.register(account, sessions(*numbers))
    await watch.until_verdict(account, "drifted", cause)
    found = await watch.verdict(account)
    assert found["since_block"] == receipt.block_number
    by = f"registered in block {receipt.block_number} by user operation "
    assert by in found["explanation"]
    return found


async def can_mint(watch: Watch, account: SmartAccount, tree: Sequence[int], index: int) -> bool:
    """Say whether the session at this place of the tree still mints."""
    key = key_of(tree[index])
    receipt = await watch.devnet.mint_with_session(
        account, key, sessions(*tree), index, to=key.address, token_id=tree[index]
    )
    return receipt.succeeded


@pytest.mark.parametrize(
    ("tree", "story"),
    [((5, 4, 3, 2, 1), "in reverse order"), ((5, 1, 2, 3, 4), "with its last session first")],
)
async def test_the_same_sessions_in_another_order(
    watch: Watch, account: SmartAccount, tmp_path: Path, tree: tuple[int, ...], story: str
) -> None:
    """A client that lists the newest first: its sessions work, but not with our proofs."""
    await registered(watch, account, 1, 2, 3, 4, 5)
    found = await overwrite(watch, account, "order_or_duplicates", *tree)
    assert found["severity"] == "warning"
    assert f" {story}, registered" in found["explanation"]
    told = await explained(watch, account, tmp_path)
    assert told["tree"]["leaves"] == [hexed(session_leaf(one)) for one in sessions(*tree)]
    assert told["provable"] == []
    # With the leaves in the order that was found, the proof is accepted on chain.
    assert await can_mint(watch, account, tree, 0)
    assert not await can_mint(watch, account, (1, 2, 3, 4, 5), 2)


async def test_a_session_registered_twice(watch: Watch, account: SmartAccount) -> None:
    """The same session appended once more."""
    await registered(watch, account, 1, 2, 3)
    found = await overwrite(watch, account, "order_or_duplicates", 1, 2, 3, 2)
    assert f"with session {leaf(2)} more than once" in found["explanation"]


async def test_a_device_that_wrote_over_the_list(
    watch: Watch, account: SmartAccount, tmp_path: Path
) -> None:
    """Sessions that are still valid are gone from the tree, and refused on chain."""
    await registered(watch, account, 1, 2, 3, 4, 5)
    found = await overwrite(watch, account, "lost_sessions", 1, 3, 5)
    assert found["severity"] == "warning"
    assert f"without sessions {leaf(2)}, {leaf(4)}, registered" in found["explanation"]
    told = await explained(watch, account, tmp_path)
    assert told["sets"][0]["missing"] == [hexed(session_leaf(one)) for one in sessions(2, 4)]
    assert await can_mint(watch, account, (1, 3, 5), 1)
    assert not await can_mint(watch, account, (1, 2, 3, 4, 5), 1)


async def test_a_client_that_knows_an_older_state(watch: Watch, account: SmartAccount) -> None:
    """A prefix of the list: the last sessions are lost."""
    await registered(watch, account, 1, 2, 3, 4)
    found = await overwrite(watch, account, "lost_sessions", 1, 2)
    assert f"without sessions {leaf(3)}, {leaf(4)}, registered" in found["explanation"]


async def test_the_vendors_revocation_revokes_nothing(
    watch: Watch, account: SmartAccount, tmp_path: Path
) -> None:
    """Revoke the second of three with the vendor's client: its key mints as before.

    A set made of the others alone ends it.
    """
    tree = (1, 2, 3, 1, 3)
    await registered(watch, account, 1, 2, 3)
    await watch.store(account, sessions(1, 3))
    found = await overwrite(watch, account, "revoked_still_provable", *tree)
    assert found["severity"] == "critical"
    assert "appended again, as the vendor's client does to revoke" in found["explanation"]
    assert f"session {leaf(2)}, which set " in found["explanation"]
    told = await explained(watch, account, tmp_path)
    assert [(one["leaf"], one["session_key"]) for one in told["provable"]] == [
        (hexed(session_leaf(sessions(2)[0])), hexed(key_of(2).address))
    ]
    assert await can_mint(watch, account, tree, 1)

    await watch.devnet.register(account, sessions(1, 3))
    await watch.until_verdict(account, "in_sync", None)
    assert not await can_mint(watch, account, tree, 1)


async def test_two_revocations_one_after_the_other(watch: Watch, account: SmartAccount) -> None:
    """Each appends all stored leaves but its own: both sessions still work."""
    tree = (1, 2, 3, 1, 3, 1, 2)
    await registered(watch, account, 1, 2, 3)
    await watch.store(account, sessions(1))
    found = await overwrite(watch, account, "revoked_still_provable", *tree)
    assert f"sessions {leaf(2)}, {leaf(3)}, which set " in found["explanation"]
    for place in (1, 2):
        assert await can_mint(watch, account, tree, place)


async def test_two_sets_joined(watch: Watch, account: SmartAccount) -> None:
    """The old list with the new one behind it: what the new one dropped still works."""
    await registered(watch, account, 1, 2)
    await watch.store(account, sessions(2, 3))
    found = await overwrite(watch, account, "revoked_still_provable", 1, 2, 2, 3)
    assert "one after the other, registered" in found["explanation"]
    assert f"session {leaf(1)}, which set " in found["explanation"]
    assert await can_mint(watch, account, (1, 2, 2, 3), 0)


def sdk_store(*claimed: tuple[int, str]) -> dict[str, Any]:
    """The store of Biconomy's SDK: sessions by number, each with its status."""
    nodes = [
        {
            "validUntil": 0,
            "validAfter": 0,
            "sessionValidationModule": hexed(session.session_validation_module),
            "sessionKeyData": hexed(session.session_key_data),
            "sessionID": str(number),
            "status": status,
        }
        for number, status in claimed
        for session in sessions(number)
    ]
    return {"merkleRoot": "0x" + "77" * 32, "leafNodes": nodes}


async def test_a_store_that_believes_in_its_revocation(
    watch: Watch, account: SmartAccount, tmp_path: Path
) -> None:
    """The SDK's own store, after its own revocation: the revoked key mints, and that is said."""
    tree = (1, 2, 3, 1, 3)
    await registered(watch, account, 1, 2, 3)
    await watch.devnet.register(account, sessions(*tree))
    store = sdk_store((1, "ACTIVE"), (2, "REVOKED"), (3, "PENDING"))
    await watch.import_document(account, store)
    await watch.until_verdict(account, "drifted", "revoked_still_provable")
    found = await watch.verdict(account)
    assert f"session {leaf(2)}, which your store calls revoked, can" in found["explanation"]
    told = await explained(watch, account, tmp_path)
    assert [one["why"] for one in told["provable"]] == ["revoked"]
    by_form = {one["matched_form"]: one["likeness"] for one in told["sets"]}
    assert by_form == {
        "revoke_form": None, "all_leaves": "other_order", "not_revoked": "other_sessions",
    }  # fmt: skip
    assert await can_mint(watch, account, tree, 1)


async def test_a_set_on_chain_whose_sessions_are_all_called_revoked(
    watch: Watch, account: SmartAccount
) -> None:
    """No set is on its way that would end them: in sync for the grace, and no longer."""
    await registered(watch, account, 1, 2)
    await watch.import_document(account, sdk_store((1, "REVOKED"), (2, "REVOKED")))
    await watch.until_verdict(account, "drifted", "revoked_still_provable")
    found = await watch.verdict(account)
    assert found["on_chain_root"] == found["expected_root"]
    assert f"your store calls revoked: {leaf(1)}, {leaf(2)}." in found["explanation"]
    assert await can_mint(watch, account, (1, 2), 0)


async def test_a_root_that_a_session_key_set(watch: Watch, account: SmartAccount) -> None:
    """A key whose module permits everything overwrites the root it came from, with our own set."""
    wanted = [*sessions(1), open_session(key_of(9).address)]
    await watch.store(account, wanted, [*wanted, *sessions(2)])
    await watch.devnet.register(account, wanted)
    await watch.until_verdict(account, "pending", None)
    longer = root_of_set([*wanted, *sessions(2)])
    op = await watch.devnet.session_op(account, key_of(9), wanted, 1, set_root_call(longer))
    receipt = await watch.devnet.send(watch.devnet.bundle([op]))
    assert receipt.succeeded
    await watch.until_verdict(account, "drifted", "rotated_by_session_key")
    found = await watch.verdict(account)
    assert found["severity"] == "critical"
    assert found["explanation"] == (
        f"A session key, not the owner, set the root {short(longer)}, registered in block "
        f"{receipt.block_number} by user operation {short(op.hash())}."
    )
    named = await watch.connection.fetchval(
        "SELECT leaf FROM watch.session_root_current WHERE account = $1", hexed(account.address)
    )
    assert named == hexed(session_leaf(wanted[1]))
