from __future__ import annotations

import json
from dataclasses import astuple, fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core import topics
from indexer.core.events import DecodedLogs, UndecodedLog, addresses_named, decode_logs
from indexer.core.types import Address, Hash32, Log
from tests.core import make_logs
from tests.core.make_logs import (
    ENTRY_POINT,
    EVENTS,
    FACTORY,
    MANAGER,
    REGISTRY,
    STRANGER,
    TOKEN,
    VECTORS,
    WATCH,
    A,
    Accounts,
    Event,
    hash32,
    in_order,
    keccak,
    make_log,
    transfer,
    values_of,
)

EVERY_ACCOUNT = replace(WATCH, accounts=type("Every", (), {"watched": lambda *_: True})())


def emitter_of(signature: str) -> Address:
    topic = hash32(signature)
    for group, emitter in (
        (topics.ENTRY_POINT_TOPICS, ENTRY_POINT),
        (topics.FACTORY_TOPICS, FACTORY),
        (topics.OWNERSHIP_TOPICS, REGISTRY),
        (topics.MANAGER_TOPICS, MANAGER),
        (topics.ERC1155_TOPICS, TOKEN),
        (topics.ACCOUNT_TOPICS, A),
    ):
        if topic in group:
            return emitter
    raise AssertionError(f"{signature} is in no group")


def rows(decoded: DecodedLogs) -> list:
    return [row for field in fields(decoded) for row in getattr(decoded, field.name)]


def args_of(declared: Event, values: list) -> dict:
    """What `args` must hold: hex text, numbers above 2^53-1 as decimal text."""
    args = {}
    for (type_, name, indexed), value in zip(declared.parameters, values, strict=True):
        if type_ == "bytes" and indexed:
            args[f"{name}Hash"] = "0x" + keccak(value).hex()
        elif isinstance(value, bytes):
            args[name] = "0x" + value.hex()
        elif isinstance(value, bool) or value < 2**53:
            args[name] = value
        else:
            args[name] = str(value)
    return args


def test_topics_are_those_of_the_contracts():
    """Each form hashes to its topic0, and both are what the vendor's compiled ABIs say."""
    declared = {
        (bytes.fromhex(entry["topic0"][2:]), entry["sig"], tuple(entry["indexed"]))
        for entry in json.loads((VECTORS / "topics.json").read_text())
    }
    for topic, form in topics.FORMS.items():
        assert keccak(form.signature.encode()) == topic
        indexed = (p for p in form.parameters if p.indexed)
        names = tuple(p.name.replace("dataHash", "data") for p in indexed)
        assert (topic, form.signature, names) in declared


def test_every_topic_is_in_one_group():
    """Groups are disjoint, so the topic decides which emitters count, and complete."""
    groups = (
        topics.ENTRY_POINT_TOPICS,
        topics.FACTORY_TOPICS,
        topics.ACCOUNT_TOPICS,
        topics.OWNERSHIP_TOPICS,
        topics.MANAGER_TOPICS,
        topics.ERC1155_TOPICS,
    )
    assert sum(map(len, groups)) == len(frozenset().union(*groups)) == len(topics.FORMS)
    assert set(topics.FORMS) == {hash32(signature) for signature in EVENTS}


def test_triggers_are_the_events_after_which_a_root_may_have_changed():
    """Every event an account emits when it acts is a trigger; receiving money is none."""
    assert {
        "AccountCreation",
        "AccountCreationWithoutIndex",
        "ChangedFallbackHandler",
        "DisabledModule",
        "EnabledModule",
        "ExecutionFailure",
        "ExecutionFromModuleFailure",
        "ExecutionFromModuleSuccess",
        "ExecutionSuccess",
        "ImplementationUpdated",
        "ModuleTransaction",
    } == topics.TRIGGER_EVENTS


