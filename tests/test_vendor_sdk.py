"""The vendor's own SDK with a real bundler: what an app believes of its sessions, and the chain.

At each step the app's storage is imported with the command line as it is, the private keys in it
too, and the daemon says what it makes of the difference.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from indexer.core.explain import short
from indexer.core.merkle import merkle_root, session_leaf
from indexer.core.session_import import parse_document
from indexer.core.types import Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import SmartAccount
from indexer.devnet.operations import Key
from indexer.devnet.tools import Toolchain
from tests.daemon_process import command, configuration, stored_text
from tests.sdk.app import VendorApp, running_app
from tests.sdk.bundler import Bundler, running_bundler
from tests.sdk.packages import vendor_packages
from tests.watching import Watch, hexed, watching

# The first use on a machine downloads the SDK.
pytestmark = [pytest.mark.long, pytest.mark.timeout(700)]

RECIPIENT = hexed(Key.named("recipient").address)
FUNDS_WEI = 10**19
ERRORS_HOST = "raw.githubusercontent.com"


@pytest.fixture(scope="session")
def packages() -> Path:
    return vendor_packages()


@dataclass
class Following:
    """An app on the SDK, and a daemon that follows its chain and gets what the app has stored."""

    watch: Watch
    app: VendorApp
    bundler: Bundler
    account: SmartAccount
    folder: Path
    grace_seconds: int
    said: list[str] = field(default_factory=list)
    """Everything that `sessions import` has printed."""
    secrets: set[str] = field(default_factory=set)

    @property
    def address(self) -> str:
        return hexed(self.account.address)

    def leaves(self) -> list[Hash32]:
        """Return the leaf of each session in the app's store, in order, whatever its status."""
        store = json.dumps(self.app.store(self.address)).encode()
        (found,) = parse_document(store, name="store").sets
        return [session_leaf(session) for session in found.sessions]

    def leaf(self, session_id: str) -> str:
        """Return the leaf of a session by the id that the SDK gave it."""
        ids = [node["sessionID"] for node in self.app.store(self.address)["leafNodes"]]
        return hexed(self.leaves()[ids.index(session_id)])

    async def chain_root(self) -> Hash32:
        return await self.watch.devnet.root_of(at.MANAGER, self.account.address)

    async def create_session(self, token_id: int) -> str:
        """Let the app make a session; return its id. Nothing is sent."""
        answer = await self.app.does("create_session", recipient=RECIPIENT, token_id=token_id)
        self.secrets |= set(self.app.secrets)
        # The SDK writes the root that it hopes for before anything is sent.
        assert self.app.store(self.address)["merkleRoot"] == self.app.tree_root
        return str(answer["session_id"])

    async def send_root(self) -> None:
        """Let the app send the root it made; the daemon has to know it, and who set it."""
        answer = await self.app.does("send_root")
        assert answer["success"] is True
        await self.watch.settled()
        row = await self.watch.connection.fetchrow(
            "SELECT root, user_op_hash, attribution, evidence FROM watch.session_root_current "
            "WHERE account = $1 AND manager = $2",
            self.address,
            hexed(at.MANAGER),
        )
        assert row is not None
        root = hexed(await self.chain_root())
        assert tuple(row) == (root, answer["user_op_hash"], "user_operation", "calldata")
        assert root == self.app.store(self.address)["merkleRoot"]

    async def mint(self, session_id: str, token_id: int) -> None:
        """Let the app mint with a session key; the daemon has to see which session did it."""
        mint = {"session_id": session_id, "recipient": RECIPIENT, "token_id": token_id}
        answer = await self.app.does("mint", **mint)
        assert answer["success"] is True
        await self.watch.settled()
        row = await self.watch.connection.fetchrow(
            "SELECT m.leaf, m.to_address, m.token_id, m.amount, m.fits, u.implied_root, "
            "u.root_state FROM watch.session_mint AS m "
            "JOIN watch.session_use AS u USING (chain_id, user_op_hash) WHERE user_op_hash = $1",
            answer["user_op_hash"],
        )
        assert row is not None
        root = hexed(await self.chain_root())
        assert tuple(row) == (self.leaf(session_id), RECIPIENT, token_id, 1, True, root, "held")

    async def cannot_mint(self, session_id: str, token_id: int, reason: str) -> None:
        """Let the app try; the bundler refuses it for this reason."""
        before = len(self.bundler.refusals)
        mint = {"session_id": session_id, "recipient": RECIPIENT, "token_id": token_id}
        assert "error" in await self.app.tries("mint", **mint)
        assert [reason in text for text in self.bundler.refusals[before:]] == [True]
        # The SDK looks for the meaning of an error on the internet, and is not let.
        assert self.app.refused[-1:] == [ERRORS_HOST]

    async def balance(self, token_id: int) -> int:
        """Return what the recipient holds by watch.erc1155_balance, which the chain confirms."""
        await self.watch.settled()
        found = await self.watch.connection.fetchval(
            "SELECT balance FROM watch.erc1155_balance WHERE contract = $1 AND owner = $2 "
            "AND token_id = $3",
            hexed(at.SEED_TOKEN),
            RECIPIENT,
            token_id,
        )
        recipient = Key.named("recipient").address
        assert found == await self.watch.devnet.balance_of(at.SEED_TOKEN, recipient, token_id)
        return int(found)

    async def hand_over(self) -> None:
        """Import all that the app's storage holds, with the real command."""
        file = self.folder / "storage.json"
        file.write_text(json.dumps(self.app.storage))
        managers = [hexed(at.MANAGER)]
        config = configuration(self.watch.database_url, self.watch.devnet.url, managers=managers)
        code, said = await command(self.folder, config, "sessions", "import", str(file), "--json")
        self.said.append(said)
        assert code == 0, said
        assert f"dropped unread: $.{self.address}_signers" in said
        await self.watch.settled()

    async def verdict(self) -> tuple[str, str | None]:
        found = await self.watch.verdict(self.account)
        return found["verdict"], found["cause"]


