"""The scripted run does what it says: the contracts agree with it at every block."""

import random

import pytest

from indexer.core.types import ZERO_HASH
from indexer.devnet.accounts import running_devnet
from tests.routes import Stage, play_routes, script, silent_script, true_balances, truth


async def _truth_of(devnet, report, first):
    last = await devnet.rpc.block_number()
    return await truth(devnet, report.managers, report.all_accounts(), first, last)


async def test_the_script_changes_roots_by_every_route(devnet):
    """At least 40 changes; the contracts show exactly those that the steps claim."""
    seen: list[int] = []

    async def on_block(number: int) -> None:
        seen.append(number)

    first = await devnet.rpc.block_number() + 1
    report = await play_routes(devnet, silent=True, on_block=on_block)
    found = await _truth_of(devnet, report, first)
    claimed = {(c.manager, c.account, c.block_number, c.root) for c in report.changes}
    shown = {(m, a, block, root) for (m, a), rows in found.items() for block, root in rows}
    assert claimed == shown
    assert len(shown) >= 40
    assert len({change.route for change in report.changes}) >= 30
    assert len(report.look_alikes) >= 25
    assert seen == sorted(set(seen)), "every step mines"
    # Nearly every root belongs to a set that can be stored; two are meant to be unknown.
    roots = {(m, a, r) for m, a, _, r in shown if r != ZERO_HASH}
    assert len(roots - set(report.sets)) == 2


async def test_the_script_moves_tokens(devnet):
    """Balances that occur: minted, burnt, transferred, zero, and one past 64 bits."""
    report = await play_routes(devnet)
    balances = await true_balances(devnet, report.holders)
    assert max(balances.values()) == 2**250
    assert 0 in balances.values()
    assert len(report.session_ops) >= 6


async def test_the_script_depends_on_its_seed_alone(toolchain):
    """The same seed gives the same sets and changes, another one another order."""
    reports = []
    for seed in (5, 5, 6):
        async with running_devnet(toolchain) as devnet:
            reports.append(await play_routes(devnet, seed=seed))
    one, same, other = ([(c.route, c.root) for c in r.changes] for r in reports)
    assert one == same
    assert reports[0].look_alikes == reports[1].look_alikes
    assert reports[0].look_alikes != reports[2].look_alikes
    assert sorted(one) != sorted(other)


@pytest.mark.parametrize("seed", range(3))
async def test_steps_can_be_played_again_on_another_branch(devnet, seed):
    """Reorgs between steps and repeated steps break nothing: each puts right what it needs."""
    order, stage = random.Random(seed), Stage(devnet, seed)
    first = await devnet.rpc.block_number() + 1
    done = []
    for step in [*script(stage), *silent_script(stage)]:
        await step.run()
        done.append(step)
        if len(done) > 4 and order.random() < 0.2:
            await devnet.rpc.reorg(order.randint(1, 8))
            for again in order.sample(done[-4:], 2):
                await again.run()
    found = await _truth_of(devnet, stage.report, first)
    assert sum(map(len, found.values())) >= 30
