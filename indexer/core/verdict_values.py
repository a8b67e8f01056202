"""The values a verdict is made of: what goes into the decision and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

from indexer.core.root_search import Search
from indexer.core.types import Address, Hash32

Verdict = Literal["in_sync", "pending", "drifted", "unmanaged", "empty", "unknown"]
Cause = Literal[
    "tainted_account",
    "rotated_by_session_key",
    "manager_disabled",
    "module_without_code",
    "cleared_on_chain",
    "reverted_to_older_set",
    "superseded",
    "never_landed",
    "manager_mismatch",
    "order_or_duplicates",
    "lost_sessions",
    "revoked_still_provable",
    "unknown_root",
]
VerdictWarning = Literal[
    "all_expired", "expiring_soon", "expired_in_root", "unreadable_state", "not_final"
]
"""`not_final` is never decided: finality moves without any input here, so the views derive it."""
Severity = Literal["critical", "warning", "info"]

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Instant:
    """When something began to hold. `time` is unix seconds; `block_number` None if none fits."""

    block_number: int | None
    time: float


@dataclass(frozen=True, slots=True)
class RootChange:
    """A canonical observation that differs from the one before it (before the first: zero).

    `attribution` and the hashes say who made it, as far as that is known: attribution.Attribution.
    """

    block_number: int
    block_time: int
    root: Hash32
    attribution: str = "none"
    user_op_hash: Hash32 | None = None
    transaction_hash: Hash32 | None = None


@dataclass(frozen=True, slots=True)
class AccountState:
    """One canonical reading of the account itself.

    `manager_enabled` None: the account has no code yet, or is no SmartAccount proxy.
    """

    block_number: int
    block_time: int
    tainted: bool
    manager_enabled: bool | None


@dataclass(frozen=True, slots=True)
class StoredSession:
    """What a verdict needs of a session; times are unix seconds, 0 = unbounded, inclusive.

    `client_status` is what the client's store says of it, one of session_sets.CLIENT_STATUSES.
    """

    leaf: Hash32
    valid_until: int
    valid_after: int
    session_validation_module: Address
    client_status: str | None = None


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A stored set. `stored_at` is unix seconds on the database's clock; sessions in order.

    `stored_block` is the indexed block at storing, None if nothing was indexed then.
    """

    set_id: int
    root: Hash32
    stored_block: int | None
    stored_at: float
    sessions: tuple[StoredSession, ...]


@dataclass(frozen=True, slots=True)
class VerdictInputs:
    """All that is known of one (manager, account). Tuples oldest first; `sets` in any order.

    `first_observation` None: the root was never read. `other_roots`: current non-zero roots of
    the same account in other managers. `unreadable`: the account may have acted after the last
    observation in blocks whose state no node has. `past_unreadable`: or before it, so that
    roots may have stood of which nothing is known.
    """

    manager: Address
    account: Address
    changes: tuple[RootChange, ...]
    first_observation: Instant | None
    sets: tuple[StoredSet, ...]
    other_roots: Mapping[Address, Hash32]
    account_states: tuple[AccountState, ...] = ()
    modules_without_code: frozenset[Address] = frozenset()
    unreadable: bool = False
    past_unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How long a stored set may take to land, and how early an expiry is announced."""

    grace_seconds: int
    expiring_soon_seconds: int = DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Flag:
    """A cause that holds, since when, and the leaves and addresses it is about.

    `search` is what was found for a root of no stored set.
    """

    cause: Cause
    since: Instant
    leaves: tuple[Hash32, ...] = ()
    named: tuple[Address, ...] = ()
    rests_on_block: int | None = None
    search: Search | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict and what it rests on.

    `since_*` is the computed instant from which it holds (a change, a storing, the end of a
    grace), never the moment of deciding; for `unknown` the oldest storing. `observed_block` is
    the youngest block whose state it rests on. Past `recheck_at` (database clock) or at block
    time `recheck_block_time`, time alone may change it.
    """

    verdict: Verdict
    cause: Cause | None
    warnings: tuple[VerdictWarning, ...]
    severity: Severity
    since_block: int | None
    since_time: float
    explanation: str
    on_chain_root: Hash32 | None
    on_chain_set_id: int | None
    expected_root: Hash32 | None
    expected_set_id: int | None
    observed_block: int | None
    recheck_at: float | None
    recheck_block_time: int | None


def severity_of(cause: Cause, *, revoked_provable: bool) -> Severity:
    """Grade a cause: critical where somebody may act who should not, or nobody knows who may.

    A warning means that sessions which should work do not. `superseded` is critical when the
    older tree still proves sessions that the expected set dropped.
    """
    match cause:
        case (
            "tainted_account"
            | "rotated_by_session_key"
            | "reverted_to_older_set"
            | "revoked_still_provable"
            | "unknown_root"
        ):
            return "critical"
        case "superseded":
            return "critical" if revoked_provable else "warning"
        case (
            "manager_disabled"
            | "module_without_code"
            | "cleared_on_chain"
            | "never_landed"
            | "manager_mismatch"
            | "order_or_duplicates"
            | "lost_sessions"
        ):
            return "warning"
    assert_never(cause)
