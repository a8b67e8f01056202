"""Read session sets out of the documents that clients and vendors leave behind.

Forms: a plain list of sessions; objects with chain_id, manager, account and sessions, or lists
of them; Particle's createSessions request and response, validateSession and sendUserOp
parameters; the stores of Biconomy's SDK and of Particle's demo, also as a localStorage dump.
What a document does not say stays None: the caller knows, or asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from indexer.core.session_fields import (
    found,
    read_address,
    step,
)
from indexer.core.session_json import load_document, load_text, show_name
from indexer.core.session_particle import PAYMASTERS, registered, transaction_roots
from indexer.core.session_place import Place, described, read_chain_id
from indexer.core.session_reader import (
    Problems,
    TooManyProblemsError,
    listed,
    names_session,
    read_sessions,
    set_warnings,
)
from indexer.core.session_sets import MAX_SESSIONS, ClientStatus, MatchedForm
from indexer.core.types import Address, Hash32, Session
from indexer.errors import UsageError

_STORE_KEY = re.compile(r"(0[xX][0-9a-fA-F]*)_sessions", re.ASCII)
_DEMO_KEY = re.compile(r"sessions_(0[xX][0-9a-fA-F]*)_([0-9]{1,18})", re.ASCII)
_ADDRESS_KEY = re.compile(r"0[xX][0-9a-fA-F]{40}", re.ASCII)
STORE_FILE = re.compile(r"(?:.*[/\\])?(0[xX][0-9a-fA-F]{40})_sessions\.json", re.ASCII | re.DOTALL)
_WITH_SESSIONS = frozenset({"leafNodes", "params", "error", "result", "sessions"})
_SIGNER_FILE = re.compile(r".*_signers(\.json)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ImportedSet:
    """One set as the document tells it; None where it does not say.

    `source` is plain, object, particle_request, particle_response, particle_params, sdk_store
    or particle_demo_store. `claimed_root` is the root the document names, not the computed
    one. `label` is the JSON path of the sessions. `statuses` holds the client's word on each
    session. `matched_form` stands in a document exported here: then the list is that set, and
    no other set is made of it.
    """

    chain_id: int | None
    manager: Address | None
    account: Address | None
    sessions: tuple[Session, ...]
    source: str
    claimed_root: Hash32 | None
    label: str
    statuses: tuple[ClientStatus | None, ...]
    matched_form: MatchedForm | None


@dataclass(frozen=True, slots=True)
class ImportResult:
    """At least one set, in the order of the document, and what a person should look at."""

    sets: tuple[ImportedSet, ...]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Reading:
    """What has been found so far in one document."""

    name: str
    problems: Problems = field(default_factory=Problems)
    sets: list[ImportedSet] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def parse_document(text: bytes, *, name: str) -> ImportResult:
    """Return the session sets of a document; `name` is what messages call it.

    Raises UsageError: not JSON, no sessions, an empty or too long list, or wrong sessions, all
    of them (up to 20) in one message. Fields named like a private key are removed unread, and
    no value of them appears in a message, a warning or the result.
    """
    reading = _Reading(name)
    shown = show_name(name)
    document = load_document(text, name=name)
    reading.dropped += document.dropped
    in_name = STORE_FILE.fullmatch(name)
    context = Place()
    try:
        if in_name is not None:
            account = reading.problems.check("the file's name", read_address, in_name[1])
            context = replace(context, account=account)
        recognised = _read_node(reading, document.value, context, top=True)
    except TooManyProblemsError:
        recognised = True
    if reading.problems.texts:
        raise UsageError(
            f"{shown}: {reading.problems.sentence()}",
            remedy="correct these places and import again; nothing was stored",
        )
    if not reading.sets:
        raise _without_sessions(reading, recognised=recognised)
    if reading.dropped:
        reading.warnings.append(
            f"what looks like private keys was dropped unread: {listed(reading.dropped)}"
        )
    for imported in reading.sets:
        reading.warnings += set_warnings(imported.sessions, imported.label, imported.claimed_root)
    return ImportResult(tuple(reading.sets), tuple(reading.warnings))


def _without_sessions(reading: _Reading, *, recognised: bool) -> UsageError:
    shown = show_name(reading.name)
    if reading.dropped or _SIGNER_FILE.fullmatch(reading.name):
        at = f" (at {listed(reading.dropped)})" if reading.dropped else ""
        return UsageError(
            f"{shown} holds signer keys{at} and no sessions; none of it was read or stored",
            remedy="import the store of sessions instead (`<account>_sessions`)",
        )
    if recognised:
        return UsageError(
            f"{shown} holds no sessions: its lists are empty, and an empty set has no root",
            remedy="import the sessions that were registered",
        )
    return UsageError(
        f"{shown} holds no sessions in a form known here",
        remedy='give a list of sessions, or {"account": "0x…", "sessions": […]}, or the whole '
        "answer of particle_aa_createSessions",
    )


def _read_node(reading: _Reading, node: Any, context: Place, *, top: bool = False) -> bool:
    """Add the sets of a node; False if its form is not known."""
    if isinstance(node, dict):
        return _read_object(reading, node, context)
    if not isinstance(node, list):
        return False
    if not node:
        reading.problems.add(context.path, "is an empty list, and an empty set has no root")
        return True
    if _is_params(node):
        return _read_params(reading, node, context)
    if top and not _looks_like_sessions(node):
        unknown = [
            index
            for index, item in enumerate(node)
            if not isinstance(item, dict)
            or not _read_object(reading, item, replace(context, path=f"{context.path}[{index}]"))
        ]
        if len(unknown) == len(node):
            return False
        for index in unknown:
            reading.problems.add(
                f"{context.path}[{index}]", f"is {found(node[index])}, expected a session set"
            )
        return True
    _add_set(reading, node, replace(context, source=context.source or "plain"))
    return True


def _read_object(reading: _Reading, node: dict[str, Any], outer: Place) -> bool:
    # A dump of localStorage first: its other keys belong to other programs.
    if any(_STORE_KEY.fullmatch(key) or _DEMO_KEY.fullmatch(key) for key in node):
        _read_stores(reading, node, outer)
        return True
    if _WITH_SESSIONS.isdisjoint(node):
        # a signer or the like: what it says of chain and account is about nothing read here
        return _read_demo_store(reading, node, outer)
    context = described(reading.problems, node, outer)
    path = context.path
    if "leafNodes" in node:
        store = replace(context, path=f"{path}.leafNodes", source="sdk_store")
        if node["leafNodes"] == []:
            reading.warnings.append(f"{store.path} is empty and was left out")
        else:
            _add_set(reading, node["leafNodes"], store)
        return True
    if "params" in node:
        inner = replace(context, path=f"{path}.params", source="particle_request")
        return isinstance(node["params"], list) and _read_params(reading, node["params"], inner)
    if "error" in node and "sessions" not in node and "result" not in node:
        reading.problems.add(f"{path}.error", "says that the call failed, so there are no sessions")
        return True
    if "result" in node:
        result = node["result"]
        if not isinstance(result, dict) or "sessions" not in result:
            reading.problems.add(
                f"{path}.result",
                f"is {found(result)} without sessions; only createSessions answers with them",
            )
            return True
        return _read_response(reading, result, replace(context, path=f"{path}.result"))
    if any(key in node for key in PAYMASTERS):
        return _read_response(reading, node, context)
    _add_target_warning(reading, node, context)
    inner = replace(context, path=f"{path}.sessions", source=context.source or "object")
    _add_set(reading, node["sessions"], inner)
    return True


def _is_params(node: Sequence[Any]) -> bool:
    """Say whether a list is Particle's [account config, …]."""
    config = node[0] if node else None
    return (
        len(node) > 1
        and isinstance(config, dict)
        and "sessions" not in config
        and ("ownerAddress" in config or {"name", "version"} <= set(config))
    )


