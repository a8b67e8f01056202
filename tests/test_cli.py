"""The command line: what each verb prints, and the exit codes that scripts and systemd read."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import click
import pytest
import structlog

from indexer.chain.state import MERKLE_ROOT_UPDATED
from indexer.check import render, run_check
from indexer.cli import cli, execute
from indexer.cli_common import report_error
from indexer.config import Settings, load_settings
from indexer.core.presets import MANAGER_V1_0_0, MANAGER_V1_0_1
from indexer.errors import FatalError, RetryableError
from indexer.store.schema import SCHEMA_VERSION
from tests.environment import environment
from tests.sim.node import SimNode

ROOT = Path(__file__).parents[1]
CASES = json.loads((ROOT / "tests/vectors/sessions.json").read_text())["cases"]
ACCOUNT = "0xffb85583f07a0cD63064Ae41815585e5E866aE05"
MANAGER = "0x000002FbFfedd9B33F4E7156F2DE8D48945E7489"
SESSION = {
    "validUntil": 0,
    "validAfter": 0,
    "sessionValidationModule": "0x8E09744b738e9Fec4A4df7Ab5621f1857F6Fa175",
    "sessionKeyData": "0x1234",
}


@dataclass(frozen=True, slots=True)
class Done:
    code: int | None
    out: str
    err: str


async def run(*arguments: str, stdin: str = "", **environ: str) -> Done:
    """Run the real command in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "indexer",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(PATH="/usr/bin:/bin", SESSIONWATCH_CONFIG="") | environ,
    )
    out, err = await process.communicate(stdin.encode())
    done = Done(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in done.err, done.err
    return done


def with_database(url: str) -> dict[str, str]:
    return {"SESSIONWATCH_DATABASE__URL": url, "SESSIONWATCH_CHAINS__MUMBAI__RPC": "http://[::1]:1"}


@pytest.fixture
def _clean_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def verbs(command: click.Command = cli, path: str = "sessionwatch") -> Iterator[Any]:
    yield pytest.param(command, path, id=path)
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from verbs(inner, f"{path} {name}")


@pytest.mark.parametrize(("command", "path"), list(verbs()))
def test_each_verb_has_a_page_of_help_with_an_example(command: click.Command, path: str) -> None:
    """Help says what the verb does and shows at least one line that could be typed."""
    text = command.get_help(click.Context(command, info_name=path, max_content_width=100))
    assert "EXAMPLE" in text
    assert "sessionwatch" in text.split("EXAMPLE")[1]
    assert len(text.splitlines()) < 45


async def test_help_imports_nothing_heavy() -> None:
    """`sessionwatch --help` answers at once: no node, database or web library is imported."""
    code = (
        "import sys; from indexer.cli import execute; assert execute(['--help']) == 0; "
        "print(sorted({'web3','aiohttp','asyncpg','numpy','pydantic','rich'} & set(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().splitlines()[-1] == "[]"


async def test_the_version_is_printed() -> None:
    """--version names the program and its version, as packagers expect."""
    done = await run("--version")
    assert (done.code, done.out.split()[0]) == (0, "sessionwatch")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run", "--onec"], "No such option"),
        (["sessions", "import", "/nowhere.json"], "No such file"),
        (["sessions", "import", "-", "--account", "0xzz"], "expected an address: 0x and 40 hex"),
        (["sessions", "import", "-", "--dry-run", "--chain", "mumbay"], "known are: mumbai, amoy"),
        (["rewind", "--chain", "mumbai"], "Missing option '--to'"),
        (["demo", "--port", "70000"], "70000 is not in the range"),
    ],
)
async def test_wrong_usage_is_exit_code_2(arguments: list[str], words: str) -> None:
    """A mistake on the command line is said in one sentence and ends with 2."""
    done = await run(*arguments, stdin="[]")
    assert done.code == 2
    assert words in done.err
    assert done.out == ""


