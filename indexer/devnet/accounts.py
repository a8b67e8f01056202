"""A local chain that is ready, and what people do on it: accounts, operations, sessions, mints.

Nonces, code and balances are read from the chain each time, never remembered: a reorg or a restart
between two calls changes nothing for the caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import encode

from indexer.core.abi import keccak
from indexer.core.merkle import merkle_root, session_leaf
from indexer.core.types import Address, Hash32, Session
from indexer.devnet import addresses as at
from indexer.devnet.anvil import Anvil, AnvilOptions, running_anvil
from indexer.devnet.deploy import deploy
from indexer.devnet.operations import (
    Call,
    CallForm,
    Key,
    UserOp,
    account_call_data,
    call_data,
    handle_aggregated_ops_data,
    handle_ops_data,
    mint_call,
    set_root_call,
)
from indexer.devnet.rpc import Rpc, hexed
from indexer.devnet.tools import Toolchain

_FUNDED_WEI: Final = 10**19
_BASE_GAS: Final = 1_000_000
_OP_GAS: Final = 2_500_000


@dataclass(frozen=True, slots=True)
class SmartAccount:
    """A SmartAccount 2.0.0 by its owner and index, deployed or not."""

    owner: Key
    index: int
    address: Address
    init_code: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction of an unlocked address."""

    to: Address
    data: bytes = b""
    sender: Address = at.BUNDLER
    value_wei: int = 0
    gas: int = 3_000_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction. `logs` are the node's JSON objects."""

    transaction_hash: Hash32
    block_number: int
    block_hash: Hash32
    succeeded: bool
    logs: tuple[dict[str, Any], ...]

    def logs_of(self, address: Address) -> list[dict[str, Any]]:
        """Return the logs that one contract emitted, in order."""
        return [log for log in self.logs if log["address"] == hexed(address)]


def root_of_set(sessions: Sequence[Session]) -> Hash32:
    """Return the root of an ordered session set."""
    return merkle_root([session_leaf(session) for session in sessions])


