"""What the query string of the page asks for. Pure; nothing that was typed is ever repeated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast, get_args
from urllib.parse import urlencode

from indexer.core.config_values import ValueMistakeError, parse_address
from indexer.core.types import Address
from indexer.core.verdict_values import Cause, Severity

_KEYS = ("account", "chain", "cause", "severity", "renew")
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_ACCOUNT_DIGITS = 40
# A key that lost a few digits in pasting still is a secret.
_KEY_DIGITS = 60


class QuestionError(ValueError):
    """A query that cannot be answered; the text is a sentence that repeats none of it."""


@dataclass(frozen=True, slots=True)
class Question:
    """One account, else the drifts of a chain, cause or severity, else the front page.

    `chain` is any text: whether there is such a chain, the database knows.
    """

    account: Address | None = None
    chain: str | None = None
    cause: Cause | None = None
    severity: Severity | None = None
    renews: bool = True

    @property
    def page(self) -> Literal["account", "drifts", "front"]:
        """Which page answers."""
        if self.account is not None:
            return "account"
        return "drifts" if self.chain or self.cause or self.severity else "front"


def link(**values: str | None) -> str:
    """Return the address of the page that answers these values of the query, not yet escaped."""
    given = {key: value for key, value in values.items() if value}
    return f"/?{urlencode(given)}" if given else "/"


def read_question(pairs: Iterable[tuple[str, str]]) -> Question:
    """Read a query string's pairs; an empty value counts as none. Raises QuestionError."""
    given: dict[str, str] = {}
    for key, value in pairs:
        if key not in _KEYS:
            raise QuestionError(f"The address has a key that is none of {', '.join(_KEYS)}.")
        if key in given:
            raise QuestionError(f"The address has the key {key} twice.")
        given[key] = value
    account = "".join(given.get("account", "").split())
    renew = given.get("renew", "")
    if renew not in {"", "off"}:
        raise QuestionError("The key renew is off, or left out.")
    return Question(
        account=_account(account) if account else None,
        chain=given.get("chain") or None,
        cause=cast("Cause | None", _one_of(given, "cause", Cause)),
        severity=cast("Severity | None", _one_of(given, "severity", Severity)),
        renews=not renew,
    )


def _one_of(given: dict[str, str], key: str, values: object) -> str | None:
    value = given.get(key) or None
    if value is not None and value not in get_args(values):
        raise QuestionError(f"There is no such {key}: it is one of {', '.join(get_args(values))}.")
    return value


def _account(text: str) -> Address:
    digits = text[2:] if text[:2] in {"0x", "0X"} else text
    if not _HEX_DIGITS.issuperset(digits):
        raise QuestionError("This is no account: an account is written as 0x and 40 hex digits.")
    if len(digits) >= _KEY_DIGITS:
        raise QuestionError(
            f"This is no account: it has {len(digits)} hex digits, an account has 40. If it was a"
            " private key: it is not shown or kept here, but stands in the history of this"
            " browser, and whatever lies between may have logged it. Use another key."
        )
    if len(digits) != _ACCOUNT_DIGITS:
        raise QuestionError(
            f"This is no account: it has {len(digits)} hex digits, an account has 40."
        )
    try:
        return parse_address(f"0x{digits}")
    except ValueMistakeError:
        if digits.strip("0"):
            raise QuestionError(
                "This account's capital letters do not fit its digits (the checksum of EIP-55):"
                " something is mistyped. If you are sure, write it in small letters."
            ) from None
        raise QuestionError("The zero address is no account.") from None
