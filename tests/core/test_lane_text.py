"""The words for lanes: short, and never more certain than what is known."""

from __future__ import annotations

from typing import Any

from indexer.core.lane_text import about, label, left, percent_text, shown_lanes, summary

MANAGER = "0x000002fbffedd9b33f4e7156f2de8d48945e7489"


def lane(**keys: Any) -> dict[str, Any]:
    return {
        "lane": "logs",
        "pass": "logs",
        "filter": "accounts",
        "first_block": 0,
        "last_block": 999,
        "missing_blocks": 400,
        "unreadable_blocks": 0,
        "percent": 60.0,
        "accounts": 0,
        "remaining_seconds": 700.0,
        "remaining_requests": 599.2,
        "basis": "here",
    } | keys


def test_a_lane_says_what_is_left() -> None:
    """Blocks, time, requests; accounts learnt later and lost state apart from the estimate."""
    assert left(lane()) == "400 blocks left; about 12 min, 600 requests"
    assert left(lane(missing_blocks=0)) == "nothing left to pay"
    lost = left(lane(unreadable_blocks=120, accounts=1))
    assert lost.startswith("280 blocks left; about ")
    assert "with the past of 1 account learnt later" in lost
    assert lost.endswith("; not readable: 120 blocks, needs an archive node")
    assert left(lane(unreadable_blocks=400)).startswith("nothing left to pay; not readable: 400")
    assert left(lane(lane="live", missing_blocks=1)) == "1 block behind"
    assert left(lane(lane="live", missing_blocks=0)) == "at the tip"
    assert about(0.01, 0.2, "") == "about 1 s, 1 request"
    assert about(None, None, "nothing was paid for 2 h") == (
        "no estimate: nothing was paid for 2 h"
    )
    assert percent_text(99.99) == "99 %"


def test_filters_that_owe_the_same_share_a_bar() -> None:
    """One bar of logs while all filters stand alike; one each where they differ."""
    tokens = lane(filter=f"erc1155/{MANAGER}")
    roots = lane(lane="roots", **{"pass": f"roots/{MANAGER}"})
    assert [name for name, _ in shown_lanes([lane(), tokens, roots])] == [
        "logs, 2 filters",
        "roots 0x000002…7489",
    ]
    apart = shown_lanes([lane(), tokens | {"missing_blocks": 1}])
    assert [name for name, _ in apart] == ["logs accounts", "logs erc1155/0x000002…7489"]
    assert label(lane(lane="discovery", filter=f"factory/{MANAGER}")) == ("discovery 0x000002…7489")
    assert label(lane(filter="erc1155/touching")) == "logs erc1155/touching"


def test_the_summary_tells_of_a_daemon_that_is_away() -> None:
    """What the past may take, and whether anybody seems to pay it."""
    rest = {"seconds": 10_300.0, "requests": 1.0, "basis": "here"}
    chain: dict[str, Any] = {"remaining": rest, "progress": {"updated_seconds_ago": 2.0}}
    assert summary(chain) == "the past: about 3 h, 1 request"
    away = {"remaining": None, "progress": {"updated_seconds_ago": 90_000.0}}
    assert summary(away) == "no daemon has written for 25 h"
    paid = rest | {"seconds": 0.0, "requests": 0.0}
    assert summary(chain | {"remaining": paid}) == ""