def _read_params(reading: _Reading, params: Sequence[Any], outer: Place) -> bool:
    """Read [config, sessions], [config, {sessions, targetSession}] or [config, op, {sessions}]."""
    context = replace(outer, source=outer.source or "particle_params")
    if len(params) < 2:
        return False
    at = 2 if len(params) > 2 and isinstance(params[2], dict) and "sessions" in params[2] else 1
    inner = replace(context, path=f"{context.path}[{at}]")
    given = params[at]
    if at == 2 and isinstance(params[1], dict) and "sender" in params[1]:
        sender = f"{context.path}[1].sender"
        account = reading.problems.check(sender, read_address, params[1]["sender"])
        inner = replace(inner, account=account)
    if isinstance(given, dict) and "sessions" in given:
        return _read_object(reading, given, inner)
    if not isinstance(given, list):
        reading.problems.add(inner.path, f"is {found(given)}, expected the list of sessions")
        return True
    _add_set(reading, given, inner)
    return True


def _read_response(reading: _Reading, result: dict[str, Any], context: Place) -> bool:
    """Read createSessions' result: who registers what comes from the operations' callData.

    Not from `transactions`: the published example carries another account's there.
    """
    inner = replace(context, path=f"{context.path}.sessions", source="particle_response")
    told = registered(result, context.path, reading.problems)
    reading.warnings += told.warnings
    if told.root is not None:
        for other in sorted(transaction_roots(result) - {told.root}):
            reading.warnings.append(
                f"{context.path}.transactions registers the root 0x{other.hex()}, but the user "
                f"operation registers 0x{told.root.hex()}; the operation's was taken"
            )
    inner = replace(
        inner,
        account=told.account or context.account,
        manager=told.manager or context.manager,
        claimed_root=told.root or context.claimed_root,
    )
    _add_set(reading, result["sessions"], inner)
    return True


