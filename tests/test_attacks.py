"""What a hostile node, contract or neighbour tried, and what holds against it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from indexer.chain import wire
from indexer.chain.scrub import Scrubber
from indexer.core.topics import ACCOUNT_CREATION
from indexer.core.user_operations import decode_signature
from indexer.devnet import addresses as at
from indexer.errors import FatalError
from indexer.store.chain_row import Connection
from indexer.store.embedded import EmbeddedPostgres
from tests.daemon_process import configuration, indexed_block, running_daemon, settled, until
from tests.sim.blocks import SimLog
from tests.sim.faults import Answer
from tests.sim.node import SimNode

MANAGERS = ["0x" + at.MANAGER.hex()]
ACCOUNT = b"\x11" * 20


def word(value: int | bytes) -> bytes:
    return value.to_bytes(32) if isinstance(value, int) else value.rjust(32, b"\0")


def creation() -> SimLog:
    topics = (ACCOUNT_CREATION, word(ACCOUNT), word(b"\x22" * 20), word(0))
    return SimLog(at.FACTORY, topics)  # type: ignore[arg-type]


def header(number: int, seconds: int) -> dict[str, str]:
    return {
        "number": hex(number),
        "hash": "0x" + "ab" * 32,
        "parentHash": "0x" + "cd" * 32,
        "timestamp": hex(seconds),
    }


@pytest.mark.parametrize("number", [2**62, 10**11])
@pytest.mark.parametrize("started", [False, True], ids=["at the start", "while following"])
async def test_one_absurd_head_moves_nothing(
    started: bool, number: int, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """A single answer that names a far block as latest and final neither ends nor strands it."""
    async with SimNode(finality_depth=4) as node:
        node.mine(1, [creation()])
        node.mine(9)
        lie = Answer(header(number, 1_800_000_000))
        if not started:
            node.fail(lie, method="eth_getBlockByNumber", times=2)
        config = configuration(database_url, node.url, managers=MANAGERS, finality="finalized")
        async with running_daemon(tmp_path, config) as daemon:
            if started:
                await until(lambda: settled(connection, 10, node.tip.hash), "the honest chain")
                node.fail(lie, method="eth_getBlockByNumber", times=2)
            retried = await daemon.logs("step_retried")
            assert retried["kind"] in {"NodeAnswerError", "BlockUnknownError"}
            node.mine(4)
            await until(lambda: settled(connection, 14, node.tip.hash), "the honest chain again")
            assert await daemon.stop() == 0
        assert "Traceback" not in daemon.log()


async def test_a_time_that_cannot_be_shown_is_not_stored(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """A block of the year 146 billion is refused: its rows would break every view of them."""
    async with SimNode(finality_depth=4) as node:
        node.mine(1, [creation()])
        node.mine(9)
        config = configuration(database_url, node.url, managers=MANAGERS)
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 10, node.tip.hash), "the honest chain")
            tip = node.mine(1, [creation()])
            lie = tip.to_json() | {"timestamp": hex(2**62)}
            node.fail(Answer(lie), method="eth_getBlockByNumber", times=6)
            await daemon.logs("step_retried")
            assert await indexed_block(connection) == 10
            await until(lambda: settled(connection, 11, node.tip.hash), "the honest time")
            assert len(await connection.fetch("SELECT block_time FROM watch.account_event")) == 2
            assert await daemon.stop() == 0


@pytest.mark.parametrize(
    ("number", "seconds"), [(10**12 + 1, 0), (2**63 - 1, 0), (1, 253_402_300_800), (1, 2**63 - 1)]
)
def test_headers_the_database_has_no_room_for_are_refused(number: int, seconds: int) -> None:
    """Numbers beyond the last partition and times after the year 9999 fail where they come in."""
    raw = header(number, seconds)
    with pytest.raises(ValueError, match=r"is beyond|after the year 9999"):
        wire.header(wire.RawHeader(raw["number"], raw["hash"], raw["parentHash"], raw["timestamp"]))


@pytest.mark.parametrize("text", ["x" * 100_000, "http" * 25_000, "a.b-c+" * 20_000])
def test_a_long_refusal_costs_no_square(text: str) -> None:
    """A hundred refusals of 100 kB, as one batch may hold, are cleaned in a moment."""
    scrubber = Scrubber(["https://node.example/v3/abcdefabcdef"])
    began = time.process_time()
    for _ in range(100):
        assert len(scrubber.clean(text)) == 300
    assert time.process_time() - began < 2


def test_a_signature_cannot_ask_for_more_hashes_than_it_has_words() -> None:
    """Sessions of a router's signature that share one long proof: it is hashed once, or not at all.

    The contract takes calls that share one session; sessions of their own with a proof in common
    no encoder writes.
    """
    proof = word(2_000) + b"\x01" * 32 * 2_000

    def signature(calls: int, sessions: int) -> bytes:
        first, tails = 32 * calls, 192 * sessions
        heads = word(calls) + b"".join(word(first + 192 * (n % sessions)) for n in range(calls))
        for n in range(sessions):
            data = tails - 192 * n
            heads += word(0) + word(0) + word(b"\x22" * 20)
            heads += word(data) + word(data + 32) + word(data + 32 + len(proof))
        heads += word(0) + proof + word(0)
        inner = word(at.MANAGER) + word(96) + word(96 + len(heads)) + heads + word(0)
        return word(64) + word(b"\x33" * 20) + word(len(inner)) + inner

    assert len(decode_signature(signature(1, 1)).sessions) == 1
    shared = decode_signature(signature(7, 1)).sessions
    assert (len(shared), len(set(map(id, shared)))) == (7, 1)
    assert decode_signature(signature(7, 7)).sessions == ()
    assert decode_signature(signature(101, 1)).sessions == ()


async def test_a_data_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Who may write there could put links in the place of our files, and we may be root."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(FatalError, match="other users"):
        await EmbeddedPostgres(folder, fsync=False).start()


async def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    """The file it points to keeps its content."""
    precious = tmp_path / "precious"
    precious.write_text("kept")
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / "postgres.lock").symlink_to(precious)
    with pytest.raises(FatalError, match="cannot be used"):
        await EmbeddedPostgres(folder, fsync=False).start()
    assert precious.read_text() == "kept"


async def test_requests_that_are_no_http_do_not_fill_the_log(
    database_url: str, tmp_path: Path
) -> None:
    """Each is answered with 400 and nothing is written."""
    async with SimNode() as node:
        node.mine(5)
        config = configuration(database_url, node.url, managers=MANAGERS)
        async with running_daemon(tmp_path, config) as daemon:
            await daemon.following()
            port = (await daemon.logs("http_listening"))["port"]
            both_lengths = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            for request in (
                b"GET /livez HTTP/1.1\r\nHost: x\r\n" + both_lengths,
                b"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000 + b"\r\n\r\n",
                b"\x16\x03\x01\x02\r\n\r\n",
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                assert b" 400 " in (await reader.read()).split(b"\r\n")[0]
                writer.close()
            assert (await daemon.get("/livez"))[0] == 200
            assert await daemon.stop() == 0
        assert not daemon.events("Error handling request from 127.0.0.1")
        assert "Traceback" not in daemon.log()
