"""Logs, with proof that they belong to the blocks asked for.

Above finality by block hash: an answer by number does not say which block of that number it saw.
Below it by range, together with the header of the last block: a back-end that lags answers `[]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

from indexer.chain import wire
from indexer.chain.endpoint import NodeTimeoutError
from indexer.chain.head import by_number, header_or_none
from indexer.chain.refusals import RangeRefusedError, meaning_of, suggested_blocks, typed
from indexer.chain.rpc import BATCH_CALLS, Node, NodeRefusedError
from indexer.core.types import Address, BlockHeader, Hash32, Log
from indexer.errors import BlockUnknownError, NodeError, RangeTooLargeError

_METHOD = "eth_getLogs"
_LEAST_ADDRESSES = 10
_MOST_BLOCKS = 20_000
_MOST_LOGS = 10_000
_FORGIVEN_AFTER = 100
"""So many ranges later a node that refused a size is asked for it again: its load may have gone."""
_Answer = list[wire.RawLog] | wire.RawHeader | None
_ANSWER = cast("type[_Answer]", _Answer)


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Which logs: of any of `addresses` (None: of every contract) with topic0 in `topics`.

    No topics means all; no addresses (an empty tuple) means nothing is asked at all. `named` not
    None: only those that name one of these in the topic at `position` (1 to 3).
    """

    addresses: tuple[Address, ...] | None
    topics: tuple[Hash32, ...] = ()
    named: tuple[Address, ...] | None = None
    position: int = 1


def _as_topic(address: Address) -> Hash32:
    return Hash32(bytes(12) + address)


@dataclass(frozen=True, slots=True)
class RangeLogs:
    """The logs of a range, sorted, and the header of its last block."""

    logs: list[Log]
    last_header: BlockHeader


