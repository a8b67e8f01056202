"""Documents of clients and vendors become session sets."""

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core.merkle import MAX_UINT48, merkle_root, session_leaf
from indexer.core.session_fields import checksum
from indexer.core.types import Address
from indexer.errors import UsageError
from tests.core.session_documents import (
    ACCOUNT,
    KEY,
    MANAGER,
    MODULE,
    OTHER,
    PARTICLE,
    PLAIN,
    VECTORS,
    changed,
    leaves,
    only,
    parse,
    raw,
    refused,
    without,
)

CASES = json.loads((VECTORS / "sessions.json").read_text())["cases"]
EDGES = json.loads((VECTORS / "edge_cases.json").read_text())
STORE = json.loads((VECTORS / "sdk_store_v4.json").read_text())
STEPS = EDGES["sdkStoreSequence"]["steps"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_every_published_list_gives_the_published_leaves(case):
    """Read from data, from the ABI pair or from both, leaves and root are the vendor's."""
    imported = only(parse(case["sessions"]))
    assert imported.source == "plain"
    assert (imported.chain_id, imported.manager, imported.account) == (None, None, None)
    assert leaves(imported) == [raw(leaf) for leaf in case["leaves"]]
    assert merkle_root(leaves(imported)) == raw(case["root"])

    pairs = [
        {k: v for k, v in s.items() if k != "sessionKeyData" or "sessionKeyDataInAbi" not in s}
        for s in case["sessions"]
    ]
    assert leaves(only(parse(pairs))) == leaves(imported)


@pytest.mark.parametrize(
    "names",
    [
        ("chainId", "manager", "account"),
        ("chain_id", "manager", "smartAccount"),
        ("chain_id", "session_key_manager", "smart_account"),
        ("chainId", "sessionKeyManager", "smartAccountAddress"),
    ],
)
@pytest.mark.parametrize("chain_id", [80001, "80001", "0x13881"])
def test_an_object_says_where_its_set_belongs(names, chain_id):
    """Chain, manager and account are taken from the object in any of the usual spellings."""
    imported = only(
        parse(dict(zip(names, (chain_id, MANAGER, ACCOUNT), strict=True)) | {"sessions": [PLAIN]})
    )
    assert imported.source == "object"
    assert (imported.chain_id, imported.manager, imported.account) == (
        80001,
        raw(MANAGER),
        raw(ACCOUNT),
    )


def test_our_own_field_names_are_read():
    """What is exported under this program's names is read back as the same set."""
    own = {
        "chain_id": 1,
        "manager": MANAGER.lower(),
        "account": ACCOUNT.lower(),
        "root": "0x" + session_leaf(only(parse([PLAIN])).sessions[0]).hex(),
        "sessions": [
            {
                "valid_until": 0,
                "valid_after": 0,
                "session_validation_module": MODULE.lower(),
                "session_key_data": "0xabcd",
            }
        ],
    }
    result = parse(own)
    assert only(result).sessions == only(parse([PLAIN])).sessions
    assert result.warnings == ()


def test_a_list_of_objects_gives_a_set_each():
    """Sets come in the order of the document, each with its own place."""
    result = parse(
        [
            {"chainId": 1, "account": ACCOUNT, "sessions": [PLAIN]},
            {"chainId": 2, "account": OTHER, "sessions": [PLAIN, PLAIN]},
        ]
    )
    assert [(s.chain_id, s.account, len(s.sessions), s.label) for s in result.sets] == [
        (1, raw(ACCOUNT), 1, "$[0].sessions"),
        (2, raw(OTHER), 2, "$[1].sessions"),
    ]


def test_the_createsessions_request():
    """The published request gives chain and sessions; which account it is, it does not say."""
    imported = only(parse(PARTICLE["createSessions"]["request"]))
    assert (imported.source, imported.chain_id, imported.account) == (
        "particle_request",
        80001,
        None,
    )
    assert imported.label == "$.params[1]"


def test_the_createsessions_response():
    """The published answer gives account, manager and root by the callData of its operations."""
    result = parse(PARTICLE["createSessions"]["response"])
    imported = only(result)
    assert imported.source == "particle_response"
    assert imported.chain_id == 80001
    assert imported.account == raw(ACCOUNT)
    assert imported.manager == raw(MANAGER)
    assert imported.claimed_root == merkle_root(leaves(imported))
    assert imported.sessions == only(parse(PARTICLE["createSessions"]["request"])).sessions
    # The vendor pasted another run's transactions: the operation wins, and the reader is told.
    (warning,) = result.warnings
    assert "0x6e8976217c7332d7ed4c3086631c27c8bda59e0c34ba2ebc729c548d4b00badd" in warning
    assert "0x6c98955fe6db976fde4318beb22b3aa902fa5de66756158c4f4ef5c012e90551" in warning


def test_the_bare_result_of_createsessions():
    """A client that keeps only `result` has the same set, without the chain."""
    imported = only(parse(PARTICLE["createSessions"]["response"]["result"]))
    assert (imported.chain_id, imported.account) == (None, raw(ACCOUNT))


def test_a_response_without_gasless_operation():
    """The operation verifyingPaymasterGasless may be null; the native one tells the same."""
    response = copy.deepcopy(PARTICLE["createSessions"]["response"])
    response["result"]["verifyingPaymasterGasless"] = None
    del response["result"]["transactions"]
    result = parse(response)
    assert only(result).manager == raw(MANAGER)
    assert result.warnings == ()


def test_a_response_whose_sessions_give_another_root():
    """Both roots are named where the returned sessions are not the registered ones."""
    response = copy.deepcopy(PARTICLE["createSessions"]["response"])
    response["result"]["sessions"].append(PLAIN)
    imported, warnings = only(parse(response)), parse(response).warnings
    assert any(
        imported.claimed_root.hex() in w and merkle_root(leaves(imported)).hex() in w
        for w in warnings
    )


def test_transactions_that_cannot_be_read_are_passed_over():
    """Nothing is taken from `transactions`, so what stands there is never a mistake."""
    response = copy.deepcopy(PARTICLE["createSessions"]["response"])
    junk = [5, None, {}, {"data": 7}, {"data": "0xabc"}, {"data": "0x7cb64759"}]
    for transactions in (None, 5, junk):
        response["result"]["transactions"] = transactions
        assert parse(response).warnings == ()


def test_operations_that_disagree_are_not_believed():
    """Where the offered operations differ in sender or root, neither is taken."""
    response = copy.deepcopy(PARTICLE["createSessions"]["response"])
    operation = response["result"]["verifyingPaymasterNative"]["userOp"]
    operation["sender"] = OTHER
    operation["callData"] = operation["callData"].replace("6c98955f", "6c989550")
    result = parse(response)
    assert (only(result).account, only(result).manager) == (None, None)
    assert only(result).claimed_root is None
    assert any("different senders" in w for w in result.warnings)
    assert any("different roots" in w for w in result.warnings)


@pytest.mark.parametrize("data", ["0x", "0x00004680", "0xdeadbeef"])
def test_operations_that_register_nothing(data):
    """A callData without setMerkleRoot, or broken callData, gives a warning and no root."""
    response = copy.deepcopy(PARTICLE["createSessions"]["response"])
    for name in ("verifyingPaymasterGasless", "verifyingPaymasterNative"):
        response["result"][name]["userOp"]["callData"] = data
    result = parse(response)
    assert only(result).claimed_root is None
    assert only(result).account == raw(ACCOUNT)
    assert any("no root is known" in w for w in result.warnings)


@pytest.mark.parametrize("case", EDGES["callDataDecoding"]["cases"], ids=lambda case: case["name"])
def test_only_a_call_that_can_succeed_registers_a_root(case):
    """The manager refuses wei and short calldata, so such a call registers nothing."""
    response = copy.deepcopy(PARTICLE["createSessions"]["response"])
    for name in ("verifyingPaymasterGasless", "verifyingPaymasterNative"):
        response["result"][name]["userOp"]["callData"] = case["callData"]
    imported = only(parse(response))
    if case["name"] == "other contract, same selector":
        # Managers are not known here: whatever the vendor's answer registers at is taken.
        assert imported.manager == raw("0x" + "deadbeef".rjust(40, "0"))
    else:
        expected = case["expectedDirectRoots"]
        assert imported.claimed_root == (raw(expected[-1]) if expected else None)
        assert imported.manager == (raw(MANAGER) if expected else None)


def test_params_alone():
    """The params list, in the forms of createSessions, validateSession and sendUserOp."""
    config, sessions = PARTICLE["createSessions"]["request"]["params"]
    target = PARTICLE["validateSession"]["request"]["params"][1]
    operation = PARTICLE["createSessions"]["response"]["result"]["verifyingPaymasterNative"][
        "userOp"
    ]
    created = only(parse([config, sessions]))
    validated = only(parse([config, target]))
    sent = only(parse([config, operation, target]))
    assert {created.source, validated.source, sent.source} == {"particle_params"}
    assert created.sessions == validated.sessions == sent.sessions
    assert (created.account, sent.account) == (None, raw(ACCOUNT))


def test_validatesession_parameters():
    """The sessions beside targetSession are the set; a target from elsewhere is pointed out."""
    request = copy.deepcopy(PARTICLE["validateSession"]["request"])
    assert parse(request).warnings == ()
    assert only(parse(request["params"][1])).source == "object"
    request["params"][1]["targetSession"]["validUntil"] = 5
    assert "targetSession is not one of" in parse(request).warnings[0]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["step"][:40])
