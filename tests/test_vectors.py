"""What the files of vectors/ state beyond what tests of single parts take from them.

Booleans in the files were observed on a node with the vendor's contracts; here they are observed
again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode
from eth_hash.auto import keccak
from eth_keys.datatypes import Signature

from indexer.chain.slots import FALLBACK_HANDLER_SLOT, implementation_slot
from indexer.core import presets, topics
from indexer.core.merkle import merkle_proof, merkle_root, root_slot, session_leaf
from indexer.core.session_import import parse_document
from indexer.core.session_layout import session_key
from indexer.core.types import Address, Hash32, Session
from indexer.devnet import addresses as at
from indexer.devnet.accounts import Devnet, Transaction, running_devnet
from indexer.devnet.operations import UserOp, call_data
from indexer.devnet.rpc import DevnetRpcError, hexed
from indexer.devnet.tools import Toolchain
from tests.core.make_logs import event
from tests.route_decoys import topic

Json = Any

VECTORS = Path(__file__).parent / "vectors"
FILES: dict[str, Json] = {
    file.name: json.loads(file.read_text()) for file in VECTORS.glob("*.json")
}
CASES = {case["id"]: case for case in FILES["sessions.json"]["cases"]}
EDGES = FILES["edge_cases.json"]
STEPS = EDGES["sdkStoreSequence"]["steps"]
TOPICS = FILES["topics.json"]
OP_TYPES = "(address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes)"


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def session_of(item: Json) -> Session:
    return Session(
        item["validUntil"],
        item["validAfter"],
        Address(raw(item["sessionValidationModule"])),
        raw(item["sessionKeyData"]),
    )


def sessions_of(document: Json) -> tuple[Session, ...]:
    """Return the sessions of a document, as an import reads them."""
    (found,) = parse_document(json.dumps(document).encode(), name="vector.json").sets
    return found.sessions


@pytest.fixture(scope="module")
async def chain(toolchain: Toolchain) -> AsyncIterator[Devnet]:
    """One chain for the module: every case has an account of its own."""
    async with running_devnet(toolchain) as devnet:
        yield devnet


async def accepts(
    chain: Devnet, account: Address, session: Session, proof: Sequence[bytes]
) -> bool:
    """Ask the vendor's manager whether a session is under the account's root."""
    data = call_data(
        "validateSessionKey(address,uint48,uint48,address,bytes,bytes32[])",
        account,
        session.valid_until,
        session.valid_after,
        session.session_validation_module,
        session.session_key_data,
        list(proof),
    )
    try:
        await chain.rpc.eth_call(at.MANAGER, data)
    except DevnetRpcError as refused:
        if "SessionNotApproved" in str(refused):
            return False
        raise
    return True


async def set_root(chain: Devnet, account: Address, data: bytes) -> list[Json]:
    """Let an address, whatever it is, send calldata to the manager; return the logs."""
    await chain.rpc.set_balance(account, 10**18)
    receipt = await chain.send(Transaction(at.MANAGER, data, sender=account))
    assert receipt.succeeded
    return list(receipt.logs)


def test_every_part_of_every_file_is_known() -> None:
    """A file, a section or a field that somebody adds is not passed over in silence."""
    assert set(FILES) == {
        "addresses.json",
        "edge_cases.json",
        "particle_rpc_examples.json",
        "root_change_scenarios.json",
        "sdk_store_v4.json",
        "sessions.json",
        "topics.json",
    }
    assert EDGES.keys() - {"meta"} == {
        "sdkStoreSequence",
        "innerNodeAsLeaf",
        "publishedParticleUserOps",
        "sessionSignedUserOps",
        "callDataDecoding",
    }
    assert len(CASES) == 31
    assert {field for case in CASES.values() for field in case} == {
        *("id", "description", "tags", "account", "sessions", "leaves", "root", "proofs"),
        *("sdkProofsByLeafValue", "setMerkleRootCalldata", "verification"),
    }
    assert {field for case in CASES.values() for field in case["verification"]} == {
        *("storageSlot", "storageValueEqualsRoot", "getSessionKeysEqualsRoot"),
        *("setMerkleRootLogs", "proofsAccepted", "tamperedRejected"),
    }


@pytest.mark.parametrize("name", CASES)
async def test_the_managers_contract_proves_each_list(chain: Devnet, name: str) -> None:
    """Set on chain: slot and getter hold the root, no log, each proof holds, no tampered one."""
    case = CASES[name]
    account, verified = Address(raw(case["account"])), case["verification"]
    logs = await set_root(chain, account, raw(case["setMerkleRootCalldata"]))
    assert len(logs) == verified["setMerkleRootLogs"] == 0
    place = [hexed(at.MANAGER), verified["storageSlot"]]
    slot = await chain.rpc.call("eth_getStorageAt", *place, "latest")
    assert raw(slot) == raw(case["root"])
    assert await chain.root_of(at.MANAGER, account) == raw(case["root"])

    sessions = sessions_of(case["sessions"])
    given = [*case["proofs"], *case.get("sdkProofsByLeafValue", ())]
    accepted = [
        await accepts(chain, account, sessions[index % len(sessions)], list(map(raw, proof)))
        for index, proof in enumerate(given)
    ]
    assert accepted == [True] * verified["proofsAccepted"]

    rejected = [
        await accepts(chain, account, session, proof)
        for good, texts in list(zip(sessions, case["proofs"], strict=True))[:4]
        for session, proof in tampered(good, [raw(text) for text in texts])
    ]
    assert rejected == [False] * verified["tamperedRejected"]


def tampered(good: Session, proof: list[bytes]) -> list[tuple[Session, list[bytes]]]:
    """Return a session and its proof with each part changed in turn."""
    until, after, module, data = (
        good.valid_until,
        good.valid_after,
        good.session_validation_module,
        good.session_key_data,
    )
    return [
        (Session(until ^ 1, after, module, data), proof),
        (Session(until, after ^ 1, module, data), proof),
        (Session(until, after, Address(module[:-1] + bytes([module[-1] ^ 1])), data), proof),
        (Session(until, after, module, data + b"\0"), proof),
        (good, [*proof, b"\x01" * 32]),
    ]


@pytest.mark.parametrize("edge", EDGES["innerNodeAsLeaf"], ids=lambda edge: edge["basedOn"])
async def test_the_contract_takes_an_inner_node_for_a_session(chain: Devnet, edge: Json) -> None:
    """Its proof is true on chain, so membership is decided by the stored set."""
    account, based_on = Address(raw(edge["account"])), CASES[edge["basedOn"]]
    await set_root(chain, account, raw(based_on["setMerkleRootCalldata"]))
    pseudo = session_of(edge["pseudoSession"])
    taken = await accepts(chain, account, pseudo, list(map(raw, edge["proof"])))
    assert taken is edge["acceptedOnChain"] is edge["equalsInnerNode"] is True
    assert (edge["leaf"] in based_on["leaves"]) is edge["memberOfTheSet"] is False


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["step"][:40])
async def test_the_vendors_store_and_its_tree(chain: Devnet, step: Json) -> None:
    """The root is that of the tree in memory; what the store calls revoked is proved still."""
    tree = [Hash32(raw(leaf)) for leaf in step["treeLeaves"]]
    root = merkle_root(tree)
    assert root == raw(step["treeRoot"])
    kept = [
        Hash32(raw(leaf))
        for leaf, node in zip(step["storeLeavesInOrder"], step["store"]["leafNodes"], strict=True)
        if node["status"] != "REVOKED"
    ]
    assert merkle_root(kept) == raw(step["rootOfNonRevokedStoreLeaves"])
    if "0x" in step.get("note", ""):
        assert root == raw(step["note"].split("0x")[1].removeprefix("7cb64759"))

    account = Address(keccak(step["step"].encode())[12:])
    await set_root(chain, account, call_data("setMerkleRoot(bytes32)", root))
    revoked = [
        session
        for session, node in zip(
            sessions_of(step["store"]), step["store"]["leafNodes"], strict=True
        )
        if node["status"] == "REVOKED"
    ]
    assert [
        await accepts(chain, account, one, merkle_proof(tree, tree.index(session_leaf(one))))
        for one in revoked
    ] == step["revokedStillAcceptedOnChain"]


def test_the_store_is_named_as_the_vendor_names_it() -> None:
    """`${smartAccountAddress.toLowerCase()}_sessions` names the account of a dump."""
    sequence = EDGES["sdkStoreSequence"]
    assert sequence["storageKey"].startswith("`${smartAccountAddress.toLowerCase()}_sessions`")
    dump = {f"{sequence['smartAccount'].lower()}_sessions": json.dumps(STEPS[0]["store"])}
    (found,) = parse_document(json.dumps(dump).encode(), name="dump.json").sets
    assert found.account == raw(sequence["smartAccount"])


def test_the_store_after_a_revocation_claims_the_appended_tree() -> None:
    """All leaves and then those that remain: what the vendor's client put on chain."""
    stored = FILES["sdk_store_v4.json"]
    nodes = stored["store"]["leafNodes"]
    leaves = [session_leaf(session) for session in sessions_of(stored["store"])]
    remaining = [
        leaf for leaf, node in zip(leaves, nodes, strict=True) if node["status"] != "REVOKED"
    ]
    assert [node["status"] for node in nodes] == ["REVOKED", "PENDING"]
    assert merkle_root([*leaves, *remaining]) == raw(stored["on_chain_root"])
    assert stored["store"]["merkleRoot"] == stored["on_chain_root"]


