"""Who is named for a root that state shows, and what is said to contradict state."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.attribution import RootAttribution, attribute, contradiction_of
from indexer.core.events import decode_logs
from indexer.core.roots import (
    MERKLE_ROOT_UPDATED,
    USER_OPERATION,
    RootHint,
    RootObservation,
    Trigger,
    triggers_of,
)
from tests.core.make_logs import MANAGER, hash32
from tests.core.test_roots import OTHER_MANAGER, WATCH, A, logs_of, root, trigger

SHOWN, GONE = root("aa"), root("bb")
OBSERVED = RootObservation(7, hash32("block 7"), MANAGER, A, SHOWN)


def hint(log_index, transaction, named=SHOWN, *, evidence="calldata", user_op=None, **changes):
    manager = changes.get("manager", MANAGER)
    op = None if user_op is None else hash32(user_op)
    index = changes.get("hint_index", 0)
    leaf = None if changes.get("leaf") is None else hash32(changes["leaf"])
    at = hash32(transaction)
    return RootHint(7, log_index, index, at, manager, A, named, evidence, op, leaf)


def named(found: RootAttribution) -> tuple[object, ...]:
    return found.evidence, found.attribution, found.transaction_hash, found.user_op_hash


def test_nothing_names_a_change_without_triggers():
    """A tainted account's silent change is the state's word alone."""
    assert named(attribute(OBSERVED, [], [])) == ("state", "none", None, None)


def test_one_transaction_is_named():
    """With its operation, if it was exactly one."""
    one, two = trigger(1, "one", user_op="first"), trigger(2, "one", user_op="second")

    assert named(attribute(OBSERVED, [one], [])) == (
        "state",
        "user_operation",
        hash32("one"),
        hash32("first"),
    )
    assert named(attribute(OBSERVED, [one, two], [])) == (
        "state",
        "transaction",
        hash32("one"),
        None,
    )
    assert named(attribute(OBSERVED, [trigger(1, "one")], []))[1] == "transaction"


def test_a_module_is_named_where_it_executed():
    """Also inside an operation: the module made the call."""
    by_module = trigger(1, "one", operation=0, user_op="first")

    assert named(attribute(OBSERVED, [by_module, trigger(2, "one", user_op="first")], [])) == (
        "state",
        "module",
        hash32("one"),
        hash32("first"),
    )


def test_of_several_transactions_the_last_that_named_the_root():
    """What names another root, another manager, or only proves an old one, names nobody."""
    triggers = [trigger(i, f"tx {i}", user_op=f"op {i}") for i in range(6)]
    hints = [
        hint(0, "tx 0", user_op="op 0"),
        hint(2, "tx 2", user_op="op 2"),
        hint(3, "tx 3", GONE, user_op="op 3"),
        hint(4, "tx 4", evidence="signature", user_op="op 4"),
        hint(5, "tx 5", user_op="op 5", manager=OTHER_MANAGER),
    ]

    expected = ("calldata", "user_operation", hash32("tx 2"), hash32("op 2"))
    assert named(attribute(OBSERVED, triggers, hints)) == expected
    assert named(attribute(OBSERVED, triggers, hints[2:])) == ("state", "ambiguous", None, None)


@given(st.permutations(range(5)))
def test_hints_may_come_in_any_order(order):
    """Events and inputs are read at different times; their place in the block decides."""
    triggers = [trigger(i, f"tx {i}") for i in range(5)]
    hints = [hint(i, f"tx {i}", hint_index=5 - i) for i in range(4)]
    hints.append(hint(3, "tx 4", hint_index=3))

    found = attribute(OBSERVED, triggers, [hints[i] for i in order])

    assert found.transaction_hash == hash32("tx 4")


def test_an_announced_root_names_its_transaction_and_the_one_operation_in_it():
    """The event carries no operation; the account's triggers of that transaction may."""
    announced = hint(5, "one", evidence="event")
    one, two = trigger(6, "one", user_op="first"), trigger(7, "one", user_op="second")
    other = trigger(8, "other", user_op="third")

    assert named(attribute(OBSERVED, [one, other], [announced])) == (
        "event",
        "user_operation",
        hash32("one"),
        hash32("first"),
    )
    assert named(attribute(OBSERVED, [one, two, other], [announced])) == (
        "event",
        "transaction",
        hash32("one"),
        None,
    )


