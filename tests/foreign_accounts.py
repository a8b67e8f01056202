"""Accounts that another factory makes, whose fallback handler is the manager."""

from __future__ import annotations

from eth_hash.auto import keccak

from indexer.core.types import Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Receipt, Transaction
from indexer.devnet.operations import call_data
from tests.routes import Stage


async def make_foreign(s: Stage, salt: int, root: Hash32) -> Receipt:
    """Let the other factory make the account of a salt, with the manager as its handler."""
    data = call_data(
        "make(bytes,bytes32,address,bytes32,address)",
        *(s.devnet.proxy_creation_code, salt.to_bytes(32), at.MANAGER, root, at.PUPPET_MODULE),
    )
    return await s.devnet.send(Transaction(at.CUSTOM_FACTORY, data, sender=at.STRANGER))


def foreign_address(s: Stage, salt: int) -> Address:
    """Return the account that the other factory makes of a salt."""
    code = keccak(s.devnet.proxy_creation_code)
    return Address(keccak(b"\xff" + at.CUSTOM_FACTORY + salt.to_bytes(32) + code)[12:])
