"""Drift: which accounts are flagged, why, and for how long."""

from __future__ import annotations

from deploy.grafana.source.layout import Dashboard, Section
from deploy.grafana.source.parts import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    ORANGE,
    bar_list,
    chart,
    now,
    rows,
    series,
    stat,
    table,
)
from deploy.grafana.source.queries import (
    CAUSE,
    CHAIN,
    CHAIN_BY_DATABASE,
    NO_IS_BAD,
    OF_CHAINS,
    SEVERITIES,
    SEVERITY,
    account_link,
)

_CHOSEN = """d.cause = ANY (ARRAY[${cause:sqlstring}]::text[])
                   AND d.severity = ANY (ARRAY[${severity:sqlstring}]::text[])"""
_DRIFTS = f"""FROM watch.progress AS p JOIN watch.drift AS d USING (chain_id)
                 WHERE {OF_CHAINS}
                   AND {_CHOSEN}"""


NOW = Section(
    "Now",
    [
        stat(
            "Drifted",
            "Pairs of manager and account that are drifted, of the causes and severities chosen.",
            rows(f"""
                SELECT count(*) AS drifted
                  {_DRIFTS}"""),
            nothing="0",
            steps=ANY_IS_ODD,
        ),
        stat(
            "Critical",
            "Those that may be an attack, or let a session work that should not.",
            rows(f"""
                SELECT count(*) AS critical
                  {_DRIFTS}
                   AND d.severity = 'critical'"""),
            nothing="0",
            steps=ANY_IS_BAD,
        ),
        stat(
            "Can be taken back",
            "Drifts that are not final: the chain could still take the block back, or the "
            "account's past is not read yet.",
            rows(f"""
                SELECT count(*) AS not_final
                  {_DRIFTS}
                   AND NOT d.is_final"""),
            nothing="0",
        ),
        stat(
            "Oldest",
            "How long the oldest of them has held.",
            rows(f"""
                SELECT extract(epoch FROM now() - min(d.since_time))::float8 AS oldest
                  {_DRIFTS}"""),
            nothing="nothing is drifted",
            unit="s",
        ),
        stat(
            "Begun in this time",
            "Drifts that began in the dashboard's time, those that are over included.",
            rows(f"""
                SELECT count(*) AS begun
                  FROM watch.progress AS p JOIN watch.drift_history AS d USING (chain_id)
                 WHERE {OF_CHAINS}
                   AND {_CHOSEN}
                   AND $__timeFilter(d.since_time)"""),
            nothing="0",
        ),
        stat(
            "Ended in this time",
            "Drifts that ended in the dashboard's time.",
            rows(f"""
                SELECT count(*) AS ended
                  FROM watch.progress AS p JOIN watch.drift_history AS d USING (chain_id)
                 WHERE {OF_CHAINS}
                   AND {_CHOSEN}
                   AND $__timeFilter(d.closed_time)"""),
            nothing="0",
        ),
        bar_list(
            "By cause",
            "What the drifted accounts drifted by. Of several causes the gravest counts.",
            rows(f"""
                SELECT d.cause, count(*) AS accounts
                  {_DRIFTS}
                 GROUP BY d.cause ORDER BY accounts DESC, d.cause"""),
            nothing="nothing is drifted",
        ),
        bar_list(
            "By age",
            "How long the drifted accounts have been so.",
            rows(f"""
                WITH ages (place, age, longest) AS (
                    VALUES (1, 'under an hour', interval '1 hour'), (2, 'under a day', '1 day'),
                           (3, 'under a week', '7 days'), (4, 'under 30 days', '30 days'),
                           (5, 'longer', NULL)),
                held AS (
                    SELECT (SELECT min(a.place) FROM ages AS a
                             WHERE a.longest IS NULL OR now() - d.since_time < a.longest) AS place
                      {_DRIFTS})
                SELECT a.age, count(h.place) AS accounts
                  FROM ages AS a LEFT JOIN held AS h USING (place)
                 GROUP BY a.place, a.age ORDER BY a.place"""),
            nothing="nothing is drifted",
            steps=((None, ORANGE),),
        ),
        bar_list(
            "Verdicts",
            "All pairs of manager and account by what is known of them.",
            now(f"sort_desc(sum by (verdict) (sessionwatch_accounts{{{CHAIN}}}))", "{{verdict}}"),
            nothing="nothing is decided yet",
        ),
    ],
)

ACCOUNTS = Section(
    "Accounts",
    [
        table(
            "Drifted accounts",
            "Of the causes and severities chosen, the newest 500. A click on an account shows its "
            "roots, sets, sessions and uses.",
            rows(f"""
                SELECT d.since_time, p.chain, d.account, d.cause, d.severity, d.is_final,
                       array_to_string(d.warnings, ', ') AS warnings, d.explanation, d.manager,
                       d.since_block
                  {_DRIFTS}
                 ORDER BY d.since_time DESC LIMIT 500"""),
            nothing="no account of these causes and severities is drifted",
            height=12,
            links={"account": account_link()},
            widths={
                "since_time": 170,
                "chain": 90,
                "account": 370,
                "cause": 190,
                "severity": 90,
                "is_final": 80,
                "warnings": 130,
            },
            colors={"severity": SEVERITIES, "is_final": NO_IS_BAD},
        ),
    ],
)

TIME = Section(
    "Over time",
    [
        chart(
            "Drifted by cause",
            "Pairs of manager and account that were drifted at that time.",
            series(
                f'sum by (cause) (sessionwatch_drifted_accounts{{{CHAIN}, cause=~"$cause",'
                ' severity=~"$severity"}) > 0',
                "{{cause}}",
            ),
            nothing="nothing was drifted in this time",
            stacked=True,
        ),
        chart(
            "Accounts by verdict",
            "All pairs of manager and account by what was known of them at that time.",
            series(f"sum by (verdict) (sessionwatch_accounts{{{CHAIN}}})", "{{verdict}}"),
            nothing="no chain was scraped in this time",
            stacked=True,
        ),
        table(
            "Ended drifts",
            "Drifts that ended in the dashboard's time, the newest 200: when they began, when they "
            "were over, and what they were.",
            rows(f"""
                SELECT d.closed_time, d.since_time,
                       extract(epoch FROM d.closed_time - d.since_time)::float8 AS lasted, p.chain,
                       d.account, d.cause, d.severity, d.explanation
                  FROM watch.progress AS p JOIN watch.drift_history AS d USING (chain_id)
                 WHERE {OF_CHAINS}
                   AND {_CHOSEN}
                   AND $__timeFilter(d.closed_time)
                 ORDER BY d.closed_time DESC LIMIT 200"""),
            nothing="no drift ended in this time",
            links={"account": account_link()},
            units={"lasted": "s"},
            widths={
                "closed_time": 170,
                "since_time": 170,
                "lasted": 100,
                "chain": 90,
                "account": 370,
                "cause": 190,
                "severity": 90,
            },
            colors={"severity": SEVERITIES},
        ),
    ],
)

DASHBOARD = Dashboard(
    uid="sessionwatch-drift",
    title="Sessionwatch: drift",
    description="Which accounts are flagged, by cause and age.",
    sections=[NOW, ACCOUNTS, TIME],
    variables=[CHAIN_BY_DATABASE, CAUSE, SEVERITY],
    since="now-24h",
)
