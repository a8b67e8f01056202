"""Changes of roots that wait for a trace, and writing what traces said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.core.attribution import Attribution, RootAttribution
from indexer.core.types import Address, Hash32
from indexer.store.chain_row import Connection, lock_chain
from indexer.store.copying import BundleRow
from indexer.store.observations import write_bundles
from indexer.store.pool import Database
from indexer.store.rows import Disagreement
from indexer.store.verdict_queue import enqueue

MAX_ATTEMPTS = 5
"""So often a change is looked for; then what logs and inputs say stands."""
RETRY_SECONDS = 10.0
"""The first pause before a node is asked again; each further one is twice as long."""


@dataclass(frozen=True, slots=True)
class Question:
    """A root that changed, and the transactions that may have done it; (): any of the block."""

    block_number: int
    block_hash: Hash32
    manager: Address
    account: Address
    root: Hash32
    transactions: tuple[Hash32, ...]


@dataclass(frozen=True, slots=True)
class TraceWrite:
    """A root that an account set, as a trace shows it; the last of a block is what stands."""

    transaction_index: int
    write_index: int
    transaction_hash: Hash32
    root: Hash32
    module: Address | None
    user_op_hash: Hash32 | None
    by_session: bool
    """A session key signed the operation, whichever it was."""
    sender: Address
    called: Address | None
    """Who sent the transaction to whom; None: it made a contract."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the traces say of a question: every write of the account, in order."""

    question: Question
    writes: tuple[TraceWrite, ...]


# A change that is none any more (history found what lies before it) is no question.
_DROP_SETTLED = """
DELETE FROM chain.trace_queue AS q
 WHERE q.chain_id = $1 AND (q.attempts >= $2 OR NOT EXISTS (
     SELECT FROM chain.root_change AS r
      WHERE r.chain_id = q.chain_id AND r.block_number = q.block_number
        AND r.manager = q.manager AND r.account = q.account))"""

_QUESTIONS = """
SELECT q.block_number, r.block_hash, q.manager, q.account, r.root,
       CASE WHEN t.transaction_hash IS NOT NULL THEN ARRAY[t.transaction_hash::bytea]
            WHEN tainted.ever THEN '{}' ELSE acted.hashes END AS transactions
  FROM chain.trace_queue AS q
  JOIN chain.canonical_root AS r ON r.chain_id = q.chain_id AND r.block_number = q.block_number
   AND r.manager = q.manager AND r.account = q.account
  LEFT JOIN chain.root_author AS t ON t.chain_id = q.chain_id
   AND t.block_number = q.block_number AND t.manager = q.manager AND t.account = q.account
 CROSS JOIN LATERAL (
      SELECT EXISTS (SELECT FROM chain.canonical_slots AS s
                      WHERE s.chain_id = q.chain_id AND s.account = q.account
                        AND s.block_number <= q.block_number AND s.tainted) AS ever) AS tainted
 CROSS JOIN LATERAL (
      SELECT coalesce(array_agg(a.transaction_hash ORDER BY a.log_index), '{}') AS hashes
        FROM (SELECT u.transaction_hash::bytea AS transaction_hash, u.log_index
                FROM chain.user_operation AS u
               WHERE u.chain_id = q.chain_id AND u.block_number = q.block_number
                 AND u.sender = q.account
              UNION ALL
              SELECT e.transaction_hash, e.log_index FROM chain.account_event AS e
               WHERE e.chain_id = q.chain_id AND e.block_number = q.block_number
                 AND e.account = q.account) AS a) AS acted
 WHERE q.chain_id = $1 AND q.not_before <= now()
 ORDER BY q.block_number DESC, q.manager, q.account
 LIMIT $2"""


async def read_questions(database: Database, chain_id: int, limit: int) -> list[Question]:
    """Return the newest changes that wait, and forget those that are settled otherwise."""
    async with database.transaction() as connection:
        await connection.execute(_DROP_SETTLED, chain_id, MAX_ATTEMPTS)
        rows = await connection.fetch(_QUESTIONS, chain_id, limit)
    return [
        Question(
            row["block_number"],
            Hash32(row["block_hash"]),
            Address(row["manager"]),
            Address(row["account"]),
            Hash32(row["root"]),
            tuple(dict.fromkeys(map(Hash32, row["transactions"]))),
        )
        for row in rows
    ]


_FAILED = """
UPDATE chain.trace_queue
   SET attempts = attempts + 1, not_before = now() + make_interval(secs => $5 * 2 ^ attempts)
 WHERE chain_id = $1 AND block_number = $2 AND manager = $3 AND account = $4"""


async def note_failure(database: Database, chain_id: int, question: Question) -> None:
    """Count an attempt at which no node had a usable answer."""
    async with database.transaction() as connection:
        await connection.execute(
            _FAILED,
            chain_id,
            question.block_number,
            question.manager,
            question.account,
            RETRY_SECONDS,
        )


_IS_CANONICAL = """
SELECT EXISTS (SELECT FROM chain.block WHERE chain_id = $1 AND block_number = $2 AND hash = $3)"""

_DONE = """
DELETE FROM chain.trace_queue
 WHERE chain_id = $1 AND block_number = $2 AND manager = $3 AND account = $4"""

