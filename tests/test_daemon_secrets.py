"""Keys and passwords of the configuration appear nowhere: logs, HTTP, database, last words."""

from __future__ import annotations

from pathlib import Path

from indexer.store.chain_row import Connection
from tests.daemon_process import (
    command,
    configuration,
    running_daemon,
    settled,
    stored_text,
    until,
)
from tests.sim.faults import Body, Refuse, Status, Truncate
from tests.sim.node import SimNode

PATH_KEY, QUERY_KEY = "k3y-in-the-path-0a1b2c3d", "k3y-in-the-query-4e5f6a7b"
USER, USER_PASSWORD = "endpoint-user-77", "endpoint-password-88"
DATABASE_PASSWORD = "d4tabase-passw0rd-99"
SECRETS = (PATH_KEY, QUERY_KEY, USER, USER_PASSWORD, DATABASE_PASSWORD)


def leaks(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


async def test_no_secret_is_shown_anywhere(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Through every fault that makes a daemon talk of its node and its database."""
    async with SimNode() as node:
        node.mine(80)
        address = node.url.removeprefix("http://")
        endpoint = f"http://{USER}:{USER_PASSWORD}@{address}/v2/{PATH_KEY}?apikey={QUERY_KEY}"
        config = configuration(f"{database_url}&password={DATABASE_PASSWORD}", endpoint)
        node.fail(Status(401, f"no such key: {PATH_KEY}".encode()))
        async with running_daemon(tmp_path, config) as daemon:
            await until(lambda: settled(connection, 80, node.tip.hash), "the chain to be followed")
            for fault in (
                Refuse(f"{endpoint} has no such block", -32000),
                Refuse(f"key {QUERY_KEY} of user {USER} is over its limit", -32005),
                Status(302, headers={"Location": endpoint}),
                Status(429, QUERY_KEY.encode()),
                Status(500, endpoint.encode()),
                Body(endpoint.encode()),
                Truncate(),
            ):
                seen = len(daemon.events("step_recovered"))
                node.fail(fault, method="eth_getBlockByNumber", times=2)
                await daemon.logs("step_recovered", seen + 1)
            node.fork(75)
            node.mine(100)
            await daemon.logs("finality_violated")
            shown = [
                (await daemon.get(path))[1] for path in ("/metrics", "/status", "/", "/readyz")
            ]
            assert await daemon.stop() == 0
        assert daemon.events("step_retried")
        assert leaks(daemon.log()) == []
        assert leaks("\n".join(shown)) == []
        assert leaks(await stored_text(connection)) == []

        code, said = await command(tmp_path, config, "check", "--json")
        assert (code, leaks(said)) == (0, [])

    # The node is gone, then the database: their names are said, not their URLs.
    for name, database in (("node", database_url), ("database", "postgresql://u@127.0.0.1:9/x")):
        password = f"{database}{'&' if '?' in database else '?'}password={DATABASE_PASSWORD}"
        async with running_daemon(
            tmp_path,
            configuration(password, endpoint),
            "--once",
            name=name,
            tweak="GIVE_UP_SECONDS=0.2",
        ) as daemon:
            assert await daemon.ends() == 75
        assert "error: " in daemon.log()
        assert leaks(daemon.log()) == []
