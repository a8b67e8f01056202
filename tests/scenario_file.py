"""The scenarios of vectors/root_change_scenarios.json, played again by number.

The file says what each left when it was executed: status, logs, traces, roots. Its names (A, EP,
SKM) stand for addresses; a contract that it gives as cut hex is one of our own here.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eth_hash.auto import keccak

from indexer.core.types import ZERO_HASH, Address, Hash32
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, SmartAccount, Transaction
from indexer.devnet.operations import Call, call_data, mint_call, set_root_call
from tests.foreign_accounts import foreign_address, make_foreign
from tests.route_decoys import DECOYS
from tests.route_silent import (
    anybody_sets_root,
    replace_implementation,
    set_handler_silently,
    stranger_sets_root,
)
from tests.route_steps import (
    ROUTES,
    send_module_batch,
    set_handler,
)
from tests.routes import Stage

Json = Any

VECTORS = Path(__file__).parent / "vectors"
FILE: Mapping[str, Any] = json.loads((VECTORS / "root_change_scenarios.json").read_text())
SCENARIOS: Mapping[str, Json] = {one["name"][:2]: one for one in FILE["scenarios"]}
SET_ROOT = "0x7cb64759"
OWN = "0x"
"""How a contract without a name is called here, and an address that the file gives as cut hex."""

_UNNAMED = {
    "0x2d4AF8": "C",
    "0x866f68": OWN,
    "0x9A676e": OWN,
    "0x0B306B": OWN,
    "0xc6e7DF": OWN,
    "0xa85233": OWN,
}
"""What the file's unnamed addresses are here: an account, and contracts of our own."""
_LABELS = {
    at.ENTRY_POINT: "EP",
    at.FACTORY: "FACT",
    at.MANAGER: "SKM",
    at.ROOT_HELPER: "H",
    at.STRANGER: "E",
}
_TOPICS = {
    entry["topic0"]: entry["sig"].split("(")[0]
    for entry in json.loads((VECTORS / "topics.json").read_text())
} | {"0x" + keccak(b"Made(address)").hex(): "Made"}


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


def whole_root(prefix: str) -> Hash32:
    """Return the root that the file cuts to these four bytes, which it gives whole for two."""
    start = bytes.fromhex(prefix)
    for known in FILE["rpc"]["proof"]["sp"]:
        if known.startswith("0x" + prefix):
            return Hash32(bytes.fromhex(known[2:]))
    return Hash32(start + keccak(start)[4:]) if any(start) else ZERO_HASH


class FileStage(Stage):
    """Plays steps with the file's cast and roots, whoever the step itself asks for.

    `cast` says who plays a name of the step in the scenario that is on; A plays every other.
    """

    def __init__(self, devnet: Devnet) -> None:
        super().__init__(devnet)
        self.cast: Mapping[str, str] = {}
        self.roots: Iterator[Hash32] = iter(())
        self.people = {label: devnet.account(f"file/{label}") for label in "ABCD"}
        self.foreign = foreign_address(self, self.seed)

    def actor(self, name: str) -> SmartAccount:
        return self.people[name if name in self.people else self.cast.get(name, "A")]

    def new_root(
        self, account: SmartAccount | Address, label: str, *, manager: Address = at.MANAGER
    ) -> Hash32:
        """Return the next root that the file saw an account set; another for other managers."""
        other = keccak(f"{label} {hexed(manager)}".encode())
        return next(self.roots, other) if manager == at.MANAGER else other

    def begin(self, number: str, cast: Mapping[str, str]) -> None:
        """Get ready for a scenario."""
        self.cast = cast
        self.roots = iter([whole_root(call["root"]) for call in SCENARIOS[number]["callTracer"]])

    def addresses(self) -> dict[str, Address]:
        """Return whose roots the file speaks of, by label."""
        people = {label: account.address for label, account in self.people.items()}
        return people | {"N": self.foreign, "E": at.STRANGER, "H": at.ROOT_HELPER}

    def log_name(self, log: Json) -> str:
        """Return emitter and event as the file names a log."""
        return f"{self.label(log['address'])}.{_TOPICS[log['topics'][0]]}"

    def label(self, address: str) -> str:
        """Return the name the file has for an address, else OWN."""
        known = _LABELS | {found: label for label, found in self.addresses().items()}
        return known.get(Address(bytes.fromhex(address[2:])), OWN)


# --- scenarios that no route plays as the file has them ----------------------------------------


async def _batch_of_one(s: FileStage) -> None:
    a = s.actor("A")
    await s.devnet.submit(a, [set_root_call(s.new_root(a, "04"))], form="executeBatch")


async def _stranger_by_itself(s: FileStage) -> None:
    data = set_root_call(next(s.roots)).data
    await s.devnet.send(Transaction(at.MANAGER, data, sender=at.STRANGER))