def user_op(fields: Json) -> UserOp:
    """Return an operation of the files."""
    numbers = (
        "callGasLimit",
        "verificationGasLimit",
        "preVerificationGas",
        "maxFeePerGas",
        "maxPriorityFeePerGas",
    )
    return UserOp(
        Address(raw(fields["sender"])),
        int(fields["nonce"], 16),
        raw(fields["initCode"]),
        raw(fields["callData"]),
        *(int(str(fields[name]), 0) for name in numbers),
        raw(fields["paymasterAndData"]),
        raw(fields.get("signature", "0x")),
    )


@pytest.mark.parametrize(
    "published",
    [*EDGES["publishedParticleUserOps"]["userOps"], *EDGES["sessionSignedUserOps"]],
    ids=lambda one: one.get("name") or one["kind"],
)
async def test_the_entry_point_gives_the_published_hash(chain: Devnet, published: Json) -> None:
    """EntryPoint v0.6 on chain 80001 hashes the vendor's operations to the vendor's hashes."""
    op = user_op(published["userOp"])
    data = call_data(f"getUserOpHash({OP_TYPES})", op.fields())
    found = await chain.rpc.eth_call(at.ENTRY_POINT, data)
    assert found == op.hash() == raw(published["userOpHash"])
    assert published.get("publishedHash", published["userOpHash"]) == published["userOpHash"]


