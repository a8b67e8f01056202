"""Writing what was read from state, who is named for it, and the blocks it stands in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from indexer.core.attribution import RootAttribution
from indexer.core.roots import AccountObservation, RootObservation
from indexer.core.types import BlockHeader
from indexer.store.chain_row import Connection
from indexer.store.copying import BundleRow

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


# An observation is keyed by its block's hash and true for ever: read again, it is the same.
_INSERT_ROOTS = """
INSERT INTO evidence.root_observation (chain_id, manager, account, block_number, block_hash, root)
SELECT $1, * FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bytea[])
ON CONFLICT DO NOTHING"""

# Read again when managers were added: those read before were no others, but fewer were asked for.
_INSERT_ACCOUNTS = """
INSERT INTO evidence.account_observation (chain_id, account, block_number, block_hash,
    implementation, fallback_handler, enabled_managers, tainted)
SELECT $1, account, block_number, block_hash, implementation, fallback_handler,
       string_to_array(enabled, ',')::bytea[], tainted
  FROM unnest($2::bytea[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::text[],
              $8::boolean[])
    AS seen(account, block_number, block_hash, implementation, fallback_handler, enabled, tainted)
ON CONFLICT (chain_id, account, block_number, block_hash) DO UPDATE
   SET tainted = excluded.tainted,
       enabled_managers = ARRAY(SELECT unnest(account_observation.enabled_managers)
                                UNION SELECT unnest(excluded.enabled_managers) ORDER BY 1)
 WHERE account_observation.tainted <> excluded.tainted
    OR NOT account_observation.enabled_managers @> excluded.enabled_managers"""

# Read again, a block may tell more: its logs were omitted, or its inputs are there by now. What a
# trace has settled stays, unless an input or an event says it itself.
_INSERT_ATTRIBUTIONS = """
INSERT INTO chain.root_attribution (chain_id, block_number, manager, account, evidence,
    attribution, transaction_hash, user_op_hash, leaf, contradicting_evidence, contradicting_root)
SELECT $1, * FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::text[], $6::text[],
    $7::bytea[], $8::bytea[], $9::bytea[], $10::text[], $11::bytea[])
ON CONFLICT (chain_id, block_number, manager, account) DO UPDATE
   SET evidence = excluded.evidence, attribution = excluded.attribution,
       transaction_hash = excluded.transaction_hash, user_op_hash = excluded.user_op_hash,
       leaf = excluded.leaf, contradicting_evidence = excluded.contradicting_evidence,
       contradicting_root = excluded.contradicting_root
 WHERE excluded.evidence <> 'state' OR root_attribution.evidence = 'state'"""

# Two lanes may come by the same transaction: of operations of different accounts.
_INSERT_BUNDLES = """
INSERT INTO chain.bundle (chain_id, block_number, transaction_hash, bundler, called)
SELECT $1, * FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[])
ON CONFLICT DO NOTHING"""


async def write_bundles(
    connection: Connection, chain_id: int, bundles: Sequence[BundleRow]
) -> None:
    """Record who sent transactions that carried user operations."""
    if bundles:
        await connection.execute(
            _INSERT_BUNDLES,
            chain_id,
            [b.block_number for b in bundles],
            [b.transaction_hash for b in bundles],
            [b.bundler for b in bundles],
            [b.to for b in bundles],
        )


# What was read makes a change of itself, or of the observation after it; a lane may come by older
# blocks later. Where logs or inputs name who did it, no trace is needed.
_QUEUE_TRACES = """
INSERT INTO chain.trace_queue (chain_id, block_number, manager, account)
SELECT DISTINCT r.chain_id, r.block_number, r.manager, r.account
  FROM unnest($2::bigint[], $3::bytea[], $4::bytea[]) AS seen(block_number, manager, account)
 CROSS JOIN LATERAL (
      SELECT o.block_number FROM chain.canonical_root AS o
       WHERE o.chain_id = $1 AND o.manager = seen.manager AND o.account = seen.account
         AND o.block_number >= seen.block_number
       ORDER BY o.block_number LIMIT 2) AS near
  JOIN chain.root_change AS r ON r.chain_id = $1 AND r.manager = seen.manager
   AND r.account = seen.account AND r.block_number = near.block_number
  LEFT JOIN chain.root_attribution AS t ON t.chain_id = r.chain_id
   AND t.block_number = r.block_number AND t.manager = r.manager AND t.account = r.account
 WHERE (coalesce(t.evidence, 'state') = 'state'
        OR (t.attribution = 'module' AND t.module IS NULL AND t.evidence <> 'trace'))
   AND EXISTS (SELECT FROM chain.chain AS c
                WHERE c.chain_id = $1 AND c.settings ->> 'traces' IN ('debug', 'trace'))
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
        # Once each: the same slots may have been read for two reasons.
        distinct = {(o.account, o.block_number, o.block_hash): o for o in accounts}.values()
        await connection.execute(
            _INSERT_ACCOUNTS,
            chain_id,
            [o.account for o in distinct],
            [o.block_number for o in distinct],
            [o.block_hash for o in distinct],
            [o.implementation for o in distinct],
            [o.fallback_handler for o in distinct],
            [",".join(rf"\x{manager.hex()}" for manager in o.enabled_managers) for o in distinct],
            [o.tainted for o in distinct],
        )
    if attributions:
        distinct_keys = {(a.block_number, a.manager, a.account): a for a in attributions}
        attributions = list(distinct_keys.values())
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
            [a.leaf for a in attributions],
            [a.contradiction[0] if a.contradiction else None for a in attributions],
            [a.contradiction[1] if a.contradiction else None for a in attributions],
        )
    if roots:
        await connection.execute(
            _QUEUE_TRACES,
            chain_id,
            [o.block_number for o in roots],
            [o.manager for o in roots],
            [o.account for o in roots],
        )
