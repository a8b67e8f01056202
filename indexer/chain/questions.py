"""Questions about state at block hashes, put to the endpoints of a chain until one has the state.

An endpoint that does not archive refuses old state. By block hash any other endpoint can answer
instead: it has the state of that very block, or says that it has not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from indexer.chain.readers import Request
from indexer.chain.refusals import meaning_of, typed
from indexer.chain.rpc import BATCH_CALLS, Node, NodeRefusedError
from indexer.errors import BlockUnknownError, NodeError, StatePrunedError

T = TypeVar("T")

WORDS_PER_REQUEST = 10_000
"""Bounds the body of a request: at 72 bytes a word it stays below nginx' limit of a megabyte."""
_ARCHIVE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """One element of a batch. `understand` takes its result, or raises ValueError."""

    request: Request
    understand: Callable[[str], T]
    words: int = 1
    """How many words it asks for."""


async def ask(node: Node, questions: Sequence[Question[T]]) -> list[T | NodeError]:
    """Return each answer, or why there is none, typed; what spoils a whole request is raised.

    StatePrunedError: no endpoint gave the state. The others of the chain can only help: one that
    cannot be reached or fails is passed over. Only if one of them does not take a question in the
    form for many words, and none has answered it, that is returned: it may take another form.
    """
    found: list[T | NodeError] = []
    for part in _parts(questions):
        answers = await _ask_part(node, part)
        found += answers
    return found


async def _ask_part(node: Node, questions: Sequence[Question[T]]) -> list[T | NodeError]:
    raw = await node.batch([question.request for question in questions], str)
    found: list[T | NodeError] = []
    for question, answer in zip(questions, raw, strict=True):
        understood = _understood(node, question, answer)
        found.append(understood)
    # Who refused is in the refusal: with a failover in between it is not always the same endpoint.
    refused_by = {
        index: error.where
        for index, error in enumerate(raw)
        if isinstance(error, NodeRefusedError) and isinstance(found[index], StatePrunedError)
    }
    for endpoint in _archives_first(node):
        indexes = [index for index, where in refused_by.items() if where != endpoint]
        if not indexes:
            continue
        wanted = [questions[index] for index in indexes]
        try:
            raw = await node.batch([question.request for question in wanted], str, only=endpoint)
        except NodeError:
            continue
        for index, question, answer in zip(indexes, wanted, raw, strict=True):
            better = _understood(node, question, answer)
            if isinstance(better, NodeError):
                if question.words > 1 and refuses_the_form(better):
                    found[index] = better
            else:
                found[index] = better
                del refused_by[index]
                node.state_habits.archive = endpoint
                now = asyncio.get_running_loop().time()
                node.state_habits.archive_until_seconds = now + _ARCHIVE_SECONDS
    return found


def refuses_the_form(error: NodeError) -> bool:
    """Say whether the same words, asked for in another form, might be given."""
    if isinstance(error, NodeRefusedError):
        return meaning_of(error) != "rate"
    return not isinstance(error, StatePrunedError | BlockUnknownError)


def _archives_first(node: Node) -> list[str]:
    habits = node.state_habits
    recent = asyncio.get_running_loop().time() < habits.archive_until_seconds
    # False sorts before True; the rest stays in the order configured.
    return sorted(node.endpoint_names, key=lambda name: not (recent and name == habits.archive))


def _understood(node: Node, question: Question[T], answer: str | NodeError) -> T | NodeError:
    if isinstance(answer, NodeError):
        return typed(answer)
    try:
        return question.understand(answer)
    except ValueError as error:
        return node.bad_answer(question.request[0], error)


def _parts(questions: Sequence[Question[T]]) -> Iterator[list[Question[T]]]:
    """Cut into what one HTTP request carries."""
    part: list[Question[T]] = []
    words = 0
    for question in questions:
        if part and (len(part) == BATCH_CALLS or words + question.words > WORDS_PER_REQUEST):
            yield part
            part, words = [], 0
        part.append(question)
        words += question.words
    if part:
        yield part
