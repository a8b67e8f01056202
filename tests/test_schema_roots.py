"""What watch.session_root and its kin say of roots, on small hand-made data."""

from __future__ import annotations

import pytest

from tests.fixtures_database import Connection
from tests.schema_rows import (
    CHAIN,
    ZERO32,
    address,
    cover,
    hash32,
    insert,
    make_chain,
    observe,
    rows,
    text,
)

MANAGER, ALICE, BOB = address(0xAA), address(1), address(2)
ROOTS = f"roots/{text(MANAGER)}"
A, B, C = hash32(0xA), hash32(0xB), hash32(0xC)
REWIND = "SELECT account FROM chain.rewind($1, $2, 99, '')"


async def test_a_change_is_an_observation_that_differs_from_the_one_before(
    connection: Connection,
) -> None:
    """Repeated roots and a first zero are no rows; a zero after a root is one."""
    await make_chain(connection, final=10, tip=20)
    for block, root in ((2, ZERO32), (4, A), (5, A), (7, B), (11, ZERO32), (12, ZERO32)):
        await observe(connection, block, root)
    await observe(connection, 6, C, account=BOB)
    found = await rows(
        connection,
        "SELECT block_number, root, previous_root, is_final FROM watch.session_root WHERE account ="
        " $1 ORDER BY 1",
        text(ALICE),
    )
    assert found == [
        (4, text(A), text(ZERO32), True),
        (7, text(B), text(A), True),
        (11, text(ZERO32), text(B), False),
    ]
    current = await rows(
        connection, "SELECT account, block_number, root FROM watch.session_root_current ORDER BY 1"
    )
    assert current == [(text(ALICE), 11, text(ZERO32)), (text(BOB), 6, text(C))]


async def test_a_reorg_hides_observations_and_the_branch_may_return(connection: Connection) -> None:
    """A lost block's root vanishes without a delete, and returns with its block."""
    await make_chain(connection, final=10, tip=20)
    await observe(connection, 11, A)
    await observe(connection, 16, B)
    await connection.execute(REWIND, CHAIN, 15)
    current = "SELECT block_number, root FROM watch.session_root_current"
    assert await rows(connection, current) == [(11, text(A))]
    await insert(connection, "chain.block", block_number=16, hash=hash32(9916))
    await observe(connection, 16, C, block_hash=hash32(9916))
    assert await rows(connection, current) == [(16, text(C))]
    await connection.execute(REWIND.replace("99", "98"), CHAIN, 15)
    await insert(connection, "chain.block", block_number=16, hash=hash32(16))
    assert await rows(connection, current) == [(16, text(B))]


async def test_a_change_is_attributed_and_linked_to_the_newest_set(connection: Connection) -> None:
    """Transaction, evidence and set come with the change; without them, state alone is said."""
    await make_chain(connection)
    for n in (1, 2):
        await insert(
            connection,
            "sessions.session_set",
            manager=MANAGER,
            account=ALICE,
            root=A,
            leaves_digest=hash32(n),
        )
    await observe(connection, 4, A)
    await observe(connection, 7, B)
    await insert(
        connection,
        "chain.root_attribution",
        block_number=4,
        manager=MANAGER,
        account=ALICE,
        evidence="calldata",
        attribution="user_operation",
        transaction_hash=hash32(70),
        user_op_hash=hash32(71),
    )
    newest = await connection.fetchval("SELECT max(set_id) FROM sessions.session_set")
    found = await rows(
        connection,
        "SELECT evidence, attribution, transaction_hash, user_op_hash, set_id, matched_form FROM"
        " watch.session_root ORDER BY block_number",
    )
    assert found == [
        ("calldata", "user_operation", text(hash32(70)), text(hash32(71)), newest, "all_leaves"),
        ("state", "none", None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("covered", "attributed", "exact"),
    [
        (((5, 9),), True, True),
        (((5, 9),), False, False),
        (((5, 7), (9, 9)), True, False),
        (((6, 9),), True, False),
        ((), True, False),
    ],
)
async def test_a_change_is_exact_if_every_block_since_was_looked_at(
    connection: Connection, covered: tuple[tuple[int, int], ...], attributed: bool, exact: bool
) -> None:
    """The blocks between the previous observation and the trigger must all be covered."""
    await make_chain(connection, final=10, tip=20)
    await cover(connection, ROOTS, "accounts", *covered)
    await observe(connection, 4, A)
    await observe(connection, 9, B, attributed=attributed)
    query = "SELECT change_block_exact FROM watch.session_root WHERE block_number = 9"
    assert await connection.fetchval(query) is exact


async def test_the_live_lane_covers_what_it_followed(connection: Connection) -> None:
    """Above the marker a block counts where the filter was followed, from the creation on."""
    await make_chain(connection, final=10, tip=20)
    await cover(connection, ROOTS, "accounts", (1, 10), live_from=10)
    await insert(connection, "chain.account", account=ALICE, block_number=12)
    await observe(connection, 15, A, attributed=True)
    query = "SELECT change_block_exact FROM watch.session_root"
    assert await connection.fetchval(query)
    await connection.execute("UPDATE chain.coverage SET live_from = 11")
    assert await connection.fetchval(query)
    await connection.execute("UPDATE chain.coverage SET live_from = 12")
    assert not await connection.fetchval(query)
    await connection.execute("UPDATE chain.coverage SET live_from = NULL")
    assert not await connection.fetchval(query)


async def test_a_cohort_is_covered_by_its_own_debt_and_then_by_all(connection: Connection) -> None:
    """Up to its adoption a cohort's own row counts, above it that of cohort 0."""
    await make_chain(connection, final=10, tip=20)
    await insert(connection, "chain.cohort", cohort_id=3, adopted_block=6)
    await cover(connection, ROOTS, "accounts", (1, 10), live_from=10)
    await cover(connection, ROOTS, "accounts", (4, 9), cohort=3)

    async def covered(first: int, last: int, cohort: int) -> bool:
        query = "SELECT chain.is_covered($1, $2, 'accounts', $3, $4, $5)"
        return bool(await connection.fetchval(query, CHAIN, ROOTS, cohort, first, last))

    assert await covered(1, 20, 0)
    assert await covered(4, 20, 3)
    assert not await covered(3, 20, 3)
    assert not await covered(1, 21, 0)
    assert not await covered(1, 2, 9)
    assert await covered(5, 4, 9)  # nothing to cover


async def test_transient_roots_are_those_state_never_showed(connection: Connection) -> None:
    """A hint whose root was gone at the block's end is transient, if that was read."""
    await make_chain(connection)
    hint = {"manager": MANAGER, "account": ALICE}
    for n, (block, root, kind) in enumerate(
        (
            (4, A, "calldata"),
            (4, B, "event"),
            (5, A, "event"),
            (6, C, "signature"),
            (7, C, "calldata"),
        )
    ):
        await insert(
            connection,
            "chain.root_hint",
            block_number=block,
            root=root,
            evidence=kind,
            hint_index=n,
            **hint,
        )
    await observe(connection, 4, B)
    await observe(connection, 6, B)
    found = await rows(
        connection,
        "SELECT block_number, root, final_root, evidence FROM watch.session_root_transient",
    )
    assert found == [(4, text(A), text(B), "calldata")]
    # read at block 7 and unchanged, so that the older observation still speaks
    await insert(connection, "chain.root_attribution", block_number=7, **hint)
    found = await rows(
        connection, "SELECT block_number, root FROM watch.session_root_transient ORDER BY 1"
    )
    assert found == [(4, text(A)), (7, text(C))]
