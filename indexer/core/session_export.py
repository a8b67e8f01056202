"""Write stored session sets as documents that session_import reads back as the same sets.

Session orders are kept as stored, duplicates included. What would come back differently is
refused: a set the form has no place for, sets that differ in what the form does not carry, a
document larger than one import accepts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from indexer.core.session_import import STORE_FILE
from indexer.core.session_json import MAX_VALUES, show_name
from indexer.core.session_particle import SET_MERKLE_ROOT
from indexer.core.session_sets import MAX_DOCUMENT_BYTES, ClientStatus, MatchedForm
from indexer.core.store_forms import RECORDED_FORMS
from indexer.core.types import Address, Hash32, Session
from indexer.core.user_operations import EXECUTE_NCC
from indexer.errors import UsageError

PLACES: Final = ("chain", "account", "manager")
"""What says where a set belongs, by the name of the option that tells it to import."""

_WORDS: Final = {"chain": "chains", "account": "accounts", "manager": "managers"}
_DEMO_CHAIN_ID_LIMIT: Final = 10**18
"""The first chain id that is not read out of a key of the demo's store."""


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A set as it is stored; `session_keys` beside `sessions`, None where no layout is known.

    `client_statuses` are as many, None where the client said nothing, or there are none.
    """

    set_id: int
    chain_id: int
    manager: Address
    account: Address
    root: Hash32
    sessions: tuple[Session, ...]
    session_keys: tuple[Address | None, ...]
    matched_form: MatchedForm = "all_leaves"
    client_statuses: tuple[ClientStatus | None, ...] = ()

    def place(self, name: str) -> int | Address:
        """Return one of PLACES."""
        if name == "chain":
            return self.chain_id
        return self.account if name == "account" else self.manager


@dataclass(frozen=True, slots=True)
class Form:
    """One form of document.

    `carries` are the PLACES that import takes out of it. `brackets` are those around several
    sets, None where a document holds one. `slot` is what only one set of an export can stand
    under, with its name in `slot_name`. `named_by_account`: its file's name is the account's.
    `says_form`: a document tells of a set which form it has.
    """

    name: str
    write: Callable[[StoredSet], str]
    carries: frozenset[str] = frozenset()
    brackets: str | None = None
    slot: Callable[[StoredSet], Hashable] | None = None
    slot_name: str = ""
    named_by_account: bool = False
    says_form: bool = False


class Documents:
    """Puts one set after the other into as few documents as their form and import allow.

    `named` is the name of the one document, or None: then there may be several, and each gets
    a name of its own.
    """

    def __init__(self, form: Form, *, named: str | None) -> None:
        self._form = form
        self._named = named
        self._said_by_name = None if named is None else STORE_FILE.fullmatch(named)
        self._document = ""
        self._documents = 0
        self._bytes = 0
        self._values = 0
        self._taken: set[Hashable] = set()
        self.first: StoredSet | None = None
        """The first set; all others agree with it in what is `missing`."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The PLACES that import has to be told by options."""
        by_name = self._said_by_name or (self._form.named_by_account and self._named is None)
        carried = self._form.carries | ({"account"} if by_name else set())
        return tuple(name for name in PLACES if name not in carried)

    def add(self, stored: StoredSet) -> Iterator[tuple[str, str]]:
        """Yield (document, ASCII text to append to it); a new document follows the one before.

        Raises UsageError, before anything is yielded.
        The memory of a form with one set per account grows by some 100 bytes with each.
        """
        self._check(stored)
        text = self._form.write(stored)
        if not self._document or not self._fits(text):
            before = list(self.end())
            self._begin(stored, text)
            yield from before
            lead = "" if self._form.brackets is None else f"{self._form.brackets[0]}\n"
        else:
            lead = ",\n"
        self._bytes += len(lead) + len(text)
        self._values += _count_values(lead) + _count_values(text)
        yield self._document, lead + text

    def end(self) -> Iterator[tuple[str, str]]:
        """Yield what completes the last document."""
        if self._document:
            yield self._document, self._tail()

    def _tail(self) -> str:
        return "\n" if self._form.brackets is None else f"\n{self._form.brackets[1]}\n"

    def _fits(self, text: str) -> bool:
        """Say whether the set can join the document begun."""
        return (
            self._form.brackets is not None
            and self._bytes + len(",\n") + len(text) + len(self._tail()) <= MAX_DOCUMENT_BYTES
            and self._values + 1 + _count_values(text) <= MAX_VALUES
        )

    def _begin(self, stored: StoredSet, text: str) -> None:
        what = f"{MAX_DOCUMENT_BYTES} bytes and {MAX_VALUES} values, all that one import accepts"
        if self._documents and self._named is not None:
            raise UsageError(
                f"the document is full before session set {stored.set_id}: {what}",
                remedy="write several documents: --split DIR",
            )
        self._bytes = self._values = 0
        if len(text) + 2 * len(self._tail()) > MAX_DOCUMENT_BYTES or (
            1 + _count_values(text) > MAX_VALUES
        ):
            raise UsageError(
                f"session set {stored.set_id} as {self._form.name} passes {what}",
                remedy="" if self._form.name == "plain" else "use --form plain, the shortest",
            )
        self._documents += 1
        self._document = (
            f"{_hex(stored.account)}_sessions.json"
            if self._form.named_by_account
            else f"sessions-{self._documents:06}.json"
        )

    def _check(self, stored: StoredSet) -> None:
        """Refuse what would not come back as it is, or not beside the sets before."""
        form, first = self._form, self.first
        if stored.matched_form == "revoke_form" and not form.says_form:
            raise UsageError(
                f"session set {stored.set_id} records what a client's SDK left on chain "
                f"(matched_form revoke_form), and the form {form.name} does not say so: import "
                "would take it for a set that is wanted",
                remedy="use --form object",
            )
        if self._said_by_name and self._said_by_name[1].lower() != _hex(stored.account):
            raise UsageError(
                f"session set {stored.set_id} is of {_hex(stored.account)}, but import takes the "
                f"account from the name {show_name(str(self._named))}",
                remedy="choose another name, or --output -",
            )
        if first is None:
            self.first = first = stored
        elif form.brackets is None and self._named is not None:
            raise UsageError(
                f"a document of the form {form.name} holds one set, here are several "
                f"(session sets {first.set_id}, {stored.set_id})",
                remedy="name one SET_ID, or write several documents: --split DIR, or --form object",
            )
        for name in self.missing:
            if stored.place(name) != first.place(name):
                raise UsageError(
                    f"session sets {first.set_id} and {stored.set_id} are of different "
                    f"{_WORDS[name]}, and the form {form.name} does not carry the {name}",
                    remedy=f"export one {name} at a time (--{name}), or use --form object",
                )
        if form.slot is not None:
            slot = form.slot(stored)
            if slot in self._taken:
                raise UsageError(
                    f"the form {form.name} has one place per {form.slot_name}, and session set "
                    f"{stored.set_id} is not the first of {_hex(stored.account)}",
                    remedy="choose by SET_ID or --state on_chain, or use --form object",
                )
            self._taken.add(slot)


