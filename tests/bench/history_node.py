"""The node of the benchmark: a process of its own that costs little and never keeps one waiting.

    python -m tests.bench.history_node '{"transfers": 1000, "accounts": 100, ...}'

Prints its URL as one line once it can be asked, and ends when its standard input does. What each
block logs is encoded beforehand, one fragment of JSON per emitter and block; an answer joins them.
Beside JSON-RPC at `/`: POST /mine with an account's number and a root adds a block in which that
account sets it, GET /asked says how much it was asked.
"""

from __future__ import annotations

import asyncio
import json
import sys
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from aiohttp import web
from eth_abi import encode

from indexer.chain.slots import SENTINEL_MODULE, module_slot
from indexer.core import topics as topic
from indexer.core.merkle import root_slot
from indexer.core.types import Address, Hash32
from indexer.devnet import addresses as at
from tests.bench.history_chain import CHAIN_ID, Content, HistoryChain, Operation, Size, Transfer

FINALITY_BLOCKS = 64
_ZERO = b'"0x' + b"00" * 32 + b'"'
_TOKEN_TOPICS = frozenset({topic.TRANSFER_SINGLE, topic.TRANSFER_BATCH})


class Refusal(Exception):  # noqa: N818
    """A JSON-RPC error on its way out."""

    def __init__(self, message: str, code: int = -32000) -> None:
        super().__init__(message)
        self.code = code


def hexed(value: bytes) -> str:
    """Return lower-case 0x hex."""
    return "0x" + value.hex()


def _word(value: int | bytes) -> bytes:
    return value.to_bytes(32) if isinstance(value, int) else value.rjust(32, b"\0")


class _Stream:
    """The logs of one contract: per block one fragment, its logs joined by commas."""

    def __init__(self, address: Address, topics: Collection[Hash32]) -> None:
        self.address, self._topics = address, {hexed(name) for name in topics}
        self.fragments: list[bytes] = []

    def matches(self, addresses: Sequence[str], names: Collection[str]) -> bool:
        """Say whether a filter wants this stream; one that wants a part of it has no answer."""
        if addresses and hexed(self.address) not in addresses:
            return False
        if names and self._topics.isdisjoint(names):
            return False
        if names and not self._topics <= set(names):
            raise Refusal("this node gives all transfers or none")
        return True


