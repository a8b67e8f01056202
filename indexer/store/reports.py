"""What the demo tells of the database: the same views that people query."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.store.pool import Database


@dataclass(frozen=True, slots=True)
class ShownVerdict:
    """A row of watch.verdict, as people read it."""

    verdict: str
    cause: str | None
    severity: str
    explanation: str
    on_chain_root: str | None


@dataclass(frozen=True, slots=True)
class ShownMint:
    """A row of watch.erc1155_transfer and the balance after it."""

    token_id: int
    amount: int
    user_op_hash: str | None
    balance: int


async def verdict_of(database: Database, manager: str, account: str) -> ShownVerdict | None:
    """Return the open verdict of an account (0x text), or None if there is none yet."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT verdict, cause, severity, explanation, on_chain_root FROM watch.verdict "
            "WHERE account = $1 AND manager = $2",
            account,
            manager,
        )
    return ShownVerdict(*row) if row is not None else None


async def mint_to(database: Database, owner: str) -> ShownMint | None:
    """Return the newest token that an owner (0x text) received."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT t.token_id, t.amount, t.user_op_hash, coalesce(b.balance, 0) "
            "FROM watch.erc1155_transfer AS t LEFT JOIN watch.erc1155_balance AS b "
            "  ON b.chain_id = t.chain_id AND b.contract = t.contract "
            " AND b.owner = t.to_address AND b.token_id = t.token_id "
            "WHERE t.to_address = $1 ORDER BY t.block_number DESC, t.log_index DESC LIMIT 1",
            owner,
        )
    return ShownMint(int(row[0]), int(row[1]), row[2], int(row[3])) if row is not None else None


async def reorg_count(database: Database) -> int:
    """Return how many reorgs the daemon has recorded."""
    async with database.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM watch.reorg"))


async def unknown_uses(database: Database, account: str) -> int:
    """Return how often an account (0x text) was moved by a session that nobody stored."""
    async with database.connection() as connection:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM watch.session_use WHERE account = $1 AND NOT known", account
            )
        )
