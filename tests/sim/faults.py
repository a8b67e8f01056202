"""What a node can do wrong, as values: give one to `SimNode.fail`.

The first group spoils a single call (of a batch, too), the second a whole HTTP request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Refusal(Exception):  # noqa: N818
    """A JSON-RPC error on its way out of the simulated node."""

    def __init__(self, message: str, code: int = -32000) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Refuse:
    """A JSON-RPC error."""

    message: str
    code: int = -32000


@dataclass(frozen=True, slots=True)
class Answer:
    """This result, whatever it is, instead of the right one."""

    result: Any


@dataclass(frozen=True, slots=True)
class Element:
    """This answer object as it stands; {"id"} is filled in if it is missing."""

    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drop:
    """No answer to this call of the batch."""


@dataclass(frozen=True, slots=True)
class Twice:
    """Two answers to this call of the batch."""


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP status with this body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Body:
    """HTTP 200 and these bytes."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Oversize:
    """HTTP 200 and a body that goes on for so many bytes, announced nowhere."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """The first half of the right answer, then the connection is closed."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is closed without an answer."""


@dataclass(frozen=True, slots=True)
class Hold:
    """No answer until `SimNode.release`."""


CallFault = Refuse | Answer | Element | Drop | Twice
RequestFault = Status | Body | Oversize | Truncate | Reset | Hold
Fault = CallFault | RequestFault
