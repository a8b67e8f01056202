"""An arrangement of stored sessions in words: parts of the one sentence that explains a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from indexer.core.root_search import Arrangement, Search
from indexer.core.types import Hash32
from indexer.core.verdict_values import RootChange

MOST_NAMED = 3
"""How many leaves one sentence names."""


def short(value: bytes) -> str:
    """Return 0x, the first four bytes, … and the last two: enough to tell two apart."""
    return f"0x{value[:4].hex()}…{value[-2:].hex()}"


def names(values: Sequence[bytes]) -> str:
    """Name the first few values, and count the others."""
    named = ", ".join(short(value) for value in values[:MOST_NAMED])
    more = len(values) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


def sessions(leaves: Sequence[Hash32]) -> str:
    """Name sessions by their leaves: `session 0x…`, `sessions 0x…, 0x…`."""
    return f"session{'' if len(leaves) == 1 else 's'} {names(leaves)}"


def arranged(arrangement: Arrangement, *, room: int = MOST_NAMED) -> str:
    """Say how the tree comes from a stored set; at most `room` leaves are named."""
    base = f"your set {arrangement.base_id}{_order(arrangement)}"
    match arrangement.form:
        case "whole":
            return base
        case "without_revoked":
            return f"{base} without the sessions that your store calls revoked"
        case "active_only":
            return f"{base} with only the sessions that your store calls active"
        case "prefix" | "missing":
            return f"{base} without {_some(arrangement.missing, room)}"
        case "twice":
            return f"{base} with {_some(arrangement.twice, room)} more than once"
        case "revoke":
            return (
                f"{base} with remaining sessions appended again, "
                "as the vendor's client does to revoke"
            )
        case "joined":
            return f"{base} and your set {arrangement.joined_id}, one after the other"
    assert_never(arrangement.form)


def registered(change: RootChange | None) -> str:
    """Say in which block and by what the root was set, as far as that is known."""
    if change is None:
        return ""
    by = ""
    if change.user_op_hash is not None:
        by = f" by user operation {short(change.user_op_hash)}"
    elif change.transaction_hash is not None:
        module = "a module of the account in " if change.attribution == "module" else ""
        by = f" by {module}transaction {short(change.transaction_hash)}"
    return f"registered in block {change.block_number}{by}"


def not_found(search: Search) -> str:
    """Say how far a search in vain went."""
    if search.exhausted:
        return (
            f"no arrangement of the stored sets found within {search.max_hashes:,} hashes gives it"
        )
    return "all orders, subsets and repetitions that clients make of the stored sets were tried"


def _order(arrangement: Arrangement) -> str:
    match arrangement.order:
        case "as_stored":
            return ""
        case "reversed":
            return " in reverse order"
        case "newest_first":
            return " with its last session first"
        case "sorted":
            return " sorted by leaf"
    assert_never(arrangement.order)


def _some(leaves: Sequence[Hash32], room: int) -> str:
    if len(leaves) <= room:
        return sessions(leaves)
    return f"{len(leaves)} sessions" if len(leaves) > 1 else "one session"
