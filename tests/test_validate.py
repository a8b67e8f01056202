"""`sessions prove` and `validate` on a real chain: what they say is what the EntryPoint does."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from indexer.chain.slots import SENTINEL_MODULE
from indexer.config import load_settings
from indexer.core.merkle import merkle_root, session_leaf
from indexer.core.session_export import session_as_json
from indexer.core.session_proof import prove_session
from indexer.core.types import Address, Hash32, Session
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, SmartAccount, root_of_set
from indexer.devnet.operations import Call, Key, call_data, mint_call, seed_session
from indexer.errors import NodeError, NodeUnreachableError
from indexer.validate import read_session_state
from tests.fixtures_database import Connection
from tests.node_proxy import NodeProxy
from tests.test_cli import run

KEY = Key.named("a session's key")
RECIPIENT = Address(b"\x77" * 20)
NO_MODULE = Address(b"\x66" * 20)
FAR = 4_102_444_800
"""The year 2100, for sessions that have not begun."""
SESSIONS = [
    seed_session(KEY.address, RECIPIENT, 0),
    seed_session(KEY.address, RECIPIENT, 1, valid_until=1),
    seed_session(KEY.address, RECIPIENT, 2, valid_after=FAR),
    replace(seed_session(KEY.address, RECIPIENT, 3), session_validation_module=NO_MODULE),
    seed_session(KEY.address, RECIPIENT, 4, valid_until=FAR),
]
LEAVES = [session_leaf(one) for one in SESSIONS]


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@dataclass(frozen=True, slots=True)
class Stage:
    """An account that has registered SESSIONS, and the commands asked about it."""

    devnet: Devnet
    account: SmartAccount

    def env(self) -> dict[str, str]:
        return {"SESSIONWATCH_CHAINS__MUMBAI__RPC": self.devnet.url}

    def of_file(self, *more: str) -> tuple[str, ...]:
        return ("-", "--account", f"0x{self.account.address.hex()}", "--chain", "mumbai", *more)

    async def validate(self, *more: str, code: int) -> dict[str, Any]:
        done = await run(
            "sessions", "validate", *self.of_file(*more), "--json", stdin=text(), **self.env()
        )
        assert done.code == code, (done.out, done.err)
        return dict(json.loads(done.out))

    async def failing(self, *more: str) -> set[str]:
        """The points that do not hold; the exit code must fit."""
        found = await self.validate(*more, code=1)
        assert found["usable"] is False
        return {one["name"] for one in found["points"] if one["holds"] is False}

    async def can_mint(self, index: int) -> bool:
        """What the EntryPoint says of session `index`."""
        receipt = await self.devnet.mint_with_session(
            self.account, KEY, SESSIONS, index, to=RECIPIENT, token_id=index
        )
        return receipt.succeeded

    async def owner_calls(self, to: Address, function: str, *arguments: object) -> None:
        call = Call(to, call_data(function, *arguments))
        assert (await self.devnet.submit(self.account, [call])).succeeded


def text(sessions: list[Session] = SESSIONS) -> str:
    return json.dumps([session_as_json(one) for one in sessions])


@pytest.fixture
async def stage(devnet: Devnet) -> Stage:
    account = devnet.account("the owner of sessions")
    assert (await devnet.register(account, SESSIONS)).succeeded
    return Stage(devnet, account)


async def test_the_entry_point_takes_a_signature_that_prove_made(stage: Stage) -> None:
    """A real session key signs, prove does the rest, and the mint goes through."""
    op = await stage.devnet.op(stage.account, [mint_call(RECIPIENT, 4, 3)])
    signature = f"0x{KEY.sign(op.hash()).hex()}"
    done = await run(
        "sessions", "prove", *stage.of_file("--index", "4", "--signature", signature, "--json"),
        stdin=text(),
    )  # fmt: skip
    assert done.code == 0, done.err
    shown = json.loads(done.out)

    signed = replace(op, signature=raw(shown["signature"]))
    assert (await stage.devnet.send(stage.devnet.bundle([signed]))).succeeded
    assert await stage.devnet.balance_of(at.SEED_TOKEN, RECIPIENT, 4) == 3

    # The module's part alone, put together by the local chain's own encoder.
    op = await stage.devnet.op(stage.account, [mint_call(RECIPIENT, 4, 1)])
    place = shown["session_key_signature_at"]["module_signature"]
    inner = raw(shown["module_signature"])
    inner = inner[:place] + KEY.sign(op.hash()) + inner[place + 65 :]
    again = stage.devnet.bundle([op.signed_for(at.MANAGER, inner)])
    assert (await stage.devnet.send(again)).succeeded
    assert await stage.devnet.balance_of(at.SEED_TOKEN, RECIPIENT, 4) == 4


async def test_usable_is_what_the_entry_point_takes(stage: Stage) -> None:
    """Every point holds; the block is named by its hash; the mint works."""
    found = await stage.validate("--index", "0", code=0)
    assert found["usable"] is True
    assert all(one["holds"] for one in found["points"])
    tip = await stage.devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    assert found["block"] == {
        "number": int(tip["number"], 16),
        "hash": tip["hash"],
        "time": int(tip["timestamp"], 16),
    }
    assert await stage.can_mint(0)


@pytest.mark.parametrize(
    ("index", "failing"),
    [(1, {"window"}), (2, {"window"}), (3, {"validation_module"})],
    ids=["expired", "not yet valid", "module without code"],
)
async def test_what_is_wrong_with_a_session_alone(
    stage: Stage, index: int, failing: set[str]
) -> None:
    """Just that point fails, though the manager approves; and the EntryPoint refuses it."""
    assert await stage.failing("--index", str(index)) == failing
    assert not await stage.can_mint(index)


async def test_a_window_is_one_of_block_time(devnet: Devnet) -> None:
    """The last second counts, the next one does not; this computer's clock is years away."""
    account = devnet.account("the owner of a window")
    sessions = [seed_session(KEY.address, RECIPIENT, 0, valid_until=FAR + 10, valid_after=FAR)]
    await devnet.register(account, sessions)
    stage = Stage(devnet, account)
    for time, code in ((FAR - 1, 1), (FAR, 0), (FAR + 10, 0), (FAR + 11, 1)):
        await devnet.rpc.set_next_timestamp(time)
        await devnet.rpc.mine()
        done = await run(
            "sessions", "validate", *stage.of_file("--index", "0"), stdin=text(sessions),
            **stage.env(),
        )  # fmt: skip
        assert done.code == code, (time, done.out, done.err)
        assert ("not usable: window" in done.out) is (code == 1)


