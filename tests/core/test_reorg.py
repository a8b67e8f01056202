"""The live lane's planner: any tree of blocks, any fork, any lag, any lie."""

from dataclasses import dataclass, field, replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.core.reorg import (
    Extend,
    Inconsistent,
    NeedTail,
    Restart,
    Rewind,
    Step,
    Tail,
    Violation,
    Wait,
    common_ancestor,
    plan_step,
)
from indexer.core.types import ZERO_HASH, BlockHeader, ChainHead, Hash32


def block(parent: BlockHeader | None, branch: str) -> BlockHeader:
    """Return a child of `parent`; equal parents and branches give equal blocks."""
    number = 0 if parent is None else parent.number + 1
    above = ZERO_HASH if parent is None else parent.hash
    own = Hash32(sha256(above + branch.encode()).digest())
    return BlockHeader(number, own, above, 1_000 + 12 * number)


def chain(length: int, branch: str = "a", onto: tuple[BlockHeader, ...] = ()) -> list[BlockHeader]:
    """Return `onto` with `length` more blocks of a branch."""
    found = list(onto)
    for _ in range(length):
        found.append(block(found[-1] if found else None, branch))
    return found


MAIN = chain(40)


def forked(keep: int, length: int, branch: str = "b") -> list[BlockHeader]:
    """Return MAIN up to block `keep`, then another branch."""
    return chain(length, branch, tuple(MAIN[: keep + 1]))


def tail_of(first: int, last: int, blocks: list[BlockHeader] = MAIN) -> Tail:
    return Tail(tuple(blocks[first : last + 1]))


def by_number(blocks: list[BlockHeader], first: int = 0) -> dict[int, BlockHeader]:
    return {header.number: header for header in blocks if header.number >= first}


def head_of(blocks: list[BlockHeader], finalized: int) -> ChainHead:
    return ChainHead(blocks[-1], blocks[finalized])


def plan(tail: Tail, blocks: list[BlockHeader], finalized: int, max_blocks: int = 5) -> Step:
    """Plan as the live lane does: headers from the tip on first, ever more of the tail if asked.

    Each look is also taken at a tail that holds nothing below it but the finalized block and
    those that the head names: what is left out never changes the plan.
    """
    last, head = tail.tip.number + max_blocks, head_of(blocks, finalized)
    top = min(tail.tip.number, blocks[-1].number)
    for first in (top, max(tail.finalized.number, top - 3), tail.finalized.number):
        shown = by_number(blocks[first : last + 1])
        step = plan_step(tail, head, shown, max_blocks=max_blocks)
        kept = {tail.finalized.number, tail.tip.number, head.latest.number, finalized}
        sparse = Tail(tuple(h for h in tail.headers if h.number >= first or h.number in kept))
        assert plan_step(sparse, head, shown, max_blocks=max_blocks) == step
        if not isinstance(step, NeedTail):
            return step
    raise AssertionError("the whole tail was not enough")


# --- examples ---------------------------------------------------------------------------------


def test_a_tail_out_of_order_or_of_two_branches_cannot_be_made():
    """Whoever reads a broken tail from the database learns it at once."""
    with pytest.raises(ValueError, match="breaks at block 5"):
        Tail((MAIN[7], MAIN[5]))
    with pytest.raises(ValueError, match="breaks at block 6"):
        Tail((block(MAIN[4], "b"), MAIN[6]))


def test_a_tail_gives_its_headers_by_number():
    """Outside the tail there is None, not some other block."""
    tail = tail_of(5, 8)

    assert [tail.get(number) for number in range(3, 11)] == [
        None,
        None,
        *MAIN[5:9],
        None,
        None,
    ]
    assert (tail.finalized, tail.tip) == (MAIN[5], MAIN[8])


def test_what_is_left_out_of_a_tail_is_asked_for():
    """A head or a finality inside the tail is compared with ours there, never passed over."""
    ends = Tail((MAIN[5], MAIN[12]))

    assert [ends.lacks(number) for number in (4, 5, 6, 11, 12, 13)] == [0, 0, 1, 1, 0, 0]
    for blocks, finalized in ((MAIN[:20], 8), (MAIN[:9], 5)):
        head, shown = head_of(blocks, finalized), by_number(MAIN[12:20])
        assert plan_step(ends, head, shown, max_blocks=5) == NeedTail()


def test_new_blocks_extend_and_finality_follows():
    """The tail grows by at most max_blocks; the marker goes where the node's finality is."""
    assert plan(tail_of(5, 8), MAIN[:12], 9) == Extend(tuple(MAIN[9:12]), MAIN[9])
    assert plan(tail_of(5, 8), MAIN, 8) == Extend(tuple(MAIN[9:14]), MAIN[8])