def _read_stores(reading: _Reading, node: Mapping[str, Any], context: Place) -> None:
    """Read a dump of localStorage: its values are JSON texts, or objects once unpacked."""
    for key, value in node.items():
        biconomy, demo = _STORE_KEY.fullmatch(key), _DEMO_KEY.fullmatch(key)
        if biconomy is None and demo is None:
            continue
        path = context.path + step(key)
        inner = replace(context, path=path)
        if biconomy is not None:
            account = reading.problems.check(f"the key {path}", read_address, biconomy[1])
            inner = replace(inner, account=account)
        elif demo is not None:
            chain_id = reading.problems.check(f"the key {path}", read_chain_id, demo[2])
            inner = replace(inner, chain_id=chain_id)
            reading.warnings.append(
                f"the address in the key {path} may be the owner's, not the account's"
            )
        store = value
        if isinstance(value, str):
            loaded = load_text(value, name=reading.name, path=path)
            reading.dropped += loaded.dropped
            store = loaded.value
        if not _read_node(reading, store, inner):
            reading.problems.add(path, f"is {found(store)}, expected a store of sessions")


def _read_demo_store(reading: _Reading, node: Mapping[str, Any], context: Place) -> bool:
    """Read {signer address: {signer, sessions}}, one set per signer."""
    entries = {
        key: value["sessions"]
        for key, value in node.items()
        if _ADDRESS_KEY.fullmatch(key) and isinstance(value, dict) and "sessions" in value
    }
    if not entries or len(entries) != len(node):
        return False
    for key, sessions in entries.items():
        path = f"{context.path}{step(key)}.sessions"
        if sessions == []:
            reading.warnings.append(f"{path} is empty and was left out")
        else:
            inner = replace(context, path=path, source="particle_demo_store")
            _add_set(reading, sessions, inner)
    if len(entries) > 1:
        reading.warnings.append(
            f"{context.path} holds the lists of {len(entries)} signers; which of them the account "
            "registered last is not written there"
        )
    return True


def _looks_like_sessions(node: Sequence[Any]) -> bool:
    return any(isinstance(item, dict) and names_session(item) for item in node)


def _add_set(reading: _Reading, items: Any, context: Place) -> None:
    problems = reading.problems
    if not isinstance(items, list):
        problems.add(context.path, f"is {found(items)}, expected a list of sessions")
    elif not items:
        problems.add(context.path, "is an empty list, and an empty set has no root")
    elif len(items) > MAX_SESSIONS:
        problems.add(
            context.path, f"has {len(items)} sessions, at most {MAX_SESSIONS} make one set"
        )
    else:
        read = read_sessions(items, context.path, problems, reading.warnings)
        reading.sets.append(
            ImportedSet(
                context.chain_id,
                context.manager,
                context.account,
                read.sessions,
                context.source,
                context.claimed_root,
                context.path,
                read.statuses,
                context.matched_form,
            )
        )


def _add_target_warning(reading: _Reading, node: Mapping[str, Any], context: Place) -> None:
    target, sessions = node.get("targetSession"), node.get("sessions")
    if target is not None and isinstance(sessions, list) and target not in sessions:
        reading.warnings.append(
            f"{context.path}.targetSession is not one of the sessions beside it"
        )
