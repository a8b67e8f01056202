"""`sessions prove` on the command line: one session of a set, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer.core.merkle import implied_root, merkle_root, session_leaf
from indexer.core.session_export import session_as_json
from indexer.core.session_sets import build_set
from indexer.core.types import Address, Hash32, Session
from indexer.core.user_operations import decode_signature
from tests.fixtures_database import Connection
from tests.test_cli import CASES, run, with_database
from tests.test_cli_export import ACCOUNT, CHAIN_ID, ERC20_MODULE, KEY, MANAGER, OTHER, store
from tests.test_cli_plan import index_to, observe_root

OTHER_KEY = b"\x22" * 20
SESSIONS = [
    Session(0, 0, ERC20_MODULE, key.rjust(32, b"\0") + n.to_bytes(32) * 3)
    for n, key in enumerate((KEY, KEY, OTHER_KEY))
]
REPEATED = [*SESSIONS, SESSIONS[2]]
SIGNATURE = "0x" + "ab" * 65
OF_FILE = ("-", "--chain", "mumbai", "--account", f"0x{ACCOUNT.hex()}")


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def document(*sessions: Session, **place: object) -> str:
    return json.dumps({"sessions": [session_as_json(one) for one in sessions], **place})


async def proved(*arguments: str, stdin: str = "", **env: str) -> tuple[dict[str, Any], str]:
    done = await run("sessions", "prove", *arguments, "--json", stdin=stdin, **env)
    assert done.code == 0, done.err
    return json.loads(done.out), done.err


def same_session(shown: dict[str, Any], sessions: list[Session]) -> None:
    """Both encodings, decoded by the code that reads other people's, are this session's."""
    (seen,) = decode_signature(raw(shown["signature"])).sessions
    assert seen.manager == MANAGER
    assert seen.session in sessions
    assert seen.leaf.hex() == shown["leaf"][2:]
    assert [f"0x{one.hex()}" for one in seen.proof] == shown["proof"]
    assert seen.implied_root == merkle_root([session_leaf(one) for one in sessions])
    assert f"0x{seen.implied_root.hex()}" == shown["root"]
    assert shown["module_signature"][2:] in shown["signature"]


@pytest.mark.parametrize(
    "case",
    [one for one in CASES if one["id"] in {"size-5", "size-33", "dup-aba", "abi-tuple", "size-1"}],
    ids=lambda case: case["id"],
)
async def test_a_file_is_proved_without_a_database(case: dict[str, Any]) -> None:
    """The vendor's proof for the last session of the document, with nothing configured."""
    last = len(case["sessions"]) - 1
    shown, err = await proved(
        "-", "--chain", "mumbai", "--account", case["account"], "--index", str(last),
        stdin=json.dumps(case["sessions"]),
    )  # fmt: skip
    assert (shown["proof"], shown["root"]) == (case["proofs"][last], case["root"])
    assert shown["leaf"] == case["leaves"][last]
    assert (shown["set_id"], shown["index"]) == (None, last)
    assert "error" not in err
    text = await run(
        "sessions", "prove", "-", "--chain", "mumbai", "--account", case["account"],
        "--index", str(last), stdin=json.dumps(case["sessions"]),
    )  # fmt: skip
    count = len(case["sessions"])
    assert text.out.splitlines()[0].endswith(f" ({count} sessions, counted from 0)")
    assert text.out.splitlines()[1].split() == ["index", str(last)]


async def test_a_stored_session_is_proved_by_leaf_index_or_key(
    database_url: str, connection: Connection
) -> None:
    """Three ways to name one session; of one that repeats it is the last place's proof."""
    env = with_database(database_url)
    (set_id,) = await store(database_url, build_set(CHAIN_ID, MANAGER, ACCOUNT, REPEATED))
    await index_to(connection, 1)
    await observe_root(connection, merkle_root([session_leaf(one) for one in REPEATED]))
    leaf = f"0x{session_leaf(SESSIONS[2]).hex()}"
    ways = [("--leaf", leaf), ("--index", "2"), ("--session-key", f"0x{OTHER_KEY.hex()}")]
    found = [await proved("--set", set_id, *way, **env) for way in ways]
    assert all(one == found[0] for one in found)
    shown, err = found[0]
    assert err == ""
    assert (shown["index"], shown["session_key"]) == (3, f"0x{OTHER_KEY.hex()}")
    same_session(shown, REPEATED)


async def test_the_session_keys_signature_goes_where_it_is_told() -> None:
    """Without one there are 65 zero bytes at the places named; with one they hold it."""
    of_file = (*OF_FILE, "--index", "1")
    without, _ = await proved(*of_file, stdin=document(*SESSIONS))
    signed, _ = await proved(*of_file, "--signature", SIGNATURE, stdin=document(*SESSIONS))
    for name in ("module_signature", "signature"):
        at = without["session_key_signature_at"][name]
        inside = raw(without[name])
        assert inside[at : at + 65] == bytes(65)
        assert inside[:at] + raw(SIGNATURE) + inside[at + 65 :] == raw(signed[name])
    assert (without["session_key_signature"], signed["session_key_signature"]) == (None, SIGNATURE)
    same_session(signed, SESSIONS)

    text = await run("sessions", "prove", *of_file, stdin=document(*SESSIONS))
    assert text.code == 0, text.err
    assert without["signature"] in text.out.splitlines()
    assert f"byte {without['session_key_signature_at']['signature']} of signature" in text.out
    shown = [raw(line.split()[1]) for line in text.out.splitlines() if line.startswith("     ")]
    assert implied_root(Hash32(raw(without["leaf"])), map(Hash32, shown)) == raw(without["root"])