def test_calldata_that_names_the_root_goes_before_a_module_beside_it():
    """A module that executed in the same transaction is named only if the input is silent."""
    triggers = [trigger(1, "one", operation=0), trigger(2, "one", user_op="first")]
    announced = hint(1, "one", evidence="event", user_op="first")
    in_calldata = hint(2, "one", user_op="first")

    assert named(attribute(OBSERVED, triggers, [announced])) == (
        "event",
        "module",
        hash32("one"),
        hash32("first"),
    )
    assert named(attribute(OBSERVED, triggers, [announced, in_calldata])) == (
        "calldata",
        "user_operation",
        hash32("one"),
        hash32("first"),
    )


def test_a_module_of_another_transaction_is_not_named():
    """What names the root says which transaction; what others did does not count."""
    triggers = [trigger(1, "one", user_op="first"), trigger(2, "two", operation=0)]
    announced = hint(1, "one", evidence="event", user_op="first")

    assert attribute(OBSERVED, triggers, [announced]).attribution == "user_operation"


def test_two_operations_of_one_bundle_are_told_apart_by_what_they_name():
    """The later of both set the root that stands at the end of the block."""
    decoded = decode_logs(logs_of("06"), WATCH)
    operations = [t for t in triggers_of(decoded) if t.event == USER_OPERATION]
    first, second = (t.user_op_hash for t in operations)
    hints = [
        hint(t.log_index, "tx", found, user_op=f"06 operation {i}")
        for i, (t, found) in enumerate(zip(operations, [GONE, SHOWN], strict=True))
    ]

    assert attribute(OBSERVED, operations, hints).user_op_hash == second != first


# --- session keys -----------------------------------------------------------------------------


def test_an_operation_signed_by_a_session_key_is_the_sessions():
    """The proof in the signature says which; calldata says which of several stands for the call."""
    mine = trigger(5, "one", user_op="first")
    signed = hint(5, "one", GONE, evidence="signature", user_op="first", leaf="session")

    found = attribute(OBSERVED, [mine], [signed])

    assert named(found) == ("state", "session_key", hash32("one"), hash32("first"))
    assert found.leaf == hash32("session")
    other = hint(5, "one", GONE, evidence="signature", user_op="first", leaf="other", hint_index=1)
    assert attribute(OBSERVED, [mine], [signed, other]).leaf is None
    call = hint(5, "one", user_op="first", leaf="other", hint_index=2)
    told = attribute(OBSERVED, [mine], [signed, other, call])
    assert (told.evidence, told.attribution, told.leaf) == (
        "calldata",
        "session_key",
        hash32("other"),
    )


def test_the_session_of_another_operation_is_not_named():
    """In one bundle the owner set the root, while a session key did something else."""
    triggers = [trigger(5, "one", user_op="owner's"), trigger(6, "one", user_op="session's")]
    hints = [
        hint(5, "one", user_op="owner's"),
        hint(6, "one", GONE, evidence="signature", user_op="session's", leaf="session"),
    ]

    found = attribute(OBSERVED, triggers, hints)

    assert (found.attribution, found.user_op_hash, found.leaf) == (
        "user_operation",
        hash32("owner's"),
        None,
    )


def test_a_session_whose_own_proof_is_of_this_root_did_not_set_it():
    """The root stood before it: the first look at an account may be at an ordinary use."""
    mine = trigger(5, "one", user_op="first")
    used = hint(5, "one", evidence="signature", user_op="first", leaf="session")

    assert attribute(OBSERVED, [mine], [used]).attribution == "none"
    assert named(attribute(OBSERVED, [mine], [used])) == ("state", "none", None, None)
    assert attribute(OBSERVED, [mine], [used]).leaf is None
    # Unless its input sets the same root again, or another operation of it names the root.
    again = hint(5, "one", user_op="first", leaf="session", hint_index=1)
    assert attribute(OBSERVED, [mine], [used, again]).attribution == "session_key"


