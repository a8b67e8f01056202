"""One account: what is known of it, its roots, sets, sessions, uses, and how verdicts changed."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.grafana.source.layout import Dashboard, Section
from deploy.grafana.source.parts import Json, Panel, note, rows, table
from deploy.grafana.source.queries import (
    CHAIN_BY_DATABASE,
    NO_IS_BAD,
    OF_CHAINS,
    SEVERITIES,
    YES_IS_BAD,
    text_box,
    unix_time,
)

_NO_ACCOUNT = "nothing is known of this account"
_HASH = 170
_WIDTHS = {"chain": 90, "block_time": 170}


def _of_account(
    view: str,
    columns: str,
    order: str,
    *,
    column: str = "account",
    limit: int = 100,
) -> str:
    """SQL of an account's rows in a view of `watch`, named x; typed in any case, with spaces."""
    return f"""
        SELECT {columns}
          FROM watch.{view} AS x JOIN watch.progress AS p USING (chain_id)
         WHERE x.{column} = lower(btrim(${{account:sqlstring}}))
           AND {OF_CHAINS}
         ORDER BY {order} LIMIT {limit}"""


def _list(
    title: str,
    description: str,
    sql: str,
    nothing: str,
    *,
    width: int = 24,
    height: int = 7,
    units: Mapping[str, str] | None = None,
    widths: Mapping[str, int] | None = None,
    colors: Mapping[str, Mapping[str, tuple[str, str]]] | None = None,
    links: Mapping[str, Json] | None = None,
) -> Panel:
    return table(
        title,
        description,
        rows(sql),
        nothing=nothing,
        width=width,
        height=height,
        units=units,
        widths={one: _WIDTHS[one] for one in _WIDTHS if f".{one}," in sql} | dict(widths or {}),
        colors=colors,
        links=links,
    )


VERDICT = Section(
    "What is known",
    [
        note(
            "How to read this",
            "Where the account comes from.",
            """
            Enter an account above, or come here by a click on one in the other dashboards. The
            same, and what to do about it: `sessionwatch explain ACCOUNT`. Nothing shown here is
            secret: `session_key_data` is in no view.
            """,
        ),
        _list(
            "Verdict",
            "What is known of the account now, for each manager.",
            _of_account(
                "verdict",
                "p.chain, x.manager, x.verdict, x.cause, x.severity, x.is_final,"
                " array_to_string(x.warnings, ', ') AS warnings, x.since_time, x.since_block,"
                " x.on_chain_set_id, x.expected_set_id, x.observed_block, x.decided_block",
                "p.chain, x.manager",
            ),
            _NO_ACCOUNT,
            height=5,
            widths={"manager": 370, "since_time": 170},
            colors={"severity": SEVERITIES, "is_final": NO_IS_BAD},
        ),
        _list(
            "Explanation",
            "The verdict in words, for each manager, with the two roots it is about.",
            _of_account("verdict", "x.explanation, x.on_chain_root, x.expected_root", "x.manager"),
            _NO_ACCOUNT,
            height=5,
            widths={"on_chain_root": _HASH, "expected_root": _HASH},
        ),
        _list(
            "Account",
            "Where it comes from and what it runs. Tainted: another implementation, or a manager "
            "as fallback handler, so that its root can change without a log.",
            _of_account(
                "account",
                "p.chain, x.account, x.factory, x.created_block, x.implementation,"
                " x.fallback_handler, x.tainted, array_to_string(x.modules, ', ') AS modules,"
                " x.observed_block, x.source",
                "p.chain",
            ),
            "this account is not watched",
            height=5,
            colors={"tainted": YES_IS_BAD},
        ),
    ],
)