class HistoryNode:
    """The chain as JSON-RPC shows it."""

    def __init__(self, chain: HistoryChain) -> None:
        self._chain = chain
        self._factory = _Stream(at.FACTORY, {topic.ACCOUNT_CREATION})
        self._entry_point = _Stream(at.ENTRY_POINT, {topic.USER_OPERATION_EVENT})
        self._token = _Stream(at.SEED_TOKEN, _TOKEN_TOPICS)
        self._number: dict[str, int] = {}
        self._headers: list[bytes] = []
        self._inputs: dict[tuple[int, int], bytes] = {}
        self._created: dict[str, int] = {}
        self._owner = {hexed(root_slot(address)): hexed(address) for address in chain.accounts}
        self._roots: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self.asked: Counter[str] = Counter()
        # Empty blocks above, so that all of history is final from the start.
        for number in range(chain.size.blocks + 1 + FINALITY_BLOCKS):
            self._append(chain.content(number))

    @property
    def tip(self) -> int:
        """The newest block."""
        return len(self._headers) - 1

    # --- the chain -------------------------------------------------------------------------------

    def mine(self, account: int, root: Hash32) -> int:
        """Add a block in which an account sets its root; return its number."""
        number = self.tip + 1
        self._append(Content(operations=(Operation(self._chain.accounts[account], number, root),)))
        return number

    def _append(self, content: Content) -> None:
        chain, number = self._chain, len(self._headers)
        header = {
            "number": hex(number),
            "hash": hexed(chain.hash(number)),
            "parentHash": hexed(chain.hash(number - 1)),
            "timestamp": hex(chain.seconds(number)),
        }
        self._headers.append(msgspec.json.encode(header))
        self._number[header["hash"]] = number
        index = 0

        def fragment(logs: Sequence[tuple[Address, Sequence[bytes], bytes]]) -> bytes:
            nonlocal index
            encoded = [self._log(number, index + i, *log) for i, log in enumerate(logs)]
            index += len(logs)
            return b",".join(encoded)

        self._factory.fragments.append(fragment([_creation(a) for a in content.created]))
        for address in content.created:
            self._created[hexed(address)] = number
        for place, operation in enumerate(content.operations, index):
            self._inputs[number, place] = operation.handle_ops()
            if operation.root is not None:
                changed = self._roots[hexed(operation.account)]
                changed.append((number, b'"%b"' % hexed(operation.root).encode()))
        self._entry_point.fragments.append(fragment([_operation(o) for o in content.operations]))
        self._token.fragments.append(fragment([_transfer(t) for t in content.transfers]))

    def _log(
        self, number: int, index: int, address: Address, topics: Sequence[bytes], data: bytes
    ) -> bytes:
        # Each log has a transaction of its own, of the same index.
        return msgspec.json.encode(
            {
                "address": hexed(address),
                "topics": [hexed(name) for name in topics],
                "data": hexed(data),
                "blockNumber": hex(number),
                "blockHash": hexed(self._chain.hash(number)),
                "transactionHash": _transaction_hash(number, index),
                "transactionIndex": hex(index),
                "logIndex": hex(index),
                "removed": False,
            }
        )

    # --- JSON-RPC --------------------------------------------------------------------------------

    def answer(self, body: bytes) -> bytes:
        """Return the answer to one call or to a batch."""
        asked = msgspec.json.decode(body)
        self.asked["http_requests"] += 1
        if isinstance(asked, list):
            return b"[" + b",".join([self._element(call) for call in asked]) + b"]"
        return self._element(asked)

    def _element(self, call: dict[str, Any]) -> bytes:
        method = call["method"]
        self.asked[method] += 1
        try:
            answer = _METHODS.get(method, HistoryNode._unknown)(self, *call["params"])
        except Refusal as refusal:
            error = {"code": refusal.code, "message": str(refusal)}
            return msgspec.json.encode({"jsonrpc": "2.0", "id": call["id"], "error": error})
        return b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (call["id"], answer)

    def _unknown(self, *_: object) -> bytes:
        raise Refusal("the method does not exist/is not available", -32601)

    def _refused_call(self, *_: object) -> bytes:
        raise Refusal("execution reverted", 3)

    def _chain_id(self) -> bytes:
        return b'"%b"' % hex(CHAIN_ID).encode()

    def _block_number(self) -> bytes:
        return b'"%b"' % hex(self.tip).encode()

    def _block_by_number(self, block: str, _full: bool) -> bytes:
        number = self._by_tag(block)
        return self._headers[number] if number <= self.tip else b"null"

    def _block_by_hash(self, block_hash: str, _full: bool) -> bytes:
        number = self._number.get(block_hash)
        return b"null" if number is None else self._headers[number]

    def _logs(self, wanted: dict[str, Any]) -> bytes:
        if "blockHash" in wanted:
            first = last = self._known(wanted["blockHash"])
        else:
            first, last = self._by_tag(wanted["fromBlock"]), self._by_tag(wanted["toBlock"])
        given = wanted.get("address") or []
        addresses = [given] if isinstance(given, str) else given
        names, *others = (_alternatives(given) for given in wanted.get("topics") or [None])
        found = [
            stream.fragments[first : last + 1]
            for stream in (self._factory, self._entry_point, self._token)
            if stream.matches(addresses, names)
        ]
        # Block by block, as a node has them.
        fragments = [one for block in zip(*found, strict=True) for one in block if one]
        if any(others):
            fragments = list(_with_topics(fragments, others))
        return b"[" + b",".join(fragments) + b"]"

    def _storage(self, address: str, slot: str, block: Any) -> bytes:
        number = self._at(block)
        if address == hexed(at.MANAGER):
            changed = self._roots.get(self._owner.get(slot, ""), ())
            place = bisect_right(changed, number, key=lambda change: change[0])
            return changed[place - 1][1] if place else _ZERO
        if self._created.get(address, number + 1) > number:
            return _ZERO
        if slot == "0x" + "00" * 12 + address[2:]:
            return _IMPLEMENTATION
        return _ENABLED if slot == _MANAGER_SLOT else _ZERO

    def _code(self, address: str, block: Any) -> bytes:
        if address == hexed(at.MANAGER):
            return b'"0x7cb64759b13152ee"'  # the selectors of V1's two functions
        number = self._at(block)
        exists = address in _CONTRACTS or self._created.get(address, number + 1) <= number
        return b'"0x60"' if exists else b'"0x"'

    def _transaction(self, block_hash: str, index: str) -> bytes:
        number, place = self._known(block_hash), int(index, 16)
        data = self._inputs.get((number, place))
        return msgspec.json.encode(
            {
                "hash": _transaction_hash(number, place),
                "blockHash": block_hash,
                "blockNumber": hex(number),
                "transactionIndex": index,
                "to": hexed(at.SEED_TOKEN if data is None else at.ENTRY_POINT),
                "from": hexed(at.BUNDLER),
                "input": hexed(data or b""),
            }
        )

    def _by_tag(self, block: str) -> int:
        if block == "latest":
            return self.tip
        return max(self.tip - FINALITY_BLOCKS, 0) if block == "finalized" else int(block, 16)

    def _known(self, block_hash: str) -> int:
        number = self._number.get(block_hash)
        if number is None:
            raise Refusal("unknown block")
        return number

    def _at(self, block: Any) -> int:
        return self._known(block["blockHash"]) if isinstance(block, dict) else self._by_tag(block)


