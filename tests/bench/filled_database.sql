-- The rows of tests/bench/filled_database.py: a statement or a few for each step, in this order.

-- step: tools
CREATE TEMPORARY TABLE size (transfers bigint, accounts bigint, operations bigint, blocks bigint,
    seed bigint, block_seconds bigint, first_time bigint);
-- The kind keeps the numbers of accounts, contracts, hashes apart.
CREATE FUNCTION pg_temp.hash32(kind text, n bigint) RETURNS bytea LANGUAGE sql IMMUTABLE
    RETURN sha256(convert_to(kind, 'UTF8') || int8send(n));
CREATE FUNCTION pg_temp.address(kind text, n bigint) RETURNS bytea LANGUAGE sql IMMUTABLE
    RETURN substring(sha256(convert_to(kind, 'UTF8') || int8send(n)) FROM 1 FOR 20);
-- Of one account: a session's leaf and key have the same number.
CREATE FUNCTION pg_temp.leaf(account bigint, session bigint) RETURNS bytea LANGUAGE sql IMMUTABLE
    RETURN pg_temp.hash32('leaf', account * 100 + session);
CREATE FUNCTION pg_temp.session_key(account bigint, session bigint) RETURNS bytea LANGUAGE sql IMMUTABLE
    RETURN pg_temp.address('key', account * 100 + session);
-- Evenly between 0 and 1.
CREATE FUNCTION pg_temp.share(n bigint, seed bigint) RETURNS double precision LANGUAGE sql IMMUTABLE
    RETURN (hashint8extended(n, seed) & 1099511627775) / 1099511627776.0::double precision;
CREATE FUNCTION pg_temp.manager() RETURNS bytea LANGUAGE sql IMMUTABLE RETURN decode(repeat('aa', 20), 'hex');
CREATE FUNCTION pg_temp.module() RETURNS bytea LANGUAGE sql IMMUTABLE RETURN decode(repeat('cc', 20), 'hex');
CREATE FUNCTION pg_temp.entry_point() RETURNS bytea LANGUAGE sql IMMUTABLE RETURN decode(repeat('ee', 20), 'hex');
CREATE FUNCTION pg_temp.no_address() RETURNS bytea LANGUAGE sql IMMUTABLE RETURN decode(repeat('00', 20), 'hex');
CREATE FUNCTION pg_temp.no_root() RETURNS bytea LANGUAGE sql IMMUTABLE RETURN decode(repeat('00', 32), 'hex');

-- step: chain
INSERT INTO chain.chain (chain_id, name, start_block, finalized_number, finalized_hash,
    finalized_time, indexed_number, indexed_hash, indexed_time, latest_number, latest_time,
    confirmed_at, managers)
SELECT 80001, 'mumbai', 1, f, pg_temp.hash32('block', f), first_time + block_seconds * f,
       blocks, pg_temp.hash32('block', blocks), first_time + block_seconds * blocks, blocks,
       first_time + block_seconds * blocks, now(), ARRAY[pg_temp.manager()]
  FROM size, LATERAL (SELECT blocks - 64 AS f) AS x;
INSERT INTO chain.cohort SELECT 80001, 1, blocks / 2, 'stored' FROM size;
INSERT INTO chain.coverage (chain_id, pass, filter, cohort, blocks, live_from)
SELECT 80001, p.pass, p.filter, p.cohort,
       int8multirange(int8range(p.first, blocks - 63)), CASE WHEN p.cohort = 0 THEN 0 END
  FROM size, (VALUES ('logs', 'factory/0x' || repeat('0f', 20), 0, 1), ('logs', 'accounts', 0, 1),
    ('logs', 'erc1155/all', 0, 1), ('bodies', 'accounts', 0, 1),
    ('roots/0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'accounts', 0, 1), ('roots/0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'accounts', 1, 1000))
    AS p (pass, filter, cohort, first);
INSERT INTO chain.pace SELECT 80001, p, 1000, 2, 30 FROM unnest('{logs,bodies,roots}'::text[]) AS p;

-- step: tail
INSERT INTO chain.tail SELECT 80001, b, pg_temp.hash32('block', b),
       pg_temp.hash32('block', b - 1), first_time + block_seconds * b
  FROM size, generate_series(blocks - 64, blocks) AS b;

-- step: block
INSERT INTO chain.block SELECT 80001, b, pg_temp.hash32('block', b), first_time + block_seconds * b
  FROM size, generate_series(4, blocks, 4) AS b;

