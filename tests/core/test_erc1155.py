from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi import encode

from indexer.core.events import decode_logs
from tests.core.make_logs import STRANGER, TOKEN, WATCH, A, make_log, transfer

TRANSFER_BATCH = "TransferBatch(address,address,address,uint256[],uint256[])"


def test_a_batch_keeps_repeated_ids_and_zero_amounts():
    """One row per item of mintBatchTo([1,1,2],[5,0,7]), in order."""
    log = make_log(TOKEN, TRANSFER_BATCH, [A, bytes(20), A, [1, 1, 2], [5, 0, 7]])
    found = decode_logs([log], WATCH).transfers
    assert [(t.batch_index, t.token_id, t.amount) for t in found] == [
        (0, 1, 5),
        (1, 1, 0),
        (2, 2, 7),
    ]


@pytest.mark.parametrize(("ids", "values"), [([1, 2], [1]), ([], [1]), ([1], [])])
def test_mismatched_arrays_are_undecoded(ids, values):
    """Ids and values of different number move nothing."""
    log = make_log(TOKEN, TRANSFER_BATCH, [A, A, A, ids, values])
    decoded = decode_logs([log], WATCH)
    (row,) = decoded.undecoded
    assert decoded.transfers == ()
    assert f"{len(ids)} ids and {len(values)} values" in row.reason


def test_a_batch_of_thousands_is_read_whole():
    """A huge array is so many rows, and arrays that share their bytes are allowed."""
    log = make_log(TOKEN, TRANSFER_BATCH, [A, A, A, [7] * 4000, [2**256 - 1] * 4000])
    assert len(decode_logs([log], WATCH).transfers) == 4000
    shared = encode(["uint256"] * 5, [64, 64, 2, 8, 9])
    found = decode_logs([replace(log, data=shared)], WATCH).transfers
    assert [(t.token_id, t.amount) for t in found] == [(8, 8), (9, 9)]


def test_a_hostile_uri_is_scrubbed_and_cut():
    """100 kB of text with NUL and broken UTF-8 becomes 8192 characters Postgres takes."""
    hostile = (b"\x00a\xff" + "€".encode()) * 20_000
    log = make_log(TOKEN, "URI(string,uint256)", ["", 5])
    log = replace(log, data=encode(["bytes"], [hostile]))
    (row,) = decode_logs([log], WATCH).uris
    assert row.value == ("a\ufffd€" * 8192)[:8192]
    assert row.token_id == 5


def test_every_emitter_counts_when_all_contracts_are_followed():
    """With no list of ERC-1155 contracts each emitter is one."""
    log = replace(transfer(bytes(20), A), address=STRANGER)
    assert decode_logs([log], WATCH).transfers == ()
    (row,) = decode_logs([log], replace(WATCH, erc1155=None)).transfers
    assert row.contract == STRANGER


def test_bytes_after_the_data_are_ignored():
    """What follows the declared values is not part of them, as for every ABI decoder."""
    log = transfer(bytes(20), A, amount=3)
    (row,) = decode_logs([replace(log, data=log.data + b"more")], WATCH).transfers
    assert row.amount == 3
