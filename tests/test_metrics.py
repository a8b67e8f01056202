"""Names, labels and help of the metrics: what dashboards and alerts depend on."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from indexer import metrics

# Names as they stand in /metrics, with the labels beside `chain`.
PROMISED = {
    "latest_block": set(),
    "indexed_block": set(),
    "finalized_block": set(),
    "lag_blocks": set(),
    "lag_seconds": set(),
    "latest_block_timestamp_seconds": set(),
    "last_progress_timestamp_seconds": set(),
    "step_began_timestamp_seconds": {"lane"},
    "node_up": set(),
    "chain_finished": set(),
    "coverage_missing_blocks": {"pass"},
    "coverage_unreadable_blocks": {"pass"},
    "logs_total": {"event"},
    "root_updates_total": {"evidence"},
    "root_disagreements_total": set(),
    "accounts": {"verdict"},
    "drifted_accounts": {"cause", "severity"},
    "sessions": {"state"},
    "reorgs_total": set(),
    "reorg_depth_blocks": set(),
    "suspected_reorgs_total": {"outcome"},
    "finality_violation": set(),
    "rpc_requests_total": {"endpoint", "method", "outcome"},
    "rpc_batch_elements_total": set(),
    "rpc_request_seconds": set(),
    "commit_seconds": set(),
    "discovery_latency_seconds": set(),
    "undecoded_logs_total": set(),
    "audit_mismatches_total": set(),
}
# Of the process as a whole.
OF_THE_PROCESS = {
    "build_info": ("version", "python"),
    "database_up": (),
    "database_errors_total": (),
    "ready": (),
}


def test_every_promised_metric_exists_with_its_labels() -> None:
    """Each name has its labels, the chain first, and a sentence of help; there are no others."""
    found: dict[str, tuple[str, ...]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Gauge | Counter | Histogram):
            suffix = "_total" if isinstance(metric, Counter) else ""
            found[metric._name.removeprefix("sessionwatch_") + suffix] = metric._labelnames
            assert metric._documentation.endswith(".")
    assert {name: found.pop(name) for name in OF_THE_PROCESS} == OF_THE_PROCESS
    assert {name: set(labels[1:]) for name, labels in found.items()} == PROMISED
    assert {labels[0] for labels in found.values()} == {"chain"}


def test_progress_and_build_are_shown() -> None:
    """The gauges say what they were told, in blocks and seconds, and lag is never negative."""
    metrics.set_build_info("1.2.3")
    metrics.show_chain("shown")
    metrics.set_head("shown", 10, 1_700_000_000)
    metrics.set_progress("shown", latest=10, indexed=7, finalized=5, lag_seconds=6.5)
    metrics.set_progress("ahead", latest=10, indexed=11, finalized=5, lag_seconds=-2)
    samples = {
        (sample.name, sample.labels.get("chain", "")): sample
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    for name, value in (
        ("lag_blocks", 3),
        ("lag_seconds", 6.5),
        ("finalized_block", 5),
        ("latest_block", 10),
        ("latest_block_timestamp_seconds", 1_700_000_000),
        ("last_progress_timestamp_seconds", 0),
        ("node_up", 0),
        ("chain_finished", 0),
        ("finality_violation", 0),
    ):
        assert samples[f"sessionwatch_{name}", "shown"].value == value
    assert samples["sessionwatch_lag_blocks", "ahead"].value == 0
    assert samples["sessionwatch_lag_seconds", "ahead"].value == 0
    assert samples["sessionwatch_build_info", ""].labels["version"] == "1.2.3"
    assert ("process_cpu_seconds_total", "") in samples


def test_counters_have_no_created_series() -> None:
    """A scrape holds no timestamps of creation."""
    metrics.UNDECODED_LOGS.labels("any").inc()
    assert b"_created" not in metrics.render()
