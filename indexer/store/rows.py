"""Writing the rows of blocks: COPY into the tables, in key order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from indexer.core.attribution import RootAttribution
from indexer.core.events import DecodedLogs, Erc1155Transfer
from indexer.core.roots import AccountObservation, RootHint, RootObservation
from indexer.core.types import Address
from indexer.store.chain_row import Connection
from indexer.store.copying import BodyRow, BundleRow, copy_bodies, copy_decoded
from indexer.store.observations import write_bundles, write_observations


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row of watch.root_disagreement, as it shows it."""

    manager: str
    account: str
    block_number: int
    state_root: str
    evidence: str
    evidence_root: str


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What became visible: logs by event, those that could not be decoded, changes by evidence."""

    events: dict[str, int] = field(default_factory=dict)
    undecoded: int = 0
    root_changes: dict[str, int] = field(default_factory=dict)
    disagreements: Sequence[Disagreement] = ()


@dataclass(slots=True)
class BlockRows:
    """Everything one step found, ready to be written."""

    decoded: DecodedLogs | None = None
    bodies: list[BodyRow] = field(default_factory=list)
    bundles: list[BundleRow] = field(default_factory=list)
    hints: list[RootHint] = field(default_factory=list)
    roots: list[RootObservation] = field(default_factory=list)
    accounts: list[AccountObservation] = field(default_factory=list)
    attributions: list[RootAttribution] = field(default_factory=list)
    roots_missed: bool = False
    """State of some block was pruned: its roots are not covered by this step."""
    root_changes: dict[str, int] = field(default_factory=dict)
    """Filled in by the transaction: changes of roots in these blocks, by evidence."""
    disagreements: list[Disagreement] = field(default_factory=list)
    """Filled in by the transaction: roots that other evidence contradicts."""

    def counts(self) -> RowCounts:
        """Return how much this is."""
        decoded = self.decoded
        if decoded is None:
            return RowCounts(root_changes=self.root_changes, disagreements=self.disagreements)
        events = Counter(row.event for row in decoded.account_events)
        events.update(row.event for row in decoded.creations)
        events["UserOperationEvent"] = len(decoded.user_operations)
        events["Erc1155Transfer"] = len(
            {(t.at.block_number, t.at.log_index) for t in decoded.transfers}
        )
        events["ApprovalForAll"] = len(decoded.approvals)
        events["URI"] = len(decoded.uris)
        events["MerkleRootUpdated"] = len(decoded.manager_roots)
        kept = {event: count for event, count in events.items() if count}
        return RowCounts(kept, len(decoded.undecoded), self.root_changes, self.disagreements)

    def created(self) -> dict[Address, int]:
        """Return the accounts that a factory made, with the blocks of their creation."""
        creations = self.decoded.creations if self.decoded is not None else ()
        return {row.account: row.at.block_number for row in reversed(creations)}

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
    await write_bundles(connection, chain_id, rows.bundles)
    await write_observations(connection, chain_id, rows.roots, rows.accounts, rows.attributions)
    return list(rows.decoded.transfers) if rows.decoded is not None else []


async def _append(connection: Connection, chain_id: int, rows: BlockRows) -> None:
    if rows.decoded is not None:
        await copy_decoded(connection, chain_id, rows.decoded)
    await copy_bodies(connection, chain_id, rows.bodies, rows.hints)


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


_DISAGREEMENTS = """
SELECT manager, account, block_number, state_root, evidence, evidence_root
  FROM watch.root_disagreement WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3"""


async def read_disagreements(
    connection: Connection, chain_id: int, rows: BlockRows, span: tuple[int, int]
) -> list[Disagreement]:
    """Return what contradicts state in these blocks, once the rows are written."""
    if not any(row.contradiction for row in rows.attributions):
        return []
    found = await connection.fetch(_DISAGREEMENTS, chain_id, *span)
    return [Disagreement(**dict(row)) for row in found]


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