def test_a_session_of_another_manager_is_no_proof_that_a_key_set_this_root():
    """Nothing names the root and nothing shows another before it: the operation, no more."""
    mine = trigger(5, "one", user_op="first")
    other = hint(
        5, "one", GONE, evidence="signature", user_op="first", leaf="session", manager=OTHER_MANAGER
    )

    found = attribute(OBSERVED, [mine], [other])
    assert (found.attribution, found.leaf) == ("user_operation", None)
    call = hint(5, "one", user_op="first", leaf="session", hint_index=1)
    assert attribute(OBSERVED, [mine], [other, call]).attribution == "session_key"


def test_a_module_beside_a_session_is_not_the_sessions():
    """The operation in the same transaction does not make the module's call its own."""
    by_module = trigger(1, "one", operation=0)
    beside = trigger(2, "one", user_op="first")
    signed = hint(2, "one", GONE, evidence="signature", user_op="first", leaf="session")

    found = attribute(OBSERVED, [by_module, beside], [signed])

    assert named(found) == ("state", "module", hash32("one"), None)
    assert found.leaf is None


def test_a_module_that_a_session_drives_is_the_sessions():
    """Whoever signed the operation in which the module acted set the root."""
    by_module = trigger(1, "one", operation=0, user_op="first")
    its_end = trigger(2, "one", user_op="first")
    signed = hint(2, "one", GONE, evidence="signature", user_op="first", leaf="session")

    found = attribute(OBSERVED, [by_module, its_end], [signed])

    assert (found.attribution, found.leaf) == ("session_key", hash32("session"))


# --- contradictions ---------------------------------------------------------------------------

OPERATION = trigger(5, "one", user_op="first")
INPUTS = {hash32("first"), hash32("second")}


def told(triggers, hints, known=frozenset(INPUTS)):
    return contradiction_of(OBSERVED, triggers, hints, known)


def test_an_event_that_names_another_root_contradicts_state():
    """It is emitted at each change, so the last one says what stands, whoever else acted."""
    stranger = Trigger(
        7, 5, hash32("one"), A, MERKLE_ROOT_UPDATED, success=None, operation=None, user_op_hash=None
    )
    module = trigger(6, "one", operation=1)
    lost, kept = hint(5, "one", GONE, evidence="event"), hint(9, "two", evidence="event")

    assert told([stranger, module], [lost]) == ("event", GONE)
    assert told([stranger, module], [kept, lost]) is None
    assert told([stranger], [hint(5, "one", GONE, evidence="event", manager=OTHER_MANAGER)]) is None


def test_inputs_contradict_state_where_they_tell_all():
    """Every operation decoded and no module beside: then the last call set the root."""
    gone = hint(5, "one", GONE, user_op="first")

    assert told([OPERATION], [gone]) == ("calldata", GONE)
    assert told([OPERATION], [gone, hint(5, "one", user_op="first", hint_index=1)]) is None
    assert told([OPERATION], [gone], known=frozenset()) is None
    for kind in ("ChangedFallbackHandler", "ImplementationUpdated", "AccountDeployed"):
        beside = Trigger(
            7, 4, hash32("one"), A, kind, success=None, operation=None, user_op_hash=None
        )
        assert told([OPERATION, beside], [gone]) is None
    enabled = Trigger(
        7, 4, hash32("one"), A, "EnabledModule", success=None, operation=None, user_op_hash=None
    )
    assert told([enabled, OPERATION], [gone]) == ("calldata", GONE)
    assert told([OPERATION, trigger(4, "one", operation=0)], [gone]) is None


def test_a_proof_contradicts_state_where_nothing_changed_the_root():
    """At validation the proven root stood; if no call of the block set one, it still does."""
    proof = hint(5, "one", GONE, evidence="signature", user_op="first", leaf="session")

    assert told([OPERATION], [proof]) == ("signature", GONE)
    # The operation that set the root in the same bundle: the proof is of the root before.
    replaced = hint(6, "one", user_op="second")
    assert told([OPERATION, trigger(6, "one", user_op="second")], [proof, replaced]) is None


@pytest.mark.parametrize("evidence", ["event", "calldata", "signature"])
def test_what_agrees_contradicts_nothing(evidence):
    """The usual case."""
    assert told([OPERATION], [hint(5, "one", evidence=evidence, user_op="first")]) is None
    assert told([], []) is None