def test_finality_alone_is_a_step():
    """Without a new block the marker still moves."""
    assert plan(tail_of(5, 8), MAIN[:9], 7) == Extend((), MAIN[7])


def test_the_same_tip_is_a_confirmation():
    """Only a tip of our hash confirms that our view is up to date."""
    assert plan(tail_of(5, 8), MAIN[:9], 5) == Wait("no new block", confirmed=True)


def test_finality_that_is_behind_ours_moves_nothing_back():
    """A node whose finalized tag lags leaves the marker alone."""
    assert plan(tail_of(5, 8), MAIN[:9], 2) == Wait("no new block", confirmed=True)
    assert plan(tail_of(5, 8), MAIN[:10], 2) == Extend((MAIN[9],), MAIN[5])


def test_a_node_behind_us_is_waited_for():
    """A lower head on our own branch, or below our tail, is lag and confirms nothing."""
    for last in (7, 3):
        step = plan(tail_of(5, 8), MAIN[: last + 1], 1)
        assert step == Wait("the node is behind the indexed block", confirmed=False)


def test_a_tip_the_node_does_not_have_is_lag():
    """A missing header proves nothing, whatever the head says."""
    step = plan_step(tail_of(5, 8), head_of(MAIN, 6), by_number(MAIN, 9), max_blocks=5)

    assert step == Wait("the node does not have the indexed block", confirmed=False)


def test_a_missing_new_header_ends_the_extension():
    """Blocks after a hole are left for the next step, and so is finality beyond the hole."""
    shown = by_number(MAIN, 8)
    del shown[11]
    head = head_of(MAIN[:14], 12)

    assert plan_step(tail_of(5, 8), head, shown, max_blocks=9) == Extend(tuple(MAIN[9:11]), MAIN[5])
    del shown[9]
    assert plan_step(tail_of(5, 8), head, shown, max_blocks=9) == Wait(
        "no new block", confirmed=False
    )


def test_a_fork_rewinds_to_the_last_shared_block():
    """Longer, equal or shorter than ours: another hash is a reorg."""
    for length in (1, 3, 4, 12):
        assert plan(tail_of(5, 12), forked(9, length), 7) == Rewind(MAIN[9])
    assert plan(tail_of(5, 12), forked(5, 9), 5) == Rewind(MAIN[5])


def test_a_lower_head_of_another_branch_asks_for_the_tail():
    """Even if no header at that height was given, it is not taken for lag."""
    other = forked(6, 2)

    assert plan_step(tail_of(5, 12), head_of(other, 5), {}, max_blocks=5) == NeedTail()


def test_a_contradiction_without_its_ancestor_asks_for_the_tail():
    """The tip alone does not say how deep the reorg is."""
    other = forked(9, 6)

    step = plan_step(tail_of(5, 12), head_of(other, 7), by_number(other, 12), max_blocks=5)
    assert step == NeedTail()


def test_a_fork_at_or_below_finality_is_a_violation():
    """Both blocks are named, and nothing is planned that would write."""
    for keep in (4, 2):
        other = forked(keep, 12)
        assert plan(tail_of(5, 12), other, 6) == Violation(5, MAIN[5], other[5])
    other = forked(4, 12)
    assert plan(tail_of(5, 5), other, 6) == Violation(5, MAIN[5], other[5])


def test_after_a_long_absence_the_tail_restarts():
    """Only finality beyond what one step can link starts the tail anew."""
    assert plan(tail_of(5, 8), MAIN, 14) == Restart(MAIN[14])
    assert plan(tail_of(5, 8), MAIN, 13) == Extend(tuple(MAIN[9:14]), MAIN[13])


def test_a_branch_that_lost_is_left_before_the_tail_restarts():
    """Restarting folds the old tail as final, so its tip has to be on the node's chain."""
    assert plan(tail_of(5, 12), forked(9, 30), 30) == Rewind(MAIN[9])
    step = plan_step(tail_of(5, 12), head_of(forked(9, 30), 30), {}, max_blocks=5)
    assert step == Wait("the node does not have the indexed block", confirmed=False)


def test_answers_from_two_branches_are_asked_for_again():
    """Whatever does not link was answered while the node moved, or by two nodes."""
    tail, other = tail_of(5, 8), forked(9, 9)
    mixed = {**by_number(MAIN, 8), 10: other[10]}
    for head, shown in (
        (head_of(MAIN, 6), {**mixed, 9: block(MAIN[8], "c")}),
        (ChainHead(MAIN[-1], block(MAIN[5], "b")), by_number(MAIN, 8)),
        (ChainHead(MAIN[-1], forked(5, 7)[10]), by_number(MAIN, 8)),
    ):
        assert isinstance(plan_step(tail, head, shown, max_blocks=5), Inconsistent)


