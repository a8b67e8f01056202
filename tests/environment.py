"""The environment of processes that tests start: nothing of the caller's but what measures them."""

from __future__ import annotations

import os


def environment(**given: str) -> dict[str, str]:
    """Return what is given, and what coverage needs to measure the process."""
    measured = {k: v for k, v in os.environ.items() if k.startswith("COVERAGE_")}  # noqa: TID251
    return measured | given
