"""The passes over blocks that a configuration asks for, and the logs each needs."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.core.settings import ChainSettings
from indexer.core.types import Address

ACCOUNTS = "accounts"
ALL_ERC1155 = "erc1155/all"
TOUCHING_ERC1155 = "erc1155/touching"
BY_ACCOUNT = frozenset({ACCOUNTS, TOUCHING_ERC1155})
"""Filters that keep what concerns watched accounts: each cohort has coverage of its own."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A kind of work with coverage of its own: `name` (logs, bodies, roots/<manager>), `filter`."""

    name: str
    filter: str


def hex_of(value: bytes) -> str:
    """Return lower-case 0x text."""
    return "0x" + value.hex()


def roots_pass(manager: Address) -> Pass:
    """Return the pass that reads the roots of one manager at the accounts' triggers."""
    return Pass(f"roots/{hex_of(manager)}", ACCOUNTS)


LOGS_ACCOUNTS = Pass("logs", ACCOUNTS)
BODIES = Pass("bodies", ACCOUNTS)
TOUCHING = Pass("logs", TOUCHING_ERC1155)


def account_passes(settings: ChainSettings) -> list[Pass]:
    """Return the passes that every cohort of accounts has."""
    return [LOGS_ACCOUNTS, BODIES, *(roots_pass(m) for m in settings.managers)]


def factory_passes(settings: ChainSettings) -> list[Pass]:
    """Return the discovery passes: one per factory, when accounts come from there."""
    if settings.accounts_mode != "factory":
        return []
    return [Pass("logs", f"factory/{hex_of(f)}") for f in settings.factories]


def erc1155_passes(settings: ChainSettings) -> list[Pass]:
    """Return the passes over token contracts, or over transfers that touch watched accounts."""
    if settings.erc1155_mode == "all":
        return [Pass("logs", ALL_ERC1155)]
    if settings.erc1155_mode == "touching":
        return [TOUCHING]
    return [Pass("logs", f"erc1155/{hex_of(c)}") for c in settings.erc1155]


def all_passes(settings: ChainSettings) -> list[Pass]:
    """Return every pass of cohort 0, discovery first."""
    return [*factory_passes(settings), *account_passes(settings), *erc1155_passes(settings)]
