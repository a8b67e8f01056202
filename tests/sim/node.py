"""A node that forks, lags, forgets and lies on demand, spoken to over real HTTP.

    async with SimNode(seed=1) as node:
        node.mine(5, [SimLog(TOKEN, (TOPIC,))])       # five blocks, the log in the last
        node.fork(depth=3)                            # drops three blocks
        node.mine(4)                                  # the other branch wins
        node.fail(Refuse("missing trie node"), method="eth_getStorageAt")

It behaves like a correct node until told otherwise. Same seed and same calls give the same hashes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from indexer.core.types import Address, BlockHeader, Hash32
from tests.sim.blocks import (
    SimBlock,
    SimLog,
    SimTransaction,
    Slot,
    child,
    genesis,
    hexed,
    unhexed,
)
from tests.sim.calls import Overrides, eth_call, failing_methods
from tests.sim.faults import (
    Answer,
    Body,
    Drop,
    Element,
    Fault,
    Hold,
    Oversize,
    Refusal,
    Refuse,
    RequestFault,
    Reset,
    Status,
    Truncate,
    Twice,
)


@dataclass(slots=True)
class _Planned:
    fault: Fault
    method: str | None
    times: int


class SimNode:
    """A block tree and the HTTP server that shows its winning branch.

    Knobs (plain attributes, may change at any time):
    finality_depth: blocks from the tip to `finalized`; None: the tag is not supported.
    finalized_number: overrides it with a fixed number.
    lag_blocks: the newest blocks the server pretends not to have.
    max_range_blocks: wider ranges are refused.
    prune_before: state of blocks below this number is refused.
    timestamps_in_logs: whether logs carry blockTimestamp.
    serves_orphans: whether blocks that lost are still known by hash, as in geth; Anvil: no.
    overrides: what eth_call does with code given in place of a contract's.
    deployless: whether eth_call runs the init code of a contract that is never created.
    """

    def __init__(
        self, *, seed: int = 0, chain_id: int = 80001, finality_depth: int | None = 64
    ) -> None:
        self.chain_id = chain_id
        self.finality_depth = finality_depth
        self.finalized_number: int | None = None
        self.lag_blocks = 0
        self.max_range_blocks: int | None = None
        self.prune_before = 0
        self.timestamps_in_logs = False
        self.serves_orphans = False
        self.overrides: Overrides = "run"
        self.deployless = True
        self.requests: list[list[tuple[str, list[Any]]]] = []
        """Every HTTP request that came in, as (method, params) per call."""
        self.headers: list[Mapping[str, str]] = []
        """The HTTP headers of the same requests."""
        self._branch = 0
        self._canonical: list[SimBlock] = [genesis(seed)]
        self._by_hash: dict[bytes, SimBlock] = {self._canonical[0].hash: self._canonical[0]}
        self._forgotten: set[bytes] = set()
        self._planned: list[_Planned] = []
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    # --- the chain -------------------------------------------------------------------------------

    @property
    def tip(self) -> SimBlock:
        """The newest block of the winning branch, lag or not."""
        return self._canonical[-1]

    def block(self, number: int) -> SimBlock:
        """Return a block of the winning branch."""
        return self._canonical[number]

    def header(self, number: int) -> BlockHeader:
        """Return the header of a block of the winning branch."""
        return self._canonical[number].header

    def mine(
        self,
        count: int = 1,
        logs: Sequence[SimLog] = (),
        *,
        transactions: Sequence[SimTransaction] = (),
        slots: Mapping[Slot, Hash32] | None = None,
        code: Mapping[Address, bytes] | None = None,
    ) -> SimBlock:
        """Add blocks and return the last; logs, transactions and state writes go into that one."""
        for _ in range(count - 1):
            self._append(child(self.tip, self._branch))
        last = child(
            self.tip, self._branch, logs=logs, transactions=transactions, slots=slots, code=code
        )
        self._append(last)
        return last

    def fork(self, depth: int) -> list[SimBlock]:
        """Drop the newest blocks; what is mined next is another branch. Returns the losers."""
        if not 0 < depth < len(self._canonical):
            raise ValueError(f"cannot drop {depth} of {len(self._canonical)} blocks")
        lost = self._canonical[-depth:]
        del self._canonical[-depth:]
        self._branch += 1
        return lost

    def forget_logs(self, number: int) -> None:
        """Answer without the logs of this block of the winning branch."""
        self._forgotten.add(self.block(number).hash)

    def remember_logs(self) -> None:
        """Undo every forget_logs."""
        self._forgotten.clear()

    def without_orphans(self) -> SimNode:
        """Return a node, not started, that has only ever seen the winning branch."""
        other = SimNode(chain_id=self.chain_id, finality_depth=self.finality_depth)
        other._canonical = list(self._canonical)
        other._by_hash = {block.hash: block for block in self._canonical}
        other._branch = self._branch
        return other

    def _append(self, block: SimBlock) -> None:
        self._canonical.append(block)
        self._by_hash[block.hash] = block

    # --- faults ----------------------------------------------------------------------------------

    def fail(self, fault: Fault, *, method: str | None = None, times: int = 1) -> None:
        """Do this to the next calls (or requests holding a call) of `method`; None: of any.

        What eth_getStorageAt fails at, an eth_call that reads state by block hash fails at too.
        """
        self._planned.append(_Planned(fault, method, times))

    def plans(self, kind: type[Fault]) -> bool:
        """Say whether a fault of this kind has not come to pass yet."""
        return any(isinstance(planned.fault, kind) for planned in self._planned)

    def heal(self) -> None:
        """Be a correct node from now on: no planned fault, no lag, all logs and all state."""
        self._planned.clear()
        self._forgotten.clear()
        self._released.set()
        self.lag_blocks = self.prune_before = 0

    def release(self) -> None:
        """Let every held request go on, now and later."""
        self._released.set()

    def _take(self, methods: set[str], kinds: Any) -> Fault | None:
        for planned in self._planned:
            fits: bool = planned.method is None or planned.method in methods
            if fits and bool(isinstance(planned.fault, kinds)):
                planned.times -= 1
                if planned.times <= 0:
                    self._planned.remove(planned)
                return planned.fault
        return None

    # --- the server ------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the node is, or was before it was stopped."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after a stop on the same port again."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/{path:.*}", self._handle)
        self._released = asyncio.Event()
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        calls = asked if isinstance(asked, list) else [asked]
        self.requests.append([(call["method"], call["params"]) for call in calls])
        self.headers.append(dict(request.headers))
        methods = set().union(*map(failing_methods, calls))
        fault = self._take(methods, RequestFault)
        if isinstance(fault, Status):
            return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
        if isinstance(fault, Body):
            return web.Response(body=fault.body)
        if isinstance(fault, Hold):
            await self._released.wait()
        if isinstance(fault, Reset):
            return _cut(request)
        answers = [answer for call in calls for answer in self._answers(call)]
        if not answers and not isinstance(asked, list):
            return web.Response()  # the only answer was dropped
        body = json.dumps(answers if isinstance(asked, list) else answers[0]).encode()
        if isinstance(fault, Truncate):
            response = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
            return _cut(request, response)
        if isinstance(fault, Oversize):
            response = web.StreamResponse()
            response.enable_chunked_encoding()
            await response.prepare(request)
            for _ in range(fault.size_bytes // 65_536 + 1):
                await response.write(b" " * 65_536)
            return response
        return web.Response(body=body, content_type="application/json")

    def _answers(self, call: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the answers to one call: one, but for a fault."""
        base = {"jsonrpc": "2.0", "id": call["id"]}
        fault = self._take(failing_methods(call), Refuse | Answer | Element | Drop | Twice)
        match fault:
            case Refuse(message, code):
                return [{**base, "error": {"code": code, "message": message}}]
            case Answer(result):
                return [{**base, "result": result}]
            case Element(fields):
                return [{**base, **fields}]
            case Drop():
                return []
            case _:
                pass
        try:
            answer = {**base, "result": self._result(call["method"], call["params"])}
        except Refusal as error:
            answer = {**base, "error": {"code": error.code, "message": str(error)}}
        return [answer, answer] if isinstance(fault, Twice) else [answer]

    # --- the methods -----------------------------------------------------------------------------

    def _result(self, method: str, params: list[Any]) -> Any:
        match method, params:
            case "eth_chainId", _:
                return hex(self.chain_id)
            case "web3_clientVersion", _:
                return "sim/v1.0.0"
            case "eth_blockNumber", _:
                return hex(self._head)
            case "eth_getBlockByNumber", [block, _]:
                found = self._by_tag(block)
                return None if found is None else found.to_json()
            case "eth_getBlockByHash", [block_hash, _]:
                found = self._known(unhexed(block_hash))
                return None if found is None else found.to_json()
            case "eth_getLogs", [{"blockHash": block_hash} as wanted]:
                found = self._known(unhexed(block_hash))
                if found is None:
                    raise Refusal("unknown block")
                return self._logs([found], wanted)
            case "eth_getLogs", [wanted]:
                return self._logs(self._range(wanted), wanted)
            case "eth_getStorageAt", [address, slot, block]:
                key = (Address(unhexed(address)), Hash32(unhexed(slot)))
                return hexed(self._state(block).storage(key))
            case "eth_getCode", [address, block]:
                return hexed(self._state(block).code_at(Address(unhexed(address))))
            case "eth_getTransactionByBlockHashAndIndex", [block_hash, index]:
                return self._transaction(unhexed(block_hash), int(index, 16))
            case "eth_call", [call, block, *given]:
                code_of = given[0] if given else {}
                able = (self.overrides, self.deployless)
                return hexed(eth_call(self._state(block), call, code_of, *able))
            case _:
                raise Refusal(f"the method {method} does not exist/is not available", -32601)

    @property
    def _head(self) -> int:
        return max(len(self._canonical) - 1 - self.lag_blocks, 0)

    def _by_tag(self, block: str) -> SimBlock | None:
        if block == "finalized":
            if self.finality_depth is None and self.finalized_number is None:
                raise Refusal("finalized is not a supported commitment level", -32602)
            number = self.finalized_number
            if number is None:
                number = max(self._head - (self.finality_depth or 0), 0)
        elif block in {"latest", "pending"}:
            number = self._head
        elif block == "earliest":
            number = 0
        else:
            number = int(block, 16)
        return self._canonical[number] if number <= self._head else None

    def _known(self, block_hash: bytes) -> SimBlock | None:
        found = self._by_hash.get(block_hash)
        if found is None or found.number > self._head:
            return None
        won = self._canonical[found.number] is found
        return found if won or self.serves_orphans else None

    def _state(self, block: Any) -> SimBlock:
        if isinstance(block, dict):
            found = self._known(unhexed(block["blockHash"]))
        else:
            found = self._by_tag(block)
        if found is None:
            raise Refusal("Resource not found", -32001)
        if found.number < self.prune_before:
            raise Refusal(f"missing trie node {found.hash.hex()} (path ) state is not available")
        return found

    def _range(self, wanted: Mapping[str, Any]) -> list[SimBlock]:
        first = self._by_tag(wanted.get("fromBlock", "latest"))
        last = self._by_tag(wanted.get("toBlock", "latest"))
        if first is None:
            # What a back-end behind a balancer does when it lags: no error, no logs.
            return []
        upper = self._head if last is None else last.number
        if self.max_range_blocks is not None and upper - first.number >= self.max_range_blocks:
            raise Refusal(f"maximum block range: {self.max_range_blocks}", -32701)
        return self._canonical[first.number : upper + 1]

    def _logs(self, blocks: Sequence[SimBlock], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        given = wanted.get("address")
        addresses = [given] if isinstance(given, str) else given
        # As in geth: an empty list of addresses filters nothing.
        allowed = {unhexed(address) for address in addresses or ()}
        return [
            block.log_to_json(index, with_timestamp=self.timestamps_in_logs)
            for block in blocks
            if block.hash not in self._forgotten
            for index, log in enumerate(block.logs)
            if (not allowed or log.address in allowed)
            and _topics_match(log.topics, wanted.get("topics") or [])
        ]

    def _transaction(self, block_hash: bytes, index: int) -> dict[str, Any] | None:
        for block in self._canonical[: self._head + 1]:
            if block.hash == block_hash and index < block.transaction_count():
                return block.transaction_to_json(index)
        return None


def _topics_match(topics: Sequence[bytes], wanted: Sequence[Any]) -> bool:
    for place, given in enumerate(wanted):
        if given is None:
            continue
        alternatives = [given] if isinstance(given, str) else given
        if place >= len(topics) or hexed(topics[place]) not in alternatives:
            return False
    return True


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response()
