"""Variables, links and pieces of SQL that several dashboards share.

Variables reach SQL as `:sqlstring` only, which quotes them; lists stand in ARRAY[…]::text[], which
an empty list leaves valid. Amounts and token ids are cast to text: a number of Grafana's has 53
bits. Rows of the chain are found by the dashboard's time, for which an index stands; what is newest
whatever the time, per chain and back from the tip.
"""

from __future__ import annotations

from collections.abc import Sequence

from deploy.grafana.source.parts import GREEN, ORANGE, POSTGRES, PROMETHEUS, RED, Json, link

CHAIN = 'chain=~"$chain"'
JOB = 'job="sessionwatch"'
OF_CHAINS = "p.chain = ANY (ARRAY[${chain:sqlstring}]::text[])"
"""Condition on watch.progress AS p."""

ZERO_ADDRESS = "0x" + "0" * 40

SEVERITIES = {
    "critical": ("critical", RED),
    "warning": ("warning", ORANGE),
    "info": ("info", GREEN),
}
YES_IS_BAD = {"true": ("yes", RED), "false": ("no", GREEN)}
NO_IS_BAD = {"true": ("yes", GREEN), "false": ("no", RED)}

_CAUSES = (
    "tainted_account",
    "rotated_by_session_key",
    "manager_disabled",
    "module_without_code",
    "cleared_on_chain",
    "reverted_to_older_set",
    "superseded",
    "never_landed",
    "manager_mismatch",
    "order_or_duplicates",
    "lost_sessions",
    "revoked_still_provable",
    "unknown_root",
)


def unix_time(column: str) -> str:
    """SQL of a moment kept as unix seconds; null for none (0) and for what no calendar holds."""
    return f"CASE WHEN {column} BETWEEN 1 AND 253402300799 THEN to_timestamp({column}) END"


def account_link(column: str = "account") -> Json:
    """From a cell to the dashboard of the account in it; the row has the column `chain`, too."""
    of_row = f"var-chain=${{__data.fields.chain}}&var-account=${{__data.fields.{column}}}"
    url = f"/d/sessionwatch-account?{of_row}&${{__url_time_range}}"
    return link("Everything about this account", url)


def dashboard_link(title: str, uid: str) -> Json:
    """To another dashboard, with the chains and the time of this one."""
    return link(title, f"/d/{uid}?${{chain:queryparam}}&${{__url_time_range}}")


def _choice(name: str, label: str, description: str, values: Sequence[str]) -> Json:
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "custom",
        "query": ",".join(values),
    }


def _everything(variable: Json) -> Json:
    current = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return variable | {"includeAll": True, "multi": True, "current": current}


def one_of(name: str, label: str, description: str, values: Sequence[str], first: str) -> Json:
    """A variable with fixed values, of which one is chosen."""
    return _choice(name, label, description, values) | {
        "includeAll": False,
        "multi": False,
        "current": {"selected": True, "text": first, "value": first},
    }


def text_box(name: str, label: str, description: str) -> Json:
    """A variable that is typed."""
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "textbox",
        "query": "",
        "current": {"selected": True, "text": "", "value": ""},
    }


_CHAIN_VARIABLE = {"name": "chain", "label": "Chain", "type": "query", "refresh": 2, "sort": 1}

CHAIN_BY_METRICS = _everything(
    _CHAIN_VARIABLE
    | {
        "description": "Chains that were scraped; they show while the database is away, too.",
        "datasource": PROMETHEUS,
        "query": {
            "query": "label_values(sessionwatch_indexed_block, chain)",
            "refId": "StandardVariableQuery",
        },
    }
)
CHAIN_BY_DATABASE = _everything(
    _CHAIN_VARIABLE
    | {
        "description": "Chains that the database knows.",
        "datasource": POSTGRES,
        "query": "SELECT chain FROM watch.progress ORDER BY chain",
    }
)
CAUSE = _everything(_choice("cause", "Cause", "Causes of drift to list.", _CAUSES))
SEVERITY = _everything(
    _choice("severity", "Severity", "Severities of drift to list.", list(SEVERITIES))
)


def quantiles(name: str, of: str = "0.5 0.95 0.99") -> list[tuple[str, str]]:
    """PromQL of a histogram's quantiles, each with its legend."""
    rate = f"sum by (le) (rate({name}_bucket{{{CHAIN}}}[$__rate_interval]))"
    return [(f"histogram_quantile({q}, {rate})", f"{float(q) * 100:g} %") for q in of.split()]