Change = Callable[[Stage], Awaitable[None]]


async def replace_root(stage: Stage) -> None:
    await stage.devnet.register(stage.account, SESSIONS[1:])


async def clear_root(stage: Stage) -> None:
    await stage.owner_calls(at.MANAGER, "setMerkleRoot(bytes32)", bytes(32))


async def disable_manager(stage: Stage) -> None:
    await stage.owner_calls(
        stage.account.address, "disableModule(address,address)", SENTINEL_MODULE, at.MANAGER
    )


async def test_what_the_root_that_stands_proves_is_usable(stage: Stage, database_url: str) -> None:
    """A session revoked in the SDK's way: not by its set's proof, but it mints, and so it says."""
    env = with_rpc(database_url, stage.devnet.url)
    kept, revoked = SESSIONS[0], SESSIONS[4]
    for sessions in ([kept, revoked], [kept]):
        stored = await run("sessions", "import", *stage.of_file(), stdin=text(sessions), **env)
        assert stored.code == 0, stored.err
    appended = [kept, revoked, kept]
    await stage.devnet.register(stage.account, appended)
    of_revoked = ("sessions", "validate", "--set", "1", "--index", "1")

    shown = await run(*of_revoked, **env)
    assert shown.code == 0, (shown.out, shown.err)
    assert "the root that stands is that of your set 1 with remaining sessions appended" in (
        shown.out
    )
    assert "and it proves this session" in shown.out
    assert "usable under the root that stands, by its proof, not by that of session set 1" in (
        shown.out
    )
    found = json.loads((await run(*of_revoked, "--json", **env)).out)
    assert (found["usable"], found["root"]) == (True, f"0x{root_of_set([kept, revoked]).hex()}")
    assert [raw(one) for one in found["other_tree"]["proof"]] == list(
        prove_session(appended, 1).proof
    )
    minted = await stage.devnet.mint_with_session(
        stage.account, KEY, appended, 1, to=RECIPIENT, token_id=4
    )
    assert minted.succeeded

    # The wish has reached the chain: its tree is known, and lacks the session.
    await stage.devnet.register(stage.account, [kept])
    gone = await run(*of_revoked, **env)
    assert (gone.code, "is that of your set 2, which lacks this session" in gone.out) == (1, True)
    # Nobody has stored this one.
    await stage.devnet.register(stage.account, SESSIONS[2:4])
    unknown = await run(*of_revoked, **env)
    explain = f"`sessionwatch explain 0x{stage.account.address.hex()}` tells what stands there"
    assert (unknown.code, explain in unknown.out) == (1, True)
    # A set out of a document is compared with nothing that is stored.
    file = await run(
        "sessions", "validate", *stage.of_file("--index", "1"), stdin=text([kept, revoked]), **env
    )
    assert (file.code, "explain" in file.out) == (1, False)


