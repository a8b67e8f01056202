"""What the daemon says of itself: it writes these values, the HTTP handlers read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(slots=True)
class ChainHealth:
    """One chain's pulse.

    `last_step_monotonic` is the monotonic clock when the last live step or completed wait
    ended, None before the first. `lag_seconds` is the node's tip time less the indexed
    block's time. `finality_violation` is the latched sentence, None while node and database
    agree. `node_behind` says that the node does not show the indexed block: ordinary lag of a
    back-end unless it lasts for `max_idle_seconds`, or reaches below finality
    (`node_below_final`): then the node was set back. None once it shows it again.
    `waiting_for` is what the chain cannot go on without just now. `drifted` counts the open
    verdicts of that name.
    """

    last_step_monotonic: float | None = None
    lag_seconds: float | None = None
    finality_violation: str | None = None
    node_behind: str | None = None
    node_below_final: bool = False
    indexed_block: int | None = None
    drifted: int = 0
    finished: bool = False
    waiting_for: Literal["", "node", "database"] = ""
    max_lag_seconds: float = 120
    max_idle_seconds: float = 60

    def reasons(self, now: float) -> tuple[str, ...]:
        """Why this chain is not ready at monotonic time `now`; empty when it is."""
        found: list[str] = []
        if self.finality_violation is not None:
            found.append(f"finality violation: {self.finality_violation}")
        if self.last_step_monotonic is None:
            found.append("not followed yet: no step has finished since the start")
            return tuple(found)
        idle_seconds = now - self.last_step_monotonic
        is_idle = idle_seconds > self.max_idle_seconds
        if self.node_behind is not None and (is_idle or self.node_below_final):
            found.append(f"the node is behind for {idle_seconds:.0f} seconds: {self.node_behind}")
        elif is_idle:
            found.append(
                f"no step has finished for {idle_seconds:.0f} seconds"
                f" (limit {self.max_idle_seconds:g})"
            )
        if self.lag_seconds is not None and self.lag_seconds > self.max_lag_seconds:
            found.append(
                f"{self.lag_seconds:.0f} seconds behind the node's tip"
                f" (limit {self.max_lag_seconds:g})"
            )
        return tuple(found)

    def line(self) -> str:
        """Say for people where the chain stands: `block 49, 0 s behind, 6 drifted`."""
        waiting = f"waiting for the {self.waiting_for}"
        if self.indexed_block is None:
            return waiting if self.waiting_for else "starting"
        if self.finality_violation is not None:
            state = "finality violation"
        elif self.finished:
            state = "finished"
        elif self.waiting_for:
            state = waiting
        elif self.node_behind is not None:
            state = "the node is behind"
        else:
            state = f"{self.lag_seconds or 0:.0f} s behind"
        return f"block {self.indexed_block}, {state}, {self.drifted} drifted"


@dataclass(slots=True)
class Health:
    """The whole process. `chains` is keyed by the chain's configured name."""

    started_monotonic: float
    database_lost: bool = False
    stopping: bool = False
    chains: dict[str, ChainHealth] = field(default_factory=dict)

    def reasons(self, now: float) -> dict[str, tuple[str, ...]]:
        """Why the process is not ready: by chain name, or "" for the process itself."""
        found: dict[str, tuple[str, ...]] = {}
        process: list[str] = []
        if self.stopping:
            process.append("stopping")
        if self.database_lost:
            process.append("the database cannot be reached")
        if not self.chains:
            process.append("not followed yet: no chain has been started")
        if process:
            found[""] = tuple(process)
        for name, chain in self.chains.items():
            if reasons := chain.reasons(now):
                found[name] = reasons
        return found

    def line(self) -> str:
        """Say for people, in one line, how the whole process is."""
        if self.stopping:
            return "stopping"
        words = ["the database cannot be reached"] if self.database_lost else []
        words += [f"{name}: {chain.line()}" for name, chain in self.chains.items()]
        return "; ".join(words) or "starting"
