"""ERC-1155 tokens and user operations."""

from __future__ import annotations

from deploy.grafana.source.layout import Dashboard, Section
from deploy.grafana.source.parts import (
    GREEN,
    ORANGE,
    RED,
    chart,
    now,
    rows,
    rows_over_time,
    stat,
    table,
)
from deploy.grafana.source.queries import (
    CHAIN,
    CHAIN_BY_DATABASE,
    NO_IS_BAD,
    OF_CHAINS,
    ZERO_ADDRESS,
    account_link,
    text_box,
)

_CONTRACT = "lower(btrim(${contract:sqlstring}))"
_TRANSFERS = f"""FROM watch.progress AS p JOIN watch.erc1155_transfer AS t USING (chain_id)
                 WHERE {OF_CHAINS}
                   AND ({_CONTRACT} = '' OR t.contract = {_CONTRACT})
                   AND $__timeFilter(t.block_time)"""
_OPERATIONS = f"""FROM watch.progress AS p JOIN watch.user_operation AS u USING (chain_id)
                 WHERE {OF_CHAINS}
                   AND $__timeFilter(u.block_time)"""
_NO_TRANSFERS = "no transfer in this time"
_NO_OPERATIONS = "no user operation of a watched account in this time"
_OWNER = "lower(btrim(${owner:sqlstring}))"

TOKENS = Section(
    "ERC-1155 transfers",
    [
        stat(
            "Transfers",
            "Rows of transfers, one for each id of a batch, in the dashboard's time.",
            rows(f"""
                SELECT count(*) AS transfers
                  {_TRANSFERS}"""),
            nothing="0",
        ),
        stat(
            "Minted",
            "Those of them that come from the zero address.",
            rows(f"""
                SELECT count(*) AS minted
                  {_TRANSFERS}
                   AND t.from_address = '{ZERO_ADDRESS}'"""),
            nothing="0",
        ),
        stat(
            "Burnt",
            "Those of them that go to the zero address.",
            rows(f"""
                SELECT count(*) AS burnt
                  {_TRANSFERS}
                   AND t.to_address = '{ZERO_ADDRESS}'"""),
            nothing="0",
        ),
        stat(
            "By user operations",
            "Those of them that a watched account's user operation made.",
            rows(f"""
                SELECT count(*) AS by_operations
                  {_TRANSFERS}
                   AND t.user_op_hash IS NOT NULL"""),
            nothing="0",
        ),
        stat(
            "Contracts",
            "Contracts whose tokens moved in the dashboard's time.",
            rows(f"""
                SELECT count(DISTINCT t.contract) AS contracts
                  {_TRANSFERS}"""),
            nothing="0",
        ),
        stat(
            "Transfers indexed",
            "Transfers committed in the dashboard's time, those of the past that was read in it "
            "included; whatever the contract and the block.",
            now(
                f'sum(increase(sessionwatch_logs_total{{{CHAIN}, event="Erc1155Transfer"}}'
                "[$__range]))",
                "transfers",
            ),
            nothing="0",
        ),
        chart(
            "Transfers by contract",
            "The ten busiest contracts by name, the others together.",
            rows_over_time(f"""
                WITH moved AS (
                    SELECT t.block_time, t.contract
                      {_TRANSFERS}),
                busiest AS (
                    SELECT contract FROM moved GROUP BY contract
                     ORDER BY count(*) DESC, contract LIMIT 10)
                SELECT $__timeGroupAlias(m.block_time, $__interval),
                       coalesce(b.contract, 'others') AS metric, count(*) AS value
                  FROM moved AS m LEFT JOIN busiest AS b USING (contract)
                 GROUP BY 1, 2 ORDER BY 1, 2"""),
            nothing=_NO_TRANSFERS,
            bars=True,
            stacked=True,
        ),
        table(
            "By contract",
            "What moved, contract by contract, the busiest first.",
            rows(f"""
                SELECT p.chain, t.contract, count(*) AS transfers,
                       count(DISTINCT t.token_id) AS tokens,
                       count(*) FILTER (WHERE t.from_address = '{ZERO_ADDRESS}') AS minted,
                       count(*) FILTER (WHERE t.to_address = '{ZERO_ADDRESS}') AS burnt,
                       max(t.block_time) AS last_moved
                  {_TRANSFERS}
                 GROUP BY p.chain, t.contract ORDER BY transfers DESC LIMIT 100"""),
            nothing=_NO_TRANSFERS,
            width=12,
            units={"last_moved": "dateTimeFromNow"},
            widths={"chain": 90, "contract": 370},
        ),
        table(
            "Newest transfers",
            "The newest 100 of these transfers.",
            rows(f"""
                SELECT t.block_time, p.chain, t.block_number, t.contract,
                       t.token_id::text AS token_id, t.amount::text AS amount, t.from_address,
                       t.to_address, t.operator, t.user_op_hash, t.transaction_hash
                  {_TRANSFERS}
                 ORDER BY t.block_number DESC, t.log_index DESC, t.batch_index DESC LIMIT 100"""),
            nothing=_NO_TRANSFERS,
            widths={"block_time": 170, "chain": 90},
        ),
    ],
)

