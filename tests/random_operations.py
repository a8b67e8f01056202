"""What accounts do at random: every route to a root, and what looks so, one transaction at a time.

An operation is a generator of transactions. It is asked for its next one only when that is about
to be sent, and between two of them other accounts act and blocks end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from eth_abi.packed import encode_packed
from eth_hash.auto import keccak

from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, SmartAccount, Transaction, root_of_set
from indexer.devnet.operations import (
    Call,
    CallForm,
    Key,
    UserOp,
    account_call_data,
    call_data,
    mint_call,
    open_session,
    seed_session,
    set_root_call,
)

MANAGERS = (at.MANAGER, at.MANAGER_AUGUST, at.EVENT_MANAGER)
MODULES = (at.PUPPET_MODULE, at.MANAGER, at.EVENT_MANAGER)
"""What every account enables with its first operation."""
TOKEN_IDS = range(1, 5)
SILENT_SHARE = 3
"""One of so many accounts may be moved without a log."""

Transactions = Iterator[Transaction]


@dataclass(slots=True)
class Actor:
    """An account and what it is to do.

    `silent`: it may be moved without a log, and no root of it ever comes back, because nothing
    but a trace of every block shows one that came back between two blocks with logs.
    """

    account: SmartAccount
    key: Key
    silent: bool
    pool: Sequence[Hash32]
    deployed: bool = False
    left: int = 0
    now: Transactions = field(default_factory=lambda: iter(()))

    @property
    def address(self) -> Address:
        return self.account.address


class Acting:
    """Draws operations. The same seed draws the same, as long as the chain answers the same."""

    def __init__(self, devnet: Devnet, actors: Sequence[Actor], chance: random.Random) -> None:
        self.devnet, self.actors, self.chance = devnet, actors, chance
        self._count = 0

    def next_of(self, actor: Actor) -> Transaction | None:
        """Return the actor's next transaction; None when it has done all it is to do."""
        while (found := next(actor.now, None)) is None and actor.left > 0:
            actor.left -= 1
            actor.now = self.draw(actor)
        return found

    def draw(self, actor: Actor) -> Transactions:
        """Begin an operation."""
        if not actor.deployed:
            return self._first(actor)
        kinds = [*_KINDS, *(_SILENT_KINDS * 2 if actor.silent else ())]
        return self.chance.choice(kinds)(self, actor)

    # --- what operations are made of ------------------------------------------------------------

    def fresh(self) -> Hash32:
        """Return a root that never stood before."""
        self._count += 1
        return Hash32(keccak(f"root {self._count}".encode()))

    def root(self, actor: Actor) -> Hash32:
        """Return a root to set: one of few, none, or a new one."""
        if actor.silent:
            return self.fresh()
        return self.chance.choice([*actor.pool, ZERO_HASH, self.fresh()])

    def set_call(self, actor: Actor) -> Call:
        """Return a call that sets a root, mostly in the first manager."""
        managers = (at.MANAGER,) * 6 + (at.MANAGER_AUGUST, at.EVENT_MANAGER, at.MANAGER_THIRD)
        return set_root_call(self.root(actor), self.chance.choice(managers))

    def mint(self, actor: Actor) -> Call:
        """Return a call that mints a token, to the account or to somebody else."""
        to = self.chance.choice([actor.address, actor.key.address])
        return mint_call(to, self.chance.choice(TOKEN_IDS), self.chance.randint(0, 9))

    def other(self) -> Actor:
        """Return an account that is there."""
        return self.chance.choice([one for one in self.actors if one.deployed])

    def op(self, actor: Actor, calls: Sequence[Call], *, form: CallForm | None = None) -> UserOp:
        """Return an unsigned operation under a nonce of its own; the first one deploys."""
        init_code = b"" if actor.deployed else actor.account.init_code
        actor.deployed = True
        return UserOp(
            actor.address,
            self.chance.randrange(2**192) << 64,
            init_code,
            account_call_data(calls, form),
        )

    def signed(
        self, actor: Actor, calls: Sequence[Call], *, form: CallForm | None = None
    ) -> UserOp:
        """Return an operation signed by the owner."""
        return self.op(actor, calls, form=form).signed_by_owner(actor.account.owner)

    def bundled(self, *ops: UserOp) -> Transaction:
        return self.devnet.bundle(ops)

    def puppet(
        self, actor: Actor, to: Address, data: bytes, *, delegate: bool = False, gas: int = 0
    ) -> Transaction:
        """Return a stranger's transaction that makes the module move an account."""
        form = "exec(address,address,bytes,uint8,uint256)"
        return _by_stranger(
            at.PUPPET_MODULE, call_data(form, actor.address, to, data, int(delegate), gas)
        )

    # --- operations -----------------------------------------------------------------------------

    def _first(self, a: Actor) -> Transactions:
        enable = [Call(a.address, call_data("enableModule(address)", one)) for one in MODULES]
        yield self.bundled(self.signed(a, [*enable, self.set_call(a)]))

    def _single(self, a: Actor) -> Transactions:
        form: CallForm = self.chance.choice(["execute", "execute_ncC"])
        yield self.bundled(self.signed(a, [self.set_call(a)], form=form))

    def _batch(self, a: Actor) -> Transactions:
        form: CallForm = self.chance.choice(["executeBatch", "executeBatch_y6U"])
        calls = [self.set_call(a) for _ in range(self.chance.randint(1, 3))]
        calls += [self.mint(a)] * self.chance.randint(0, 1)
        yield self.bundled(self.signed(a, calls, form=form))

    def _two_in_a_bundle(self, a: Actor) -> Transactions:
        both = (a, self.chance.choice([a, self.other()]))
        yield self.bundled(*(self.signed(one, [self.set_call(one)]) for one in both))

    def _several_bundles(self, a: Actor) -> Transactions:
        cast = [a, *(self.other() for _ in range(self.chance.randint(0, 2)))]
        yield self.devnet.wrapped_bundles([[self.signed(c, [self.set_call(c)])] for c in cast])

    def _two_in_a_wrapper(self, a: Actor) -> Transactions:
        calls = ([self.set_call(a)], [self.mint(a)])
        yield self.devnet.wrapped_bundles([[self.signed(a, one) for one in calls]])

    def _from_storage(self, a: Actor) -> Transactions:
        yield from self.devnet.opaque_bundle([self.signed(a, [self.set_call(a)])])

    def _aggregated(self, a: Actor) -> Transactions:
        yield self.devnet.aggregated_bundle([self.signed(a, [self.set_call(a)])])

    def _module(self, a: Actor) -> Transactions:
        call = self.set_call(a)
        form = self.chance.choice(["execFour", "execReturnData", "exec"])
        if form == "exec":
            yield self.puppet(a, call.to, call.data)
        else:
            form += "(address,address,bytes,uint8)"
            yield _by_stranger(at.PUPPET_MODULE, call_data(form, a.address, call.to, call.data, 0))

    def _module_batch(self, a: Actor) -> Transactions:
        calls = [self.set_call(a) for _ in range(self.chance.randint(1, 3))]
        form = "execBatch(address,address[],bytes[],uint8[])"
        arguments = [c.to for c in calls], [c.data for c in calls], [0] * len(calls)
        yield _by_stranger(at.PUPPET_MODULE, call_data(form, a.address, *arguments))

    def _library(self, a: Actor) -> Transactions:
        set_it = call_data("set(address,bytes32)", self.chance.choice(MANAGERS), self.root(a))
        self._count += 1
        hidden = call_data("setHidden(uint256)", self._count)
        yield self.puppet(a, at.ROOT_LIBRARY, self.chance.choice([set_it, hidden]), delegate=True)

    def _multi_send(self, a: Actor) -> Transactions:
        packed = b"".join(
            encode_packed(
                ["uint8", "address", "uint256", "uint256", "bytes"],
                [0, c.to, 0, len(c.data), c.data],
            )
            for c in (self.set_call(a), self.set_call(a))
        )
        yield self.puppet(a, at.MULTI_SEND, call_data("multiSend(bytes)", packed), delegate=True)

    def _anothers_operation(self, a: Actor) -> Transactions:
        moved = self.other()
        inner = self.set_call(moved)
        data = self.puppet(moved, inner.to, inner.data).data
        yield self.bundled(self.signed(a, [Call(at.PUPPET_MODULE, data)]))

    def _in_validation(self, a: Actor) -> Transactions:
        call = self.set_call(a)
        plan = call_data("plan(address,address,bytes)", a.address, call.to, call.data)
        yield _by_stranger(at.PUPPET_MODULE, plan)
        calls = self.chance.choice([[], [_REFUSED], [self.set_call(a)]])
        yield self.bundled(self.op(a, calls).signed_for(at.PUPPET_MODULE, b""))

    def _own_fallback(self, a: Actor) -> Transactions:
        call, handler = self.set_call(a), self.chance.choice(MANAGERS)
        calls = [
            _set_handler(a, handler),
            Call(a.address, call.data),
            _set_handler(a, at.FALLBACK_HANDLER),
        ]
        yield self.bundled(self.signed(a, calls))

    def _by_session(self, a: Actor) -> Transactions:
        manager = self.chance.choice([at.MANAGER, at.EVENT_MANAGER])
        self._count += 1
        token_id = self.chance.choice(TOKEN_IDS)
        sessions = [
            seed_session(a.key.address, a.key.address, token_id, valid_after=self._count),
            open_session(a.key.address),
        ]
        yield self.bundled(self.signed(a, [set_root_call(root_of_set(sessions), manager)]))
        index, call = self.chance.choice(
            [(0, mint_call(a.key.address, token_id, 1)), (1, self.set_call(a))]
        )
        yield self.bundled(
            self.op(a, [call]).signed_by_session(a.key, sessions, index, manager=manager)
        )

    def _mints(self, a: Actor) -> Transactions:
        yield self.bundled(self.signed(a, [self.mint(a)] * self.chance.randint(1, 2)))
        ids = self.chance.choices(TOKEN_IDS, k=3)
        batch = "mintBatchTo(address,uint256[],uint256[])"
        yield _by_stranger(at.SEED_TOKEN, call_data(batch, a.address, ids, [1, 0, 2]))

    def _cleared(self, a: Actor) -> Transactions:
        yield self.bundled(self.signed(a, [set_root_call(self.fresh())]))
        if not a.silent:
            yield self.bundled(self.signed(a, [set_root_call(ZERO_HASH)]))

    def _set_twice(self, a: Actor) -> Transactions:
        call = self.set_call(a)
        for _ in range(2):
            yield self.bundled(self.signed(a, [call]))

    def _fails(self, a: Actor) -> Transactions:
        call = self.set_call(a)
        match self.chance.randrange(6):
            case 0:
                yield self.bundled(self.signed(a, [replace(call, value_wei=1)]))
            case 1:
                yield self.bundled(self.signed(a, [call, _REFUSED]))
            case 2:
                op = replace(self.op(a, [call]), call_gas_limit=3_000)
                yield self.bundled(op.signed_by_owner(a.account.owner))
            case 3:
                paid = at.OPEN_PAYMASTER + b"\x01"
                op = replace(self.op(a, [call]), paymaster_and_data=paid)
                yield self.bundled(op.signed_by_owner(a.account.owner))
            case 4:
                yield self.bundled(self.op(a, [call]).signed_by_owner(a.key))
            case _:
                good, other = self.signed(a, [call]), self.other()
                bad = replace(call, data=call.data[:-1])
                yield self.bundled(good, self.signed(other, [bad]))

    def _looks_like_it(self, a: Actor) -> Transactions:
        root = self.fresh()
        helper = Call(at.ROOT_HELPER, call_data("set(address,bytes32)", at.MANAGER, root))
        calls = [helper, set_root_call(root, at.AIRDROP), set_root_call(root, at.MANAGER_THIRD)]
        yield self.bundled(self.signed(a, [self.chance.choice(calls)]))
        yield _by_stranger(at.MANAGER, set_root_call(root).data)
        yield self.puppet(a, at.MANAGER, set_root_call(root).data, gas=3_000)
        yield self.puppet(a, at.MANAGER, set_root_call(root).data, delegate=True)

    # --- without a log --------------------------------------------------------------------------

    def _by_strangers(self, a: Actor) -> Transactions:
        for _ in range(self.chance.randint(1, 3)):
            yield _by_stranger(a.address, set_root_call(self.fresh()).data)

    def _handler(self, a: Actor) -> Transactions:
        yield self.bundled(self.signed(a, [_set_handler(a, self.chance.choice(MANAGERS))]))
        yield from self._by_strangers(a)
        if self.chance.random() < 0.5:
            yield self.bundled(self.signed(a, [_set_handler(a, at.FALLBACK_HANDLER)]))

    def _handler_by_slot(self, a: Actor) -> Transactions:
        handler = self.chance.choice([*MANAGERS, at.FALLBACK_HANDLER])
        place = at.FALLBACK_HANDLER_SLOT, bytes(12) + handler
        data = call_data("setSlot(bytes32,bytes32)", *place)
        yield self.puppet(a, at.ROOT_LIBRARY, data, delegate=True)
        yield from self._by_strangers(a)

    def _implementation(self, a: Actor) -> Transactions:
        swap = call_data("updateImplementation(address)", at.EVIL_IMPLEMENTATION)
        yield self.bundled(self.signed(a, [Call(a.address, swap)]))
        for _ in range(self.chance.randint(1, 2)):
            go = call_data("go(address,bytes32)", self.chance.choice(MANAGERS), self.fresh())
            yield _by_stranger(a.address, go)
        yield restored(a)


