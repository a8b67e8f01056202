"""Overview: is it alive, how far behind, what is wrong."""

from __future__ import annotations

from deploy.grafana.source.layout import Dashboard, Section
from deploy.grafana.source.parts import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    GREEN,
    ORANGE,
    PLAIN,
    RED,
    ZERO_IS_BAD,
    chart,
    labels_now,
    now,
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
    SEVERITIES,
    account_link,
    dashboard_link,
)

NOT_SCRAPED = "not scraped"
TO_DRIFT = dashboard_link("Drifted accounts", "sessionwatch-drift")
TO_INTERNALS = dashboard_link("Nodes and internals", "sessionwatch-internals")

ALIVE = Section(
    "Is it alive?",
    [
        stat(
            "Daemon",
            "Whether Prometheus reached the daemon's /metrics at its last scrape.",
            now(f"up{{{JOB}}}", "{{instance}}"),
            nothing=NOT_SCRAPED,
            steps=ZERO_IS_BAD,
            meaning={"1": ("up", GREEN), "0": ("down", RED)},
        ),
        stat(
            "Ready",
            "What /readyz says: every chain is followed, in time, and agrees with its node. "
            "Its text gives the reasons.",
            now("sessionwatch_ready", "{{instance}}"),
            nothing=NOT_SCRAPED,
            steps=ZERO_IS_BAD,
            meaning={"1": ("ready", GREEN), "0": ("not ready", RED)},
        ),
        stat(
            "Database",
            "Whether the daemon's last use of Postgres went well.",
            now("sessionwatch_database_up", "{{instance}}"),
            nothing=NOT_SCRAPED,
            steps=ZERO_IS_BAD,
            meaning={"1": ("reached", GREEN), "0": ("away", RED)},
            links=[TO_INTERNALS],
        ),
        stat(
            "Node",
            "Whether the live lane's last attempt reached a node of the chain.",
            now(f"sessionwatch_node_up{{{CHAIN}}}", "{{chain}}"),
            nothing=NOT_SCRAPED,
            steps=ZERO_IS_BAD,
            meaning={"1": ("reached", GREEN), "0": ("away", RED)},
            links=[TO_INTERNALS],
        ),
        stat(
            "Finality",
            "Violated: the node contradicts a block that was final. Nothing is written until both "
            "agree again.",
            now(f"sessionwatch_finality_violation{{{CHAIN}}}", "{{chain}}"),
            nothing=NOT_SCRAPED,
            steps=ANY_IS_BAD,
            meaning={"0": ("agrees", GREEN), "1": ("violated", RED)},
        ),
        stat(
            "Version",
            "The program's version.",
            now("sessionwatch_build_info", "{{version}}"),
            nothing=NOT_SCRAPED,
            names=True,
        ),
    ],
)

