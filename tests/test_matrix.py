"""Each change of configuration owes its own past and nothing else: rows as of a fresh index."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from indexer.core.types import Address
from indexer.devnet import addresses as at
from tests.daemon_process import command, until
from tests.fresh_index import differences
from tests.matrix import (
    FINALITY_DEPTH,
    FOREIGN,
    LATE,
    START_BLOCK,
    WORLD,
    Asked,
    Keys,
    Life,
    Matrix,
    Owed,
    Rows,
    blocks_naming,
    blocks_with_logs_of,
    excess,
    go_on,
    make_final,
    tail_again,
    tell,
    transfers_of,
)
from tests.sim.blocks import hexed
from tests.sim.faults import Hold
from tests.sim.node import SimNode
from tests.sim.story import ACCOUNTS, exists

NARROW: Keys = {
    "start_block": START_BLOCK,
    "finality": FINALITY_DEPTH,
    "managers": [hexed(at.MANAGER)],
    "factories": [hexed(at.FACTORY)],
    "erc1155": [hexed(at.SEED_TOKEN)],
}
CONTRACT: Keys = {"erc1155": [hexed(at.SEED_TOKEN), hexed(at.SECOND_TOKEN)]}
MANAGER: Keys = {"managers": [hexed(at.MANAGER), hexed(at.MANAGER_AUGUST)]}
EVENT_MANAGER: Keys = {"managers": [hexed(at.MANAGER), hexed(at.EVENT_MANAGER)]}
FACTORY: Keys = {"factories": [hexed(at.FACTORY), hexed(at.CUSTOM_FACTORY)]}
TOUCHING: Keys = {"erc1155": "touching"}


@pytest.fixture(scope="module")
async def matrix(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Matrix]:
    folder = tmp_path_factory.mktemp("matrix")
    async with AsyncExitStack() as stack:
        yield Matrix(postgres_url, template_database, folder, stack)


@pytest.fixture
async def node() -> AsyncIterator[SimNode]:
    async with SimNode(finality_depth=FINALITY_DEPTH) as running:
        yield running


# --- what a change owes -------------------------------------------------------------------------

# How many questions for logs a block is asked. Entry point and the contract; entry point, events
# of accounts, of ownership modules; the same, and the factory's, in the live lane.
TOKENS, LOGS, LIVE = 2, 3, 4
# A few accounts are looked for as emitters, in two places of the entry point's events, and as
# owners; the blocks that this finds are then asked for LOGS.
NAMING = 4


def nothing(_node: SimNode, _tip: int) -> list[Owed]:
    return []


def of_contract(_: SimNode, tip: int) -> list[Owed]:
    return [Owed(START_BLOCK, tip, TOKENS)]


def of_touching(_: SimNode, tip: int) -> list[Owed]:
    return [Owed(START_BLOCK, tip - FINALITY_DEPTH, TOKENS), tail_again(tip, LIVE + 1)]


def of_manager(_: SimNode, tip: int) -> list[Owed]:
    final = tip - FINALITY_DEPTH
    roots = Owed(START_BLOCK, final, accounts=ACCOUNTS, managers=[at.MANAGER_AUGUST])
    return [roots, tail_again(tip, LIVE)]


def of_event_manager(node: SimNode, tip: int) -> list[Owed]:
    span = (START_BLOCK, tip - FINALITY_DEPTH)
    blocks = blocks_with_logs_of(node, *span, at.EVENT_MANAGER)
    roots = Owed(*span, 1, LOGS + 1, blocks, ACCOUNTS, [at.EVENT_MANAGER])
    return [roots, tail_again(tip, LIVE + 1)]


def of_accounts(
    node: SimNode, first: int, last: int, *accounts: Address, creations: int = 0
) -> Owed:
    """Return what accounts owe that were learnt late: they alone are looked for.

    `creations` 1: so are the factory's logs about them, which discovery does not bring.
    """
    blocks = blocks_naming(node, first, last, *accounts)
    filters, by_hash = NAMING + creations, LOGS + creations
    return Owed(first, last, filters, by_hash, blocks, accounts, bodies=True)


def of_factory(node: SimNode, tip: int) -> list[Owed]:
    discovery = Owed(START_BLOCK, tip, 1)
    return [discovery, of_accounts(node, START_BLOCK, tip, *FOREIGN), tail_again(tip, LIVE)]


def of_earlier_start(node: SimNode, tip: int) -> list[Owed]:
    """Owe the blocks before, and the whole past of the accounts that were made there."""
    before = START_BLOCK - 1
    early = [a for a in ACCOUNTS if exists(node.block(before), a)]
    assert early
    whole = Owed(0, before, 1 + TOKENS + LOGS)
    return [whole, of_accounts(node, 0, tip, *early), tail_again(tip, LIVE)]


async def share_of(parts: Sequence[Owed], life: Life) -> Asked:
    total = Asked()
    for part in parts:
        total += await part.share(life.connection)
    return total


# --- how databases are compared -----------------------------------------------------------------


def touching(rows: Rows) -> Rows:
    """Return of the tokens only what touches a watched account: of "touching" no more is asked.

    What a list of contracts had brought in besides stays: nothing is deleted.
    """
    watched = [row.split("'")[1] for row in rows["account"]]
    kept = {
        table: [row for row in rows[table] if any(account in row for account in watched)]
        for table in ("erc1155_transfer", "erc1155_balance")
    }
    return rows | kept | {"erc1155_approval": [], "erc1155_uri": [], "undecoded_log": []}


def whole(rows: Rows) -> Rows:
    return rows


@dataclass(frozen=True)
class Change:
    """A change of NARROW. `times`: how much more than the debt's share a fresh index asks."""

    keys: Keys
    owed: Callable[[SimNode, int], list[Owed]]
    times: float = 1.0
    compared: Callable[[Rows], Rows] = whole


