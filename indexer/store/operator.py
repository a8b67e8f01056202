"""What an operator does by hand: start over, or go back below finality."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from indexer.errors import UsageError
from indexer.store import verdicts
from indexer.store.chain_row import lock_row, raise_epoch
from indexer.store.pool import Database, translated
from indexer.store.schema import check_version


async def fresh_database(server_url: str, name: str) -> str:
    """Drop and make a database of this name on our own server; return its URL."""
    with translated():
        connection = await asyncpg.connect(server_url)
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
    head, _, options = server_url.partition("?")
    scheme, _, rest = head.partition("://")
    host = rest.split("/", 1)[0]
    return f"{scheme}://{host}/{name}" + (f"?{options}" if options else "")


@dataclass(frozen=True, slots=True)
class Rewound:
    """What a rewind forgets. `events` counts account events, operations and transfers."""

    chain_id: int
    keep_block: int
    indexed_block: int
    finalized_block: int | None
    events: int
    below_finality: bool
    finality_violation: str | None


_COUNT = """
SELECT (SELECT count(*) FROM chain.account_event WHERE chain_id = $1 AND block_number > $2)
     + (SELECT count(*) FROM chain.user_operation WHERE chain_id = $1 AND block_number > $2)
     + (SELECT count(*) FROM chain.erc1155_transfer WHERE chain_id = $1 AND block_number > $2)"""


async def rewind(
    database: Database, chain_id: int, keep_block: int, *, below_finality: bool, dry_run: bool
) -> Rewound:
    """Forget everything above a block, or with `dry_run` only say what that would be.

    Rows go to chain.orphan; observations of state stay, and count again if their blocks return.
    Below finality a running daemon is fenced and starts anew from the node's finalized block;
    what was forgotten is then history debt. UsageError where the block does not fit.
    """
    async with database.transaction() as connection:
        await check_version(connection)
        chain = await lock_row(connection, chain_id)
        if chain is None or chain.indexed_number is None:
            raise UsageError(
                f"nothing of chain {chain_id} is indexed, so there is nothing to rewind",
                remedy="see `sessionwatch status`",
            )
        if keep_block >= chain.indexed_number:
            raise UsageError(
                f"block {keep_block} is not below the indexed block {chain.indexed_number}",
                remedy="name the last block to keep",
            )
        final = chain.finalized_number is not None and keep_block < chain.finalized_number
        if final and not below_finality:
            raise UsageError(
                f"block {keep_block} is below the finalized block {chain.finalized_number}",
                remedy="add --below-finality if that is meant",
            )
        if final and chain.detail_from is not None and keep_block + 1 < chain.detail_from:
            raise UsageError(
                f"raw detail below block {chain.detail_from} is dropped (retention_blocks), so "
                "what the balances hold of it cannot be taken back",
                remedy=f"keep block {chain.detail_from - 1} or a later one",
            )
        report = Rewound(
            chain_id,
            keep_block,
            chain.indexed_number,
            chain.finalized_number,
            await connection.fetchval(_COUNT, chain_id, keep_block),
            final,
            chain.finality_violation,
        )
        if not dry_run:
            if final:
                await raise_epoch(connection, chain_id)
            await connection.execute(
                "SELECT FROM chain.rewind($1, $2, NULL, NULL, $3)", chain_id, keep_block, final
            )
            await verdicts.withdraw(connection, chain_id)
    return report
