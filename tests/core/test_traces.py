"""Whom a trace names for a root: account, module, operation, and whether a session key signed."""

from __future__ import annotations

from indexer.core.traces import RootWrite, TracedCall, root_writes
from indexer.core.types import Address, Hash32

BUNDLER, ENTRY_POINT, ACCOUNT, MANAGER, ROUTER, MODULE = (
    Address(bytes([n]) * 20) for n in range(1, 7)
)
OP, FAKE, ROOT = (Hash32(bytes([n]) * 32) for n in (0x0A, 0x0F, 0x77))
SET_ROOT = bytes.fromhex("7cb64759") + ROOT
INNER = bytes.fromhex("1d732756") + bytes(32 * 9) + OP
BY_MODULE = bytes.fromhex("fff35b72")
SESSION_KEY = bytes.fromhex("b13152ee")


def validation(operation: Hash32) -> bytes:
    return bytes.fromhex("3a871cdd") + bytes(32) + operation


def call(caller: Address, to: Address, data: bytes, parent: int | None, kind: str = "CALL"):
    return TracedCall(kind, caller, to, data, parent)


def writes(*calls: TracedCall) -> list[RootWrite]:
    top = call(BUNDLER, ENTRY_POINT, bytes.fromhex("1fad948c"), None)
    return list(root_writes([top, *calls], {MANAGER}, {ENTRY_POINT}, {ROUTER}))


EXECUTED = (
    call(ENTRY_POINT, ENTRY_POINT, INNER, 0),
    call(ENTRY_POINT, ACCOUNT, b"exec", 1),
    call(ACCOUNT, MANAGER, SET_ROOT, 2),
)


def moved(calls, by):
    """The same calls further down a list: their parents move with them, but for the top."""
    return [
        TracedCall(c.kind, c.caller, c.to, c.input, c.parent + by if c.parent else c.parent)
        for c in calls
    ]


def test_the_operation_that_executes_is_named():
    """Its hash stands in the head of innerHandleOp."""
    assert writes(*EXECUTED) == [RootWrite(0, MANAGER, ACCOUNT, ROOT, None, OP, by_session=False)]


def test_a_module_that_drives_the_account_is_named():
    """Also without any operation around it."""
    drive = call(MODULE, ACCOUNT, bytes.fromhex("468721a7"), 0)
    (found,) = writes(drive, call(ACCOUNT, MANAGER, SET_ROOT, 1))
    assert (found.module, found.user_op_hash) == (MODULE, None)


def test_a_validation_names_its_operation():
    """A module may act before anything is executed."""
    (found,) = writes(
        call(ENTRY_POINT, ACCOUNT, validation(OP), 0), call(ACCOUNT, MANAGER, SET_ROOT, 1)
    )
    assert found.user_op_hash == OP


def test_an_operation_cannot_name_another():
    """Its own call may look like the validation of another one, and is made by the EntryPoint."""
    (found,) = writes(
        call(ENTRY_POINT, ENTRY_POINT, INNER, 0),
        call(ENTRY_POINT, ACCOUNT, validation(FAKE), 1),
        call(ACCOUNT, MANAGER, SET_ROOT, 2),
    )
    assert found.user_op_hash == OP


def test_a_manager_asked_at_validation_tells_of_a_session_key():
    """By the account itself, or by a router that is known as one; nobody else's asking counts."""
    validated = call(ENTRY_POINT, ACCOUNT, validation(OP), 0)
    asked = {
        "by the account": [call(ACCOUNT, MANAGER, BY_MODULE, 1)],
        "by a router": [
            call(ACCOUNT, ROUTER, BY_MODULE, 1),
            call(ROUTER, MANAGER, SESSION_KEY, 2, "STATICCALL"),
        ],
        "by a strange module": [
            call(ACCOUNT, MODULE, BY_MODULE, 1),
            call(MODULE, MANAGER, SESSION_KEY, 2, "STATICCALL"),
        ],
        "by a strange module as if it were the account": [
            call(ACCOUNT, MODULE, BY_MODULE, 1),
            call(MODULE, MANAGER, BY_MODULE, 2),
        ],
    }
    found = {}
    for who, calls in asked.items():
        (one,) = writes(validated, *calls, *moved(EXECUTED, 1 + len(calls)))
        found[who] = one.by_session
    assert found == {
        "by the account": True,
        "by a router": True,
        "by a strange module": False,
        "by a strange module as if it were the account": False,
    }


def test_what_sets_no_root_is_none():
    """A delegatecall writes the caller's own storage, and cut calldata reverts."""
    assert writes(call(ACCOUNT, MANAGER, SET_ROOT, 0, "DELEGATECALL")) == []
    assert writes(call(ACCOUNT, MANAGER, SET_ROOT[:-1], 0)) == []
    assert writes(call(ACCOUNT, MODULE, SET_ROOT, 0)) == []
