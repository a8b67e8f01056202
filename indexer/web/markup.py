"""Pieces of HTML: every value is escaped here, once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from indexer.web.question import link
from indexer.web.style import STYLE

_SEVERITY_CLASS = {"critical": "bad", "warning": "warn"}
# An account in any way people paste it; a private key is not even sent.
_ACCOUNT_PATTERN = r"\s*0[xX]\s*([0-9a-fA-F]\s*){40}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head, and the class of its cells: "", "number" or "tight"."""

    name: str
    kind: str = ""


def document(title: str, main: str, search: str, *, refresh: str = "") -> str:
    """Put a page together; `refresh` is a meta element, or empty. All but the title is markup."""
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"{refresh}<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><header class=top><a class=brand href=/>Sessionwatch</a>{search}</header>"
        f"<main>{main}</main></body></html>\n"
    )


def search_form(chains: Iterable[str] = (), *, account: str = "", chain: str | None = None) -> str:
    """The form that asks for one account; a choice of chains only where there are several."""
    names = list(chains)
    choice = ""
    if len(names) > 1:
        options = "".join(
            f"<option{' selected' if name == chain else ''}>{escape(name)}</option>"
            for name in names
        )
        choice = (
            "<select name=chain aria-label=Chain><option value=''>every chain</option>"
            f"{options}</select>"
        )
    return (
        "<form action=/ method=get role=search>"
        "<label for=account>One account: its roots and sessions</label>"
        f"<input id=account name=account required value='{escape(account)}' placeholder='0x…'"
        f" pattern='{_ACCOUNT_PATTERN}' title='0x and 40 hex digits'"
        " autocomplete=off autocapitalize=off spellcheck=false>"
        f"{choice}<button>Look up</button></form>"
    )


def anchor(address: str, inner: str, *, current: bool = False) -> str:
    """A link; `inner` is markup."""
    here = " aria-current=true" if current else ""
    return f"<a href='{escape(address)}'{here}>{inner}</a>"


def account_link(account: object, chain: str | None) -> str:
    """The account in full, leading to what is known of it."""
    return anchor(link(account=str(account), chain=chain), f"<code>{text(account)}</code>")


def badge(words: str, kind: str) -> str:
    """A word in a frame; `kind` is bad, warn, good or quiet."""
    return f"<span class='badge {kind}'>{escape(words)}</span>"


def severity_class(severity: str) -> str:
    """The class that shows a severity."""
    return _SEVERITY_CLASS.get(severity, "quiet")


def table(
    caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]], kind: str = "cards"
) -> str:
    """A table of cells that are markup; `kind` cards: each row is a card on a narrow screen.

    The first cell of a row is its head. `caption` and `columns` are our own words.
    """
    head = "".join(f"<th scope=col{_class(column)}>{column.name}</th>" for column in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<{'td' if number else 'th scope=row'}{_class(column)} data-label='{column.name}'>"
            f"<span>{cell}</span></{'td' if number else 'th'}>"
            for number, (column, cell) in enumerate(zip(columns, row, strict=True))
        )
        + "</tr>"
        for row in rows
    )
    return (
        # focusable, so that a wide table can be scrolled with the keyboard
        f"<div class=scroll role=region aria-label='{caption}' tabindex=0>"
        f"<table class={kind}><caption>{caption}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _class(column: Column) -> str:
    return f" class={column.kind}" if column.kind else ""


def pairs(kind: str, values: Iterable[tuple[str, str]]) -> str:
    """A list of terms (our own words) and what they are, as markup."""
    body = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in values)
    return f"<dl class={kind}>{body}</dl>"


def text(value: object) -> str:
    """Any value, escaped."""
    return "unknown" if value is None else escape(str(value))


def number(value: float | None) -> str:
    """A number without separators: a block is copied into a query as it stands."""
    if value is None:
        return "unknown"
    return f"{value:.1f}" if value % 1 else f"{value:.0f}"


def hash_code(value: object) -> str:
    """0x text of which the ends are seen and all is selected."""
    if value is None:
        return "<span class=quiet>none</span>"
    shown = str(value)
    return f"<code class=hash><span>{escape(shown[:-4])}</span>{escape(shown[-4:])}</code>"


def whole_code(value: object) -> str:
    """0x text in full."""
    return (
        "<span class=quiet>none</span>"
        if value is None
        else f"<code class=whole>{text(value)}</code>"
    )


def moment(value: object) -> str:
    """A time, or its ISO 8601 text, in UTC to the second; anything else as it stands."""
    if not isinstance(value, datetime):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError:
            return text(value)
    in_utc = value.astimezone(UTC) if value.tzinfo else value
    return f"<time datetime='{in_utc.isoformat()}'>{in_utc:%Y-%m-%d} {in_utc:%H:%M:%S} UTC</time>"


def counted(shown: int, count: int, most: int) -> str:
    """Say how many of how many are shown, newest first; beyond `most` nobody counted."""
    if count > most:
        return f"newest {shown} of more than {most}"
    return f"newest {shown} of {count}" if count > shown else f"{count}, newest first"


def duration(seconds: float) -> str:
    """Whole seconds in days, hours, minutes and seconds."""
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "0 s"
