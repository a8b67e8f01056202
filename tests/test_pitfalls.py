"""The pitfalls of following session roots: where each is tested, and which need no test here.

Numbered as in the project's list of what goes wrong when session roots are followed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

MERKLE, IMPORT = "core/test_merkle.py::", "core/test_session_import.py::"
WRONG = "core/test_session_import_wrong.py::"
ROUTE = "test_scenarios.py::test_a_route_is_found_and_its_maker_named"
DECOY = "test_scenarios.py::test_a_look_alike_leaves_no_row"
RUN = "test_scenarios.py::"
DAEMON = "test_pitfalls_of_the_daemon.py::"

TESTED: dict[int, tuple[str, ...]] = {
    # An event that V1 does not have is not waited for.
    1: (f"{ROUTE}[01 execute_ncC]",),
    # Operations whose transaction does not go to the EntryPoint.
    2: tuple(
        f"{ROUTE}[{name}]"
        for name in ("08 bundler contract", "09 operations from storage", "10 two handleOps")
    ),
    # Roots that no calldata shows.
    3: (
        f"{ROUTE}[09 operations from storage]",
        f"{ROUTE}[22 module, five arguments]",
        f"{ROUTE}[24 hidden in a library]",
        f"{ROUTE}[25 MultiSend]",
        f"{ROUTE}[26 module batch]",
        f"{ROUTE}[29 another account's operation]",
        f"{ROUTE}[31 in validation, nothing else]",
    ),
    # success=false is neither ignored nor believed.
    4: (
        f"{ROUTE}[30 in validation, then fails]",
        *(
            f"{DECOY}[{name}]"
            for name in ("12 value refused", "13 later call reverts", "15 postOp reverts")
        ),
        f"{DECOY}[20 truncated]",
    ),
    # The owner of a root is the caller of the manager.
    5: (f"{DECOY}[17 helper]", f"{ROUTE}[29 another account's operation]"),
    # The selector alone says nothing.
    6: (f"{DECOY}[21 same selector]", "core/test_user_operations.py::test_roots_in_call_data"),
    # A fallback handler that is the manager; an implementation that was replaced.
    7: (f"{RUN}test_a_silent_change_is_of_a_tainted_account[36]",),
    8: (f"{RUN}test_a_silent_change_is_of_a_tainted_account[40 and 41]",),
    # DELEGATECALL to the manager.
    9: (f"{DECOY}[delegatecall to the manager]",),
    # The same topic from another emitter, or in another form.
    11: (
        f"{DECOY}[foreign events]",
        f"{DECOY}[own events in a wrong form]",
        "core/test_events.py::test_the_same_topic_from_another_emitter_is_ignored",
        "core/test_events.py::test_a_wrong_number_of_topics_is_undecoded",
    ),
    # `bytes indexed` is a hash.
    12: ("core/test_events.py::test_calldata_of_a_module_execution_is_only_known_by_its_hash",),
    # Words that a node answers without leading zeros.
    13: (
        f"{ROUTE}[a root with leading zeros]",
        "chain/test_state.py::test_a_minimal_word_is_padded",
    ),
    14: (
        f"{DAEMON}test_a_root_that_was_reorged_away_vanishes_without_a_log",
        f"{DAEMON}test_an_orphaned_hash_is_a_reorg_and_no_root",
        f"{DAEMON}test_a_block_that_is_overtaken_while_it_is_read_is_read_again",
        "test_end_to_end.py::test_reorgs_end_as_if_the_orphans_never_were",
    ),
    15: (
        f"{DAEMON}test_unreadable_state_is_never_a_zero_root",
        f"{DAEMON}test_state_that_was_pruned_is_unobserved",
        "chain/test_state.py::test_an_error_is_never_a_zero",
    ),
    # Several changes in one block: the block's end counts.
    16: (f"{RUN}test_a_root_inside_a_block_is_no_state",),
    17: (f"{RUN}test_a_session_used_after_its_root_was_replaced",),
    # Leaves, trees and their order.
    18: (
        f"{MERKLE}test_a_leaf_is_the_hash_of_the_packed_fields",
        f"{MERKLE}test_times_outside_of_48_bits_have_no_leaf",
    ),
    19: (
        f"{MERKLE}test_leaves_root_and_proofs_equal_the_vendors",
        f"{MERKLE}test_one_leaf_is_its_root",
    ),
    20: (
        f"{MERKLE}test_the_order_decides_the_root_as_observed",
        "core/test_session_sets.py::test_the_identity_is_the_ordered_list",
    ),
    # ABI values, addresses, hex.
    21: (
        "core/test_session_abi.py::test_the_encoding_equals_ethers",
        "core/test_session_abi.py::test_types_are_read_as_ethers_reads_them",
        "core/test_session_abi.py::test_a_number_is_in_range_or_refused",
    ),
    22: (
        f"{IMPORT}test_addresses_are_read_in_three_spellings",
        f"{WRONG}test_a_wrong_session_is_refused_with_its_place",
    ),
    # A proof is no membership.
    23: (f"{MERKLE}test_an_inner_node_is_provable_but_no_member",),
    24: (
        f"{DAEMON}test_neither_status_nor_claimed_root_of_a_store_is_believed",
        f"{IMPORT}test_sdk_stores_give_all_leaves_in_order",
    ),
    25: (
        f"{DAEMON}test_a_file_of_signers_leaves_no_trace",
        f"{WRONG}test_a_key_beside_sessions_is_dropped_unread",
    ),
    26: (
        f"{DAEMON}test_a_set_that_never_lands_is_pending_and_then_drifted",
        "store/test_verdicts.py::test_grace_ends_by_the_sweep_and_by_time_only",
    ),
    27: (f"{DAEMON}test_expired_sessions_in_the_root_are_judged_by_block_time",),
    28: (f"{IMPORT}test_what_is_rarely_meant_is_a_warning",),
    29: (
        f"{DAEMON}test_a_disabled_manager_is_drift_though_the_root_matches",
        f"{DAEMON}test_a_root_in_another_manager_is_drift",
    ),
    30: (f"{RUN}test_the_first_module_and_owner_leave_no_log_of_their_own",),
    32: (f"{RUN}test_a_failed_operation_may_give_no_reason",),
    # What belongs to which operation of a bundle.
    33: (
        "core/test_linking.py::test_aggregated_operations_validate_after_before_execution",
        f"{ROUTE}[11 handleAggregatedOps]",
    ),
    34: (
        f"{RUN}test_a_transfer_belongs_to_the_operation_that_made_it",
        "core/test_linking.py::test_a_bundle_of_a_failed_and_a_good_operation",
    ),
    35: (
        f"{RUN}test_a_batch_with_a_repeated_id_and_a_zero",
        "core/test_erc1155.py::test_mismatched_arrays_are_undecoded",
        "core/test_balances.py::test_a_batch_with_repeated_ids",
        "test_end_to_end.py::test_every_route_is_found_and_no_look_alike",
    ),
    36: (f"{RUN}test_numbers_past_64_bits_are_kept",),
    # Bounds of what is imported, and the vendor's own forms.
    37: (f"{WRONG}test_data_of_twenty_thousand_bytes_in_a_hundred_sessions",),
    38: (
        f"{IMPORT}test_times_mean_the_same_in_every_spelling",
        f"{IMPORT}test_a_response_without_gasless_operation",
        f"{IMPORT}test_a_response_whose_sessions_give_another_root",
    ),
    39: (
        f"{RUN}test_managers_stand_side_by_side",
        f"{DAEMON}test_a_root_in_another_manager_is_drift",
    ),
    40: (f"{DAEMON}test_a_chain_without_contracts_is_said_and_waited_for",),
}
"""Pitfall → the tests that would fail if it were fallen into."""

NOT_TESTED = {
    10: "no trace is read: what a trace gets wrong (13, 15, 32, 43) is tested on state alone",
    31: "no ether balances are kept; Deposited is an event of its account and nothing more",
}


def test_each_pitfall_has_a_test_that_exists() -> None:
    """The map above is complete, and pytest finds every test it names."""
    assert TESTED.keys() | NOT_TESTED.keys() == set(range(1, 41))
    assert not TESTED.keys() & NOT_TESTED.keys()
    named = sorted({f"tests/{name}" for names in TESTED.values() for name in names})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *named],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