def test_sdk_stores_give_all_leaves_in_order(step):
    """A store gives every leafNode whatever its status; a root it cannot reproduce is a warning."""
    result = parse(step["store"])
    imported = only(result)
    assert imported.source == "sdk_store"
    assert leaves(imported) == [raw(leaf) for leaf in step["storeLeavesInOrder"]]
    assert merkle_root(leaves(imported)) == raw(step["rootOfAllStoreLeaves"])
    assert imported.claimed_root == raw(step["store"]["merkleRoot"])
    other_root = any("give the root" in warning for warning in result.warnings)
    assert other_root is not step["storeMerkleRootReproducibleFromStore"]


@pytest.mark.parametrize("pack", [json.dumps, lambda store: store], ids=["text", "object"])
def test_a_dump_of_localstorage_names_the_account(pack):
    """The store's key gives the account; signers and other programs' keys are not looked at."""
    dump = {
        "account": "another program's",
        "wagmi.store": "{not json",
        STORE["localStorageKey"]: pack(STORE["store"]),
        STORE["localStorageKey"].replace("_sessions", "_signers"): pack({OTHER: {"pvKey": KEY}}),
        f"{ACCOUNT.lower()}_sessions": pack({"merkleRoot": "", "leafNodes": []}),
    }
    result = parse(dump)
    assert only(result).account == raw(STORE["account"])
    assert len(only(result).sessions) == 2
    assert any(f"unread: $.{OTHER.lower()}_signers" in w for w in result.warnings)
    assert any(f"$.{ACCOUNT.lower()}_sessions.leafNodes is empty" in w for w in result.warnings)
    assert KEY not in repr(result)


