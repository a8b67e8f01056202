"""Documents and small tools that the tests of the import share."""

import json
import traceback
from pathlib import Path

import pytest

from indexer.core.merkle import session_leaf
from indexer.core.session_import import parse_document
from indexer.errors import UsageError

VECTORS = Path(__file__).parents[1] / "vectors"
PARTICLE = json.loads((VECTORS / "particle_rpc_examples.json").read_text())

MANAGER = "0x000002FbFfedd9B33F4E7156F2DE8D48945E7489"
ACCOUNT = "0xcbeba65449cBeF0DcfD4a63CDf4090fA1D4A9F63"
OTHER = "0x7AB8612E1e75F696AF05B03F94C569E1081DB1c9"
MODULE = "0x8E09744b738e9Fec4A4df7Ab5621f1857F6Fa175"
KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
PLAIN = {
    "validUntil": 0,
    "validAfter": 0,
    "sessionValidationModule": MODULE,
    "sessionKeyData": "0xabcd",
}


def raw(text):
    return bytes.fromhex(text.removeprefix("0x"))


def parse(document, name="sessions.json"):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_document(data, name=name)


def only(result):
    assert len(result.sets) == 1
    return result.sets[0]


def leaves(imported):
    return [session_leaf(session) for session in imported.sessions]


def refused(document, name="sessions.json"):
    """Return the message of the refusal; every one names the file, a remedy, and no key."""
    with pytest.raises(UsageError) as caught:
        parse(document, name)
    message = str(caught.value)
    assert message.startswith(name)
    assert caught.value.remedy
    assert message.isprintable()
    assert KEY not in "".join(traceback.format_exception(caught.value)).lower()
    return message


def changed(**fields):
    return PLAIN | fields


def without(*names):
    return {name: value for name, value in PLAIN.items() if name not in names}