def restored(a: Actor) -> Transaction:
    """Return the transaction that puts the implementation back."""
    return _by_stranger(a.address, call_data("restore(address)", at.IMPLEMENTATION))


def _set_handler(a: Actor, handler: Address) -> Call:
    return Call(a.address, call_data("setFallbackHandler(address)", handler))


def _by_stranger(to: Address, data: bytes) -> Transaction:
    return Transaction(to, data, sender=at.STRANGER)


_REFUSED = Call(at.ROOT_HELPER, call_data("noSuchFunction()"))

Kind = Callable[[Acting, Actor], Transactions]

_KINDS: Sequence[Kind] = (
    Acting._single,
    Acting._batch,
    Acting._two_in_a_bundle,
    Acting._several_bundles,
    Acting._two_in_a_wrapper,
    Acting._from_storage,
    Acting._aggregated,
    Acting._module,
    Acting._module_batch,
    Acting._library,
    Acting._multi_send,
    Acting._anothers_operation,
    Acting._in_validation,
    Acting._own_fallback,
    Acting._by_session,
    Acting._mints,
    Acting._cleared,
    Acting._set_twice,
    Acting._fails,
    Acting._looks_like_it,
)
_SILENT_KINDS: Sequence[Kind] = (
    Acting._by_strangers,
    Acting._handler,
    Acting._handler_by_slot,
    Acting._implementation,
)
