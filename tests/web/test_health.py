"""When /readyz turns red, and why."""

from dataclasses import replace

import pytest

from indexer.web.health import ChainHealth, Health


def test_a_chain_that_was_never_followed_is_not_ready():
    """Until the first step has finished the chain is not ready."""
    assert ChainHealth().reasons(1000.0) == (
        "not followed yet: no step has finished since the start",
    )


def test_a_chain_that_follows_is_ready():
    """A fresh step and a small lag are ready, up to the limits themselves."""
    chain = ChainHealth(last_step_monotonic=940.0, lag_seconds=120.0)
    assert chain.reasons(1000.0) == ()


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (ChainHealth(last_step_monotonic=939.0), "no step has finished for 61 seconds (limit 60)"),
        (
            ChainHealth(last_step_monotonic=1000.0, lag_seconds=121.0),
            "121 seconds behind the node's tip (limit 120)",
        ),
        (
            ChainHealth(last_step_monotonic=1000.0, finality_violation="block 7 has another hash"),
            "finality violation: block 7 has another hash",
        ),
    ],
)
def test_each_trouble_has_its_own_sentence(chain: ChainHealth, reason: str):
    """Idleness, lag and a finality violation each turn a chain red with a sentence."""
    assert chain.reasons(1000.0) == (reason,)


def test_troubles_add_up():
    """One trouble does not hide another."""
    chain = ChainHealth(last_step_monotonic=0.0, lag_seconds=500.0, finality_violation="block 7")
    assert len(chain.reasons(1000.0)) == 3


def test_the_process_has_reasons_of_its_own():
    """A lost database, a stop and a daemon without chains are red without any chain's fault."""
    health = Health(started_monotonic=0.0, database_lost=True, stopping=True)
    assert health.reasons(1.0) == {
        "": (
            "stopping",
            "the database cannot be reached",
            "not followed yet: no chain has been started",
        )
    }


def test_one_red_chain_turns_the_process_red_under_its_name():
    """Chains are told apart; a chain that follows has no entry."""
    good = ChainHealth(last_step_monotonic=10.0, lag_seconds=0.0)
    health = Health(started_monotonic=0.0, chains={"amoy": good, "mumbai": ChainHealth()})
    assert list(health.reasons(11.0)) == ["mumbai"]


def test_a_node_that_was_set_back_is_said_at_once_and_a_lagging_one_in_time():
    """Below finality no back-end lags by accident; above it a minute is given."""
    lagging = ChainHealth(last_step_monotonic=940.0, node_behind="the node shows block 9")
    assert lagging.reasons(1000.0) == ()
    said = "the node is behind for 61 seconds: the node shows block 9"
    assert lagging.reasons(1001.0) == (said,)
    set_back = replace(lagging, node_below_final=True)
    assert set_back.reasons(941.0) == ("the node is behind for 1 seconds: the node shows block 9",)


@pytest.mark.parametrize(
    ("chain", "line"),
    [
        (ChainHealth(), "starting"),
        (ChainHealth(waiting_for="database"), "waiting for the database"),
        (
            ChainHealth(indexed_block=49, lag_seconds=0.4, drifted=6),
            "block 49, 0 s behind, 6 drifted",
        ),
        (
            ChainHealth(indexed_block=49, waiting_for="node", lag_seconds=2.0),
            "block 49, waiting for the node, 0 drifted",
        ),
        (
            ChainHealth(indexed_block=49, node_behind="the node shows block 9"),
            "block 49, the node is behind, 0 drifted",
        ),
        (ChainHealth(indexed_block=49, finished=True), "block 49, finished, 0 drifted"),
        (
            ChainHealth(indexed_block=49, finality_violation="block 7", waiting_for="node"),
            "block 49, finality violation, 0 drifted",
        ),
    ],
)
def test_one_line_says_where_a_chain_stands(chain: ChainHealth, line: str):
    """What holds it up comes before how far behind it is."""
    assert chain.line() == line
    health = Health(started_monotonic=0.0, chains={"amoy": chain, "mumbai": ChainHealth()})
    assert health.line() == f"amoy: {line}; mumbai: starting"


def test_the_process_has_a_line_before_and_after_its_chains():
    """It starts and it stops, whatever its chains do."""
    assert Health(started_monotonic=0.0).line() == "starting"
    stopping = Health(started_monotonic=0.0, stopping=True, chains={"mumbai": ChainHealth()})
    assert stopping.line() == "stopping"