ROOTS = Section(
    "Roots",
    [
        _list(
            "Root history",
            "Every change of the account's root, the newest first: from which stored set, and who "
            "made it. A root of zeros: all sessions off.",
            _of_account(
                "session_root",
                "x.block_time, p.chain, x.block_number, x.root, x.previous_root, x.set_id,"
                " x.matched_form, x.attribution, x.evidence, x.session_key, x.module,"
                " x.change_block_exact, x.is_final, x.transaction_hash, x.user_op_hash, x.bundler,"
                " x.manager",
                "x.block_number DESC, x.manager",
                limit=200,
            ),
            "this account never had a root",
            height=8,
            widths={"root": _HASH, "previous_root": _HASH, "set_id": 70, "is_final": 80},
            colors={"is_final": NO_IS_BAD},
        ),
        _list(
            "Roots inside a block",
            "Roots that stood only between two transactions or calls of one block.",
            _of_account(
                "session_root_transient",
                "x.block_time, p.chain, x.block_number, x.root, x.final_root, x.evidence,"
                " x.transaction_hash",
                "x.block_number DESC, x.log_index DESC, x.hint_index DESC",
            ),
            "none",
            width=12,
            widths={"root": _HASH, "final_root": _HASH},
        ),
        _list(
            "Contradicted roots",
            "Roots of which logs or inputs say something else than state. State was believed; ask "
            "another node.",
            _of_account(
                "root_disagreement",
                "x.block_time, p.chain, x.block_number, x.state_root, x.evidence, x.evidence_root,"
                " x.transaction_hash",
                "x.block_number DESC",
            ),
            "none",
            width=12,
            widths={"state_root": _HASH, "evidence_root": _HASH},
        ),
        _list(
            "Found by audits",
            "What audits found different from what was stored of this account.",
            _of_account(
                "audit_finding",
                "x.found_at, p.chain, x.block_number, x.reason, x.stored_root, x.found_root,"
                " x.explanation",
                "x.found_at DESC",
            ),
            "none",
            width=12,
            widths={"found_at": 170, "stored_root": _HASH, "found_root": _HASH},
        ),
        _list(
            "Not readable",
            "What may have happened to its root in blocks whose state no node has any more. A hint "
            "is no proof.",
            _of_account(
                "unobserved_hint",
                "p.chain, x.block_number, x.root, x.hint, x.transaction_hash",
                "x.block_number DESC, x.log_index DESC",
            ),
            "none",
            width=12,
            widths={"root": _HASH},
        ),
    ],
)

STORED = Section(
    "Sets and sessions",
    [
        _list(
            "Stored sets",
            "What clients stored for the account, the newest first, and whether the chain has it.",
            _of_account(
                "session_set",
                "x.set_id, p.chain, x.stored_at, x.state, x.session_count, x.matched_form,"
                " x.first_on_chain_block, x.last_on_chain_block, x.source, x.root, x.manager",
                "x.set_id DESC",
            ),
            "nothing is stored for this account",
            widths={"set_id": 70, "stored_at": 170, "root": _HASH},
        ),
        _list(
            "Sessions",
            "The sessions of these sets in the order of their leaves. Without valid_until: for "
            "ever, or until a year that no calendar has.",
            _of_account(
                "session",
                "x.set_id, p.chain, x.leaf_index, x.state, x.client_status, x.session_key,"
                " x.session_validation_module,"
                f" {unix_time('x.valid_after')} AS valid_after,"
                f" {unix_time('x.valid_until')} AS valid_until,"
                " x.use_count, x.last_used_time, x.leaf",
                "x.set_id DESC, x.leaf_index",
                limit=500,
            ),
            "nothing is stored for this account",
            height=9,
            widths={
                "set_id": 70,
                "leaf_index": 90,
                "use_count": 90,
                "valid_after": 170,
                "valid_until": 170,
                "last_used_time": 170,
                "leaf": _HASH,
            },
        ),
    ],
)

