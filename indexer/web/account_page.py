"""One account: its verdict, root history, stored sets and their sessions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from indexer.core.account_text import author, unix_text, until_text
from indexer.core.remedies import explain_warning, next_step
from indexer.store.account_page import COUNTED, MAX_SESSIONS, AccountPage, Listed, Place
from indexer.web.markup import (
    Column,
    account_link,
    badge,
    counted,
    document,
    hash_code,
    moment,
    number,
    pairs,
    search_form,
    severity_class,
    table,
    text,
    whole_code,
)

_VERDICT_CLASS = {"in_sync": "good", "pending": "warn", "unknown": "warn", "drifted": "bad"}
_SET_STATE = {
    "on_chain": ("on chain", "good"),
    "expected": ("expected", "warn"),
    "was_on_chain": ("was on chain", "quiet"),
    "stored": ("stored", "quiet"),
}
_OPEN_STATES = {"on_chain", "expected"}
_SESSION_STATE_CLASS = {"active": "good", "not_yet_valid": "warn"}

_TOO_SLOW = "<p class=warn>Not read: the database took too long. Ask again, or in SQL.</p>"

Row = Mapping[str, Any]


def render_problem(title: str, sentence: str, *, search: str = "") -> str:
    """A page that only says what is wrong with the question, with the form to ask again."""
    main = (
        f"<div class='panel alarm'><h1>{escape(title)}</h1>"
        f"<p role=alert>{escape(sentence)}</p></div><p><a href=/>All chains</a></p>"
    )
    return document(f"Sessionwatch: {title}", main, search or search_form())


def render_account(page: AccountPage, chain: str | None) -> str:
    """Render what is known of an account; `chain` is the one that was asked for, None: all."""
    names = {row["chain_id"]: str(row["chain"]) for row in page.chains}
    search = search_form(names.values(), account=page.account, chain=chain)
    where = f" on {chain}" if chain else ""
    if not page.is_known:
        return render_problem(
            "Unknown account",
            f"Nothing is known of account {page.account}{where}: it is not watched, has no root and"
            " no stored set. `sessionwatch sessions import` makes it watched.",
            search=search,
        )
    parts = [
        "<p><a href=/>All chains</a></p>",
        f"<h1>Account{escape(where)}</h1><p>{whole_code(page.account)}</p>",
        *(_watched(row, names) for row in page.watched),
    ]
    if not page.places:
        parts.append("<p>It is watched: it has no root, and nothing is stored for it.</p>")
    parts += [_place(place, names, page.account) for place in page.places]
    if page.has_more_places:
        parts.append(
            "<p>It stands in more managers than are shown:"
            f" <code>sessionwatch explain {page.account}</code> names them all.</p>"
        )
    return document(f"Sessionwatch: {page.account[:10]}…", "".join(parts), search)


def _watched(row: Row, names: Mapping[int, str]) -> str:
    taint = (
        f" {badge('tainted', 'bad')} Its root can change without a log." if row["tainted"] else ""
    )
    created = (
        f"created in block {number(row['created_block'])}"
        if row["created_block"] is not None
        else "of an unknown block"
    )
    modules = ", ".join(f"<code>{text(module)}</code>" for module in row["modules"][:20])
    return (
        f"<p class=quiet>{text(names[row['chain_id']])}: {created}, known by {text(row['source'])};"
        f" modules {modules or 'none known'}.{taint}</p>"
    )


def _place(place: Place, names: Mapping[int, str], account: str) -> str:
    chain = names.get(place.chain_id)
    verdict = place.verdict
    kind = "" if verdict is None else _panel_kind(verdict)
    return (
        f"<section class='panel {kind}'>"
        f"<h2>{escape(chain or 'a chain not followed yet')}"
        f" <span class=quiet>chain {place.chain_id}</span></h2>"
        + _verdict(place, chain, account)
        + _roots(place.roots, place.chain_id)
        + _sets(place)
        + _uses(place.uses)
        + _mints(place.mints)
        + "</section>"
    )


def _panel_kind(verdict: Row) -> str:
    if verdict["verdict"] == "drifted":
        return "alarm" if verdict["severity"] == "critical" else "caution"
    return "caution" if verdict["verdict"] in {"pending", "unknown"} else "calm"


def _verdict(place: Place, chain: str | None, account: str) -> str:
    verdict = place.verdict
    manager = ("Manager", whole_code(place.manager))
    if verdict is None:
        return pairs(
            "told",
            [manager, ("Verdict", "none yet: no daemon has decided on this account")],
        )
    kind = _VERDICT_CLASS.get(verdict["verdict"], "quiet")
    if verdict["verdict"] == "drifted":
        kind = severity_class(verdict["severity"])
    cause = f" <strong>{text(verdict['cause'])}</strong>" if verdict["cause"] else ""
    block = "" if verdict["since_block"] is None else f"block {number(verdict['since_block'])}, "
    warnings = "<br>".join(
        f"<strong>{text(one)}</strong>: {escape(explain_warning(one))}"
        for one in verdict["warnings"]
    )
    told = [
        manager,
        (
            "Verdict",
            (
                f"{badge(verdict['verdict'], kind)}{cause}"
                f" <span class=quiet>{text(verdict['severity'])},"
                f" {'final' if verdict['is_final'] else 'not final'}</span>"
            ),
        ),
        ("Since", f"{block}{moment(verdict['since_time'])}"),
        ("Why", text(verdict["explanation"])),
        ("Warnings", warnings),
        ("What to do", escape(next_step(verdict["verdict"], verdict["cause"]))),
        ("Root on chain", _root(verdict["on_chain_root"], verdict["on_chain_set_id"], place)),
        ("Expected root", _root(verdict["expected_root"], verdict["expected_set_id"], place)),
    ]
    if verdict["verdict"] == "drifted":
        of_chain = f" --chain {escape(chain)}" if chain else ""
        told.append(
            (
                "In detail",
                (
                    f"<code class=whole>sessionwatch explain {account}{of_chain}</code> says how"
                    " each set differs from the tree, and which sessions can be used that should"
                    " not."
                ),
            )
        )
    return pairs("told", [(term, value) for term, value in told if value])


def _root(root: str | None, set_id: int | None, place: Place) -> str:
    if root is None:
        return ""
    if not int(root, 16):
        return "zero: no session works"
    return whole_code(root) + (f", {_set_link(set_id, place.chain_id)}" if set_id else "")


def _set_link(set_id: int, chain_id: int) -> str:
    return f"<a href='#set-{chain_id}-{set_id}'>set {set_id}</a>"


def _roots(roots: Listed | None, chain_id: int) -> str:
    if roots is None:
        return f"<h3>Roots</h3>{_TOO_SLOW}"
    if not roots.rows:
        return "<h3>Roots</h3><p>The manager never held a root for it, as far as it was read.</p>"
    rows = [
        (
            ("" if row["change_block_exact"] else "at the latest ") + number(row["block_number"]),
            moment(row["block_time"]),
            hash_code(row["root"]) if int(row["root"], 16) else "zero",
            _set_link(row["set_id"], chain_id)
            if row["set_id"] is not None
            else "<span class=quiet>none</span>",
            _author(row),
            text(row["evidence"]),
            "yes" if row["is_final"] else "not yet",
        )
        for row in roots.rows
    ]
    columns = [
        Column("Block"),
        Column("Time", "tight"),
        Column("Root"),
        Column("Stored set", "tight"),
        Column("Set by"),
        Column("Evidence"),
        Column("Final", "tight"),
    ]
    caption = f"Changes: {counted(len(rows), roots.count, COUNTED)}"
    return "<h3>Roots</h3>" + table(caption, columns, rows)


def _author(row: Row) -> str:
    who, named = author(row)
    return "<br>".join([escape(who), *(f"{word} {hash_code(value)}" for word, value in named)])


def _sets(place: Place) -> str:
    if place.sets is None:
        return f"<h3>Stored sets</h3>{_TOO_SLOW}"
    if not place.sets.rows:
        return "<h3>Stored sets</h3><p>No session set is stored.</p>"
    shown = counted(len(place.sets.rows), place.sets.count, COUNTED)
    return f"<h3>Stored sets: {shown}</h3>" + "".join(
        _set(row, place, is_newest=number == 0) for number, row in enumerate(place.sets.rows)
    )


def _set(row: Row, place: Place, *, is_newest: bool) -> str:
    state, kind = _SET_STATE.get(row["state"], (str(row["state"]), "quiet"))
    many = row["session_count"]
    return (
        f"<details id=set-{place.chain_id}-{row['set_id']}"
        f"{' open' if is_newest or row['state'] in _OPEN_STATES else ''}>"
        f"<summary><strong>Set {row['set_id']}</strong> {badge(state, kind)}"
        f" {many} session{'' if many == 1 else 's'},"
        f" <span class=quiet>stored {moment(row['stored_at'])}</span></summary>"
        f"<p class=quiet>Root {hash_code(row['root'])}, leaves"
        f" <code>{text(row['matched_form'])}</code>, from {text(row['source'])}."
        f"{_seen(row['first_on_chain_block'], row['last_on_chain_block'])}</p>"
        f"{_sessions(place.sessions.get(row['set_id'], ()), many)}</details>"
    )


def _seen(first_block: int | None, last_block: int | None) -> str:
    if first_block is None:
        return ""
    last = "" if first_block == last_block else f", last in block {number(last_block)}"
    return f" Seen on chain in block {number(first_block)}{last}."


def _sessions(sessions: Any, count: int) -> str:
    rows = [
        (
            number(row["leaf_index"]),
            hash_code(row["leaf"]),
            hash_code(row["session_key"]),
            hash_code(row["session_validation_module"]),
            _valid(row),
            _session_state(row["state"]),
            text(row["client_status"] or "nothing"),
            number(row["use_count"]),
            _last_used(row),
        )
        for row in sessions
    ]
    columns = [
        Column("Index", "number"),
        Column("Leaf"),
        Column("Session key"),
        Column("Module"),
        Column("Valid"),
        Column("State", "tight"),
        Column("Client says"),
        Column("Uses", "number"),
        Column("Last used"),
    ]
    more = f", the first {MAX_SESSIONS}" if count > len(rows) else ""
    return table(f"Sessions: {count}{more}", columns, rows)


def _session_state(state: str) -> str:
    return f"<span class={_SESSION_STATE_CLASS.get(state, 'quiet')}>{text(state)}</span>"


def _valid(row: Row) -> str:
    after = f"from {unix_text(row['valid_after'])} " if row["valid_after"] else ""
    until = until_text(row["valid_until"])
    return escape(after + (f"until {until}" if row["valid_until"] else until))


def _last_used(row: Row) -> str:
    if row["last_used_block"] is None:
        return "<span class=quiet>never</span>"
    when = f"<br>{moment(row['last_used_time'])}" if row["last_used_time"] else ""
    return f"block {number(row['last_used_block'])}{when}"


def _uses(uses: Listed | None) -> str:
    if uses is None:
        return f"<h3>Uses</h3>{_TOO_SLOW}"
    if not uses.rows:
        return "<h3>Uses</h3><p>No session of it has signed a user operation.</p>"
    rows = [
        (
            number(row["block_number"]),
            moment(row["block_time"]) if row["block_time"] else "unknown",
            hash_code(row["session_key"]),
            hash_code(row["leaf"])
            + ("" if row["known"] else f" {badge('nobody stored it', 'bad')}"),
            hash_code(row["user_op_hash"]),
            {True: "yes", False: "reverted"}.get(row["success"], "unknown"),
        )
        for row in uses.rows
    ]
    columns = [
        Column("Block"),
        Column("Time", "tight"),
        Column("Session key"),
        Column("Leaf"),
        Column("User operation"),
        Column("Succeeded", "tight"),
    ]
    caption = f"User operations that a session signed: {counted(len(rows), uses.count, COUNTED)}"
    return "<h3>Uses</h3>" + table(caption, columns, rows)


def _mints(mints: Listed | None) -> str:
    if mints is None or not mints.rows:
        return ""
    rows = [
        (
            number(row["block_number"]),
            hash_code(row["session_key"]),
            hash_code(row["contract"]),
            text(row["token_id"]),
            text(row["amount"]),
            account_link(row["to_address"], None),
            _fits(row["fits"]),
        )
        for row in mints.rows
    ]
    columns = [
        Column("Block"),
        Column("Session key"),
        Column("Contract"),
        Column("Token"),
        Column("Amount"),
        Column("To"),
        Column("Fits the session", "tight"),
    ]
    caption = f"Tokens that a session moved: {counted(len(rows), mints.count, COUNTED)}"
    return "<h3>Tokens moved</h3>" + table(caption, columns, rows)


def _fits(fits: bool | None) -> str:
    if fits is None:
        return "not known"
    return "yes" if fits else "<span class=bad>no</span>"