async def test_the_factory_gives_the_published_account(chain: Devnet) -> None:
    """Owner and index in the vendor's documents give the account there, and its root a leaf."""
    said = EDGES["publishedParticleUserOps"]
    assert (said["chainId"], raw(said["entryPoint"])) == (80001, at.ENTRY_POINT)
    setup = call_data("initForSmartAccount(address)", Address(raw(said["owner"])))
    data = call_data(
        "getAddressForCounterFactualAccount(address,bytes,uint256)",
        *(at.ECDSA_MODULE, setup, said["index"]),
    )
    found = (await chain.rpc.eth_call(at.FACTORY, data))[12:]
    assert found == raw(said["account"]) == raw(said["counterfactualAddressFromFactory"])
    (session,) = sessions_of(FILES["particle_rpc_examples.json"]["createSessions"]["request"])
    assert (session_leaf(session) == raw(said["root"])) is said["rootEqualsLeafOfPublishedSession"]


@pytest.mark.parametrize("case", EDGES["sessionSignedUserOps"], ids=lambda case: case["kind"])
def test_an_executed_operation_is_signed_by_its_sessions_key(case: Json) -> None:
    """The signer is the key in the session's data, under the root that was on chain."""
    module_signature, module = decode(["bytes", "address"], raw(case["userOp"]["signature"]))
    assert raw(module) == raw(case["module"])
    if case["kind"] == "BatchedSessionRouter":
        session = "(uint48,uint48,address,bytes,bytes32[],bytes)[]"
        *_, signature = decode(["address", session, "bytes"], module_signature)
    else:
        types = ["uint48", "uint48", "address", "bytes", "bytes32[]", "bytes"]
        *_, signature = decode(types, module_signature)
    message = keccak(b"\x19Ethereum Signed Message:\n32" + raw(case["userOpHash"]))
    signed = Signature(signature[:64] + bytes([signature[64] - 27]))
    signer = signed.recover_public_key_from_msg_hash(message).to_canonical_address()
    assert signer == raw(case["sessionSigner"])
    for item in case.get("sessions") or [case["session"]]:
        of = session_of(item)
        layout = {of.session_validation_module: ("session_key",)}
        assert session_key(of.session_validation_module, of.session_key_data, layout) == signer
    assert case["success"] is True
    assert case["rootImpliedByProof"] == case["onChainRoot"]