def test_a_store_file_names_the_account():
    """The SDK's file store has the account in its file name."""
    name = f"sessionStorageData/{OTHER.lower()}_sessions.json"
    assert only(parse(STORE["store"], name)).account == raw(OTHER)
    assert only(parse(STORE["store"], "store.json")).account is None


@pytest.mark.parametrize("spelt", [OTHER.lower(), OTHER], ids=["lower case", "checksum"])
@pytest.mark.parametrize("folder", ["", "sessionStorageData/"])
def test_the_name_of_a_store_file_may_be_spelt_either_way(spelt, folder):
    """Versions of the SDK differ in it; a wrong checksum is a mistake as anywhere."""
    assert only(parse(STORE["store"], f"{folder}{spelt}_sessions.json")).account == raw(OTHER)
    wrong = "0x" + OTHER[2:].swapcase()
    with pytest.raises(UsageError, match="the file's name has a wrong checksum"):
        parse(STORE["store"], f"{folder}{wrong}_sessions.json")


def v3_store():
    """The store of SDK 3: the fields of version 4 without REVOKED."""
    statuses = ["PENDING", "ACTIVE", "INACTIVE", "EXPIRED"]
    nodes = [
        {
            "validUntil": 0,
            "validAfter": 0,
            "sessionValidationModule": MODULE.lower(),
            "sessionPublicKey": ACCOUNT.lower(),
            "sessionKeyData": f"0x{number:02x}",
            "sessionID": f"{number:010x}",
            "status": status,
        }
        for number, status in enumerate(statuses)
    ]
    return {"merkleRoot": "0x" + merkle_root(leaves(only(parse(nodes)))).hex(), "leafNodes": nodes}