@pytest.mark.parametrize("signature", sorted(EVENTS))
@settings(max_examples=40)
@given(data=st.data())
def test_decoding_gives_back_what_was_encoded(signature, data):
    """Every parameter of every event survives, for any values."""
    declared = EVENTS[signature]
    values = data.draw(values_of(declared))
    emitter = emitter_of(signature)
    log = make_log(emitter, signature, values)
    decoded = decode_logs([log], EVERY_ACCOUNT)
    found = rows(decoded)
    assert not decoded.undecoded
    assert all(row.at is log for row in found)

    match declared.name:
        case "BeforeExecution" | "SignatureAggregatorChanged":
            assert found == []
        case "AccountCreation":
            assert [astuple(row)[1:] for row in decoded.creations] == [
                (values[0], FACTORY, values[1], values[2], "AccountCreation")
            ]
        case "AccountCreationWithoutIndex":
            assert [astuple(row)[1:] for row in decoded.creations] == [
                (values[0], FACTORY, values[1], None, "AccountCreationWithoutIndex")
            ]
        case "UserOperationEvent":
            (row,) = decoded.user_operations
            assert [*astuple(row)[1:]] == [ENTRY_POINT, *values]
        case "MerkleRootUpdated":
            (row,) = decoded.manager_roots
            assert [*astuple(row)[1:]] == [MANAGER, *values, None]
        case "TransferSingle":
            (row,) = decoded.transfers
            assert [*astuple(row)[1:]] == [TOKEN, 0, *values, None]
        case "TransferBatch":
            assert [[*astuple(row)[1:]] for row in decoded.transfers] == [
                [TOKEN, index, *values[:3], token_id, amount, None]
                for index, (token_id, amount) in enumerate(zip(*values[3:], strict=True))
            ]
        case "ApprovalForAll":
            (row,) = decoded.approvals
            assert [*astuple(row)[1:]] == [TOKEN, *values]
        case "URI":
            (row,) = decoded.uris
            assert (row.contract, row.value, row.token_id) == (TOKEN, *values)
        case name:
            (row,) = decoded.account_events
            args = args_of(declared, values)
            assert (row.event, row.args) == (name, args)
            assert json.loads(json.dumps(row.args)) == args
            named = {n: v for (_, n, _), v in zip(declared.parameters, values, strict=True)}
            if emitter == A:
                assert row.account == A
            else:
                names = ("account", "sender", "smartAccount")
                assert row.account == next(named[n] for n in names if n in named)
            assert row.user_op_hash == named.get("userOpHash")


def a_log(signature: str) -> Log:
    """Return a fitting log about A."""
    examples = {
        "address": A,
        "bool": True,
        "bytes": b"x",
        "bytes32": bytes(32),
        "string": "x",
        "uint256": 1,
        "uint256[]": [1],
        "uint8": 1,
    }
    values = [examples[type_] for type_, _, _ in EVENTS[signature].parameters]
    return make_log(emitter_of(signature), signature, values)


@pytest.mark.parametrize("signature", sorted(EVENTS))
def test_a_wrong_number_of_topics_is_undecoded(signature):
    """The same topic0 with other indexed parameters is another event: kept as undecoded."""
    log = a_log(signature)
    for count in range(1, 5):
        if count == len(log.topics):
            continue
        changed = replace(log, topics=(log.topics + (bytes(32),) * 4)[:count])
        (row,) = rows(decode_logs([changed], WATCH))
        assert isinstance(row, UndecodedLog)
        assert row.at is changed
        assert f"{count} topics" in row.reason


@pytest.mark.parametrize("signature", sorted(EVENTS))
def test_missing_data_is_undecoded(signature):
    """A log cut anywhere within its values gives no row but an undecoded one."""
    log = a_log(signature)
    # A byte string's padding carries nothing and may be missing.
    padding = (
        31 if {"bytes", "string"} & {t for t, _, i in EVENTS[signature].parameters if not i} else 0
    )
    for length in range(len(log.data) - padding):
        (row,) = rows(decode_logs([replace(log, data=log.data[:length])], WATCH))
        assert isinstance(row, UndecodedLog)


@pytest.mark.parametrize("signature", sorted(EVENTS))
def test_the_same_topic_from_another_emitter_is_ignored(signature):
    """A stranger that emits the topics of our contracts leaves no trace, fitting or not."""
    spoofed = replace(a_log(signature), address=STRANGER)
    broken = replace(spoofed, topics=spoofed.topics[:1], data=b"\x01")
    assert rows(decode_logs([spoofed, broken], WATCH)) == []


@pytest.mark.parametrize(
    "signature",
    [s for s in sorted(EVENTS) if any(t == "address" for t, _, _ in EVENTS[s].parameters)],
)
def test_dirty_address_padding_is_undecoded(signature):
    """An address topic or word with bits above its 160 is undecoded, never cut to an address."""
    log = a_log(signature)
    parameters = EVENTS[signature].parameters
    indexed = [type_ for type_, _, is_indexed in parameters if is_indexed]
    in_data = [type_ for type_, _, is_indexed in parameters if not is_indexed]
    changed = [
        replace(
            log,
            topics=(*log.topics[:n], Hash32(b"\x01" + log.topics[n][1:]), *log.topics[n + 1 :]),
        )
        for n, type_ in enumerate(indexed, start=1)
        if type_ == "address"
    ] + [
        replace(log, data=log.data[: 32 * n] + b"\x01" + log.data[32 * n + 1 :])
        for n, type_ in enumerate(in_data)
        if type_ == "address"
    ]
    assert changed
    for dirty in changed:
        (row,) = rows(decode_logs([dirty], EVERY_ACCOUNT))
        assert isinstance(row, UndecodedLog)