class Devnet:
    """A node with every contract in place. Make one with `running_devnet`."""

    def __init__(self, anvil: Anvil, tools: Toolchain) -> None:
        self.anvil = anvil
        self.rpc: Rpc = anvil.rpc
        self.url = anvil.url
        self._proxy_code = tools.contracts["Proxy"].creation_code

    @property
    def proxy_creation_code(self) -> bytes:
        """What creates an account of implementation 2.0.0, its argument included."""
        return self._proxy_code + encode(["uint256"], [int.from_bytes(at.IMPLEMENTATION)])

    # Accounts.

    def account(self, owner: Key | str, index: int = 0) -> SmartAccount:
        """Return the account of an owner (a key, or the name of one), computed offline."""
        key = Key.named(owner) if isinstance(owner, str) else owner
        setup = call_data("initForSmartAccount(address)", key.address)
        init = call_data("init(address,address,bytes)", at.FALLBACK_HANDLER, at.ECDSA_MODULE, setup)
        salt = keccak(keccak(init) + index.to_bytes(32))
        address = keccak(b"\xff" + at.FACTORY + salt + keccak(self.proxy_creation_code))[12:]
        deploy_call = call_data(
            "deployCounterFactualAccount(address,bytes,uint256)", at.ECDSA_MODULE, setup, index
        )
        return SmartAccount(key, index, Address(address), at.FACTORY + deploy_call)

    async def is_deployed(self, account: SmartAccount) -> bool:
        """Say whether the account has code."""
        return bool(await self.rpc.code(account.address))

    async def is_module_enabled(self, account: Address, module: Address) -> bool:
        """Ask the account whether a module is enabled; False where the account has no code."""
        answer = await self.rpc.eth_call(account, call_data("isModuleEnabled(address)", module))
        return bool(int.from_bytes(answer))

    # Operations.

    async def op(
        self,
        account: SmartAccount,
        calls: Sequence[Call],
        *,
        form: CallForm | None = None,
        nonce_key: int = 0,
    ) -> UserOp:
        """Return an unsigned operation that fits the chain as it is now.

        Carries initCode if the account has no code yet, and gives the account ether for gas.
        `nonce_key` (192 bits) lets one bundle hold several operations of an account.
        """
        nonce_call = call_data("getNonce(address,uint192)", account.address, nonce_key)
        sender = hexed(account.address)
        code, balance, nonce = await self.rpc.batch(
            [
                ("eth_getCode", [sender, "latest"]),
                ("eth_getBalance", [sender, "latest"]),
                ("eth_call", [{"to": hexed(at.ENTRY_POINT), "data": hexed(nonce_call)}, "latest"]),
            ]
        )
        if int(balance, 16) < _FUNDED_WEI // 2:
            await self.rpc.set_balance(account.address, _FUNDED_WEI)
        return UserOp(
            sender=account.address,
            nonce=int(nonce, 16),
            init_code=account.init_code if code == "0x" else b"",
            call_data=account_call_data(calls, form),
        )

    async def owner_op(
        self,
        account: SmartAccount,
        calls: Sequence[Call],
        *,
        form: CallForm | None = None,
        nonce_key: int = 0,
    ) -> UserOp:
        """Return an operation signed by the account's owner."""
        op = await self.op(account, calls, form=form, nonce_key=nonce_key)
        return op.signed_by_owner(account.owner)

    # Transactions.

    def bundle(self, ops: Sequence[UserOp], *, sender: Address = at.BUNDLER) -> Transaction:
        """Return handleOps by a plain address, as most bundlers send it."""
        gas = _BASE_GAS + _OP_GAS * len(ops)
        return Transaction(at.ENTRY_POINT, handle_ops_data(ops), sender=sender, gas=gas)

    def aggregated_bundle(self, ops: Sequence[UserOp], **group: Address) -> Transaction:
        """Return handleAggregatedOps with one group; `aggregator` is the zero address if absent."""
        gas = _BASE_GAS + _OP_GAS * len(ops)
        return Transaction(at.ENTRY_POINT, handle_aggregated_ops_data(ops, **group), gas=gas)

    def wrapped_bundles(self, bundles: Sequence[Sequence[UserOp]]) -> Transaction:
        """Return one transaction to a bundler contract that calls handleOps once per bundle."""
        calls = [handle_ops_data(ops) for ops in bundles]
        data = call_data("relay(address,bytes[])", at.ENTRY_POINT, calls)
        return Transaction(
            at.BUNDLER_WRAPPER, data, gas=_BASE_GAS + _OP_GAS * sum(map(len, bundles))
        )

    def opaque_bundle(self, ops: Sequence[UserOp]) -> tuple[Transaction, Transaction]:
        """Return two transactions: one stores handleOps in a contract, one runs it from there."""
        stored = handle_ops_data(ops)
        store = call_data("store(address,bytes)", at.ENTRY_POINT, stored)
        gas = _BASE_GAS + _OP_GAS * len(ops)
        return (
            Transaction(at.OPAQUE_FORWARDER, store, gas=_BASE_GAS + 900 * len(stored)),
            Transaction(at.OPAQUE_FORWARDER, call_data("run()"), gas=gas),
        )

    async def send(self, transaction: Transaction) -> Receipt:
        """Send a transaction and return its receipt once it is in a block.

        A reverted transaction is no error: `succeeded` is False. With automine off somebody else
        must mine.
        """
        return await self._receipt(await self._post(transaction))

    async def send_in_one_block(self, transactions: Sequence[Transaction]) -> list[Receipt]:
        """Mine these transactions together, in this order."""
        async with self.rpc.without_automine():
            hashes = [await self._post(transaction) for transaction in transactions]
            await self.rpc.mine()
        return [await self._receipt(found) for found in hashes]

    async def submit(
        self, account: SmartAccount, calls: Sequence[Call], *, form: CallForm | None = None
    ) -> Receipt:
        """Let the owner do these calls in one operation of one bundle."""
        return await self.send(self.bundle([await self.owner_op(account, calls, form=form)]))

    async def _post(self, transaction: Transaction) -> Hash32:
        return await self.rpc.send(
            transaction.sender,
            transaction.to,
            transaction.data,
            value=transaction.value_wei,
            gas=transaction.gas,
        )

    async def _receipt(self, transaction_hash: Hash32) -> Receipt:
        found = await self.rpc.receipt(transaction_hash)
        return Receipt(
            transaction_hash=transaction_hash,
            block_number=int(found["blockNumber"], 16),
            block_hash=Hash32(bytes.fromhex(found["blockHash"][2:])),
            succeeded=found["status"] == "0x1",
            logs=tuple(found["logs"]),
        )

    # Sessions and tokens.

    async def create(self, account: SmartAccount) -> Receipt:
        """Deploy an account by the factory, without an operation. The account must not exist."""
        data = account.init_code[20:]
        return await self.send(Transaction(at.FACTORY, data, sender=at.STRANGER))

    async def enable_module(self, account: SmartAccount, module: Address) -> Receipt | None:
        """Enable a module by an operation of the owner; None if it is enabled already."""
        calls = await self.enable_calls(account, module)
        return await self.submit(account, calls) if calls else None

    async def enable_calls(self, account: SmartAccount, module: Address) -> list[Call]:
        """Return the call that enables a module, or nothing if it is enabled already."""
        if await self.is_module_enabled(account.address, module):
            return []
        return [Call(account.address, call_data("enableModule(address)", module))]

    async def register(
        self, account: SmartAccount, sessions: Sequence[Session], *, manager: Address = at.MANAGER
    ) -> Receipt:
        """Register a session set as the vendor's client does: one operation, new account or old.

        The operation enables the manager where it is not yet, and sets the root.
        """
        enable = await self.enable_calls(account, manager)
        return await self.submit(account, [*enable, set_root_call(root_of_set(sessions), manager)])

    async def session_op(
        self,
        account: SmartAccount,
        key: Key,
        sessions: Sequence[Session],
        index: int,
        call: Call,
        *,
        manager: Address = at.MANAGER,
        nonce_key: int = 0,
    ) -> UserOp:
        """Return an operation of one call, signed with a session key."""
        op = await self.op(account, [call], nonce_key=nonce_key)
        return op.signed_by_session(key, sessions, index, manager=manager)

    async def mint_with_session(
        self,
        account: SmartAccount,
        key: Key,
        sessions: Sequence[Session],
        index: int,
        *,
        to: Address,
        token_id: int,
        amount: int = 1,
        manager: Address = at.MANAGER,
    ) -> Receipt:
        """Mint the seed's token with a session key: the seed document's story.

        `succeeded` is False where the EntryPoint refuses the operation (wrong token, wrong
        recipient, a session that the root does not hold): then nothing is logged.
        """
        call = mint_call(to, token_id, amount)
        op = await self.session_op(account, key, sessions, index, call, manager=manager)
        return await self.send(self.bundle([op]))

    async def root_of(
        self, manager: Address, account: Address, block: int | str = "latest"
    ) -> Hash32:
        """Return the root an account has in a manager after a block, by the manager's getter."""
        data = call_data("getSessionKeys(address)", account)
        return Hash32(await self.rpc.eth_call(manager, data, block))

    async def balance_of(
        self, token: Address, owner: Address, token_id: int, block: int | str = "latest"
    ) -> int:
        """Return an ERC-1155 balance after a block."""
        data = call_data("balanceOf(address,uint256)", owner, token_id)
        return int.from_bytes(await self.rpc.eth_call(token, data, block))


@asynccontextmanager
async def running_devnet(
    tools: Toolchain, options: AnvilOptions | None = None
) -> AsyncIterator[Devnet]:
    """Start a node, put every contract in its place, and stop it at the end: about 0.1 s."""
    async with running_anvil(tools.anvil, options) as anvil:
        await deploy(anvil.rpc, tools)
        yield Devnet(anvil, tools)
