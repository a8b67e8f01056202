"""Memory and processor time of a process and all its descendants, from /proc (Linux)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(slots=True)
class Usage:
    """The most that was seen. `peak_mib` is resident memory by process, each at its own highest.

    `together_mib` is the highest sum at one moment: pages that a fork shares count twice.
    """

    peak_mib: dict[int, float] = field(default_factory=dict)
    together_mib: float = 0.0
    _cpu_began: dict[int, float] = field(default_factory=dict)
    _cpu_seconds: dict[int, float] = field(default_factory=dict)

    def look_at(self, pid: int) -> None:
        """Look at a process and its descendants; those that have just ended are passed over."""
        together, first_look = 0.0, not self._cpu_began
        for one in [pid, *descendants(pid)]:
            try:
                status = (_PROC / str(one) / "status").read_text()
                used = cpu_seconds(one)
            except (FileNotFoundError, ProcessLookupError):
                continue
            together += _mib(status, "VmRSS")
            self.peak_mib[one] = max(self.peak_mib.get(one, 0.0), _mib(status, "VmHWM"))
            # A process that began later than the first look has used nothing before.
            self._cpu_began.setdefault(one, used if first_look else 0.0)
            self._cpu_seconds[one] = used
        self.together_mib = max(self.together_mib, together)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all of them between the first look and the last."""
        return sum(used - self._cpu_began[pid] for pid, used in self._cpu_seconds.items())

    def report(self) -> dict[str, Any]:
        """Return it as plain values, the largest process first."""
        return {
            "cpu_seconds": round(self.cpu_seconds, 1),
            "together_mib": round(self.together_mib, 1),
            "peak_mib": sorted((round(mib, 1) for mib in self.peak_mib.values()), reverse=True),
        }


def parent(pid: int) -> int:
    """Return the process that started this one."""
    return int(_fields(_PROC / str(pid) / "stat")[1])


def descendants(pid: int) -> list[int]:
    """Return the living children of a process, and theirs."""
    children: dict[int, list[int]] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        try:
            above = int(_fields(stat)[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(above, []).append(int(stat.parent.name))
    found = list(children.get(pid, ()))
    for one in found:
        found += children.get(one, ())
    return found


def cpu_seconds(pid: int) -> float:
    """Return the time a process has spent running, user and system."""
    fields = _fields(_PROC / str(pid) / "stat")
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _fields(stat: Path) -> list[str]:
    # The name, in brackets, may hold blanks: fields are counted behind it.
    return stat.read_text().rpartition(")")[2].split()


def _mib(status: str, name: str) -> float:
    line = next((line for line in status.splitlines() if line.startswith(f"{name}:")), "0 0 kB")
    return int(line.split()[1]) / 1024
