"""What happens on a simulated chain, drawn from a seed, and what is then true of it.

A story keeps the rules of the real contracts: the root of a clean account changes only in a block
with a log that names the account; that of a tainted one may change silently. The truth is read off
the winning branch's own writes, with none of the code under test but the places of the slots.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace

from eth_abi import encode
from eth_hash.auto import keccak

from indexer.chain.slots import SENTINEL_MODULE, implementation_slot, module_slot
from indexer.core import topics as topic
from indexer.core.merkle import root_slot
from indexer.core.types import ZERO_ADDRESS, ZERO_HASH, Address, Hash32
from indexer.core.user_operations import (
    EXECUTE_NCC,
    HANDLE_OPS,
    SET_MERKLE_ROOT,
    UserOperation,
    user_op_hash,
)
from indexer.devnet import addresses as at
from tests.sim.blocks import SimBlock, SimLog, SimTransaction, Slot
from tests.sim.node import SimNode

ACCOUNTS = tuple(Address(keccak(f"account {i}".encode())[12:]) for i in range(6))
MANAGERS = (at.MANAGER, at.EVENT_MANAGER)
RootChange = tuple[Address, Address, int, Hash32, Hash32, Hash32]
"""Manager, account, block number, block hash, root, previous root."""

_OP_TYPE = "(address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes)"
_CODE = {
    at.MANAGER: bytes.fromhex("7cb64759b13152ee"),  # the selectors of V1's two functions
    at.EVENT_MANAGER: topic.MERKLE_ROOT_UPDATED,
}


def word(value: int | bytes) -> Hash32:
    """Return a number or an address as 32 bytes."""
    return Hash32(value.to_bytes(32) if isinstance(value, int) else value.rjust(32, b"\0"))


@dataclass(frozen=True, slots=True)
class Content:
    """What one block holds, so that another branch can hold it again.

    It fits only onto a branch where the accounts of `tainted_before` exist and are tainted, or
    clean, as they were, and those it creates do not exist.
    """

    logs: tuple[SimLog, ...] = ()
    transactions: tuple[SimTransaction, ...] = ()
    slots: Mapping[Slot, Hash32] = field(default_factory=dict)
    code: Mapping[Address, bytes] = field(default_factory=dict)
    tainted_before: Mapping[Address, bool] = field(default_factory=dict)
    moved: tuple[tuple[Address, Address, int, int], ...] = ()
    """ERC-1155: from, to, token id, amount."""


class Story:
    """Writes blocks onto a node's winning branch; knows every root and balance of it."""

    def __init__(
        self,
        node: SimNode,
        source: random.Random,
        *,
        finality_depth: int,
        silent: bool = False,
        taints: bool = True,
    ) -> None:
        self._node, self._random, self._finality_depth = node, source, finality_depth
        self._silent, self._taints = silent, taints
        self._contents: dict[bytes, Content] = {}
        self._highest = 0
        self._mine(Content(code=_CODE))

    # --- writing ---------------------------------------------------------------------------------

    def mine(self) -> None:
        """Add a block, one in four empty."""
        empty = self._random.random() < 0.25
        self._mine(Content() if empty else self._draft())

    def _draft(self) -> Content:
        return _Draft(
            self._node.tip, self._random, silent=self._silent, taints=self._taints
        ).content()

    def mine_empty(self, count: int) -> None:
        """Add blocks without anything in them."""
        for _ in range(count):
            self._mine(Content())

    def fork(self, depth: int) -> int:
        """Drop so many blocks, never one that can be final for anybody; return how many."""
        floor = max(self._highest - self._finality_depth, 1)
        depth = min(depth, self._node.tip.number - floor)
        if depth <= 0:
            return 0
        lost = [self._contents[block.hash] for block in self._node.fork(depth)]
        if self._random.random() < 0.5:
            self._again(lost)
        return depth

    def catch_up(self) -> None:
        """Mine until the branch is as long as the longest ever was: finality is the same again."""
        while self._node.tip.number < self._highest:
            self.mine()

    def _again(self, lost: list[Content]) -> None:
        """Mine what was lost once more, as pools do: later, in part, in another order."""
        if self._random.random() < 0.5:
            self._mine(Content())
        if self._random.random() < 0.3:
            self._random.shuffle(lost)
        for content in lost:
            if self._random.random() < 0.8 and self._fits(content):
                self._mine(content)

    def _fits(self, content: Content) -> bool:
        tip = self._node.tip
        return all(
            exists(tip, account) and is_tainted(tip, account) == tainted
            for account, tainted in content.tainted_before.items()
        ) and not any(exists(tip, account) for account in content.code)

    def _mine(self, content: Content) -> None:
        block = self._node.mine(
            1,
            content.logs,
            transactions=content.transactions,
            slots=content.slots,
            code=content.code,
        )
        self._contents[block.hash] = content
        self._highest = max(self._highest, block.number)

    # --- the truth -------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[SimBlock]:
        for number in range(1, self._node.tip.number + 1):
            yield self._node.block(number)

    def root_changes(self) -> set[RootChange]:
        """Return every change of a root between the ends of two blocks of the winning branch."""
        owner = {root_slot(account): account for account in ACCOUNTS}
        now: dict[Slot, Hash32] = {}
        changes: set[RootChange] = set()
        for block in self._blocks():
            for (manager, slot), root in block.slots.items():
                before = now.get((manager, slot), ZERO_HASH)
                if manager in MANAGERS and root != before:
                    changes.add((manager, owner[slot], block.number, block.hash, root, before))
                    now[manager, slot] = root
        return changes

    def balances(self) -> dict[tuple[Address, int], int]:
        """Return every ERC-1155 balance other than 0 by (owner, token id)."""
        found: Counter[tuple[Address, int]] = Counter()
        for block in self._blocks():
            for giver, taker, token_id, amount in self._contents[block.hash].moved:
                found[giver, token_id] -= amount
                found[taker, token_id] += amount
        return {key: n for key, n in found.items() if n and key[0] != ZERO_ADDRESS}


