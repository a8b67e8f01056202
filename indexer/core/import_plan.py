"""What an import stores of one list of a document, given the roots that stand on chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from indexer.core.merkle import merkle_root, session_leaf
from indexer.core.session_import import ImportedSet
from indexer.core.session_sets import SessionSet, build_set
from indexer.core.store_forms import Variant, match, sets_to_store
from indexer.core.types import Address, Hash32


@dataclass(frozen=True, slots=True)
class ListPlan:
    """The sets to store, oldest first, the last being what the client wants.

    `on_chain` is the one whose root stands in its manager. `all_revoked`: the client wants no
    session at all, which no set can say.
    """

    sets: tuple[SessionSet, ...]
    on_chain: SessionSet | None
    all_revoked: bool


def plan_import(
    imported: ImportedSet,
    *,
    chain_id: int,
    account: Address,
    manager: Address | None,
    default_manager: Address,
    roots: Mapping[Address, Hash32],
) -> ListPlan:
    """Decide which sets a list of sessions is stored as.

    `roots` are those of the account by manager, the preferred manager first; none where they
    are not known. Without `manager` the sets go where a form of the list is found, else to
    `default_manager`. Raises ValueError and OverflowError as build_set does.
    """
    leaves = [session_leaf(session) for session in imported.sessions]
    if manager is not None:
        roots = {manager: roots[manager]} if manager in roots else {}
    hit: tuple[Variant, Hash32] | None
    if imported.matched_form is None:
        # Particle's clients register [new, ...old].
        newest_first = imported.source.startswith("particle_")
        hit = match(leaves, imported.statuses, roots.values(), newest_first=newest_first)
        variants = sets_to_store(leaves, imported.statuses, hit[0] if hit else None)
    else:
        same = Variant(imported.matched_form, tuple(range(len(leaves))))
        root = merkle_root(leaves)
        hit = (same, root) if root in roots.values() else None
        variants = (same,)
    if manager is None:
        places = [at for at, root in roots.items() if hit is not None and root == hit[1]]
        manager = places[0] if places else default_manager
    sets = tuple(
        build_set(
            chain_id,
            manager,
            account,
            [imported.sessions[position] for position in variant.positions],
            matched_form=variant.form,
            client_statuses=tuple(imported.statuses[position] for position in variant.positions),
        )
        for variant in variants
    )
    return ListPlan(
        sets,
        next((one for one in sets if hit is not None and one.root == hit[1]), None),
        imported.matched_form is None and set(imported.statuses) == {"revoked"},
    )
