"""Answers that cost a read of the database: few at once, few a second, each kept for a moment."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from indexer.errors import RetryableError

KEPT_SECONDS = 2.0
MAX_KEPT = 16
MAX_AT_ONCE = 2
MAX_PER_SECOND = 20
MAX_WAITING = 200
DEADLINE_SECONDS = 5.0

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


@dataclass(slots=True)
class BoundedReads(Generic[Key, Answer]):
    """The same question asked again within 2 seconds is not read again.

    Whoever asks beyond the bounds, such as a crawler, is sent away: what they leave of the
    database and of this process belongs to the live lane. `now` is a monotonic clock.
    """

    now: Callable[[], float]
    _kept: OrderedDict[Key, tuple[float, Answer]] = field(default_factory=OrderedDict)
    _begun: deque[float] = field(default_factory=deque)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_AT_ONCE))
    _waiting: int = 0

    async def get(self, key: Key, read: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer kept or read. Raises RetryableError when too many are asked for."""
        kept = self._fresh(key)
        if kept is not None:
            return kept
        if self._waiting >= MAX_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), self._slots:
                kept = self._fresh(key)
                return kept if kept is not None else await self._read(key, read)
        except TimeoutError as error:
            raise RetryableError("the database did not answer in time") from error
        finally:
            self._waiting -= 1

    def _fresh(self, key: Key) -> Answer | None:
        read_at, answer = self._kept.get(key, (float("-inf"), None))
        return answer if self.now() - read_at <= KEPT_SECONDS else None

    async def _read(self, key: Key, read: Callable[[], Awaitable[Answer]]) -> Answer:
        now = self.now()
        while self._begun and now - self._begun[0] >= 1:
            self._begun.popleft()
        if len(self._begun) >= MAX_PER_SECOND:
            raise _busy()
        self._begun.append(now)
        answer = await read()
        self._kept[key] = (self.now(), answer)
        self._kept.move_to_end(key)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return answer


def _busy() -> RetryableError:
    return RetryableError("too many pages are asked for at once", remedy="try again in a second")
