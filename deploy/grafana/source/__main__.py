"""Write every dashboard's JSON."""

from __future__ import annotations

from pathlib import Path

from deploy.grafana.source import account, drift, internals, overview, sessions, tokens
from deploy.grafana.source.layout import text_of

DASHBOARDS = {
    "overview": overview.DASHBOARD,
    "drift": drift.DASHBOARD,
    "account": account.DASHBOARD,
    "sessions": sessions.DASHBOARD,
    "tokens": tokens.DASHBOARD,
    "internals": internals.DASHBOARD,
}
FOLDER = Path(__file__).parents[1] / "dashboards"


def main() -> None:
    """Write the files that Grafana provisions."""
    for name, dashboard in DASHBOARDS.items():
        (FOLDER / f"{name}.json").write_text(text_of(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
