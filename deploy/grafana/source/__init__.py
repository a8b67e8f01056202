"""The source of the dashboards in deploy/grafana/dashboards: one file here for each of them.

    python -m deploy.grafana.source

run from the top of the repository writes them again. The JSON is never edited by hand: a test
compares. parts.py has the panels, layout.py their places, queries.py what several dashboards share.
"""
