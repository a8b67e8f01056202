"""Who opens many connections, or is slow, does not take the process's open files."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from indexer.web.door import MAX_CONNECTIONS, MAX_SECONDS
from indexer.web.health import Health
from tests.web.serving import serving

PART_OF_A_REQUEST = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server ends the connection, however it does that."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""


async def test_one_connection_too_many_is_closed_and_the_others_stay():
    """The number of open files that clients can take is bounded."""
    async with serving(Health(time.monotonic())) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        try:
            async with connected(port) as (reader, _writer):
                assert await ended(reader) == b""
            reader, writer = held[0]
            writer.write(PART_OF_A_REQUEST + b"Connection: close\r\n\r\n")
            assert (await ended(reader)).startswith(b"HTTP/1.1 200 OK")
        finally:
            for _, writer in held:
                writer.close()


async def test_who_never_ends_a_request_is_cut_off():
    """Neither silence nor a request that trickles in keeps a connection."""
    seconds = 0.0
    async with (
        serving(Health(0.0), now=lambda: seconds) as port,
        connected(port) as (silent, _),
        connected(port) as (slow, writer),
        connected(port) as (quick, quick_writer),
    ):
        writer.write(PART_OF_A_REQUEST)
        quick_writer.write(PART_OF_A_REQUEST + b"\r\n")
        await quick.readuntil(b"ok\n")
        seconds = MAX_SECONDS
        quick_writer.write(PART_OF_A_REQUEST + b"\r\n")
        await quick.readuntil(b"ok\n")
        seconds += 1
        assert await ended(silent) == b""
        assert await ended(slow) == b""
        quick_writer.write(PART_OF_A_REQUEST + b"Connection: close\r\n\r\n")
        assert (await ended(quick)).startswith(b"HTTP/1.1 200 OK")
