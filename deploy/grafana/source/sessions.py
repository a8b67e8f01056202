"""Sessions: which expire soon, how they are used, what they move, and those that nobody stored."""

from __future__ import annotations

from deploy.grafana.source.layout import Dashboard, Section
from deploy.grafana.source.parts import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    GREEN,
    bar_list,
    chart,
    now,
    rows,
    rows_over_time,
    series,
    stat,
    table,
)
from deploy.grafana.source.queries import (
    CHAIN,
    CHAIN_BY_DATABASE,
    NO_IS_BAD,
    OF_CHAINS,
    account_link,
    one_of,
    unix_time,
)

_USES = f"""FROM watch.progress AS p JOIN watch.session_use AS u USING (chain_id)
                 WHERE {OF_CHAINS}
                   AND $__timeFilter(u.block_time)"""
_MINTS = f"""FROM watch.progress AS p JOIN watch.session_mint AS m USING (chain_id)
                 WHERE {OF_CHAINS}
                   AND $__timeFilter(m.block_time)"""
_EXPIRING = f"""FROM watch.progress AS p JOIN watch.session AS s USING (chain_id)
                 WHERE {OF_CHAINS}
                   AND s.valid_until BETWEEN extract(epoch FROM now())::bigint AND extract(epoch
                       FROM now() + ${{within:sqlstring}}::interval)::bigint
                   AND s.state = 'active'"""


STOCK = Section(
    "What there is",
    [
        stat(
            "Active",
            "Stored sessions that can be used now: their set's root stands, and the time of the "
            "indexed block is within their own.",
            now(f'sum(sessionwatch_sessions{{{CHAIN}, state="active"}})', "active"),
            nothing="0",
            steps=((None, GREEN),),
        ),
        stat(
            "Expired under a root",
            "Stored sessions that still stand under the current root, and are over. Harmless.",
            now(f'sum(sessionwatch_sessions{{{CHAIN}, state="expired"}})', "expired"),
            nothing="0",
        ),
        stat(
            "Expire soon",
            "Active sessions that end within the time chosen above, by this clock.",
            rows(f"""
                SELECT count(*) AS expire_soon
                  {_EXPIRING}"""),
            nothing="0",
            steps=ANY_IS_ODD,
        ),
        stat(
            "Uses",
            "User operations that session keys signed, in the dashboard's time.",
            rows(f"""
                SELECT count(DISTINCT u.user_op_hash) AS uses
                  {_USES}"""),
            nothing="0",
        ),
        stat(
            "Uses of unknown sessions",
            "Uses of sessions that no stored set holds, in the dashboard's time.",
            rows(f"""
                SELECT count(*) AS unknown_uses
                  {_USES}
                   AND NOT u.known"""),
            nothing="0",
            steps=ANY_IS_BAD,
        ),
        stat(
            "Moves beyond the grant",
            "Tokens that sessions moved against contract, recipient or token of their own data, in "
            "the dashboard's time.",
            rows(f"""
                SELECT count(*) AS beyond
                  {_MINTS}
                   AND NOT m.fits"""),
            nothing="0",
            steps=ANY_IS_BAD,
        ),
        chart(
            "Stored sessions by state",
            "active, expired, not yet valid, or of a set that is not on chain.",
            series(f"sum by (state) (sessionwatch_sessions{{{CHAIN}}})", "{{state}}"),
            nothing="no chain was scraped in this time",
            stacked=True,
        ),
        table(
            "Expiring soon",
            "Active sessions that end within the time chosen above, the next one first. Expiry is "
            "judged by block time: this is this clock's view of it.",
            rows(f"""
                SELECT {unix_time("s.valid_until")} AS valid_until, p.chain, s.account,
                       s.session_key, s.set_id, s.leaf_index, s.use_count, s.last_used_time,
                       s.session_validation_module
                  {_EXPIRING}
                 ORDER BY s.valid_until, s.set_id, s.leaf_index LIMIT 200"""),
            nothing="no active session ends within that time",
            width=12,
            links={"account": account_link()},
            units={"valid_until": "dateTimeFromNow"},
        ),
    ],
)

