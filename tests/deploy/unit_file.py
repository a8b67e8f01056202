"""Units of systemd as data: what stands in a file, in order, with repeated keys."""

from __future__ import annotations

from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SERVICE = DEPLOY / "systemd" / "sessionwatch.service"


def directives(unit: str) -> dict[str, list[str]]:
    """Return the values of each key of a unit's text, of all sections together."""
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(key, []).append(value)
    return found
