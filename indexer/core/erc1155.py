"""ERC-1155 logs to rows. The contracts are strangers: any text, any number, any length.

Source: EIP-1155.
"""

from __future__ import annotations

from indexer.core.abi import (
    DecodeError,
    address_of,
    bool_of,
    bytes_at,
    tail_at,
    uint_array_at,
    uint_at,
    word_at,
)
from indexer.core.decoded import Erc1155Approval, Erc1155Transfer, Erc1155Uri
from indexer.core.topics import FORMS, TRANSFER_SINGLE
from indexer.core.types import Hash32, Log

MAX_URI_CHARACTERS = 8192


def decode_transfers(log: Log, user_op_hash: Hash32 | None) -> list[Erc1155Transfer]:
    """Return one row per moved id of a TransferSingle or TransferBatch, in the log's order.

    Repeated ids and zero amounts are kept; an empty batch gives no rows. Raises DecodeError if
    any part does not fit: then nothing of the log counts.
    """
    _check_topics(log)
    operator, from_address, to_address = (address_of(topic) for topic in log.topics[1:])
    if log.topics[0] == TRANSFER_SINGLE:
        token_ids = [uint_at(log.data, 0)]
        amounts = [uint_at(log.data, 32)]
    else:
        token_ids = uint_array_at(log.data, tail_at(log.data, 0, 0))
        amounts = uint_array_at(log.data, tail_at(log.data, 0, 32))
    if len(token_ids) != len(amounts):
        raise DecodeError(f"TransferBatch has {len(token_ids)} ids and {len(amounts)} values")
    return [
        Erc1155Transfer(
            log,
            log.address,
            batch_index,
            operator,
            from_address,
            to_address,
            token_id,
            amount,
            user_op_hash,
        )
        for batch_index, (token_id, amount) in enumerate(zip(token_ids, amounts, strict=True))
    ]


def decode_approval(log: Log) -> Erc1155Approval:
    """Return the row of an ApprovalForAll; raises DecodeError if it does not fit."""
    _check_topics(log)
    return Erc1155Approval(
        log,
        log.address,
        account=address_of(log.topics[1]),
        operator=address_of(log.topics[2]),
        approved=bool_of(word_at(log.data, 0)),
    )


def decode_uri(log: Log) -> Erc1155Uri:
    """Return the row of a URI event; raises DecodeError if it does not fit.

    Bytes that are no UTF-8 become U+FFFD, NUL is dropped, the rest cut to 8192 characters.
    """
    _check_topics(log)
    text = bytes_at(log.data, tail_at(log.data, 0, 0)).replace(b"\x00", b"")
    return Erc1155Uri(
        log,
        log.address,
        token_id=uint_at(log.topics[1], 0),
        # Cut before decoding too: 4 bytes are the longest character.
        value=text[: 4 * MAX_URI_CHARACTERS].decode(errors="replace")[:MAX_URI_CHARACTERS],
    )


def _check_topics(log: Log) -> None:
    form = FORMS[log.topics[0]]
    if len(log.topics) != form.topic_count:
        raise DecodeError(f"{form.name} has {len(log.topics)} topics, not {form.topic_count}")
