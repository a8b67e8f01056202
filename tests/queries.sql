-- What people ask of the schema `watch`, beside the queries of the README and of the dashboards.
-- One comment with the name, one statement. Words in braces stand for values of the database asked:
--   {account} {owner} {contract} {token_id} {rare_token_id} {session_key} {user_op_hash} {transaction_hash} {set_id}
-- `counts:` before the name: it counts everything there is, and takes as long as that takes.
-- The newest of all name the chain: they come in the order of an index that begins with it.

-- account
SELECT * FROM watch.account WHERE account = '{account}';

-- account's roots, newest
SELECT * FROM watch.session_root WHERE account = '{account}' ORDER BY block_number DESC LIMIT 20;

-- account's root now
SELECT * FROM watch.session_root_current WHERE account = '{account}';

-- account's verdict
SELECT * FROM watch.verdict WHERE account = '{account}';

-- account's drifts, newest
SELECT * FROM watch.drift_history WHERE account = '{account}' ORDER BY opened_block DESC LIMIT 20;

-- account's sets, newest
SELECT * FROM watch.session_set WHERE account = '{account}' ORDER BY set_id DESC LIMIT 20;

-- account's sessions, newest set first
SELECT * FROM watch.session WHERE account = '{account}' ORDER BY set_id DESC, leaf_index LIMIT 20;

-- sessions of a set
SELECT * FROM watch.session WHERE set_id = {set_id};

-- account's uses, newest
SELECT * FROM watch.session_use WHERE account = '{account}' ORDER BY block_number DESC LIMIT 20;

-- account's mints, newest
SELECT * FROM watch.session_mint WHERE account = '{account}' ORDER BY block_number DESC LIMIT 20;

-- account's events, newest
SELECT * FROM watch.account_event WHERE account = '{account}' ORDER BY block_number DESC LIMIT 20;

-- account's operations, newest
SELECT * FROM watch.user_operation WHERE sender = '{account}' ORDER BY block_number DESC LIMIT 20;

-- account sent, newest
SELECT * FROM watch.erc1155_transfer WHERE from_address = '{account}' ORDER BY block_number DESC LIMIT 20;

-- account received, newest
SELECT * FROM watch.erc1155_transfer WHERE to_address = '{account}' ORDER BY block_number DESC LIMIT 20;

-- account's approvals, newest
SELECT * FROM watch.erc1155_approval WHERE account = '{account}' ORDER BY block_number DESC LIMIT 20;

-- account's roots inside blocks
SELECT * FROM watch.session_root_transient WHERE account = '{account}' ORDER BY block_number DESC LIMIT 20;

-- account's disagreements
SELECT * FROM watch.root_disagreement WHERE account = '{account}';

-- account's findings
SELECT * FROM watch.audit_finding WHERE account = '{account}';

-- owner's balances
SELECT * FROM watch.erc1155_balance WHERE owner = '{owner}' LIMIT 100;

-- owner's balance of a contract
SELECT * FROM watch.erc1155_balance WHERE owner = '{owner}' AND contract = '{contract}' LIMIT 100;

-- operation by hash
SELECT * FROM watch.user_operation WHERE user_op_hash = '{user_op_hash}';

-- operations of a transaction
SELECT * FROM watch.user_operation WHERE transaction_hash = '{transaction_hash}';

-- transfers of a transaction
SELECT * FROM watch.erc1155_transfer WHERE transaction_hash = '{transaction_hash}';

-- transfers of an operation
SELECT t.* FROM watch.user_operation u JOIN watch.erc1155_transfer t USING (chain_id, block_number, user_op_hash) WHERE u.user_op_hash = '{user_op_hash}';

-- sessions of an operation
SELECT * FROM watch.session_use WHERE user_op_hash = '{user_op_hash}';

-- account of a session key
SELECT account, set_id, state FROM watch.session WHERE session_key = '{session_key}' ORDER BY set_id DESC LIMIT 20;

-- uses of a session key, newest
SELECT * FROM watch.session_use WHERE session_key = '{session_key}' ORDER BY block_number DESC LIMIT 20;