@asynccontextmanager
async def following(
    toolchain: Toolchain, packages: Path, database_url: str, folder: Path, *, grace_seconds: int
) -> AsyncIterator[Following]:
    """Start everything; at the end no private key has got to where it does not belong."""
    owner = Key.named("owner of a vendor's app")
    async with watching(toolchain, database_url, folder, grace_seconds=grace_seconds) as watch:
        account = watch.devnet.account(owner)
        await watch.devnet.rpc.set_balance(account.address, FUNDS_WEI)
        async with (
            running_bundler(packages, folder, watch.devnet) as bundler,
            running_app(packages, folder, watch.devnet, bundler, owner) as app,
        ):
            story = Following(watch, app, bundler, account, folder, grace_seconds)
            yield story
            assert set(app.refused) <= {ERRORS_HOST}
        seen = "\n".join([watch.daemon.log(), *story.said, await stored_text(watch.connection)])
        assert story.secrets
        assert [secret for secret in story.secrets if secret in seen.lower()] == []


async def test_what_the_sdk_calls_revoked_still_mints_and_is_flagged(
    toolchain: Toolchain, packages: Path, database_url: str, tmp_path: Path
) -> None:
    """The SDK adds the remaining leaves to the tree it had, so the revoked one stays in it."""
    async with following(toolchain, packages, database_url, tmp_path, grace_seconds=600) as story:
        # The store is handed over first, then the root lands with the account itself.
        first = await story.create_session(token_id=1)
        await story.hand_over()
        assert await story.verdict() == ("pending", None)
        await story.send_root()
        assert await story.verdict() == ("in_sync", None)
        await story.mint(first, token_id=1)

        # The root lands first, then the store is handed over.
        second = await story.create_session(token_id=2)
        await story.send_root()
        assert await story.verdict() == ("drifted", "unknown_root")
        await story.hand_over()
        assert await story.verdict() == ("in_sync", None)
        await story.mint(second, token_id=2)

        await story.app.does("revoke", session_id=first)
        statuses = [one["status"] for one in story.app.store(story.address)["leafNodes"]]
        assert statuses == ["REVOKED", "PENDING"]
        await story.hand_over()
        assert await story.verdict() == ("pending", None)
        await story.send_root()
        revoked, kept = story.leaves()
        assert await story.chain_root() == merkle_root([revoked, kept, kept])
        await story.mint(first, token_id=1)
        assert await story.balance(token_id=1) == 2

        assert await story.verdict() == ("drifted", "revoked_still_provable")
        found = await story.watch.verdict(story.account)
        assert found["severity"] == "critical"
        assert found["explanation"].endswith(
            f"; session {short(revoked)}, which your store calls revoked, can still be used."
        )
        await story.hand_over()
        assert await story.verdict() == ("drifted", "revoked_still_provable")


async def test_an_app_that_is_opened_again_has_lost_its_tree_and_revives_what_it_revoked(
    toolchain: Toolchain, packages: Path, database_url: str, tmp_path: Path
) -> None:
    """A reopened app builds its tree from all sessions it has stored, revoked ones too."""
    async with following(toolchain, packages, database_url, tmp_path, grace_seconds=1) as story:
        first = await story.create_session(token_id=1)
        second = await story.create_session(token_id=2)
        await story.send_root()
        await story.app.does("revoke", session_id=first)
        await story.send_root()
        await story.hand_over()
        await story.watch.until_verdict(story.account, "drifted", "revoked_still_provable")

        await story.app.does("reopen")
        assert story.app.tree_root != story.app.store(story.address)["merkleRoot"]
        # Its proofs are of a tree that is not on chain: now the session that was kept fails.
        await story.cannot_mint(second, 2, "SessionNotApproved")

        # So the app registers anew, with all that it has stored.
        third = await story.create_session(token_id=3)
        await story.hand_over()
        await story.send_root()
        assert await story.chain_root() == merkle_root(story.leaves())
        await story.mint(first, token_id=1)
        await story.mint(second, token_id=2)
        await story.mint(third, token_id=3)
        await story.watch.until_verdict(story.account, "drifted", "revoked_still_provable")

        # A device without a store registers its own sessions alone, and ends all others by it.
        await story.app.does("use_another_device")
        fourth = await story.create_session(token_id=4)
        await story.send_root()
        assert [await story.chain_root()] == story.leaves()
        await story.mint(fourth, token_id=4)
        assert await story.verdict() == ("drifted", "unknown_root")
        await story.hand_over()
        assert await story.verdict() == ("in_sync", None)
