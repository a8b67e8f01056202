"""A database with something in every panel: the demo's stories, told to the real daemon, and more.

What no story brings about quickly (an audit that finds something, pruned state, a log that nothing
can decode) is put in by hand afterwards, with text in it as an attacker would write it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from indexer.core.passes import hex_of
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.devnet.operations import Key, mint_call, seed_session
from indexer.devnet.stories import LAYOUTS, Expected, Teller, play
from indexer.store.pool import Database
from tests.daemon_process import Daemon, configuration, running_daemon, until
from tests.fixtures_database import Connection, connected
from tests.schema_rows import hash32, insert

CHAIN = "local"
HEIDI = "heidi"
OWNER = hex_of(Key.named("alice session").address)
"""Holds a token that a session minted."""
LATEST_UNTIL = 2**48 - 1
"""No calendar has that year, and the chain does not mind."""
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"

_SHORT_WAITS = "COUNT_SESSIONS_SECONDS=0.5 FIRST_AUDIT_SECONDS=1"


@asynccontextmanager
async def following(devnet: Devnet, database_url: str, folder: Path) -> AsyncIterator[Daemon]:
    """Run the daemon on this chain until it has taken it over, and as long as this lasts."""
    layouts = [f"{hex_of(module)}: {', '.join(layout)}" for module, layout in LAYOUTS.items()]
    config = configuration(
        database_url,
        devnet.url,
        chain=CHAIN,
        finality=16,
        grace_seconds=1,
        audit_seconds=1,
        session_layouts=layouts,
    )
    async with running_daemon(folder, config, tweak=_SHORT_WAITS) as daemon:
        await daemon.following()
        yield daemon


async def tell(devnet: Devnet, database_url: str) -> None:
    """Play every story while a daemon follows; return once its past is final and audited."""
    async with connected(database_url) as connection, Database.open(database_url) as database:
        teller = Teller(devnet, database, lambda _who, _text: None, _waits)
        await play(teller)
        await _more(teller)
        assert [what for what, right in teller.outcomes if not right] == []
        await devnet.rpc.mine(20)
        await until(lambda: _audited(connection), "an audit")


async def _waits(test: Callable[[], Awaitable[bool]], what: str) -> bool:
    await until(test, what)
    return True


async def _audited(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM watch.audit)"))


async def _more(teller: Teller) -> None:
    """Sessions that end soon or in no calendar's year, a failed operation, a drift that ends."""
    devnet = teller.devnet
    heidi, key = devnet.account(HEIDI), Key.named("heidi session")
    head = await devnet.rpc.call("eth_getBlockByNumber", "latest", False)
    soon = int(head["timestamp"], 16) + 7200
    session = seed_session(key.address, key.address, 1)
    both = [replace(session, valid_until=soon), replace(session, valid_until=LATEST_UNTIL)]
    await teller.store(heidi, both)
    await devnet.register(heidi, both)
    await teller.hear(heidi, Expected("in_sync"))
    await devnet.mint_with_session(heidi, key, both, 0, to=key.address, token_id=1)
    # As many as there can be; one more is an operation that is bundled, and reverts.
    await devnet.submit(heidi, [mint_call(heidi.address, 7, 2**256 - 1)])
    await devnet.submit(heidi, [mint_call(heidi.address, 7, 1)])
    other = replace(session, valid_until=soon + 1)
    await devnet.register(heidi, [other])
    await teller.hear(heidi, Expected("drifted", "unknown_root"))
    await devnet.register(heidi, both)
    await teller.hear(heidi, Expected("in_sync"))


async def add_by_hand(connection: Connection, account: str) -> None:
    """Put in, once the daemon has stopped, what the stories do not bring about."""
    tip = await connection.fetchval("SELECT indexed_block FROM watch.progress")
    changed = await connection.fetchval(
        "SELECT max(block_number) FROM watch.session_root WHERE account = $1", account
    )
    owner = {"account": bytes.fromhex(account[2:])}
    root = {"manager": at.MANAGER} | owner
    await insert(connection, "chain.undecoded_log", block_number=tip, reason=HOSTILE)
    await insert(connection, "chain.erc1155_approval", block_number=tip, **owner)
    await insert(connection, "chain.audit_finding", block_number=tip, reason="missed_log", **root)
    await insert(
        connection,
        "evidence.unobserved",
        manager=at.MANAGER,
        first_block=1,
        last_block=tip,
        reason=HOSTILE,
    )
    await insert(
        connection,
        "chain.root_hint",
        block_number=changed,
        log_index=900,
        root=hash32(9),
        **root,
    )
    await connection.execute(
        "UPDATE chain.root_attribution SET contradicting_evidence = 'event',"
        " contradicting_root = $1 WHERE block_number = $2 AND account = $3",
        *(hash32(9), changed, owner["account"]),
    )
    await connection.execute("UPDATE chain.session_use SET granted_token_id = 99")
