"""Nodes and internals: what the daemon asks, how long things take, what the process needs."""

from __future__ import annotations

from deploy.grafana.source.layout import Dashboard, Section
from deploy.grafana.source.parts import (
    Query,
    chart,
    rows,
    series,
    stat,
    table,
)
from deploy.grafana.source.queries import (
    CHAIN,
    CHAIN_BY_METRICS,
    JOB,
    OF_CHAINS,
    quantiles,
)

_NO_REQUESTS = "no node was asked in this time"
_NOT_SCRAPED = "nothing was scraped in this time"
_REQUESTS = f"sessionwatch_rpc_requests_total{{{CHAIN}}}[$__rate_interval]"


def _quantiles(name: str) -> list[Query]:
    return [series(expression, legend) for expression, legend in quantiles(name)]


NODES = Section(
    "Nodes",
    [
        chart(
            "Requests by endpoint",
            "HTTP requests per second to each endpoint, by the name that the daemon gives it.",
            series(f"sum by (chain, endpoint) (rate({_REQUESTS}))", "{{chain}} {{endpoint}}"),
            nothing=_NO_REQUESTS,
            unit="reqps",
            width=8,
            stacked=True,
        ),
        chart(
            "Requests by method",
            "HTTP requests per second by what they ask for, the ten most frequent.",
            series(f"topk(10, sum by (method) (rate({_REQUESTS})))", "{{method}}"),
            nothing=_NO_REQUESTS,
            unit="reqps",
            width=8,
        ),
        chart(
            "Requests by outcome",
            "ok, refused, too_large (asked again in smaller parts), unreachable, bad_answer, "
            "cancelled.",
            series(f"sum by (outcome) (rate({_REQUESTS}))", "{{outcome}}"),
            nothing=_NO_REQUESTS,
            unit="reqps",
            width=8,
            stacked=True,
        ),
        chart(
            "Part of requests that went wrong",
            "Of each endpoint's requests, those that were refused, not answered, or answered with "
            "nonsense.",
            series(
                f"1 - sum by (chain, endpoint) (rate(sessionwatch_rpc_requests_total{{{CHAIN},"
                ' outcome=~"ok|too_large|cancelled"}[$__rate_interval]))'
                f" / sum by (chain, endpoint) (rate({_REQUESTS}))",
                "{{chain}} {{endpoint}}",
            ),
            nothing=_NO_REQUESTS,
            unit="percentunit",
            width=8,
        ),
        chart(
            "Time of a request",
            "Seconds from a request to its decoded answer: half of them, 95 and 99 in a hundred "
            "are faster.",
            *_quantiles("sessionwatch_rpc_request_seconds"),
            nothing=_NO_REQUESTS,
            unit="s",
            width=8,
        ),
        chart(
            "Calls in batches",
            "Calls that were sent inside of JSON-RPC batches, per second: what providers count.",
            series(
                "sum by (chain) (rate(sessionwatch_rpc_batch_elements_total"
                f"{{{CHAIN}}}[$__rate_interval]))",
                "{{chain}}",
            ),
            nothing=_NO_REQUESTS,
            unit="ops",
            width=8,
        ),
        chart(
            "Node reached",
            "1 while the live lane's last attempt reached a node, else 0.",
            series(f"sessionwatch_node_up{{{CHAIN}}}", "{{chain}}"),
            nothing=_NOT_SCRAPED,
        ),
        chart(
            "Suspected and settled reorgs",
            "Contradictions of the node that were looked into, by what came of it, and reorgs that "
            "were committed.",
            series(
                "sum by (outcome) (increase(sessionwatch_suspected_reorgs_total"
                f"{{{CHAIN}}}[$__rate_interval]))",
                "suspected: {{outcome}}",
            ),
            series(
                f"sum(increase(sessionwatch_reorgs_total{{{CHAIN}}}[$__rate_interval]))",
                "committed",
            ),
            nothing=_NOT_SCRAPED,
            bars=True,
        ),
    ],
)

