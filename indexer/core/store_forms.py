"""Which sets a list of sessions stands for, and which form of it the chain has.

A client's store keeps sessions that were revoked, never sent, or not confirmed, and its statuses
are the client's word. So a list gives all its leaves and, where some are REVOKED, the wish: the
leaves without them. The root on chain may be that of yet another form, tried in this order:

- `all_leaves`: what the vendor's SDK registers, whatever the statuses.
- `not_revoked`: without the REVOKED ones.
- `active`: the ACTIVE ones.
- `revoke_form`: what the SDK's revokeSessions registers. It appends the store's leaves without
  the one to revoke to the tree it has, so that the revoked leaf stays provable. Of several in
  one call only the last is left out, and of earlier calls none: they are in the store still.
- `prefix`: the beginning of the list, an older state of a store that appends.
- `suffix`: the end of the list, an older state of a list that is kept newest first.

Source: @biconomy/account 4.6.3, SessionKeyManagerModule.revokeSessions and the storages'
revokeSessions; Particle's session key demo registers and keeps [new, ...old].
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from indexer.core.merkle import merkle_root, prefix_roots
from indexer.core.session_sets import MAX_SESSIONS, ClientStatus, MatchedForm
from indexer.core.types import ZERO_HASH, Hash32

RECORDED_FORMS: Final[frozenset[MatchedForm]] = frozenset(
    {"active", "revoke_form", "prefix", "suffix"}
)
"""Forms that are stored because the chain has them. None of them is what a client wants."""

_LEAVES_TRIED: Final = 200_000
"""Over all trees of the revoke form, and of suffixes: about a second of hashing."""
_REVOKED_IN_ORDER: Final = 4
"""Up to so many revoked leaves every order of calls is tried."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of a list: the positions of its sessions, in the order of the tree's leaves."""

    form: MatchedForm
    positions: tuple[int, ...]

    def leaves(self, listed: Sequence[Hash32]) -> tuple[Hash32, ...]:
        """Return the leaves of this form of a list."""
        return tuple(listed[position] for position in self.positions)


def wanted_sets(statuses: Sequence[ClientStatus | None]) -> tuple[Variant, ...]:
    """Return all leaves and then, as the newer set, those that were not revoked.

    The second is missing where nothing is revoked, and where nothing else is left: an empty set
    has no root. `statuses`: one per session.
    """
    everything = Variant("all_leaves", tuple(range(len(statuses))))
    kept = tuple(i for i, status in enumerate(statuses) if status != "revoked")
    if not kept or kept == everything.positions:
        return (everything,)
    return everything, Variant("not_revoked", kept)


def match(
    leaves: Sequence[Hash32],
    statuses: Sequence[ClientStatus | None],
    roots: Collection[Hash32],
    *,
    newest_first: bool = False,
) -> tuple[Variant, Hash32] | None:
    """Return the first form whose root is one of these, and that root; None if there is none.

    Zero roots match nothing. Suffixes are tried only of lists kept `newest_first`.
    """
    known = frozenset(roots) - {ZERO_HASH}
    if not known:
        return None
    for variant in _sets_apart(statuses):
        root = merkle_root(variant.leaves(leaves))
        if root in known:
            return variant, root
    for count, root in enumerate(prefix_roots(leaves), start=1):
        if root in known:
            return Variant("prefix", tuple(range(count))), root
    if newest_first:
        for variant in _affordable(_suffixes(len(leaves))):
            root = merkle_root(variant.leaves(leaves))
            if root in known:
                return variant, root
    return None


def sets_to_store(
    leaves: Sequence[Hash32],
    statuses: Sequence[ClientStatus | None],
    matched: Variant | None,
) -> tuple[Variant, ...]:
    """Return what an import stores of a list, oldest first, so that the wish is the newest.

    What matched the chain comes first, unless its leaves are those of another set anyhow.
    """
    wanted = wanted_sets(statuses)
    if matched is None:
        return wanted
    has = matched.leaves(leaves)
    if any(variant.leaves(leaves) == has for variant in wanted):
        return wanted
    return matched, *wanted


def _sets_apart(statuses: Sequence[ClientStatus | None]) -> Iterator[Variant]:
    yield from wanted_sets(statuses)
    active = tuple(i for i, status in enumerate(statuses) if status == "active")
    if active:
        yield Variant("active", active)
    yield from _affordable(_revoke_forms(statuses))


def _revoke_forms(statuses: Sequence[ClientStatus | None]) -> Iterator[Variant]:
    """Yield the trees that revokeSessions may have left, the likeliest first."""
    count = len(statuses)
    everything = tuple(range(count))
    revoked = [i for i in reversed(everything) if statuses[i] == "revoked"]

    def without(last: int, of: int = count) -> tuple[int, ...]:
        return tuple(i for i in range(of) if i != last)

    def form(*parts: tuple[int, ...]) -> Variant:
        return Variant("revoke_form", tuple(i for part in parts for i in part))

    if not revoked:
        return
    yield form(everything, tuple(i for i in everything if statuses[i] != "revoked"))
    for last in revoked if len(revoked) > 1 else ():
        yield form(everything, without(last))
    # Calls one after the other, each on the tree of the one before.
    if len(revoked) <= _REVOKED_IN_ORDER:
        for calls in range(2, len(revoked) + 1):
            for order in permutations(revoked, calls):
                yield form(everything, *(without(last) for last in order))
    # Sessions created after the call were appended behind it.
    for last in revoked:
        for then in range(count - 1, last, -1):
            yield form(everything[:then], without(last, of=then), everything[then:])


def _suffixes(count: int) -> Iterator[Variant]:
    for first in range(1, count):
        yield Variant("suffix", tuple(range(first, count)))


def _affordable(variants: Iterator[Variant]) -> Iterator[Variant]:
    """Cut off what would take too long, and leave out what no set can hold."""
    left = _LEAVES_TRIED
    for variant in variants:
        left -= len(variant.positions)
        if left < 0:
            return
        if len(variant.positions) <= MAX_SESSIONS:
            yield variant