# Accounts learnt late are half of all there are here, and looked for one by one: no less is
# asked in all than by a fresh index, but less of each kind where that is what is spared.
CHANGES = {
    "nothing": Change({}, nothing, 100),
    "a contract added": Change(CONTRACT, of_contract, 6),
    "a list to all": Change({"erc1155": "all"}, of_contract, 6),
    "a list to touching": Change(TOUCHING, of_touching, 2.5, touching),
    "a manager added": Change(MANAGER, of_manager, 2.5),
    "a manager that logs added": Change(EVENT_MANAGER, of_event_manager, 1.5),
    "a factory added": Change(FACTORY, of_factory, 0),
    "an earlier start": Change({"start_block": 0}, of_earlier_start, 0),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_owes_its_share_and_ends_as_a_fresh_index(
    name: str, matrix: Matrix, node: SimNode
) -> None:
    """The rows are those of a fresh index, at the price of what is new, within a tenth."""
    change, story = CHANGES[name], tell(node)
    tip, keys = node.tip.number, NARROW | change.keys
    async with (
        matrix.copy(await matrix.base(NARROW)) as url,
        matrix.life(url, node, keys) as life,
    ):
        await life.settled()
        # What was the tail when the configuration changed is paid when it is final.
        make_final(story)
        await life.settled()
        await life.alike()
        asked, found = life.asked(tip), await life.dump()
        share = await share_of(change.owed(node, tip), life)
    fresh, price = await matrix.fresh(node, keys)
    assert not differences(change.compared(fresh), change.compared(found))
    assert not excess(asked, share)
    # To begin again would be noticed.
    assert excess(price, share)
    assert price.calls() > change.times * share.calls()


async def test_a_later_start_owes_nothing_and_deletes_nothing(
    matrix: Matrix, node: SimNode
) -> None:
    """What stands below the new start block stays, and is not asked for again later either."""
    story = tell(node)
    tip = node.tip.number
    async with matrix.copy(await matrix.base(NARROW)) as url:
        async with matrix.life(url, node, NARROW) as life:
            await life.settled()
            before = await life.dump()
        for start_block in (START_BLOCK + 500, START_BLOCK):
            async with matrix.life(url, node, NARROW | {"start_block": start_block}) as life:
                await life.settled()
                assert await life.dump() == before
                assert life.asked(tip) == Asked()
        async with matrix.life(url, node, NARROW | {"start_block": tip + 1}) as life:
            make_final(story)
            await life.settled()
            assert life.asked(tip) == Asked()


async def test_debt_is_seen_before_it_is_paid(matrix: Matrix, node: SimNode) -> None:
    """`status`, watch.coverage and the metric show the same blocks, exactly those of the change."""
    tell(node)
    final = node.tip.number - FINALITY_DEPTH
    owed = final - START_BLOCK + 1
    async with matrix.copy(await matrix.base(NARROW)) as url:
        node.fail(Hold(), method="eth_getLogs", times=1_000_000)
        async with matrix.life(url, node, NARROW | CONTRACT) as life:
            await life.daemon.following()
            sample = f'coverage_missing_blocks{{chain="local",pass="logs"}} {owed:.1f}'

            async def is_shown() -> bool:
                return sample in (await life.daemon.get("/metrics"))[1]

            await until(is_shown, sample)
            (row,) = await life.connection.fetch(
                "SELECT filter, missing_blocks, missing FROM watch.coverage "
                "WHERE missing_blocks > 0"
            )
            assert tuple(row) == (
                f"erc1155/{hexed(at.SECOND_TOKEN)}",
                owed,
                f"{{[{START_BLOCK},{final + 1})}}",
            )
            code, said = await command(matrix.folder, life.config, "status", "--json")
            assert code == 0, said
            (chain,) = json.loads(said)["chains"]
            missing = chain["coverage_missing_blocks"]
            assert {name: blocks for name, blocks in missing.items() if blocks} == {"logs": owed}
            node.heal()
            await life.settled()


# --- accounts -----------------------------------------------------------------------------------


async def store_a_set(folder: Path, config: str, account: Address) -> None:
    """Store a session set of an account, with the command that operators use."""
    session = {
        "validUntil": 0,
        "validAfter": 0,
        "sessionValidationModule": hexed(at.SEED_SESSION_MODULE),
        "sessionKeyData": "0xabcd",
    }
    file = folder / "sessions.json"
    file.write_text(json.dumps([session]))
    named = ["--account", hexed(account), "--manager", hexed(at.MANAGER)]
    code, said = await command(
        folder, config, "sessions", "import", str(file), "--chain", "local", *named
    )
    assert code == 0, said


async def test_a_set_of_an_unknown_account_owes_its_past(matrix: Matrix, node: SimNode) -> None:
    """Imported while the daemon runs: the account's own past is paid, and nobody else's."""
    story, account = tell(node), FOREIGN[0]
    tip = node.tip.number

    async def prepare(config: str) -> None:
        await store_a_set(matrix.folder, config, account)

    async with (
        matrix.copy(await matrix.base(NARROW)) as url,
        matrix.life(url, node, NARROW) as life,
    ):
        await life.settled()
        await prepare(life.config)
        await life.watches(account)
        await life.settled()
        make_final(story)
        await life.settled()
        await life.alike()
        asked, found = life.asked(tip), await life.dump()
        share = await share_of([of_accounts(node, START_BLOCK, tip, account)], life)
    fresh, price = await matrix.fresh(node, NARROW, prepare=prepare)
    # Whether a set was stored before or after the account's last change decides its verdict.
    for rows in (fresh, found):
        rows["verdict"] = [row for row in rows["verdict"] if hexed(account) not in row]
    assert not differences(fresh, found)
    assert not excess(asked, share)
    assert excess(price, share)


async def test_an_account_listed_later_owes_its_past(matrix: Matrix, node: SimNode) -> None:
    """Taken off the list and put there again, it has missed nothing: it was watched all along."""
    story = tell(node)
    tip = node.tip.number
    one = NARROW | {"accounts": [hexed(ACCOUNTS[0])]}
    two = NARROW | {"accounts": [hexed(ACCOUNTS[0]), hexed(FOREIGN[1])]}
    two["factories"] = one["factories"] = FACTORY["factories"]
    async with matrix.copy(await matrix.base(one)) as url:
        async with matrix.life(url, node, two) as life:
            await life.watches(FOREIGN[1])
            await life.settled()
            make_final(story)
            await life.settled()
            await life.alike()
            asked, found = life.asked(tip), await life.dump()
            part = of_accounts(node, START_BLOCK, tip, FOREIGN[1], creations=1)
            share = await share_of([part], life)
        fresh, price = await matrix.fresh(node, two)
        assert not differences(fresh, found)
        assert not excess(asked, share)
        assert excess(price, share)

        tip = node.tip.number
        async with matrix.life(url, node, one) as life:
            go_on(story)
            await life.settled()
            assert life.asked(tip) == Asked()
        tip = node.tip.number
        async with matrix.life(url, node, two) as life:
            await life.settled()
            assert life.asked(tip) == Asked()
            found = await life.dump()
    fresh, _ = await matrix.fresh(node, two)
    assert not differences(fresh, found)


async def test_from_stored_accounts_to_all_of_a_factory(matrix: Matrix, node: SimNode) -> None:
    """The account with a set keeps what it has; all others are found and paid for."""
    story, account = tell(node), ACCOUNTS[0]

    async def prepare(config: str) -> None:
        await store_a_set(matrix.folder, config, account)

    stored = NARROW | {"accounts": "stored"}
    async with (
        matrix.copy(await matrix.base(stored, prepare)) as url,
        matrix.life(url, node, NARROW) as life,
    ):
        await life.settled()
        make_final(story)
        await life.settled()
        await life.alike()
        found = await life.dump()
    fresh, _ = await matrix.fresh(node, NARROW, prepare=prepare)
    assert not differences(fresh, found)


async def test_tokens_sent_long_before_an_account_is_created(matrix: Matrix, node: SimNode) -> None:
    """Created while "touching" is followed, it owes its transfers alone: one look over the past."""
    story, keys = tell(node), NARROW | TOUCHING
    async with (
        matrix.copy(await matrix.base(keys)) as url,
        matrix.life(url, node, keys) as life,
    ):
        await life.settled()
        tip = node.tip.number
        story.create(LATE)
        make_final(story)
        await life.settled()
        await life.alike()
        asked, found = life.asked(tip), await life.dump()
    fresh, price = await matrix.fresh(node, keys)
    assert any(f"'{hexed(LATE)}'" in row for row in found["erc1155_transfer"])
    assert not differences(fresh, found)
    owed = transfers_of(node, START_BLOCK, tip, LATE)
    share = Asked(2 * (tip + 1 - START_BLOCK), TOKENS * len(owed))
    assert not excess(asked, share)
    assert excess(price, share)


# --- removed, and added again -------------------------------------------------------------------


def final_roots(rows: Rows) -> Rows:
    """Return the rows without roots that are not final.

    Of a removed manager the live lane's word for the tail goes with it: until it is added again,
    the block of a change there is only an upper bound.
    """
    return rows | {
        "session_root": [r for r in rows["session_root"] if r.rsplit(", ", 2)[1] == "True"]
    }


WIDE = NARROW | CONTRACT | EVENT_MANAGER | FACTORY


def missed_of_contract(_: SimNode, first: int, tip: int) -> list[Owed]:
    return [Owed(first, tip, TOKENS)]


def missed_of_manager(node: SimNode, first: int, tip: int) -> list[Owed]:
    final = tip - FINALITY_DEPTH
    blocks = blocks_with_logs_of(node, first, final, at.EVENT_MANAGER)
    roots = Owed(first, final, 1, LOGS + 1, blocks, WORLD.accounts, [at.EVENT_MANAGER])
    return [roots, tail_again(tip, LIVE + 1)]


def missed_of_factory(_: SimNode, first: int, tip: int) -> list[Owed]:
    return [Owed(first, tip, 1), tail_again(tip, LIVE + 1)]


REMOVED: dict[str, tuple[str, Callable[[SimNode, int, int], list[Owed]]]] = {
    "a contract": ("erc1155", missed_of_contract),
    "a manager": ("managers", missed_of_manager),
    "a factory": ("factories", missed_of_factory),
}


@pytest.mark.parametrize("name", REMOVED)
async def test_what_was_removed_stays_and_owes_what_it_missed(
    name: str, matrix: Matrix, node: SimNode
) -> None:
    """Removing deletes nothing and owes nothing; added again, only what was missed is paid."""
    story, (key, owed) = tell(node), REMOVED[name]
    tip = node.tip.number
    async with matrix.copy(await matrix.base(WIDE)) as url:
        async with matrix.life(url, node, WIDE | {key: NARROW[key]}) as life:
            before = await life.dump()
            await life.settled()
            kept = await life.dump()
            go_on(story)
            await life.settled()
            assert life.asked(tip) == Asked()
        tip, first_missed = node.tip.number, tip - FINALITY_DEPTH + 1
        async with matrix.life(url, node, WIDE) as life:
            await life.settled()
            make_final(story)
            await life.settled()
            await life.alike()
            asked, found = life.asked(tip), await life.dump()
            share = await share_of(owed(node, first_missed, tip), life)
    assert final_roots(kept) == final_roots(before)
    assert len(kept["session_root"]) == len(before["session_root"])
    fresh, price = await matrix.fresh(node, WIDE, once="wide")
    assert not differences(fresh, found)
    assert not excess(asked, share)
    assert price.calls() > 3 * share.calls()
