"""One session after the other out of JSON, every mistake collected with its JSON path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from indexer.core.merkle import MAX_UINT48, merkle_root, session_leaf
from indexer.core.session_abi import encode_session_key_data
from indexer.core.session_fields import FieldError, found, read_address, read_hex, read_integer
from indexer.core.session_sets import (
    CLIENT_STATUSES,
    MAX_SESSION_KEY_DATA_BYTES,
    ClientStatus,
)
from indexer.core.types import Hash32, Session

MAX_PROBLEMS: Final = 20
_MAX_LISTED: Final = 5
_MILLISECONDS: Final = 10**11
"""As seconds the year 5138, as milliseconds 1973. 2**48 - 1 is excepted: it means never."""

_WORD_BYTES: Final = 32
_HIGH_BYTES: Final = 12
"""Those of a word that are zero where it holds an address."""

_VALID_UNTIL: Final = ("validUntil", "valid_until")
_VALID_AFTER: Final = ("validAfter", "valid_after")
_MODULE: Final = ("sessionValidationModule", "session_validation_module")
_DATA: Final = ("sessionKeyData", "session_key_data")
_ABI: Final = ("sessionKeyDataInAbi", "session_key_data_in_abi")
_NAMES: Final = frozenset(_VALID_UNTIL + _VALID_AFTER + _MODULE + _DATA + _ABI)

_STATUS: Final = ("status", "client_status")
_STATUSES: Final[Mapping[str, ClientStatus]] = {status: status for status in CLIENT_STATUSES}

T = TypeVar("T")


class TooManyProblemsError(Exception):
    """MAX_PROBLEMS were found; reading on would only make the message longer."""


class Problems:
    """The mistakes of one document, in the order found."""

    __slots__ = ("texts",)

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, path: str, problem: str) -> None:
        """Note a mistake. Raises TooManyProblemsError on the last one that is kept."""
        self.texts.append(f"{path} {problem}")
        if len(self.texts) >= MAX_PROBLEMS:
            raise TooManyProblemsError

    def check(self, path: str, read: Callable[[object], T], value: object) -> T | None:
        """Return what `read` makes of the value, or note its mistake and return None."""
        try:
            return read(value)
        except FieldError as error:
            self.add(path + error.where, error.problem)
            return None

    def check_alias(
        self,
        node: Mapping[str, Any],
        path: str,
        names: Sequence[str],
        read: Callable[[object], T],
    ) -> T | None:
        """Read the field that stands under one of these names; None where there is none."""
        given = [name for name in names if node.get(name) is not None]
        values = [self.check(f"{path}.{name}", read, node[name]) for name in given]
        if any(value != values[0] for value in values[1:]):
            self.add(f"{path}.{given[1]}", f"differs from {given[0]} beside it")
        return values[0] if values else None

    def sentence(self) -> str:
        """Return all mistakes as one sentence."""
        if len(self.texts) == 1:
            return self.texts[0]
        count = f"at least {MAX_PROBLEMS}" if len(self.texts) >= MAX_PROBLEMS else len(self.texts)
        return f"{count} mistakes: " + "; ".join(self.texts)


def names_session(node: Mapping[str, Any]) -> bool:
    """Say whether an object has any field of a session."""
    return not _NAMES.isdisjoint(node)


@dataclass(frozen=True, slots=True)
class ReadSessions:
    """The sessions of a list in order, and what the client says of each: None, if nothing."""

    sessions: tuple[Session, ...]
    statuses: tuple[ClientStatus | None, ...]


def read_sessions(
    items: Sequence[Any], path: str, problems: Problems, warnings: list[str]
) -> ReadSessions:
    """Read a list of sessions; wrong ones are noted in `problems` and left out."""
    sessions: list[Session] = []
    statuses: list[ClientStatus | None] = []
    unsafe: list[str] = []
    strange: list[str] = []
    for index, item in enumerate(items):
        at = f"{path}[{index}]"
        if not isinstance(item, dict):
            problems.add(at, f"is {found(item)}, expected a session")
            continue
        session = _read_session(item, at, problems)
        if session is not None:
            sessions.append(session)
            said = next((item[name] for name in _STATUS if item.get(name) is not None), None)
            status = _STATUSES.get(said.lower()) if isinstance(said, str) else None
            statuses.append(status)
            if said is not None and status is None:
                strange.append(at)
            if _has_unsafe_number([item.get(name) for name in _ABI]):
                unsafe.append(at)
    if unsafe:
        warnings.append(
            "numbers past 2^53 are written without quotes, a JavaScript client may have rounded "
            f"them: {listed(unsafe)}"
        )
    if strange:
        warnings.append(
            f"a status that is none of {', '.join(CLIENT_STATUSES)} was left out: {listed(strange)}"
        )
    return ReadSessions(tuple(sessions), tuple(statuses))


def set_warnings(
    sessions: Sequence[Session], at: str, claimed_root: Hash32 | None
) -> Iterator[str]:
    """Yield what is legal in a set but rarely meant; `at` is the JSON path of the list."""
    late = [
        f"{at}[{i}]"
        for i, s in enumerate(sessions)
        if any(_MILLISECONDS < t < MAX_UINT48 for t in (s.valid_until, s.valid_after))
    ]
    if late:
        yield f"times look like milliseconds, the contract counts in seconds: {listed(late)}"
    never = [f"{at}[{i}]" for i, s in enumerate(sessions) if 0 < s.valid_until < s.valid_after]
    if never:
        yield f"validUntil lies before validAfter, such a session is never usable: {listed(never)}"
    keys = [
        f"{at}[{i}]"
        for i, s in enumerate(sessions)
        if len(s.session_key_data) == _WORD_BYTES and any(s.session_key_data[:_HIGH_BYTES])
    ]
    if keys:
        yield (
            "sessionKeyData is 32 bytes long and no address: if it is a private key, do not use it "
            f"any more, and register its address instead: {listed(keys)}"
        )
    leaves = [session_leaf(session) for session in sessions]
    first: dict[Hash32, int] = {}
    for i, leaf in enumerate(leaves):
        first.setdefault(leaf, i)
    again = [f"{at}[{i}] = [{first[leaf]}]" for i, leaf in enumerate(leaves) if first[leaf] != i]
    if again:
        yield f"sessions repeat and are kept, because a root counts each: {listed(again)}"
    computed = merkle_root(leaves)
    if claimed_root is not None and computed != claimed_root:
        yield (
            f"{at}: these sessions in this order give the root 0x{computed.hex()}, but the "
            f"document names 0x{claimed_root.hex()}"
        )


def listed(paths: Sequence[str]) -> str:
    """Return the first few paths and how many more there are."""
    more = len(paths) - _MAX_LISTED
    return ", ".join(paths[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _read_session(node: Mapping[str, Any], path: str, problems: Problems) -> Session | None:
    before = len(problems.texts)
    for names, hint in (
        (_VALID_UNTIL, "write 0 for no expiry"),
        (_VALID_AFTER, "write 0 for no start"),
        (_MODULE, "the address of the validation module"),
    ):
        if all(node.get(name) is None for name in names):
            null = any(name in node for name in names)
            problems.add(path, f"has {'null as' if null else 'no'} {names[0]} ({hint})")
    valid_until = problems.check_alias(node, path, _VALID_UNTIL, _read_time)
    valid_after = problems.check_alias(node, path, _VALID_AFTER, _read_time)
    module = problems.check_alias(node, path, _MODULE, read_address)
    data = problems.check_alias(node, path, _DATA, _read_data)
    from_abi = problems.check_alias(node, path, _ABI, encode_session_key_data)
    if len(problems.texts) > before:
        return None
    if data is None and from_abi is None:
        problems.add(path, "has neither sessionKeyData nor sessionKeyDataInAbi")
        return None
    if data is not None and from_abi is not None and data != from_abi:
        problems.add(
            path, "has a sessionKeyData that is not the encoding of its sessionKeyDataInAbi"
        )
        return None
    key_data = data if data is not None else from_abi
    assert valid_until is not None
    assert valid_after is not None
    assert module is not None
    assert key_data is not None
    return Session(valid_until, valid_after, module, key_data)


def _read_time(value: object) -> int:
    return read_integer(value, 48)


def _read_data(value: object) -> bytes:
    data = read_hex(value)
    if len(data) > MAX_SESSION_KEY_DATA_BYTES:
        raise FieldError(
            f"has {len(data)} bytes, at most {MAX_SESSION_KEY_DATA_BYTES} are accepted"
        )
    return data


def _has_unsafe_number(value: Any) -> bool:
    if isinstance(value, list):
        return any(_has_unsafe_number(item) for item in value)
    if isinstance(value, dict):
        return any(_has_unsafe_number(item) for item in value.values())
    return isinstance(value, int) and abs(value) > 2**53
