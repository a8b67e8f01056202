"""Whether a session can be used after a block: each condition with its reason.

Usable means that the EntryPoint would let an operation of this session through, if the validation
module takes it, and that nobody but the account decides over its root.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from indexer.core.merkle import implied_root
from indexer.core.other_tree import OtherTree
from indexer.core.root_story import arranged
from indexer.core.session_layout import Layout, session_key
from indexer.core.session_proof import VALIDATE_SESSION_KEY, SessionProof
from indexer.core.types import ZERO_HASH, Address, BlockHeader, Hash32

POINTS = (
    "account",
    "fallback_handler",
    "manager",
    "module_enabled",
    "root",
    "member",
    "proof",
    "window",
    "validation_module",
    "session_key",
    "contract",
)


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a node has after one block. Codes are empty where no contract stands.

    `module_word` is the manager's slot in the account's list of modules. `refusal` is why the
    manager's validateSessionKey refuses the session, None if it takes it or was not asked.
    `other` is what was found for a root that is not the set's, None if nothing was looked for;
    if it proves the session, that proof is the one the manager was asked with.
    """

    block: BlockHeader
    account_code: bytes
    implementation: Address
    fallback_handler: Address
    module_word: Hash32
    root: Hash32
    manager_code: bytes
    validation_module_code: bytes
    refusal: str | None
    other: OtherTree | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One condition, by a name of POINTS. `holds` None: it cannot be known."""

    name: str
    holds: bool | None
    reason: str


def can_be_asked(manager_code: bytes) -> bool:
    """Say whether a manager has validateSessionKey."""
    return VALIDATE_SESSION_KEY in manager_code


def is_usable(points: Sequence[Point]) -> bool:
    """Say whether all holds; a session key in a layout that is not known hinders nothing."""
    return all(
        point.holds or (point.holds is None and point.name == "session_key") for point in points
    )


def judge(
    proved: SessionProof,
    state: SessionState,
    *,
    account: Address,
    implementations: Collection[Address],
    managers: Collection[Address],
    layouts: Mapping[Address, Layout],
) -> tuple[Point, ...]:
    """Return every point in the order of POINTS.

    `proved` was made from the set that is taken for the account's; `managers` are those watched,
    `layouts` those of session_layout.session_key. Where another tree stands and proves the
    session, root, proof and contract are judged by that tree.
    """
    return tuple(
        Point(name, holds, reason)
        for name, (holds, reason) in zip(
            POINTS,
            [
                *_of_account(state, implementations, managers),
                *_of_root(proved, state, account),
                _window(proved, state.block.timestamp),
                *_of_modules(proved, state, layouts),
            ],
            strict=True,
        )
    )


_Answer = tuple[bool | None, str]


def _of_account(
    state: SessionState, implementations: Collection[Address], managers: Collection[Address]
) -> Iterator[_Answer]:
    if not state.account_code:
        yield False, "is not deployed"
    elif state.implementation in implementations:
        yield True, f"runs implementation {_hex(state.implementation)}"
    else:
        yield False, f"runs {_hex(state.implementation)}, no implementation that is configured"
    if state.fallback_handler in managers:
        yield (
            False,
            f"is the manager {_hex(state.fallback_handler)}: anybody can set the root by a call",
        )
    else:
        yield True, "is not a watched manager"
    has_code = bool(state.manager_code)
    yield has_code, f"has {len(state.manager_code)} bytes of code" if has_code else "has no code"
    enabled = any(state.module_word)
    yield enabled, f"the manager is {'' if enabled else 'not '}enabled as a module of the account"


def _of_root(proved: SessionProof, state: SessionState, account: Address) -> Iterator[_Answer]:
    yield _root(proved, state, account)
    if proved.index is None:
        yield False, "an inner node of the tree that poses as a session; its proof means nothing"
    else:
        yield True, f"is session {proved.index} of the set"
    if implied_root(proved.leaf, proved.proof) == state.root:
        yield True, "leads to the root in state"
    elif state.other is not None and state.other.proved is not None:
        yield True, "that of the tree in state leads to its root; the set's own does not"
    else:
        yield False, "does not lead to the root in state"


def _root(proved: SessionProof, state: SessionState, account: Address) -> _Answer:
    if state.root == proved.root:
        return True, "in state it is that of the set"
    if state.root == ZERO_HASH:
        return False, f"the account has none; the set's is {_hex(proved.root)}"
    differs = f"in state it is {_hex(state.root)}, the set's is {_hex(proved.root)}"
    if state.other is None:
        return False, differs
    stands = told(state.other)
    if stands is None:
        return False, f"{differs}; `sessionwatch explain {_hex(account)}` tells what stands there"
    return state.other.proved is not None, f"{differs}; {stands}"


def told(other: OtherTree) -> str | None:
    """Say which tree stands and whether it proves the session; None if nobody knows the tree."""
    if other.arrangement is None:
        return None
    proves = "and it proves" if other.proved is not None else "which lacks"
    return f"the root that stands is that of {arranged(other.arrangement)}, {proves} this session"


def _window(proved: SessionProof, block_time: int) -> _Answer:
    session = proved.session
    if session.valid_after > block_time:
        return False, f"begins {_seconds(session.valid_after - block_time)} after this block's time"
    if not session.valid_until:
        return True, "has no end"
    left = session.valid_until - block_time
    if left < 0:
        return False, f"ended {_seconds(-left)} before this block's time"
    return True, f"ends {_seconds(left)} after this block's time"


def _of_modules(
    proved: SessionProof, state: SessionState, layouts: Mapping[Address, Layout]
) -> Iterator[_Answer]:
    module = proved.session.session_validation_module
    has_code = bool(state.validation_module_code)
    yield has_code, f"{_hex(module)} has {'' if has_code else 'no '}code"
    key = session_key(module, proved.session.session_key_data, layouts)
    yield (None, "the module's layout is not known") if key is None else (True, _hex(key))
    if not can_be_asked(state.manager_code):
        yield None, "has no validateSessionKey to ask"
    elif state.refusal is None:
        yield True, "validateSessionKey takes it (it looks at the proof alone)"
    else:
        yield False, f"validateSessionKey: {state.refusal}"


def _seconds(count: int) -> str:
    """Write a span of time; the contract counts in seconds."""
    days, rest = divmod(count, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    said = [f"{number} {unit}" for number, unit in parts if number][:2]
    return " ".join(said) or "0 s"


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