async def _no_such_function(s: FileStage) -> None:
    a = s.actor("A")
    await s.devnet.submit(a, [set_root_call(s.new_root(a, "21"), at.ROOT_LIBRARY)])


async def _module_batch(s: FileStage) -> None:
    a = await s.ready("A", at.PUPPET_MODULE)
    await send_module_batch(s, a, [set_root_call(root) for root in s.roots])


async def _library_in_account(s: FileStage) -> None:
    a = await s.ready("A", at.PUPPET_MODULE)
    call = call_data("setInAccount(address,bytes32)", at.MANAGER, s.new_root(a, "28"))
    await s.devnet.send(s.puppet(a, at.ROOT_LIBRARY, call, delegate=True))


async def _set_up_as_module(s: FileStage) -> None:
    a = s.actor("A")
    setup = set_root_call(s.new_root(a, "32")).data
    data = call_data("setupAndEnableModule(address,bytes)", at.MANAGER, setup)
    op = replace(await s.devnet.op(a, []), call_data=data)
    await s.devnet.send(s.devnet.bundle([op.signed_by_owner(a.owner)]))


async def _factory_set_up(s: FileStage) -> None:
    setup = set_root_call(next(s.roots)).data
    make = call_data("deployCounterFactualAccount(address,bytes,uint256)", at.MANAGER, setup, 33)
    await s.devnet.send(Transaction(at.FACTORY, make))


async def _custom_factory(s: FileStage) -> None:
    await make_foreign(s, s.seed, next(s.roots))


async def _handler(s: FileStage) -> None:
    await set_handler(s, s.actor("A"), at.MANAGER)


async def _through_handler(s: FileStage) -> None:
    a = s.actor("A")
    await stranger_sets_root(s, "36 and 39", a, s.new_root(a, "36 and 39"))


async def _through_own_handler(s: FileStage) -> None:
    a = s.actor("A")
    await s.devnet.submit(a, [Call(a.address, set_root_call(s.new_root(a, "37")).data)])


async def _silent_handler(s: FileStage) -> None:
    a = await s.ready("A", at.PUPPET_MODULE)
    await set_handler(s, a, at.FALLBACK_HANDLER)
    await set_handler_silently(s, a)


async def _other_implementation(s: FileStage) -> None:
    await replace_implementation(s, s.actor("B"))


async def _by_other_implementation(s: FileStage) -> None:
    b = s.actor("B")
    await anybody_sets_root(s, "41", b, s.new_root(b, "41"))


async def _mint(s: FileStage) -> None:
    c, a = await s.ready("C"), s.actor("A")
    await set_handler(s, a, at.FALLBACK_HANDLER)  # the manager would refuse the tokens
    await s.devnet.submit(c, [mint_call(a.address, 42, 1)])


async def _cleared(s: FileStage) -> None:
    c = s.actor("C")
    for root in (s.new_root(c, "43", manager=at.MANAGER_AUGUST), next(s.roots)):
        await s.devnet.submit(c, [set_root_call(root)])


async def _same_value(s: FileStage) -> None:
    c = s.actor("C")
    root = next(s.roots)
    for _ in range(2):
        await s.devnet.submit(c, [set_root_call(root)])