-- step: account
INSERT INTO chain.account (chain_id, account, cohort_id, block_number, source)
SELECT 80001, pg_temp.address('account', i), CASE WHEN i % 1000 = 0 THEN 1 ELSE 0 END,
       4 * (1 + i * (blocks / 10) / accounts), 'factory'
  FROM size, generate_series(1, accounts) AS i;

-- step: creation
INSERT INTO chain.account_event
SELECT 80001, 4 * (1 + i * (blocks / 10) / accounts), (i % 10000) * 2 + k, 0,
       pg_temp.hash32('transaction', -i), pg_temp.address('account', i),
       CASE k WHEN 0 THEN 'AccountCreation' ELSE 'EnabledModule' END,
       CASE k WHEN 0 THEN jsonb_build_object('factory', '0x' || repeat('0f', 20),
           'initial_module', '0x' || repeat('cc', 20), 'index', '0')
           ELSE '{"module": "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}'::jsonb END, NULL
  FROM size, generate_series(1, accounts) AS i, generate_series(0, 1) AS k;

-- step: slots
INSERT INTO evidence.account_observation
SELECT 80001, pg_temp.address('account', i), b, pg_temp.hash32('block', b), pg_temp.module(),
       pg_temp.no_address(), ARRAY[pg_temp.manager()], i % 100000 = 0
  FROM size, generate_series(1, accounts) AS i, LATERAL (SELECT 4 * (1 + i * (blocks / 10) / accounts) AS b) AS x;

-- step: plan of operations
-- `r` is the operation that set the account's root last, if one did.
CREATE TEMPORARY TABLE operation AS
SELECT k, i, b AS block_number, 30000 + (k % 1000) * 10 AS log_index, k % 10 AS kind,
       max(k) FILTER (WHERE k % 10 = 0) OVER (PARTITION BY i ORDER BY k) AS r,
       pg_temp.address('account', i) AS account, pg_temp.hash32('transaction', k) AS transaction_hash,
       pg_temp.hash32('operation', k) AS user_op_hash
  FROM (SELECT k, 1 + floor(accounts * power(pg_temp.share(k, seed), 3))::bigint AS i,
               4 * (blocks / 10 + 1 + (k - 1) * (blocks / 4 - blocks / 10 - 1) / operations) AS b
          FROM size, generate_series(1, operations) AS k) AS x;

-- step: user_operation
INSERT INTO chain.user_operation
SELECT 80001, block_number, log_index, 1, transaction_hash, user_op_hash, pg_temp.entry_point(), account,
       pg_temp.no_address(), k, k % 50 <> 0, 1000000000, 100000 FROM operation ORDER BY k;

-- step: user_operation_body
INSERT INTO chain.user_operation_body
SELECT 80001, block_number, log_index, user_op_hash, NULL,
       CASE WHEN kind IN (1, 2, 3) THEN pg_temp.manager() ELSE pg_temp.module() END,
       jsonb_build_array(jsonb_build_object('to', '0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'value', '0', 'selector', '0x7cb64759',
           'data_bytes', 36)) FROM operation ORDER BY k;

-- step: bundle
INSERT INTO chain.bundle
SELECT 80001, block_number, transaction_hash, pg_temp.address('stranger', k % 5), pg_temp.entry_point()
  FROM operation ORDER BY k;

-- step: account_event
INSERT INTO chain.account_event
SELECT 80001, block_number, log_index - 1, 1, transaction_hash, account, 'ExecutionSuccess',
       jsonb_build_object('to', '0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'value', '0', 'operation', '0', 'dataHash',
           evidence.hex(user_op_hash)), user_op_hash FROM operation ORDER BY k;

-- step: root_observation
INSERT INTO evidence.root_observation
SELECT 80001, pg_temp.manager(), account, block_number, pg_temp.hash32('block', block_number), root
  FROM (SELECT account, block_number,
               CASE WHEN max(r) IS NULL THEN pg_temp.no_root() ELSE pg_temp.hash32('root', max(r)) END AS root
          FROM operation GROUP BY account, block_number
        UNION ALL
        SELECT account, block_number, pg_temp.no_root() FROM chain.account) AS o
 ORDER BY account, block_number;

-- step: root_attribution
INSERT INTO chain.root_attribution (chain_id, block_number, manager, account, evidence, attribution,
    transaction_hash, user_op_hash, contradicting_evidence, contradicting_root)
SELECT DISTINCT ON (block_number, account) 80001, block_number, pg_temp.manager(), account, 'calldata',
       'user_operation', transaction_hash, user_op_hash, CASE WHEN k % 50000 = 0 THEN 'event' END,
       CASE WHEN k % 50000 = 0 THEN user_op_hash END FROM operation ORDER BY block_number, account, k DESC;

