"""State of many contracts at many block hashes, in as few requests as the node allows."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from indexer.chain import wire
from indexer.chain.questions import Question, ask, refuses_the_form
from indexer.chain.readers import (
    MAX_READS,
    Form,
    deployless_request,
    marked_words,
    override_request,
    probe,
)
from indexer.chain.refusals import is_revert, meaning_of
from indexer.chain.rpc import Node, NodeRefusedError
from indexer.core.merkle import root_slot
from indexer.core.types import Address, Hash32
from indexer.errors import BlockUnknownError, NodeError, StatePrunedError

_BULK_FORMS: Sequence[Form] = ("override", "deployless")
_DOUBT_SECONDS = 60.0
_LESSER_FORM_SECONDS = 3600.0
"""A node that refused the best form may have been upgraded, or in a passing trouble."""


@dataclass(frozen=True, slots=True)
class StateRead:
    """One storage word: of `contract` at `slot`, after the block with this hash.

    account: whose root it is, where `contract` is a session key manager; such a word can be asked
    of the manager too. Made by `root`, so that slot and account fit.
    """

    block_hash: Hash32
    contract: Address
    slot: Hash32
    account: Address | None = field(default=None, compare=False)

    @classmethod
    def root(cls, block_hash: Hash32, manager: Address, account: Address) -> Self:
        """Return the read of an account's root in a manager."""
        return cls(block_hash, manager, root_slot(account), account)


async def read_state(node: Node, reads: Sequence[StateRead]) -> list[Hash32]:
    """Return the words in the order asked; the same word is asked for once.

    Raises BlockUnknownError if the node does not know a hash, StatePrunedError if no endpoint has
    the state, NodeAnswerError for null or anything that is not a word. A contract without code
    reads as zeros: whether it is deployed is another question. Source: EIP-1898.
    """
    words: list[Hash32] = []
    for found in await read_state_each(node, reads):
        if isinstance(found, StatePrunedError):
            raise found
        words.append(found)
    return words


async def read_state_each(
    node: Node, reads: Sequence[StateRead]
) -> list[Hash32 | StatePrunedError]:
    """Return the words in the order asked; in place of one whose state is gone, the error.

    Every other error is raised, as by read_state: an error is never a zero.
    """
    groups = _groups(reads)
    form = await _form(node) if any(len(group) > 1 for group in groups) else "single"
    groups = [part for group in groups for part in _readable(group, form)]
    words: dict[StateRead, Hash32 | StatePrunedError] = {}
    refused: list[StateRead] = []
    answers = await ask(node, [_question(group, form) for group in groups])
    for group, answer in zip(groups, answers, strict=True):
        if isinstance(answer, StatePrunedError):
            words.update(dict.fromkeys(group, answer))
        elif not isinstance(answer, NodeError):
            words.update(zip(group, answer, strict=True))
        elif len(group) > 1 and refuses_the_form(answer):
            refused += group
        else:
            raise answer
    if not refused:
        return [words[read] for read in reads]
    if len(refused) == sum(len(group) for group in groups if len(group) > 1):
        # What the probe promised the node does not keep, or another endpoint has taken over.
        _believe(node, "single", _DOUBT_SECONDS)
    again = await ask(node, [_question([read], "single") for read in refused])
    for read, answer in zip(refused, again, strict=True):
        if isinstance(answer, StatePrunedError):
            words[read] = answer
        elif isinstance(answer, NodeError):
            raise answer
        else:
            (words[read],) = answer
    return [words[read] for read in reads]


async def read_state_or_none(node: Node, reads: Sequence[StateRead]) -> list[Hash32 | None]:
    """Return the words in the order asked, None where the node has dropped the state or the block.

    None says nothing of the value. Every other error is raised, as by read_state.
    """
    try:
        words = await read_state_each(node, reads)
    except BlockUnknownError:
        if len({read.block_hash for read in reads}) == 1:
            return [None] * len(reads)
        middle = len(reads) // 2
        return await read_state_or_none(node, reads[:middle]) + await read_state_or_none(
            node, reads[middle:]
        )
    return [None if isinstance(word, StatePrunedError) else word for word in words]


