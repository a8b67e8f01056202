"""A private key typed into the wrong place of a command line or configuration is not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.cli import execute
from indexer.config import load_settings
from indexer.errors import ConfigurationError

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x000002FbFfedd9B33F4E7156F2DE8D48945E7489"
HIDDEN = "(hidden: 64 hex digits)"


@pytest.fixture
def _configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sessionwatch.toml"
    file.write_text('[database]\nurl = "embedded"\n[chains.mumbai]\nrpc = "http://127.0.0.1:1"\n')
    monkeypatch.setenv("SESSIONWATCH_CONFIG", str(file))
    (tmp_path / "sessions.json").write_text("[]")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_configured")
@pytest.mark.parametrize("key", [KEY, f"0x{KEY}", f"0X{KEY.upper()}"], ids=["bare", "0x", "0X"])
@pytest.mark.parametrize(
    "arguments",
    [
        "KEY",
        "--KEY",
        "run --KEY",
        "run KEY",
        "explain KEY",
        f"explain {ADDRESS} --manager KEY",
        f"explain {ADDRESS} --chain KEY",
        "sessions KEY",
        "sessions show KEY",
        "sessions list --account KEY",
        "sessions list --chain KEY",
        "sessions list --limit KEY",
        "sessions export --account KEY",
        "sessions export --manager KEY",
        "sessions export KEY",
        "sessions export --state KEY",
        "sessions export --output folder/KEY",
        "sessions export --split folder/KEY",
        "sessions plan --account KEY",
        "sessions plan --set KEY",
        "sessions plan --add KEY",
        "sessions import KEY",
        "sessions import KEY.json",
        "sessions import sessions.json --account KEY",
        "sessions import sessions.json --manager KEY",
        "sessions import sessions.json --chain KEY --dry-run",
        "sessions prove KEY --index 0",
        "sessions prove --set 1 --session-key KEY",
        "sessions prove --set 1 --index 0 --signature KEY",
        "sessions validate --set 1 --index KEY",
        "rewind --chain KEY --to 1",
        "rewind --chain mumbai --to KEY",
        "audit --chain KEY",
        "--config KEY check",
        "check --config KEY",
        "demo --port KEY",
    ],
)
def test_a_key_on_the_command_line_is_not_repeated(
    arguments: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every place that takes a word refuses a key without repeating it."""
    code = execute(arguments.replace("KEY", key).split())
    said = capsys.readouterr()
    assert code in {2, 78}, said
    assert KEY[:20] not in (said.out + said.err).lower()
    assert "rror: " in said.err


@pytest.mark.usefixtures("_configured")
def test_an_ordinary_address_is_still_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    """Hiding keys must not make mistakes hard to find."""
    assert execute(["explain", f"{ADDRESS}0"]) == 2
    assert f'found "{ADDRESS}0" (41 digits)' in capsys.readouterr().err
    assert execute([ADDRESS]) == 2
    assert f"No such command '{ADDRESS}'" in capsys.readouterr().err


@pytest.mark.parametrize("quote", ['"', ""], ids=["text", "number"])
@pytest.mark.parametrize(
    "line",
    [
        "managers = KEY",
        "managers = [KEY]",
        "accounts = KEY",
        "accounts = [KEY]",
        "erc1155 = [KEY]",
        "session_layouts = KEY",
        "preset = KEY",
        "traces = KEY",
        "finality = KEY",
        "start_block = KEY",
        "rpc = KEY",
        "KEY = 1",
        "[chains.KEY.x]",
        "[KEY]",
        "[log]\nlevel = KEY",
        "[http]\nlisten = KEY",
    ],
)
def test_a_key_in_a_file_is_not_repeated(line: str, quote: str, tmp_path: Path) -> None:
    """Neither as a value nor as the name of a key or table; the daemon logs the same text."""
    file = tmp_path / "sessionwatch.toml"
    file.write_text(
        '[database]\nurl = "embedded"\n[chains.mumbai]\n'
        + line.replace("KEY", f"{quote}0x{KEY}{quote}")
    )
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, environ={})
    assert KEY[:20] not in str(caught.value).lower()
    assert str(int(KEY, 16))[:20] not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("CHAINS__MUMBAI__MANAGERS", f"0x{KEY}", f"found {HIDDEN}, expected an address"),
        ("CHAINS__MUMBAI__MANAGERS", f'["0x{KEY}"]', f"item 1 of 1: {HIDDEN}, expected an addr"),
        ("CHAINS__MUMBAI__MANAGERS", f"[0x{KEY}]", f'found "[{HIDDEN}]", not JSON'),
        ("CHAINS__MUMBAI__ACCOUNTS", KEY, f'found {HIDDEN}, expected "factory", "stored"'),
        ("CHAINS__MUMBAI__FINALITY", str(int(KEY, 16)), "found (hidden: 77 hex digits), expected"),
        (
            "CHAINS__MUMBAI__SESSION_LAYOUTS",
            f"{ADDRESS}: {KEY}",
            f'found "{ADDRESS}: {HIDDEN}": {HIDDEN} is no part of a layout',
        ),
        (f"X_{KEY}", "1", f"SESSIONWATCH_X_{HIDDEN}: not a variable of sessionwatch"),
    ],
)
def test_a_key_in_the_environment_is_not_repeated(name: str, value: str, found: str) -> None:
    """A variable is told with what was wrong, and how long what is hidden was."""
    environ = {
        "SESSIONWATCH_DATABASE__URL": "embedded",
        "SESSIONWATCH_CHAINS__MUMBAI__RPC": "http://127.0.0.1:1",
        f"SESSIONWATCH_{name}": value,
    }
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, environ=environ)
    assert found in str(caught.value)
    assert KEY[:20] not in str(caught.value)
