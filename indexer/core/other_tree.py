"""A root that is not the set's own: which stored sessions give it, and whether it proves one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.core.root_search import Arrangement, Base, search_root
from indexer.core.session_proof import SessionProof, prove_among
from indexer.core.types import Hash32


@dataclass(frozen=True, slots=True)
class OtherTree:
    """What a search for a root found; `arrangement` None: nothing.

    `proved` is the session with its proof in that tree, None if the tree lacks it.
    """

    arrangement: Arrangement | None
    proved: SessionProof | None


def find_tree(proved: SessionProof, bases: Sequence[Base], root: Hash32) -> OtherTree:
    """Look among the account's stored sets, newest first, for the tree with this root.

    `proved` is a session by the proof that does not lead to the root.
    """
    found = search_root(bases, root).found
    if found is None or proved.leaf not in found.leaves:
        return OtherTree(found, None)
    return OtherTree(found, prove_among(proved.session, found.leaves))
