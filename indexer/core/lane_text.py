"""The words for a chain's lanes: the same in a terminal and on the status page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from indexer.core.estimate import PACE_LASTS_SECONDS, duration_text

Lane = Mapping[str, Any]
"""One lane as `store.status.read_status` returns it."""


def shown_lanes(lanes: Sequence[Lane]) -> list[tuple[str, Lane]]:
    """Return each bar with its label; filters of logs that owe the same blocks share one."""
    logs = [lane for lane in lanes if lane["lane"] == "logs"]
    alike = len(logs) > 1 and all(_place(lane) == _place(logs[0]) for lane in logs)
    shown: list[tuple[str, Lane]] = []
    for lane in lanes:
        if alike and lane["lane"] == "logs":
            if lane is logs[0]:
                shown.append((f"logs, {len(logs)} filters", lane))
        else:
            shown.append((label(lane), lane))
    return shown


def _place(lane: Lane) -> tuple[Any, ...]:
    keys = ("first_block", "last_block", "missing_blocks", "unreadable_blocks", "accounts")
    return tuple(lane[key] for key in keys)


def label(lane: Lane) -> str:
    """Name a lane in few letters: addresses are shortened."""
    kind = str(lane["lane"])
    if kind == "roots":
        return f"roots {shortened(str(lane['pass']).removeprefix('roots/'))}"
    if kind in {"live", "bodies"}:
        return kind
    group, _, name = str(lane["filter"]).rpartition("/")
    named = shortened(name)
    return f"{kind} {named if group in {'', 'factory'} else f'{group}/{named}'}"


def shortened(text: str) -> str:
    """Write the address 0x0123456789… as 0x012345…cdef; leave other words as they are."""
    return f"{text[:8]}…{text[-4:]}" if text.startswith("0x") and len(text) == 42 else text


def about(seconds: float | None, requests: float | None, basis: str) -> str:
    """Say an estimate, or why there is none."""
    if seconds is None or requests is None:
        return f"no estimate: {basis}"
    if not seconds and not requests:
        return ""
    return f"about {duration_text(seconds)}, {counted(ceil(requests), 'request')}"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def left(lane: Lane) -> str:
    """Say what of a lane is left, how long it may take, and what cannot be read."""
    if lane["lane"] == "live":
        behind = lane["missing_blocks"]
        return f"{counted(behind, 'block')} behind" if behind else "at the tip"
    payable = lane["missing_blocks"] - lane["unreadable_blocks"]
    said = [f"{counted(payable, 'block')} left" if payable else "nothing left to pay"]
    if payable:
        said.append(about(lane["remaining_seconds"], lane["remaining_requests"], lane["basis"]))
    if lane["accounts"]:
        said.append(f"with the past of {counted(lane['accounts'], 'account')} learnt later")
    if lane["unreadable_blocks"]:
        blocks = counted(lane["unreadable_blocks"], "block")
        said.append(f"not readable: {blocks}, needs an archive node")
    return "; ".join(said)


def percent_text(percent: float) -> str:
    """Write a percentage, cut and never rounded up: 100 % means that nothing is missing."""
    return f"{int(percent)} %"


def summary(chain: Mapping[str, Any]) -> str:
    """Say when a chain's debt may be paid, and if nobody seems to pay it; "" if all is well."""
    remaining, said = chain["remaining"], []
    if remaining is not None:
        words = about(remaining["seconds"], remaining["requests"], remaining["basis"])
        if words:
            said.append(f"the past: {words}")
    silent = chain["progress"]["updated_seconds_ago"]
    if silent is not None and silent > PACE_LASTS_SECONDS:
        said.append(f"no daemon has written for {duration_text(silent)}")
    return "; ".join(said)