_METHODS: dict[str, Callable[..., bytes]] = {
    "eth_chainId": HistoryNode._chain_id,
    "eth_blockNumber": HistoryNode._block_number,
    "eth_getBlockByNumber": HistoryNode._block_by_number,
    "eth_getBlockByHash": HistoryNode._block_by_hash,
    "eth_getLogs": HistoryNode._logs,
    "eth_getStorageAt": HistoryNode._storage,
    "eth_getCode": HistoryNode._code,
    "eth_getTransactionByBlockHashAndIndex": HistoryNode._transaction,
    "eth_call": HistoryNode._refused_call,
}
_IMPLEMENTATION = b'"%b"' % hexed(_word(at.IMPLEMENTATION)).encode()
_ENABLED = b'"%b"' % hexed(_word(SENTINEL_MODULE)).encode()
_CONTRACTS = {hexed(at.FACTORY), hexed(at.SEED_TOKEN), hexed(at.SEED_SESSION_MODULE)}
_MANAGER_SLOT = hexed(module_slot(at.MANAGER))


def _alternatives(given: list[str] | str | None) -> set[str]:
    """Return what a filter allows in one place of the topics; empty: anything."""
    return {given} if isinstance(given, str) else set(given or ())


_FEW = 8


def _with_topics(fragments: Iterable[bytes], others: Sequence[set[str]]) -> Iterator[bytes]:
    """Yield the logs whose topics behind the first are allowed, one by one."""
    # Of one account among thousands: nearly every fragment can be passed over unread.
    rare = next((allowed for allowed in others if 0 < len(allowed) <= _FEW), set())
    needles = [text.encode() for text in rare]
    for fragment in fragments:
        if needles and not any(needle in fragment for needle in needles):
            continue
        for log in msgspec.json.decode(b"[%b]" % fragment, type=list[dict[str, Any]]):
            topics = log["topics"][1:]
            if len(topics) >= len(others) and all(
                not allowed or topic_ in allowed
                for topic_, allowed in zip(topics, others, strict=False)
            ):
                yield msgspec.json.encode(log)


def _transaction_hash(number: int, index: int) -> str:
    return f"0x{number:032x}{index:032x}"


def _creation(address: Address) -> tuple[Address, Sequence[bytes], bytes]:
    names = (topic.ACCOUNT_CREATION, _word(address), _word(at.ECDSA_MODULE), _word(0))
    return at.FACTORY, names, b""


def _operation(operation: Operation) -> tuple[Address, Sequence[bytes], bytes]:
    names = (
        topic.USER_OPERATION_EVENT,
        operation.hash(),
        _word(operation.account),
        _word(0),
    )
    data = b"".join(map(_word, (operation.nonce, 1, 21_000_000, 21_000)))
    return at.ENTRY_POINT, names, data


def _transfer(transfer: Transfer) -> tuple[Address, Sequence[bytes], bytes]:
    places = (_word(at.BUNDLER), _word(transfer.giver), _word(transfer.taker))
    if len(transfer.items) == 1:
        return (
            at.SEED_TOKEN,
            (topic.TRANSFER_SINGLE, *places),
            b"".join(map(_word, transfer.items[0])),
        )
    data = encode(["uint256[]", "uint256[]"], list(zip(*transfer.items, strict=True)))
    return at.SEED_TOKEN, (topic.TRANSFER_BATCH, *places), data


async def serve(size: Size) -> None:
    """Answer until standard input ends."""
    node = HistoryNode(HistoryChain(size))

    async def rpc(request: web.Request) -> web.Response:
        body = node.answer(await request.read())
        return web.Response(body=body, content_type="application/json")

    async def mine(request: web.Request) -> web.Response:
        asked = await request.json()
        number = node.mine(asked["account"], Hash32(bytes.fromhex(asked["root"][2:])))
        return web.json_response({"number": number})

    async def asked(_request: web.Request) -> web.Response:
        return web.json_response(node.asked)

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/", rpc), web.post("/mine", mine), web.get("/asked", asked)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(Size(**json.loads(sys.argv[1]))))
