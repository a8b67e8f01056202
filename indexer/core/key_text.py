"""Keep private keys out of texts that repeat what somebody typed or wrote into a file.

For quoted input only: a hash that a message is about looks just like a key.
"""

from __future__ import annotations

import re
from typing import Final

_MIN_HEX_DIGITS: Final = 60
"""A private key has 64, an address 40; one that lost a few digits in pasting still is a secret."""

_DIGITS = rf"[0-9a-fA-F]{{{_MIN_HEX_DIGITS},}}"
_KEY = re.compile(
    rf"""(?P<quote>["'])(?:0[xX])?(?P<quoted>{_DIGITS})(?P=quote)|(?:0[xX])?(?P<bare>{_DIGITS})"""
)


def hide_keys(text: str) -> str:
    """Return the text with all that looks like a private key as "(hidden: 64 hex digits)"."""
    return _KEY.sub(lambda m: f"(hidden: {len(m['quoted'] or m['bare'])} hex digits)", text)