@pytest.mark.parametrize("pack", [json.dumps, lambda store: store], ids=["text", "object"])
def test_a_store_of_version_3_from_a_whole_dump(pack):
    """Leaves whatever their status, each with it; the signers of version 3 stay unread."""
    account = ACCOUNT.lower()
    dump = {
        "theme": "dark",
        f"{account}_sessions": pack(v3_store()),
        f"{account}_signers": pack({OTHER.lower(): {"privateKey": "0x" + KEY}}),
    }
    result = parse(dump)
    imported = only(result)
    assert (imported.source, imported.account) == ("sdk_store", raw(ACCOUNT))
    assert imported.statuses == ("pending", "active", "inactive", "expired")
    assert imported.claimed_root == merkle_root(leaves(imported))
    assert len(result.warnings) == 1
    assert KEY not in repr(result)


def test_a_store_from_memory_says_no_account_but_every_status():
    """The store of SessionMemoryStorage is the bare object."""
    imported = only(parse(STORE["store"]))
    assert (imported.source, imported.account) == ("sdk_store", None)
    assert imported.statuses == ("revoked", "pending")


def test_a_list_of_stores_gives_a_set_each():
    """Stores of one account after the other, as a client's history has them."""
    result = parse([v3_store(), {**STORE["store"], "account": OTHER}])
    assert [(one.source, one.account, one.label) for one in result.sets] == [
        ("sdk_store", None, "$[0].leafNodes"),
        ("sdk_store", raw(OTHER), "$[1].leafNodes"),
    ]


def test_a_status_nobody_knows_is_told_and_left_out():
    """Of any list the known words are taken, in either case; missing and null say nothing."""
    said = ["REVOKED", "active", None, "BURNT", 7, {"a": 1}]
    result = parse([changed(status=status) for status in said] + [PLAIN])
    assert only(result).statuses == ("revoked", "active", None, None, None, None, None)
    assert "none of pending, active, inactive, expired, revoked" in result.warnings[0]
    assert result.warnings[0].endswith("$[3], $[4], $[5]")


def test_a_set_exported_here_says_its_form():
    """The form stands in the object; one that does not exist is a mistake."""
    document = {"matched_form": "revoke_form", "sessions": [changed(client_status="revoked")]}
    imported = only(parse(document))
    assert (imported.matched_form, imported.statuses) == ("revoke_form", ("revoked",))
    assert only(parse(document | {"matched_form": None})).matched_form is None
    assert '$.matched_form is "all", expected one of all_leaves' in refused(
        document | {"matched_form": "all"}
    )


def demo_store(*signers):
    return {
        signer: {"signer": {"privateKey": "0x" + KEY, "address": signer}, "sessions": [PLAIN]}
        for signer in signers
    }