def test_our_block_above_a_contradiction_is_a_contradiction_of_the_node():
    """Neither a reorg nor a violation can be concluded from a chain that cannot exist."""
    other = forked(4, 12)
    shown = {**by_number(MAIN[5:13]), 5: other[5]}
    assert isinstance(
        plan_step(tail_of(5, 12), head_of(MAIN, 6), shown, max_blocks=5), Inconsistent
    )


def test_a_fork_point_that_does_not_link_is_asked_for_again():
    """The first contradicted block must stand on the last shared one."""
    other = forked(8, 12)
    shown = {**by_number(other, 5), 9: MAIN[9]}
    assert isinstance(
        plan_step(tail_of(5, 12), head_of(other, 6), shown, max_blocks=5), Inconsistent
    )


def test_the_ancestor_is_the_last_block_before_the_first_contradiction():
    """Nothing is proved where the node's header at either height is not known."""
    stored, other = MAIN[5:13], forked(8, 12)

    assert common_ancestor(stored, by_number(other)) == MAIN[8]
    assert common_ancestor(stored, {8: MAIN[8]}) is None
    assert common_ancestor(stored, {9: other[9]}) is None
    assert common_ancestor(stored[:1], by_number(other)) is None


# --- laws -------------------------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn) -> list[list[BlockHeader]]:
    """Branches of one tree, each given from block 0."""
    branches = [chain(draw(st.integers(6, 24)))]
    for name in draw(st.lists(st.sampled_from("bcde"), max_size=3, unique=True)):
        base = draw(st.sampled_from(branches))
        keep = draw(st.integers(0, len(base) - 1))
        branches.append(chain(draw(st.integers(1, 14)), name, tuple(base[: keep + 1])))
    return branches


@st.composite
def tails(draw: st.DrawFn, branches: list[list[BlockHeader]]) -> Tail:
    base = draw(st.sampled_from(branches))
    first = draw(st.integers(0, len(base) - 1))
    return tail_of(first, draw(st.integers(first, len(base) - 1)), base)


@given(st.data())
def test_nothing_is_ever_written_that_was_not_proved(data):
    """Whatever a node answers, each step that writes is proved by the headers it rests on."""
    branches = data.draw(trees())
    tail = data.draw(tails(branches))
    every = [header for branch in branches for header in branch]
    latest, finalized = data.draw(st.sampled_from(every)), data.draw(st.sampled_from(every))
    numbers = st.sampled_from(sorted({header.number for header in every}))
    shown = {
        number: data.draw(st.sampled_from([h for h in every if h.number == number]))
        for number in data.draw(st.sets(numbers))
    }
    max_blocks = data.draw(st.integers(1, 8))

    step = plan_step(tail, ChainHead(latest, finalized), shown, max_blocks=max_blocks)

    tip, agrees = tail.tip, [h for h in tail.headers if shown.get(h.number, h).hash == h.hash]
    match step:
        case Extend(headers, marker):
            linked = Tail((*tail.headers, *headers))
            assert len(headers) <= max_blocks
            assert agrees == list(tail.headers)
            assert shown[tip.number].hash == tip.hash
            assert all(shown[header.number] is header for header in headers)
            assert marker == tail.finalized or marker.hash == finalized.hash
            assert marker.number >= tail.finalized.number
            assert linked.get(marker.number) == marker
            assert headers or marker != tail.finalized
        case Rewind(keep):
            assert keep in tail.headers
            assert keep != tip
            assert shown[keep.number].hash == keep.hash
            after = shown[keep.number + 1]
            lost = tail.get(keep.number + 1)
            assert lost is not None
            assert after.hash != lost.hash
            assert after.parent_hash == keep.hash
        case Restart(start):
            assert start == finalized
            assert start.number > tip.number + max_blocks
            assert shown[tip.number].hash == tip.hash
            assert agrees == list(tail.headers)
        case Violation(number, ours, theirs):
            assert number == ours.number == theirs.number == tail.finalized.number
            assert ours == tail.finalized
            assert theirs == shown[number]
            assert theirs.hash != ours.hash
        case Wait(_, confirmed):
            assert not confirmed or latest.hash == tip.hash == shown[tip.number].hash
        case NeedTail() | Inconsistent():
            pass


@given(st.data())
def test_one_look_at_the_whole_tail_always_suffices(data):
    """Against a node that serves one branch, the tail is asked for once and the step is right."""
    branches = data.draw(trees())
    tail = data.draw(tails(branches))
    node = data.draw(st.sampled_from(branches))
    finalized = data.draw(st.integers(0, len(node) - 1))

    step = plan(tail, node, finalized, data.draw(st.integers(1, 8)))

    shared = [h for h in tail.headers if h.number < len(node) and node[h.number] == h]
    seen = [h for h in tail.headers if h.number < len(node)]
    if not seen or shared == seen != list(tail.headers):
        assert step == Wait("the node is behind the indexed block", confirmed=False)
    elif not shared:
        assert step == Violation(tail.finalized.number, tail.finalized, node[seen[0].number])
    elif shared != seen:
        assert step == Rewind(shared[-1])
    else:
        assert isinstance(step, (Extend, Restart, Wait))