@pytest.mark.parametrize("entry", TOPICS, ids=lambda one: f"{one['contract']}.{one['sig']}")
def test_every_event_of_the_vendor_hashes_to_its_topic(entry: Json) -> None:
    """Declaration, signature, indexed names and topic0 of one event say the same."""
    declared = event(entry["full"].replace("tuple", ""))
    assert entry["full"].split("(")[0] == entry["sig"].split("(")[0]
    if "(" not in entry["full"].split("(", 1)[1]:
        assert declared.signature == entry["sig"]
        assert [name for _, name, indexed in declared.parameters if indexed] == entry["indexed"]
    assert topic(entry["sig"]) == raw(entry["topic0"])


def test_events_of_other_contracts_share_topics_with_ours() -> None:
    """A topic alone proves nothing: these are the vendor's own contracts that are not watched."""
    ours = {"EntryPoint v0.6", "SmartAccount 2.0.0", "SmartAccountFactory 2", "ERC1155"}
    ours |= {"EcdsaOwnershipRegistry", "SKM 1.1.0"}
    shared = {
        entry["contract"]
        for entry in TOPICS
        if entry["contract"] not in ours and Hash32(raw(entry["topic0"])) in topics.FORMS
    }
    assert shared == {"SKM DAN", "SmartAccount develop"}


def test_addresses_that_differ_between_chains_are_in_no_preset() -> None:
    """A preset holds what stands on every chain; the first version's contracts are not ours."""
    known = FILES["addresses.json"]
    others = ("entryPointChiliz", "factoryTaikoHekla", "factoryV1", "implementationV1")
    watched = {
        *presets.ENTRY_POINTS,
        *presets.FACTORIES,
        *presets.IMPLEMENTATIONS,
        *presets.MANAGERS,
        *presets.OWNERSHIP_MODULES,
    }
    assert not {raw(known[name]) for name in others} & watched
    assert {raw(known["ecdsaOwnershipModule"]), raw(known["multichainModule"])} <= watched
    assert presets.PRESETS["mumbai"].chain_id == known["seed"]["chainId"]


def test_slots_are_where_the_file_says() -> None:
    """Root, implementation and fallback handler: by the formula in words."""
    said = FILES["addresses.json"]["slots"]
    account = Address(raw(EDGES["publishedParticleUserOps"]["account"]))
    assert said["root"] == "keccak256(abi.encode(account,uint256(0))) in the manager"
    assert root_slot(account) == keccak(account.rjust(32, b"\0") + bytes(32))
    assert said["implementation"] == "uint256(uint160(account)) in the account"
    assert implementation_slot(account) == account.rjust(32, b"\0")
    assert raw(said["fallbackHandler"].split()[0]) == FALLBACK_HANDLER_SLOT
