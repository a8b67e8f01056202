"""The unit keeps what the program promises. What systemd says of it: test_install_debian.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from indexer import errors
from indexer.config import load_settings
from indexer.daemon import STOP_SECONDS
from indexer.store.pool import STATEMENT_TIMEOUT_SECONDS
from tests.deploy.unit_file import DEPLOY, SERVICE, directives


@pytest.fixture
def unit() -> dict[str, list[str]]:
    return directives(SERVICE.read_text())


def test_each_exit_code_is_answered_as_the_program_means_it(unit):
    """Trying again helps 70 and 75; 78 and 2 wait for a person; however often, never for ever."""
    again = {str(errors.EXIT_STUCK), str(errors.EXIT_TRY_AGAIN)}
    down = {str(errors.EXIT_FATAL), str(errors.EXIT_USAGE)}
    assert unit["Restart"] == ["on-failure"]
    assert set(unit["RestartForceExitStatus"][0].split()) == again
    assert set(unit["RestartPreventExitStatus"][0].split()) == down
    assert unit["StartLimitIntervalSec"] == ["0"]
    codes = {n for n in vars(errors) if n.startswith("EXIT_")}
    assert codes == {"EXIT_STOPPED", "EXIT_STUCK", "EXIT_TRY_AGAIN", "EXIT_FATAL", "EXIT_USAGE"}


def test_it_may_end_by_itself(unit):
    """It is given more time than the daemon takes, which ends its worker for history itself."""
    assert float(unit["TimeoutStopSec"][0]) > STOP_SECONDS + 5
    assert unit["KillMode"] == ["mixed"]


def test_it_is_supervised(unit):
    """The daemon itself, not a child of it, says when it is ready and that it moves."""
    assert (unit["Type"], unit["NotifyAccess"]) == (["notify"], ["main"])
    # One silence is the longest statement, behind the wait for a connection.
    silence_seconds = STATEMENT_TIMEOUT_SECONDS + 30
    assert silence_seconds < float(unit["WatchdogSec"][0]) <= 180


def test_credentials_come_under_names_that_the_configuration_reads(
    unit: dict[str, list[str]], tmp_path: Path
) -> None:
    """From a folder systemd calls each credential by the setting's id, `_`, and the file's name."""
    (loaded,) = unit["LoadCredential"]
    name, _, folder = loaded.partition(":")
    assert folder == "/etc/sessionwatch/credentials"
    (tmp_path / f"{name}_database__url").write_text("postgresql:///elsewhere\n")
    (tmp_path / f"{name}_chains__polygon__rpc").write_text("https://node.example/key\n")
    settings = load_settings(
        Path("/dev/null"), environ={"CREDENTIALS_DIRECTORY": str(tmp_path), "HOME": "/nowhere"}
    )
    assert settings.database.url == "postgresql:///elsewhere"
    assert [chain.rpc for chain in settings.chains] == [("https://node.example/key",)]


def test_the_first_configuration_lacks_nothing_but_a_chain(tmp_path: Path) -> None:
    """It is read as it is shipped; with the chain that it shows it is complete."""
    shipped = (DEPLOY / "sessionwatch.toml").read_text()
    filled = tmp_path / "filled.toml"
    filled.write_text(re.sub(r"^# (?=\[chains|rpc = )", "", shipped, flags=re.MULTILINE))
    settings = load_settings(filled, environ={"HOME": "/nowhere"})
    assert settings.database.url == "postgresql:///sessionwatch"
    assert [chain.name for chain in settings.chains] == ["polygon"]
    first = load_settings(
        DEPLOY / "sessionwatch.toml", environ={"HOME": "/nowhere"}, need_chains=False
    )
    assert first.chains == ()


def test_no_credential_is_in_a_core_dump_or_in_a_place_that_others_read(unit):
    assert unit["LimitCORE"] == ["0"]
    assert unit["UMask"] == ["0077"]