def exists(block: SimBlock, account: Address) -> bool:
    """Say whether the account has code after this block."""
    return block.code_at(account) != b""


def is_tainted(block: SimBlock, account: Address) -> bool:
    """Say whether the account runs foreign code after this block."""
    return block.storage((account, implementation_slot(account))) != word(at.IMPLEMENTATION)


class _Draft:
    """One block in the making, on top of `parent`."""

    def __init__(
        self, parent: SimBlock, source: random.Random, *, silent: bool, taints: bool
    ) -> None:
        self._parent, self._random = parent, source
        self._silent, self._taints = silent, taints
        self._there = [account for account in ACCOUNTS if exists(parent, account)]
        self._logs: list[SimLog] = []
        self._transactions: list[SimTransaction] = []
        self._slots: dict[Slot, Hash32] = {}
        self._code: dict[Address, bytes] = {}
        self._tainted_before: dict[Address, bool] = {}
        self._moved: list[tuple[Address, Address, int, int]] = []

    def content(self) -> Content:
        acts = [self._bundle, self._bundle, self._bundle, self._module, self._event, self._tokens]
        acts += [self._modules, *([self._taint] if self._taints else []), self._noise]
        for _ in range(self._random.randint(1, 3)):
            if len(self._there) < 2 or self._random.random() < 0.15:
                self._create()
            else:
                self._random.choice(acts)()
        for account in self._there if self._silent else ():
            if is_tainted(self._parent, account) and self._random.random() < 0.3:
                self._set(self._random.choice(MANAGERS), account)
        return Content(
            tuple(self._logs),
            tuple(self._transactions),
            self._slots,
            self._code,
            self._tainted_before,
            tuple(self._moved),
        )

    # --- parts -----------------------------------------------------------------------------------

    def _account(self) -> Address:
        return self._named(self._random.choice(self._there))

    def _named(self, account: Address) -> Address:
        self._tainted_before[account] = is_tainted(self._parent, account)
        return account

    def _root(self, manager: Address, account: Address) -> Hash32:
        """Return a root to set: for a clean account now and then none, or the one it has.

        A tainted account never goes back to a root it had: between two reads that leaves no trace.
        """
        if not is_tainted(self._parent, account):
            draw = self._random.random()
            if draw < 0.15:
                return ZERO_HASH
            if draw < 0.25:
                return self._parent.storage((manager, root_slot(account)))
        return Hash32(self._random.randbytes(32))

    def _set(self, manager: Address, account: Address) -> Hash32:
        root = self._root(manager, self._named(account))
        self._slots[manager, root_slot(account)] = root
        return root

    def _transaction(self, to: Address, data: bytes, *logs: SimLog) -> None:
        index = len(self._transactions)
        self._transactions.append(SimTransaction(to, data))
        self._logs += [replace(log, transaction=index) for log in logs]

    def _transfer(self) -> SimLog:
        giver, taker = self._random.choices([*ACCOUNTS, at.STRANGER, ZERO_ADDRESS], k=2)
        ids = self._random.sample(range(4), self._random.choice([1, 1, 2, 3]))
        amounts = [self._random.randint(1, 1000) for _ in ids]
        self._moved += [(giver, taker, *pair) for pair in zip(ids, amounts, strict=True)]
        places = (word(at.BUNDLER), word(giver), word(taker))
        if len(ids) == 1:
            data = word(ids[0]) + word(amounts[0])
            return SimLog(at.SEED_TOKEN, (topic.TRANSFER_SINGLE, *places), data)
        data = encode(["uint256[]", "uint256[]"], [ids, amounts])
        return SimLog(at.SEED_TOKEN, (topic.TRANSFER_BATCH, *places), data)

    # --- acts ------------------------------------------------------------------------------------

    def _create(self) -> None:
        new = [a for a in ACCOUNTS if a not in self._there and a not in self._code]
        if not new:
            return
        account = self._random.choice(new)
        self._code[account] = b"\x60"
        self._slots[account, implementation_slot(account)] = word(at.IMPLEMENTATION)
        names = (topic.ACCOUNT_CREATION, word(account), word(at.ECDSA_MODULE), word(0))
        self._transaction(at.FACTORY, b"", SimLog(at.FACTORY, names))

    def _bundle(self) -> None:
        """Hand in one to three user operations; one bundle in five through a wrapper."""
        operations: list[UserOperation] = []
        logs = [SimLog(at.ENTRY_POINT, (topic.BEFORE_EXECUTION,))]
        for _ in range(self._random.randint(1, 3)):
            sender, success = self._account(), self._random.random() < 0.8
            root = self._root(at.MANAGER, sender)
            call = encode(["address", "uint256", "bytes"], [at.MANAGER, 0, SET_MERKLE_ROOT + root])
            operation = UserOperation(
                sender,
                self._random.getrandbits(64),
                b"",
                EXECUTE_NCC + call if self._random.random() < 0.8 else b"",
                *(1, 2, 3, 4, 5),
                b"",
                encode(["bytes", "address"], [bytes(65), at.ECDSA_MODULE]),
            )
            if success and operation.call_data:
                self._slots[at.MANAGER, root_slot(sender)] = root
            if success and self._random.random() < 0.5:
                logs.append(self._transfer())
            operations.append(operation)
            found = user_op_hash(operation, at.ENTRY_POINT, 80001)
            names = (topic.USER_OPERATION_EVENT, found, word(sender), word(0))
            data = word(operation.nonce) + word(success) + word(21) + word(7)
            logs.append(SimLog(at.ENTRY_POINT, names, data))
        arguments = [[astuple(operation) for operation in operations], at.BUNDLER]
        data = HANDLE_OPS + encode([f"{_OP_TYPE}[]", "address"], arguments)
        wrapped = self._random.random() < 0.2
        self._transaction(at.BUNDLER_WRAPPER if wrapped else at.ENTRY_POINT, data, *logs)

    def _module(self) -> None:
        """Let a module act for an account; what it did shows in state alone."""
        account = self._account()
        if self._random.random() < 0.7:
            self._set(at.MANAGER, account)
        names = (topic.EXECUTION_FROM_MODULE_SUCCESS, word(at.PUPPET_MODULE))
        self._transaction(at.PUPPET_MODULE, b"", SimLog(account, names))

    def _event(self) -> None:
        """Set roots in the manager that logs it; the last of a block stays."""
        account = self._account()
        for _ in range(self._random.choice([1, 1, 2])):
            data = word(account) + self._set(at.EVENT_MANAGER, account)
            self._transaction(
                account,
                b"",
                SimLog(at.EVENT_MANAGER, (topic.MERKLE_ROOT_UPDATED,), data),
                SimLog(account, (topic.EXECUTION_FROM_MODULE_SUCCESS, word(at.PUPPET_MODULE))),
            )

    def _modules(self) -> None:
        """Enable or disable a manager as module."""
        account, manager = self._account(), self._random.choice(MANAGERS)
        enable = self._random.random() < 0.6
        self._slots[account, module_slot(manager)] = word(SENTINEL_MODULE) if enable else ZERO_HASH
        name = topic.ENABLED_MODULE if enable else topic.DISABLED_MODULE
        self._transaction(account, b"", SimLog(account, (name,), word(manager)))

    def _taint(self) -> None:
        """Give an account foreign code, or its own again."""
        account = self._account()
        old, new = at.IMPLEMENTATION, at.EVIL_IMPLEMENTATION
        if is_tainted(self._parent, account):
            old, new = new, old
        elif self._random.random() < 0.5:
            return
        self._slots[account, implementation_slot(account)] = word(new)
        names = (topic.IMPLEMENTATION_UPDATED, word(old), word(new))
        self._transaction(account, b"", SimLog(account, names))

    def _tokens(self) -> None:
        self._transaction(at.SEED_TOKEN, b"", *(self._transfer() for _ in range(2)))

    def _noise(self) -> None:
        """Log what cannot be decoded, an approval, money that came in."""
        account = self._account()
        places = (word(account), word(at.STRANGER))
        self._transaction(
            at.SEED_TOKEN,
            b"",
            SimLog(at.SEED_TOKEN, (topic.TRANSFER_SINGLE, word(0), *places), b"cut"),
            SimLog(at.SEED_TOKEN, (topic.APPROVAL_FOR_ALL, *places), word(1)),
            SimLog(account, (topic.SMART_ACCOUNT_RECEIVED_NATIVE_TOKEN, *places)),
        )