async def test_a_block_or_a_tag_that_is_not_there_is_told_at_once(stage: Stage) -> None:
    """Waiting would not help: wrong usage, with the tip, or the tag, in the sentence."""
    tip = int(await stage.devnet.rpc.call("eth_blockNumber"), 16)
    done = await run(
        "sessions", "validate", *stage.of_file("--index", "0", "--at-block", "999999999"),
        stdin=text(), **stage.env(),
    )  # fmt: skip
    assert (done.code, done.out) == (2, "")
    assert f"mumbai has no block 999999999 yet: the node's tip is block {tip}" in done.err
    async with NodeProxy(stage.devnet.url) as proxy:
        proxy.refuse(
            "eth_getBlockByNumber",
            {"error": {"code": -39001, "message": "safe block not found"}},
            lambda params: params[0] == "safe",
        )
        missing = await run(
            "sessions", "validate", *stage.of_file("--index", "0", "--at-block", "safe"),
            stdin=text(), SESSIONWATCH_CHAINS__MUMBAI__RPC=proxy.url,
        )  # fmt: skip
    assert (missing.code, missing.out) == (2, "")
    assert "the node has no block under the tag safe" in missing.err


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (replace_root, {"root", "proof", "contract"}),
        (clear_root, {"root", "proof", "contract"}),
        (disable_manager, {"module_enabled"}),
    ],
    ids=["root replaced", "root cleared", "manager disabled"],
)
async def test_what_takes_a_sessions_use_away(
    stage: Stage, change: Change, failing: set[str]
) -> None:
    """Usable before, not after, and it says by what; so does the EntryPoint."""
    before = await stage.validate("--index", "0", code=0)
    assert await stage.can_mint(0)
    await change(stage)
    assert await stage.failing("--index", "0") == failing
    assert not await stage.can_mint(0)
    # The block before still has the old state.
    number = str(before["block"]["number"])
    assert await stage.validate("--index", "0", "--at-block", number, code=0) == before


async def test_an_inner_node_is_no_member_though_the_manager_takes_it(stage: Stage) -> None:
    """Its proof leads to the root and validateSessionKey approves; membership says no."""
    inner = merkle_root(LEAVES[:2])
    found = await stage.validate("--leaf", f"0x{inner.hex()}", code=1)
    points = {one["name"]: one["holds"] for one in found["points"]}
    assert (points["proof"], points["contract"], points["member"]) == (True, True, False)
    assert found["index"] is None


