"""Which session is meant, of a stored set or of a document: for `prove` and `validate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from indexer.cli_common import (
    MAX_BIGINT,
    hex_text,
    known_chain_id,
    read_address_option,
    read_settings,
    session_layouts,
    with_database,
)
from indexer.cli_plan import read_hash_option
from indexer.cli_sessions import Wanted, document_settings, print_warnings, read_document
from indexer.errors import FatalError, UsageError

if TYPE_CHECKING:
    from indexer.config import Settings
    from indexer.core.root_search import Base
    from indexer.core.session_import import ImportedSet
    from indexer.core.session_layout import Layout
    from indexer.core.session_proof import SessionProof
    from indexer.core.types import Address, Hash32, Session
    from indexer.store.pool import Database
    from indexer.store.session_choice import Indexed

F = TypeVar("F", bound=Callable[..., object])

_MAX_INDEX = 9_999
_MAX_LISTED = 8


def _read_key(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Address | None:
    """Read a key's address, for click; a private key given instead is not repeated."""
    from indexer.core.session_fields import FieldError, read_address  # noqa: PLC0415

    try:
        return None if value is None else read_address(value)
    except FieldError as error:
        raise click.BadParameter(f"{error}", context, parameter) from None


def selection_options(function: F) -> F:
    """Add what names one session: a set and a place in it. See `choose`."""
    for option in reversed(
        (
            click.argument("file", type=click.File("rb"), required=False),
            click.option("--set", "set_id", type=click.IntRange(1, MAX_BIGINT), help="A set's id."),
            click.option(
                "--leaf", callback=read_hash_option, metavar="0x…", help="The session's leaf."
            ),
            click.option(
                "--index", type=click.IntRange(0, _MAX_INDEX), help="Its place, from 0 on."
            ),
            click.option(
                "--session-key",
                callback=_read_key,
                metavar="0x…",
                help="The address of its session key.",
            ),
            click.option("--chain", "chain_name", metavar="NAME", help="With FILE: its chain."),
            click.option(
                "--account", callback=read_address_option, metavar="0x…", help="With FILE: whose."
            ),
            click.option(
                "--manager",
                callback=read_address_option,
                metavar="0x…",
                help="With FILE: default, the first one configured.",
            ),
        )
    ):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What selection_options have read."""

    file: Any
    set_id: int | None
    leaf: Hash32 | None
    index: int | None
    session_key: Address | None
    chain_name: str | None
    account: Address | None
    manager: Address | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """One session of one set. `set_id` and `indexed` are None for a set out of a document.

    `bases` are the account's stored sets, newest first; None unless a node is to be asked about
    a stored set.
    """

    label: str
    set_id: int | None
    chain_id: int
    manager: Address
    account: Address
    sessions: tuple[Session, ...]
    proved: SessionProof
    indexed: Indexed | None
    layouts: Mapping[Address, Layout]
    bases: Sequence[Base] | None = None

    def session_key(self) -> Address | None:
        """Return the session's key, None where its module's layout is not known."""
        from indexer.core.session_layout import session_key  # noqa: PLC0415

        session = self.proved.session
        module = session.session_validation_module
        return session_key(module, session.session_key_data, self.layouts)

    def as_json(self) -> dict[str, Any]:
        """Return what says which session it is."""
        return {
            "set_id": self.set_id,
            "chain_id": self.chain_id,
            "account": self.account,
            "manager": self.manager,
            "root": self.proved.root,
            "index": self.proved.index,
            "leaf": self.proved.leaf,
        }


def choose(
    context: click.Context, asked: Selection, *, ask_node: bool
) -> tuple[Settings | None, Chosen]:
    """Return the settings (None: none are needed) and the session that was named.

    A set out of a document needs no database. Raises UsageError where set or session are not
    named once, or are not there.
    """
    if (asked.set_id is None) == (asked.file is None):
        raise UsageError(
            "name either a stored set (--set) or a FILE",
            remedy="`sessionwatch sessions list` shows the stored ones",
        )
    named = (asked.leaf, asked.index, asked.session_key)
    if sum(one is not None for one in named) != 1:
        raise UsageError(
            "name the session once: --leaf, --index or --session-key",
            remedy="`sessionwatch sessions show SET_ID` has them all",
        )
    if asked.set_id is not None:
        if any(one is not None for one in (asked.chain_name, asked.account, asked.manager)):
            raise UsageError(
                "--set already says which set", remedy="leave out --chain, --account and --manager"
            )
        settings = read_settings(context, need_chains=ask_node)
        return settings, _out_of_database(settings, asked, asked.set_id, ask_node=ask_node)
    offline = (
        read_settings(context, need_database=False)
        if ask_node
        else document_settings(context, need_database=False)
    )
    return offline, _out_of_document(offline, asked)


def _out_of_database(
    settings: Settings, asked: Selection, set_id: int, *, ask_node: bool
) -> Chosen:
    from indexer.store import session_choice as store  # noqa: PLC0415

    async def work(database: Database) -> tuple[Any, Indexed, list[Base] | None]:
        stored = await store.stored_set(database, set_id)
        place = (stored.chain_id, stored.manager, stored.account)
        bases = await store.search_bases(database, *place) if ask_node else None
        return stored, await store.indexed(database, *place), bases

    stored, indexed, bases = with_database(settings.database, work)
    label = f"session set {set_id}"
    proved = _proved(label, stored.sessions, stored.session_keys, asked)
    if proved.root != stored.root:
        raise FatalError(
            f"{label} is stored with the root {hex_text(stored.root)}, but its sessions give "
            f"{hex_text(proved.root)}",
            remedy="restore the schema sessions from a back-up",
        )
    return Chosen(
        label,
        set_id,
        stored.chain_id,
        stored.manager,
        stored.account,
        stored.sessions,
        proved,
        indexed,
        session_layouts(settings, {stored.chain_id}),
        bases,
    )


def _out_of_document(settings: Settings | None, asked: Selection) -> Chosen:
    from indexer.core.session_layout import session_key  # noqa: PLC0415

    chain_id = None if asked.chain_name is None else known_chain_id(settings, asked.chain_name)
    name, document = read_document(asked.file)
    print_warnings(document.warnings)
    one = _only_set(name, document.sets, asked, chain_id)
    # The list as it stands, whatever its statuses: proofs are of leaves in their order.
    plan = Wanted(name, settings, chain_id, asked.account, asked.manager).plan(one, {})
    built = plan.sets[0]
    label = f"{name}: {one.label}"
    if len(plan.sets) > 1:
        told = f"{label}: the client calls some sessions REVOKED; this is the tree over all of them"
        print_warnings([told])
    layouts = session_layouts(settings, {built.chain_id})
    keys = [
        session_key(s.session_validation_module, s.session_key_data, layouts)
        for s in built.sessions
    ]
    proved = _proved(label, built.sessions, keys, asked)
    place = (built.chain_id, built.manager, built.account)
    return Chosen(label, None, *place, built.sessions, proved, None, layouts)


def _only_set(
    name: str, sets: Sequence[ImportedSet], asked: Selection, chain_id: int | None
) -> ImportedSet:
    """Return the only set of a document, or the only one that the options leave."""
    if len(sets) == 1:
        return sets[0]
    left = [
        one
        for one in sets
        if (chain_id in (None, one.chain_id) or one.chain_id is None)
        and (asked.account in (None, one.account) or one.account is None)
        and (asked.manager in (None, one.manager) or one.manager is None)
    ]
    if len(left) != 1:
        raise UsageError(
            f"{name} holds {len(sets)} session sets, and the options fit {len(left)} of them",
            remedy="choose by --chain, --account and --manager, or give a document with one set",
        )
    return left[0]


def _proved(
    label: str,
    sessions: Sequence[Session],
    session_keys: Sequence[Address | None],
    asked: Selection,
) -> SessionProof:
    """Return the session that was named, with its proof."""
    from indexer.core.merkle import session_leaf  # noqa: PLC0415
    from indexer.core.session_proof import posing_node, prove_session  # noqa: PLC0415

    leaves = [session_leaf(session) for session in sessions]
    index = asked.index
    if index is not None and index >= len(sessions):
        raise UsageError(
            f"{label} has {len(sessions)} sessions, the last is --index {len(sessions) - 1}"
        )
    if asked.leaf is not None:
        if asked.leaf not in leaves:
            posing = posing_node(sessions, asked.leaf)
            if posing is not None:
                return posing
            raise UsageError(
                f"{label} has no session with that leaf",
                remedy="choose by --index or --session-key",
            )
        index = leaves.index(asked.leaf)
    if asked.session_key is not None:
        found = [i for i, key in enumerate(session_keys) if key == asked.session_key]
        if not found:
            raise UsageError(
                f"{label} has no session whose key is known to be {hex_text(asked.session_key)}",
                remedy="choose by --leaf or --index",
            )
        # Where a leaf repeats, any of its places means the same session.
        if len({leaves[i] for i in found}) > 1:
            some = ", ".join(map(str, found[:_MAX_LISTED]))
            more = ", …" if len(found) > _MAX_LISTED else ""
            raise UsageError(
                f"{label} has {len(found)} sessions of that key",
                remedy=f"choose one by --index: {some}{more}",
            )
        index = found[0]
    assert index is not None
    return prove_session(sessions, index)