@pytest.mark.parametrize("verb", [["run"], ["check"], ["status"], ["schema", "apply"]])
async def test_a_wrong_configuration_is_exit_code_78(verb: list[str], tmp_path: Path) -> None:
    """Each verb that needs a configuration refuses a wrong one, with a remedy and no secret."""
    file = tmp_path / "c.toml"
    file.write_text('[database]\nurl = "mysql://u:hunter2@h"\n[chains.mumbai]\nrpc = "hunter2"')
    done = await run("--config", str(file), *verb)
    assert done.code == 78
    assert f"error: the configuration has 2 mistakes:\n  {file}:2: database.url" in done.err
    assert "remedy: " in done.err
    assert "hunter2" not in done.err
    assert done.out == ""
    after = await run(*verb, "--config", "/nowhere.toml")
    assert after.code == 78
    assert "/nowhere.toml: the file cannot be read" in after.err


@pytest.mark.usefixtures("_clean_logging")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_dry_run_prints_the_leaves_and_root_of_the_vendor(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without database or configuration, `sessions import --dry-run` is right bit for bit."""
    file = tmp_path / "sessions.json"
    file.write_text(json.dumps(case["sessions"]))
    arguments = ["sessions", "import", str(file), "--chain", "mumbai", "--dry-run", "--json"]
    assert execute([*arguments, "--account", case["account"]]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found == {
        "chain_id": 80001,
        "manager": MANAGER.lower(),
        "account": case["account"].lower(),
        "matched_form": "all_leaves",
        "root": case["root"],
        "leaves": case["leaves"],
    }


async def test_a_dry_run_reads_standard_input_and_prints_text() -> None:
    """Text for people has the same things as the JSON; warnings go to stderr."""
    document = {"account": ACCOUNT, "chainId": 80001, "sessions": [SESSION], "manager": MANAGER}
    done = await run("sessions", "import", "-", "--dry-run", stdin=json.dumps(document))
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert [line[0] for line in lines] == [
        *("chain_id", "manager", "account", "matched_form", "root", "leaves", "0")
    ]
    assert lines[2][1] == ACCOUNT.lower()
    assert lines[4][1] == lines[6][1]
    assert "nothing was stored" in done.err


@pytest.mark.parametrize(
    ("document", "options", "words"),
    [
        ("not json", [], "JSON"),
        ("[]", [], "empty"),
        (json.dumps({f"{ACCOUNT}_signers": "[]"}), [], "sessions"),
        (json.dumps([{**SESSION, "sessionKeyData": "0x123"}]), [], "sessionKeyData"),
        (json.dumps([SESSION] * 10_001), [], "10"),
        (json.dumps([SESSION]), ["--account", ACCOUNT], "which chain"),
        (json.dumps([SESSION]), ["--chain", "mumbai"], "which account"),
        (
            json.dumps({"account": MANAGER, "sessions": [SESSION]}),
            ["--chain", "mumbai", "--account", ACCOUNT],
            "--account says",
        ),
        (
            json.dumps({"chainId": 1, "account": MANAGER, "sessions": [SESSION]}),
            ["--chain", "mumbai"],
            "the document says chain id 1, --chain says 80001",
        ),
    ],
    ids=["text", "empty", "signers", "odd-hex", "10001", "chain", "account", "other", "chain-id"],
)
async def test_documents_that_cannot_be_imported_are_refused(
    document: str, options: list[str], words: str
) -> None:
    """A wrong document is wrong usage: one clear sentence, exit code 2, nothing stored."""
    done = await run("sessions", "import", "-", "--dry-run", *options, stdin=document)
    assert done.code == 2, done.err
    assert done.err.startswith("error: ")
    assert words in done.err
    assert done.out == ""


async def test_a_closed_standard_stream_is_no_failure_of_ours() -> None:
    """Without standard input the document is empty; without standard output nothing is printed."""
    for redirection, code in (("<&-", 2), ("</dev/null", 2), ("</dev/null >&- 2>&-", 2)):
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f'exec "$@" {redirection}', "sh"),
            *(sys.executable, "-m", "indexer", "sessions", "import", "-", "--dry-run"),
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        _, err = await process.communicate()
        assert process.returncode == code
        assert b"Traceback" not in err
        assert b"2>&-" in redirection.encode() or b"standard input is empty" in err


async def test_the_name_of_the_database_is_not_hidden(database_url: str) -> None:
    """A remedy that begins with the program's name stays readable: databases are called so."""
    name = "sessionwatch_of_" + database_url.partition("?")[0].rpartition("/")[2]
    url = database_url.replace(name.removeprefix("sessionwatch_of_"), name)
    done = await run("status", **with_database(url))
    assert done.code == 78
    assert f'database "{name}" does not exist' in done.err
    assert "(hidden)" not in done.err


async def test_numbers_too_large_for_the_database_are_wrong_usage() -> None:
    """A number that no column holds is refused before anything is connected."""
    for arguments in (["sessions", "show", "9" * 30], ["sessions", "list", "--limit", "9" * 30]):
        done = await run(*arguments)
        assert (done.code, "is not in the range" in done.err) == (2, True)


async def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Two demos would share a database: the second says so and what to do, before it starts any."""
    folder = tmp_path / "demo"
    folder.mkdir()
    with (folder / "demo.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = await run("demo", "--port", "0", "--data-dir", str(tmp_path))
    assert (done.code, "another demo runs in" in done.err) == (78, True)
    assert "--data-dir" in done.err


async def test_what_is_imported_can_be_listed_and_shown(database_url: str) -> None:
    """Import stores once; list and show give back what was stored, as text and as JSON."""
    env = with_database(database_url)
    document = json.dumps({"account": ACCOUNT, "chainId": 80001, "sessions": [SESSION]})
    first = await run("sessions", "import", "-", "--json", stdin=document, **env)
    assert first.code == 0, first.err
    (stored,) = json.loads(first.out)
    assert stored["manager"] == MANAGER.lower()
    again = await run("sessions", "import", "-", stdin=document, **env)
    assert (again.code, "was stored before" in again.err) == (0, True)
    assert "follows" not in first.err + again.err

    (listed,) = json.loads((await run("sessions", "list", "--json", **env)).out)
    assert (listed["root"], listed["session_count"]) == (stored["root"], 1)
    nothing = await run("sessions", "list", "--chain", "polygon", **env)
    assert nothing.out == "no such session set is stored\n"
    assert stored["root"] in (await run("sessions", "list", "--chain", "mumbai", **env)).out

    set_id = str(listed["set_id"])
    shown = json.loads((await run("sessions", "show", set_id, "--json", **env)).out)
    assert shown["sessions"][0]["leaf"] == stored["leaves"][0]
    assert stored["leaves"][0] in (await run("sessions", "show", set_id, **env)).out
    missing = await run("sessions", "show", "999", **env)
    assert (missing.code, "no session set 999" in missing.err) == (2, True)


async def test_sets_of_a_chain_that_nothing_follows_are_stored_with_a_warning(
    database_url: str,
) -> None:
    """A preset is no configuration; where no chain at all is configured nobody can tell."""
    env = with_database(database_url)
    words = ["sessions", "import", "-", "--chain", "polygon", "--account", ACCOUNT]
    stored = await run(*words, stdin=json.dumps([SESSION]), **env)
    assert (stored.code, "session set 1 (all_leaves) stored" in stored.err) == (0, True)
    warning = "warning: no [chains.*] with chain id 137 is configured, so nothing follows it\n"
    assert stored.err.count(warning) == 1
    del env["SESSIONWATCH_CHAINS__MUMBAI__RPC"]
    again = await run(*words, stdin=json.dumps([SESSION]), **env)
    assert (again.code, "follows" in again.err) == (0, False)


async def test_a_dry_run_warns_of_no_chain(database_url: str) -> None:
    """What is not stored needs nobody to follow it."""
    words = ["sessions", "import", "-", "--chain", "polygon", "--account", ACCOUNT, "--dry-run"]
    done = await run(*words, stdin=json.dumps([SESSION]), **with_database(database_url))
    assert (done.code, "follows" in done.err) == (0, False)


async def test_the_schema_is_applied_once(empty_database_url: str) -> None:
    """Before it is applied verbs refuse with 78, a dry run changes nothing, twice is harmless."""
    env = with_database(empty_database_url)
    before = await run("status", **env)
    assert (before.code, "remedy: sessionwatch schema apply" in before.err) == (78, True)
    for arguments, words in (
        (["--dry-run"], "would get"),
        ([], "now has"),
        ([], "already has"),
    ):
        done = await run("schema", "apply", *arguments, **env)
        assert (done.code, words in done.out) == (0, True), done
    status = await run("status", **env)
    assert (status.code, status.out) == (0, "no chain has been indexed yet\n")
    assert json.loads((await run("status", "--json", **env)).out) == {"chains": []}
    rewind = await run("rewind", "--chain", "mumbai", "--to", "5", "--yes", **env)
    assert (rewind.code, "nothing of chain 80001 is indexed" in rewind.err) == (2, True)
    other = await run("rewind", "--chain", "polygon", "--to", "5", **env)
    assert (other.code, "configured are: mumbai" in other.err) == (2, True)


async def test_another_schema_version_is_exit_code_78(database_url: str) -> None:
    """A database of another version is named with both versions and left alone."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE evidence.schema_version SET version = 999")
    await connection.close()
    done = await run("sessions", "list", **with_database(database_url))
    assert done.code == 78
    assert "999" in done.err
    assert "remedy: " in done.err


