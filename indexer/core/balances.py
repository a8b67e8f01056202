"""ERC-1155 balances as sums of transfers."""

from __future__ import annotations

from collections.abc import Iterable

from indexer.core.decoded import Erc1155Transfer
from indexer.core.types import ZERO_ADDRESS, Address

BalanceKey = tuple[Address, Address, int]
"""(contract, owner, token_id)."""


def balance_deltas(transfers: Iterable[Erc1155Transfer]) -> dict[BalanceKey, int]:
    """Return by how much each balance changed; a dict without zeros.

    The zero address (mints, burns) has no balance, and owners whose transfers cancel out, a
    transfer to oneself among them, are left out. A delta is unbounded and may be negative:
    earlier transfers may be unknown, and a contract may log what never happened.
    """
    deltas: dict[BalanceKey, int] = {}
    for transfer in transfers:
        for owner, amount in (
            (transfer.from_address, -transfer.amount),
            (transfer.to_address, transfer.amount),
        ):
            if owner != ZERO_ADDRESS:
                key = (transfer.contract, owner, transfer.token_id)
                deltas[key] = deltas.get(key, 0) + amount
    return {key: delta for key, delta in deltas.items() if delta}