OPERATIONS = Section(
    "User operations",
    [
        stat(
            "Operations",
            "User operations of watched accounts, in the dashboard's time.",
            rows(f"""
                SELECT count(*) AS operations
                  {_OPERATIONS}"""),
            nothing="0",
            width=6,
        ),
        stat(
            "Failed",
            "The part of them that reverted.",
            rows(f"""
                SELECT (count(*) FILTER (WHERE NOT u.success))::float8 / nullif(count(*), 0)
                           AS failed
                  {_OPERATIONS}"""),
            nothing="no operation",
            unit="percentunit",
            width=6,
            steps=((None, GREEN), (0.1, ORANGE), (0.5, RED)),
        ),
        stat(
            "Gas paid",
            "What they cost, in the coin of the chain.",
            rows(f"""
                SELECT (sum(u.actual_gas_cost) / 1e18)::float8 AS paid
                  {_OPERATIONS}"""),
            nothing="0",
            width=6,
        ),
        stat(
            "Senders",
            "Accounts that sent them.",
            rows(f"""
                SELECT count(DISTINCT u.sender) AS senders
                  {_OPERATIONS}"""),
            nothing="0",
            width=6,
        ),
        chart(
            "Operations by outcome",
            "How many succeeded and how many reverted.",
            rows_over_time(f"""
                SELECT $__timeGroupAlias(u.block_time, $__interval),
                       CASE WHEN u.success THEN 'succeeded' ELSE 'reverted' END AS metric,
                       count(*) AS value
                  {_OPERATIONS}
                 GROUP BY 1, 2 ORDER BY 1, 2"""),
            nothing=_NO_OPERATIONS,
            bars=True,
            stacked=True,
        ),
        chart(
            "Gas per operation",
            "The gas that half of the operations stay under, and that nearly all do.",
            rows_over_time(f"""
                SELECT $__timeGroupAlias(u.block_time, $__interval),
                       percentile_cont(0.5) WITHIN GROUP (ORDER BY u.actual_gas_used::float8)
                           AS "50 %",
                       percentile_cont(0.95) WITHIN GROUP (ORDER BY u.actual_gas_used::float8)
                           AS "95 %"
                  {_OPERATIONS}
                 GROUP BY 1 ORDER BY 1"""),
            nothing=_NO_OPERATIONS,
            unit="locale",
        ),
        table(
            "By paymaster",
            "Who paid; zeros: the account itself. Cost is in the chain's coin.",
            rows(f"""
                SELECT p.chain, u.paymaster, count(*) AS operations,
                       count(*) FILTER (WHERE NOT u.success) AS failed,
                       (sum(u.actual_gas_cost) / 1e18)::float8 AS cost,
                       sum(u.actual_gas_used)::float8 AS gas
                  {_OPERATIONS}
                 GROUP BY p.chain, u.paymaster ORDER BY operations DESC LIMIT 50"""),
            nothing=_NO_OPERATIONS,
            width=12,
            units={"gas": "locale"},
            widths={"chain": 90, "paymaster": 370},
        ),
        table(
            "By validation module and bundler",
            "Which module judged the operations' signatures, and who sent them. Empty: the "
            "transaction's input is not read yet.",
            rows(f"""
                SELECT u.validation_module, u.bundler, count(*) AS operations,
                       count(*) FILTER (WHERE NOT u.success) AS failed
                  {_OPERATIONS}
                 GROUP BY 1, 2 ORDER BY operations DESC LIMIT 50"""),
            nothing=_NO_OPERATIONS,
            width=12,
        ),
        table(
            "Newest operations",
            "The newest 100 of these operations; a click on a sender shows the account.",
            rows(f"""
                SELECT u.block_time, p.chain, u.block_number, u.sender, u.success,
                       (u.actual_gas_cost / 1e18)::float8 AS cost,
                       u.actual_gas_used::float8 AS gas, u.paymaster, u.validation_module,
                       u.bundler, u.user_op_hash, u.transaction_hash
                  {_OPERATIONS}
                 ORDER BY u.block_number DESC, u.log_index DESC LIMIT 100"""),
            nothing=_NO_OPERATIONS,
            links={"sender": account_link("sender")},
            units={"gas": "locale"},
            widths={"block_time": 170, "chain": 90, "sender": 370, "success": 80},
            colors={"success": NO_IS_BAD},
        ),
    ],
)

