from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core.events import decode_logs
from indexer.core.linking import link_operations
from indexer.core.topics import USER_OPERATION_EVENT
from indexer.core.types import Address, Hash32, Log
from tests.core.make_logs import (
    ENTRY_POINT,
    TOKEN,
    VECTORS,
    WATCH,
    A,
    B,
    C,
    address,
    aggregator_changed,
    before_execution,
    enabled_module,
    hash32,
    in_order,
    transfer,
    user_operation,
)

OTHER_ENTRY_POINT = address("another entry point")
BOTH = replace(WATCH, entry_points=frozenset({ENTRY_POINT, OTHER_ENTRY_POINT}))


def links_of(logs: list[Log], watch=WATCH) -> list[Hash32 | None]:
    """Return the operation of each account event and transfer, in log order."""
    decoded = decode_logs(in_order(logs), watch)
    assert not decoded.undecoded
    found = [*decoded.account_events, *decoded.transfers]
    return [row.user_op_hash for row in sorted(found, key=lambda row: row.at.log_index)]


def test_a_bundle_of_a_failed_and_a_good_operation():
    """Logs between two ends belong to the latter, though the first operation failed."""
    logs = [
        before_execution(),
        user_operation(A, "fails", success=False),
        enabled_module(B),
        transfer(A, B),
        user_operation(B, "succeeds"),
    ]
    assert links_of(logs) == [hash32("succeeds")] * 2


def test_logs_of_the_validation_belong_to_the_operation_of_their_emitter():
    """Before BeforeExecution only the account itself says whose log it is."""
    logs = [
        enabled_module(A),
        enabled_module(B),
        enabled_module(C),
        transfer(A, B),
        before_execution(),
        enabled_module(C),
        user_operation(A, "a"),
        user_operation(B, "b"),
    ]
    assert links_of(logs) == [hash32("a"), hash32("b"), None, None, hash32("a")]


def test_a_sender_of_two_operations_leaves_its_validation_unlinked():
    """Two operations of one account in a bundle: which one validated cannot be told."""
    logs = [
        enabled_module(A),
        before_execution(),
        enabled_module(A),
        user_operation(A, "first"),
        enabled_module(A),
        user_operation(A, "second"),
    ]
    assert links_of(logs) == [None, hash32("first"), hash32("second")]


def test_logs_outside_of_bundles_belong_to_nothing():
    """After the last operation, and in a transaction without any, there is no operation."""
    assert links_of([enabled_module(A), transfer(A, B)]) == [None, None]
    logs = [before_execution(), user_operation(A, "a"), enabled_module(A), transfer(A, B)]
    assert links_of(logs) == [None, None]


def test_each_transaction_is_read_by_itself():
    """A bundle in one transaction says nothing about the logs of the next."""
    bundle = [before_execution(), enabled_module(A), user_operation(A, "a")]
    other = [replace(enabled_module(A), transaction_hash=hash32("other tx"))]
    assert links_of(other + bundle + other) == [None, hash32("a"), None]


def test_two_bundles_in_one_transaction():
    """After the last operation of a bundle the validation of the next one begins."""
    logs = [
        enabled_module(A),
        before_execution(),
        user_operation(A, "a"),
        enabled_module(A),
        enabled_module(B),
        before_execution(),
        enabled_module(A),
        user_operation(B, "b"),
    ]
    assert links_of(logs) == [hash32("a"), None, hash32("b"), hash32("b")]


def test_aggregated_operations_validate_after_before_execution():
    """In handleAggregatedOps the executions begin at SignatureAggregatorChanged."""
    logs = [
        before_execution(),
        enabled_module(A),
        enabled_module(B),
        aggregator_changed(),
        enabled_module(B),
        user_operation(A, "a"),
        aggregator_changed(),
        user_operation(B, "b"),
        aggregator_changed(),
        enabled_module(A),
    ]
    assert links_of(logs) == [hash32("a"), hash32("b"), hash32("a"), None]


def test_a_bundle_inside_of_an_operation_of_another_entry_point():
    """The innermost operation made the log; around it the outer one did."""
    logs = [
        before_execution(),
        transfer(A, B),
        before_execution(OTHER_ENTRY_POINT),
        transfer(A, B),
        user_operation(B, "inner", entry_point=OTHER_ENTRY_POINT),
        transfer(A, B),
        user_operation(A, "outer"),
    ]
    assert links_of(logs, BOTH) == [hash32("outer"), hash32("inner"), hash32("outer")]


def test_bundles_of_two_entry_points_one_after_the_other():
    """A log that two bundles could claim by its emitter is given to neither."""
    logs = [
        enabled_module(A),
        enabled_module(B),
        before_execution(),
        user_operation(A, "a"),
        before_execution(OTHER_ENTRY_POINT),
        user_operation(A, "again", entry_point=OTHER_ENTRY_POINT),
        user_operation(B, "b", entry_point=OTHER_ENTRY_POINT),
    ]
    assert links_of(logs, BOTH) == [None, hash32("b")]


def test_an_operation_of_a_stranger_still_ends_an_operation():
    """Events of senders nobody watches mark borders, without rows of their own."""
    stranger = address("somebody")
    logs = [
        before_execution(),
        transfer(A, B),
        user_operation(stranger, "theirs"),
        transfer(A, B),
        user_operation(A, "ours"),
    ]
    assert links_of(logs) == [hash32("theirs"), hash32("ours")]


