"""What the lanes of one chain tell: metrics, health, the sweep's wake-up, one line per trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from indexer import metrics
from indexer.core.passes import hex_of
from indexer.core.settings import ChainSettings
from indexer.core.types import BlockHeader, ChainHead
from indexer.errors import (
    DatabaseUnavailableError,
    FinalityViolationError,
    NodeError,
    NodeUnreachableError,
    RetryableError,
)
from indexer.log import get_logger
from indexer.store.rows import RowCounts
from indexer.store.verdicts import VerdictChange, VerdictCount
from indexer.supervisor import Supervisor
from indexer.web.health import Health

log = get_logger()


class Onlooker(Protocol):
    """Who wants to see how far the lanes of all chains are, each under its name."""

    def debt_known(self, chain: str, missing_blocks: Mapping[str, int]) -> None:
        """So many blocks are owed, by pass."""

    def head_known(self, chain: str, indexed_block: int, latest_block: int) -> None:
        """The live lane has committed so far, of what the node has."""


@dataclass(slots=True)
class Attempts:
    """What the attempts of one chain's live lane tell, those of its start included."""

    chain: str
    health: Health
    supervisor: Supervisor

    def succeeded(self, reached: Literal["node", "database"]) -> None:
        """An attempt has come to its end; so far it had to reach."""
        self.health.chains[self.chain].waiting_for = ""
        if reached == "node":
            metrics.NODE_UP.labels(self.chain).set(1)
        self.supervisor.moved(self.chain)

    def failed(self, error: RetryableError) -> None:
        """An attempt has failed and will be repeated."""
        chain = self.health.chains[self.chain]
        if isinstance(error, NodeError):
            chain.waiting_for = "node"
            metrics.NODE_UP.labels(self.chain).set(not isinstance(error, NodeUnreachableError))
        elif isinstance(error, DatabaseUnavailableError):
            chain.waiting_for = "database"
        else:
            self.supervisor.doubted(self.chain)
            return
        self.supervisor.moved(self.chain)


def database_failed(health: Health) -> None:
    """Count a step that failed for want of the database, and turn /readyz red."""
    health.database_lost = True
    metrics.DATABASE_UP.set(0)
    metrics.DATABASE_ERRORS.inc()


def database_reached(health: Health) -> None:
    """Say that a step has reached the database."""
    health.database_lost = False
    metrics.DATABASE_UP.set(1)


