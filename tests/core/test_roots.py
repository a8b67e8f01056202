"""Which blocks may have changed a root, and who is named for a change that state shows."""

import json

import pytest

from indexer.core.attribution import RootAttribution, attribute
from indexer.core.events import LogFilter, decode_logs
from indexer.core.roots import (
    DELEGATECALL,
    USER_OPERATION,
    RootHint,
    RootObservation,
    Trigger,
    body_hints,
    by_account,
    event_hints,
    is_tainted,
    triggers_of,
)
from indexer.core.types import ZERO_ADDRESS, Hash32, Log, Session
from indexer.core.user_operations import Call, SessionParameters, UserOperationBody
from tests.core.make_logs import (
    ENTRY_POINT,
    FACTORY,
    MANAGER,
    REGISTRY,
    VECTORS,
    Accounts,
    address,
    enabled_module,
    hash32,
    in_order,
    make_log,
    transfer,
    user_operation,
)

SCENARIOS = {
    scenario["name"].split(" ", 1)[0]: scenario
    for scenario in json.loads((VECTORS / "root_change_scenarios.json").read_text())["scenarios"]
}
WATCHED = {label: address(label) for label in "ABCDN"}
WATCH = LogFilter(
    entry_points=frozenset({ENTRY_POINT}),
    factories=frozenset({FACTORY}),
    event_managers=frozenset({MANAGER}),
    ownership_modules=frozenset({REGISTRY}),
    erc1155=frozenset(),
    accounts=Accounts(frozenset(WATCHED.values())),
    all_creations=True,
)
A, B = WATCHED["A"], WATCHED["B"]
OTHER_MANAGER = address("other manager")
SET_ROOT = bytes.fromhex("7cb64759")

NO_LOG = {"36", "39", "41"}
"""Changes without any log; each account's slots had changed at the trigger named below."""
TAINTED_BEFORE = {"36": "35", "39": "38", "41": "40"}
IN_THE_INPUT = {"01", "02", "03", "04", "05", "06", "11", "12", "13", "15", "19", "20", "43", "44"}
"""The account itself calls the manager, and the transaction is one of the EntryPoint's."""
BY_MODULE = {"22", "23", "24", "25", "26", "29", "30", "31"}
SIGNATURES = {
    "AccountCreation": ("AccountCreation(address,address,uint256)", [REGISTRY, 0]),
    "AccountDeployed": ("AccountDeployed(bytes32,address,address,address)", []),
    "ChangedFallbackHandler": ("ChangedFallbackHandler(address,address)", [bytes(20), MANAGER]),
    "EnabledModule": ("EnabledModule(address)", [MANAGER]),
    "ExecutionFromModuleSuccess": ("ExecutionFromModuleSuccess(address)", [REGISTRY]),
    "ImplementationUpdated": ("ImplementationUpdated(address,address)", [bytes(20), MANAGER]),
    "ModuleTransaction": (
        "ModuleTransaction(address,address,uint256,bytes,uint8)",
        [REGISTRY, MANAGER, 0, b"", 0],
    ),
}


def root(prefix: str) -> Hash32:
    """Return a root from the 4 bytes that the scenarios keep of it."""
    return Hash32(bytes.fromhex(prefix.removeprefix("0x")).ljust(32, b"\0"))


def logs_of(name: str) -> list[Log]:
    """Return the logs of a scenario, in one transaction, as the node showed their order."""
    scenario = SCENARIOS[name]
    operations = iter(enumerate(scenario["uoe"]))
    created = [label for label in scenario["changed"] if label in WATCHED]
    logs = []
    for emitter, event in (entry.split(".") for entry in scenario["logs"]):
        account = WATCHED.get(emitter)
        if event == "UserOperationEvent":
            index, (sender, success) = next((i, uoe.split(":")) for i, uoe in operations)
            label = f"{name} operation {index}"
            logs.append(user_operation(address(sender), label, success=success == "true"))
        elif event in {"ExecutionSuccess", "ExecutionFailure"}:
            operation = DELEGATECALL if "DELEGATECALL" in scenario["name"] else 0
            signature = f"{event}(address,uint256,bytes,uint8,uint256)"
            logs.append(make_log(account, signature, [MANAGER, 0, b"", operation, 0]))
        elif event == "AccountCreation":
            signature, values = SIGNATURES[event]
            logs.append(make_log(FACTORY, signature, [WATCHED[created[0]], *values]))
        elif event == "AccountDeployed":
            values = [hash32(f"{name} operation 0"), WATCHED[created[0]], FACTORY, bytes(20)]
            logs.append(make_log(ENTRY_POINT, SIGNATURES[event][0], values))
        elif event in {"BeforeExecution", "SignatureAggregatorChanged"}:
            values = [bytes(20)] if event.startswith("Signature") else []
            types = "(address)" if values else "()"
            logs.append(make_log(ENTRY_POINT, event + types, values))
        elif account is not None:
            logs.append(make_log(account, *SIGNATURES[event]))
    return in_order(logs)


