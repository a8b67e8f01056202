"""An app on the vendor's SDK (app.cjs), driven step by step."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.devnet.anvil import CHAIN_ID
from indexer.devnet.operations import Key
from indexer.devnet.rpc import hexed
from tests.sdk.bundler import Bundler
from tests.sdk.vendor_process import VendorProcess, vendor_process

_SCRIPT = Path(__file__).parent / "app.cjs"


class VendorApp:
    """One running app with one smart account.

    `storage` is all that it keeps, by key, as texts of JSON; `tree_root` the root of the tree that
    the SDK has in memory.
    """

    def __init__(self, program: VendorProcess, bundler: Bundler) -> None:
        self._program, self._bundler = program, bundler
        self._steps = 0
        self.storage: dict[str, str] = {}
        self.tree_root = ""

    @property
    def refused(self) -> list[str]:
        """The hosts that the SDK wanted to reach and was not let."""
        return self._program.said("refused")

    @property
    def secrets(self) -> list[str]:
        """The session keys' private keys, without 0x."""
        stores = [json.loads(v) for k, v in self.storage.items() if k.endswith("_signers")]
        return [signer["pvKey"].removeprefix("0x") for store in stores for signer in store.values()]

    def store(self, account: str) -> dict[str, Any]:
        """Return the SDK's store of an account's sessions: merkleRoot and leafNodes."""
        store: dict[str, Any] = json.loads(self.storage[f"{account}_sessions"])
        return store

    async def does(self, name: str, **given: Any) -> dict[str, Any]:
        """Let the app do one thing; a mistake of the SDK's is the test's."""
        answer = await self.tries(name, **given)
        assert "error" not in answer, (answer["error"], self._bundler.refusals)
        return answer

    async def tries(self, name: str, **given: Any) -> dict[str, Any]:
        """Let the app do one thing that may go wrong: then `error` says what the SDK threw."""
        assert self._program.process.stdin is not None
        line = json.dumps({"do": name} | given).encode() + b"\n"
        self._program.process.stdin.write(line)
        self._steps += 1
        answer: dict[str, Any] = await self._program.says("answer", self._steps)
        self.storage = answer.pop("storage")
        self.tree_root = answer.pop("tree_root")
        return answer


@asynccontextmanager
async def running_app(
    packages: Path, folder: Path, devnet: Devnet, bundler: Bundler, owner: Key
) -> AsyncIterator[VendorApp]:
    """Run the app until the block is left."""
    async with vendor_process(packages, folder, _SCRIPT) as program:
        app = VendorApp(program, bundler)
        opened = await app.does(
            "open",
            chain_id=CHAIN_ID,
            node_url=devnet.url,
            bundler_url=bundler.url,
            owner_key=hexed(owner.secret),
            session_module=hexed(at.SEED_SESSION_MODULE),
            token=hexed(at.SEED_TOKEN),
        )
        assert opened["account"].lower() == hexed(devnet.account(owner).address)
        yield app