KNOWN_TOPICS = st.sampled_from(sorted(topics.FORMS))
WORDS = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 300).map(lambda n: n.to_bytes(32, "big")),
    st.sampled_from([bytes(12) + A, b"\xff" * 32]),
)
ANY_LOGS = st.lists(
    st.builds(
        Log,
        block_number=st.integers(1, 3),
        block_hash=st.just(bytes(32)),
        transaction_hash=st.sampled_from([hash32("x"), hash32("y")]),
        transaction_index=st.just(0),
        log_index=st.integers(0, 50),
        address=st.sampled_from([ENTRY_POINT, FACTORY, MANAGER, REGISTRY, TOKEN, A, STRANGER]),
        topics=st.one_of(
            st.just(()),
            st.tuples(KNOWN_TOPICS, st.lists(WORDS, max_size=4)).map(lambda t: (t[0], *t[1])),
        ),
        data=st.one_of(st.binary(max_size=200), st.lists(WORDS, max_size=9).map(b"".join)),
    ),
    max_size=20,
)


@settings(max_examples=400)
@given(ANY_LOGS, st.booleans(), st.booleans())
def test_no_log_stops_anything(logs, all_creations, every_emitter):
    """Arbitrary topics and data never raise; rows stand in order; a log is decoded or undecoded."""
    watch = replace(WATCH, all_creations=all_creations)
    if every_emitter:
        watch = replace(watch, erc1155=None)
    decoded = decode_logs(logs, watch)
    for field in fields(decoded):
        places = [(row.at.block_number, row.at.log_index) for row in getattr(decoded, field.name)]
        assert places == sorted(places)
    undecoded = {id(row.at) for row in decoded.undecoded}
    assert len(undecoded) == len(decoded.undecoded)
    assert not undecoded & {id(r.at) for r in rows(decoded) if not isinstance(r, UndecodedLog)}
    for row in decoded.account_events:
        assert "\\u0000" not in json.dumps(row.args)


class Asked:
    """Watches nobody, and remembers whom it was asked about."""

    def __init__(self) -> None:
        self.about: set[bytes] = set()

    def watched(self, account: bytes, block_number: int) -> bool:
        self.about.add(account)
        return False


@settings(max_examples=400)
@given(ANY_LOGS, st.booleans())
def test_whoever_decoding_asks_about_was_named_before(logs, all_creations):
    """So the watch list can be read for these alone, however long it is."""
    asked = Asked()
    decode_logs(logs, replace(WATCH, accounts=asked, tokens_of=asked, all_creations=all_creations))
    assert asked.about <= addresses_named(logs)


def test_touching_keeps_transfers_of_any_contract_that_move_a_watched_accounts_tokens():
    """Sent or received, whatever the contract; not its approvals: they may be of an ERC-721."""
    watch = replace(WATCH, erc1155=frozenset(), tokens_of=Accounts({A}))
    mine = [transfer(A, STRANGER), transfer(STRANGER, A)]
    elsewhere = [replace(log, address=STRANGER) for log in mine]
    approval = make_log(TOKEN, "ApprovalForAll(address,address,bool)", [A, STRANGER, True])
    logs = in_order([*mine, transfer(STRANGER, STRANGER), approval, *elsewhere])

    decoded = decode_logs(logs, watch)

    assert [row.contract for row in decoded.transfers] == [TOKEN, TOKEN, STRANGER, STRANGER]
    assert decoded.approvals == ()
    assert decoded.undecoded == ()


def test_touching_keeps_what_was_sent_to_an_account_before_it_was_made():
    """In the same logs: before its creation an address can receive, but not act."""
    watch = replace(WATCH, erc1155=frozenset(), tokens_of=Accounts(set()), all_creations=True)
    made = make_log(FACTORY, "AccountCreation(address,address,uint256)", [STRANGER, MANAGER, 0])
    early = replace(transfer(TOKEN, STRANGER), block_number=1, log_index=0)

    decoded = decode_logs([early, replace(made, block_number=2)], watch)

    assert [row.to_address for row in decoded.transfers] == [STRANGER]


