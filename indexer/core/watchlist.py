"""Which accounts are watched at which block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping


class WatchList:
    """The accounts the live lane and cohort 0 of the history lane watch.

    Accounts the factory created are watched at every block (before their creation they can do
    nothing). Accounts learnt otherwise are watched above the block they were adopted at; what
    lies below is the debt of their cohort.
    """

    def __init__(
        self, created: Iterable[bytes] = (), adopted: Mapping[bytes, int] | None = None
    ) -> None:
        self._created = set(created)
        self._adopted = dict(adopted or {})

    def __len__(self) -> int:
        return len(self._created) + len(self._adopted)

    def __contains__(self, account: bytes) -> bool:
        return account in self._created or account in self._adopted

    def __iter__(self) -> Iterator[bytes]:
        yield from self._created
        yield from self._adopted

    def watched(self, account: bytes, block_number: int) -> bool:
        """Say whether a log of `account` in this block is kept."""
        if account in self._created:
            return True
        adopted_block = self._adopted.get(account)
        return adopted_block is not None and block_number > adopted_block

    def add_created(self, accounts: Iterable[bytes]) -> None:
        """Watch accounts that the factory created; adopted ones stay what they are."""
        self._created.update(a for a in accounts if a not in self._adopted)

    def add_adopted(self, accounts: Mapping[bytes, int]) -> None:
        """Watch accounts above the block they were adopted at."""
        self._adopted.update(accounts)


class CohortWatch:
    """The accounts of one cohort, watched up to the block at which they were adopted."""

    def __init__(self, accounts: Iterable[bytes], adopted_block: int) -> None:
        self.accounts = frozenset(accounts)
        self._adopted_block = adopted_block

    def watched(self, account: bytes, block_number: int) -> bool:
        """Say whether a log of `account` in this block is kept."""
        return account in self.accounts and block_number <= self._adopted_block