BEHIND = Section(
    "How far behind?",
    [
        stat(
            "Behind the tip",
            "Seconds of chain time between the node's newest block and the newest indexed one.",
            now(f"sessionwatch_lag_seconds{{{CHAIN}}}", "{{chain}}"),
            nothing=NOT_SCRAPED,
            unit="s",
            steps=((None, GREEN), (60, ORANGE), (300, RED)),
        ),
        stat(
            "Blocks behind",
            "Blocks between the node's tip and the newest indexed block.",
            now(f"sessionwatch_lag_blocks{{{CHAIN}}}", "{{chain}}"),
            nothing=NOT_SCRAPED,
            steps=((None, GREEN), (30, ORANGE), (300, RED)),
        ),
        stat(
            "Last progress",
            "Time since a step was committed, or the head was confirmed to be unchanged. A chain "
            "that is finished awaits nothing and is left out.",
            now(
                f"time() - (sessionwatch_last_progress_timestamp_seconds{{{CHAIN}}}"
                f" unless on (instance, chain) sessionwatch_chain_finished{{{CHAIN}}} == 1)",
                "{{chain}}",
            ),
            nothing="nothing is awaited",
            unit="s",
            steps=((None, GREEN), (120, ORANGE), (600, RED)),
        ),
        stat(
            "Newest block of the node",
            "Age of the newest block that the node has. Growing: the chain, or the node, stands "
            "still. A chain that is finished is left out.",
            now(
                f"time() - (sessionwatch_latest_block_timestamp_seconds{{{CHAIN}}}"
                f" unless on (instance, chain) sessionwatch_chain_finished{{{CHAIN}}} == 1)",
                "{{chain}}",
            ),
            nothing="nothing is awaited",
            unit="s",
            steps=((None, GREEN), (120, ORANGE), (600, RED)),
        ),
        stat(
            "Not final yet",
            "Blocks between the indexed and the finalized one: what a reorg could still take back.",
            now(
                f"sessionwatch_indexed_block{{{CHAIN}}} - sessionwatch_finalized_block{{{CHAIN}}}",
                "{{chain}}",
            ),
            nothing=NOT_SCRAPED,
        ),
        stat(
            "Missing of the past",
            "Blocks below the finalized one that some pass has still to read, all passes together, "
            "without those whose state no node has any more.",
            now(
                f"sum by (chain) (sessionwatch_coverage_missing_blocks{{{CHAIN}}})"
                f" - (sum by (chain) (sessionwatch_coverage_unreadable_blocks{{{CHAIN}}})"
                f" or sum by (chain) (sessionwatch_coverage_missing_blocks{{{CHAIN}}}) * 0)",
                "{{chain}}",
            ),
            nothing="nothing known yet",
            steps=ANY_IS_ODD,
        ),
        chart(
            "Behind the tip over time",
            "Seconds of chain time between the node's newest block and the newest indexed one.",
            series(f"sessionwatch_lag_seconds{{{CHAIN}}}", "{{chain}}"),
            nothing="no chain was scraped in this time",
            unit="s",
        ),
        chart(
            "Missing of the past by pass",
            "Blocks that each kind of work has still to read. It falls while the past is paid; "
            "what stays is state that no node has any more.",
            series(
                f"sum by (chain, pass) (sessionwatch_coverage_missing_blocks{{{CHAIN}}})",
                "{{chain}} {{pass}}",
            ),
            nothing="no pass has reported in this time",
        ),
        table(
            "Chains",
            "How far each chain has come, as the database knows it: it answers while no daemon "
            "runs, too.",
            rows(f"""
                SELECT p.chain, p.chain_id, p.latest_block, p.indexed_block, p.finalized_block,
                       p.lag_blocks, p.lag_seconds, p.finished, p.finality_violation, p.start_block,
                       p.detail_from, p.updated_at
                  FROM watch.progress AS p
                 WHERE {OF_CHAINS}
                 ORDER BY p.chain"""),
            nothing="no chain has been followed yet",
            height=6,
            units={"lag_seconds": "s", "updated_at": "dateTimeFromNow"},
        ),
    ],
)

