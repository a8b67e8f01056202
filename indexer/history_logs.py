"""Paying a range of logs: what a node says of it → the rows of one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from indexer.chain.head import fetch_headers
from indexer.chain.logs import fetch_logs_by_hash, fetch_logs_in_range
from indexer.chain.rpc import Node
from indexer.core.debt import Task
from indexer.core.events import addresses_named
from indexer.core.passes import ACCOUNTS, TOUCHING_ERC1155
from indexer.core.roots import event_hints
from indexer.core.types import Address, BlockHeader, Hash32, Log
from indexer.errors import NodeAnswerError
from indexer.filters import Contracts, decode
from indexer.store.history import Payment, read_marker
from indexer.store.pool import Database
from indexer.store.rows import BlockRows
from indexer.store.watched import WatchedRow, read_members, watched_among

FEW_ACCOUNTS = 500
"""Up to so many the node looks for them; more are cheaper found among all that happened."""


class Members:
    """The accounts of one cohort among some that were asked about, by block.

    Cohort 0 is everybody above the block of adoption, any other its own up to that block.
    """

    def __init__(self, rows: Collection[WatchedRow], cohort: int, *, tokens: bool) -> None:
        self._cohort = cohort
        self._rows = {
            row.account: (row.token_cohort_id, row.token_adopted_block)
            if tokens
            else (row.cohort_id, row.adopted_block)
            for row in rows
        }

    def watched(self, account: bytes, block_number: int) -> bool:
        """Say whether a log of `account` in this block is kept."""
        found = self._rows.get(Address(account))
        if found is None:
            return False
        cohort, adopted_block = found
        if self._cohort:
            return cohort == self._cohort and block_number <= (adopted_block or 0)
        return adopted_block is None or block_number > adopted_block


async def fetch_logs_of(
    database: Database, node: Node, contracts: Contracts, task: Task
) -> tuple[Payment, int]:
    """Return what pays a range of logs, and how many logs came.

    Raises what fetching raises, and NodeAnswerError where the node is not on our chain.
    """
    filters = {p.filter for p in task.passes}
    with_accounts = ACCOUNTS in filters
    logs = await _few(database, node, contracts, task) if task.cohort else None
    if logs is None:
        watch = contracts.history_filter(task.passes, Members((), 0, tokens=False))
        requests = contracts.log_requests(watch, with_accounts=with_accounts)
        logs = (await fetch_logs_in_range(node, task.first, task.last, requests)).logs
    # Who is watched is asked after the logs have come: the list is as long as the chain is old.
    rows: list[WatchedRow] = []
    if filters & {ACCOUNTS, TOUCHING_ERC1155}:
        rows = await watched_among(database, contracts.settings.chain_id, addresses_named(logs))
    watch = contracts.history_filter(
        task.passes,
        Members(rows, task.cohort, tokens=False),
        Members(rows, task.cohort, tokens=True),
    )
    decoded = decode(logs, watch, with_accounts=with_accounts)
    found = BlockRows(decoded=decoded, hints=event_hints(decoded))
    headers = await our_headers(database, node, contracts, found.block_numbers(), logs)
    return Payment(task, headers, found), len(logs)


async def _few(
    database: Database, node: Node, contracts: Contracts, task: Task
) -> list[Log] | None:
    """Return all logs of the blocks in which a small cohort did anything; None: it is not small.

    The node looks for its accounts; the few blocks it names are then read whole, since other
    logs say which operation a log belongs to.
    """
    chain_id, filters = contracts.settings.chain_id, {p.filter for p in task.passes}
    members: dict[str, list[Address]] = {ACCOUNTS: [], TOUCHING_ERC1155: []}
    for name in filters:
        members[name] = await read_members(
            database, chain_id, task.cohort, FEW_ACCOUNTS + 1, tokens=name == TOUCHING_ERC1155
        )
        if len(members[name]) > FEW_ACCOUNTS:
            return None
    watch = contracts.history_filter(task.passes, Members((), 0, tokens=False))
    narrow = contracts.requests_naming(watch, members[ACCOUNTS], members[TOUCHING_ERC1155])
    answer = await fetch_logs_in_range(node, task.first, task.last, narrow)
    headers = headers_in(answer.logs)
    return await fetch_logs_by_hash(
        node, headers, contracts.log_requests(watch, with_accounts=ACCOUNTS in filters)
    )


def headers_in(logs: Sequence[Log]) -> list[BlockHeader]:
    """Return the blocks that logs stand in, ascending; timestamp -1 where the node gave none.

    The parent's hash is not known; nobody asks for it below finality.
    """
    found = {
        log.block_number: BlockHeader(
            log.block_number,
            log.block_hash,
            Hash32(bytes(32)),
            -1 if log.block_timestamp is None else log.block_timestamp,
        )
        for log in logs
    }
    return [found[number] for number in sorted(found)]


async def headers_at(node: Node, numbers: Sequence[int]) -> list[BlockHeader]:
    """Return the node's headers at these numbers; NodeAnswerError if one is missing."""
    headers = await fetch_headers(node, numbers)
    found = [header for header in headers if header is not None]
    if len(found) != len(numbers):
        raise NodeAnswerError("the node has logs of blocks whose headers it does not have")
    return found


async def our_headers(
    database: Database,
    node: Node,
    contracts: Contracts,
    numbers: Collection[int],
    logs: Sequence[Log],
) -> list[BlockHeader]:
    """Return the headers of these blocks, of a node that has our finalized block at this moment.

    Asked for after the logs: a node that has left our chain must not pay our debt. Where logs
    say when their block was made, nothing but that one block is asked for.
    """
    said = {header.number: header for header in headers_in(logs)}
    final_number, final_hash = await read_marker(database, contracts.settings.chain_id)
    untold = {n for n in numbers if n not in said or said[n].timestamp < 0}
    headers = await headers_at(node, sorted(untold | {final_number}))
    asked = {header.number: header for header in headers}
    if asked[final_number].hash != final_hash:
        raise NodeAnswerError(f"the node's block {final_number} is not ours, which is final")
    for number, header in asked.items():
        if number in said and said[number].hash != header.hash:
            raise NodeAnswerError(f"block {number} came with two hashes")
    return [asked.get(number) or said[number] for number in sorted(numbers)]
