"""What the benchmark of live changes beside history has measured, as values and as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.bench.processes import Usage

SAMPLE_SECONDS = 0.5
"""Between two looks at debt, memory and processor time: times of passes are no finer."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one phase; milliseconds."""

    changes: int
    p50_ms: float
    p99_ms: float
    worst_ms: float

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Return the percentiles (nearest rank) of at least one latency."""
        ordered = sorted(1000 * s for s in seconds)
        last = len(ordered) - 1
        at_rank = [ordered[min(last, int(len(ordered) * share))] for share in (0.5, 0.99)]
        return cls(len(ordered), *(round(ms, 1) for ms in (*at_rank, ordered[-1])))


@dataclass(slots=True)
class Payment:
    """When a pass was paid: seconds since the daemon took the chain over.

    `began` is the last look at which all was owed, `ended` the first at which nothing was.
    """

    began: float | None = None
    ended: float | None = None
    _missing: int | None = None
    _looked: float = 0.0

    def seen(self, missing_blocks: int, now: float) -> None:
        """Take note of how much is owed now."""
        if self.began is None and missing_blocks < (self._missing or 1):
            self.began = self._looked
        if missing_blocks:
            self.ended = None
        elif self.ended is None:
            self.ended = now
        self._missing, self._looked = missing_blocks, now


@dataclass(slots=True)
class Backfill:
    """The busy phase beside its latencies.

    `retries` are steps that had to be repeated; `asked` is what the node was asked, by method.
    """

    seconds: float = 0.0
    retries: int = 0
    passes: dict[str, Payment] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    daemon: Usage = field(default_factory=Usage)
    node: Usage = field(default_factory=Usage)
    postgres: Usage = field(default_factory=Usage)

    def report(self, verified: dict[str, int]) -> dict[str, Any]:
        """Return it as plain values, with what each pass went through per second."""

        def rows(name: str) -> int:
            pass_, _, filter_ = name.partition(" ")
            if filter_.startswith("factory/"):
                return verified["accounts"]
            if filter_.startswith("erc1155/"):
                return verified["transfers"]
            created = verified["accounts"] if pass_.startswith("roots/") else 0
            return verified["operations"] + created

        passes = {}
        for name, one in self.passes.items():
            began, ended = one.began or 0.0, one.ended or self.seconds
            passes[name] = {
                "from_seconds": round(began, 1),
                "to_seconds": round(ended, 1),
                "rows": rows(name),
                "rows_per_second": round(rows(name) / max(ended - began, SAMPLE_SECONDS)),
            }
        return {
            "seconds": round(self.seconds, 1),
            "retries": self.retries,
            "passes": passes,
            "asked": self.asked,
            "daemon": self.daemon.report(),
            "node": self.node.report(),
            "postgres": self.postgres.report(),
        }


def table(found: dict[str, Any]) -> str:
    """Return what was measured for people."""
    size, backfill = found["size"], found["backfill"]
    lines = [
        ", ".join(f"{size[what]} {what}" for what in ("transfers", "accounts", "operations"))
        + f" in {size['blocks']} blocks; polled every {found['poll_seconds']:g} s",
        "",
        "phase     changes   p50 ms   p99 ms  worst ms   p50 - idle   p99 - idle   p50 / idle",
    ]
    quiet = found["latency"]["idle"]
    for name, one in found["latency"].items():
        lines.append(
            f"{name:9}{one['changes']:8d} {one['p50_ms']:8.1f} {one['p99_ms']:8.1f} "
            f"{one['worst_ms']:9.1f} {one['p50_ms'] - quiet['p50_ms']:12.1f} "
            f"{one['p99_ms'] - quiet['p99_ms']:12.1f} {one['p50_ms'] / quiet['p50_ms']:12.2f}"
        )
    lines += [
        "",
        "pass (filter)                                    from s      to s   rows   rows/s",
    ]
    for name, one in backfill["passes"].items():
        lines.append(
            f"{name[:46]:46} {one['from_seconds']:8.1f} {one['to_seconds']:9.1f} "
            f"{one['rows']:8d} {one['rows_per_second']:8.0f}"
        )
    lines += ["", f"paid after {backfill['seconds']:.1f} s, {backfill['retries']} steps retried"]
    for name in ("daemon", "node", "postgres"):
        used = backfill[name]
        lines.append(
            f"{name:9} {used['cpu_seconds']:7.1f} s of processor, {used['together_mib']:7.1f} MiB "
            f"at most ({', '.join(f'{mib:.0f}' for mib in used['peak_mib'][:4])} MiB each)"
        )
    asked = ", ".join(f"{n} {name}" for name, n in sorted(backfill["asked"].items()))
    return "\n".join([*lines, f"the node was asked {asked}", ""])
