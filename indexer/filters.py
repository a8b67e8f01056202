"""Which logs a configuration asks of a node, and which of them count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from indexer.chain.logs import LogRequest
from indexer.core.events import DecodedLogs, LogFilter, WatchedAccounts, decode_logs
from indexer.core.passes import ACCOUNTS, ALL_ERC1155, TOUCHING_ERC1155, Pass, hex_of
from indexer.core.presets import OWNERSHIP_MODULES
from indexer.core.settings import ChainSettings
from indexer.core.topics import (
    ACCOUNT_DEPLOYED,
    ACCOUNT_TOPICS,
    BEFORE_EXECUTION,
    ENTRY_POINT_TOPICS,
    ERC1155_TOPICS,
    FACTORY_TOPICS,
    MANAGER_TOPICS,
    OWNERSHIP_TOPICS,
    SIGNATURE_AGGREGATOR_CHANGED,
    TRANSFER_TOPICS,
    USER_OPERATION_EVENT,
    USER_OPERATION_REVERT_REASON,
)
from indexer.core.types import Address, Hash32, Log

_BY_SENDER = frozenset({USER_OPERATION_EVENT, ACCOUNT_DEPLOYED, USER_OPERATION_REVERT_REASON})
# They name no account: they only say where operations begin.
_BORDERS = frozenset({BEFORE_EXECUTION, SIGNATURE_AGGREGATOR_CHANGED})


@dataclass(frozen=True, slots=True)
class Contracts:
    """What is watched beside accounts. `event_managers` emit MerkleRootUpdated."""

    settings: ChainSettings
    event_managers: frozenset[Address]

    def log_filter(
        self,
        passes: Iterable[Pass],
        accounts: WatchedAccounts,
        tokens_of: WatchedAccounts | None = None,
    ) -> LogFilter:
        """Return what decoding keeps when these passes are paid; `tokens_of` None: `accounts`."""
        settings, filters = self.settings, {p.filter for p in passes}
        with_accounts = ACCOUNTS in filters
        from_factory = settings.accounts_mode == "factory"
        factories = {f for f in settings.factories if f"factory/{hex_of(f)}" in filters}
        if with_accounts and not from_factory:
            factories = set(settings.factories)
        tokens = frozenset(c for c in settings.erc1155 if f"erc1155/{hex_of(c)}" in filters)
        return LogFilter(
            entry_points=frozenset(settings.entry_points),
            factories=frozenset(factories),
            event_managers=self.event_managers if with_accounts else frozenset(),
            ownership_modules=frozenset(OWNERSHIP_MODULES) if with_accounts else frozenset(),
            erc1155=None if ALL_ERC1155 in filters else tokens,
            accounts=accounts,
            all_creations=from_factory,
            tokens_of=(tokens_of or accounts) if TOUCHING_ERC1155 in filters else None,
        )

    def history_filter(
        self,
        passes: Iterable[Pass],
        accounts: WatchedAccounts,
        tokens_of: WatchedAccounts | None = None,
    ) -> LogFilter:
        """Return the same for the past: events of managers are paid with their roots.

        A manager that is added later then owes both.
        """
        return replace(self.log_filter(passes, accounts, tokens_of), event_managers=frozenset())

    def log_requests(self, watch: LogFilter, *, with_accounts: bool) -> list[LogRequest]:
        """Return the eth_getLogs requests that find what `watch` keeps.

        User operation events are asked for unfiltered by sender: they delimit the operations
        of a bundle, and so say which operation moved a token.
        """
        requests: list[LogRequest] = []

        def ask(addresses: Collection[Address] | None, topics: Collection[Hash32]) -> None:
            kept = None if addresses is None else tuple(sorted(addresses))
            if kept is None or kept:
                requests.append(LogRequest(kept, tuple(sorted(topics))))

        ask(watch.factories, FACTORY_TOPICS)
        with_tokens = watch.tokens_of is not None or watch.erc1155 is None or bool(watch.erc1155)
        if with_accounts or with_tokens:
            ask(watch.entry_points, ENTRY_POINT_TOPICS)
        if with_accounts:
            ask(None, ACCOUNT_TOPICS)
            ask(watch.event_managers, MANAGER_TOPICS)
            ask(watch.ownership_modules, OWNERSHIP_TOPICS)
        if watch.tokens_of is not None:
            ask(None, TRANSFER_TOPICS)
        else:
            ask(watch.erc1155, ERC1155_TOPICS)
        return requests

    def requests_naming(
        self, watch: LogFilter, accounts: Collection[Address], tokens_of: Collection[Address]
    ) -> list[LogRequest]:
        """Return the requests that find the blocks in which a few accounts did anything.

        What else those blocks hold has to be asked for by block: it says which operation a log
        belongs to. `tokens_of` are those whose transfers are looked for.
        """
        requests: list[LogRequest] = []

        def ask(
            emitters: Collection[Address] | None,
            topics: Collection[Hash32],
            named: Collection[Address],
            position: int,
        ) -> None:
            if named and (emitters is None or emitters):
                kept = None if emitters is None else tuple(sorted(emitters))
                requests.append(
                    LogRequest(kept, tuple(sorted(topics)), tuple(sorted(named)), position)
                )

        if accounts:
            requests.append(LogRequest(tuple(sorted(accounts)), tuple(sorted(ACCOUNT_TOPICS))))
        ask(watch.entry_points, _BY_SENDER, accounts, 2)
        ask(watch.entry_points, ENTRY_POINT_TOPICS - _BY_SENDER - _BORDERS, accounts, 1)
        ask(watch.ownership_modules, OWNERSHIP_TOPICS, accounts, 1)
        ask(watch.factories, FACTORY_TOPICS, accounts, 1)
        ask(None, TRANSFER_TOPICS, tokens_of, 2)
        ask(None, TRANSFER_TOPICS, tokens_of, 3)
        return requests


def decode(logs: Sequence[Log], watch: LogFilter, *, with_accounts: bool) -> DecodedLogs:
    """Decode logs; without accounts, what they did is left to the range that pays for it."""
    decoded = decode_logs(logs, watch)
    if with_accounts:
        return decoded
    return replace(decoded, account_events=(), user_operations=(), manager_roots=())