WRONG = Section(
    "What is wrong?",
    [
        stat(
            "Drifted, critical",
            "Pairs of manager and account whose drift may be an attack or lets a session work that "
            "should not.",
            now(f'sum(sessionwatch_drifted_accounts{{{CHAIN}, severity="critical"}})', "critical"),
            nothing="0",
            steps=ANY_IS_BAD,
            links=[TO_DRIFT],
        ),
        stat(
            "Drifted, other",
            "Pairs of manager and account that have drifted otherwise.",
            now(f'sum(sessionwatch_drifted_accounts{{{CHAIN}, severity!="critical"}})', "other"),
            nothing="0",
            steps=ANY_IS_ODD,
            links=[TO_DRIFT],
        ),
        stat(
            "State unknown",
            "Pairs of manager and account whose root could not be read.",
            now(f'sum(sessionwatch_accounts{{{CHAIN}, verdict="unknown"}})', "unknown"),
            nothing="0",
            steps=ANY_IS_ODD,
        ),
        stat(
            "Found by audits",
            "Roots and accounts that audits found different from what was stored, in the "
            "dashboard's time. They are repaired at once; anything but 0 is worth a look.",
            now(
                f"sum(increase(sessionwatch_audit_mismatches_total{{{CHAIN}}}[$__range]))", "found"
            ),
            nothing=NOT_SCRAPED,
            steps=((None, GREEN), (0.5, RED)),
        ),
        stat(
            "Contradicted roots",
            "Roots of which logs or inputs say something else than state, in the dashboard's time.",
            now(
                f"sum(increase(sessionwatch_root_disagreements_total{{{CHAIN}}}[$__range]))",
                "contradicted",
            ),
            nothing=NOT_SCRAPED,
            steps=((None, GREEN), (0.5, RED)),
        ),
        stat(
            "Undecoded logs",
            "Logs of a known kind that nothing could decode, in the dashboard's time.",
            now(
                f"sum(increase(sessionwatch_undecoded_logs_total{{{CHAIN}}}[$__range]))",
                "undecoded",
            ),
            nothing=NOT_SCRAPED,
            steps=((None, GREEN), (0.5, ORANGE)),
            links=[TO_INTERNALS],
        ),
        table(
            "Alerts that fire",
            "What Prometheus holds against Sessionwatch now, by the rules it was given. Each is "
            "explained in deploy/runbook.md.",
            labels_now(
                'max by (alertname, severity, chain) (ALERTS{alertname=~"Sessionwatch.*",'
                ' alertstate="firing"})'
            ),
            nothing="no alert fires",
            width=12,
            colors={"severity": SEVERITIES},
            hidden=["Time", "Value"],
        ),
        chart(
            "Drifted accounts by cause",
            "Pairs of manager and account that were drifted at that time.",
            series(
                f"sum by (cause) (sessionwatch_drifted_accounts{{{CHAIN}}}) > 0",
                "{{cause}}",
            ),
            nothing="nothing was drifted in this time",
            stacked=True,
        ),
        table(
            "Newest drifts",
            "The accounts that drifted last; a click on one shows all that is known of it.",
            rows(f"""
                SELECT d.since_time, p.chain, d.account, d.cause, d.severity, d.is_final,
                       d.explanation
                  FROM watch.progress AS p
                 CROSS JOIN LATERAL (
                      SELECT * FROM watch.drift AS x WHERE x.chain_id = p.chain_id
                       ORDER BY x.since_time DESC, x.verdict_id DESC LIMIT 20) AS d
                 WHERE {OF_CHAINS}
                 ORDER BY d.since_time DESC LIMIT 20"""),
            nothing="no account has drifted",
            links={"account": account_link()},
            widths={
                "since_time": 170,
                "chain": 90,
                "account": 370,
                "cause": 190,
                "severity": 90,
                "is_final": 80,
            },
            colors={"severity": SEVERITIES},
        ),
        chart(
            "Reorgs",
            "Reorgs committed, by chain.",
            series(
                f"increase(sessionwatch_reorgs_total{{{CHAIN}}}[$__rate_interval])", "{{chain}}"
            ),
            nothing="no chain was scraped in this time",
            bars=True,
        ),
        table(
            "Last reorgs",
            "What was taken back, by a reorg or by an operator, and how deep.",
            rows(f"""
                SELECT r.detected_at, p.chain, r.depth, r.common_ancestor, r.reason, r.old_tip,
                       r.new_tip
                  FROM watch.progress AS p JOIN watch.reorg AS r USING (chain_id)
                 WHERE {OF_CHAINS}
                 ORDER BY r.detected_at DESC LIMIT 20"""),
            nothing="there was no reorg",
            width=12,
            widths={"detected_at": 170, "chain": 90, "depth": 70},
        ),
        table(
            "Audits",
            "The last audit of each manager: complete means that every root in it is known, so "
            "that nothing at all was missed.",
            rows(f"""
                SELECT a.audited_at, p.chain, a.manager, a.roots_read, a.mismatches, a.storage_proof
                  FROM watch.progress AS p JOIN watch.audit AS a USING (chain_id)
                 WHERE {OF_CHAINS}
                 ORDER BY p.chain, a.manager"""),
            nothing="no audit has ended yet",
            width=12,
            units={"audited_at": "dateTimeFromNow"},
            colors={
                "storage_proof": {
                    "complete": ("complete", GREEN),
                    "others_exist": ("others_exist", PLAIN),
                    "unavailable": ("unavailable", ORANGE),
                }
            },
        ),
        table(
            "Audit findings",
            "What audits found different from what was stored, each with its reason.",
            rows(f"""
                SELECT f.found_at, p.chain, f.account, f.block_number, f.reason, f.is_final,
                       f.explanation
                  FROM watch.progress AS p JOIN watch.audit_finding AS f USING (chain_id)
                 WHERE {OF_CHAINS}
                 ORDER BY f.found_at DESC LIMIT 50"""),
            nothing="audits have found nothing",
            width=12,
            links={"account": account_link()},
        ),
    ],
)

DASHBOARD = Dashboard(
    uid="sessionwatch-overview",
    title="Sessionwatch: overview",
    description="Is it alive, how far behind is it, what is wrong.",
    sections=[ALIVE, BEHIND, WRONG],
    variables=[CHAIN_BY_METRICS],
    refresh="30s",
)