# The leaf of a session that signed the operation, if it was one session that did.
_SIGNED = """
SELECT count(DISTINCT u.leaf) AS leaves, min(u.leaf::bytea) AS leaf
  FROM chain.session_use AS u JOIN chain.chain AS c USING (chain_id)
 WHERE u.chain_id = $1 AND u.block_number = $2 AND u.user_op_hash = $3 AND u.account = $4
   AND u.manager = ANY (c.managers)"""

_SETTLE = """
INSERT INTO chain.root_attribution AS t (chain_id, block_number, manager, account, evidence,
    attribution, transaction_hash, user_op_hash, leaf, module)
VALUES ($1, $2, $3, $4, 'trace', $5, $6, $7, $8, $9)
ON CONFLICT (chain_id, block_number, manager, account) DO UPDATE
   SET evidence = excluded.evidence, attribution = excluded.attribution,
       transaction_hash = excluded.transaction_hash, user_op_hash = excluded.user_op_hash,
       leaf = excluded.leaf, module = excluded.module"""

_CONTRADICT = """
INSERT INTO chain.root_attribution AS t (chain_id, block_number, manager, account, evidence,
    attribution, contradicting_evidence, contradicting_root)
VALUES ($1, $2, $3, $4, 'state', 'none', 'trace', $5)
ON CONFLICT (chain_id, block_number, manager, account) DO UPDATE
   SET contradicting_evidence = 'trace', contradicting_root = excluded.contradicting_root"""
_SHOWN = """
SELECT manager, account, block_number, state_root, evidence, evidence_root
  FROM watch.root_disagreement
 WHERE chain_id = $1 AND block_number = $2 AND manager = evidence.hex($3)
   AND account = evidence.hex($4)"""

# No log names these; below the log indexes there is room for the transaction's place.
_HINTS = """
INSERT INTO chain.root_hint (chain_id, block_number, log_index, hint_index, manager, account,
    root, evidence, transaction_hash, user_op_hash)
SELECT $1, $2, -1 - n.transaction_index, n.write_index, $3, $4, n.root, 'trace',
       n.transaction_hash, n.user_op_hash
  FROM unnest($5::int[], $6::int[], $7::bytea[], $8::bytea[], $9::bytea[])
    AS n(transaction_index, write_index, root, transaction_hash, user_op_hash)
ON CONFLICT DO NOTHING"""


async def settle(
    database: Database, chain_id: int, epoch: int, answers: Sequence[Answer]
) -> tuple[int, list[Disagreement]]:
    """Write what traces say of some changes, each still on the chain; return how many it settles.

    The last write of a block must be what state shows; a trace that says otherwise is noted as a
    contradiction, settles nothing, and is returned, too.
    """
    settled, disagreements = 0, []
    async with database.transaction() as connection:
        await lock_chain(connection, chain_id, epoch, "live")
        for answer in answers:
            question = answer.question
            key = (chain_id, question.block_number, question.manager, question.account)
            canonical = (chain_id, question.block_number, question.block_hash)
            if not await connection.fetchval(_IS_CANONICAL, *canonical):
                continue  # the rewind that took it has taken the question, too
            await connection.execute(_DONE, *key)
            if not answer.writes:
                continue
            await connection.execute(_HINTS, *key, *_columns(answer.writes))
            await write_bundles(
                connection,
                chain_id,
                [
                    BundleRow(question.block_number, w.transaction_hash, w.sender, w.called)
                    for w in answer.writes
                ],
            )
            found = await _attribution(connection, chain_id, answer)
            if found.contradiction is not None:
                await connection.execute(_CONTRADICT, *key, found.contradiction[1])
                shown = await connection.fetch(_SHOWN, *key)
                disagreements += [Disagreement(**dict(row)) for row in shown]
            else:
                settled += 1
                await connection.execute(
                    _SETTLE,
                    *key,
                    found.attribution,
                    found.transaction_hash,
                    found.user_op_hash,
                    found.leaf,
                    found.module,
                )
                await enqueue(connection, chain_id, {(question.manager, question.account)})
    return settled, disagreements


def _columns(writes: Sequence[TraceWrite]) -> tuple[list[object], ...]:
    return (
        [w.transaction_index for w in writes],
        [w.write_index for w in writes],
        [w.root for w in writes],
        [w.transaction_hash for w in writes],
        [w.user_op_hash for w in writes],
    )


async def _attribution(connection: Connection, chain_id: int, answer: Answer) -> RootAttribution:
    question, last = answer.question, answer.writes[-1]
    leaf: Hash32 | None = None
    attribution: Attribution = "transaction"
    if last.user_op_hash is not None:
        attribution = "user_operation"
        signed = await connection.fetchrow(
            _SIGNED, chain_id, question.block_number, last.user_op_hash, question.account
        )
        assert signed is not None
        if signed["leaves"] or last.by_session:
            attribution = "session_key"
            leaf = Hash32(signed["leaf"]) if signed["leaves"] == 1 else None
    if last.module is not None and attribution != "session_key":
        attribution = "module"
    return RootAttribution(
        question.block_number,
        question.manager,
        question.account,
        "trace",
        attribution,
        last.transaction_hash,
        last.user_op_hash,
        leaf,
        None if last.root == question.root else ("trace", last.root),
        last.module,
    )
