"""`sessionwatch sessions plan`: the next session set of an account, and the call that sets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from indexer.cli_common import (
    MAX_BIGINT,
    config_option,
    counted,
    hex_text,
    json_option,
    known_chain_id,
    print_json,
    read_address_option,
    read_settings,
    with_database,
)
from indexer.cli_plan_text import NOTHING_REMAINS, print_plan, standing_text
from indexer.cli_sessions import print_warnings, read_document
from indexer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from indexer.core.session_export import StoredSet
    from indexer.core.session_import import ImportedSet
    from indexer.core.session_plan import SessionPlan
    from indexer.core.types import Address, Hash32, Session
    from indexer.store.pool import Database
    from indexer.store.session_choice import Indexed


def read_hash_option(
    context: click.Context, parameter: click.Parameter, value: str | Sequence[str] | None
) -> Any:
    """Read a leaf, or several, for click."""
    from indexer.core.session_fields import FieldError, read_sized_hex  # noqa: PLC0415

    try:
        if isinstance(value, str):
            return read_sized_hex(value, 32)
        return None if value is None else tuple(read_sized_hex(one, 32) for one in value)
    except FieldError as error:
        raise click.BadParameter(f"{error}", context, parameter) from None


@click.command("plan", short_help="Work out an account's next session set.")
@config_option
@json_option
@click.option(
    "--account", callback=read_address_option, metavar="0x…", help="From its newest stored set."
)
@click.option("--set", "set_id", type=click.IntRange(1, MAX_BIGINT), help="From this stored set.")
@click.option("--chain", "chain_name", metavar="NAME", help="Of the account's sets, on this chain.")
@click.option("--manager", callback=read_address_option, metavar="0x…", help="Under this manager.")
@click.option("--add", type=click.File("rb"), metavar="FILE|-", help="Sessions to add.")
@click.option(
    "--drop", multiple=True, callback=read_hash_option, metavar="LEAF", help="A session to drop."
)
@click.option("--keep-expired", is_flag=True, help="Keep sessions that have ended.")
@click.option("--keep-revoked", is_flag=True, help="Keep sessions that the client calls revoked.")
@click.pass_context
def plan_set(
    context: click.Context,
    account: Address | None,
    set_id: int | None,
    chain_name: str | None,
    manager: Address | None,
    add: Any,
    drop: tuple[Hash32, ...],
    keep_expired: bool,
    keep_revoked: bool,
    as_json: bool,
) -> None:
    """Work out the next session set of an account, and the call that registers it.

    Takes the stored set, drops what has expired by the last indexed block (never by this
    computer's clock), what the client's store calls revoked, and every --drop, and adds the
    sessions of --add, any document that import reads, but those it has. Another root changes
    every proof; the order is the one found that changes the fewest elements of the kept sessions'
    proofs (see the README), so clients need new ones from `sessions prove`.

    Stores nothing: import the JSON, and the daemon awaits its root. If no session remains there
    is nothing to import, only the call.

    \b
    EXAMPLE
      sessionwatch sessions plan --account 0x5F… --chain mumbai --add new.json
      sessionwatch sessions plan --set 7 --drop 0x6c… --json > next.json
      sessionwatch sessions import next.json
    """  # noqa: D301
    if (account is None) == (set_id is None):
        raise UsageError(
            "name either --account or --set", remedy="`sessionwatch sessions list` shows them"
        )
    if set_id is not None and (chain_name is not None or manager is not None):
        raise UsageError(
            "--set already says which set", remedy="leave out --chain and --manager, or --set"
        )
    settings = read_settings(context, need_chains=False)
    chain_id = None if chain_name is None else known_chain_id(settings, chain_name)
    name, document = ("", None) if add is None else read_document(add)

    async def work(database: Database) -> tuple[StoredSet, Indexed]:
        from indexer.store import session_choice as store  # noqa: PLC0415

        wanted = set_id
        if account is not None:
            found = await store.newest_sets(database, account, chain_id=chain_id, manager=manager)
            wanted = _only(account, found)
        assert wanted is not None
        stored = await store.stored_set(database, wanted)
        return stored, await store.indexed(
            database, stored.chain_id, stored.manager, stored.account
        )

    stored, indexed = with_database(settings.database, work)
    if document is not None:
        print_warnings(document.warnings)
    added = [] if document is None else _added(name, document.sets, stored)
    block_time = None if keep_expired else indexed.block_time
    plan = _planned(stored, block_time, drop, added, keep_revoked=keep_revoked)
    print_warnings(_doubts(stored, indexed))
    if as_json:
        if plan.root is None:
            print_warnings([NOTHING_REMAINS])
        kept = {"expired_kept": keep_expired, "revoked_kept": keep_revoked}
        print_json(_as_json(stored, indexed, plan, kept))
    else:
        print_plan(settings, stored, indexed, plan, _call_data(plan), keep_expired=keep_expired)


def _only(account: Address, found: Sequence[tuple[int, int, Address]]) -> int:
    """Return the newest set's id; raises UsageError if there is none, or one per place."""
    if not found:
        raise UsageError(
            f"no session set of {hex_text(account)} is stored there",
            remedy="store the set it has now: sessionwatch sessions import",
        )
    if len(found) > 1:
        places = "; ".join(
            f"set {set_id}: chain {chain_id}, manager {hex_text(manager)}"
            for set_id, chain_id, manager in found[:5]
        )
        raise UsageError(
            f"{hex_text(account)} has session sets in {len(found)} places: {places}",
            remedy="choose by --chain and --manager, or by --set",
        )
    return found[0][0]


def _added(name: str, sets: Sequence[ImportedSet], stored: StoredSet) -> list[Session]:
    """Return the sessions of a document that are wanted; raises UsageError on another account's."""
    for one in sets:
        for what, told, asked in (
            ("chain id", one.chain_id, stored.chain_id),
            ("account", one.account, stored.account),
            ("manager", one.manager, stored.manager),
        ):
            if told is not None and told != asked:
                shown = [hex_text(v) if isinstance(v, bytes) else v for v in (told, asked)]
                raise UsageError(
                    f"{name}: {one.label} is of {what} {shown[0]}, the plan of {shown[1]}",
                    remedy="give the document of the same account",
                )
    print_warnings(
        f"{name}: {one.label}: {counted(count, 'session')} "
        + ("is" if count == 1 else "are")
        + " not added, because the client calls "
        + ("it REVOKED" if count == 1 else "them REVOKED")
        for one in sets
        if (count := one.statuses.count("revoked"))
    )
    return [
        session
        for one in sets
        for session, status in zip(one.sessions, one.statuses, strict=True)
        if status != "revoked"
    ]


def _planned(
    stored: StoredSet,
    block_time: int | None,
    drop: Sequence[Hash32],
    added: Sequence[Session],
    *,
    keep_revoked: bool,
) -> SessionPlan:
    from indexer.core.session_plan import plan_sessions  # noqa: PLC0415

    try:
        return plan_sessions(
            stored.sessions,
            block_time=block_time,
            drop=drop,
            add=added,
            statuses=() if keep_revoked else stored.client_statuses,
            once=stored.matched_form == "revoke_form",
        )
    except ValueError as error:
        raise UsageError(
            f"session set {stored.set_id}: {error}",
            remedy=f"`sessionwatch sessions show {stored.set_id}` has its leaves",
        ) from None


def _doubts(stored: StoredSet, indexed: Indexed) -> Iterator[str]:
    """Say where the plan may start from the wrong place."""
    if indexed.root is not None and indexed.root != stored.root:
        yield f"the account has {standing_text(indexed)}, not that of session set {stored.set_id}"
    if stored.matched_form == "revoke_form":
        yield (
            f"session set {stored.set_id} records the tree that a client's SDK left on chain to "
            "revoke (matched_form revoke_form); what repeats in it is planned once"
        )
    if indexed.block_time is None:
        yield f"nothing of chain {stored.chain_id} is indexed, so no session counts as expired"


def _call_data(plan: SessionPlan) -> bytes:
    from indexer.core.types import ZERO_HASH  # noqa: PLC0415
    from indexer.core.user_operations import SET_MERKLE_ROOT  # noqa: PLC0415

    return SET_MERKLE_ROOT + (plan.root or ZERO_HASH)


def _as_json(
    stored: StoredSet, indexed: Indexed, plan: SessionPlan, kept: dict[str, bool]
) -> dict[str, Any]:
    """Return what import reads as the next set, and beside it how it came about."""
    from indexer.core.session_export import session_as_json  # noqa: PLC0415

    order = plan.order
    return {
        "chain_id": stored.chain_id,
        "manager": stored.manager,
        "account": stored.account,
        "matched_form": "all_leaves",
        "root": plan.root,
        "sessions": [
            {
                **session_as_json(one.session),
                "leaf": one.leaf,
                "state": "new" if one.stored_index is None else "kept",
                "stored_index": one.stored_index,
                "changed_proof_elements": one.changed_elements,
            }
            for one in plan.sessions
        ],
        "plan": {
            "from_set_id": stored.set_id,
            "from_root": stored.root,
            "indexed_block": indexed.block_number,
            "indexed_time": indexed.block_time,
            "indexed_root": indexed.root,
            "indexed_root_block": indexed.root_block,
            **kept,
            "dropped": [
                {"leaf": one.leaf, "stored_index": one.stored_index, "reason": one.reason}
                for one in plan.dropped
            ],
            "not_added": [
                {"leaf": one.leaf, "added_index": one.added_index, "reason": one.reason}
                for one in plan.left_out
            ],
            "call": {"to": stored.manager, "data": _call_data(plan)},
            "kept_proofs": plan.proofs,
            "unchanged_proofs": plan.unchanged_proofs,
            "changed_proof_elements": order and order.changed_elements,
            "least_changed_proof_elements": order and order.least_elements,
            "is_optimal": order and order.is_optimal,
        },
    }
