"""What `sessions plan` prints: sessions, roots and the call, against what is on chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from indexer.cli_common import counted, hex_text, print_line, print_table, time_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from indexer.config import Settings
    from indexer.core.session_export import StoredSet
    from indexer.core.session_plan import SessionPlan
    from indexer.core.types import Session
    from indexer.store.session_choice import Indexed

NOTHING_REMAINS = (
    "nothing remains, and an empty set has no root: setMerkleRoot(0) revokes all, and there is "
    "nothing to import"
)


def standing_text(indexed: Indexed) -> str:
    """Say which root the account has as indexed, and since when."""
    if indexed.root is None:
        return "no root that is indexed"
    root = f"the root {hex_text(indexed.root)}" if any(indexed.root) else "no root"
    return root if indexed.root_block is None else f"{root} since block {indexed.root_block}"


def print_plan(
    settings: Settings,
    stored: StoredSet,
    indexed: Indexed,
    plan: SessionPlan,
    call_data: bytes,
    *,
    keep_expired: bool,
) -> None:
    """Print the plan that was made of a stored set."""
    chain = next((c.name for c in settings.chains if c.chain_id == stored.chain_id), "")
    print_line("account", stored.account)
    print_line("chain", f"{chain} ({stored.chain_id})" if chain else stored.chain_id)
    count = counted(len(stored.sessions), "session")
    print_line("from", f"session set {stored.set_id} with {count}")
    if indexed.block_time is not None:
        kept = ", expired sessions are kept" if keep_expired else ""
        print_line(
            "time", f"{time_text(indexed.block_time)}, of block {indexed.block_number}{kept}"
        )
    click.echo()
    stands = indexed.root == stored.root
    columns = ["", "#", "was", "leaf", "valid until (UTC)", "proof"]
    print_table(columns, list(_rows(plan, stands=stands)))
    click.echo()
    for line in _remarks(stored, indexed, plan):
        click.echo(line)
    print_line("root on chain", _root_on_chain(indexed))
    if not stands:
        print_line("stored root", stored.root)
    print_line("new root", "none (0)" if plan.root is None else hex_text(plan.root))
    if plan.proofs:
        print_line("proofs", _told_proofs(plan, stored.set_id, stands=stands))
    if _is_there(indexed, plan):
        click.echo("the call, which would change nothing:")
    else:
        click.echo("what the account has to call:")
    print_line("to", stored.manager)
    print_line("data", call_data)


def _is_there(indexed: Indexed, plan: SessionPlan) -> bool:
    """Say whether the account has the plan's root already."""
    if plan.root is None:
        return indexed.root is not None and not any(indexed.root)
    return indexed.root == plan.root


def _remarks(stored: StoredSet, indexed: Indexed, plan: SessionPlan) -> Iterator[str]:
    """Say what a reader of the rows should know, against what is on chain."""
    revoked = sum(one.reason == "revoked" for one in plan.dropped)
    if revoked:
        it = "it" if revoked == 1 else "them"
        yield (
            f"dropped: your store calls {counted(revoked, 'session')} revoked "
            f"(--keep-revoked keeps {it})"
        )
    there = _is_there(indexed, plan)
    this = f"this is session set {stored.set_id}"
    if plan.root is None:
        yield f"{NOTHING_REMAINS}; the account has no root now" if there else NOTHING_REMAINS
    elif there and plan.root == stored.root:
        yield f"nothing changes: {this}, and its root stands since block {indexed.root_block}"
    elif there:
        yield f"the account has the new root already, since block {indexed.root_block}"
    elif plan.root == stored.root and indexed.root is None:
        yield f"{this} as it is stored; no root of the account is indexed: it may not stand"
    elif plan.root == stored.root:
        yield f"{this} as it is stored, but its root is not what stands: the call registers it"


def _root_on_chain(indexed: Indexed) -> str:
    if indexed.root is None:
        return "not indexed"
    root = hex_text(indexed.root) if any(indexed.root) else "none (0)"
    return root if indexed.root_block is None else f"{root} since block {indexed.root_block}"


def _rows(plan: SessionPlan, *, stands: bool) -> Iterator[list[object]]:
    # A leaf that repeats is proved by its last place.
    last = {one.leaf: index for index, one in enumerate(plan.sessions)}
    for index, one in enumerate(plan.sessions):
        fate, changed = ("new" if one.stored_index is None else "kept"), one.changed_elements
        if changed is None:
            proof = ""
        elif last[one.leaf] != index:
            proof = f"that of #{last[one.leaf]}"
        elif stands:
            proof = f"{changed} changed" if changed else "unchanged"
        else:
            proof = f"{changed} new" if changed else "as stored"
        yield [fate, index, one.stored_index, hex_text(one.leaf), _until(one.session), proof]
    for gone in plan.dropped:
        fate = "dropped" if gone.reason == "named" else gone.reason
        yield [fate, "", gone.stored_index, hex_text(gone.leaf), _until(gone.session), ""]
    for left in plan.left_out:
        yield ["not added", "", "", hex_text(left.leaf), _until(left.session), left.reason]


def _until(session: Session) -> str:
    return time_text(session.valid_until).removesuffix(" UTC") if session.valid_until else "no end"


def _told_proofs(plan: SessionPlan, set_id: int, *, stands: bool) -> str:
    """Count the proofs of the kept sessions. Only those of a root that stands can stay."""
    order = plan.order
    assert order is not None
    changed, proofs = order.changed_elements, plan.proofs
    if not changed and stands:
        return "the one stays as it is" if proofs == 1 else f"all {proofs} stay as they are"
    if not changed:
        same = "the one is" if proofs == 1 else f"all {proofs} are"
        return f"{same} as in session set {set_id}, of use once the new root stands"
    elements = counted(changed, "element")
    if stands:
        verb = "changes" if changed == 1 else "change"
        text = f"{plan.unchanged_proofs} of {proofs} stay, {elements} {verb}"
    else:
        verb = "differs" if changed == 1 else "differ"
        text = f"{plan.unchanged_proofs} of {proofs} as in session set {set_id}, {elements} {verb}"
    if order.is_optimal:
        return f"{text}; no order changes fewer"
    return f"{text}; no order changes fewer than {order.least_elements}"