WORK = Section(
    "Work",
    [
        chart(
            "From block to visible row",
            "Seconds from a block's time to its rows visible in the database.",
            *_quantiles("sessionwatch_discovery_latency_seconds"),
            nothing="no block was indexed in this time",
            unit="s",
            width=8,
        ),
        chart(
            "Time of a commit",
            "Seconds of one write transaction, begin to commit.",
            *_quantiles("sessionwatch_commit_seconds"),
            nothing="nothing was written in this time",
            unit="s",
            width=8,
        ),
        chart(
            "Commits",
            "Write transactions per second.",
            series(
                f"sum by (chain) (rate(sessionwatch_commit_seconds_count{{{CHAIN}}}"
                "[$__rate_interval]))",
                "{{chain}}",
            ),
            nothing="nothing was written in this time",
            unit="ops",
            width=8,
        ),
        chart(
            "Logs by event",
            "Logs committed per second, those of the past included.",
            series(
                f"sum by (event) (rate(sessionwatch_logs_total{{{CHAIN}}}[$__rate_interval]))",
                "{{event}}",
            ),
            nothing="no log was indexed in this time",
            unit="ops",
            width=8,
            stacked=True,
        ),
        chart(
            "Changes of roots by evidence",
            "Changes of session roots committed, by what says so beside state.",
            series(
                "sum by (evidence) (increase(sessionwatch_root_updates_total"
                f"{{{CHAIN}}}[$__rate_interval]))",
                "{{evidence}}",
            ),
            nothing="no root has changed in this time",
            width=8,
            bars=True,
            stacked=True,
        ),
        chart(
            "Depth of reorgs",
            "Blocks that lost in a reorg: 95 in a hundred were no deeper, since the daemon was "
            "started.",
            series(
                "histogram_quantile(0.95, sum by (chain, le) ("
                f"sessionwatch_reorg_depth_blocks_bucket{{{CHAIN}}}))",
                "{{chain}}",
            ),
            nothing="there was no reorg since the start",
            width=8,
        ),
        table(
            "Coverage",
            "What each configured pass still owes. Missing: half-open ranges, {[5,8)} are the "
            "blocks 5, 6 and 7.",
            rows(f"""
                SELECT p.chain, c.pass, c.filter, c.cohort, c.missing_blocks, c.first_block,
                       c.last_block, left(c.missing, 200) AS missing
                  FROM watch.progress AS p JOIN watch.coverage AS c USING (chain_id)
                 WHERE {OF_CHAINS}
                 ORDER BY c.missing_blocks DESC NULLS LAST, p.chain, c.pass, c.filter, c.cohort
                 LIMIT 200"""),
            nothing="no pass is configured yet",
            width=12,
            widths={"chain": 90, "cohort": 70},
        ),
        table(
            "Pace of the past",
            "How fast debt was paid lately, by kind of work. Long ago: the numbers say little.",
            rows(f"""
                SELECT p.chain, c.pass, c.blocks_per_second, c.requests_per_block, c.updated_at
                  FROM watch.progress AS p JOIN watch.pace AS c USING (chain_id)
                 WHERE {OF_CHAINS}
                 ORDER BY p.chain, c.pass"""),
            nothing="nothing of the past was paid yet",
            width=12,
            units={"updated_at": "dateTimeFromNow"},
        ),
        table(
            "Not readable",
            "Stretches whose state no node has any more, so that roots in them are not known. An "
            "archive node among the chain's endpoints fills them.",
            rows(f"""
                SELECT p.chain, u.manager, u.first_block, u.last_block, u.hinted_accounts, u.hints,
                       u.recorded_at, u.reason
                  FROM watch.progress AS p JOIN watch.unobserved AS u USING (chain_id)
                 WHERE {OF_CHAINS}
                 ORDER BY u.last_block DESC, p.chain, u.manager LIMIT 100"""),
            nothing="every state that was asked for could be read",
            width=12,
        ),
        table(
            "Undecoded logs",
            "The newest logs that nothing could decode, kept raw, with the reason.",
            rows(f"""
                SELECT p.chain, u.block_number, u.log_index, u.address, u.reason, u.topics, u.data,
                       u.transaction_hash
                  FROM watch.progress AS p
                 CROSS JOIN LATERAL (
                      SELECT x.block_number, x.log_index, x.address, x.reason,
                             array_to_string(x.topics, ' ') AS topics, left(x.data, 200) AS data,
                             x.transaction_hash
                        FROM watch.undecoded_log AS x WHERE x.chain_id = p.chain_id
                       ORDER BY x.block_number DESC, x.log_index DESC LIMIT 50) AS u
                 WHERE {OF_CHAINS}
                 ORDER BY u.block_number DESC, u.log_index DESC LIMIT 50"""),
            nothing="every log could be decoded",
            width=12,
        ),
    ],
)

PROCESS = Section(
    "Database and process",
    [
        stat(
            "Running since",
            "When the process was started.",
            series(f"process_start_time_seconds{{{JOB}}} * 1000", "{{instance}}"),
            nothing="not scraped",
            unit="dateTimeFromNow",
            width=6,
        ),
        stat(
            "Open files",
            "File descriptors in use, as a part of those allowed.",
            series(
                f"process_open_fds{{{JOB}}} / process_max_fds{{{JOB}}}",
                "{{instance}}",
            ),
            nothing="not scraped",
            unit="percentunit",
            width=6,
            steps=((None, "green"), (0.7, "orange"), (0.9, "red")),
        ),
        stat(
            "Time of a scrape",
            "Seconds that Prometheus needed for the last scrape of /metrics.",
            series(f"scrape_duration_seconds{{{JOB}}}", "{{instance}}"),
            nothing="not scraped",
            unit="s",
            width=6,
            steps=((None, "green"), (1, "orange"), (5, "red")),
        ),
        stat(
            "Python",
            "The version of Python that runs the daemon.",
            series("sessionwatch_build_info", "{{python}}"),
            nothing="not scraped",
            width=6,
            names=True,
        ),
        chart(
            "Database",
            "1 while the daemon reaches Postgres, else 0; and steps that failed for want of it.",
            series("sessionwatch_database_up", "reached, {{instance}}"),
            series(
                "increase(sessionwatch_database_errors_total[$__rate_interval])",
                "failed steps, {{instance}}",
            ),
            nothing=_NOT_SCRAPED,
        ),
        chart(
            "Memory",
            "Resident memory of the daemon's process. The one that reads a long past is not in it.",
            series(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"),
            nothing=_NOT_SCRAPED,
            unit="bytes",
        ),
        chart(
            "Processor",
            "Part of one core that the daemon's process uses.",
            series(
                f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])",
                "{{instance}}",
            ),
            nothing=_NOT_SCRAPED,
            unit="percentunit",
        ),
        chart(
            "Garbage collections",
            "Collections per second of each generation, as Python counts them.",
            series(
                f"rate(python_gc_collections_total{{{JOB}}}[$__rate_interval])",
                "generation {{generation}}",
            ),
            nothing=_NOT_SCRAPED,
            unit="ops",
        ),
    ],
)

DASHBOARD = Dashboard(
    uid="sessionwatch-internals",
    title="Sessionwatch: nodes and internals",
    description="Requests to nodes, time of each kind of work, database and process.",
    sections=[NODES, WORK, PROCESS],
    variables=[CHAIN_BY_METRICS],
)