async def test_the_schema_is_printed() -> None:
    """`schema print` is schema.sql, byte for byte."""
    done = await run("schema", "print")
    assert (done.code, done.out) == (0, (ROOT / "schema.sql").read_text())


async def test_a_database_that_is_away_is_exit_code_75() -> None:
    """An unreachable database means: try again later. Its URL is not repeated."""
    done = await run("status", **with_database("postgresql://u:hunter2@127.0.0.1:1/x"))
    assert done.code == 75
    assert "hunter2" not in done.err
    assert done.err.startswith("error: ")


def settings_for(url: str, database: str, **keys: str) -> Settings:
    environ = {
        "SESSIONWATCH_DATABASE__URL": database,
        "SESSIONWATCH_CHAINS__MUMBAI__RPC": url,
        "SESSIONWATCH_CHAINS__MUMBAI__FINALITY": "finalized",
    }
    return load_settings(None, environ=environ | keys)


async def test_check_says_what_stands_at_each_manager(database_url: str) -> None:
    """All is well: chain id, finality and each manager's kind are printed, exit code 0."""
    v1 = bytes.fromhex("7cb64759") + bytes.fromhex("b13152ee")
    async with SimNode(chain_id=80001, finality_depth=1) as node:
        node.mine(5, code={MANAGER_V1_0_1: v1, MANAGER_V1_0_0: MERKLE_ROOT_UPDATED})
        report = await run_check(settings_for(node.url, database_url), give_up_seconds=20)
        text = "\n".join(line for _, line in render(report))
        done = await run(
            "check",
            "--json",
            SESSIONWATCH_DATABASE__URL=database_url,
            SESSIONWATCH_CHAINS__MUMBAI__RPC=node.url,
        )
    assert report.exit_code == 0, text
    assert "Mumbai (80001) is retired, Amoy (80002) took its place" in text
    assert f"{MANAGER}: V1, without events" in text
    assert "0x000000456b395c4e107e0302553B90D1eF4a32e9: with events" in text
    assert "endpoint-1: chain id 80001, sim/v1.0.0, latest 5, finalized 4" in text
    assert f"schema version {SCHEMA_VERSION}" in text
    assert done.code == 0, done.err
    (chain,) = json.loads(done.out)["chains"]
    assert [manager["kind"] for manager in chain["managers"]] == ["v1", "events"]
    assert chain["managers"][0]["manager"] == MANAGER.lower()