def test_the_demo_store_keeps_sessions_and_drops_keys():
    """Each signer's list is a set; the private key beside it is dropped and only its path told."""
    result = parse(demo_store(ACCOUNT))
    assert only(result).source == "particle_demo_store"
    assert result.warnings == (
        f"what looks like private keys was dropped unread: $.{ACCOUNT}.signer.privateKey",
    )
    assert len(parse(demo_store(ACCOUNT, OTHER)).sets) == 2
    assert len(parse(demo_store(ACCOUNT) | {OTHER: {"sessions": []}}).sets) == 1
    assert any("2 signers" in w for w in parse(demo_store(ACCOUNT, OTHER)).warnings)

    # Newest first, and registered so: the order of the list is the order of the leaves.
    newest_first = demo_store(ACCOUNT)
    newest_first[ACCOUNT]["sessions"] = [changed(sessionKeyData=f"0x0{n}") for n in (3, 2, 1)]
    data = [session.session_key_data for session in only(parse(newest_first)).sessions]
    assert data == [b"\x03", b"\x02", b"\x01"]

    dump = parse({f"sessions_{ACCOUNT}_80001": json.dumps(demo_store(OTHER))})
    assert (only(dump).chain_id, only(dump).account) == (80001, None)
    assert any("may be the owner's" in w for w in dump.warnings)
    assert KEY not in repr(result) + repr(dump)


@given(st.integers(0, MAX_UINT48), st.integers(0, MAX_UINT48))
@settings(deadline=None)
def test_times_mean_the_same_in_every_spelling(until, after):
    """JSON numbers, decimal texts and 0x texts may be mixed."""
    spelt = [
        changed(validUntil=until, validAfter=after),
        changed(validUntil=str(until), validAfter=hex(after)),
        changed(validUntil=hex(until).upper(), validAfter=str(after)),
    ]
    sessions = only(parse(spelt)).sessions
    assert set(sessions) == {sessions[0]}
    assert (sessions[0].valid_until, sessions[0].valid_after) == (until, after)


@given(st.binary(min_size=20, max_size=20).map(Address))
@settings(deadline=None)
def test_addresses_are_read_in_three_spellings(address):
    """Lower case, upper case and the checksum are one address; a wrong checksum is none."""
    good = checksum(address)
    texts = [good, good.lower(), "0x" + good[2:].upper(), good.upper()]
    read = only(parse([changed(sessionValidationModule=text) for text in texts])).sessions
    assert {session.session_validation_module for session in read} == {address}

    wrong = "0x" + good[2:].swapcase()
    if wrong.lower() != wrong and wrong[2:].upper() != wrong[2:]:
        message = refused([changed(sessionValidationModule=wrong)])
        assert f'wrong checksum in "{wrong}", the right spelling is {good}' in message


@pytest.mark.parametrize(
    ("items", "warning"),
    [
        ([PLAIN, changed(validUntil=1_700_000_000_000)], "look like milliseconds.*: .*\\$\\[1\\]$"),
        ([changed(validAfter=10**11 + 1)], "milliseconds"),
        ([changed(validUntil=5, validAfter=6)], "validUntil lies before validAfter.*: \\$\\[0\\]$"),
        ([PLAIN, changed(validUntil=1), PLAIN], "repeat and are kept.*: \\$\\[2\\] = \\[0\\]$"),
        ([PLAIN] * 20, "and 14 more$"),
        (
            [without("sessionKeyData") | {"sessionKeyDataInAbi": [["uint256[]"], [[2**53 + 1]]]}],
            "past 2\\^53.*: \\$\\[0\\]$",
        ),
        (
            [without("sessionKeyData") | {"sessionKeyDataInAbi": [["(uint a)"], [{"a": 2**60}]]}],
            "past 2\\^53",
        ),
    ],
)
def test_what_is_rarely_meant_is_a_warning(items, warning):
    """Milliseconds, unusable times, repeated sessions and unsafe numbers are kept and told."""
    result = parse(items)
    assert len(only(result).sessions) == len(items)
    (text,) = result.warnings
    assert re.search(warning, text)


@pytest.mark.parametrize(
    "item",
    [
        PLAIN,
        changed(validUntil=MAX_UINT48, validAfter=MAX_UINT48),
        changed(validUntil=0, validAfter=1_700_000_000),
        changed(validUntil=10**11),
        changed(validUntil=1_600_000_000, validAfter=1_600_000_000),
        changed(sessionID="x", status="REVOKED", sessionPublicKey=ACCOUNT),
    ],
)
def test_what_is_usual_is_no_warning(item):
    """No expiry, the largest time as never, an instant, and fields of a store pass in silence."""
    assert parse([item]).warnings == ()
