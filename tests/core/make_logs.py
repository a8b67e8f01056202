"""Logs as a node would give them, built from a declaration and values with eth_abi."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eth_abi import encode
from hypothesis import strategies as st

from indexer.core.abi import keccak
from indexer.core.events import LogFilter
from indexer.core.types import Address, Hash32, Log

VECTORS = Path(__file__).parents[1] / "vectors"
EDGE_CASES = json.loads((VECTORS / "edge_cases.json").read_text())


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def words(*values: int | bytes) -> bytes:
    """Return words as they are, and numbers as words; negative ones wrap."""
    return b"".join(v if isinstance(v, bytes) else (v % 2**256).to_bytes(32, "big") for v in values)


def address(label: str) -> Address:
    """Return an address that is the same for the same label."""
    return Address(keccak(label.encode())[12:])


def hash32(label: str) -> Hash32:
    return keccak(label.encode())


ENTRY_POINT = address("entry point")
FACTORY = address("factory")
MANAGER = address("manager")
REGISTRY = address("ownership registry")
TOKEN = address("erc-1155")
STRANGER = address("stranger")
A, B, C = address("A"), address("B"), address("C")


@dataclass(frozen=True)
class Accounts:
    """A fixed set of watched accounts."""

    accounts: frozenset[bytes]

    def watched(self, account: bytes, block_number: int) -> bool:
        return account in self.accounts


WATCH = LogFilter(
    entry_points=frozenset({ENTRY_POINT}),
    factories=frozenset({FACTORY}),
    event_managers=frozenset({MANAGER}),
    ownership_modules=frozenset({REGISTRY}),
    erc1155=frozenset({TOKEN}),
    accounts=Accounts(frozenset({A, B, C})),
    all_creations=True,
)


@dataclass(frozen=True)
class Event:
    """An event's declaration, read without the code under test."""

    name: str
    parameters: tuple[tuple[str, str, bool], ...]
    """(type, name, indexed)."""

    @property
    def signature(self) -> str:
        return f"{self.name}({','.join(type_ for type_, _, _ in self.parameters)})"


def event(full: str) -> Event:
    name, inside = re.fullmatch(r"(\w+)\((.*)\)", full).groups()
    parameters = [part.split() for part in inside.split(",") if part]
    return Event(name, tuple((p[0], p[-1], "indexed" in p) for p in parameters))


EVENTS: dict[str, Event] = {}
"""Every declared event this program decodes, by signature."""
for _entry in json.loads((VECTORS / "topics.json").read_text()):
    if (
        _entry["contract"]
        in {
            "EntryPoint v0.6",
            "SmartAccount 2.0.0",
            "SmartAccountFactory 2",
            "EcdsaOwnershipRegistry",
            "SKM 1.1.0",
            "ERC1155",
        }
        and _entry["sig"] != "OwnershipTransferred(address,address)"
    ):
        EVENTS[_entry["sig"]] = event(_entry["full"])


def topic_of(type_: str, value: Any) -> Hash32:
    if type_ in {"bytes", "string"}:
        return keccak(value)
    return Hash32(encode([type_], [value]))


def make_log(
    emitter: Address,
    signature: str,
    values: Sequence[Any],
    *,
    block_number: int = 7,
    log_index: int = 0,
    transaction: str = "tx",
) -> Log:
    """Return the log that `emitter` leaves when it emits the event with these values."""
    declared = EVENTS[signature]
    topics = [hash32(signature)]
    data: list[tuple[str, Any]] = []
    for (type_, _, indexed), value in zip(declared.parameters, values, strict=True):
        if indexed:
            topics.append(topic_of(type_, value))
        else:
            data.append((type_, value))
    return Log(
        block_number=block_number,
        block_hash=hash32(f"block {block_number}"),
        transaction_hash=hash32(transaction),
        transaction_index=0,
        log_index=log_index,
        address=emitter,
        topics=tuple(topics),
        data=encode([type_ for type_, _ in data], [value for _, value in data]),
    )


def in_order(logs: Sequence[Log]) -> list[Log]:
    """Return the logs with the log indexes of their places."""
    return [replace(log, log_index=index) for index, log in enumerate(logs)]


def before_execution(entry_point: Address = ENTRY_POINT) -> Log:
    return make_log(entry_point, "BeforeExecution()", [])


def aggregator_changed(entry_point: Address = ENTRY_POINT) -> Log:
    return make_log(entry_point, "SignatureAggregatorChanged(address)", [bytes(20)])


def user_operation(
    sender: Address, user_op: str, *, success: bool = True, entry_point: Address = ENTRY_POINT
) -> Log:
    return make_log(
        entry_point,
        "UserOperationEvent(bytes32,address,address,uint256,bool,uint256,uint256)",
        [hash32(user_op), sender, bytes(20), 0, success, 21, 7],
    )


def enabled_module(account: Address) -> Log:
    return make_log(account, "EnabledModule(address)", [MANAGER])


def transfer(from_address: Address, to_address: Address, token_id: int = 1, amount: int = 1) -> Log:
    return make_log(
        TOKEN,
        "TransferSingle(address,address,address,uint256,uint256)",
        [A, from_address, to_address, token_id, amount],
    )


ADDRESSES = st.binary(min_size=20, max_size=20).map(Address)
UINT256 = st.one_of(
    st.integers(0, 2**256 - 1), st.sampled_from([0, 1, 2**53 - 1, 2**53, 2**255, 2**256 - 1])
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "address": ADDRESSES,
    "bool": st.booleans(),
    "bytes": st.binary(max_size=100),
    "bytes32": st.binary(min_size=32, max_size=32),
    "string": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    "uint256": UINT256,
    "uint256[]": st.lists(UINT256, max_size=5),
    "uint8": st.integers(0, 255),
}


def values_of(declared: Event) -> st.SearchStrategy[list[Any]]:
    """Any values of an event's parameters; arrays of one event have one length."""

    def alike(values: tuple[Any, ...]) -> list[Any]:
        shortest = min((len(v) for v in values if isinstance(v, list)), default=0)
        return [v[:shortest] if isinstance(v, list) else v for v in values]

    return st.tuples(*(_VALUES[type_] for type_, _, _ in declared.parameters)).map(alike)
