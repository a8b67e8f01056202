"""How much reading readers can cause."""

import asyncio

import pytest

from indexer.errors import RetryableError
from indexer.web.bounded import (
    KEPT_SECONDS,
    MAX_AT_ONCE,
    MAX_KEPT,
    MAX_PER_SECOND,
    MAX_WAITING,
    BoundedReads,
)


class Reads:
    """Counts what is read; a read ends when it is let go."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.bounded: BoundedReads[int, str] = BoundedReads(lambda: self.seconds)
        self.read: list[int] = []
        self.now_reading = self.most_at_once = 0
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()

    async def ask(self, number: int) -> str:
        return await self.bounded.get(number, lambda: self._read(number))

    async def _read(self, number: int) -> str:
        self.read.append(number)
        self.now_reading += 1
        self.begun.set()
        self.most_at_once = max(self.most_at_once, self.now_reading)
        try:
            await self.let_go.wait()
        finally:
            self.now_reading -= 1
        return f"answer {number}"


async def answers(reads: Reads, numbers: list[int]) -> list[str | RetryableError]:
    """Ask all at once, let every read go, and return what came back."""

    async def one(number: int) -> str | RetryableError:
        try:
            return await reads.ask(number)
        except RetryableError as error:
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in numbers]
        await reads.begun.wait()
        reads.let_go.set()
    return [task.result() for task in tasks]


async def test_readers_of_the_same_page_cost_as_many_reads_as_run_at_once():
    """Those who come while it is read get what it gave, and so do those soon after."""
    reads = Reads()
    found = await answers(reads, [7] * MAX_WAITING)
    assert found == ["answer 7"] * MAX_WAITING
    assert len(reads.read) <= MAX_AT_ONCE
    reads.read.clear()
    reads.seconds += KEPT_SECONDS
    assert await reads.ask(7) == "answer 7"
    assert reads.read == []
    reads.seconds += 0.1
    await reads.ask(7)
    assert reads.read == [7]


async def test_a_crawler_is_sent_away():
    """Different pages: a few at once, a few a second, the others are told to come again."""
    reads = Reads()
    found = await answers(reads, list(range(MAX_WAITING + 10)))
    refused = [one for one in found if isinstance(one, RetryableError)]
    assert len(reads.read) == MAX_PER_SECOND
    assert len(refused) == MAX_WAITING + 10 - MAX_PER_SECOND
    assert str(refused[0]) == "too many pages are asked for at once"
    assert reads.most_at_once == MAX_AT_ONCE
    reads.seconds += 1
    assert await reads.ask(1000) == "answer 1000"


async def test_few_answers_are_kept():
    """Memory does not grow with the number of accounts asked for."""
    reads = Reads()
    reads.let_go.set()
    for number in range(MAX_PER_SECOND):
        await reads.ask(number)
    assert len(reads.bounded._kept) == MAX_KEPT < MAX_PER_SECOND


async def test_a_failed_read_is_not_kept():
    """An error reaches who asked, and the next one reads again."""
    reads = Reads()

    async def fail() -> str:
        raise RetryableError("away")

    with pytest.raises(RetryableError, match="away"):
        await reads.bounded.get(1, fail)
    reads.let_go.set()
    assert await reads.ask(1) == "answer 1"