USE = Section(
    "How they are used",
    [
        chart(
            "Uses by validation module",
            "User operations that session keys signed, by the module that judged them.",
            rows_over_time(f"""
                SELECT $__timeGroupAlias(u.block_time, $__interval),
                       u.session_validation_module AS metric,
                       count(DISTINCT u.user_op_hash) AS value
                  {_USES}
                 GROUP BY 1, 2 ORDER BY 1, 2"""),
            nothing="no session was used in this time",
            bars=True,
            stacked=True,
        ),
        bar_list(
            "Validation modules",
            "Uses by the module that judged them.",
            rows(f"""
                SELECT u.session_validation_module, count(*) AS uses
                  {_USES}
                 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10"""),
            nothing="no session was used in this time",
            width=12,
        ),
        table(
            "By validation module",
            "How many keys and accounts used each module, how often, and how many of these "
            "operations failed.",
            rows(f"""
                SELECT u.session_validation_module, count(*) AS uses,
                       count(*) FILTER (WHERE NOT u.success) AS failed,
                       count(*) FILTER (WHERE NOT u.known) AS unknown,
                       count(DISTINCT u.session_key) AS session_keys,
                       count(DISTINCT u.account) AS accounts, max(u.block_time) AS last_used
                  {_USES}
                 GROUP BY 1 ORDER BY uses DESC LIMIT 50"""),
            nothing="no session was used in this time",
            width=12,
            units={"last_used": "dateTimeFromNow"},
            widths={"session_validation_module": 370},
        ),
        table(
            "Busiest sessions",
            "The sessions that signed most operations.",
            rows(f"""
                SELECT p.chain, u.account, u.session_key, count(*) AS uses,
                       count(*) FILTER (WHERE NOT u.success) AS failed, bool_and(u.known) AS known,
                       max(u.block_time) AS last_used, u.leaf
                  {_USES}
                 GROUP BY p.chain, u.account, u.leaf, u.session_key ORDER BY uses DESC LIMIT 50"""),
            nothing="no session was used in this time",
            width=12,
            links={"account": account_link()},
            units={"last_used": "dateTimeFromNow"},
            colors={"known": NO_IS_BAD},
        ),
    ],
)

ODD = Section(
    "What to look at",
    [
        table(
            "Sessions that nobody stored",
            "Uses of sessions that no stored set of the account holds, the newest first. An inner "
            "node of a tree passes as a session on chain, too.",
            rows(f"""
                SELECT u.block_time, p.chain, u.account, u.session_key, u.root_state, u.success,
                       u.called, u.leaf, u.user_op_hash, u.transaction_hash, u.block_number
                  {_USES}
                   AND NOT u.known
                 ORDER BY u.block_number DESC, u.log_index DESC LIMIT 200"""),
            nothing="every session that was used is stored",
            links={"account": account_link()},
            widths={"block_time": 170, "chain": 90, "account": 370},
        ),
        table(
            "Tokens that sessions moved",
            "The newest moves; those that the session's own data does not allow come first. Fits "
            "is empty where the data names nothing, or its layout is not known.",
            rows(f"""
                SELECT m.block_time, p.chain, m.account, m.fits, m.contract,
                       m.token_id::text AS token_id, m.amount::text AS amount, m.to_address,
                       m.granted_contract, m.granted_recipient,
                       m.granted_token_id::text AS granted_token_id, m.session_key, m.user_op_hash
                  {_MINTS}
                 ORDER BY m.fits IS NOT FALSE, m.block_number DESC, m.log_index DESC LIMIT 200"""),
            nothing="sessions moved no tokens in this time",
            links={"account": account_link()},
            widths={"block_time": 170, "chain": 90, "account": 370, "fits": 70},
            colors={"fits": NO_IS_BAD},
        ),
    ],
)

DASHBOARD = Dashboard(
    uid="sessionwatch-sessions",
    title="Sessionwatch: sessions",
    description="Sessions that expire soon, how sessions are used, and what they move.",
    sections=[STOCK, USE, ODD],
    variables=[
        CHAIN_BY_DATABASE,
        one_of(
            "within",
            "Expiring within",
            "How soon a session must end to be listed as expiring.",
            ["1 hour", "1 day", "7 days", "30 days"],
            "1 day",
        ),
    ],
    since="now-24h",
)