class Telemetry:
    """Listens to the lanes of one chain."""

    def __init__(
        self,
        settings: ChainSettings,
        health: Health,
        wake: asyncio.Event,
        attempts: Attempts,
        onlooker: Onlooker | None = None,
    ) -> None:
        self._onlooker = onlooker
        self.settings = settings
        self.indexed_number = -1
        self.wake = wake
        self.violation: FinalityViolationError | None = None
        self._attempts = attempts
        self._health = health
        self._chain = health.chains[settings.name]
        self._trouble: dict[str, str] = {}

    def head_confirmed(self, head: ChainHead, tip: BlockHeader, finalized_number: int) -> None:
        """Show where the chain stands; wake the sweep."""
        lag_seconds = float(max(head.latest.timestamp - tip.timestamp, 0))
        self._moved()
        metrics.set_head(self.settings.name, head.latest.number, head.latest.timestamp)
        metrics.set_progress(
            self.settings.name,
            latest=head.latest.number,
            indexed=tip.number,
            finalized=finalized_number,
            lag_seconds=lag_seconds,
        )
        if self.violation is not None:
            log.info("finality_restored", chain=self.settings.name, after=str(self.violation))
            self.violation = None
            metrics.FINALITY_VIOLATION.labels(self.settings.name).set(0)
        if 0 <= self.indexed_number < tip.number:
            metrics.DISCOVERY_LATENCY_SECONDS.labels(self.settings.name).observe(
                max(time.time() - tip.timestamp, 0.0)
            )
        if self._onlooker is not None:
            self._onlooker.head_known(self.settings.name, tip.number, head.latest.number)
        self.indexed_number = tip.number
        self._chain.finality_violation = self._chain.node_behind = None
        self._chain.lag_seconds = lag_seconds
        self._chain.indexed_block = tip.number
        self._chain.last_step_monotonic = time.monotonic()
        self.wake.set()

    def _moved(self) -> None:
        metrics.LAST_PROGRESS_TIMESTAMP_SECONDS.labels(self.settings.name).set(time.time())

    def chain_finished(self) -> None:
        """Say that nothing comes any more: no alert about progress may fire."""
        self._chain.finished = True
        metrics.CHAIN_FINISHED.labels(self.settings.name).set(1)

    def node_behind(self, head: ChainHead, tip: BlockHeader, finalized_number: int) -> None:
        """Have /readyz say it: at once if the node lacks what is final, else if it stays so."""
        latest = head.latest.number
        metrics.set_head(self.settings.name, latest, head.latest.timestamp)
        self._chain.node_behind = f"the node shows block {latest}, indexed is block {tip.number}"
        if latest < finalized_number:
            self._chain.node_behind += f", final is block {finalized_number}"
        self._chain.node_below_final = latest < finalized_number

    def rows_committed(self, counts: RowCounts) -> None:
        """Count what became visible."""
        name = self.settings.name
        for evidence, count in counts.root_changes.items():
            metrics.ROOT_UPDATES.labels(name, evidence).inc(count)
        for event, count in counts.events.items():
            metrics.LOGS.labels(name, event).inc(count)
        if counts.undecoded:
            metrics.UNDECODED_LOGS.labels(name).inc(counts.undecoded)
        for row in counts.disagreements:
            metrics.ROOT_DISAGREEMENTS.labels(name).inc()
            log.warning(
                "root_disagreement",
                chain=name,
                manager=row.manager,
                account=row.account,
                block=row.block_number,
                state_root=row.state_root,
                evidence=row.evidence,
                evidence_root=row.evidence_root,
                remedy="state was believed; see watch.root_disagreement, and ask another node",
            )

    def rewound(self, depth_blocks: int) -> None:
        """Count a reorg."""
        self._moved()
        metrics.REORGS.labels(self.settings.name).inc()
        metrics.REORG_DEPTH_BLOCKS.labels(self.settings.name).observe(depth_blocks)

    def debt_known(
        self, missing_blocks: Mapping[str, int], unreadable_blocks: Mapping[str, int]
    ) -> None:
        """Show what each pass owes, and what of it cannot be paid."""
        if self._onlooker is not None:
            self._onlooker.debt_known(self.settings.name, missing_blocks)
        for name, blocks in missing_blocks.items():
            metrics.COVERAGE_MISSING_BLOCKS.labels(self.settings.name, name).set(blocks)
        for name, blocks in unreadable_blocks.items():
            metrics.COVERAGE_UNREADABLE_BLOCKS.labels(self.settings.name, name).set(blocks)

    def verdicts_changed(self, changes: Sequence[VerdictChange]) -> None:
        """Keep the gauges by what changed; say each change once."""
        for change in changes:
            for row, step in ((change.old, -1), (change.new, 1)):
                if row is not None:
                    self._count(row.verdict, row.cause, row.severity, step)
            log.info(
                "verdict_changed",
                chain=self.settings.name,
                manager=hex_of(change.manager),
                account=hex_of(change.account),
                verdict=change.new.verdict if change.new else None,
                cause=change.new.cause if change.new else None,
                block=change.block_number,
            )

    def verdicts_counted(self, counts: Sequence[VerdictCount]) -> None:
        """Set the gauges anew."""
        metrics.clear_verdicts(self.settings.name)
        self._chain.drifted = 0
        for row in counts:
            self._count(row.verdict, row.cause, row.severity, row.count)

    def _count(self, verdict: str, cause: str | None, severity: str, step: int) -> None:
        name = self.settings.name
        metrics.ACCOUNTS.labels(name, verdict).inc(step)
        if verdict == "drifted":
            self._chain.drifted += step
        if cause is not None:
            metrics.DRIFTED_ACCOUNTS.labels(name, cause, severity).inc(step)

    def sessions_counted(self, counts: Mapping[str, int]) -> None:
        """Show the sessions of the stored sets by state."""
        for state, count in counts.items():
            metrics.SESSIONS.labels(self.settings.name, state).set(count)

    def mismatches_found(self, count: int) -> None:
        """Count what an audit found."""
        metrics.AUDIT_MISMATCHES.labels(self.settings.name).inc(count)

    def violation_found(self, error: FinalityViolationError) -> None:
        """Turn /readyz red until a step confirms that both sides agree; say it once."""
        if self.violation is None or str(self.violation) != str(error):
            log.error(
                "finality_violated",
                chain=self.settings.name,
                reason=str(error),
                remedy=error.remedy,
            )
        self.violation = error
        self._chain.finality_violation = str(error)
        metrics.FINALITY_VIOLATION.labels(self.settings.name).set(1)

    @contextmanager
    def stepping(self, lane: str) -> Iterator[None]:
        """Show since when a lane is in its step: of one that hangs nothing else would tell."""
        began = metrics.STEP_BEGAN_TIMESTAMP_SECONDS.labels(self.settings.name, lane)
        began.set(time.time())
        try:
            yield
        finally:
            began.set(0)

    def retrying(self, lane: str, error: RetryableError) -> None:
        """Say a new trouble once; it is over when a step of the lane has finished."""
        if isinstance(error, DatabaseUnavailableError):
            database_failed(self._health)
        if lane == "live":
            self._attempts.failed(error)
        kind = type(error).__name__
        if self._trouble.get(lane) != kind:
            self._trouble[lane] = kind
            log.warning(
                "step_retried",
                chain=self.settings.name,
                lane=lane,
                kind=kind,
                reason=str(error),
                remedy=error.remedy,
            )

    def recovered(self, lane: str) -> None:
        """Say that a trouble is over; what has finished has also reached the database."""
        database_reached(self._health)
        if lane == "live":
            # A chain that is finished asks no node any more.
            self._attempts.succeeded("database" if self._chain.finished else "node")
        kind = self._trouble.pop(lane, None)
        if kind is not None:
            log.info("step_recovered", chain=self.settings.name, lane=lane, after=kind)