def _count_values(text: str) -> int:
    """Count as session_json.MAX_VALUES does."""
    return sum(map(text.count, "[{,"))


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def session_as_json(session: Session) -> dict[str, Any]:
    """Return a session as Particle and the SDK write it; every form that import reads takes it."""
    return {
        "validUntil": session.valid_until,
        "validAfter": session.valid_after,
        "sessionValidationModule": _hex(session.session_validation_module),
        "sessionKeyData": _hex(session.session_key_data),
    }


def _sessions(stored: StoredSet) -> list[dict[str, Any]]:
    return [session_as_json(session) for session in stored.sessions]


def _with_statuses(
    stored: StoredSet, key: str, spelt: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Return the sessions with what the client said of them, where it said something."""
    statuses = stored.client_statuses or (None,) * len(stored.sessions)
    return [
        session if status is None else {**session, key: spelt(status)}
        for session, status in zip(_sessions(stored), statuses, strict=True)
    ]


def _object(stored: StoredSet) -> str:
    return json.dumps(
        {
            "chain_id": stored.chain_id,
            "manager": _hex(stored.manager),
            "account": _hex(stored.account),
            "root": _hex(stored.root),
            "matched_form": stored.matched_form,
            "sessions": _with_statuses(stored, "client_status", str),
        }
    )


def _plain(stored: StoredSet) -> str:
    return json.dumps(_sessions(stored))


# The owner's address belongs in here, too; nobody stored it.
_CONFIG: Final = {"name": "BICONOMY", "version": "2.0.0"}


def _with_target(sessions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"sessions": sessions, "targetSession": sessions[0]}


def _particle_request(stored: StoredSet) -> str:
    return json.dumps(
        {
            "jsonrpc": "2.0",
            "id": stored.set_id,
            "chainId": stored.chain_id,
            "method": "particle_aa_createSessions",
            "params": [_CONFIG, _sessions(stored)],
        }
    )


def _particle_response(stored: StoredSet) -> str:
    """Write the answer with a user operation of two fields: nobody stored the others."""
    set_root = SET_MERKLE_ROOT + stored.root
    call_data = EXECUTE_NCC + b"".join(
        (
            stored.manager.rjust(32, b"\0"),
            bytes(32),  # value
            (96).to_bytes(32, "big"),  # where the data begins
            len(set_root).to_bytes(32, "big"),
            set_root.ljust(64, b"\0"),
        )
    )
    operation = {"sender": _hex(stored.account), "callData": _hex(call_data)}
    result = {
        "verifyingPaymasterNative": {"userOp": operation},
        "sessions": _sessions(stored),
        "transactions": [{"to": _hex(stored.manager), "value": "0x0", "data": _hex(set_root)}],
    }
    answer = {"jsonrpc": "2.0", "id": stored.set_id, "chainId": stored.chain_id, "result": result}
    return json.dumps(answer)


def _particle_validate(stored: StoredSet) -> str:
    return json.dumps([_CONFIG, _with_target(_sessions(stored))])


def _particle_send(stored: StoredSet) -> str:
    operation = {"sender": _hex(stored.account)}
    return json.dumps([_CONFIG, operation, _with_target(_sessions(stored))])


def _sdk_store(stored: StoredSet) -> str:
    """Write what the SDK needs to prove; its sessionID is not stored here."""
    # Import makes a wish of a list with REVOKED ones; of an older state it would be nobody's.
    listed = (
        _sessions(stored)
        if stored.matched_form in RECORDED_FORMS
        else _with_statuses(stored, "status", str.upper)
    )
    nodes = [
        node if key is None else {**node, "sessionPublicKey": _hex(key)}
        for node, key in zip(listed, stored.session_keys, strict=True)
    ]
    return json.dumps({"merkleRoot": _hex(stored.root), "leafNodes": nodes})


def _sdk_dump(stored: StoredSet) -> str:
    return _storage_item(f"{_hex(stored.account)}_sessions", _sdk_store(stored))


def _particle_demo_store(stored: StoredSet) -> str:
    """Write the demo's store without the private keys that it has beside the sessions.

    The demo registers [new, ...old] and stores the same order, so it is the order of the set.
    """
    signers = set(stored.session_keys)
    (signer,) = signers if len(signers) == 1 else (None,)
    if signer is None:
        unknown = None in signers
        raise UsageError(
            "the form particle_demo_store keeps the sessions of one session key together, and "
            f"those of session set {stored.set_id} are of "
            + ("keys that are not known" if unknown else f"{len(signers)} keys"),
            remedy="use another --form",
        )
    if stored.chain_id >= _DEMO_CHAIN_ID_LIMIT:
        raise UsageError(
            f"the form particle_demo_store has no room for the chain id {stored.chain_id} of "
            f"session set {stored.set_id}",
            remedy="use another --form",
        )
    entry = {"signer": {"address": _hex(signer)}, "sessions": _sessions(stored)}
    return _storage_item(
        f"sessions_{_hex(stored.account)}_{stored.chain_id}", json.dumps({_hex(signer): entry})
    )


def _storage_item(key: str, value: str) -> str:
    """Return one item of a dump of localStorage, whose values are texts."""
    return f"{json.dumps(key)}: {json.dumps(value)}"


FORMS: Final[Mapping[str, Form]] = {
    form.name: form
    for form in (
        Form("object", _object, frozenset(PLACES), brackets="[]", says_form=True),
        Form("plain", _plain),
        Form("particle_request", _particle_request, frozenset({"chain"})),
        Form("particle_response", _particle_response, frozenset(PLACES)),
        Form("particle_validate", _particle_validate),
        Form("particle_send", _particle_send, frozenset({"account"})),
        Form(
            "sdk_store",
            _sdk_store,
            slot=lambda stored: stored.account,
            slot_name="account",
            named_by_account=True,
        ),
        Form(
            "sdk_dump",
            _sdk_dump,
            frozenset({"account"}),
            brackets="{}",
            slot=lambda stored: stored.account,
            slot_name="account",
        ),
        Form(
            "particle_demo_store",
            _particle_demo_store,
            frozenset({"chain"}),
            brackets="{}",
            slot=lambda stored: (stored.account, stored.chain_id),
            slot_name="account and chain",
        ),
    )
}
"""By name; the object is the one form that carries everything of any number of sets."""