-- contract's transfers, newest
SELECT * FROM watch.erc1155_transfer WHERE contract = '{contract}' ORDER BY block_number DESC LIMIT 20;

-- contract's mints, newest
SELECT * FROM watch.erc1155_transfer WHERE contract = '{contract}' AND from_address = '0x0000000000000000000000000000000000000000' ORDER BY block_number DESC LIMIT 20;

-- largest holders of a token
SELECT owner, balance FROM watch.erc1155_balance WHERE contract = '{contract}' AND token_id = {token_id} ORDER BY balance DESC LIMIT 20;

-- holders of a rare token
SELECT owner, balance FROM watch.erc1155_balance WHERE contract = '{contract}' AND token_id = {rare_token_id} ORDER BY balance DESC LIMIT 20;

-- contract's URIs, newest
SELECT * FROM watch.erc1155_uri WHERE contract = '{contract}' ORDER BY block_number DESC LIMIT 20;

-- newest drifts
SELECT * FROM watch.drift ORDER BY since_time DESC LIMIT 20;

-- newest drifts of a chain
SELECT * FROM watch.drift WHERE chain_id = 80001 ORDER BY since_time DESC LIMIT 20;

-- drifts by cause
SELECT cause, severity, count(*) FROM watch.drift GROUP BY 1, 2;

-- drifts that were, newest
SELECT * FROM watch.drift_history ORDER BY since_time DESC LIMIT 20;

-- newest roots
SELECT * FROM watch.session_root WHERE chain_id = 80001 ORDER BY block_number DESC LIMIT 20;

-- newest uses
SELECT * FROM watch.session_use WHERE chain_id = 80001 ORDER BY block_number DESC LIMIT 20;

-- newest mints
SELECT * FROM watch.session_mint WHERE chain_id = 80001 ORDER BY block_number DESC LIMIT 20;

-- newest operations
SELECT * FROM watch.user_operation WHERE chain_id = 80001 ORDER BY block_number DESC LIMIT 20;

-- newest transfers
SELECT * FROM watch.erc1155_transfer WHERE chain_id = 80001 ORDER BY block_number DESC LIMIT 20;

-- newest sets
SELECT * FROM watch.session_set ORDER BY set_id DESC LIMIT 20;

-- newest undecoded logs
SELECT * FROM watch.undecoded_log WHERE chain_id = 80001 ORDER BY block_number DESC LIMIT 20;

-- last reorgs
SELECT * FROM watch.reorg ORDER BY detected_at DESC LIMIT 10;

-- newest findings
SELECT * FROM watch.audit_finding ORDER BY found_at DESC LIMIT 20;

-- sessions that end within a day
SELECT account, session_key, valid_until FROM watch.session WHERE state <> 'not_on_chain' AND valid_until BETWEEN extract(epoch FROM now())::bigint AND extract(epoch FROM now() + interval '1 day')::bigint ORDER BY valid_until LIMIT 20;

-- transfers of the last hour
SELECT contract, count(*) FROM watch.erc1155_transfer WHERE block_time > now() - interval '1 hour' GROUP BY 1;

-- uses of the last hour
SELECT account, count(*) FROM watch.session_use WHERE block_time > now() - interval '1 hour' GROUP BY 1;

-- operations of the last hour
SELECT success, count(*) FROM watch.user_operation WHERE block_time > now() - interval '1 hour' GROUP BY 1;

-- root changes of the last hour
SELECT attribution, count(*) FROM watch.session_root WHERE block_time > now() - interval '1 hour' GROUP BY 1;

-- progress
SELECT * FROM watch.progress;

-- coverage
SELECT * FROM watch.coverage;

-- pace
SELECT * FROM watch.pace;

-- audits
SELECT * FROM watch.audit;

-- unobserved
SELECT * FROM watch.unobserved;

-- counts: accounts by verdict
SELECT verdict, count(*) FROM watch.verdict GROUP BY 1;

-- counts: accounts
SELECT count(*) FROM watch.account;

-- counts: transfers
SELECT count(*) FROM watch.erc1155_transfer;

-- counts: sessions by state
SELECT state, count(*) FROM watch.session GROUP BY 1;
