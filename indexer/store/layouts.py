"""What sessions may do is derived again when the layout of their module is another than before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from indexer.core.session_layout import KNOWN_LAYOUTS, Layout, SessionGrant, read_grant
from indexer.core.types import Address

if TYPE_CHECKING:
    from indexer.store.chain_row import Connection

_ROWS_AT_ONCE = 500

_USES = """
SELECT block_number, log_index, use_index, session_validation_module, session_key_data
  FROM chain.session_use
 WHERE chain_id = $1 AND session_validation_module = ANY($2::bytea[])"""

_SET_USES = """
UPDATE chain.session_use AS u
   SET session_key = d.session_key, granted_contract = d.contract,
       granted_recipient = d.recipient, granted_token_id = d.token_id
  FROM unnest($2::bigint[], $3::int[], $4::int[], $5::bytea[], $6::bytea[], $7::bytea[],
              $8::numeric[])
    AS d(block_number, log_index, use_index, session_key, contract, recipient, token_id)
 WHERE u.chain_id = $1 AND u.block_number = d.block_number AND u.log_index = d.log_index
   AND u.use_index = d.use_index"""

_SESSIONS = """
SELECT s.set_id, s.leaf_index, s.session_validation_module, s.session_key_data
  FROM sessions.session AS s JOIN sessions.session_set AS x USING (set_id)
 WHERE x.chain_id = $1 AND s.session_validation_module = ANY($2::bytea[])"""

_SET_SESSIONS = """
UPDATE sessions.session AS s SET session_key = d.session_key
  FROM unnest($1::bigint[], $2::int[], $3::bytea[]) AS d(set_id, leaf_index, session_key)
 WHERE s.set_id = d.set_id AND s.leaf_index = d.leaf_index
   AND s.session_key IS DISTINCT FROM d.session_key"""


def shown_layouts(layouts: Mapping[Address, Layout]) -> dict[str, str]:
    """Return every layout in force as chain.settings keeps it: by the module's hex text."""
    in_force = {**KNOWN_LAYOUTS, **layouts}
    return {f"0x{module.hex()}": ", ".join(in_force[module]) for module in sorted(in_force)}


async def apply_layouts(
    connection: Connection,
    chain_id: int,
    layouts: Mapping[Address, Layout],
    before: Mapping[str, str],
) -> int:
    """Derive session keys and grants again where `before`, as shown then, said something else.

    Returns how many sessions and uses were looked at. Runs in the transaction that records the
    layouts in force.
    """
    now = shown_layouts(layouts)
    changed = {text for text in now.keys() | before.keys() if now.get(text) != before.get(text)}
    modules = sorted(Address(bytes.fromhex(text[2:])) for text in changed)
    if not modules:
        return 0

    def grants(rows: Sequence[Any]) -> list[SessionGrant]:
        return [
            read_grant(Address(row["session_validation_module"]), row["session_key_data"], layouts)
            for row in rows
        ]

    looked_at = 0
    uses = await connection.cursor(_USES, chain_id, modules)
    while rows := await uses.fetch(_ROWS_AT_ONCE):
        looked_at += len(rows)
        derived = grants(rows)
        await connection.execute(
            _SET_USES,
            chain_id,
            [row["block_number"] for row in rows],
            [row["log_index"] for row in rows],
            [row["use_index"] for row in rows],
            [grant.session_key for grant in derived],
            [grant.contract for grant in derived],
            [grant.recipient for grant in derived],
            [grant.token_id for grant in derived],
        )
    sessions = await connection.cursor(_SESSIONS, chain_id, modules)
    while rows := await sessions.fetch(_ROWS_AT_ONCE):
        looked_at += len(rows)
        await connection.execute(
            _SET_SESSIONS,
            [row["set_id"] for row in rows],
            [row["leaf_index"] for row in rows],
            [grant.session_key for grant in grants(rows)],
        )
    return looked_at
