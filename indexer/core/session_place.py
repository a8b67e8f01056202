"""What a document says of its sets beside their sessions: chain, manager, account, root, form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from indexer.core.session_fields import (
    FieldError,
    found,
    read_address,
    read_integer,
    read_sized_hex,
)
from indexer.core.session_reader import Problems
from indexer.core.session_sets import MATCHED_FORMS, MatchedForm
from indexer.core.types import Address, Hash32

_CHAIN_ID: Final = ("chain_id", "chainId")
_MANAGER: Final = ("manager", "sessionKeyManager", "session_key_manager")
_ACCOUNT: Final = ("account", "smartAccount", "smartAccountAddress", "smart_account")
_ROOT: Final = ("root", "merkleRoot", "merkle_root")
_FORM: Final = ("matched_form",)


@dataclass(frozen=True, slots=True)
class Place:
    """What the surroundings of a node say about the sets in it."""

    path: str = "$"
    chain_id: int | None = None
    manager: Address | None = None
    account: Address | None = None
    claimed_root: Hash32 | None = None
    source: str = ""
    matched_form: MatchedForm | None = None


def described(problems: Problems, node: Mapping[str, Any], outer: Place) -> Place:
    """Return the place with what this object itself says; two different answers are a mistake."""
    check = problems.check_alias
    chain_id = check(node, outer.path, _CHAIN_ID, read_chain_id)
    manager = check(node, outer.path, _MANAGER, read_address)
    account = check(node, outer.path, _ACCOUNT, read_address)
    # The SDK writes "" before the first session.
    rootless = {key: value for key, value in node.items() if value != ""}
    root = check(rootless, outer.path, _ROOT, _read_root)
    form = check(node, outer.path, _FORM, _read_form)
    for what, inner, before in (
        ("chain id", chain_id, outer.chain_id),
        ("manager", manager, outer.manager),
        ("account", account, outer.account),
    ):
        if inner is not None and before is not None and inner != before:
            problems.add(outer.path, f"names another {what} than what surrounds it")
    return replace(
        outer,
        chain_id=chain_id or outer.chain_id,
        manager=manager or outer.manager,
        account=account or outer.account,
        claimed_root=root or outer.claimed_root,
        matched_form=form or outer.matched_form,
    )


def read_chain_id(value: object) -> int:
    """Return a chain id; it is never zero and fits a bigint."""
    chain_id = read_integer(value, 63)
    if chain_id == 0:
        raise FieldError("is 0, no chain has that id")
    return chain_id


def _read_root(value: object) -> Hash32:
    return Hash32(read_sized_hex(value, 32))


def _read_form(value: object) -> MatchedForm:
    for form in MATCHED_FORMS:
        if value == form:
            return form
    raise FieldError(f"is {found(value)}, expected one of {', '.join(MATCHED_FORMS)}")