def test_an_unreadable_end_gives_its_logs_to_nothing():
    """A UserOperationEvent with too few topics ends an operation that cannot be named."""
    broken = replace(user_operation(A, "a"), topics=(USER_OPERATION_EVENT,))
    logs = in_order(
        [before_execution(), transfer(A, B), broken, transfer(A, B), user_operation(B, "b")]
    )
    decoded = decode_logs(logs, WATCH)
    assert [row.user_op_hash for row in decoded.transfers] == [None, hash32("b")]
    assert [row.at for row in decoded.undecoded] == [logs[2]]


def test_without_before_execution_only_emitters_link():
    """Operations whose beginning was not seen claim no log of others."""
    logs = [
        enabled_module(A),
        transfer(A, B),
        user_operation(A, "a"),
        transfer(A, B),
        user_operation(B, "b"),
    ]
    assert links_of(logs) == [hash32("a"), None, hash32("b")]


def test_empty_bundles_claim_nothing():
    """A handleOps of no operations leaves a border and nothing else."""
    logs = [
        enabled_module(A),
        before_execution(),
        enabled_module(B),
        before_execution(),
        user_operation(A, "a"),
    ]
    assert links_of(logs) == [None, None]


class EveryAccount:
    def watched(self, account: bytes, block_number: int) -> bool:
        return True


def scenario_logs(scenario: dict) -> list[Log]:
    """Build the logs of an executed scenario from texts like 'EP.UserOperationEvent'."""
    users = iter(scenario.get("uoe", ()))
    logs: list[Log] = []
    for position, text in enumerate(scenario["logs"]):
        emitter, name = text.split(".")
        if name == "UserOperationEvent":
            sender, success = next(users).split(":")
            logs.append(user_operation(address(sender), f"{position}", success=success == "true"))
        elif name == "BeforeExecution":
            logs.append(before_execution())
        elif name == "SignatureAggregatorChanged":
            logs.append(aggregator_changed())
        elif name == "TransferSingle":
            logs.append(transfer(Address(bytes(20)), A))
        elif emitter in {"A", "B", "C", "D", "N"}:
            # Linking looks at emitter and place, so any event of the account will do.
            logs.append(enabled_module(address(emitter)))
    return in_order(logs)


def test_executed_scenarios_link_as_they_ran():
    """Log sequences that a real EntryPoint left give each log to the operation that made it."""
    scenarios = json.loads((VECTORS / "root_change_scenarios.json").read_text())["scenarios"]
    linked: dict[str, list[str | None]] = {}
    for scenario in scenarios:
        decoded = decode_logs(scenario_logs(scenario), replace(WATCH, accounts=EveryAccount()))
        assert not decoded.undecoded
        labels = {address(user.split(":")[0]): user.split(":")[0] for user in scenario["uoe"]}
        senders = {row.user_op_hash: labels[row.sender] for row in decoded.user_operations}
        found = sorted(
            [*decoded.account_events, *decoded.transfers], key=lambda row: row.at.log_index
        )
        linked[scenario["name"][:2]] = [senders.get(row.user_op_hash) for row in found]
    assert linked["03"] == ["A"]  # EnabledModule while executing
    assert linked["05"] == ["D", "D"]  # the handler before, the module after BeforeExecution
    assert linked["29"] == ["A"]  # B's log, made by A's operation
    assert linked["30"] == linked["31"] == ["A"]  # a module acting while A is validated
    assert linked["22"] == linked["24"] == [None]  # no EntryPoint at all
    assert linked["26"] == [None] * 6
    assert linked["40"] == ["B"]
    assert linked["42"] == ["0x2d4AF8"]  # the mint of an ERC-1155 token


ACCOUNTS = [address(f"account {n}") for n in range(4)]
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(ACCOUNTS), st.integers(0, 2), st.integers(0, 3)), max_size=4
)
BUNDLES = st.lists(st.tuples(st.booleans(), OPERATIONS), max_size=4)


@settings(max_examples=300)
@given(BUNDLES, st.integers(0, 2))
def test_any_sequence_of_bundles_is_taken_apart(bundles, after):
    """Logs laid out as the EntryPoint lays them out are linked to the operations that made them."""
    logs: list[tuple[Log, Hash32 | None]] = []
    for number, (aggregated, operations) in enumerate(bundles):
        names = [f"{number}/{n}" for n in range(len(operations))]
        senders = [sender for sender, _, _ in operations]
        validation = [
            (enabled_module(sender), hash32(name) if senders.count(sender) == 1 else None)
            for name, (sender, validating, _) in zip(names, operations, strict=True)
            for _ in range(validating)
        ]
        begin = [(before_execution(), None)]
        groups = [(aggregator_changed(), None)] if aggregated else []
        logs += [*begin, *validation, *groups] if aggregated else [*validation, *begin]
        for name, (sender, _, executing) in zip(names, operations, strict=True):
            logs += [(transfer(A, B), hash32(name))] * executing
            logs.append((user_operation(sender, name), hash32(name)))
        logs += groups
    logs += [(transfer(A, B), None)] * after

    placed = in_order([log for log, _ in logs])
    links = link_operations(placed, {ENTRY_POINT})
    for log, (_, expected) in zip(placed, logs, strict=True):
        if log.address == TOKEN or log.address in ACCOUNTS:
            assert links.user_op_hash(log, log.address) == expected