def hints_of(name: str, operations: list[Trigger]) -> list[RootHint]:
    """Return what the transaction's input names, where the account calls the manager itself."""
    if name not in IN_THE_INPUT:
        return []
    calls = {}
    for called, trigger in zip(SCENARIOS[name]["callTracer"], operations, strict=False):
        calls[trigger] = [Call(MANAGER, 0, SET_ROOT + root(called["root"]))]
    return [
        hint
        for trigger, made in calls.items()
        for hint in body_hints(trigger, body_of(trigger.account, made), {MANAGER})
    ]


def body_of(sender, calls=(), sessions=()) -> UserOperationBody:
    return UserOperationBody(hash32("op"), sender, None, None, tuple(calls), tuple(sessions))


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_change_of_a_clean_account_has_a_trigger(name):
    """Each executed route leaves a log that names the account, or it was tainted before."""
    triggered = {trigger.account for trigger in triggers_of(decode_logs(logs_of(name), WATCH))}

    changed = {WATCHED[label] for label in SCENARIOS[name]["changed"] if label in WATCHED}
    assert triggered <= set(WATCHED.values())
    if name in NO_LOG:
        assert triggered == set()
    else:
        assert changed <= triggered


@pytest.mark.parametrize(("silent", "before"), TAINTED_BEFORE.items())
def test_a_silent_change_follows_a_trigger_that_reads_the_slots(silent, before):
    """Handler and implementation cannot change without a log after which they are read."""
    (changed,) = SCENARIOS[silent]["changed"]
    triggers = triggers_of(decode_logs(logs_of(before), WATCH))

    assert any(t.may_change_slots for t in triggers if t.account == WATCHED[changed])


def test_a_new_account_has_its_slots_read():
    """A handler that is set when the account is made is seen in the block of its creation."""
    for name, label in (("05", "D"), ("34", "N")):
        triggers = triggers_of(decode_logs(logs_of(name), WATCH))
        assert any(t.may_change_slots for t in triggers if t.account == WATCHED[label])


@pytest.mark.parametrize(
    "name", [name for name, found in SCENARIOS.items() if set(found["changed"]) & set(WATCHED)]
)
def test_the_executed_routes_are_attributed(name):
    """Who is named is the operation, the module or the transaction that changed the root."""
    decoded = decode_logs(logs_of(name), WATCH)
    triggers = triggers_of(decoded)
    for label in set(SCENARIOS[name]["changed"]) & set(WATCHED):
        account = WATCHED[label]
        mine = [t for t in triggers if t.account == account]
        operations = [t for t in mine if t.event == USER_OPERATION]
        shown = root(SCENARIOS[name]["after"][label])
        observation = RootObservation(7, hash32("block 7"), MANAGER, account, shown)

        found = attribute(observation, mine, hints_of(name, operations))

        assert found.evidence == ("calldata" if name in IN_THE_INPUT else "state")
        expected = "user_operation" if operations else "transaction" if mine else "none"
        assert found.attribution == ("module" if name in BY_MODULE else expected)
        assert found.transaction_hash == (hash32("tx") if mine else None)
        if operations and name not in IN_THE_INPUT:
            assert found.user_op_hash == operations[-1].user_op_hash


def test_an_operation_of_another_account_is_named_but_does_not_own_the_root():
    """A's operation drives a module of B: B's root changed, A is no trigger of that change."""
    triggers = triggers_of(decode_logs(logs_of("29"), WATCH))
    of_b = by_account(triggers)[7, B]
    observation = RootObservation(7, hash32("block 7"), MANAGER, B, root("ffa35eec"))

    assert [t.event for t in of_b] == ["ExecutionSuccess"]
    assert attribute(observation, of_b, []) == RootAttribution(
        7, MANAGER, B, "state", "module", hash32("tx"), hash32("29 operation 0")
    )


def test_calldata_of_a_failed_operation_names_nothing():
    """What was rolled back is no hint; reverted, cut short, or value sent along."""
    for name in ("12", "13", "15", "20"):
        triggers = triggers_of(decode_logs(logs_of(name), WATCH))
        assert [t.success for t in triggers] == [False]
        assert hints_of(name, triggers) == []


# --- triggers ---------------------------------------------------------------------------------


