"""One run of every scenario, followed live, indexed again from its end, and traced.

The daemon never asks for traces. Here the node is asked for one of each transaction that matters:
the truth about who called a manager or a token, and in which user operation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from indexer.core.session_sets import build_set
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet
from indexer.store.chain_row import Connection
from indexer.store.pool import Database
from indexer.store.sessions import import_sets
from tests.daemon_process import _COMPARED, configuration, running_daemon, settled, until
from tests.fixtures_database import connected
from tests.route_more import MORE
from tests.routes import MANAGERS, Stage, script, silent_script, truth

Row = Mapping[str, Any]
Key = tuple[str, str, int]
"""Manager, account, block number."""


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


_SET_ROOT = "0x7cb64759"
_VALIDATE_USER_OP = "0x3a871cdd"
_INNER_HANDLE_OP = "0x1d732756"


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A CALL that was not reverted. `user_op_hash` None: outside of any operation."""

    to: str
    caller: str
    data: str
    transaction_hash: str
    user_op_hash: str | None

    @property
    def sets_root(self) -> bool:
        return self.data.startswith(_SET_ROOT)


def calls_of(
    frame: Mapping[str, Any], transaction_hash: str, user_op: str | None = None
) -> Iterator[TracedCall]:
    """Walk a callTracer frame; what was reverted, with all inside of it, is left out."""
    if "error" in frame:
        return
    data, kind = frame["input"], frame["type"]
    if kind == "CALL" and frame["from"] == hexed(at.ENTRY_POINT):
        # The hash stands in the head: UserOpInfo is static, and follows a pointer and 8 words.
        if data.startswith(_INNER_HANDLE_OP):
            user_op = "0x" + data[10 + 9 * 64 : 10 + 10 * 64]
        elif data.startswith(_VALIDATE_USER_OP):
            user_op = "0x" + data[10 + 64 : 10 + 2 * 64]
    if kind == "CALL":
        yield TracedCall(frame["to"], frame["from"], data, transaction_hash, user_op)
    for inner in frame.get("calls", ()):
        yield from calls_of(inner, transaction_hash, user_op)


async def traced(devnet: Devnet, block: int) -> list[TracedCall]:
    """Return every call of a block, in the order they were made."""
    found = await devnet.rpc.call("eth_getBlockByNumber", hex(block), False)
    frames = await devnet.rpc.batch(
        [
            ("debug_traceTransaction", [hash_, {"tracer": "callTracer"}])
            for hash_ in found["transactions"]
        ]
    )
    pairs = zip(found["transactions"], frames, strict=True)
    return [call for hash_, frame in pairs for call in calls_of(frame, hash_)]


@dataclass(frozen=True, slots=True)
class Scenarios:
    """What happened, what the chain says of it, and what two daemons wrote.

    `spans` are the blocks of each step. `changes` are true roots by eth_call, of the accounts of
    the vendor's factory. `live` and `history` are the tables of a daemon that followed and of one
    that came afterwards; `rows`, `uses` and `sessions` are as once all sets are stored.
    """

    stage: Stage
    spans: Mapping[str, range]
    changes: Mapping[Key, str]
    calls: Mapping[int, list[TracedCall]]
    live: Mapping[str, list[Row]]
    history: Mapping[str, list[Row]]
    rows: list[Row]
    sets: list[Row]
    slots: list[Row]
    uses: list[Row]
    sessions: list[Row]

    def true_write(self, row: Row) -> TracedCall:
        """Return the last call that set this row's root."""
        return [
            call
            for call in self.calls[row["block_number"]]
            if call.sets_root and (call.to, call.caller) == (row["manager"], row["account"])
        ][-1]

    def during(self, step: str, rows: list[Row]) -> list[Row]:
        """Return those of the rows that stand in the blocks of a step."""
        return [row for row in rows if row["block_number"] in self.spans[step]]


