"""Which passes a configuration asks for."""

from dataclasses import replace

from indexer.core.passes import (
    ALL_ERC1155,
    BODIES,
    LOGS_ACCOUNTS,
    TOUCHING,
    Pass,
    account_passes,
    all_passes,
    erc1155_passes,
    factory_passes,
    hex_of,
    roots_pass,
)
from tests.core.make_logs import FACTORY, MANAGER, TOKEN, address
from tests.sim.settings import chain_settings

OTHER = address("other manager")
SETTINGS = replace(
    chain_settings(),
    factories=(FACTORY,),
    managers=(MANAGER, OTHER),
    erc1155_mode="list",
    erc1155=(TOKEN,),
)


def test_passes_carry_addresses_as_lower_case_text():
    """The database and people see 0x text; its case never makes two of one."""
    assert hex_of(bytes([0xAB, 0xCD])) == "0xabcd"
    assert roots_pass(MANAGER) == Pass("roots/0x" + MANAGER.hex(), "accounts")


def test_accounts_have_logs_bodies_and_roots_of_each_manager():
    """In the order in which one waits for the other."""
    assert account_passes(SETTINGS) == [
        LOGS_ACCOUNTS,
        BODIES,
        roots_pass(MANAGER),
        roots_pass(OTHER),
    ]


def test_discovery_is_only_for_accounts_that_come_from_factories():
    """Listed and stored accounts wait for nothing."""
    assert factory_passes(SETTINGS) == [Pass("logs", "factory/" + hex_of(FACTORY))]
    assert factory_passes(replace(SETTINGS, accounts_mode="list")) == []
    assert factory_passes(replace(SETTINGS, accounts_mode="stored")) == []


def test_tokens_are_one_pass_each_or_one_for_all():
    """A token that is added later owes its own history and nobody else's."""
    assert erc1155_passes(SETTINGS) == [Pass("logs", "erc1155/" + hex_of(TOKEN))]
    assert erc1155_passes(replace(SETTINGS, erc1155_mode="all")) == [Pass("logs", ALL_ERC1155)]
    assert erc1155_passes(replace(SETTINGS, erc1155_mode="touching")) == [TOUCHING]


def test_every_pass_is_listed_once_discovery_first():
    """What is owed as a whole is what its parts owe."""
    passes = all_passes(SETTINGS)

    assert passes == [
        *factory_passes(SETTINGS),
        *account_passes(SETTINGS),
        *erc1155_passes(SETTINGS),
    ]
    assert len(set(passes)) == len(passes)
