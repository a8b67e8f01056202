"""Writing the rows of blocks: COPY into the tables, in key order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from indexer.core.events import DecodedLogs, Erc1155Transfer
from indexer.core.roots import AccountObservation, RootAttribution, RootHint, RootObservation
from indexer.core.types import Address, BlockHeader, Hash32
from indexer.core.user_operations import UserOperationBody
from indexer.store.chain_row import Connection

MAX_UNDECODED_BYTES = 131_072


@dataclass(frozen=True, slots=True)
class BodyRow:
    """The decoded input of one stored user operation, at the position of its event."""

    block_number: int
    log_index: int
    body: UserOperationBody


@dataclass(slots=True)
class BlockRows:
    """Everything one step found, ready to be written."""

    decoded: DecodedLogs | None = None
    bodies: list[BodyRow] = field(default_factory=list)
    hints: list[RootHint] = field(default_factory=list)
    roots: list[RootObservation] = field(default_factory=list)
    accounts: list[AccountObservation] = field(default_factory=list)
    attributions: list[RootAttribution] = field(default_factory=list)
    roots_missed: bool = False
    """State of some block was pruned: its roots are not covered by this step."""
    root_changes: dict[str, int] = field(default_factory=dict)
    """Filled in by the transaction: changes of roots in these blocks, by evidence."""

    def block_numbers(self) -> set[int]:
        """Return the blocks that some row refers to."""
        numbers = {o.block_number for o in self.roots} | {o.block_number for o in self.accounts}
        decoded = self.decoded
        if decoded is not None:
            for rows in (
                decoded.creations,
                decoded.account_events,
                decoded.user_operations,
                decoded.transfers,
                decoded.approvals,
                decoded.uris,
                decoded.manager_roots,
                decoded.undecoded,
            ):
                numbers |= {row.at.block_number for row in rows}
        return numbers


async def write_rows(
    connection: Connection, chain_id: int, rows: BlockRows, span: tuple[int, int]
) -> list[Erc1155Transfer]:
    """Append the rows of these blocks (first, last); return the transfers that are new.

    Normally no row is there yet, and COPY says so. After a change of configuration a pass may
    find what another has stored (the same token watched alone and among all): then only what is
    missing is added, and nothing is counted twice.
    """
    try:
        async with connection.transaction():
            await _append(connection, chain_id, rows)
    except asyncpg.UniqueViolationError:
        rows = await _missing_of(connection, chain_id, rows, span)
        await _append(connection, chain_id, rows)
    await write_observations(connection, chain_id, rows.roots, rows.accounts, rows.attributions)
    return list(rows.decoded.transfers) if rows.decoded is not None else []


async def _append(connection: Connection, chain_id: int, rows: BlockRows) -> None:
    if rows.decoded is not None:
        await _write_decoded(connection, chain_id, rows.decoded)
    await write_bodies(connection, chain_id, rows.bodies, rows.hints)


_PRESENT = """
SELECT block_number, log_index, {extra} FROM chain.{table}
 WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3"""


async def _missing_of(
    connection: Connection, chain_id: int, rows: BlockRows, span: tuple[int, int]
) -> BlockRows:
    """Return the rows that the tables do not hold yet."""

    async def present(table: str, extra: str = "0") -> set[tuple[int, int, int]]:
        query = _PRESENT.format(table=table, extra=extra)
        return {tuple(row) for row in await connection.fetch(query, chain_id, *span)}

    decoded = rows.decoded
    if decoded is not None:
        events = await present("account_event")
        operations = await present("user_operation")
        transfers = await present("erc1155_transfer", "batch_index")
        approvals = await present("erc1155_approval")
        uris = await present("erc1155_uri")
        undecoded = await present("undecoded_log")

        def new(row: Any, known: set[tuple[int, int, int]], extra: int = 0) -> bool:
            return (row.at.block_number, row.at.log_index, extra) not in known

        decoded = replace(
            decoded,
            creations=tuple(r for r in decoded.creations if new(r, events)),
            account_events=tuple(r for r in decoded.account_events if new(r, events)),
            user_operations=tuple(r for r in decoded.user_operations if new(r, operations)),
            transfers=tuple(r for r in decoded.transfers if new(r, transfers, r.batch_index)),
            approvals=tuple(r for r in decoded.approvals if new(r, approvals)),
            uris=tuple(r for r in decoded.uris if new(r, uris)),
            undecoded=tuple(r for r in decoded.undecoded if new(r, undecoded)),
        )
    bodies = await present("user_operation_body")
    hints = await present("root_hint", "hint_index")
    return replace(
        rows,
        decoded=decoded,
        bodies=[r for r in rows.bodies if (r.block_number, r.log_index, 0) not in bodies],
        hints=[h for h in rows.hints if (h.block_number, h.log_index, h.hint_index) not in hints],
    )


_INSERT_BLOCKS = """
INSERT INTO chain.block (chain_id, block_number, hash, block_time)
SELECT $1, * FROM unnest($2::bigint[], $3::bytea[], $4::bigint[])
ON CONFLICT (chain_id, block_number) DO NOTHING"""


async def write_blocks(
    connection: Connection, chain_id: int, headers: Iterable[BlockHeader]
) -> None:
    """Record canonical blocks; a block that is known already stays as it is."""
    kept = sorted(headers, key=lambda header: header.number)
    if kept:
        await connection.execute(
            _INSERT_BLOCKS,
            chain_id,
            [h.number for h in kept],
            [h.hash for h in kept],
            [h.timestamp for h in kept],
        )


async def _write_decoded(connection: Connection, chain_id: int, decoded: DecodedLogs) -> None:
    events = [
        (
            chain_id,
            e.at.block_number,
            e.at.log_index,
            e.at.transaction_index,
            e.at.transaction_hash,
            e.account,
            e.event,
            json.dumps(e.args),
            e.user_op_hash,
        )
        for e in decoded.account_events
    ]
    events += [
        (
            chain_id,
            c.at.block_number,
            c.at.log_index,
            c.at.transaction_index,
            c.at.transaction_hash,
            c.account,
            c.event,
            json.dumps(
                {
                    "factory": "0x" + c.factory.hex(),
                    "initial_module": "0x" + c.initial_module.hex(),
                    "index": None if c.index is None else str(c.index),
                }
            ),
            None,
        )
        for c in decoded.creations
    ]
    events.sort(key=lambda row: (row[1], row[2]))
    await _copy(connection, "account_event", _ACCOUNT_EVENT, events)
    await _copy(
        connection,
        "user_operation",
        _USER_OPERATION,
        [
            (
                chain_id,
                o.at.block_number,
                o.at.log_index,
                o.at.transaction_index,
                o.at.transaction_hash,
                o.user_op_hash,
                o.entry_point,
                o.sender,
                o.paymaster,
                o.nonce,
                o.success,
                o.actual_gas_cost,
                o.actual_gas_used,
            )
            for o in decoded.user_operations
        ],
    )
    await _copy(
        connection,
        "erc1155_transfer",
        _TRANSFER,
        [
            (
                chain_id,
                t.at.block_number,
                t.at.log_index,
                t.batch_index,
                t.at.transaction_hash,
                t.contract,
                t.operator,
                t.from_address,
                t.to_address,
                t.token_id,
                t.amount,
                t.user_op_hash,
            )
            for t in decoded.transfers
        ],
    )
    await _copy(
        connection,
        "erc1155_approval",
        (*_POSITION, "contract", "account", "operator", "approved"),
        [
            (*_position(chain_id, a), a.contract, a.account, a.operator, a.approved)
            for a in decoded.approvals
        ],
    )
    await _copy(
        connection,
        "erc1155_uri",
        (*_POSITION, "contract", "token_id", "value"),
        [(*_position(chain_id, u), u.contract, u.token_id, u.value) for u in decoded.uris],
    )
    await _copy(
        connection,
        "undecoded_log",
        (*_POSITION, "address", "topics", "data", "reason"),
        [
            (
                *_position(chain_id, u),
                u.at.address,
                list(u.at.topics),
                u.at.data[:MAX_UNDECODED_BYTES],
                u.reason,
            )
            for u in decoded.undecoded
        ],
    )


_POSITION = ("chain_id", "block_number", "log_index", "transaction_hash")
_ACCOUNT_EVENT = (
    "chain_id",
    "block_number",
    "log_index",
    "transaction_index",
    "transaction_hash",
    "account",
    "event",
    "args",
    "user_op_hash",
)
_USER_OPERATION = (
    "chain_id",
    "block_number",
    "log_index",
    "transaction_index",
    "transaction_hash",
    "user_op_hash",
    "entry_point",
    "sender",
    "paymaster",
    "nonce",
    "success",
    "actual_gas_cost",
    "actual_gas_used",
)
_TRANSFER = (
    "chain_id",
    "block_number",
    "log_index",
    "batch_index",
    "transaction_hash",
    "contract",
    "operator",
    "from_address",
    "to_address",
    "token_id",
    "amount",
    "user_op_hash",
)


def _position(chain_id: int, row: Any) -> tuple[int, int, int, Hash32]:
    return chain_id, row.at.block_number, row.at.log_index, row.at.transaction_hash


async def _copy(
    connection: Connection, table: str, columns: Sequence[str], records: Sequence[tuple[Any, ...]]
) -> None:
    if records:
        await connection.copy_records_to_table(
            table, schema_name="chain", columns=list(columns), records=records
        )


async def write_bodies(
    connection: Connection, chain_id: int, bodies: Sequence[BodyRow], hints: Sequence[RootHint]
) -> None:
    """Append decoded inputs and the roots they name."""
    await _copy(
        connection,
        "user_operation_body",
        (
            "chain_id",
            "block_number",
            "log_index",
            "user_op_hash",
            "factory",
            "validation_module",
            "calls",
            "sessions",
        ),
        [
            (
                chain_id,
                row.block_number,
                row.log_index,
                row.body.user_op_hash,
                row.body.factory,
                row.body.validation_module,
                json.dumps(_calls(row.body)),
                json.dumps(_sessions(row.body)),
            )
            for row in bodies
        ],
    )
    await _copy(
        connection,
        "root_hint",
        (
            "chain_id",
            "block_number",
            "log_index",
            "hint_index",
            "manager",
            "account",
            "root",
            "evidence",
            "transaction_hash",
            "user_op_hash",
        ),
        [
            (
                chain_id,
                h.block_number,
                h.log_index,
                h.hint_index,
                h.manager,
                h.account,
                h.root,
                h.evidence,
                h.transaction_hash,
                h.user_op_hash,
            )
            for h in hints
        ],
    )


def _calls(body: UserOperationBody) -> list[Mapping[str, Any]]:
    return [
        {
            "to": "0x" + call.to.hex(),
            "value": str(call.value),
            "selector": "0x" + call.data[:4].hex(),
            "data_bytes": len(call.data),
        }
        for call in body.calls
    ]


def _sessions(body: UserOperationBody) -> list[Mapping[str, Any]]:
    return [
        {
            "manager": "0x" + parameters.manager.hex(),
            "leaf": "0x" + parameters.leaf.hex(),
            "implied_root": "0x" + parameters.implied_root.hex(),
            "valid_until": parameters.session.valid_until,
            "valid_after": parameters.session.valid_after,
            "session_validation_module": "0x" + parameters.session.session_validation_module.hex(),
        }
        for parameters in body.sessions
    ]


# An observation is keyed by its block's hash and true for ever: read again, it is the same.
_INSERT_ROOTS = """
INSERT INTO evidence.root_observation (chain_id, manager, account, block_number, block_hash, root)
SELECT $1, * FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bytea[])
ON CONFLICT DO NOTHING"""

_INSERT_ACCOUNT = """
INSERT INTO evidence.account_observation (chain_id, account, block_number, block_hash,
    implementation, fallback_handler, enabled_managers, tainted)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT DO NOTHING"""

_INSERT_ATTRIBUTIONS = """
INSERT INTO chain.root_attribution (chain_id, block_number, manager, account, evidence,
    attribution, transaction_hash, user_op_hash)
