"""Postgres' own programs, as an operator runs them: psql, pg_dump, pg_restore."""

from __future__ import annotations

import asyncio

from indexer.store.embedded import postgres_binaries


async def program(name: str, *arguments: str, text: str = "") -> str:
    """Run one with this text as its input, and return its output; it has to succeed."""
    process = await asyncio.create_subprocess_exec(
        str(postgres_binaries() / name),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(text.encode())
    assert process.returncode == 0, errors.decode()
    return output.decode()