-- step: root_hint
INSERT INTO chain.root_hint (chain_id, block_number, log_index, hint_index, manager, account, root,
    evidence, transaction_hash, user_op_hash)
SELECT 80001, block_number, log_index, 0, pg_temp.manager(), account,
       pg_temp.hash32('root', CASE WHEN k % 5000 = 0 THEN -k ELSE k END), 'calldata',
       transaction_hash, user_op_hash FROM operation WHERE kind = 0 ORDER BY k;

-- step: session_set
-- Four of five roots were stored, and some sets never landed.
INSERT INTO sessions.session_set (chain_id, manager, account, leaves_digest, root, session_count,
    source, call_hash, stored_block, stored_at)
SELECT 80001, pg_temp.manager(), account, digest, root, 4, 'plain', digest, block_number,
       to_timestamp(first_time + block_seconds * block_number)
  FROM (SELECT account, user_op_hash AS digest, pg_temp.hash32('root', k) AS root, block_number
          FROM operation WHERE kind = 0 AND k % 50 <> 0
        UNION ALL
        SELECT pg_temp.address('account', i), pg_temp.hash32('leaf', -i),
               pg_temp.hash32('root', -i), 4 * (blocks / 10 + 1)
          FROM size, generate_series(50, accounts, 50) AS i) AS s, size
 ORDER BY block_number, account, digest;

-- step: session
-- Every second session ends some time within half a year of now, before or after.
CREATE TEMPORARY TABLE numbered (account bytea PRIMARY KEY, i bigint NOT NULL);
INSERT INTO numbered SELECT pg_temp.address('account', i), i FROM size, generate_series(1, accounts) AS i;
ANALYZE numbered;
INSERT INTO sessions.session
SELECT s.set_id, j, pg_temp.leaf(n.i, j + s.set_id % 3),
       CASE WHEN j % 2 = 0 THEN 0 ELSE first_time + block_seconds * blocks
           + (pg_temp.share(n.i * 100 + j + s.set_id % 3, seed) * 31536000)::bigint - 15768000 END, 0,
       pg_temp.module(), pg_temp.session_key(n.i, j + s.set_id % 3), sha256(int8send(s.set_id)), 'active'
  FROM sessions.session_set AS s JOIN numbered AS n USING (account), size, generate_series(0, 3) AS j
 ORDER BY s.set_id, j;

-- step: session_use
INSERT INTO chain.session_use
SELECT 80001, block_number, log_index, 0, user_op_hash, pg_temp.manager(), account,
       CASE WHEN k % 1000 = 1 THEN user_op_hash ELSE pg_temp.leaf(i, k % 6) END,
       coalesce(pg_temp.hash32('root', r), pg_temp.no_root()), NULL, 0, 0, pg_temp.module(), pg_temp.session_key(i, k % 6),
       pg_temp.address('contract', 0), pg_temp.session_key(i, k % 6), NULL, user_op_hash
  FROM operation WHERE kind IN (1, 2, 3) ORDER BY k;

-- step: mint
INSERT INTO chain.erc1155_transfer
SELECT 80001, block_number, log_index - 2, 0, transaction_hash, pg_temp.address('contract', 0),
       account, pg_temp.no_address(), pg_temp.session_key(i, k % 6), k % 5, 1, user_op_hash
  FROM operation WHERE kind IN (1, 2, 3) ORDER BY k;

-- step: erc1155_transfer
-- Half of them move token 1; of a mint nobody is the sender.
INSERT INTO chain.erc1155_transfer
SELECT 80001, 4 * (1 + (t - 1) * (blocks / 4 - 1) / transfers), t % 20000, 0,
       pg_temp.hash32('token transaction', t / 2), pg_temp.address('contract', c), pg_temp.module(),
       CASE WHEN t % 10 < 3 THEN pg_temp.no_address() ELSE pg_temp.address('account', f) END,
       pg_temp.address('account', o), CASE WHEN t % 2 = 0 THEN 1 ELSE t / 8 END, 1 + t % 3, NULL
  FROM (SELECT t, size.*, floor(1000 * power(pg_temp.share(t, seed), 4))::bigint AS c,
               1 + floor(accounts * power(pg_temp.share(t, seed + 1), 3))::bigint AS f,
               1 + floor(accounts * power(pg_temp.share(t, seed + 2), 2))::bigint AS o
          FROM size, generate_series(1, transfers - operations / 10 * 3) AS t) AS x
 ORDER BY t;

