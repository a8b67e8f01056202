"""What stands beside a root in Postgres, held against traces: who made the change, and in what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from operator import itemgetter

import pytest
from eth_hash.auto import keccak

from indexer.core.merkle import session_leaf
from indexer.devnet import addresses as at
from indexer.devnet.accounts import running_devnet
from indexer.devnet.tools import Toolchain
from tests.fixtures_database import temporary_database
from tests.route_decoys import DECOYS
from tests.route_silent import SILENT_ROUTES
from tests.routes import MANAGERS
from tests.scenario_run import Row, Scenarios, hexed, play_and_index

pytestmark = pytest.mark.timeout(120)

OPERATION = ("calldata", "user_operation")
SESSION = ("calldata", "session_key")
OPAQUE_OPERATION = ("state", "user_operation")
MODULE = ("state", "module")
CALLED_BY_MODULE = ("event", "module")
"""The log of the module's call carries the hash of what sets this root."""
SILENT = ("state", "none")

ROUTES = {
    "01 execute_ncC": OPERATION,
    "02 execute": OPERATION,
    "02 other manager": OPERATION,
    "01 event": OPERATION,
    "03 executeBatch_y6U": OPERATION,
    "04 executeBatch": OPERATION,
    "05 undeployed": OPERATION,
    "05 undeployed, other manager": OPERATION,
    "06 two operations in one bundle": OPERATION,
    "08 bundler contract": OPAQUE_OPERATION,
    "09 operations from storage": OPAQUE_OPERATION,
    "10 two handleOps": OPAQUE_OPERATION,
    "11 handleAggregatedOps": OPERATION,
    "19 trailing bytes": OPERATION,
    "22 module, five arguments": CALLED_BY_MODULE,
    "23 module, four arguments": CALLED_BY_MODULE,
    "23 module, return data": CALLED_BY_MODULE,
    "24 module delegatecall": MODULE,
    "24 hidden in a library": MODULE,
    "25 MultiSend": MODULE,
    "26 module batch": CALLED_BY_MODULE,
    "29 another account's operation": CALLED_BY_MODULE,
    "30 in validation, then fails": CALLED_BY_MODULE,
    "31 in validation, nothing else": CALLED_BY_MODULE,
    "34 custom factory": ("state", "ambiguous"),
    "37 own fallback handler": ("state", "ambiguous"),
    "43 cleared": OPERATION,
    "a root with leading zeros": OPERATION,
    "a session key sets the root": SESSION,
    "the old session in the same bundle": OPERATION,
    "an older set again": OPERATION,
    "three managers in one operation": OPERATION,
    "a failed operation between two": OPERATION,
    "an account without index": OPERATION,
    "36 a stranger through the fallback": SILENT,
    "39 a handler set silently": SILENT,
    "41 another implementation": SILENT,
    "two modules in one block": CALLED_BY_MODULE,
    "two libraries in one block": ("state", "ambiguous"),
    "two operations by a bundler contract": ("state", "transaction"),
    "two operations, manager with event": ("event", "user_operation"),
    "the same root twice in one block": ("event", "module"),
    "36 a stranger, manager with event": ("event", "transaction"),
}
"""Evidence and attribution of each route's change."""

MIXED_ROUTES = {
    "three transactions in one block",
    "set for minting",
    "set for the router",
    "a session key sets the root/before",
    "the old session in the same bundle/before",
}
"""Several kinds of change at once, or a registration that another step may have made."""

TOKEN_MOVES = {
    hexed(keccak(signature.encode())[:4])
    for signature in (
        "mintTo(address,uint256,uint256)",
        "mintBatchTo(address,uint256[],uint256[])",
        "burn(address,uint256,uint256)",
        "burnBatch(address,uint256[],uint256[])",
        "safeTransferFrom(address,address,uint256,uint256,bytes)",
        "safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)",
    )
}


@pytest.fixture(scope="module")
async def run(
    toolchain: Toolchain,
    postgres_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scenarios]:
    async with (
        running_devnet(toolchain) as devnet,
        temporary_database(postgres_url, template_database) as live,
        temporary_database(postgres_url, template_database) as history,
    ):
        yield await play_and_index(devnet, live, history, tmp_path_factory.mktemp("scenarios"))


def rows_of(run: Scenarios, route: str) -> list[Row]:
    """The rows of the changes that a route reported, each of which must be there."""
    by_key = {(r["manager"], r["account"], r["block_number"]): r for r in run.rows}
    reported = [change for change in run.stage.report.changes if change.route == route]
    assert reported
    rows = [by_key[hexed(c.manager), hexed(c.account), c.block_number] for c in reported]
    assert [row["root"] for row in rows] == [hexed(change.root) for change in reported]
    return rows


