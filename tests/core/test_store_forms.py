"""Which sets a client's list stands for, and which form of it the chain has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core.abi import keccak
from indexer.core.import_plan import ListPlan, plan_import
from indexer.core.merkle import merkle_root, prefix_roots
from indexer.core.session_sets import CLIENT_STATUSES, MAX_SESSIONS
from indexer.core.store_forms import RECORDED_FORMS, match, sets_to_store, wanted_sets
from indexer.core.types import ZERO_HASH, Address, Hash32
from tests.core.session_documents import ACCOUNT, PLAIN, VECTORS, leaves, only, parse, raw

STEPS = json.loads((VECTORS / "edge_cases.json").read_text())["sdkStoreSequence"]["steps"]
STORE_V4 = json.loads((VECTORS / "sdk_store_v4.json").read_text())
# Clearing leaves the tree with a leaf that the store has not any more: no form of it.
FORMS_OF_STEPS = ["all_leaves"] * 2 + [None] + ["all_leaves"] * 2 + ["revoke_form", "all_leaves"]

statuses = st.lists(st.sampled_from([None, *CLIENT_STATUSES]), min_size=1, max_size=8)


def numbered(count: int) -> list[Hash32]:
    return [keccak(b"leaf %d" % n) for n in range(count)]


def root_of(*numbers: int) -> Hash32:
    return merkle_root([numbered(10)[n] for n in numbers])


class Sdk:
    """The vendor's module over its store: @biconomy/account 4.6.3, sessions only by number."""

    def __init__(self) -> None:
        self.store: dict[int, str] = {}
        self.tree: list[int] = []

    def create(self) -> None:
        number = len(self.store)
        self.store[number] = "pending"
        self.tree.append(number)

    def revoke(self, *numbers: int) -> None:
        # Each turn of the vendor's loop overwrites what the one before has filtered.
        self.tree += [number for number in self.store if number != numbers[-1]]
        self.store |= dict.fromkeys(numbers, "revoked")

    def reopen(self) -> None:
        self.tree = list(self.store)

    def found(self) -> tuple[str, tuple[int, ...]] | None:
        hit = match(
            numbered(len(self.store)),
            list(self.store.values()),
            [root_of(*self.tree)],
        )
        return None if hit is None else (hit[0].form, hit[0].positions)


@given(st.integers(1, 70))
def test_roots_of_prefixes_are_the_roots_of_their_lists(count: int) -> None:
    """Growing the tree leaf by leaf gives what building each tree anew gives."""
    listed = numbered(count)
    assert list(prefix_roots(listed)) == [merkle_root(listed[: n + 1]) for n in range(count)]


@given(statuses)
def test_a_list_gives_all_leaves_and_then_the_wish(said: list[Any]) -> None:
    """The wish is all that is not revoked; nothing revoked, or nothing else, gives none."""
    everything, *wish = wanted_sets(said)
    assert (everything.form, everything.positions) == ("all_leaves", tuple(range(len(said))))
    kept = tuple(i for i, status in enumerate(said) if status != "revoked")
    if 0 < len(kept) < len(said):
        assert [(one.form, one.positions) for one in wish] == [("not_revoked", kept)]
    else:
        assert wish == []


@given(statuses, st.data())
def test_what_matches_has_the_root_and_is_stored_before_the_wish(
    said: list[Any], data: st.DataObject
) -> None:
    """Whatever the chain has of a list: it is found, stored once, and the wish stays the newest."""
    listed = numbered(len(said))
    chosen = data.draw(st.lists(st.integers(0, len(said) - 1), min_size=1, max_size=10))
    root = merkle_root([listed[n] for n in chosen])
    hit = match(listed, said, [root], newest_first=data.draw(st.booleans()))
    planned = sets_to_store(listed, said, None if hit is None else hit[0])
    wanted = wanted_sets(said)
    assert planned[-len(wanted) :] == wanted
    if hit is not None:
        assert merkle_root(hit[0].leaves(listed)) == hit[1] == root
        before = planned[: -len(wanted)]
        assert {one.form for one in before} <= RECORDED_FORMS
        assert sum(merkle_root(one.leaves(listed)) == root for one in planned) >= 1
        assert len({one.leaves(listed) for one in planned}) == len(planned)


@pytest.mark.parametrize(
    ("said", "numbers", "form"),
    [
        (["active", None, "pending"], [0, 1, 2], "all_leaves"),
        (["active", "revoked", "pending"], [0, 1, 2], "all_leaves"),
        (["active", "revoked", "pending"], [0, 2], "not_revoked"),
        (["active", "revoked", "pending", "active"], [0, 3], "active"),
        # Without REVOKED, ACTIVE alone comes before a prefix.
        (["active", "active", "pending"], [0, 1], "active"),
        (["active", "pending", "pending"], [0, 1], "prefix"),
        ([None, None, None], [0], "prefix"),
        (["active", "revoked", "pending"], [0, 1, 2, 0, 2], "revoke_form"),
        (["pending", "pending", "pending"], [0, 1, 2, 0, 2], None),
        ([None, None, None], [1, 2], None),
        ([None, None, None], [2, 1, 0], None),
    ],
)
def test_forms_are_tried_in_their_order(
    said: list[Any], numbers: list[int], form: str | None
) -> None:
    """The first form in the order of the rule that gives the root is the one recorded."""
    hit = match(numbered(len(said)), said, [root_of(9), root_of(*numbers)])
    assert (None if hit is None else hit[0].form) == form