@dataclass(slots=True)
class RangeSize:
    """How many blocks to ask for at once: shrinks when the node objects, grows when it does not."""

    blocks: int = 500
    most_blocks: int = _MOST_BLOCKS
    most_logs: int = _MOST_LOGS
    """What is in memory at once is bounded by what comes, not by how many blocks it comes from."""
    _good: int = 0
    """The largest size that was accepted since the last refusal of one."""
    _ceiling: int | None = None
    _accepted: int = 0

    def narrow(self, error: RangeTooLargeError | None = None) -> None:
        """Take the smaller number the node named, else what it accepted before, else half.

        Never below one block. What was refused is not asked for again at once: each refusal is
        a request for nothing.
        """
        suggested = error.suggested_blocks if isinstance(error, RangeRefusedError) else None
        if suggested is not None and suggested < self.blocks:
            self.blocks = self._ceiling = max(suggested, 1)
        elif 0 < self._good < self.blocks:
            self.blocks = self._ceiling = self._good
        else:
            self.blocks = max(self.blocks // 2, 1)
        self._good = self._accepted = 0

    def grow(self, asked_blocks: int, logs: int = 0) -> None:
        """Take a quarter more, at least one block; fewer where a range brought too many logs.

        A range of fewer blocks than could have been asked for proves nothing of more.
        """
        if logs > self.most_logs:
            self.blocks = max(min(self.blocks, asked_blocks * self.most_logs // logs), 1)
            return
        if asked_blocks < self.blocks:
            return
        self._good = max(self._good, self.blocks)
        self._accepted += 1
        if self._accepted >= _FORGIVEN_AFTER:
            self._ceiling = None
        if logs * 5 // 4 <= self.most_logs:
            most = self.most_blocks if self._ceiling is None else self._ceiling
            grown = max(self.blocks * 5 // 4, self.blocks + 1)
            self.blocks = max(self.blocks, min(grown, most))


async def fetch_logs_by_hash(
    node: Node, headers: Sequence[BlockHeader], requests: Sequence[LogRequest]
) -> list[Log]:
    """Return the logs of exactly these blocks, sorted by block number and log index.

    Raises BlockUnknownError where the node does not know a hash, RangeRefusedError where one block
    is too much for it, NodeAnswerError where an answer holds anything that was not asked for.
    """
    while True:
        asked = list(_per_call(requests, node.addresses_per_filter))
        calls = [(header, request) for header in headers for request in asked]
        answers = await _in_parts(
            node,
            [
                (_METHOD, [_filter(request, {"blockHash": wire.to_hex(header.hash)})])
                for header, request in calls
            ],
        )
        if not _fewer_addresses(node, answers):
            break
    found = _Found(node)
    for (header, request), answer in zip(calls, answers, strict=True):
        if isinstance(answer, NodeError):
            raise _refused(answer, blocks=1)
        for log in found.converted(answer, request):
            if log.block_hash != header.hash or log.block_number != header.number:
                raise node.bad_answer(
                    _METHOD, f"a log of another block came for block {header.number}"
                )
            found.add(log)
    return found.sorted()


async def _in_parts(
    node: Node, calls: Sequence[tuple[str, list[Any]]]
) -> list[list[wire.RawLog] | NodeError]:
    """Ask everything, in halves where the answers together are larger than is accepted.

    Blocks that are full of logs would otherwise hold the live lane up for ever.
    """
    try:
        return await node.batch(calls, wire.RAW_LOGS)
    except RangeTooLargeError:
        if len(calls) == 1:
            raise
    middle = len(calls) // 2
    return await _in_parts(node, calls[:middle]) + await _in_parts(node, calls[middle:])


async def fetch_logs_in_range(
    node: Node,
    first: int,
    last: int,
    requests: Sequence[LogRequest],
    *,
    known_last: BlockHeader | None = None,
) -> RangeLogs:
    """Return the logs of blocks `first` to `last` inclusive, proved to reach to `last`.

    Every HTTP request also asks for the header of `last`: it must be there, have that number, be
    the same each time, equal `known_last` if given, and be the block of all logs at `last`. Raises
    RangeRefusedError for too many blocks, BlockUnknownError if the node is not there yet.
    """
    if not 0 <= first <= last:
        raise ValueError(f"blocks {first} to {last} are no range")
    blocks = last - first + 1
    bounds = {"fromBlock": hex(first), "toBlock": hex(last)}
    found = _Found(node)
    witness = known_last
    pending = list(_per_call(requests, node.addresses_per_filter))
    # One short of a full batch: the witness must come with the very answer it speaks for.
    most_calls = BATCH_CALLS - 1
    while True:
        chunk = pending[:most_calls]
        calls = [(_METHOD, [_filter(request, bounds)]) for request in chunk]
        try:
            *answers, header = await node.batch([*calls, by_number(last)], _ANSWER)
        except RangeTooLargeError:
            # One block may be fuller than an answer may be: then each filter for itself.
            if blocks > 1 or most_calls == 1:
                raise
            most_calls = 1
            continue
        except (NodeTimeoutError, NodeRefusedError) as error:
            raise _refused(error, blocks=blocks) from None
        if _fewer_addresses(node, answers):
            pending = list(_per_call(pending, node.addresses_per_filter))
            continue
        for request, answer in zip(chunk, answers, strict=True):
            if isinstance(answer, NodeError):
                raise _refused(answer, blocks=blocks)
            if not isinstance(answer, list):
                raise node.bad_answer(_METHOD, "it is not a list of logs")
            for log in found.converted(answer, request):
                if not first <= log.block_number <= last:
                    raise node.bad_answer(
                        _METHOD, f"a log of block {log.block_number} came for {first} to {last}"
                    )
                found.add(log)
        witness = _witness(node, header, last, witness)
        pending = pending[len(chunk) :]
        if not pending:
            break
    logs = found.sorted()
    found.check_block_hashes(logs, witness)
    return RangeLogs(logs, witness)


def _witness(
    node: Node,
    answer: list[wire.RawLog] | wire.RawHeader | NodeError | None,
    last: int,
    earlier: BlockHeader | None,
) -> BlockHeader:
    """Return the header of the range's last block, equal to the one known from before."""
    if isinstance(answer, list):
        raise node.bad_answer(_METHOD, "a list came where a header was asked for")
    header = header_or_none(node, answer, last)
    if header is None:
        raise BlockUnknownError(
            f"{node.name}: the node has no block {last} yet, so its logs up to there prove nothing",
            remedy="the step is repeated until the node has caught up",
        )
    if earlier is not None and header.hash != earlier.hash:
        raise node.bad_answer(_METHOD, f"block {last} is another block than before")
    return header


class _Found:
    """Collects logs of several answers: same place means same log, else the node contradicts."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._logs: dict[tuple[bytes, int], Log] = {}

    def converted(self, raws: Iterable[wire.RawLog], request: LogRequest) -> Iterator[Log]:
        """Yield the logs of one answer; one that its filter excludes is an error."""
        addresses = None if request.addresses is None else frozenset(request.addresses)
        topics = frozenset(request.topics)
        named = None if request.named is None else frozenset(map(_as_topic, request.named))
        reader = wire.LogReader()
        for raw in raws:
            try:
                log = reader.log(raw)
            except ValueError as error:
                raise self._node.bad_answer(_METHOD, error) from None
            # A proxy that ignores the filter would bring in rows of contracts nobody follows.
            if (
                (addresses is not None and log.address not in addresses)
                or (topics and (not log.topics or log.topics[0] not in topics))
                or (named is not None and named.isdisjoint(log.topics[request.position :][:1]))
            ):
                raise self._node.bad_answer(
                    _METHOD, f"a log in block {log.block_number} was not asked for"
                )
            yield log

    def add(self, log: Log) -> None:
        before = self._logs.setdefault((log.block_hash, log.log_index), log)
        if before is not log and before != log:
            raise self._node.bad_answer(
                _METHOD,
                f"log {log.log_index} of block {log.block_number} came twice with other content",
            )

    def sorted(self) -> list[Log]:
        return sorted(self._logs.values(), key=lambda log: (log.block_number, log.log_index))

    def check_block_hashes(self, logs: Sequence[Log], last: BlockHeader) -> None:
        """Refuse sorted logs of two blocks with one number, or of another last block."""
        for before, after in pairwise(logs):
            if before.block_number == after.block_number and before.block_hash != after.block_hash:
                raise self._node.bad_answer(
                    _METHOD, f"two different blocks {after.block_number} in one answer"
                )
        if logs and logs[-1].block_number == last.number and logs[-1].block_hash != last.hash:
            raise self._node.bad_answer(
                _METHOD, f"logs and header of block {last.number} are of different blocks"
            )


def _per_call(requests: Iterable[LogRequest], most: int) -> Iterator[LogRequest]:
    """Yield the requests with at most this many addresses each, without those that ask nothing."""
    for request in requests:
        for addresses in _chunks(request.addresses, most):
            for named in _chunks(request.named, most):
                yield replace(request, addresses=addresses, named=named)


def _chunks(
    addresses: tuple[Address, ...] | None, most: int
) -> Iterator[tuple[Address, ...] | None]:
    """Yield the addresses in parts; None, which is no restriction, stays one."""
    if addresses is None:
        yield None
        return
    for start in range(0, len(addresses), most):
        yield addresses[start : start + most]


def _filter(request: LogRequest, bounds: Mapping[str, str]) -> dict[str, Any]:
    """Return the filter object. An empty address list never gets here: to a node it means all."""
    fields: dict[str, Any] = dict(bounds)
    if request.addresses is not None:
        fields["address"] = [wire.to_hex(address) for address in request.addresses]
    topics: list[list[str] | None] = []
    if request.topics or request.named is not None:
        topics.append([wire.to_hex(topic) for topic in request.topics] or None)
    if request.named is not None:
        topics += [None] * (request.position - 1)
        topics.append([wire.to_hex(_as_topic(address)) for address in request.named])
    if topics:
        fields["topics"] = topics
    return fields


def _fewer_addresses(node: Node, answers: Sequence[object]) -> bool:
    """Lower the node's addresses per filter if it objected to them; say whether to ask again."""
    objected = any(
        isinstance(answer, NodeRefusedError) and meaning_of(answer) == "addresses"
        for answer in answers
    )
    if not objected or node.addresses_per_filter <= _LEAST_ADDRESSES:
        return False
    node.addresses_per_filter = max(node.addresses_per_filter // 4, _LEAST_ADDRESSES)
    return True


def _refused(error: NodeError, *, blocks: int) -> NodeError:
    """Return the error typed; what may be cured by fewer blocks is a RangeRefusedError."""
    if isinstance(error, NodeTimeoutError):
        # A timeout on one block is not about the size.
        return RangeRefusedError(str(error)) if blocks > 1 else error
    if isinstance(error, NodeRefusedError) and meaning_of(error) == "narrow":
        return RangeRefusedError(str(error), suggested_blocks=suggested_blocks(error.text))
    return typed(error)