def test_a_broken_transfer_counts_only_where_a_watched_account_is_named():
    """Among the transfers of the whole chain most broken ones concern nobody."""
    watch = replace(WATCH, erc1155=frozenset(), tokens_of=Accounts({A}))
    logs = in_order([transfer(A, STRANGER), transfer(STRANGER, STRANGER)])

    decoded = decode_logs([replace(log, data=b"cut") for log in logs], watch)

    assert [row.at.log_index for row in decoded.undecoded] == [logs[0].log_index]


def test_an_account_is_watched_in_the_batch_that_creates_it():
    """The new account's own first log comes before the factory's and is not lost."""
    new = make_logs.address("new")
    handler = make_log(new, "ChangedFallbackHandler(address,address)", [bytes(20), MANAGER])
    created = make_log(FACTORY, "AccountCreation(address,address,uint256)", [new, REGISTRY, 0])
    deployed = make_log(
        ENTRY_POINT,
        "AccountDeployed(bytes32,address,address,address)",
        [hash32("op"), new, FACTORY, bytes(20)],
    )
    logs = in_order(
        [
            handler,
            created,
            deployed,
            make_logs.before_execution(),
            make_logs.user_operation(new, "op"),
        ]
    )

    decoded = decode_logs(logs, WATCH)
    assert [row.account for row in decoded.creations] == [new]
    assert decoded.creations[0].initial_module == REGISTRY
    assert [(row.event, row.user_op_hash) for row in decoded.account_events] == [
        ("ChangedFallbackHandler", hash32("op")),
        ("AccountDeployed", hash32("op")),
    ]
    assert [row.sender for row in decoded.user_operations] == [new]

    decoded = decode_logs(logs, replace(WATCH, all_creations=False))
    assert rows(decoded) == []
    decoded = decode_logs(
        logs, replace(WATCH, all_creations=False, accounts=Accounts(frozenset({new})))
    )
    assert [row.account for row in decoded.creations] == [new]


def test_rows_of_strangers_are_not_returned():
    """Operations, deposits, owners and roots of accounts nobody watches leave no rows."""
    logs = in_order(
        [
            make_log(ENTRY_POINT, "Deposited(address,uint256)", [STRANGER, 5]),
            make_logs.user_operation(STRANGER, "op"),
            make_log(REGISTRY, "OwnershipTransferred(address,address,address)", [STRANGER, A, A]),
            make_log(MANAGER, "MerkleRootUpdated(address,bytes32)", [STRANGER, bytes(32)]),
            make_log(STRANGER, "EnabledModule(address)", [A]),
        ]
    )
    assert rows(decode_logs(logs, WATCH)) == []


def test_the_watch_list_is_asked_about_the_logs_block():
    """An account learnt late counts only in the blocks it is watched in."""

    class FromBlockNine:
        def watched(self, account: bytes, block_number: int) -> bool:
            return block_number >= 9

    logs = [make_log(A, "EnabledModule(address)", [A], block_number=n) for n in (8, 9)]
    decoded = decode_logs(logs, replace(WATCH, accounts=FromBlockNine()))
    assert [row.at.block_number for row in decoded.account_events] == [9]


def test_calldata_of_a_module_execution_is_only_known_by_its_hash():
    """`bytes indexed data` is keccak256 of the calldata, which a candidate root can match."""
    root = hash32("root")
    calldata = bytes.fromhex("7cb64759") + root
    log = make_log(
        A, "ExecutionSuccess(address,uint256,bytes,uint8,uint256)", [MANAGER, 0, calldata, 0, 9]
    )
    (row,) = decode_logs([log], WATCH).account_events
    assert row.args == {
        "to": "0x" + MANAGER.hex(),
        "value": 0,
        "dataHash": "0x" + keccak(calldata).hex(),
        "operation": 0,
        "txGas": 9,
    }


def test_look_alikes_of_other_versions_are_undecoded():
    """Safe's EnabledModule and the later SmartAccountReceivedNativeToken index other parts."""
    safe = replace(
        make_log(A, "EnabledModule(address)", [A]),
        topics=(topics.ENABLED_MODULE, Hash32(bytes(12) + A)),
        data=b"",
    )
    later = replace(
        safe,
        log_index=1,
        topics=(topics.SMART_ACCOUNT_RECEIVED_NATIVE_TOKEN, Hash32(bytes(12) + A)),
        data=(5).to_bytes(32, "big"),
    )
    decoded = decode_logs([safe, later], WATCH)
    assert [row.at for row in decoded.undecoded] == rows_at(decoded) == [safe, later]


def rows_at(decoded: DecodedLogs) -> list[Log]:
    return [row.at for row in rows(decoded)]