@pytest.mark.parametrize("route", ROUTES)
async def test_a_route_is_found_and_its_maker_named(run: Scenarios, route: str) -> None:
    """Root, transaction and operation of each route are those of the trace, or are left open."""
    for row in rows_of(run, route):
        assert (row["evidence"], row["attribution"]) == ROUTES[route]
        true = run.true_write(row)
        told = row["attribution"] not in {"none", "ambiguous"}
        assert row["transaction_hash"] == (true.transaction_hash if told else None)
        # A transaction with several operations of the account leaves open which it was.
        if row["attribution"] in {"user_operation", "session_key", "module"}:
            assert row["user_op_hash"] == true.user_op_hash
        else:
            assert row["user_op_hash"] is None


async def test_every_route_is_expected(run: Scenarios) -> None:
    """The table of routes names each route that was played, and no other."""
    assert {change.route for change in run.stage.report.changes} == ROUTES.keys() | MIXED_ROUTES


async def test_rows_are_the_truth_at_every_block(run: Scenarios) -> None:
    """Also with changes that leave no log, watch.session_root equals eth_call at every block."""
    factory = {hexed(account) for account in run.stage.report.accounts}
    found = {
        (row["manager"], row["account"], row["block_number"]): row["root"]
        for row in run.rows
        if row["account"] in factory
    }
    assert found == run.changes


async def test_no_row_names_a_wrong_maker(run: Scenarios) -> None:
    """What is told of any change is what its trace says; the words are of the closed sets."""
    assert {row["evidence"] for row in run.rows} <= {
        *("state", "event", "calldata", "signature", "trace"),
    }
    assert {row["attribution"] for row in run.rows} <= {
        *("user_operation", "session_key", "module", "transaction", "ambiguous", "none"),
    }
    for row in run.rows:
        true = run.true_write(row)
        assert true.data[10:74] == row["root"][2:]
        assert row["transaction_hash"] in {None, true.transaction_hash}
        assert row["user_op_hash"] in {None, true.user_op_hash}


async def test_only_what_cannot_be_told_is_ambiguous(run: Scenarios) -> None:
    """One of two transactions that moved the account made the change, and neither was decoded.

    Of accounts that were tainted by then the logs alone name nobody.
    """
    tainted = {(one["account"], one["block_number"]) for one in run.slots if one["tainted"]}
    ambiguous = [
        row
        for row in run.rows
        if row["attribution"] == "ambiguous"
        and not any(a == row["account"] and n <= row["block_number"] for a, n in tainted)
    ]
    assert [row["block_number"] for row in ambiguous] == [
        row["block_number"] for row in rows_of(run, "two libraries in one block")
    ]
    (row,) = ambiguous
    acted = {
        event["transaction_hash"]
        for event in run.live["account_event"]
        if (event["account"], event["block_number"]) == (row["account"], row["block_number"])
    }
    assert len(acted) == 2


async def test_the_block_is_exact_where_logs_led_to_it(run: Scenarios) -> None:
    """Every change that a log announced is known to its block; a silent one is not called so."""
    for row in run.rows:
        assert row["change_block_exact"] == (row["attribution"] != "none")


async def test_each_root_is_linked_to_its_set(run: Scenarios) -> None:
    """Once stored, a set stands beside every change to its root; an unknown root has none."""
    roots = {s["set_id"]: (s["manager"], s["account"], s["root"]) for s in run.sets}
    known = set(roots.values())
    assert len(roots) == len(run.stage.report.sets)
    for row in run.rows:
        key = (row["manager"], row["account"], row["root"])
        assert roots.get(row["set_id"]) == (key if key in known else None)
    assert sum(row["set_id"] is not None for row in run.rows) >= 45


async def test_history_finds_what_was_followed(run: Scenarios) -> None:
    """A daemon that comes afterwards writes what one that followed every block has written."""
    assert run.history.keys() == run.live.keys()
    assert [name for name, rows in run.live.items() if not rows] == ["root_disagreement"]
    for name, live in run.live.items():
        history = run.history[name]
        assert [row for row in live if row not in history] == [], name
        assert [row for row in history if row not in live] == [], name
        assert len(live) == len(history)


@pytest.mark.parametrize("name", DECOYS)
async def test_a_look_alike_leaves_no_row(run: Scenarios, name: str) -> None:
    """What only looks like a change of a root is none."""
    assert len(run.spans[name]) >= 1
    assert run.during(name, run.rows) == []


