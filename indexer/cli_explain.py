"""`sessionwatch explain`: one account in words, from what the database knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from indexer.cli_common import (
    config_option,
    hex_text,
    json_option,
    known_chain_id,
    plain,
    print_json,
    print_table,
    read_address_option,
    read_settings,
    with_database,
)
from indexer.errors import UsageError

if TYPE_CHECKING:
    from indexer.core.account_report import AccountReport
    from indexer.core.types import Address
    from indexer.store.explain import StoredAccount
    from indexer.store.pool import Database

_COLOURS = {"in_sync": "green", "pending": "yellow", "drifted": "red", "unknown": "yellow"}
_MOST_SHOWN = 10
_MOST_SETS_SHOWN = 20
_INDENT = 12
_WIDTH = 100


@click.command(short_help="Explain what is wrong with one account, and what to do.")
@config_option
@json_option
@click.argument("account", callback=read_address_option, metavar="ACCOUNT")
@click.option("--chain", "chain_name", metavar="NAME", help="Only on this chain.")
@click.option("--manager", callback=read_address_option, metavar="0x…", help="Only this manager.")
@click.pass_context
def explain(
    context: click.Context,
    account: Address,
    chain_name: str | None,
    manager: Address | None,
    as_json: bool,
) -> None:
    """Explain the verdict on ACCOUNT, in each manager.

    Tells what stands on chain, since when and by whom; how each stored set differs from it; which
    sessions can be used though they were revoked or dropped; and what to do. A root that no stored
    set has is searched for among the arrangements that clients make of their sets. Reads the
    database only; what it says is as new as the last block that `run` has indexed.

    \b
    EXAMPLE
      sessionwatch explain 0x089348f5108185f75cc5644ba1620a633dc5e4ca
      sessionwatch explain 0x0893… --chain mumbai --json | jq '.managers[].cause'
    """  # noqa: D301
    settings = read_settings(context, need_chains=False)
    chain_id = None if chain_name is None else known_chain_id(settings, chain_name)

    async def work(database: Database) -> list[dict[str, Any]]:
        from indexer.store import explain as store  # noqa: PLC0415

        found, watched = await store.read_account(
            database, account, chain_id=chain_id, manager=manager
        )
        if not found and (manager is not None or not watched):
            raise UsageError(
                f"nothing is known of account {hex_text(account)}{_where(chain_name, manager)}: "
                "it is not watched, has no root and no stored set",
                remedy="check the address; `sessionwatch sessions import` makes it watched",
            )
        return [await _told(database, one) for one in found]

    managers = with_database(settings.database, work)
    if as_json:
        print_json({"account": hex_text(account), "managers": managers})
        return
    if not managers:
        click.echo(f"{hex_text(account)} is watched: it has no root, and nothing is stored for it")
    for number, told in enumerate(managers):
        _print(told, first=number == 0)


def _where(chain_name: str | None, manager: Address | None) -> str:
    chain = f" on {chain_name}" if chain_name else ""
    return chain + (f" in manager {hex_text(manager)}" if manager else "")


async def _told(database: Database, one: StoredAccount) -> dict[str, Any]:
    """Put together what is told of one manager; the same for people and for scripts."""
    from indexer.core.account_report import report_account  # noqa: PLC0415
    from indexer.core.remedies import explain_warning, next_step  # noqa: PLC0415
    from indexer.store.explain import session_keys  # noqa: PLC0415

    verdict = one.verdict or {"verdict": None, "cause": None, "warnings": []}
    report = report_account(one.inputs, verdict["cause"], one.indexed_time or 0)
    keys = await session_keys(
        database, [s["set_id"] for s in one.sets], [s.leaf for s in report.provable]
    )
    told = {
        "chain_id": one.chain_id,
        "chain": one.chain,
        "indexed_block": one.indexed_block,
        "manager": one.manager,
        "account": one.account,
        **verdict,
        "warnings": [{"warning": w, "meaning": explain_warning(w)} for w in verdict["warnings"]],
        "remedy": next_step(verdict["verdict"], verdict["cause"]) if one.verdict else None,
        "root": one.root,
        "tree": _tree(report),
        "provable": [
            {
                "leaf": s.leaf,
                "why": s.why,
                "valid_until": s.valid_until,
                "session_key": keys.get(s.leaf),
            }
            for s in report.provable
        ],
        "sets": [{**row, **_beside(row, report)} for row in one.sets],
    }
    found: dict[str, Any] = plain(told)
    return found


def _beside(row: Mapping[str, Any], report: AccountReport) -> dict[str, Any]:
    """How a stored set differs from the tree; null for the record of a revocation's tree."""
    found = next((one for one in report.sets if one.set_id == row["set_id"]), None)
    if found is None:
        return {"likeness": None, "missing": [], "extra": []}
    return {"likeness": found.likeness, "missing": found.missing, "extra": found.extra}


def _tree(report: AccountReport) -> dict[str, Any]:
    """What is known of the leaves under the root that stands."""
    from indexer.core.root_story import arranged, not_found  # noqa: PLC0415

    found = report.search.found if report.search else None
    story = None
    arrangement: dict[str, Any] | None = None
    if found is not None:
        story = arranged(found)
        arrangement = asdict(found)
        del arrangement["leaves"]  # they are those of the tree
    elif report.search is not None:
        story = not_found(report.search)
    elif report.on_chain_set_id is not None:
        story = f"your set {report.on_chain_set_id}"
    return {
        "set_id": report.on_chain_set_id,
        "story": story,
        "arrangement": arrangement,
        "wanted_set_id": report.wanted_set_id,
        "leaves": report.leaves,
        "searched_hashes": report.search.hashes if report.search else None,
    }


