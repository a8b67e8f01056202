"""The HTTP side over real sockets."""

import asyncio
import json
import socket
import time

import aiohttp
import pytest

from indexer.errors import ConfigurationError
from indexer.web.health import ChainHealth, Health
from indexer.web.server import SHUTDOWN_SECONDS, serve
from indexer.web.style import CONTENT_SECURITY_POLICY
from tests.web.serving import serving

PATHS = ("/", "/status", "/metrics", "/livez", "/readyz")


def ready_health() -> Health:
    chain = ChainHealth(last_step_monotonic=time.monotonic(), lag_seconds=0.0)
    return Health(started_monotonic=time.monotonic(), chains={"mumbai": chain})


async def ask(port: int, path: str, method: str = "GET", **arguments) -> tuple:
    """Return (status, headers, text) of one request."""
    async with (
        aiohttp.ClientSession(auto_decompress=False) as client,
        client.request(method, f"http://127.0.0.1:{port}{path}", **arguments) as answer,
    ):
        return answer.status, answer.headers, await answer.text()


async def ask_raw(port: int, request: bytes) -> bytes:
    """Send bytes as they stand and return everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_livez_answers_until_the_daemon_stops():
    """/livez is 200 while the daemon works and 503 once it is stopping."""
    health = ready_health()
    async with serving(health) as port:
        assert (await ask(port, "/livez"))[::2] == (200, "ok\n")
        health.stopping = True
        assert (await ask(port, "/livez"))[::2] == (503, "stopping\n")


async def test_readyz_follows_what_the_daemon_writes():
    """/readyz is green when all is well and red with the reason, per chain, when not."""
    health = ready_health()
    async with serving(health) as port:
        status, _, text = await ask(port, "/readyz")
        assert (status, json.loads(text)) == (200, {"ready": True, "reasons": []})

        health.chains["mumbai"].finality_violation = "block 7 has another hash"
        health.database_lost = True
        status, headers, text = await ask(port, "/readyz")
        assert status == 503
        assert headers["Content-Type"].startswith("application/json")
        assert json.loads(text) == {
            "ready": False,
            "reasons": [
                {"chain": None, "reason": "the database cannot be reached"},
                {"chain": "mumbai", "reason": "finality violation: block 7 has another hash"},
            ],
        }

        health.database_lost = False
        health.chains["mumbai"].finality_violation = None
        assert (await ask(port, "/readyz"))[0] == 200


async def test_metrics_are_prometheus_text():
    """/metrics is the registry's text in the format Prometheus expects."""
    async with serving(ready_health()) as port:
        status, headers, text = await ask(port, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert "# HELP sessionwatch_" in text


@pytest.mark.parametrize(
    "path",
    ["/", "/status", "/?chain=mumbai", "/?account=0x089348f5108185f75cc5644ba1620a633dc5e4ca"],
)
async def test_without_a_database_a_sentence_is_the_answer(path: str):
    """Status and page answer 503 with a sentence when there is no database."""
    async with serving(ready_health()) as port:
        status, _, text = await ask(port, path)
    assert status == 503
    assert "the daemon has no connection to its database" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("path", [*PATHS, "/absent", "/../etc/passwd"])
async def test_every_answer_carries_the_security_headers(path: str):
    """No answer may be framed, sniffed, cached, read by another site, or name its software."""
    async with serving(ready_health()) as port:
        _, headers, _ = await ask(port, path, headers={"Origin": "https://other.example"})
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "sessionwatch"
    assert not [name for name in headers if name.startswith("Access-Control-")]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_only_reads_are_allowed(method: str):
    """Any method but GET and HEAD is 405, on paths that exist and on others."""
    async with serving(ready_health()) as port:
        for path in ("/livez", "/absent"):
            status, headers, text = await ask(port, path, method)
            assert (status, text) == (405, "only GET and HEAD\n")
            assert headers["Allow"] == "GET, HEAD"
            assert headers["Server"] == "sessionwatch"


async def test_head_is_get_without_the_text():
    """HEAD gives the status of GET and no body."""
    async with serving(ready_health()) as port:
        status, headers, text = await ask(port, "/livez", "HEAD")
    assert (status, text, headers["Content-Length"]) == (200, "", "3")


async def test_a_path_is_not_repeated_in_the_answer():
    """An unknown path is 404 in plain words, without the path."""
    async with serving(ready_health()) as port:
        status, headers, text = await ask(port, "/<script>alert(1)</script>")
    assert (status, text) == (404, "not found\n")
    assert headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("path", PATHS)
async def test_the_host_header_is_not_repeated(path: str):
    """A forged Host appears nowhere in the answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    async with serving(ready_health()) as port:
        answer = await ask_raw(port, request.encode())
    assert answer.startswith(b"HTTP/1.1 ")
    assert b"evil.example" not in answer


async def status_for(port: int, path: str, *hosts: str) -> int:
    """Return the status of a request with these Host headers."""
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    # HTTP/1.0, which knows requests without the header
    answer = await ask_raw(port, f"GET {path} HTTP/1.0\r\n{lines}\r\n".encode())
    return int(answer.split()[1])


@pytest.mark.parametrize("path", [*PATHS, "/absent"])
async def test_on_loopback_another_name_is_refused_on_every_path(path: str):
    """A name that somebody pointed at 127.0.0.1 is 421 with a sentence that says what to do."""
    request = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    async with serving(ready_health()) as port:
        answer = await ask_raw(port, request.encode())
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"http.hosts" in answer
    assert b"evil" not in answer
    assert b"Content-Security-Policy" in answer


@pytest.mark.parametrize(
    ("host", "hosts", "asked", "status"),
    [
        ("127.0.0.1", (), "localhost", 200),
        ("127.0.0.1", (), "LOCALHOST:9464", 200),
        ("127.0.0.1", (), "127.0.0.1", 200),
        ("127.0.0.1", (), "127.9.9.9:1", 200),
        ("127.0.0.1", (), "[::1]:9464", 200),
        ("127.0.0.1", (), "watch.example", 421),
        ("127.0.0.1", (), "127.0.0.1.evil.example", 421),
        ("127.0.0.1", (), "localhost.evil.example", 421),
        ("127.0.0.1", (), "203.0.113.7", 421),
        ("127.0.0.1", (), "0.0.0.0", 421),
        ("127.0.0.1", (), "localhost@evil.example", 421),
        ("127.0.0.1", (), "", 421),
        ("127.0.0.1", ("watch.example",), "Watch.example:443", 200),
        ("127.0.0.1", ("watch.example",), "localhost", 200),
        ("127.0.0.1", ("watch.example",), "other.example", 421),
        ("localhost", (), "localhost", 200),
        ("localhost", (), "watch.example", 421),
        ("0.0.0.0", (), "watch.example", 200),
        ("0.0.0.0", ("watch.example",), "watch.example", 200),
        ("0.0.0.0", ("watch.example",), "203.0.113.7:9464", 200),
        ("0.0.0.0", ("watch.example",), "evil.example", 421),
    ],
)
async def test_which_names_are_served(host: str, hosts: tuple[str, ...], asked: str, status: int):
    """Loopback names and http.hosts; everything on an open address without http.hosts."""
    async with serving(ready_health(), host=host, hosts=hosts) as port:
        assert await status_for(port, "/livez", asked) == status


async def test_a_request_without_a_host_is_served_and_one_with_two_is_not():
    """Old health checkers send no Host, browsers exactly one."""
    async with serving(ready_health()) as port:
        assert await status_for(port, "/livez") == 200
        assert await status_for(port, "/livez", "localhost", "evil.example") in {400, 421}
    async with serving(ready_health(), host="0.0.0.0") as port:
        assert await status_for(port, "/livez", "localhost", "evil.example") in {400, 421}


async def test_a_request_body_is_refused_unread():
    """A body is 413 and the connection ends, however much was announced."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n{"
    async with serving(ready_health()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_a_request_too_large_or_not_http_ends_in_a_400(request_bytes: bytes):
    """Long lines, long headers and TLS greetings end in 400, and the next request is served."""
    async with serving(ready_health()) as port:
        answer = await ask_raw(port, request_bytes)
        assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
        assert b"Traceback" not in answer
        assert (await ask(port, "/livez"))[0] == 200


async def test_a_port_in_use_says_which_key_to_change():
    """A taken port is a mistake of the configuration, with http.listen in the remedy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f":{port}: ") as caught:
            await serve("127.0.0.1", port, health=ready_health(), database=None, now=time.monotonic)
    assert "http.listen" in caught.value.remedy
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(("host", "port"), [("203.0.113.7", 9464), ("127.0.0.1", 70000)])
async def test_an_address_that_is_not_ours_is_a_configuration_mistake(host: str, port: int):
    """A foreign address and an impossible port are refused the same way."""
    with pytest.raises(ConfigurationError, match=r"http\.listen: cannot listen"):
        await serve(host, port, health=ready_health(), database=None, now=time.monotonic)


async def test_stopping_does_not_wait_for_idle_clients():
    """Cancelled with a connection open, the server ends in time and gives its port back."""
    async with aiohttp.ClientSession() as client:
        async with serving(ready_health()) as port:
            async with client.get(f"http://127.0.0.1:{port}/livez") as answer:
                await answer.read()
            begun = time.monotonic()
        assert time.monotonic() - begun < SHUTDOWN_SECONDS + 1
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