@pytest.mark.parametrize("name", ["06", "07 set and back", "07 set and back in one block"])
async def test_a_root_inside_a_block_is_no_state(run: Scenarios, name: str) -> None:
    """The passing root is in session_root_transient, the block's end in session_root."""
    (passing,) = run.during(name, run.live["session_root_transient"])
    rows = run.during(name, run.rows)
    assert passing["root"] != passing["final_root"]
    assert passing["root"] not in {row["root"] for row in rows}
    assert [row["root"] for row in rows] == ([passing["final_root"]] if name == "06" else [])


@pytest.mark.parametrize("name", [*SILENT_ROUTES, "36 a stranger, manager with event"])
async def test_a_silent_change_is_of_a_tainted_account(run: Scenarios, name: str) -> None:
    """The account is marked tainted by the step's first block, and clean after its last."""
    (row,) = run.during(name, run.rows)
    seen = [one for one in run.slots if one["account"] == row["account"]]
    before = [one["tainted"] for one in seen if one["block_number"] < row["block_number"]]
    after = [one["tainted"] for one in seen if one["block_number"] <= run.spans[name][-1]]
    assert before[-1]
    # Putting the implementation back leaves no log of the vendor's: only a read shows it.
    assert not after[-1] or name == "40 and 41"


@pytest.mark.parametrize(
    "name", ["12 value refused", "13 later call reverts", "14 out of gas", "15 postOp reverts"]
)
async def test_a_failed_operation_may_give_no_reason(run: Scenarios, name: str) -> None:
    """The failure is stored from UserOperationEvent; UserOperationRevertReason is not awaited."""
    events = {event["event"] for event in run.during(name, run.live["account_event"])}
    assert "UserOperationRevertReason" not in events
    assert False in {op["success"] for op in run.during(name, run.live["user_operation"])}


async def test_a_session_used_after_its_root_was_replaced(run: Scenarios) -> None:
    """In one bundle the proof of the old root is true at validation: not a root, not a change."""
    (row,) = rows_of(run, "the old session in the same bundle")
    used = [
        op
        for op in run.during("old session", run.live["user_operation"])
        if op["block_number"] == row["block_number"] and op["validation_module"] == row["manager"]
    ]
    assert [op["success"] for op in used] == [True]
    assert used[0]["user_op_hash"] != row["user_op_hash"]
    assert run.during("old session", run.live["session_root_transient"]) == []


async def test_every_session_signed_operation_shows_its_session(run: Scenarios) -> None:
    """Manager, router and the manager with events: each use, with the set it is of."""
    leaves = {
        (hexed(stored.account), hexed(leaf))
        for stored in run.stage.report.sets.values()
        for leaf in map(session_leaf, stored.sessions)
    }
    signed = set(map(hexed, run.stage.report.session_ops))
    assert {use["user_op_hash"] for use in run.uses} == signed
    assert {(use["account"], use["leaf"]) for use in run.uses} <= leaves
    roots = {one["set_id"]: one["root"] for one in run.sets}
    for use in run.uses:
        assert use["known"]
        assert roots[use["set_id"]] == use["implied_root"]
        assert use["root_state"] == "held"
    by_router = run.during("router mints", run.uses)
    assert len(by_router) == 2
    assert {use["called"] for use in by_router} == {hexed(at.SEED_TOKEN)}


async def test_uses_are_counted_per_session(run: Scenarios) -> None:
    """watch.session says how often and when last each session signed."""
    counted = {
        (row["manager"], row["account"], row["leaf"]): (row["use_count"], row["last_used_block"])
        for row in run.sessions
    }
    found: dict[tuple[str, str, str], list[int]] = {}
    for use in run.uses:
        key = use["manager"], use["account"], use["leaf"]
        found.setdefault(key, []).append(use["block_number"])
    assert found
    expected = {key: (len(blocks), max(blocks)) for key, blocks in found.items()}
    assert counted == dict.fromkeys(counted, (0, None)) | expected


async def test_each_mint_by_a_session_names_it_and_fits(run: Scenarios) -> None:
    """Who minted what by which key: the session's own data names the recipient and the id."""
    mints = run.live["session_mint"]
    signed = set(map(hexed, run.stage.report.session_ops))
    moved = [t for t in run.live["erc1155_transfer"] if t["user_op_hash"] in signed]
    place = itemgetter("block_number", "log_index", "batch_index")
    assert sorted(map(place, mints)) == sorted(map(place, moved))
    for mint in run.during("session mint", mints) + run.during("router mints", mints):
        assert (mint["granted_recipient"], mint["granted_token_id"]) == (
            mint["to_address"],
            mint["token_id"],
        )
        assert mint["fits"]
        assert mint["session_key"]
    by_router = run.during("router mints", mints)
    assert len({mint["leaf"] for mint in by_router}) == len(by_router) == 2


