"""A session set: an ordered list of sessions of one account under one manager, and its root."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from indexer.core.abi import keccak
from indexer.core.merkle import merkle_root, session_leaf
from indexer.core.types import Address, Hash32, Session

ClientStatus = Literal["pending", "active", "inactive", "expired", "revoked"]
"""What a client's store says of a session: its word, never the truth about the chain."""
CLIENT_STATUSES: Final[tuple[ClientStatus, ...]] = get_args(ClientStatus)

MatchedForm = Literal["all_leaves", "not_revoked", "active", "revoke_form", "prefix", "suffix"]
"""Which leaves of its document a set is made of; see store_forms.py."""
MATCHED_FORMS: Final[tuple[MatchedForm, ...]] = get_args(MatchedForm)

MAX_SESSIONS: Final = 10_000
"""Sessions of one set."""
MAX_SESSION_KEY_DATA_BYTES: Final = 24_576
"""session_key_data of one session. It travels in the signature of every user operation."""
MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024
"""One file of sessions."""


@dataclass(frozen=True, slots=True)
class SessionSet:
    """The sessions in order, duplicates kept. `leaves` and `root` are computed, never read.

    `leaves_digest` is the keccak256 of the concatenated leaves; with chain_id, manager and
    account it identifies the set, where the root cannot: two orders may share a root.
    `client_statuses` is as long as `sessions`, or empty: the client said nothing.
    """

    chain_id: int
    manager: Address
    account: Address
    sessions: tuple[Session, ...]
    leaves: tuple[Hash32, ...]
    root: Hash32
    leaves_digest: Hash32
    matched_form: MatchedForm = "all_leaves"
    client_statuses: tuple[ClientStatus | None, ...] = ()


def build_set(
    chain_id: int,
    manager: Address,
    account: Address,
    sessions: Iterable[Session],
    *,
    matched_form: MatchedForm = "all_leaves",
    client_statuses: tuple[ClientStatus | None, ...] = (),
) -> SessionSet:
    """Compute leaves, root and identity of a set.

    Raises ValueError on an empty set, on more than MAX_SESSIONS, on session_key_data past
    MAX_SESSION_KEY_DATA_BYTES, on wrong widths and on another number of statuses; OverflowError
    on times past 48 bits.
    """
    if chain_id < 1:
        raise ValueError("chain_id must be positive")
    if len(manager) != 20 or len(account) != 20:
        raise ValueError("manager and account must be 20 bytes")
    kept = tuple(sessions)
    if client_statuses and len(client_statuses) != len(kept):
        raise ValueError(f"{len(client_statuses)} client statuses for {len(kept)} sessions")
    if len(kept) > MAX_SESSIONS:
        raise ValueError(f"a set of {len(kept)} sessions exceeds {MAX_SESSIONS}")
    for index, session in enumerate(kept):
        if len(session.session_key_data) > MAX_SESSION_KEY_DATA_BYTES:
            raise ValueError(
                f"session {index} has {len(session.session_key_data)} bytes of session_key_data, "
                f"at most {MAX_SESSION_KEY_DATA_BYTES} are accepted"
            )
    leaves = tuple(session_leaf(session) for session in kept)
    root = merkle_root(leaves)
    digest = keccak(b"".join(leaves))
    return SessionSet(
        chain_id, manager, account, kept, leaves, root, digest, matched_form, client_statuses
    )