async def read_codes(node: Node, reads: Sequence[tuple[Hash32, Address]]) -> list[bytes]:
    """Return the code at (block hash, address); empty: no contract. Errors as read_state."""
    questions = [
        Question(
            ("eth_getCode", [wire.to_hex(address), {"blockHash": wire.to_hex(block_hash)}]),
            wire.data,
        )
        for block_hash, address in reads
    ]
    codes: list[bytes] = []
    for answer in await ask(node, questions):
        if isinstance(answer, NodeError):
            raise answer
        codes.append(answer)
    return codes


async def refusal(node: Node, block_hash: Hash32, to: Address, call: bytes) -> str | None:
    """Return why a contract refuses a call in the state after a block; None: it takes the call.

    Only a revert is a refusal. Every other error is raised, as by read_state; so a contract
    without code, which takes every call, has to be told apart by read_codes.
    """
    transaction = {"to": wire.to_hex(to), "data": wire.to_hex(call)}
    request = ("eth_call", [transaction, {"blockHash": wire.to_hex(block_hash)}])
    (answer,) = await ask(node, [Question(request, wire.data)])
    if isinstance(answer, NodeRefusedError) and is_revert(answer):
        return answer.text or "reverted"
    if isinstance(answer, NodeError):
        raise answer
    return None


def _groups(reads: Iterable[StateRead]) -> list[list[StateRead]]:
    """Return the distinct reads by block and contract, at most MAX_READS in one group."""
    by_place: dict[tuple[Hash32, Address], list[StateRead]] = {}
    for read in dict.fromkeys(reads):
        by_place.setdefault((read.block_hash, read.contract), []).append(read)
    return [
        group[start : start + MAX_READS]
        for group in by_place.values()
        for start in range(0, len(group), MAX_READS)
    ]


def _readable(group: list[StateRead], form: Form) -> list[list[StateRead]]:
    """Return the group if this form can read it at once, else each read for itself."""
    roots_only = all(read.account is not None for read in group)
    if form == "override" or (form == "deployless" and roots_only):
        return [group]
    return [[read] for read in group]


def _question(group: Sequence[StateRead], form: Form) -> Question[list[Hash32]]:
    contract, block = group[0].contract, {"blockHash": wire.to_hex(group[0].block_hash)}
    if len(group) == 1:
        place = [wire.to_hex(contract), wire.to_hex(group[0].slot)]
        return Question(("eth_getStorageAt", [*place, block]), lambda text: [wire.word(text)])
    if form == "override":
        request = override_request(contract, [read.slot for read in group], block)
    else:
        accounts = [read.account for read in group if read.account is not None]
        request = deployless_request(contract, accounts, block)
    return Question(request, lambda text: marked_words(text, len(group)), len(group))


async def _form(node: Node) -> Form:
    """Return the best form that the node is able to; found out by asking it, and remembered."""
    habits = node.state_habits
    if asyncio.get_running_loop().time() < habits.form_until_seconds:
        return habits.form
    best: Form = "single"
    doubtful = False
    for form in _BULK_FORMS:
        try:
            marked_words(await node.call(*probe(form), str), 0)
        except ValueError:
            continue
        except NodeRefusedError as error:
            doubtful = doubtful or meaning_of(error) != "other"
        except NodeError:
            # Nothing is proved by a connection that failed: the reads themselves will tell.
            doubtful = True
        else:
            best = form
            break
    if best == "override":
        _believe(node, best, math.inf)
    else:
        _believe(node, best, _DOUBT_SECONDS if doubtful else _LESSER_FORM_SECONDS)
    return best


def _believe(node: Node, form: Form, seconds: float) -> None:
    node.state_habits.form = form
    node.state_habits.form_until_seconds = asyncio.get_running_loop().time() + seconds