-- step: erc1155_balance
INSERT INTO chain.erc1155_balance
SELECT 80001, contract, owner, token_id, sum(delta)
  FROM (SELECT contract, to_address AS owner, token_id, amount::numeric AS delta, block_number FROM chain.erc1155_transfer
        UNION ALL
        SELECT contract, from_address, token_id, -amount, block_number FROM chain.erc1155_transfer) AS d
 WHERE owner <> pg_temp.no_address() AND block_number <= (SELECT blocks - 64 FROM size)
 GROUP BY contract, owner, token_id ORDER BY contract, owner, token_id;

-- step: erc1155_approval
INSERT INTO chain.erc1155_approval
SELECT 80001, 4 * (1 + i * (blocks / 4 - 1) / accounts), (i % 10000) + 50000, pg_temp.hash32('token transaction', -i),
       pg_temp.address('contract', floor(1000 * power(pg_temp.share(i, seed), 4))::bigint),
       pg_temp.address('account', i), pg_temp.module(), true
  FROM size, generate_series(1, accounts, 4) AS i;

-- step: erc1155_uri
INSERT INTO chain.erc1155_uri
SELECT 80001, 4 * (1 + i * (blocks / 4 - 1) / accounts), (i % 10000) + 70000, pg_temp.hash32('token transaction', -i),
       pg_temp.address('contract', floor(1000 * power(pg_temp.share(i, seed), 4))::bigint), i, 'ipfs://token'
  FROM size, generate_series(1, accounts, 20) AS i;

-- step: undecoded_log
INSERT INTO chain.undecoded_log
SELECT 80001, 4 * (1 + i * (blocks / 4 - 1) / accounts), (i % 10000) + 90000, pg_temp.hash32('token transaction', -i),
       pg_temp.address('stranger', i % 7), ARRAY[pg_temp.hash32('token transaction', 1)], '\x00', 'cut short'
  FROM size, generate_series(1, accounts, 50) AS i;

-- step: verdict
-- One account in 300 has drifted; a third have had another verdict before, few of them a drift.
INSERT INTO chain.verdict (chain_id, block_number, closed_block, closed_time, manager, account, verdict, cause,
    severity, since_block, since_time, explanation, observed_block, on_chain_root, expected_root)
SELECT 80001, b, CASE WHEN open THEN NULL ELSE b + 4 END,
       CASE WHEN open THEN NULL ELSE to_timestamp(first_time + block_seconds * (b + 4)) END, pg_temp.manager(),
       pg_temp.address('account', i), CASE WHEN drifted THEN 'drifted' WHEN i % 50 = 0 THEN 'pending'
           WHEN i % 5 = 0 THEN 'in_sync' ELSE 'empty' END,
       CASE WHEN drifted THEN ('{superseded,never_landed,unknown_root,lost_sessions,rotated_by_session_key}'::text[])[1 + i / 300 % 5] END,
       CASE WHEN drifted THEN 'critical' ELSE 'info' END, b, to_timestamp(first_time + block_seconds * b),
       'The root of the account, registered by a user operation, is compared with what is stored.', b,
       pg_temp.hash32('root', i), pg_temp.hash32('root', i)
  FROM (SELECT size.*, i, open, 4 * (1 + (i * 7919 % accounts) * (blocks / 4 - 2) / accounts) - CASE WHEN open THEN 0 ELSE 4 END AS b,
               i % 300 = CASE WHEN open THEN 0 ELSE 1 END AS drifted
          FROM size, generate_series(1, accounts) AS i, (VALUES (true), (false)) AS v (open)
         WHERE open OR i % 3 = 1) AS x WHERE b > 0;

-- step: reorg
INSERT INTO chain.reorg (chain_id, detected_at, common_ancestor, depth, old_tip_number, old_tip_hash,
    new_tip_number, new_tip_hash)
SELECT 80001, to_timestamp(first_time + block_seconds * b), b, 1, b + 1, pg_temp.hash32('block', -b), b + 2,
       pg_temp.hash32('block', b + 2) FROM size, generate_series(1, blocks, 500) AS b;

-- step: audit
INSERT INTO chain.audit SELECT 80001, pg_temp.manager(), blocks - 64 + b, now(), 1000, 0, 'complete'
  FROM size, generate_series(0, 60) AS b;
INSERT INTO chain.audit_finding (chain_id, block_number, manager, account, reason, found_at)
SELECT 80001, 4 * (1 + i * (blocks / 4 - 1) / accounts), pg_temp.manager(), pg_temp.address('account', i),
       'no_log', to_timestamp(first_time + block_seconds * 4 * i * (blocks / 4) / accounts) FROM size, generate_series(1, accounts, 10) AS i;