_PLAYS: Mapping[str, tuple[Callable[..., Awaitable[None]], Mapping[str, str]]] = {
    "01": (ROUTES["01 execute_ncC"], {}),
    "02": (ROUTES["02 execute"], {}),
    "03": (ROUTES["03 executeBatch_y6U"], {}),
    "04": (_batch_of_one, {}),
    "05": (ROUTES["05 undeployed"], {"frank": "D"}),
    "06": (ROUTES["06"], {}),
    "07": (DECOYS["07 set and back"], {}),
    "08": (ROUTES["08"], {}),
    "09": (ROUTES["09"], {}),
    "10": (ROUTES["10"], {"bob": "B"}),
    "11": (ROUTES["11"], {}),
    "12": (DECOYS["12 value refused"], {}),
    "13": (DECOYS["13 later call reverts"], {}),
    "14": (DECOYS["14 out of gas"], {}),
    "15": (DECOYS["15 postOp reverts"], {}),
    "16": (DECOYS["16 bundle reverts"], {"bob": "B"}),
    "17": (DECOYS["17 helper"], {}),
    "18": (_stranger_by_itself, {}),
    "19": (ROUTES["19"], {}),
    "20": (DECOYS["20 truncated"], {}),
    "21": (_no_such_function, {}),
    "22": (ROUTES["22"], {}),
    "23": (ROUTES["23"], {}),
    "24": (ROUTES["24"], {}),
    "25": (ROUTES["25"], {}),
    "26": (_module_batch, {}),
    "27": (DECOYS["27 module call fails"], {}),
    "28": (_library_in_account, {}),
    "29": (ROUTES["29"], {"bob": "B"}),
    "30": (ROUTES["30"], {}),
    "31": (ROUTES["31"], {}),
    "32": (_set_up_as_module, {}),
    "33": (_factory_set_up, {}),
    "34": (_custom_factory, {}),
    "35": (_handler, {}),
    "36": (_through_handler, {}),
    "37": (_through_own_handler, {}),
    "38": (_silent_handler, {}),
    "39": (_through_handler, {}),
    "40": (_other_implementation, {}),
    "41": (_by_other_implementation, {}),
    "42": (_mint, {}),
    "43": (_cleared, {}),
    "44": (_same_value, {}),
    "45": (DECOYS["45 aggregator"], {"carol": "C"}),
}
"""Who plays it, and who is played by another than A."""


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario as it ran here. `transaction` is its last one, which the file describes."""

    number: str
    blocks: range
    transaction: Json
    receipt: Json


async def play(stage: FileStage, number: str) -> Played:
    """Play one scenario after those before it in the file."""
    rpc = stage.devnet.rpc
    first = await rpc.block_number() + 1
    run, cast = _PLAYS[number]
    stage.begin(number, cast)
    await run(stage)
    block = await rpc.call("eth_getBlockByNumber", "latest", True)
    transaction = block["transactions"][-1]
    receipt = await rpc.call("eth_getTransactionReceipt", transaction["hash"])
    return Played(number, range(first, int(block["number"], 16) + 1), transaction, receipt)


# --- what the node says of it, in the file's form -----------------------------------------------


def as_here(scenario: Json) -> Json:
    """Return what the file says, with cut hex in place of a name as OWN."""
    found = {key: value for key, value in scenario.items() if key not in {"name", "blk", "note"}}
    text = json.dumps(found)
    for given, name in _UNNAMED.items():
        text = text.replace(given, name)
    return json.loads(text)


async def as_the_node_says(
    stage: FileStage, played: Played, roots: Mapping[str, list[Hash32]]
) -> Json:
    """Return the same of the scenario that was played. `roots` are by label and block number."""
    rpc, first, last = stage.devnet.rpc, played.blocks[0], played.blocks[-1]
    hash_, sent = played.transaction["hash"], played.transaction["input"]
    frame = await rpc.call("debug_traceTransaction", hash_, {"tracer": "callTracer"})
    differ = {"tracer": "prestateTracer", "tracerConfig": {"diffMode": True}}
    slots = await rpc.call("debug_traceTransaction", hash_, differ)
    traces = await rpc.call("trace_transaction", hash_)
    hashes = [
        (await rpc.call("eth_getProof", hexed(at.MANAGER), [], hex(n)))["storageHash"]
        for n in (first - 1, last)
    ]
    return {
        "status": int(played.receipt["status"], 16),
        "to": stage.label(played.transaction["to"]),
        "changed": [label for label, found in roots.items() if found[last] != found[first - 1]],
        "logs": [stage.log_name(log) for log in played.receipt["logs"]],
        "inputHasSelector": SET_ROOT[2:] in sent,
        "inputHasSkm": at.MANAGER.hex() in sent,
        "callTracer": list(_root_calls(stage, frame)),
        "prestateDiffSlots": len(
            slots["post"].get(hexed(at.MANAGER), {}).get("storage", {}),
        ),
        "trace_tx": ",".join(
            stage.label(one["action"]["from"]) + "!" * ("error" in one)
            for one in traces
            if one["type"] == "call"
            and one["action"]["to"] == hexed(at.MANAGER)
            and one["action"]["input"].startswith(SET_ROOT)
        ),
        "storageHashChanged": hashes[0] != hashes[1],
        "uoe": [
            f"{stage.label('0x' + log['topics'][2][-40:])}:{_succeeded(log)}"
            for log in played.receipt["logs"]
            if stage.log_name(log) == "EP.UserOperationEvent"
        ],
        "after": {
            label: hexed(roots[label][last][:4]) for label in SCENARIOS[played.number]["after"]
        },
    }


def _succeeded(log: Json) -> str:
    return "true" if int(log["data"][66:130], 16) else "false"


def _root_calls(
    stage: FileStage, frame: Json, depth: int = 0, *, reverted: bool = False
) -> Iterator[Json]:
    reverted = reverted or "error" in frame
    if frame["to"] == hexed(at.MANAGER) and frame["input"].startswith(SET_ROOT):
        yield {
            "from": stage.label(frame["from"]),
            "type": frame["type"],
            "root": frame["input"][10:18],
            "reverted": reverted,
            "depth": depth,
        }
    for inner in frame.get("calls", ()):
        yield from _root_calls(stage, inner, depth + 1, reverted=reverted)
