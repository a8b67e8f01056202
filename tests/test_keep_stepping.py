"""The loop around every lane's step: what is repeated at once, what after a pause, what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from indexer.errors import FatalError, FencedError, NodeUnreachableError, StaleStepError
from indexer.ingest import MAX_STALE_STEPS, keep_stepping


class Notes:
    """Listens to a lane and writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.in_step = False

    @contextmanager
    def stepping(self, lane: str) -> Iterator[None]:
        self.in_step = True
        try:
            yield
        finally:
            self.in_step = False

    def retrying(self, lane: str, error: Exception) -> None:
        self.told.append(f"{lane}: {type(error).__name__}")

    def recovered(self, lane: str) -> None:
        if self.told and self.told[-1] != f"{lane}: recovered":
            self.told.append(f"{lane}: recovered")


async def play(outcomes: list[Exception | bool], notes: Any) -> int:
    """Let a lane have these outcomes; return how often it rested. The list ends it."""
    rests = 0

    async def step() -> bool:
        assert notes.in_step
        outcome = outcomes.pop(0) if outcomes else FatalError("the list is at its end")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def rest() -> None:
        nonlocal rests
        assert not notes.in_step
        rests += 1

    with pytest.raises(FatalError, match="at its end"):
        await asyncio.wait_for(keep_stepping("live", step, rest, notes), 10)
    return rests


async def test_a_plan_that_no_longer_fits_is_made_again_at_once() -> None:
    """Nobody hears of it; a lane rests only where a step found nothing to do."""
    notes = Notes()
    assert await play([StaleStepError("moved"), True, StaleStepError("moved"), False], notes) == 1
    assert notes.told == []


async def test_a_plan_that_never_fits_is_a_trouble() -> None:
    """Made again and again in vain it is said, and paused, instead of asking the node for ever."""
    notes = Notes()
    stale: list[Exception | bool] = [StaleStepError("moved")] * (MAX_STALE_STEPS + 1)
    await play([*stale, True], notes)
    assert notes.told == ["live: StaleStepError", "live: recovered"]


async def test_a_trouble_ends_with_the_next_step_of_its_lane() -> None:
    """What cannot be reached is asked again after a pause, and its return is said."""
    notes = Notes()
    await play([NodeUnreachableError("away"), NodeUnreachableError("away"), True, True], notes)
    assert notes.told == ["live: NodeUnreachableError"] * 2 + ["live: recovered"]


async def test_fencing_ends_a_lane() -> None:
    """Another process follows the chain: nothing is repeated."""

    async def fenced() -> bool:
        raise FencedError("another process")

    notes: Any = Notes()
    with pytest.raises(FencedError):
        await keep_stepping("live", fenced, fenced, notes)  # type: ignore[arg-type]
    assert notes.told == []
