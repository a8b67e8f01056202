"""`sessionwatch sessions validate`: whether one session can be used, by the node's word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from indexer.cli_choice import Selection, choose, selection_options
from indexer.cli_common import (
    MAX_BIGINT,
    config_option,
    hex_text,
    json_option,
    print_json,
    print_line,
    run_async,
    time_text,
)
from indexer.errors import EXIT_STOPPED, ConfigurationError

if TYPE_CHECKING:
    from indexer.cli_choice import Chosen
    from indexer.config import Settings
    from indexer.core.other_tree import OtherTree
    from indexer.core.session_check import Point, SessionState
    from indexer.core.settings import ChainSettings

_EXIT_NOT_USABLE = 1
_TAGS = ("latest", "safe", "finalized")


def _read_block(context: click.Context, parameter: click.Parameter, value: str) -> int | str:
    if value in _TAGS:
        return value
    if value.isascii() and value.isdigit() and len(value) <= len(str(MAX_BIGINT)):
        return int(value)
    expected = f"expected a block's number or one of {', '.join(_TAGS)}"
    raise click.BadParameter(expected, context, parameter)


@click.command("validate", short_help="Ask the node whether a session can be used.")
@config_option
@json_option
@selection_options
@click.option(
    "--at-block",
    callback=_read_block,
    default="latest",
    show_default=True,
    metavar="BLOCK",
    help="A number, or latest, safe, finalized.",
)
@click.pass_context
def validate(
    context: click.Context, /, at_block: int | str, as_json: bool, **selection: Any
) -> None:
    """Ask the node whether one session of a stored set or of FILE can be used after a block.

    Says of each condition whether it holds, and why: account, manager, root, membership in the
    set, proof, the window by the block's time, and the manager's own validateSessionKey. That one
    also takes inner nodes of the tree; try --leaf with one. All of it is read at one block hash.
    Whether the session allows a certain call only its validation module knows.

    If another root stands than that of --set, the account's stored sets are searched for the tree
    that gives it; a session which that tree proves, a revoked one perhaps, is usable.

    Ends with 0 if the session is usable, 1 if it is not, 75 if the node stays away for 60 seconds.

    \b
    EXAMPLE
      sessionwatch sessions validate --set 7 --session-key 0x5F…
      sessionwatch sessions validate sessions.json --account 0x08… --index 0 --at-block finalized
    """  # noqa: D301
    settings, chosen = choose(context, Selection(**selection), ask_node=True)
    assert settings is not None
    chain = _chain(settings, chosen.chain_id)
    from indexer.core.session_check import is_usable, judge  # noqa: PLC0415
    from indexer.validate import read_session_state  # noqa: PLC0415

    state = run_async(
        read_session_state(
            chain, chosen.account, chosen.manager, chosen.proved, at_block, bases=chosen.bases
        )
    )
    points = judge(
        chosen.proved,
        state,
        account=chosen.account,
        implementations=chain.implementations,
        managers={*chain.managers, chosen.manager},
        layouts=chosen.layouts,
    )
    usable = is_usable(points)
    if as_json:
        block = {"number": state.block.number, "hash": state.block.hash}
        block["time"] = state.block.timestamp
        print_json(
            {
                **chosen.as_json(),
                "block": block,
                "usable": usable,
                "points": points,
                "other_tree": _other_tree(state.other),
            }
        )
    else:
        _print_points(chosen, state, points, usable=usable)
    context.exit(EXIT_STOPPED if usable else _EXIT_NOT_USABLE)


def _other_tree(other: OtherTree | None) -> dict[str, Any] | None:
    """Return the tree that stands in place of the set's, and the session's proof in it."""
    if other is None or other.arrangement is None:
        return None
    found, proved = other.arrangement, other.proved
    return {
        "set_id": found.base_id,
        "joined_set_id": found.joined_id,
        "form": found.form,
        "order": found.order,
        "index": proved and proved.index,
        "proof": proved and proved.proof,
    }


def _chain(settings: Settings, chain_id: int) -> ChainSettings:
    for chain in settings.chains:
        if chain.chain_id == chain_id:
            return chain
    raise ConfigurationError(
        f"no chain with the chain_id {chain_id} is configured, so there is no node to ask",
        remedy="add its table [chains.NAME] with rpc",
    )


_MARKS = {True: ("yes", "green"), False: ("no", "red"), None: ("?", "yellow")}


def _print_points(
    chosen: Chosen, state: SessionState, points: Sequence[Point], *, usable: bool
) -> None:
    index = chosen.proved.index
    what = "an inner node" if index is None else f"session {index}"
    print_line("session", f"{what} of {chosen.label}")
    print_line("leaf", chosen.proved.leaf)
    print_line("account", chosen.account)
    print_line("manager", chosen.manager)
    block = state.block
    print_line("block", f"{block.number} ({hex_text(block.hash)}), {time_text(block.timestamp)}")
    click.echo()
    for point in points:
        word, colour = _MARKS[point.holds]
        click.secho(f"{word:<5}", fg=colour, nl=False)
        click.echo(f"{point.name.replace('_', ' '):<18} {point.reason}")
    click.echo()
    failed = [point.name.replace("_", " ") for point in points if not point.holds]
    by_other = state.other is not None and state.other.proved is not None
    if usable and by_other:
        told = f"usable under the root that stands, by its proof, not by that of {chosen.label}"
        click.secho(told, fg="green", bold=True)
    elif usable:
        click.secho("usable", fg="green", bold=True)
    else:
        failed = [name for name in failed if name != "session key"]
        click.secho(f"not usable: {', '.join(failed)}", fg="red", bold=True)