def test_the_end_of_a_list_is_an_older_state_where_the_newest_stands_first() -> None:
    """Particle's demo registers [new, ...old], so what it had before is the end of its list."""
    assert match(numbered(3), [None] * 3, [root_of(1, 2)], newest_first=True) is not None
    assert match(numbered(3), [None] * 3, [root_of(1, 2)]) is None


def test_the_demos_store_is_stored_with_the_older_state_on_chain() -> None:
    """The demo's list has the newest first; what stood before the newest is its end."""
    sessions = [{**PLAIN, "sessionKeyData": f"0x0{n}"} for n in (3, 2, 1)]
    one = only(parse({ACCOUNT: {"signer": {"address": ACCOUNT}, "sessions": sessions}}))
    older = merkle_root(leaves(one)[1:])
    managers = [Address(bytes([n]) * 20) for n in (1, 2, 3)]
    roots = {managers[0]: keccak(b"another"), managers[1]: older}

    def planned(manager: Address | None) -> ListPlan:
        return plan_import(
            one,
            chain_id=80001,
            account=Address(raw(ACCOUNT)),
            manager=manager,
            default_manager=managers[2],
            roots=roots,
        )

    plan = planned(None)
    assert [(s.matched_form, s.manager) for s in plan.sets] == [
        ("suffix", managers[1]),
        ("all_leaves", managers[1]),
    ]
    assert plan.on_chain == plan.sets[0]
    assert plan.sets[0].leaves == tuple(leaves(one)[1:])
    # Where another manager is asked for, or none has it, nothing is recorded.
    assert [s.manager for s in planned(managers[0]).sets] == managers[:1]
    roots.clear()
    assert [s.manager for s in planned(None).sets] == managers[2:]


def test_a_zero_root_matches_nothing() -> None:
    assert match(numbered(2), [None] * 2, [ZERO_HASH]) is None
    assert match(numbered(2), [None] * 2, []) is None


@given(st.integers(2, 6), st.data())
@settings(max_examples=200)
def test_whatever_calls_revoked_the_tree_is_recognised(count: int, data: st.DataObject) -> None:
    """Calls one after the other in one instance, of one session or several, in any order."""
    sdk = Sdk()
    for _ in range(count):
        sdk.create()
    if data.draw(st.booleans()):
        sdk.reopen()
    order = data.draw(st.permutations(range(count)))[: min(count, 4)]
    calls = [order[i : i + 2] for i in range(0, len(order), 2)]
    for numbers in calls:
        sdk.revoke(*numbers)
    hit = sdk.found()
    assert hit is not None
    assert hit[0] == "revoke_form"
    assert root_of(*hit[1]) == root_of(*sdk.tree)


@given(st.integers(1, 5), st.integers(0, 3), st.data())
def test_sessions_created_after_a_revocation_stand_behind_it(
    before: int, after: int, data: st.DataObject
) -> None:
    """The tree of the instance grows on; a new instance builds it from all leaves again."""
    sdk = Sdk()
    for _ in range(before):
        sdk.create()
    sdk.revoke(data.draw(st.integers(0, before - 1)))
    for _ in range(after):
        sdk.create()
    hit = sdk.found()
    assert hit is not None
    assert root_of(*hit[1]) == root_of(*sdk.tree)
    sdk.reopen()
    hit = sdk.found()
    assert hit == ("all_leaves", tuple(range(before + after)))


@pytest.mark.parametrize(
    ("step", "form"),
    list(zip(STEPS, FORMS_OF_STEPS, strict=True)),
    ids=lambda value: value["step"][:30] if isinstance(value, dict) else None,
)
def test_the_vendors_sequence(step: dict[str, Any], form: str | None) -> None:
    """At each step of a real run the root of the vendor's tree is that of this form."""
    one = only(parse(step["store"]))
    hit = match(leaves(one), one.statuses, [raw(step["treeRoot"])])
    if form is None:
        assert hit is None
    else:
        assert hit is not None
        assert hit[0].form == form
        assert [f"0x{leaf.hex()}" for leaf in hit[0].leaves(leaves(one))] == step["treeLeaves"]
    wish = wanted_sets(one.statuses)[-1].leaves(leaves(one))
    assert merkle_root(wish) == raw(step["rootOfNonRevokedStoreLeaves"])


def test_the_store_of_a_real_run_after_a_revocation() -> None:
    """The root that was on chain then is the vendor's revoke form."""
    one = only(parse(STORE_V4["store"]))
    hit = match(leaves(one), one.statuses, [raw(STORE_V4["on_chain_root"])])
    assert hit is not None
    assert (hit[0].form, hit[0].positions) == ("revoke_form", (0, 1, 1))


def test_the_search_of_a_large_store_ends() -> None:
    """What no set can hold is not built, and the search stops after so many leaves."""
    said: list[Any] = ["revoked", *["active"] * (MAX_SESSIONS - 1)]
    listed = [Hash32(n.to_bytes(32, "big")) for n in range(MAX_SESSIONS)]
    assert match(listed, said, [keccak(b"another")], newest_first=True) is None
    half = list(prefix_roots(listed))[MAX_SESSIONS // 2 - 1]
    hit = match(listed, said, [half])
    assert hit is not None
    assert (hit[0].form, len(hit[0].positions)) == ("prefix", MAX_SESSIONS // 2)
