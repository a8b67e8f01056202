"""`sessions export` on the command line: what it writes, import stores as the same sets."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from indexer.core.session_sets import build_set
from indexer.core.types import Address, Session
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.environment import environment
from tests.fixtures_database import connected
from tests.test_cli import ROOT, run, with_database

CHAIN_ID = 80001
MANAGER = Address(bytes.fromhex("000002fbffedd9b33f4e7156f2de8d48945e7489"))
ACCOUNT = Address(b"\xac" * 20)
OTHER = Address(b"\xbb" * 20)
ERC20_MODULE = Address(bytes.fromhex("000000D50C68705bd6897B2d17c7de32FB519fDA"))
KEY = b"\x11" * 20
SESSIONS = [
    Session(0, 0, ERC20_MODULE, KEY.rjust(32, b"\0") + bytes([n]).rjust(32, b"\0") * 3)
    for n in (3, 1, 2, 1)
]


def the_set(*order: int, account: Address = ACCOUNT) -> Any:
    return build_set(CHAIN_ID, MANAGER, account, [SESSIONS[n] for n in order])


async def store(url: str, *sets: Any) -> list[str]:
    """Store sets; return their ids as they are typed."""
    async with Database.open(url, max_size=1) as database:
        rows = await import_sets(database, [(one, "plain") for one in sets])
    return [str(row.set_id) for row in rows]


def shown(*sets: Any) -> list[dict[str, Any]]:
    """What `import --json` prints of these sets."""
    return [
        {
            "chain_id": one.chain_id,
            "manager": f"0x{one.manager.hex()}",
            "account": f"0x{one.account.hex()}",
            "matched_form": one.matched_form,
            "root": f"0x{one.root.hex()}",
            "leaves": [f"0x{leaf.hex()}" for leaf in one.leaves],
        }
        for one in sets
    ]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def imported(*arguments: str, stdin: str = "", options: str = "") -> list[dict[str, Any]]:
    done = await run(
        "sessions", "import", *arguments, *options.split(), "--dry-run", "--json", stdin=stdin
    )
    assert done.code == 0, done.err
    return list(json.loads(done.out))


def options_told(err: str) -> str:
    """The options that the last line says import needs; none if it says nothing."""
    return err.splitlines()[-1].partition("import with ")[2]


@pytest.mark.parametrize("form", ["plain", "particle_response", "sdk_dump", "particle_demo_store"])
async def test_a_set_imports_as_the_set_it_was(form: str, database_url: str) -> None:
    """With the options that the last line names, the document gives the set back, in order."""
    one = the_set(0, 1, 2, 3)
    (set_id,) = await store(database_url, one)
    env = with_database(database_url)
    done = await run("sessions", "export", set_id, "--form", form, **env)
    assert done.code == 0, done.err
    assert done.err.startswith("1 session set written\n")
    assert await imported("-", stdin=done.out, options=options_told(done.err)) == shown(one)


async def test_a_backup_can_be_stored_in_another_database(
    database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """A folder with everything, imported where nothing is, exports as the same bytes again."""
    sets = [the_set(0, 1), the_set(0, 1, 2), the_set(0, account=OTHER)]
    await store(database_url, *sets)
    folder = tmp_path / "backup"
    done = await run("sessions", "export", "--split", str(folder), **with_database(database_url))
    assert (done.code, done.out) == (0, ""), done.err
    assert f"3 session sets written to {folder}\n" == done.err
    (file,) = folder.iterdir()
    assert [stat.S_IMODE(p.stat().st_mode) for p in (folder, file)] == [0o700, 0o600]
    assert names_in(tmp_path) == ["backup"]

    other = with_database(empty_database_url)
    assert (await run("schema", "apply", **other)).code == 0
    stored = await run("sessions", "import", str(file), "--json", **other)
    assert (stored.code, json.loads(stored.out)) == (0, shown(*sets)), stored.err
    again = await run("sessions", "export", **other)
    assert again.out == file.read_text()


async def test_stores_of_the_sdk_get_the_names_of_their_accounts(
    database_url: str, tmp_path: Path
) -> None:
    """Of --split each store's name says its account, so import needs no --account."""
    sets = [the_set(0, 1), the_set(2, account=OTHER)]
    await store(database_url, *sets)
    folder = tmp_path / "stores"
    done = await run(
        "sessions", "export", "--form", "sdk_store", "--split", str(folder),
        **with_database(database_url),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert options_told(done.err) == f"--chain mumbai --manager 0x{MANAGER.hex()}"
    for one in sets:
        file = folder / f"0x{one.account.hex()}_sessions.json"
        assert await imported(str(file), options=options_told(done.err)) == shown(one)
    assert len(list(folder.iterdir())) == 2


async def test_sets_are_chosen_by_options(database_url: str) -> None:
    """All sets of an account, a chain, a manager, a state; the oldest first."""
    sets = [the_set(0), the_set(1, account=OTHER), the_set(0, 1)]
    await store(database_url, *sets)
    env = with_database(database_url)
    for options, expected in (
        (["--account", f"0x{ACCOUNT.hex()}", "--chain", "mumbai"], [sets[0], sets[2]]),
        (["--manager", f"0x{MANAGER.hex()}", "--state", "stored"], sets),
    ):
        done = await run("sessions", "export", *options, **env)
        assert await imported("-", stdin=done.out) == shown(*expected)


async def test_what_cannot_be_exported_is_refused(database_url: str, tmp_path: Path) -> None:
    """Each refusal is one sentence and a way out, exit code 2, and nothing is written."""
    env = with_database(database_url)

    async def refused(*arguments: str) -> str:
        before = names_in(tmp_path)
        done = await run("sessions", "export", *arguments, **env)
        assert (done.code, done.out) == (2, ""), done
        assert names_in(tmp_path) == before
        return done.err

    file = str(tmp_path / "sets.json")
    assert "no session set is stored" in await refused("--output", file)
    first, second = await store(database_url, the_set(0), the_set(0, 1))
    assert "no session set 999 is stored" in await refused(first, "999", "--output", file)
    assert "no such session set" in await refused("--state", "on_chain", "--output", file)
    assert "no chain 'mumbay' is known" in await refused("--chain", "mumbay")
    assert "'nonsense' is not one of 'object'" in await refused("--form", "nonsense")
    assert "already says which set" in await refused(first, "--chain", "mumbai")
    assert "either --split or --output" in await refused("--split", file, "--output", file)
    assert f"(session sets {first}, {second})" in await refused("--form", "plain")
    for output in (["--split", file], []):
        assert "one place per account" in await refused("--form", "sdk_dump", *output)
    assert "No such file or directory" in await refused("--output", str(tmp_path / "no/sets.json"))
    for other in (str(tmp_path), "/dev/null"):
        assert "is no ordinary file" in await refused("--output", other, "--force")
    assert "is there already" in await refused("--split", str(tmp_path))
    other = str(tmp_path / f"0x{OTHER.hex()}_sessions.json")
    assert "choose another name" in await refused(first, "--output", other)


async def test_a_file_is_private_and_replaced_only_with_force(
    database_url: str, tmp_path: Path
) -> None:
    """A file that is there keeps its content and mode; --force puts the new one in its place."""
    env = with_database(database_url)
    (set_id,) = await store(database_url, the_set(0))
    file = tmp_path / "sets.json"
    file.write_text("mine")
    file.chmod(0o644)
    command = ["sessions", "export", set_id, "--output", str(file)]
    refused = await run(*command, **env)
    assert (refused.code, file.read_text()) == (2, "mine")
    assert "is there already" in refused.err
    assert "--force" in refused.err

    done = await run(*command, "--force", **env)
    assert (done.code, done.out, names_in(tmp_path)) == (0, "", ["sets.json"]), done.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert await imported(str(file)) == shown(the_set(0))
    # refused before the database is asked
    away = await run(*command, **with_database("postgresql://nobody@127.0.0.1:1/none"))
    assert (away.code, "is there already" in away.err) == (2, True)


async def test_nothing_is_left_when_the_database_is_away(tmp_path: Path) -> None:
    """Exit code 75, and neither the file nor a half of it."""
    env = with_database("postgresql://nobody@127.0.0.1:1/none")
    for target in (["--output", str(tmp_path / "sets.json")], ["--split", str(tmp_path / "sets")]):
        done = await run("sessions", "export", *target, **env)
        assert done.code == 75, done.err
        assert names_in(tmp_path) == []


async def test_a_stop_leaves_nothing_half_written(database_url: str, tmp_path: Path) -> None:
    """SIGTERM while the database makes it wait: exit code 130, and no file."""
    await store(database_url, the_set(0))
    async with connected(database_url) as connection, connection.transaction():
        await connection.execute("LOCK TABLE sessions.session IN ACCESS EXCLUSIVE MODE")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "indexer", "sessions", "export",
            "--output", str(tmp_path / "sets.json"),
            cwd=ROOT, stderr=asyncio.subprocess.PIPE,
            env=environment(SESSIONWATCH_CONFIG="", **with_database(database_url)),
        )  # fmt: skip
        waiting = """SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database
                      WHERE NOT granted AND datname = current_database()"""
        while not await connection.fetchval(waiting):
            assert process.returncode is None
        assert len(names_in(tmp_path)) == 1
        process.terminate()
        _, err = await process.communicate()
    assert (process.returncode, b"Traceback" in err) == (130, False), err
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("count", [1, 10_000])
async def test_a_long_export_shows_its_progress_to_a_person(
    count: int, database_url: str, tmp_path: Path
) -> None:
    """On a terminal a bar counts the sessions of a long export; short ones show none."""
    accounts = (Address(n.to_bytes(20, "big")) for n in range(1, count + 1))
    await store(database_url, *(the_set(0, 1, account=account) for account in accounts))
    person, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "indexer", "sessions", "export", "--output", str(tmp_path / "f"),
        cwd=ROOT, stderr=terminal, stdout=terminal,
        env=environment(TERM="xterm", SESSIONWATCH_CONFIG="", **with_database(database_url)),
    )  # fmt: skip
    os.close(terminal)
    seen = await asyncio.to_thread(_read_all, person)
    assert await process.wait() == 0, seen
    assert (b"sessions \x1b[" in seen) is (count > 1)
    assert b"%" in seen or count == 1
    assert f"{count} session set".encode() in seen
    assert len(json.loads((tmp_path / "f").read_text())) == count


def _read_all(terminal: int) -> bytes:
    """Read a terminal until the last process that writes to it has ended."""
    found = b""
    try:
        while more := os.read(terminal, 4096):
            found += more
    except OSError:  # Linux says so when the other side is closed
        pass
    finally:
        os.close(terminal)
    return found