async def test_check_warns_of_what_run_could_live_with(database_url: str) -> None:
    """No code at a manager, unknown code, or no finalized tag: warnings, not failures."""
    async with SimNode(chain_id=80001, finality_depth=None) as node:
        node.mine(2, code={MANAGER_V1_0_0: b"\x01\x02"})
        report = await run_check(settings_for(node.url, database_url), give_up_seconds=20)
    (chain,) = report.chains
    assert report.exit_code == 0
    assert "endpoint-1 has no finalized block; set chains.mumbai.finality" in chain.warnings[0]
    assert any(warning.startswith(f"manager {MANAGER}: no code") for warning in chain.warnings)
    assert sum("no code" in line for _, line in render(report)) == 1
    assert "unknown code" in chain.warnings[2]


async def test_check_refuses_another_chain(database_url: str) -> None:
    """A node of another chain is exit code 78 at once, with both chain ids."""
    async with SimNode(chain_id=137) as node:
        report = await run_check(settings_for(node.url, database_url), give_up_seconds=20)
    assert report.exit_code == 78
    assert report.chains[0].problems == ("endpoint-1 serves chain 137, configured is 80001",)


async def test_check_gives_up_on_what_does_not_answer() -> None:
    """An unreachable node and database are waited for, then it is exit code 75."""
    settings = settings_for("http://127.0.0.1:1/key", "postgresql://u:hunter2@127.0.0.1:1/x")
    report = await run_check(settings, give_up_seconds=4)
    text = "\n".join(line for _, line in render(report))
    assert report.exit_code == 75
    assert "no endpoint answers" in text
    assert "the database cannot be reached" in text
    assert "hunter2" not in text