async def test_an_account_without_code_and_a_manager_without_code(stage: Stage) -> None:
    """Nothing deployed is a no with its reason, not an error; empty code takes every call."""
    stranger = Stage(stage.devnet, stage.devnet.account("nobody yet"))
    nothing = {"account", "module_enabled", "root", "proof", "contract"}
    assert await stranger.failing("--index", "0") == nothing
    empty = ("--manager", f"0x{NO_MODULE.hex()}")
    found = await stage.validate("--index", "0", *empty, code=1)
    points = {one["name"]: one["holds"] for one in found["points"]}
    assert (points["manager"], points["contract"], points["account"]) == (False, None, True)


async def test_taint_is_told(stage: Stage) -> None:
    """A manager as fallback handler, or another implementation: the account is not its own."""
    function = "setFallbackHandler(address)"
    await stage.owner_calls(stage.account.address, function, at.MANAGER)
    assert await stage.failing("--index", "0") == {"fallback_handler"}
    await stage.owner_calls(stage.account.address, function, at.FALLBACK_HANDLER)
    change = "updateImplementation(address)"
    await stage.owner_calls(stage.account.address, change, at.EVIL_IMPLEMENTATION)
    assert await stage.failing("--index", "0") == {"account"}


async def asked(stage: Stage, url: str, give_up_seconds: float = 10.0) -> Any:
    """Ask in this process, over the node at this URL."""
    environ = {
        "SESSIONWATCH_DATABASE__URL": "embedded",
        "SESSIONWATCH_CHAINS__MUMBAI__RPC": url,
    }
    (chain,) = load_settings(None, environ=environ).chains
    proved = prove_session(SESSIONS, 0)
    return await read_session_state(
        chain, stage.account.address, at.MANAGER, proved, "latest", give_up_seconds=give_up_seconds
    )


async def test_everything_is_read_after_one_block(stage: Stage) -> None:
    """A root that is replaced between two questions does not mix with what was read before."""

    async def replace_meanwhile(_calls: list[Any]) -> None:
        await replace_root(stage)

    async with NodeProxy(stage.devnet.url) as proxy:
        proxy.before_next("eth_getCode", replace_meanwhile)
        state = await asked(stage, proxy.url)
    assert state.root == root_of_set(SESSIONS)
    assert state.refusal is None
    assert await stage.devnet.root_of(at.MANAGER, stage.account.address) != state.root


async def test_a_reorg_between_two_questions_is_asked_again(stage: Stage) -> None:
    """The block's hash is gone: the answer is about the branch that won."""

    async def reorg(_calls: list[Any]) -> None:
        await stage.devnet.rpc.reorg(1)

    async with NodeProxy(stage.devnet.url) as proxy:
        proxy.before_next("eth_getCode", reorg)
        state = await asked(stage, proxy.url)
    assert state.root == Hash32(bytes(32))
    tip = await stage.devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    assert state.block.hash == raw(tip["hash"])


@pytest.mark.parametrize("method", ["eth_call", "eth_getStorageAt", "eth_getCode"])
async def test_an_error_is_never_a_no(stage: Stage, method: str) -> None:
    """What the node fails to answer is raised, to be tried again; a revert alone is a no."""
    async with NodeProxy(stage.devnet.url) as proxy:
        proxy.refuse(method, {"error": {"code": -32000, "message": "out of memory"}})
        with pytest.raises(NodeError) as caught:
            await asked(stage, proxy.url, give_up_seconds=1)
        assert caught.value.exit_code == 75
        proxy.heal()
        assert (await asked(stage, proxy.url)).refusal is None
        proxy.refuse("eth_call", {"error": {"code": 3, "message": "execution reverted: Reason"}})
        assert (await asked(stage, proxy.url)).refusal == "execution reverted: Reason"


