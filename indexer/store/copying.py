"""COPY of decoded rows into the tables of schema chain, in key order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.core.events import DecodedLogs
from indexer.core.roots import RootHint
from indexer.core.session_layout import SessionGrant
from indexer.core.types import Address, Hash32
from indexer.core.user_operations import UserOperationBody
from indexer.store.chain_row import Connection

MAX_UNDECODED_BYTES = 131_072


@dataclass(frozen=True, slots=True)
class BodyRow:
    """The decoded input of one stored user operation, at the position of its event."""

    block_number: int
    log_index: int
    body: UserOperationBody
    grants: tuple[SessionGrant, ...]
    """What each of the body's sessions may do."""


@dataclass(frozen=True, slots=True)
class BundleRow:
    """A transaction that carried user operations: who sent it to whom. `to` None: a creation."""

    block_number: int
    transaction_hash: Hash32
    bundler: Address
    to: Address | None


async def copy_decoded(connection: Connection, chain_id: int, decoded: DecodedLogs) -> None:
    """Append what logs said."""
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
            json.dumps(c.args()),
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


async def copy_bodies(
    connection: Connection, chain_id: int, bodies: Sequence[BodyRow], hints: Sequence[RootHint]
) -> None:
    """Append decoded inputs, the sessions that signed them, and the roots they name."""
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
            )
            for row in bodies
        ],
    )
    await _copy(
        connection,
        "session_use",
        _SESSION_USE,
        [use for row in bodies for use in _uses(chain_id, row)],
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
            "leaf",
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
                h.leaf,
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


_SESSION_USE = (
    "chain_id",
    "block_number",
    "log_index",
    "use_index",
    "user_op_hash",
    "manager",
    "account",
    "leaf",
    "implied_root",
    "called",
    "valid_until",
    "valid_after",
    "session_validation_module",
    "session_key",
    "granted_contract",
    "granted_recipient",
    "granted_token_id",
    "session_key_data",
)


def _uses(chain_id: int, row: BodyRow) -> Iterator[tuple[Any, ...]]:
    """Yield the sessions that the signature of an operation presents, as rows."""
    body = row.body
    one_each = len(body.sessions) == len(body.calls)
    for index, (shown, grant) in enumerate(zip(body.sessions, row.grants, strict=True)):
        yield (
            chain_id,
            row.block_number,
            row.log_index,
            index,
            body.user_op_hash,
            shown.manager,
            body.sender,
            shown.leaf,
            shown.implied_root,
            body.calls[index].to if one_each else None,
            shown.session.valid_until,
            shown.session.valid_after,
            shown.session.session_validation_module,
            grant.session_key,
            grant.contract,
            grant.recipient,
            grant.token_id,
            shown.session.session_key_data,
        )