async def test_another_root_on_chain_is_a_warning(
    database_url: str, connection: Connection
) -> None:
    """The proof is given all the same; who sends it now is told that it will be refused."""
    env = with_database(database_url)
    (set_id,) = await store(database_url, build_set(CHAIN_ID, MANAGER, ACCOUNT, SESSIONS))
    _, unknown = await proved("--set", set_id, "--index", "0", **env)
    assert "no root of this account is indexed" in unknown
    await index_to(connection, 1)
    await observe_root(connection, b"\x77" * 32)
    shown, err = await proved("--set", set_id, "--index", "0", **env)
    assert f"the account has the root 0x{'77' * 32} since block 9, not that of this set" in err
    same_session(shown, SESSIONS)


async def test_one_of_several_sets_of_a_document_is_chosen_by_account() -> None:
    """A document with the sets of two accounts; --account leaves one of them."""
    sets = [
        {"account": f"0x{one.hex()}", "sessions": [session_as_json(SESSIONS[n])]}
        for n, one in enumerate((ACCOUNT, OTHER))
    ]
    shown, _ = await proved(
        "-", "--chain", "mumbai", "--account", f"0x{OTHER.hex()}", "--index", "0",
        stdin=json.dumps(sets),
    )  # fmt: skip
    assert shown["leaf"] == f"0x{session_leaf(SESSIONS[1]).hex()}"
    refused = await run(
        "sessions", "prove", "-", "--chain", "mumbai", "--index", "0", stdin=json.dumps(sets)
    )
    assert (refused.code, "the options fit 2 of them" in refused.err) == (2, True)


async def test_a_store_with_revoked_sessions_is_proved_as_the_sdk_has_it() -> None:
    """The tree is over all sessions whatever their status, which is said."""
    nodes = [
        {**session_as_json(one), "status": status}
        for one, status in zip(SESSIONS, ("REVOKED", "ACTIVE", "PENDING"), strict=True)
    ]
    shown, err = await proved(
        *OF_FILE, "--index", "1", stdin=json.dumps({"merkleRoot": "", "leafNodes": nodes})
    )
    assert shown["root"] == f"0x{merkle_root([session_leaf(one) for one in SESSIONS]).hex()}"
    assert "the tree over all of them" in err


async def test_configured_layouts_name_the_key(tmp_path: Path) -> None:
    """A module of one's own, laid out by the configuration: its key chooses the session."""
    config = tmp_path / "sessionwatch.toml"
    module = "0x" + "99" * 20
    config.write_text(
        '[database]\nurl = "postgresql://nobody@127.0.0.1:1/none"\n'
        '[chains.mumbai]\nrpc = ["http://[::1]:1"]\n'
        f'session_layouts = ["{module}: session_key"]\n'
    )
    own = [replace(one, session_validation_module=Address(b"\x99" * 20)) for one in SESSIONS[1:]]
    shown, _ = await proved(
        *OF_FILE, "--session-key", f"0x{KEY.hex()}", "--config", str(config), stdin=document(*own)
    )
    assert (shown["index"], shown["session_key"]) == (0, f"0x{KEY.hex()}")


async def test_what_cannot_be_proved_is_refused(database_url: str) -> None:
    """Each refusal is one sentence and a way out, exit code 2; no key is repeated."""
    env = with_database(database_url)
    (set_id,) = await store(database_url, build_set(CHAIN_ID, MANAGER, ACCOUNT, SESSIONS))

    async def refused(*arguments: str, stdin: str = "") -> str:
        done = await run("sessions", "prove", *arguments, stdin=stdin, **env)
        assert (done.code, done.out) == (2, ""), done
        return done.err

    of_set = ("--set", set_id)
    assert "either a stored set (--set) or a FILE" in await refused("--index", "0")
    assert "either a stored set (--set) or a FILE" in await refused("-", *of_set, "--index", "0")
    assert "name the session once" in await refused(*of_set)
    assert "name the session once" in await refused(
        *of_set, "--index", "0", "--leaf", "0x" + 64 * "0"
    )
    assert "--set already says" in await refused(*of_set, "--index", "0", "--chain", "mumbai")
    assert "no session set 999" in await refused("--set", "999", "--index", "0")
    assert "the last is --index 2" in await refused(*of_set, "--index", "3")
    assert "no session with that leaf" in await refused(*of_set, "--leaf", "0x" + 64 * "0")
    several = await refused(*of_set, "--session-key", f"0x{KEY.hex()}")
    assert "2 sessions of that key" in several
    assert "--index: 0, 1" in several
    assert "no session whose key" in await refused(*of_set, "--session-key", f"0x{OTHER.hex()}")
    inner = merkle_root([session_leaf(one) for one in SESSIONS[:2]])
    assert "is an inner node" in await refused(*of_set, "--leaf", f"0x{inner.hex()}")
    secret = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
    for option in ("--signature", "--session-key"):
        said = await refused(*of_set, "--index", "0", option, f"0x{secret}")
        assert secret not in said
    assert "expected 1 to" in await refused(*of_set, "--index", "0", "--signature", "0x")
    assert "which account" in await refused(
        "-", "--index", "0", "--chain", "mumbai", stdin=document(*SESSIONS)
    )