async def test_a_root_set_by_a_session_key_names_the_key(run: Scenarios) -> None:
    """Attribution goes down to the session: its leaf; its key, where the layout is known."""
    (row,) = rows_of(run, "a session key sets the root")
    (use,) = [use for use in run.uses if use["user_op_hash"] == row["user_op_hash"]]
    assert (row["leaf"], row["session_key"]) == (use["leaf"], use["session_key"])


async def test_nothing_disagrees_with_state(run: Scenarios) -> None:
    """A node that tells the truth gives no false alarm, whatever the route."""
    assert run.live["root_disagreement"] == []


async def test_bundlers_are_named(run: Scenarios) -> None:
    """Of each user operation who sent its transaction, and to whom: also through a wrapper."""
    for op in run.live["user_operation"]:
        assert op["bundler"] is not None
        assert op["bundle_called"] is not None
    (row,) = rows_of(run, "08 bundler contract")
    (op,) = [o for o in run.live["user_operation"] if o["user_op_hash"] == row["user_op_hash"]]
    assert op["bundle_called"] != op["entry_point"]
    assert row["bundler"] == op["bundler"]


async def test_a_transfer_belongs_to_the_operation_that_made_it(run: Scenarios) -> None:
    """In bundles with failures, two bundles, modules and strangers: each as the trace says."""
    tokens = {hexed(at.SEED_TOKEN), hexed(at.SECOND_TOKEN)}
    transfers = [one for one in run.live["erc1155_transfer"] if one["contract"] in tokens]
    found = {(t["block_number"], t["log_index"]): t for t in transfers}
    true = [
        (call.to, call.transaction_hash, call.user_op_hash)
        for number in sorted({number for number, _ in found})
        for call in run.calls[number]
        if call.to in tokens and call.data[:10] in TOKEN_MOVES
    ]
    told = [
        (t["contract"], t["transaction_hash"], t["user_op_hash"]) for _, t in sorted(found.items())
    ]
    assert told == true
    (good,) = run.during("a failed mint and a good one", transfers)
    assert good["token_id"] == 62


async def test_a_batch_with_a_repeated_id_and_a_zero(run: Scenarios) -> None:
    """mintBatchTo([1, 1, 2], [5, 0, 7]) is three rows."""
    rows = [
        (row["batch_index"], row["token_id"], row["amount"])
        for row in run.during("batch mint", run.live["erc1155_transfer"])
        if row["operator"] == hexed(at.STRANGER)
    ]
    assert sorted(rows) == [(0, 1, 5), (1, 1, 0), (2, 2, 7)]


async def test_numbers_past_64_bits_are_kept(run: Scenarios) -> None:
    """Token ids, amounts, balances and nonces are uint256."""
    (mint,) = run.during("huge numbers", run.live["erc1155_transfer"])
    assert (mint["token_id"], mint["amount"]) == (2**256 - 1, 2**250)
    (balance,) = [b for b in run.live["erc1155_balance"] if b["token_id"] == 2**256 - 1]
    assert balance["balance"] == 2**250
    nonces = {op["nonce"] for op in run.during("06", run.live["user_operation"])}
    assert any(nonce >> 64 == 7 for nonce in nonces)


async def test_the_first_module_and_owner_leave_no_log_of_their_own(run: Scenarios) -> None:
    """The initial module is known from the creation; no owner is invented."""
    (row,) = rows_of(run, "05 undeployed")
    (account,) = [a for a in run.live["account"] if a["account"] == row["account"]]
    events = [e for e in run.live["account_event"] if e["account"] == row["account"]]
    enabled = [e["args"]["module"] for e in events if e["event"] == "EnabledModule"]
    assert hexed(at.ECDSA_MODULE) not in enabled
    assert {hexed(at.ECDSA_MODULE), hexed(at.MANAGER)} <= set(account["modules"])
    assert "OwnershipTransferred" not in {event["event"] for event in events}


async def test_managers_stand_side_by_side(run: Scenarios) -> None:
    """One operation, three managers, three rows: a root belongs to its manager."""
    rows = rows_of(run, "three managers in one operation")
    assert {row["manager"] for row in rows} == {hexed(manager) for manager in MANAGERS}
    assert len({row["transaction_hash"] for row in rows}) == 1