@given(st.data())
def test_what_a_header_says_of_its_time_is_no_contradiction(data):
    """Only hashes are compared: a node that gives another timestamp forces no reorg."""
    shown = {n: replace(header, timestamp=0) for n, header in by_number(MAIN[:9]).items()}
    head = ChainHead(shown[8], shown[data.draw(st.integers(0, 5))])

    assert plan_step(tail_of(5, 8), head, shown, max_blocks=5) == Wait(
        "no new block", confirmed=True
    )


@dataclass
class Model:
    """The store in memory: a tail, and every block that was ever declared final."""

    tail: Tail
    max_blocks: int
    final: dict[int, Hash32] = field(default_factory=dict)
    violations: int = 0

    def __post_init__(self) -> None:
        self.final[self.tail.finalized.number] = self.tail.finalized.hash

    def apply(self, step: Step) -> None:
        headers, before = self.tail.headers, self.tail.finalized.number
        match step:
            case Extend(new, marker):
                grown = Tail((*headers, *new))
                self.tail = Tail(
                    tuple(header for header in grown.headers if header.number >= marker.number)
                )
                self.final |= {h.number: h.hash for h in grown.headers if h.number <= marker.number}
            case Rewind(keep):
                assert keep.number >= before
                self.tail = Tail(
                    tuple(header for header in headers if header.number <= keep.number)
                )
            case Restart(start):
                self.final |= {h.number: h.hash for h in headers}
                self.tail = Tail((start,))
                self.final[start.number] = start.hash
            case Violation():
                self.violations += 1
            case Wait() | NeedTail() | Inconsistent():
                pass
        assert self.tail.finalized.number >= before

    def follow(self, node: list[BlockHeader], finalized: int) -> Step:
        step = plan(self.tail, node, finalized, self.max_blocks)
        self.apply(step)
        return step


@st.composite
def events(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """(what happens, depth, blocks): mining, forks, a back-end that lags, steps in between."""
    kinds = st.sampled_from(["mine", "fork", "lag", "step", "finalize", "hole"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 9), st.integers(1, 9)), max_size=25))


@given(events(), st.integers(1, 6))
def test_any_forks_above_finality_settle_on_the_winning_branch(happenings, max_blocks):
    """However the chain forked on the way, a bounded number of steps ends on its tip."""
    node, finalized, branches = chain(4), 1, 0
    model = Model(tail_of(1, 1, node), max_blocks)
    for kind, depth, count in happenings:
        if kind == "mine":
            node = chain(count, f"branch {branches}", tuple(node))
        elif kind == "fork":
            branches += 1
            keep = max(finalized, node[-1].number - depth)
            node = chain(count, f"branch {branches}", tuple(node[: keep + 1]))
        elif kind == "finalize":
            finalized = max(finalized, min(node[-1].number, finalized + depth))
        elif kind == "lag":
            shown = node[: max(len(node) - depth, 1)]
            model.follow(shown, min(finalized, len(shown) - 1))
        elif kind == "hole":
            tip = model.tail.tip.number
            shown = {h.number: h for h in node if h.number != tip + depth}
            head = head_of(node, finalized)
            model.apply(plan_step(model.tail, head, shown, max_blocks=max_blocks))
        else:
            model.follow(node, finalized)

    # Rewinding is one step; then max_blocks at a time, unless finality restarts the tail.
    bound = 3 + len(node) // max_blocks
    steps = 0
    while model.follow(node, finalized) != Wait("no new block", confirmed=True):
        steps += 1
        assert steps <= bound
    assert list(model.tail.headers) == node[finalized:]
    assert model.violations == 0
    assert all(node[number].hash == hash_ for number, hash_ in model.final.items())


@given(st.data())
def test_a_fork_at_or_below_finality_writes_nothing_until_the_node_returns(data):
    """The violation is found as soon as the node shows that height, and ends when it agrees."""
    first = data.draw(st.integers(1, 20))
    tail = tail_of(first, data.draw(st.integers(first, 25)))
    other = forked(data.draw(st.integers(0, first - 1)), data.draw(st.integers(1, 30)))
    model = Model(tail, data.draw(st.integers(1, 8)))

    for finalized in data.draw(st.lists(st.integers(0, len(other) - 1), min_size=1, max_size=4)):
        step = model.follow(other, finalized)
        assert isinstance(step, Violation if len(other) > first else Wait)
        assert model.tail == tail
    assert isinstance(model.follow(MAIN[:27], 1), Extend)
