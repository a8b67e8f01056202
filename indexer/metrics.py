"""Every metric the daemon shows, declared once: prefix `sessionwatch_`, base units, label `chain`.

The deciding transaction keeps them: no scrape counts rows. No account and no URL is ever a label;
`endpoint` is a name made from the configuration, never the address of a node.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

# A `_created` series beside each counter doubles the scrape and nothing reads it.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_DEPTH_BLOCKS = (1, 2, 3, 5, 8, 13, 21, 34, 64, 128, 256, 512)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"sessionwatch_{name}", text, ("chain", *labels), registry=REGISTRY)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"sessionwatch_{name}", text, ("chain", *labels), registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"sessionwatch_{name}", text, ("chain",), buckets=buckets, registry=REGISTRY)


LATEST_BLOCK = _gauge("latest_block", "Number of the newest block the node has.")
INDEXED_BLOCK = _gauge("indexed_block", "Number of the newest block committed to the database.")
FINALIZED_BLOCK = _gauge("finalized_block", "Number of the stored finalized block.")
LAG_BLOCKS = _gauge("lag_blocks", "Blocks between the node's tip and the indexed block.")
LAG_SECONDS = _gauge(
    "lag_seconds", "Seconds of chain time between the node's tip and the indexed block."
)
LATEST_BLOCK_TIMESTAMP_SECONDS = _gauge(
    "latest_block_timestamp_seconds", "Block time of the newest block the node has, in unix time."
)
LAST_PROGRESS_TIMESTAMP_SECONDS = _gauge(
    "last_progress_timestamp_seconds",
    "Unix time of the last committed live step or head confirmed unchanged; 0: none since start.",
)
STEP_BEGAN_TIMESTAMP_SECONDS = _gauge(
    "step_began_timestamp_seconds",
    "Unix time at which the step began that a lane is in; 0: it rests.",
    "lane",
)
NODE_UP = _gauge("node_up", "1 while the live lane's last attempt reached a node, else 0.")
CHAIN_FINISHED = _gauge(
    "chain_finished", "1 once the configured end_block is indexed and final, else 0."
)
COVERAGE_MISSING_BLOCKS = _gauge(
    "coverage_missing_blocks", "Blocks a pass still has to read below the finalized block.", "pass"
)
COVERAGE_UNREADABLE_BLOCKS = _gauge(
    "coverage_unreadable_blocks",
    "Those of coverage_missing_blocks whose state no node has any more.",
    "pass",
)
LOGS = _counter("logs_total", "Logs committed, by event.", "event")
ROOT_UPDATES = _counter(
    "root_updates_total", "Changes of a session root committed, by evidence.", "evidence"
)
ROOT_DISAGREEMENTS = _counter(
    "root_disagreements_total", "Roots where two kinds of evidence contradicted each other."
)
ACCOUNTS = _gauge("accounts", "Pairs of manager and account by verdict.", "verdict")
DRIFTED_ACCOUNTS = _gauge(
    "drifted_accounts", "Drifted pairs of manager and account.", "cause", "severity"
)
SESSIONS = _gauge("sessions", "Sessions of the stored sets by state.", "state")
REORGS = _counter("reorgs_total", "Reorgs committed.")
REORG_DEPTH_BLOCKS = _histogram("reorg_depth_blocks", "Blocks that lost in a reorg.", _DEPTH_BLOCKS)
SUSPECTED_REORGS = _counter(
    "suspected_reorgs_total", "Contradictions of the node that were looked into.", "outcome"
)
FINALITY_VIOLATION = _gauge(
    "finality_violation", "1 while the node contradicts a block that was final, else 0."
)
RPC_REQUESTS = _counter(
    "rpc_requests_total", "HTTP requests to nodes.", "endpoint", "method", "outcome"
)
RPC_BATCH_ELEMENTS = _counter(
    "rpc_batch_elements_total", "Calls sent to nodes inside JSON-RPC batches."
)
RPC_REQUEST_SECONDS = _histogram(
    "rpc_request_seconds", "Seconds from a request to its decoded answer.", _FAST_SECONDS
)
COMMIT_SECONDS = _histogram(
    "commit_seconds", "Seconds of one write transaction, begin to commit.", _FAST_SECONDS
)
DISCOVERY_LATENCY_SECONDS = _histogram(
    "discovery_latency_seconds", "Seconds from a block's time to its rows visible.", _SLOW_SECONDS
)
UNDECODED_LOGS = _counter("undecoded_logs_total", "Logs kept raw: nothing could decode them.")
AUDIT_MISMATCHES = _counter(
    "audit_mismatches_total", "Roots that an audit found different from the stored ones."
)
DATABASE_UP = Gauge(
    "sessionwatch_database_up",
    "1 while the last step that needed the database reached it, else 0.",
    registry=REGISTRY,
)
DATABASE_ERRORS = Counter(
    "sessionwatch_database_errors_total",
    "Steps that failed for want of the database.",
    registry=REGISTRY,
)
READY = Gauge(
    "sessionwatch_ready",
    "1 while /readyz answers 200, else 0; as of this scrape.",
    registry=REGISTRY,
)
BUILD_INFO = Gauge(
    "sessionwatch_build_info",
    "1, with the versions as labels.",
    ("version", "python"),
    registry=REGISTRY,
)


# Shown from the start: increase() over a counter that appears with its first event sees nothing.
_FROM_ZERO = (
    REORGS,
    ROOT_DISAGREEMENTS,
    UNDECODED_LOGS,
    AUDIT_MISMATCHES,
    # Alerts compare these from the first scrape on, also while no node or database was reached yet.
    LAST_PROGRESS_TIMESTAMP_SECONDS,
    NODE_UP,
    CHAIN_FINISHED,
    FINALITY_VIOLATION,
    REORG_DEPTH_BLOCKS,
)


def show_chain(chain: str) -> None:
    """Show from the start, as 0, what must not appear with its first event."""
    for metric in _FROM_ZERO:
        metric.labels(chain)


RequestDone = Callable[[str, str, str, str, float, int], None]


def request_done(
    chain: str, endpoint: str, method: str, outcome: str, seconds: float, calls: int
) -> None:
    """Count one HTTP request to a node: how it ended, how long it took, how many calls it held."""
    RPC_REQUESTS.labels(chain, endpoint, method, outcome).inc()
    RPC_REQUEST_SECONDS.labels(chain).observe(seconds)
    if calls:
        RPC_BATCH_ELEMENTS.labels(chain).inc(calls)


def set_build_info(version: str) -> None:
    """Show the version of this program and of Python."""
    BUILD_INFO.clear()
    BUILD_INFO.labels(version, platform.python_version()).set(1)


def set_head(chain: str, number: int, timestamp: int) -> None:
    """Show the node's newest block: its number and its time, in unix seconds."""
    LATEST_BLOCK.labels(chain).set(number)
    LATEST_BLOCK_TIMESTAMP_SECONDS.labels(chain).set(timestamp)


def set_progress(
    chain: str, *, latest: int, indexed: int, finalized: int, lag_seconds: float
) -> None:
    """Set the four gauges that say where a chain stands; arguments are block numbers."""
    INDEXED_BLOCK.labels(chain).set(indexed)
    FINALIZED_BLOCK.labels(chain).set(finalized)
    LAG_BLOCKS.labels(chain).set(max(latest - indexed, 0))
    LAG_SECONDS.labels(chain).set(max(lag_seconds, 0.0))


def clear_verdicts(chain: str) -> None:
    """Forget the verdict gauges of one chain, before they are counted anew."""
    for gauge in (ACCOUNTS, DRIFTED_ACCOUNTS):
        for metric in gauge.collect():
            for sample in metric.samples:
                if sample.labels.get("chain") == chain:
                    gauge.labels(**sample.labels).set(0)


def render() -> bytes:
    """Return the text of /metrics in the Prometheus exposition format."""
    return generate_latest(REGISTRY)