async def play_and_index(
    devnet: Devnet, live_url: str, history_url: str, folder: Path
) -> Scenarios:
    """Play everything, with one daemon from the start and one at the end."""
    stage, managers = Stage(devnet), [hexed(manager) for manager in MANAGERS]
    config = configuration(live_url, devnet.url, managers=managers)
    async with connected(live_url) as live, running_daemon(folder, config, name="live") as daemon:
        await daemon.following()
        spans = await play_everything(stage)
        tip = await block_and_hash(devnet, "latest")
        await until(lambda: settled(live, *tip), "the run to be followed")
        followed = await comparable(live)
        await _store_sets(live_url, stage)
        await until(lambda: settled(live, *tip), "the sets to be decided")
        rows = await table(live, "SELECT * FROM watch.session_root ORDER BY block_number")
        sets = await table(live, "SELECT * FROM watch.session_set")
        uses = await table(live, "SELECT * FROM watch.session_use ORDER BY block_number, use_index")
        sessions = await table(live, "SELECT * FROM watch.session")
        slots = await table(
            live,
            "SELECT evidence.hex(account) AS account, block_number, tainted "
            "FROM evidence.account_observation ORDER BY block_number",
        )
        assert await daemon.stop() == 0
    config = configuration(history_url, devnet.url, managers=managers, finality=2)
    async with (
        connected(history_url) as history,
        running_daemon(folder, config, name="history") as daemon,
    ):
        await until(lambda: settled(history, *tip), "the run to be indexed afterwards")
        indexed = await comparable(history)
        assert await daemon.stop() == 0
    true = await truth(devnet, MANAGERS, stage.report.accounts, 0, tip[0])
    moved = {row["block_number"] for row in [*rows, *followed["erc1155_transfer"]]}
    return Scenarios(
        stage=stage,
        spans=spans,
        changes={
            (hexed(manager), hexed(account), number): hexed(root)
            for (manager, account), found in true.items()
            for number, root in found
        },
        calls={number: await traced(devnet, number) for number in sorted(moved)},
        live=followed,
        history=indexed,
        rows=rows,
        sets=sets,
        slots=slots,
        uses=uses,
        sessions=sessions,
    )


async def play_everything(stage: Stage) -> dict[str, range]:
    """Play every step; return the blocks of each."""
    steps = [(step.name, step.run) for step in [*script(stage), *silent_script(stage)]]
    steps += [(name, partial(more, stage)) for name, more in MORE.items()]
    spans: dict[str, range] = {}
    for name, play in steps:
        first = await stage.devnet.rpc.block_number() + 1
        await play()
        spans[name] = range(first, await stage.devnet.rpc.block_number() + 1)
    # Deeper than the finality of the second daemon: it finds all of it in the past.
    await stage.devnet.rpc.mine(3)
    return spans


async def block_and_hash(devnet: Devnet, tag: str) -> tuple[int, bytes]:
    """Return number and hash of a block."""
    block = await devnet.rpc.call("eth_getBlockByNumber", tag, False)
    return int(block["number"], 16), bytes.fromhex(block["hash"][2:])


async def _store_sets(url: str, stage: Stage) -> None:
    sets = [build_set(80001, s.manager, s.account, s.sessions) for s in stage.report.sets.values()]
    async with Database.open(url) as database:
        await import_sets(database, [(one, "test") for one in sets])


async def table(connection: Connection, query: str) -> list[Row]:
    """Return rows with hex, numbers and lists as JSON has them."""
    found = await connection.fetch(f"SELECT to_jsonb(x) FROM ({query}) AS x")
    return [json.loads(record[0]) for record in found]


_VERDICTS = """
SELECT manager, account, verdict, cause, since_block, since_time, on_chain_root, expected_root,
       explanation, observed_block FROM watch.verdict"""


async def comparable(connection: Connection) -> dict[str, list[Row]]:
    """Return all that the law compares, but for the tail and what finality says of a row."""
    found: dict[str, list[Row]] = {}
    for name, query in (_COMPARED | {"verdict": _VERDICTS}).items():
        if name != "tail":
            rows = await table(connection, query)
            found[name] = sorted(
                ({key: value for key, value in row.items() if key != "is_final"} for row in rows),
                key=repr,
            )
    return found