USES = Section(
    "Uses",
    [
        _list(
            "Uses of sessions",
            "User operations that session keys signed. Not known: no stored set holds the session.",
            _of_account(
                "session_use",
                "x.block_time, p.chain, x.block_number, x.known, x.set_id, x.success,"
                " x.session_key, x.called, x.root_state, x.leaf, x.user_op_hash,"
                " x.transaction_hash",
                "x.block_number DESC, x.log_index DESC, x.use_index",
            ),
            "no session of this account was used",
            widths={"set_id": 70, "leaf": _HASH},
            colors={"known": NO_IS_BAD},
        ),
        _list(
            "Tokens moved by sessions",
            "Fits: the session's own data allows contract, recipient and token; empty: it names "
            "none.",
            _of_account(
                "session_mint",
                "x.block_time, p.chain, x.block_number, x.fits, x.contract,"
                " x.token_id::text AS token_id, x.amount::text AS amount, x.from_address,"
                " x.to_address, x.session_key, x.user_op_hash",
                "x.block_number DESC, x.log_index DESC, x.batch_index",
            ),
            "sessions of this account moved no tokens",
            colors={"fits": NO_IS_BAD},
        ),
        _list(
            "User operations",
            "The account's newest user operations, failed ones too. Cost is in the chain's coin.",
            _of_account(
                "user_operation",
                "x.block_time, p.chain, x.block_number, x.success, x.nonce::text AS nonce,"
                " (x.actual_gas_cost / 1e18)::float8 AS cost, x.actual_gas_used::float8 AS gas,"
                " x.paymaster, x.validation_module, x.bundler, x.user_op_hash, x.transaction_hash",
                "x.block_number DESC, x.log_index DESC",
                column="sender",
            ),
            "no user operation of this account is stored",
            units={"gas": "locale"},
            colors={"success": NO_IS_BAD},
        ),
        _list(
            "Events",
            "The newest logs of and about the account.",
            _of_account(
                "account_event",
                "x.block_time, p.chain, x.block_number, x.log_index, x.event, x.args::text AS args,"
                " x.transaction_hash",
                "x.block_number DESC, x.log_index DESC",
            ),
            "no log of this account is stored",
            widths={"event": 220, "log_index": 90},
        ),
    ],
)

HISTORY = Section(
    "Before",
    [
        _list(
            "Drifts, also those that are over",
            "When the account drifted, when that ended, and why it was so.",
            _of_account(
                "drift_history",
                "x.since_time, x.closed_time, p.chain, x.cause, x.severity, x.explanation,"
                " x.opened_block, x.closed_block, x.by_time_only, x.on_chain_set_id,"
                " x.expected_set_id, x.manager",
                "x.opened_block DESC, x.verdict_id DESC",
            ),
            "this account never drifted",
            widths={"since_time": 170, "closed_time": 170, "cause": 190, "severity": 90},
            colors={"severity": SEVERITIES},
        ),
        _list(
            "Tokens",
            "ERC-1155 balances of the account. Not complete: transfers before the first indexed "
            "block are missing.",
            _of_account(
                "erc1155_balance",
                "p.chain, x.contract, x.token_id::text AS token_id, x.balance::text AS balance,"
                " x.complete",
                "p.chain, x.contract, x.token_id",
                column="owner",
                limit=500,
            ),
            "it holds no token that is indexed",
            width=12,
            colors={"complete": NO_IS_BAD},
        ),
        _list(
            "Operators that it approved",
            "ERC-1155 ApprovalForAll events of the account: who may move its tokens, or no longer.",
            _of_account(
                "erc1155_approval",
                "x.block_time, p.chain, x.contract, x.operator, x.approved, x.transaction_hash",
                "x.block_number DESC, x.log_index DESC",
            ),
            "it approved nobody",
            width=12,
        ),
    ],
)

DASHBOARD = Dashboard(
    uid="sessionwatch-account",
    title="Sessionwatch: one account",
    description="All that is known of one account: verdict, roots, sets, sessions, uses, history.",
    sections=[VERDICT, ROOTS, STORED, USES, HISTORY],
    variables=[
        CHAIN_BY_DATABASE,
        text_box("account", "Account", "The smart account's address, 0x and 40 hex digits."),
    ],
    since="now-7d",
    refresh="",
)