async def test_a_node_that_stays_away_means_try_again(stage: Stage) -> None:
    """Nobody listens there: after the time given the last failure is raised, exit code 75."""
    with pytest.raises(NodeUnreachableError) as caught:
        await asked(stage, "http://127.0.0.1:1", give_up_seconds=1.5)
    assert caught.value.exit_code == 75


async def test_nodes_that_cannot_be_asked_have_their_exit_codes(stage: Stage) -> None:
    """Another chain and none at all are configuration, 78; nothing is said of the session."""
    other = await run(
        "sessions", "validate", "-", "--chain", "polygon", "--account", f"0x{'11' * 20}",
        "--index", "0", stdin=text(), SESSIONWATCH_CHAINS__POLYGON__RPC=stage.devnet.url,
    )  # fmt: skip
    assert (other.code, "serves chain 80001" in other.err, other.out) == (78, True, "")
    none = await run(
        "sessions", "validate", *stage.of_file("--index", "0"), stdin=text(),
        SESSIONWATCH_CHAINS__POLYGON__RPC=stage.devnet.url,
    )  # fmt: skip
    assert (none.code, "no chain with the chain_id 80001" in none.err) == (78, True)
    wrong = await run(
        "sessions", "validate", *stage.of_file("--index", "0", "--at-block", "soon"),
        stdin=text(), **stage.env(),
    )  # fmt: skip
    assert (wrong.code, "expected a block's number or one of" in wrong.err) == (2, True)


async def test_a_plan_put_on_chain_is_used(
    stage: Stage, database_url: str, connection: Connection
) -> None:
    """Stored, indexed, planned, sent, imported, proved, minted: the life of the next set."""
    env = with_rpc(database_url, stage.devnet.url)
    account = f"0x{stage.account.address.hex()}"

    async def command(*arguments: str, stdin: str = "", code: int = 0) -> Any:
        done = await run(*arguments, "--json", stdin=stdin, **env)
        assert done.code == code, done.err
        return json.loads(done.out)

    await command("sessions", "import", *stage.of_file(), stdin=text())
    assert (await run("run", "--once", **env)).code == 0
    new = seed_session(KEY.address, RECIPIENT, 5)
    plan = await command("sessions", "plan", "--account", account, "--add", "-", stdin=text([new]))
    assert [one["leaf"] for one in plan["plan"]["dropped"]] == [f"0x{LEAVES[1].hex()}"]
    await command("sessions", "import", "-", stdin=json.dumps(plan))
    newest = str(await connection.fetchval("SELECT max(set_id) FROM sessions.session_set"))
    leaf = f"0x{session_leaf(new).hex()}"
    of_new = ("--set", newest, "--leaf", leaf)
    before = await command("sessions", "validate", *of_new, code=1)
    failing = {one["name"] for one in before["points"] if not one["holds"]}
    assert failing == {"root", "proof", "contract"}

    call = plan["plan"]["call"]
    calls = [Call(Address(raw(call["to"])), raw(call["data"]))]
    assert (await stage.devnet.submit(stage.account, calls)).succeeded
    assert (await command("sessions", "validate", *of_new))["usable"]
    op = await stage.devnet.op(stage.account, [mint_call(RECIPIENT, 5, 2)])
    signature = f"0x{KEY.sign(op.hash()).hex()}"
    shown = await command("sessions", "prove", *of_new, "--signature", signature)
    signed = replace(op, signature=raw(shown["signature"]))
    assert (await stage.devnet.send(stage.devnet.bundle([signed]))).succeeded
    assert await stage.devnet.balance_of(at.SEED_TOKEN, RECIPIENT, 5) == 2


def with_rpc(database_url: str, node_url: str) -> dict[str, str]:
    """Return the environment of all verbs on the local chain."""
    return {
        "SESSIONWATCH_DATABASE__URL": database_url,
        "SESSIONWATCH_CHAINS__MUMBAI__RPC": node_url,
        "SESSIONWATCH_CHAINS__MUMBAI__FINALITY": "64",
        "SESSIONWATCH_CHAINS__MUMBAI__START_BLOCK": "0",
    }
