"""`sessionwatch sessions prove`: what a client sends to use one session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from indexer.cli_choice import Selection, choose, selection_options
from indexer.cli_common import (
    config_option,
    hex_text,
    json_option,
    print_json,
    print_line,
    time_text,
)
from indexer.cli_plan_text import standing_text
from indexer.cli_sessions import print_warnings
from indexer.errors import UsageError

if TYPE_CHECKING:
    from indexer.cli_choice import Chosen
    from indexer.store.session_choice import Indexed

_MAX_SIGNATURE_BYTES = 24_576
_PRIVATE_KEY_BYTES = 32


def _read_signature(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> bytes | None:
    from indexer.core.session_fields import FieldError, read_hex  # noqa: PLC0415

    if value is None:
        return None
    try:
        signature = read_hex(value)
    except FieldError as error:
        raise click.BadParameter(f"{error}", context, parameter) from None
    if len(signature) == _PRIVATE_KEY_BYTES:
        raise click.BadParameter("32 bytes are a key, not a signature", context, parameter)
    if not 0 < len(signature) <= _MAX_SIGNATURE_BYTES:
        raise click.BadParameter(
            f"has {len(signature)} bytes, expected 1 to {_MAX_SIGNATURE_BYTES}", context, parameter
        )
    return signature


@click.command("prove", short_help="Give a session's proof, ready for a user operation.")
@config_option
@json_option
@selection_options
@click.option(
    "--signature",
    callback=_read_signature,
    metavar="0x…",
    help="The session key's, of the user operation's hash.",
)
@click.pass_context
def prove(
    context: click.Context, /, signature: bytes | None, as_json: bool, **selection: Any
) -> None:
    """Give the proof of one session of a stored set or of FILE ("-": standard input).

    Prints the parts that the manager decodes, and both encodings: moduleSignature, and the whole
    signature of the user operation. Without --signature, 65 zero bytes stand in its place, and
    where is told. Of a leaf that repeats it is the last one's proof, as the SDK gives it. FILE
    needs no database; of a stored set it warns if the chain, as indexed, has another root.

    \b
    EXAMPLE
      sessionwatch sessions prove --set 7 --session-key 0x5F… --signature 0x8a…
      sessionwatch sessions prove sessions.json --chain mumbai --account 0x08… --index 0 --json
    """  # noqa: D301
    _, chosen = choose(context, Selection(**selection), ask_node=False)
    if chosen.proved.index is None:
        raise UsageError(
            f"{hex_text(chosen.proved.leaf)} is an inner node of the tree over {chosen.label}, "
            "not a session, though the manager would take it for one",
            remedy="choose a session by --index",
        )
    if chosen.indexed is not None:
        print_warnings(_root_doubts(chosen, chosen.indexed))
    shown = _shown(chosen, signature)
    if as_json:
        print_json(shown)
    else:
        _print_proof(chosen, shown, signed=signature is not None)


def _root_doubts(chosen: Chosen, indexed: Indexed) -> list[str]:
    if indexed.root is None:
        return ["no root of this account is indexed; `sessions validate` asks the node"]
    if indexed.root == chosen.proved.root:
        return []
    return [f"the account has {standing_text(indexed)}, not that of this set"]


def _shown(chosen: Chosen, signature: bytes | None) -> dict[str, Any]:
    from indexer.core import session_proof  # noqa: PLC0415

    proved = chosen.proved
    session = proved.session
    put = bytes(session_proof.SIGNATURE_BYTES) if signature is None else signature
    encoded = session_proof.module_signature(proved, put)
    at = session_proof.signature_offset(proved)
    return {
        **chosen.as_json(),
        "valid_until": session.valid_until,
        "valid_after": session.valid_after,
        "session_validation_module": session.session_validation_module,
        "session_key": chosen.session_key(),
        "session_key_data": session.session_key_data,
        "proof": proved.proof,
        "session_key_signature": signature,
        "session_key_signature_at": {
            "module_signature": at,
            "signature": at + session_proof.OPERATION_HEAD_BYTES,
            "bytes": len(put),
        },
        "module_signature": encoded,
        "signature": session_proof.operation_signature(encoded, chosen.manager),
    }


def _print_proof(chosen: Chosen, shown: dict[str, Any], *, signed: bool) -> None:
    session, at = chosen.proved.session, shown["session_key_signature_at"]
    print_line("set", f"{chosen.label} ({len(chosen.sessions)} sessions, counted from 0)")
    print_line("index", shown["index"])
    for name in ("chain_id", "account", "manager", "root", "leaf"):
        print_line(name, shown[name])
    for name, seconds in (
        ("validUntil", session.valid_until),
        ("validAfter", session.valid_after),
    ):
        print_line(name, f"{seconds} ({time_text(seconds) if seconds else 'unbounded'})")
    print_line("module", session.session_validation_module)
    print_line("sessionKey", shown["session_key"] or "in a layout that is not known")
    print_line("sessionKeyData", session.session_key_data)
    print_line("proof", "none: the leaf is the root" if not chosen.proved.proof else "")
    for index, element in enumerate(chosen.proved.proof):
        click.echo(f"{index:>14}  {hex_text(element)}")
    click.echo()
    click.secho("moduleSignature", bold=True)
    click.echo(hex_text(shown["module_signature"]))
    click.secho("signature of the user operation", bold=True)
    click.echo(hex_text(shown["signature"]))
    if not signed:
        click.echo()
        click.echo(
            f"Both hold {at['bytes']} zero bytes where the session key's signature of the "
            f"operation's hash belongs:\nfrom byte {at['module_signature']} of moduleSignature, "
            f"byte {at['signature']} of signature. --signature puts one of any length there."
        )
