"""eth_call of the simulated node: it runs code that comes with the call, and knows one function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from indexer.core.merkle import root_slot
from indexer.core.types import Address, Hash32
from tests.sim import evm
from tests.sim.blocks import SimBlock, unhexed
from tests.sim.faults import Refusal

Overrides = Literal["run", "refused", "ignored"]

_GET_SESSION_KEYS: Final = bytes.fromhex("fde5354d")


def failing_methods(call: Mapping[str, Any]) -> set[str]:
    """Return the methods whose faults a call suffers: an eth_call by block hash reads state."""
    if call["method"] == "eth_call" and isinstance(call["params"][1], dict):
        return {"eth_call", "eth_getStorageAt"}
    return {call["method"]}


def eth_call(
    block: SimBlock,
    call: Mapping[str, str],
    code_of: Mapping[str, Mapping[str, str]],
    overrides: Overrides,
    deployless: bool,
) -> bytes:
    """Return the result of a call after a block. Raises Refusal.

    Every contract that is there answers getSessionKeys with the root in its storage and reverts
    at anything else; where no contract is, a call succeeds and returns nothing.
    """

    def static_call(address: bytes, data: bytes) -> bytes | None:
        contract = Address(address)
        if not block.code_at(contract):
            return b""
        if data[:4] != _GET_SESSION_KEYS:
            return None
        return block.storage((contract, root_slot(Address(data[-20:]))))

    if code_of and overrides == "refused":
        raise Refusal("too many arguments, want at most 2", -32602)
    data, to = unhexed(call["data"]), unhexed(call.get("to", "0x"))
    if not to:
        if not deployless:
            raise Refusal("contract creation is not supported", -32602)
        code, data = data, b""
    elif code_of and overrides == "run":
        code = unhexed(code_of[call["to"]]["code"])
    else:
        answer = static_call(to, data)
        if answer is None:
            raise Refusal("execution reverted", 3)
        return answer
    try:
        return evm.run(
            code, data, lambda slot: block.storage((Address(to), Hash32(slot))), static_call
        )
    except evm.Reverted:
        raise Refusal("execution reverted", 3) from None
