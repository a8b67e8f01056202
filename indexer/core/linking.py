"""Which user operation of a bundle a log belongs to.

handleOps validates every operation, emits BeforeExecution, then executes them one after the
other, each ending in its UserOperationEvent. handleAggregatedOps emits BeforeExecution before
the validations and SignatureAggregatorChanged before each group's executions. One transaction
may hold several bundles; an entry point cannot be entered twice at once, but an operation may
run a bundle of another entry point. Source: EntryPoint.sol of @account-abstraction 0.6.0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from indexer.core.topics import (
    BEFORE_EXECUTION,
    SIGNATURE_AGGREGATOR_CHANGED,
    USER_OPERATION_EVENT,
)
from indexer.core.types import Address, Hash32, Log

_TransactionKey = tuple[int, Hash32]


@dataclass(frozen=True, slots=True)
class _Span:
    """The logs strictly between two log indexes.

    `by_sender` None: they belong to `user_op_hash` (None: an operation that cannot be read).
    Otherwise they are of the validation: each belongs to the operation of its account.
    """

    first: int
    end: int
    user_op_hash: Hash32 | None
    by_sender: Mapping[Address, Hash32] | None


@dataclass(slots=True)
class _Bundle:
    """A bundle while it is read. `border` is the log index where the executions begin."""

    after: int
    border: int
    operations: list[Log] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.operations[-1].log_index if self.operations else self.border


class OperationLinks:
    """Answers which user operation a log belongs to; made by `link_operations`."""

    __slots__ = ("_spans",)

    def __init__(self, spans: Mapping[_TransactionKey, tuple[tuple[_Span, ...], ...]]) -> None:
        self._spans = spans

    def user_op_hash(self, log: Log, account: Address) -> Hash32 | None:
        """Return the operation of this log, None where it belongs to none or cannot be told.

        `account` is whom the log speaks for: its emitter, or the account it names. Before the
        executions a log belongs to the operation of that account if it sent exactly one of
        the bundle.
        """
        executing: list[_Span] = []
        validating: set[Hash32] = set()
        for spans in self._spans.get((log.block_number, log.transaction_hash), ()):
            # Spans of one entry point do not overlap and stand in order.
            found = bisect_left(spans, log.log_index, key=lambda span: span.first) - 1
            if found < 0 or log.log_index >= spans[found].end:
                continue
            span = spans[found]
            if span.by_sender is None:
                executing.append(span)
            elif account in span.by_sender:
                validating.add(span.by_sender[account])
        if executing:
            # A bundle inside of an operation ends first: the innermost operation did it.
            return min(executing, key=lambda span: span.end).user_op_hash
        return validating.pop() if len(validating) == 1 else None


def link_operations(logs: Iterable[Log], entry_points: Collection[Address]) -> OperationLinks:
    """Read the bundles from all logs of the entry points, given in log order.

    They must be complete for each transaction: a missing UserOperationEvent of a stranger
    would give its logs to the operation after it.
    """
    marks: dict[_TransactionKey, dict[Address, list[Log]]] = {}
    for log in logs:
        if log.topics and log.topics[0] in _MARKS and log.address in entry_points:
            key = (log.block_number, log.transaction_hash)
            marks.setdefault(key, {}).setdefault(log.address, []).append(log)
    return OperationLinks(
        {
            key: tuple(_spans(of_entry_point) for of_entry_point in by_entry_point.values())
            for key, by_entry_point in marks.items()
        }
    )


_MARKS = frozenset({BEFORE_EXECUTION, SIGNATURE_AGGREGATOR_CHANGED, USER_OPERATION_EVENT})


def _spans(marks: Iterable[Log]) -> tuple[_Span, ...]:
    bundles: list[_Bundle] = []
    for mark in marks:
        topic = mark.topics[0]
        if topic == BEFORE_EXECUTION:
            after = bundles[-1].end if bundles else -1
            bundles.append(_Bundle(after=after, border=mark.log_index))
        elif topic == USER_OPERATION_EVENT:
            if not bundles:
                # No border was seen: only the emitter can say whose the logs before it are.
                bundles.append(_Bundle(after=-1, border=mark.log_index))
            bundles[-1].operations.append(mark)
        elif bundles and not bundles[-1].operations:
            bundles[-1].border = mark.log_index
    return tuple(span for bundle in bundles for span in _bundle_spans(bundle))


def _bundle_spans(bundle: _Bundle) -> Iterable[_Span]:
    if not bundle.operations:
        return
    sent: dict[Address, list[Hash32]] = {}
    for operation in bundle.operations:
        if _is_readable(operation):
            sent.setdefault(Address(operation.topics[2][12:]), []).append(operation.topics[1])
    by_sender = {sender: hashes[0] for sender, hashes in sent.items() if len(hashes) == 1}
    yield _Span(bundle.after, bundle.border, None, by_sender)
    first = bundle.border
    for operation in bundle.operations:
        hash_ = operation.topics[1] if _is_readable(operation) else None
        yield _Span(first, operation.log_index, hash_, None)
        first = operation.log_index


def _is_readable(operation: Log) -> bool:
    return len(operation.topics) == 4