# --- for people ---------------------------------------------------------------------------------


def _print(told: Mapping[str, Any], *, first: bool) -> None:
    if not first:
        click.echo()
    chain = told["chain"] or "a chain not followed yet"
    click.secho(f"{told['account']} on {chain} ({told['chain_id']})", bold=True)
    _line("manager", told["manager"])
    if told["verdict"] is None:
        _line("verdict", "none yet: no daemon has decided on this account")
    else:
        _print_verdict(told)
    _print_root(told)
    _print_sets(told)
    _print_provable(told)
    for one in told["warnings"]:
        _line("warning", f"{one['warning']}: {one['meaning']}")
    if told["remedy"]:
        _line("to do", told["remedy"])


def _print_verdict(told: Mapping[str, Any]) -> None:
    verdict, cause = told["verdict"], told["cause"]
    click.echo("verdict".ljust(_INDENT), nl=False)
    shown = f"{verdict}: {cause}" if cause else verdict
    click.secho(shown, fg=_COLOURS.get(verdict), bold=True, nl=False)
    block = "" if told["since_block"] is None else f"block {told['since_block']}, "
    final = "final" if told["is_final"] else "not final"
    click.echo(f" ({told['severity']}, {final}), since {block}{_moment(told['since_time'])}")
    _line("why", told["explanation"])


def _print_root(told: Mapping[str, Any]) -> None:
    root = told["root"]
    if root is None:
        _line("on chain", "the manager never held a root for this account, as far as it was read")
        return
    is_zero = not int(root["root"], 16)
    _line("on chain", "a root of zero: no session works" if is_zero else root["root"])
    exact = "" if root["change_block_exact"] else "at the latest "
    _line("", f"set {exact}in block {root['block_number']}, {_moment(root['block_time'])}")
    for number, part in enumerate(_by(root)):
        _line("" if number else "by", part)
    if told["tree"]["leaves"]:
        _line("it is", told["tree"]["story"])


def _by(root: Mapping[str, Any]) -> list[str]:
    """Say who changed the root, as watch.session_root names it."""
    from indexer.core.account_text import author  # noqa: PLC0415

    who, named = author(root)
    return [who, *(f"{word} {value}" for word, value in named)]


def _print_sets(told: Mapping[str, Any]) -> None:
    sets = told["sets"]
    if not sets:
        _line("stored", "no session set")
        return
    click.echo()
    rows = [
        [s["set_id"], _moment(s["stored_at"]), s["session_count"], s["state"], _difference(s)]
        for s in sets[:_MOST_SETS_SHOWN]
    ]
    print_table(["set", "stored at", "sessions", "state", "beside what stands on chain"], rows)
    if len(sets) > _MOST_SETS_SHOWN:
        click.echo(f"and {len(sets) - _MOST_SETS_SHOWN} older sets; --json has them all")
    click.echo()


def _difference(one: Mapping[str, Any]) -> str:
    whole = {
        None: "what the vendor's client made of a revocation; no set that anybody wants",
        "same": "the same",
        "other_order": "the same sessions in another order or number",
        "not_known": "not known, since nobody knows the tree's leaves",
    }.get(one["likeness"])
    if whole is not None:
        return whole
    parts = []
    if one["missing"]:
        parts.append(f"not on chain: {_named(one['missing'])}")
    if one["extra"]:
        parts.append(f"only on chain: {_named(one['extra'])}")
    return "; ".join(parts)


def _named(leaves: Sequence[str]) -> str:
    from indexer.core.root_story import names  # noqa: PLC0415

    return names([bytes.fromhex(leaf[2:]) for leaf in leaves])


def _print_provable(told: Mapping[str, Any]) -> None:
    from indexer.core.account_text import until_text  # noqa: PLC0415

    provable = told["provable"]
    if not provable:
        return
    many = "s" if len(provable) > 1 else ""
    click.secho(f"{len(provable)} session{many} can be used that should not work:", fg="red")
    rows = [
        [
            one["leaf"],
            "your store calls it revoked"
            if one["why"] == "revoked"
            else f"not in set {told['tree']['wanted_set_id']}",
            until_text(one["valid_until"]),
            one["session_key"] or "unknown",
        ]
        for one in provable[:_MOST_SHOWN]
    ]
    print_table(["leaf", "why not", "valid until", "its key"], rows)
    if len(provable) > _MOST_SHOWN:
        click.echo(f"and {len(provable) - _MOST_SHOWN} more; --json has them all")
    click.echo()


def _moment(iso: str) -> str:
    """Shorten an ISO time to seconds; the database gives UTC."""
    return f"{iso[:19].replace('T', ' ')} UTC"


def _line(label: str, text: str) -> None:
    from textwrap import fill  # noqa: PLC0415

    indent = " " * _INDENT
    click.echo(
        fill(
            text,
            _WIDTH,
            initial_indent=label.ljust(_INDENT),
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