def test_triggers_are_in_block_and_log_order():
    """Operations, events, creations and announced roots come as they stand in the chain."""
    logs = [
        make_log(FACTORY, *_with_account("AccountCreation"), block_number=8, log_index=3),
        make_log(
            MANAGER,
            "MerkleRootUpdated(address,bytes32)",
            [A, root("01")],
            block_number=7,
            log_index=9,
        ),
        *in_order([enabled_module(A), user_operation(A, "op")]),
        make_log(
            ENTRY_POINT,
            "Deposited(address,uint256)",
            [A, 1],
            block_number=9,
        ),
        transfer(A, B),
    ]
    decoded = decode_logs(logs, WATCH)

    triggers = triggers_of(decoded)

    assert [(t.block_number, t.log_index, t.event, t.account) for t in triggers] == [
        (7, 0, "EnabledModule", A),
        (7, 1, USER_OPERATION, A),
        (7, 9, "MerkleRootUpdated", A),
        (8, 3, "AccountCreation", B),
    ]
    assert [t.may_change_slots for t in triggers] == [True, False, False, True]
    assert [t.success for t in triggers] == [None, True, None, None]
    assert triggers[1].user_op_hash == hash32("op")


def _with_account(event: str) -> tuple[str, list[object]]:
    signature, values = SIGNATURES[event]
    return signature, [B, *values]


def test_received_money_is_no_trigger():
    """Who sends an account money makes it do nothing."""
    log = make_log(A, "SmartAccountReceivedNativeToken(address,uint256)", [B, 5])
    decoded = decode_logs([log], WATCH)

    assert [event.event for event in decoded.account_events] == ["SmartAccountReceivedNativeToken"]
    assert triggers_of(decoded) == []


def test_by_account_keeps_log_order_and_leaves_the_zero_address():
    """The zero address is nobody's account, whatever a log says."""
    first, second = trigger(1, "one"), trigger(2, "one")

    groups = by_account([first, trigger(3, "one", account=ZERO_ADDRESS), second])

    assert groups == {(7, A): [first, second]}


# --- hints ------------------------------------------------------------------------------------


def trigger(log_index, transaction, *, account=A, success=True, operation=None, user_op=None):
    event = "ExecutionSuccess" if operation is not None else USER_OPERATION
    named = None if user_op is None else hash32(user_op)
    return Trigger(7, log_index, hash32(transaction), account, event, success, operation, named)


def session_of(manager, implied) -> SessionParameters:
    return SessionParameters(manager, Session(0, 0, B, b""), hash32("leaf"), (), implied)


def test_an_announced_root_is_a_hint():
    """MerkleRootUpdated names manager, account and root at its own place."""
    log = make_log(MANAGER, "MerkleRootUpdated(address,bytes32)", [A, root("01")], log_index=4)

    assert event_hints(decode_logs([log], WATCH)) == [
        RootHint(7, 4, 0, hash32("tx"), MANAGER, A, root("01"), "event", None)
    ]


@pytest.mark.parametrize("success", [True, False])
def test_a_signature_counts_even_if_the_operation_failed(success):
    """Its proof was checked before execution; calldata counts only if execution held."""
    body = body_of(
        A,
        [
            Call(MANAGER, 0, SET_ROOT + root("02")),
            Call(OTHER_MANAGER, 0, SET_ROOT + root("03")),
            Call(B, 0, SET_ROOT + root("04")),
        ],
        [session_of(MANAGER, root("05")), session_of(B, root("06"))],
    )

    hints = body_hints(trigger(9, "one", success=success), body, {MANAGER, OTHER_MANAGER})

    named = [(h.manager, h.root, h.evidence) for h in hints]
    calldata = [(MANAGER, root("02"), "calldata"), (OTHER_MANAGER, root("03"), "calldata")]
    assert named == [(MANAGER, root("05"), "signature"), *(calldata if success else [])]
    assert [(h.log_index, h.hint_index) for h in hints] == [(9, i) for i in range(len(hints))]
    assert {(h.account, h.user_op_hash) for h in hints} == {(A, hash32("op"))}


# --- taint ------------------------------------------------------------------------------------

GENUINE, HANDLER = address("implementation 2.0.0"), address("default handler")


@pytest.mark.parametrize(
    ("implementation", "handler", "has_code", "tainted"),
    [
        (GENUINE, HANDLER, True, False),
        (GENUINE, ZERO_ADDRESS, True, False),
        (GENUINE, MANAGER, True, True),
        (address("evil"), HANDLER, True, True),
        (ZERO_ADDRESS, ZERO_ADDRESS, True, True),
        (ZERO_ADDRESS, ZERO_ADDRESS, False, False),
    ],
)
def test_clean_is_the_known_implementation_without_a_manager_as_handler(
    implementation, handler, has_code, tainted
):
    """Anything else may change a root without a log; what has no code can do nothing."""
    assert tainted == is_tainted(
        implementation,
        handler,
        has_code=has_code,
        implementations={GENUINE},
        managers={MANAGER, OTHER_MANAGER},
    )


def test_delegatecalls_and_slot_events_have_the_slots_read():
    """A plain call of a module cannot touch the account's own slots; a delegatecall can."""
    assert trigger(1, "one", operation=DELEGATECALL).may_change_slots
    assert not trigger(1, "one", operation=0).may_change_slots
    assert not trigger(1, "one").may_change_slots
