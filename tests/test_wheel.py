"""An installed package can do all that a clone can: the wheel carries every text it needs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import zipfile
from pathlib import Path

from indexer.store import schema
from tests.fixtures_database import connected
from tests.released_schemas import released

ROOT = Path(__file__).parent.parent


async def run(folder: Path, *arguments: str, **variables: str) -> str:
    """Run a program of this Python in a folder, with these variables beside the caller's.

    It is not measured: what stands in the folder of a test is gone when coverage looks for it.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}  # noqa: TID251
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=folder,
        env=kept | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_the_wheel_applies_and_migrates_the_schema(
    empty_database_url: str, tmp_path: Path
) -> None:
    """Unpacked elsewhere, it prints schema.sql, prepares a database, and brings an older one up."""
    source = tmp_path / "source"
    wanted = shutil.ignore_patterns("__pycache__", ".*", "tests")
    shutil.copytree(ROOT, source, ignore=wanted)
    await run(tmp_path, "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", ".", str(source))
    (wheel,) = sorted(tmp_path.glob("*.whl"))  # noqa: ASYNC240 - a folder of this test's own
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    shutil.rmtree(source)

    installed = tmp_path / "installed"
    database = {"SESSIONWATCH_DATABASE__URL": empty_database_url}
    printed = await run(installed, "indexer", "schema", "print", **database)
    assert printed == (ROOT / "schema.sql").read_text()
    async with connected(empty_database_url) as admin, admin.transaction():
        await admin.execute(released(schema.FIRST_VERSION))
    said = await run(installed, "indexer", "schema", "apply", **database)
    assert f"now has schema version {schema.SCHEMA_VERSION}, by migration 2" in said