SELECT $1, * FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::text[], $6::text[],
    $7::bytea[], $8::bytea[])
ON CONFLICT DO NOTHING"""


async def write_observations(
    connection: Connection,
    chain_id: int,
    roots: Sequence[RootObservation],
    accounts: Sequence[AccountObservation],
    attributions: Sequence[RootAttribution],
) -> None:
    """Append what was read from state, and who is named for it."""
    if roots:
        await connection.execute(
            _INSERT_ROOTS,
            chain_id,
            [o.manager for o in roots],
            [o.account for o in roots],
            [o.block_number for o in roots],
            [o.block_hash for o in roots],
            [o.root for o in roots],
        )
    if accounts:
        await connection.executemany(
            _INSERT_ACCOUNT,
            [
                (
                    chain_id,
                    o.account,
                    o.block_number,
                    o.block_hash,
                    o.implementation,
                    o.fallback_handler,
                    list(o.enabled_managers),
                    o.tainted,
                )
                for o in accounts
            ],
        )
    if attributions:
        await connection.execute(
            _INSERT_ATTRIBUTIONS,
            chain_id,
            [a.block_number for a in attributions],
            [a.manager for a in attributions],
            [a.account for a in attributions],
            [a.evidence for a in attributions],
            [a.attribution for a in attributions],
            [a.transaction_hash for a in attributions],
            [a.user_op_hash for a in attributions],
        )


_UPSERT_BALANCES = """
INSERT INTO chain.erc1155_balance AS kept (chain_id, contract, owner, token_id, balance)
SELECT $1, * FROM unnest($2::bytea[], $3::bytea[], $4::numeric[], $5::numeric[])
ON CONFLICT (chain_id, contract, owner, token_id)
DO UPDATE SET balance = kept.balance + excluded.balance"""


async def add_to_balances(
    connection: Connection, chain_id: int, deltas: Mapping[tuple[Address, Address, int], int]
) -> None:
    """Fold deltas of final transfers into the balances, in key order."""
    if deltas:
        keys = sorted(deltas)
        await connection.execute(
            _UPSERT_BALANCES,
            chain_id,
            [k[0] for k in keys],
            [k[1] for k in keys],
            [k[2] for k in keys],
            [deltas[k] for k in keys],
        )
