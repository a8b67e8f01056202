"""A Node program of a vendor's, tied to the loopback interface, that says things in JSON lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.devnet import npm
from indexer.devnet.child import running_child
from tests.daemon_process import until

_LOOPBACK = Path(__file__).parent / "loopback.cjs"


@dataclass
class VendorProcess:
    """One running program."""

    process: asyncio.subprocess.Process
    output: Path
    errors: Path

    def said(self, name: str) -> list[Any]:
        """Return what stands under this name in the lines it has written; others are passed over.

        Of every program: `listening` (a port), `refused` (a host that it was not let reach).
        """
        whole, _, _ = self.output.read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line[name] for line in lines if name in line]

    async def says(self, name: str, count: int = 1) -> Any:
        """Wait until it has said this so often; return the last."""

        async def has_said() -> bool:
            found = len(self.said(name)) >= count
            ended = self.process.returncode
            assert found or ended is None, f"{ended}: {self.errors.read_text()[-2000:]}"
            return found

        await until(has_said, f"a vendor's program to say {name!r}")
        return self.said(name)[count - 1]


@asynccontextmanager
async def vendor_process(
    packages: Path, folder: Path, script: Path, *arguments: str
) -> AsyncIterator[VendorProcess]:
    """Run a script with these packages; what it says goes to files in `folder`."""
    node, _ = npm.node_commands()
    output, errors = folder / f"{script.stem}.out", folder / f"{script.stem}.err"
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        async with running_child(
            [*node, "--require", str(_LOOPBACK), str(script), *arguments],
            folder=packages,
            environment={"NO_COLOR": "1"},
            stdin=asyncio.subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
        ) as process:
            yield VendorProcess(process, output, errors)
