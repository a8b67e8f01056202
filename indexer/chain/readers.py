"""Byte code that reads many words in one eth_call, and what a node turned out to accept of it.

Two programs, neither of which needs PUSH0 (Shanghai). `override`: the node is asked to run ours in
place of a contract's code, where SLOAD reads that contract's storage. `deployless`: the init code
of a contract that is never created; it asks a session key manager for the root of each account.

What they return begins with a mark that only the program holds: it is random, made anew in each
process, and the called contract never sees it. So an answer proves that the program ran, also when
another endpoint has taken over that ignores overrides; no contract can pretend it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from indexer.chain import wire
from indexer.core.types import Address, Hash32

Form = Literal["override", "deployless", "single"]
"""How many slots of a contract are read at once. single: each by eth_getStorageAt."""
Request = tuple[str, list[Any]]
"""Method and parameters."""

MAX_READS: Final = 500
"""Words per eth_call. By override some 2 million gas. Deployless some 5 million, and 16,032 of the
24,576 bytes that EIP-170 allows the answer, which to the node is the code of a new contract."""
MARK: Final = Hash32(b"\0" + secrets.token_bytes(31))
"""Begins with zero because code may not begin with 0xef (EIP-3541)."""

_METHOD: Final = "eth_call"
_NOBODY: Final = Address(b"\x5e" * 20)
"""An address without code and storage."""
_GET_SESSION_KEYS: Final = bytes.fromhex("fde5354d")
_KEEP_MARK: Final = b"\x7f" + MARK + bytes.fromhex("600052")  # memory[0:32] = mark

# Calldata: the slots, one after the other; i counts its bytes.
_OVERRIDE: Final = _KEEP_MARK + bytes.fromhex(
    "6000"  # i = 0
    "5b 80 36 11 6033 57"  # 0x26: if i < calldatasize goto 0x33
    "602001 6000 f3"  # return memory[0 : i + 32]
    "5b 80 35 54 81 602001 52"  # 0x33: memory[i + 32] = storage[calldata[i]]
    "602001 6026 56"  # i += 32, goto 0x26
)


def _deployless(manager: Address, accounts: Sequence[Address]) -> bytes:
    """Return init code, with the data of its calls (36 bytes each) behind it.

    A call that fails or returns no single word reverts all of it. So does a manager without code:
    it returns nothing, and that is not a zero.
    """
    calls = b"".join(_GET_SESSION_KEYS + account.rjust(32, b"\0") for account in accounts)
    loop = bytes.fromhex(
        "6020"  # p = 32
        "5b 38 82 10 6033 57"  # 0x29: if i < codesize goto 0x33
        "6000 f3"  # return memory[0:p]
        "5b 6024 82 82 39"  # 0x33: memory[p : p + 36] = code[i : i + 36]
        "6020 81 6024 81 73" + manager.hex() + "5a fa"  # memory[p : p + 32] = staticcall(manager)
        "3d 602014 16 6062 57"  # if it succeeded and returned 32 bytes goto 0x62
        "6000 80 fd"
        "5b 602001 90 602401 90 6029 56"  # 0x62: p += 32, i += 36, goto 0x29
    )
    size = len(_KEEP_MARK) + 3 + len(loop)
    return _KEEP_MARK + b"\x61" + size.to_bytes(2, "big") + loop + calls  # i = size


def override_request(contract: Address, slots: Sequence[Hash32], block: Any) -> Request:
    """Return the eth_call that reads these slots of a contract, whatever its code."""
    target = wire.to_hex(contract)
    call = {"to": target, "data": wire.to_hex(b"".join(slots))}
    return _METHOD, [call, block, {target: {"code": wire.to_hex(_OVERRIDE)}}]


def deployless_request(manager: Address, accounts: Sequence[Address], block: Any) -> Request:
    """Return the eth_call that asks a manager for the roots of these accounts.

    Source: bcnmy/scw-contracts, SessionKeyManagerModule.getSessionKeys(address).
    """
    return _METHOD, [{"data": wire.to_hex(_deployless(manager, accounts))}, block]


def probe(form: Form) -> Request:
    """Return a request that only a node able to do `form` answers with the mark and nothing else.

    At the tip: the block read first may be pruned, which would say nothing of the form.
    """
    build = override_request if form == "override" else deployless_request
    return build(_NOBODY, [], "latest")


def marked_words(text: str, count: int) -> list[Hash32]:
    """Return the words behind the mark; ValueError unless it is there and `count` words follow."""
    value = wire.data(text)
    if value[:32] != MARK or len(value) != 32 * (count + 1):
        raise ValueError(f"not the mark and {count} words")
    return [Hash32(value[start : start + 32]) for start in range(32, len(value), 32)]


@dataclass(slots=True)
class StateHabits:
    """What was learnt of a node's state, and until when (seconds of the event loop) it is believed.

    form: the best one it can do. archive: the endpoint that had state which another had dropped.
    """

    form: Form = "single"
    form_until_seconds: float = 0.0
    archive: str | None = None
    archive_until_seconds: float = 0.0
