"""Reading what verdicts are decided on: set-based, and cut to what was known at a block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from indexer.core.types import ZERO_ADDRESS, ZERO_HASH, Address, Hash32
from indexer.core.verdicts import (
    AccountState,
    Instant,
    RootChange,
    StoredSession,
    StoredSet,
    VerdictInputs,
)
from indexer.store.chain_row import Connection

Key = tuple[Address, Address]
"""(manager, account)."""


@dataclass(slots=True)
class Histories:
    """All that is known of some keys; `cut` gives the inputs of one as of a block.

    `roots` also holds the changes under the other managers of the same accounts.
    """

    managers: tuple[Address, ...]
    first: dict[Key, Instant] = field(default_factory=dict)
    roots: defaultdict[Key, list[RootChange]] = field(default_factory=lambda: defaultdict(list))
    states: defaultdict[Key, list[AccountState]] = field(default_factory=lambda: defaultdict(list))
    sets: defaultdict[Key, list[StoredSet]] = field(default_factory=lambda: defaultdict(list))
    modules_without_code: frozenset[Address] = frozenset()
    unreadable: frozenset[Key] = frozenset()
    past_unreadable: frozenset[Key] = frozenset()

    def cut(self, key: Key, block_number: int | None = None) -> VerdictInputs:
        """Return the inputs of one key with the observations up to a block; None: with all."""
        first = self.first.get(key)
        if first is not None and not _until(first.block_number, block_number):
            first = None
        return VerdictInputs(
            manager=key[0],
            account=key[1],
            changes=tuple(c for c in self.roots[key] if _until(c.block_number, block_number)),
            first_observation=first,
            sets=tuple(self.sets[key]),
            other_roots=self._other_roots(key, block_number),
            account_states=tuple(
                s for s in self.states[key] if _until(s.block_number, block_number)
            ),
            modules_without_code=self.modules_without_code,
            unreadable=key in self.unreadable,
            past_unreadable=key in self.past_unreadable,
        )

    def _other_roots(self, key: Key, block_number: int | None) -> Mapping[Address, Hash32]:
        current = {
            manager: next(
                (
                    c.root
                    for c in reversed(self.roots.get((manager, key[1]), ()))
                    if _until(c.block_number, block_number)
                ),
                ZERO_HASH,
            )
            for manager in self.managers
            if manager != key[0]
        }
        return {manager: root for manager, root in current.items() if root != ZERO_HASH}


def _until(number: int | None, last: int | None) -> bool:
    return last is None or number is None or number <= last


_MANAGERS = "SELECT unnest(managers) FROM chain.chain WHERE chain_id = $1"

# The first canonical observation of each key, and those that differ from the one before. Key by
# key: what the planner knows of a table that is being filled is worth nothing.
_ROOTS = """
SELECT seen.manager, seen.account, seen.block_number, seen.block_time, seen.root,
       seen.nth = 1 AS is_first, seen.root <> seen.before AS is_change,
       coalesce(t.attribution, 'none') AS attribution, t.user_op_hash, t.transaction_hash
  FROM unnest($2::bytea[]) AS m(manager)
 CROSS JOIN unnest($3::bytea[]) AS a(account)
 CROSS JOIN LATERAL (
       SELECT o.manager, o.account, o.block_number, o.block_time, o.root::bytea AS root,
              coalesce(lag(o.root::bytea) OVER each, $4) AS before, row_number() OVER each AS nth
         FROM chain.canonical_root AS o
        WHERE o.chain_id = $1 AND o.manager = m.manager AND o.account = a.account
       WINDOW each AS (ORDER BY o.block_number)) AS seen
  LEFT JOIN chain.root_author AS t
    ON t.chain_id = $1 AND t.block_number = seen.block_number AND t.manager = seen.manager
   AND t.account = seen.account
 WHERE seen.nth = 1 OR seen.root <> seen.before
 ORDER BY seen.block_number"""

_STATES = """
SELECT o.account, o.block_number, o.block_time, o.tainted, o.implementation, o.enabled_managers
  FROM chain.canonical_slots AS o
 WHERE o.chain_id = $1 AND o.account = ANY($2::bytea[])
 ORDER BY o.block_number"""

# A revoke form is the record of a tree that a client's SDK left on chain, no set anybody wants.
_SETS = """
SELECT s.manager, s.account, s.set_id, s.root, s.stored_block, s.stored_at
  FROM sessions.session_set AS s
  JOIN unnest($2::bytea[], $3::bytea[]) AS k(manager, account)
    ON s.manager = k.manager AND s.account = k.account
 WHERE s.chain_id = $1 AND s.matched_form <> 'revoke_form'
 ORDER BY s.set_id"""

_SESSIONS = """
SELECT set_id, leaf, valid_until, valid_after, session_validation_module, client_status
  FROM sessions.session WHERE set_id = ANY($1::bigint[]) ORDER BY set_id, leaf_index"""

_MODULES_WITHOUT_CODE = """
SELECT module FROM evidence.module_code
 WHERE chain_id = $1 AND NOT has_code AND module = ANY($2::bytea[])"""

# Keys whose account may have acted where no node has the state, and whether after its last
# observation.
_UNREADABLE = """
SELECT k.manager, k.account, lost.block_number > seen.block_number AS is_newest
  FROM unnest($2::bytea[], $3::bytea[]) AS k(manager, account)
 CROSS JOIN LATERAL (
    SELECT coalesce(max(o.block_number), -1) AS block_number FROM chain.canonical_root AS o
     WHERE o.chain_id = $1 AND o.manager = k.manager AND o.account = k.account) AS seen
 CROSS JOIN LATERAL (
    SELECT max(t.block_number) AS block_number
      FROM evidence.unobserved AS u
     CROSS JOIN LATERAL (
        (SELECT e.block_number FROM chain.account_event AS e
          WHERE e.chain_id = $1 AND e.account = k.account
            AND e.block_number BETWEEN u.first_block AND u.last_block
          ORDER BY e.block_number DESC LIMIT 1)
        UNION ALL
        (SELECT p.block_number FROM chain.user_operation AS p
          WHERE p.chain_id = $1 AND p.sender = k.account
            AND p.block_number BETWEEN u.first_block AND u.last_block
          ORDER BY p.block_number DESC LIMIT 1)) AS t
     WHERE u.chain_id = $1 AND u.manager = k.manager) AS lost
 WHERE lost.block_number IS NOT NULL"""


async def load_histories(connection: Connection, chain_id: int, keys: Collection[Key]) -> Histories:
    """Load what is known of these keys from canonical observations and stored sets."""
    managers = [key[0] for key in keys]
    accounts = [key[1] for key in keys]
    configured = [Address(row[0]) for row in await connection.fetch(_MANAGERS, chain_id)]
    histories = Histories(tuple(dict.fromkeys([*configured, *sorted(set(managers))])))
    every_account = sorted(set(accounts))
    if not every_account:
        return histories

    for row in await connection.fetch(
        _ROOTS, chain_id, list(histories.managers), every_account, ZERO_HASH
    ):
        key = (Address(row["manager"]), Address(row["account"]))
        if row["is_first"]:
            histories.first[key] = Instant(row["block_number"], float(row["block_time"]))
        if row["is_change"]:
            histories.roots[key].append(
                RootChange(
                    row["block_number"],
                    row["block_time"],
                    Hash32(row["root"]),
                    row["attribution"],
                    row["user_op_hash"],
                    row["transaction_hash"],
                )
            )

    for row in await connection.fetch(_STATES, chain_id, every_account):
        # Only of configured managers does an observation say whether they are enabled.
        for manager in histories.managers:
            known = row["implementation"] != ZERO_ADDRESS and manager in configured
            histories.states[manager, Address(row["account"])].append(
                AccountState(
                    row["block_number"],
                    row["block_time"],
                    row["tainted"],
                    manager in row["enabled_managers"] if known else None,
                )
            )

    modules = await _load_sets(connection, chain_id, managers, accounts, histories)
    histories.modules_without_code = frozenset(
        Address(row[0])
        for row in await connection.fetch(_MODULES_WITHOUT_CODE, chain_id, sorted(modules))
    )
    unreadable = {
        (Address(row["manager"]), Address(row["account"])): row["is_newest"]
        for row in await connection.fetch(_UNREADABLE, chain_id, managers, accounts)
    }
    histories.past_unreadable = frozenset(unreadable)
    histories.unreadable = frozenset(key for key, is_newest in unreadable.items() if is_newest)
    return histories


async def _load_sets(
    connection: Connection,
    chain_id: int,
    managers: Sequence[Address],
    accounts: Sequence[Address],
    histories: Histories,
) -> set[Address]:
    """Load the stored sets of the keys; return the modules their sessions name."""
    rows = await connection.fetch(_SETS, chain_id, managers, accounts)
    sessions: defaultdict[int, list[StoredSession]] = defaultdict(list)
    for row in await connection.fetch(_SESSIONS, [row["set_id"] for row in rows]):
        sessions[row["set_id"]].append(
            StoredSession(
                Hash32(row["leaf"]),
                row["valid_until"],
                row["valid_after"],
                Address(row["session_validation_module"]),
                row["client_status"],
            )
        )
    for row in rows:
        histories.sets[Address(row["manager"]), Address(row["account"])].append(
            StoredSet(
                row["set_id"],
                Hash32(row["root"]),
                row["stored_block"],
                row["stored_at"].timestamp(),
                tuple(sessions[row["set_id"]]),
            )
        )
    return {s.session_validation_module for listed in sessions.values() for s in listed}


async def load_inputs(
    connection: Connection, chain_id: int, keys: Collection[Key]
) -> dict[Key, VerdictInputs]:
    """Return the inputs of each (manager, account) as they are now."""
    histories = await load_histories(connection, chain_id, keys)
    return {key: histories.cut(key) for key in keys}