OWNER = Section(
    "One owner",
    [
        table(
            "Balances",
            "What the owner typed above holds. Not complete: transfers before the first indexed "
            "block are missing, and the balance may be negative.",
            rows(f"""
                SELECT p.chain, b.contract, b.token_id::text AS token_id,
                       b.balance::text AS balance, b.complete
                  FROM watch.erc1155_balance AS b JOIN watch.progress AS p USING (chain_id)
                 WHERE b.owner = {_OWNER}
                   AND {OF_CHAINS}
                   AND ({_CONTRACT} = '' OR b.contract = {_CONTRACT})
                 ORDER BY p.chain, b.contract, b.token_id LIMIT 500"""),
            nothing="this owner holds nothing that is indexed",
            width=12,
            widths={"chain": 90, "contract": 370},
            colors={"complete": NO_IS_BAD},
        ),
        table(
            "Its transfers",
            "The newest 100 transfers to and from the owner, however old.",
            rows(f"""
                SELECT t.block_time, p.chain, t.direction, t.contract,
                       t.token_id::text AS token_id, t.amount::text AS amount, t.other,
                       t.transaction_hash
                  FROM (
                      (SELECT 'in' AS direction, x.from_address AS other, x.*
                         FROM watch.erc1155_transfer AS x WHERE x.to_address = {_OWNER}
                        ORDER BY x.block_number DESC LIMIT 100)
                      UNION ALL
                      (SELECT 'out', x.to_address, x.*
                         FROM watch.erc1155_transfer AS x WHERE x.from_address = {_OWNER}
                        ORDER BY x.block_number DESC LIMIT 100)) AS t
                  JOIN watch.progress AS p USING (chain_id)
                 WHERE {OF_CHAINS}
                 ORDER BY t.block_number DESC, t.log_index DESC LIMIT 100"""),
            nothing="this owner neither sent nor received anything that is indexed",
            width=12,
            widths={"block_time": 170, "chain": 90, "direction": 80},
        ),
    ],
)

DASHBOARD = Dashboard(
    uid="sessionwatch-tokens",
    title="Sessionwatch: ERC-1155 and user operations",
    description="Transfers and user operations over time, and what an owner holds.",
    sections=[TOKENS, OPERATIONS, OWNER],
    variables=[
        CHAIN_BY_DATABASE,
        text_box("contract", "Contract", "One ERC-1155 contract; empty: all of them."),
        text_box("owner", "Owner", "Whose balances to show: 0x and 40 hex digits."),
    ],
    since="now-24h",
)
