"""A database with one account of which there is more than a page shows, and hostile texts."""

from __future__ import annotations

import os

from indexer.core.config_values import checksum_address
from tests.fixtures_database import Connection
from tests.schema_rows import address, hash32, insert, make_chain, observe

HOSTILE = "</td><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;"
MANAGER, OTHER_MANAGER = address(0xAA), address(0xBB)
ALICE = bytes.fromhex("cbeba65449cbef0dcfd4a63cdf4090fa1d4a9f63")
ALICE_CHECKSUM = checksum_address(ALICE)
WATCHED = address(0x3A)
"""Watched, without a root or a set."""
TOKEN, MODULE, SESSION_KEY = address(0x70), address(0x5E), address(0x5EC)
ROOTS, SETS, SESSIONS, USES, MINTS = 70, 14, 40, 60, 30
SECRET_DATA = os.urandom(96)
"""session_key_data of every session: nothing of it may be seen."""


def root(number: int) -> bytes:
    """The n-th root of Alice."""
    return hash32(0xA000 + number)


async def fill(connection: Connection) -> None:
    """Chain mumbai with the account Alice, drifted for a hostile reason; chain amoy, empty."""
    await make_chain(connection, final=60, tip=100)
    await connection.execute("UPDATE chain.chain SET managers = $1", [MANAGER, OTHER_MANAGER])
    await insert(connection, "chain.chain", chain_id=80002, name="amoy")
    for account in (ALICE, WATCHED):
        await insert(connection, "chain.account", account=account, block_number=2, source="factory")
    for number in range(1, ROOTS + 1):
        await observe(
            connection, number, root(number), account=ALICE, manager=MANAGER, attributed=True
        )
    # read, and zero: nothing to tell
    await observe(connection, 2, bytes(32), account=ALICE, manager=OTHER_MANAGER)
    await observe(connection, 2, bytes(32), account=WATCHED, manager=MANAGER)
    for number in range(SETS):
        await _store(connection, number)
    for number in range(USES):
        await _use(connection, block=number + 1)
    for number in range(MINTS):
        await insert(
            connection, "chain.erc1155_transfer", block_number=number + 1, log_index=3,
            batch_index=0, contract=TOKEN, token_id=7, amount=number,
            user_op_hash=hash32(number + 1),
        )  # fmt: skip
    await _verdict(connection, ALICE, "revoked_still_provable", HOSTILE, warnings=["expiring_soon"])


async def _store(connection: Connection, number: int) -> None:
    """Set 0 is what stands on chain, the newest has 40 sessions."""
    newest = number == SETS - 1
    await insert(
        connection, "sessions.session_set", manager=MANAGER, account=ALICE,
        root=root(ROOTS) if number == 0 else hash32(0x5E7000 + number),
        leaves_digest=hash32(0x5E7000 + number), session_count=SESSIONS if newest else 1,
        source=HOSTILE if newest else "import",
    )  # fmt: skip
    set_id = await connection.fetchval("SELECT max(set_id) FROM sessions.session_set")
    for index in range(SESSIONS if newest else 1):
        await insert(
            connection, "sessions.session", set_id=set_id, leaf_index=index,
            leaf=hash32(0x1EAF00 + index), valid_until=0 if index else 2**48 - 1, valid_after=0,
            session_validation_module=MODULE, session_key=SESSION_KEY,
            session_key_data=SECRET_DATA, client_status="revoked" if index else None,
        )  # fmt: skip


async def _use(connection: Connection, block: int) -> None:
    await insert(
        connection, "chain.session_use", block_number=block, log_index=9, use_index=0,
        user_op_hash=hash32(block), manager=MANAGER, account=ALICE, session_key=SESSION_KEY,
        leaf=hash32(0x1EAF00 if block % 2 else 0xBAD), session_key_data=SECRET_DATA,
    )  # fmt: skip


async def _verdict(
    connection: Connection, account: bytes, cause: str, explanation: str, **more: object
) -> None:
    set_id = await connection.fetchval("SELECT min(set_id) FROM sessions.session_set")
    await insert(
        connection, "chain.verdict", block_number=90, manager=MANAGER, account=account,
        verdict="drifted", cause=cause, severity="critical", explanation=explanation,
        on_chain_root=root(ROOTS), on_chain_set_id=set_id, **more,
    )  # fmt: skip