async def test_check_needs_only_one_of_several_endpoints(database_url: str) -> None:
    """One dead endpoint beside a living one is a warning."""
    async with SimNode(chain_id=80001, finality_depth=1) as node:
        node.mine(3, code={MANAGER_V1_0_0: MERKLE_ROOT_UPDATED})
        urls = json.dumps(["http://127.0.0.1:1", node.url])
        report = await run_check(settings_for(urls, database_url), give_up_seconds=20)
    assert report.exit_code == 0
    assert report.chains[0].warnings[0].startswith("endpoint-1 does not answer")


def test_an_unforeseen_error_is_exit_code_70(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug shows its traceback, scrubbed, and ends with 70, so that systemd starts us again."""
    assert report_error(ValueError("at https://u:hunter2@h.example/key")) == 70
    err = capsys.readouterr().err
    assert "ValueError: at https://h.example/…" in err
    assert "hunter2" not in err


def test_of_several_errors_the_fatal_one_decides(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors of tasks that failed together are each said once; a fatal one gives the exit code."""
    group = ExceptionGroup(
        "tasks",
        [
            RetryableError("the node is away"),
            ExceptionGroup("more", [FatalError("wrong chain", remedy="another URL")]),
            RetryableError("the node is away"),
        ],
    )
    assert report_error(group) == 78
    err = capsys.readouterr().err
    assert err == "error: wrong chain\nremedy: another URL\nerror: the node is away\n"


async def test_a_reader_that_has_enough_is_no_error() -> None:
    """`| head -1` ends the program quietly."""
    document = json.dumps({"account": ACCOUNT, "chainId": 80001, "sessions": [SESSION] * 5000})
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m indexer sessions import - --dry-run | head -1",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    out, err = await process.communicate(document.encode())
    assert out == b"chain_id 80001\n"
    assert b"Traceback" not in err
    assert b"BrokenPipe" not in err
