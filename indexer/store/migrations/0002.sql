-- Version 2: limits for the reader, less for the writer, back-ups that can be restored into a later version.
-- `sessionwatch schema apply` runs it as its caller, in one transaction, and moves the version row.

DO $$
DECLARE
    setting_name text;
    setting_value text;
    lock_function text;
    superuser CONSTANT boolean := (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user);
BEGIN
    BEGIN
        COMMENT ON ROLE sessionwatch_reader IS 'Grafana and people: SELECT on the views of watch and nothing else. Its settings (read only, time limits, 30'
            ' connections) hold for who logs in as this very role (ALTER ROLE sessionwatch_reader LOGIN PASSWORD …); a login role that is only'
            ' a member needs ALTER ROLE … SET of its own. The rights do not depend on them.';
    EXCEPTION WHEN insufficient_privilege OR unique_violation OR internal_error THEN
        NULL; -- internal_error: "tuple concurrently updated"
    END;
    -- Against accidents, each only where nobody has set it: a query that never ends, a transaction that is left open (both
    -- hold up `schema apply` and retention), a sort that fills the disk.
    FOR setting_name, setting_value IN VALUES
        ('default_transaction_read_only', 'on'),
        ('statement_timeout', '30s'),
        ('idle_in_transaction_session_timeout', '60s'),
        ('temp_file_limit', '1GB') -- only a superuser may set this one, and the reader cannot change it
    LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS s, unnest(s.setconfig) AS c (setting)
                            WHERE s.setrole = to_regrole('sessionwatch_reader') AND s.setdatabase = 0
                              AND split_part(c.setting, '=', 1) = setting_name) THEN
                EXECUTE format('ALTER ROLE sessionwatch_reader SET %I = %L', setting_name, setting_value);
            END IF;
        EXCEPTION WHEN insufficient_privilege OR unique_violation OR internal_error THEN
            NULL;
        END;
    END LOOP;
    BEGIN
        IF (SELECT rolconnlimit = -1 FROM pg_catalog.pg_roles WHERE rolname = 'sessionwatch_reader') THEN
            ALTER ROLE sessionwatch_reader CONNECTION LIMIT 30; -- dashboards leave the daemon its connections
        END IF;
    EXCEPTION WHEN insufficient_privilege OR internal_error THEN
        NULL;
    END;
    -- A temporary table would be the one place where the writer could run DDL of its own.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM sessionwatch_writer', current_database());
    IF superuser THEN
        -- Who holds the right advisory lock keeps the daemon from starting and sets from being stored.
        FOR lock_function IN
            SELECT oid::regprocedure::text FROM pg_catalog.pg_proc
             WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^pg_(try_)?advisory_'
        LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', lock_function);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO sessionwatch_owner, sessionwatch_writer', lock_function);
        END LOOP;
    END IF;
END
$$;

SET LOCAL ROLE sessionwatch_owner;

---------------------------------------------------------------------------------------------------
-- Back-ups.

ALTER TABLE evidence.schema_version ADD COLUMN restores_from integer NOT NULL DEFAULT 1;

-- A back-up brings the version row of its database along: it is compared, and the one that stands here stays.
CREATE FUNCTION evidence.accept_backup() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present evidence.schema_version%ROWTYPE;
BEGIN
    SELECT * INTO present FROM evidence.schema_version;
    IF NOT FOUND THEN
        RETURN NEW;
    END IF;
    IF NEW.version > present.version THEN
        RAISE EXCEPTION 'the back-up is of schema version %, the database has version %', NEW.version, present.version
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'restore it with the sessionwatch release that made it, or a later one';
    END IF;
    IF NEW.version < present.restores_from THEN
        RAISE EXCEPTION 'the back-up is of schema version %, and here only versions from % on can be restored', NEW.version, present.restores_from
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'prepare a database with the sessionwatch release that made it, restore there, then: sessionwatch schema apply';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER accept_backup BEFORE INSERT ON evidence.schema_version FOR EACH ROW EXECUTE FUNCTION evidence.accept_backup();

COMMENT ON FUNCTION evidence.accept_backup() IS
    'What a restored back-up says of its version is compared with this database''s, whose row stays; refused where its tables would not fit.';
COMMENT ON TRIGGER accept_backup ON evidence.schema_version IS 'Compares the version that a restored back-up brings along.';
COMMENT ON COLUMN evidence.schema_version.restores_from IS 'Back-ups of the schemas evidence and sessions from this version on can be restored into this database.';

ALTER TABLE sessions.session ALTER CONSTRAINT session_set_id_fkey DEFERRABLE INITIALLY DEFERRED;

---------------------------------------------------------------------------------------------------
-- Makers of partitions wait for each other on a table, which no reader can lock.

CREATE OR REPLACE FUNCTION chain.ensure_partitions(p_chain_id bigint, p_block bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    slice_blocks CONSTANT bigint := chain.slice_blocks();
    parent text;
    part text;
    slice bigint;
    locked boolean := false;
BEGIN
    IF p_chain_id IS NULL OR p_chain_id < 1 OR p_block IS NULL OR p_block < 0 OR p_block > 1000000000000 THEN
        RAISE EXCEPTION 'no partition for block % of chain %', p_block, p_chain_id USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH parent IN ARRAY ARRAY['account_event', 'erc1155_transfer', 'user_operation'] LOOP
        FOR slice IN SELECT generate_series(p_block / slice_blocks, p_block / slice_blocks + 1) LOOP
            part := format('%s_c%s_p%s', parent, p_chain_id, slice);
            -- A query, not to_regclass: that one answers from a cache that may not know yet what another has made.
            CONTINUE WHEN EXISTS (SELECT FROM pg_class WHERE relnamespace = 'chain'::regnamespace AND relname = part);
            IF NOT locked THEN
                -- Only who has something to make waits for another maker, and then looks again. Not an advisory lock: every
                -- login may hold those.
                LOCK TABLE chain.account_event IN SHARE UPDATE EXCLUSIVE MODE;
                locked := true;
                CONTINUE WHEN EXISTS (SELECT FROM pg_class WHERE relnamespace = 'chain'::regnamespace AND relname = part);
            END IF;
            EXECUTE format('CREATE TABLE chain.%I (LIKE chain.%I INCLUDING ALL)', part, parent);
            PERFORM chain.attach_partition(parent, part, p_chain_id, slice);
        END LOOP;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION chain.drop_partitions(p_chain_id bigint, p_table text, p_first_block bigint, p_before_block bigint)
    RETURNS TABLE (dropped_first bigint, dropped_last bigint, row_estimate bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    slice_blocks CONSTANT bigint := chain.slice_blocks();
    part record;
    thin name;
    kept bigint;
BEGIN
    IF p_table IS NULL OR p_table NOT IN ('account_event', 'erc1155_transfer', 'user_operation') THEN
        RAISE EXCEPTION 'chain.% has no partitions', p_table USING ERRCODE = 'invalid_parameter_value',
            HINT = 'one of account_event, erc1155_transfer, user_operation';
    END IF;
    -- Balances take in a transfer only when it is final.
    PERFORM FROM chain.chain WHERE chain_id = p_chain_id AND finalized_number >= p_before_block FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'chain % is not final up to block %', p_chain_id, p_before_block USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    FOR part IN
        SELECT c.oid, c.relname, s.slice, s.slice * slice_blocks AS first_block
          FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
         CROSS JOIN LATERAL (SELECT substring(c.relname FROM format('^%s_c%s_p(\d+)$', p_table, p_chain_id))::bigint AS slice) AS s
         WHERE i.inhparent = to_regclass(format('chain.%I', p_table))
           AND s.slice * slice_blocks >= p_first_block AND (s.slice + 1) * slice_blocks <= p_before_block
         ORDER BY s.slice
    LOOP
        kept := 0;
        IF p_table = 'account_event' THEN
            -- Where an account comes from and which modules it has is asked for ever, and is little.
            thin := part.relname || '_thin';
            EXECUTE format('CREATE TABLE chain.%I (LIKE chain.account_event INCLUDING ALL)', thin);
            EXECUTE format('INSERT INTO chain.%I SELECT * FROM chain.%I
                WHERE event IN (''AccountCreation'', ''AccountCreationWithoutIndex'', ''EnabledModule'', ''DisabledModule'')
                ORDER BY block_number, log_index', thin, part.relname);
            GET DIAGNOSTICS kept = ROW_COUNT;
        END IF;
        dropped_first := part.first_block;
        dropped_last := part.first_block + slice_blocks - 1;
        row_estimate := greatest(pg_stat_get_live_tuples(part.oid) - kept, 0);

        UPDATE chain.chain SET detail_from = greatest(detail_from, dropped_last + 1) WHERE chain_id = p_chain_id;
        LOCK TABLE chain.account_event IN SHARE UPDATE EXCLUSIVE MODE; -- as who makes partitions
        EXECUTE format('DROP TABLE chain.%I', part.relname);
        IF kept > 0 THEN
            EXECUTE format('ALTER TABLE chain.%I RENAME TO %I', thin, part.relname);
            PERFORM chain.attach_partition(p_table, part.relname, p_chain_id, part.slice);
        ELSIF p_table = 'account_event' THEN
            EXECUTE format('DROP TABLE chain.%I', thin);
        END IF;
        IF p_table <> 'erc1155_transfer' THEN
            UPDATE chain.coverage
               SET dropped = dropped + blocks * int8multirange(int8range(dropped_first, dropped_last + 1))
             WHERE chain_id = p_chain_id AND pass = 'logs' AND filter = 'accounts';
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

---------------------------------------------------------------------------------------------------
-- The writer changes of the evidence only what may change.

REVOKE UPDATE ON evidence.module_code, evidence.account_observation, evidence.unobserved FROM sessionwatch_writer;
GRANT UPDATE (has_code, block_number) ON evidence.module_code TO sessionwatch_writer;
GRANT UPDATE (tainted, enabled_managers) ON evidence.account_observation TO sessionwatch_writer;
REVOKE EXECUTE ON FUNCTION evidence.accept_backup() FROM PUBLIC;

---------------------------------------------------------------------------------------------------
-- Questions people ask, answered from indexes.

-- Not least(), which makes a time of null and keeps conditions on it above outer joins.
CREATE FUNCTION evidence.moment(bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_timestamp(int8smaller($1, 253402300799));
COMMENT ON FUNCTION evidence.moment(bigint) IS
    'Unix seconds as a time, at most the end of the year 9999, whatever a block claims; null stays null. Indexes stand on this expression.';
REVOKE EXECUTE ON FUNCTION evidence.moment(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION evidence.moment(bigint) TO sessionwatch_writer, sessionwatch_reader;
CREATE INDEX block_time ON chain.block USING brin (evidence.moment(block_time) timestamptz_minmax_multi_ops)
    WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX user_operation_transaction_hex ON chain.user_operation USING hash (evidence.hex(transaction_hash));
CREATE INDEX session_use_key_hex ON chain.session_use (evidence.hex(session_key), block_number);
CREATE INDEX erc1155_transfer_transaction_hex ON chain.erc1155_transfer USING hash (evidence.hex(transaction_hash));
DROP INDEX chain.erc1155_balance_contract_hex;
CREATE INDEX erc1155_balance_contract_hex ON chain.erc1155_balance (evidence.hex(contract), token_id);
CREATE INDEX reorg_detected ON chain.reorg (detected_at);
CREATE INDEX verdict_drifted_since ON chain.verdict (since_time) WHERE closed_block IS NULL AND verdict = 'drifted';
CREATE INDEX verdict_ever_drifted_since ON chain.verdict (since_time) WHERE verdict = 'drifted';
CREATE INDEX verdict_drift_ended ON chain.verdict (closed_time) WHERE verdict = 'drifted';
CREATE INDEX audit_finding_found ON chain.audit_finding (found_at);
DROP INDEX sessions.session_set_account;
CREATE INDEX session_set_account ON sessions.session_set (chain_id, account, evidence.hex(call_hash));
DROP INDEX sessions.session_set_hex;
CREATE INDEX session_set_hex ON sessions.session_set (evidence.hex(account), set_id);
DROP INDEX sessions.session_leaf;
CREATE INDEX session_leaf ON sessions.session (leaf, set_id);
CREATE INDEX session_key_hex ON sessions.session (evidence.hex(session_key));
CREATE INDEX session_valid_until ON sessions.session (valid_until);

CREATE OR REPLACE VIEW chain.canonical_root AS
SELECT o.chain_id, o.manager, o.account, o.block_number, o.block_hash, b.block_time, o.root
  FROM evidence.root_observation AS o
  JOIN chain.block AS b ON b.chain_id = o.chain_id AND b.block_number = o.block_number AND coalesce(b.hash = o.block_hash, false);

CREATE OR REPLACE VIEW chain.canonical_slots AS
SELECT o.chain_id, o.account, o.block_number, o.block_hash, b.block_time, o.implementation, o.fallback_handler, o.enabled_managers, o.tainted
  FROM evidence.account_observation AS o
  JOIN chain.block AS b ON b.chain_id = o.chain_id AND b.block_number = o.block_number AND coalesce(b.hash = o.block_hash, false);

CREATE OR REPLACE VIEW chain.root_change AS
SELECT o.chain_id, o.manager, o.account, o.block_number, o.block_hash, o.block_time, o.root,
       coalesce(p.root, '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea) AS previous_root,
       p.block_number AS previous_block,
       -- No later canonical observation differs: this change holds. Asked of changes only, hence the CASE: of each
       -- observation it would read all later ones.
       CASE WHEN o.root = p.root THEN false
            ELSE NOT EXISTS (
                SELECT FROM chain.canonical_root AS l
                 WHERE l.chain_id = o.chain_id AND l.manager = o.manager AND l.account = o.account
                   AND l.block_number > o.block_number AND l.root <> o.root) END AS is_current
  FROM chain.canonical_root AS o
  LEFT JOIN LATERAL (
      SELECT e.root, e.block_number FROM chain.canonical_root AS e
       WHERE e.chain_id = o.chain_id AND e.manager = o.manager AND e.account = o.account AND e.block_number < o.block_number
       ORDER BY e.block_number DESC LIMIT 1) AS p ON true
 WHERE o.root <> coalesce(p.root, '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea);

CREATE OR REPLACE VIEW chain.root_author AS
SELECT t.chain_id, t.block_number, t.manager, t.account, t.evidence,
       CASE WHEN doubt.attribution THEN 'ambiguous' ELSE t.attribution END AS attribution,
       CASE WHEN NOT doubt.attribution THEN t.transaction_hash END AS transaction_hash,
       CASE WHEN NOT doubt.attribution THEN t.user_op_hash END AS user_op_hash,
       CASE WHEN NOT doubt.attribution THEN t.leaf END AS leaf, t.module
  FROM chain.root_attribution AS t
 CROSS JOIN LATERAL (
      SELECT t.evidence = 'state' AND t.attribution <> 'none' AND EXISTS (
                 SELECT FROM chain.canonical_slots AS s
                  WHERE s.chain_id = t.chain_id AND s.account = t.account AND s.block_number <= t.block_number AND s.tainted
             ) AS attribution OFFSET 0) AS doubt;

CREATE OR REPLACE VIEW watch.session_root AS
SELECT r.chain_id, evidence.hex(r.manager) AS manager, evidence.hex(r.account) AS account, r.block_number::bigint AS block_number,
       evidence.hex(r.block_hash) AS block_hash, evidence.moment(r.block_time) AS block_time, evidence.hex(r.root) AS root,
       evidence.hex(r.previous_root) AS previous_root, evidence.hex(t.transaction_hash) AS transaction_hash,
       evidence.hex(t.user_op_hash) AS user_op_hash, coalesce(t.evidence, 'state') AS evidence,
       coalesce(t.attribution, 'none') AS attribution, evidence.hex(t.leaf) AS leaf,
       (SELECT evidence.hex(e.session_key) FROM chain.session_use AS e
         WHERE e.chain_id = r.chain_id AND e.account = r.account AND e.leaf = t.leaf AND e.block_number = r.block_number
           AND e.user_op_hash = t.user_op_hash
         LIMIT 1) AS session_key,
       coalesce(evidence.hex(t.module),
                (SELECT e.args ->> 'module' FROM chain.account_event AS e
                  WHERE e.chain_id = r.chain_id AND e.block_number = r.block_number AND e.account = r.account
                    AND e.transaction_hash = t.transaction_hash AND e.event IN ('ModuleTransaction', 'ExecutionFromModuleSuccess')
                    AND t.attribution = 'module'
                  ORDER BY e.log_index DESC LIMIT 1)) AS module, evidence.hex(k.bundler) AS bundler, s.set_id, s.matched_form,
       CASE WHEN t.block_number IS NULL OR since.block_number IS NULL THEN false
            WHEN since.block_number > r.block_number THEN true
            ELSE coalesce(int8range(since.block_number, r.block_number + 1) <@ (
                     SELECT v.blocks FROM chain.covered AS v
                      WHERE v.chain_id = r.chain_id AND v.pass = 'roots/' || evidence.hex(r.manager) AND v.filter = 'accounts'
                        AND v.cohort = coalesce(a.cohort_id, 0)), false) END AS change_block_exact,
       coalesce(r.block_number <= c.finalized_number, false) AS is_final,
       r.is_current
  FROM chain.root_change AS r
  JOIN chain.chain AS c ON c.chain_id = r.chain_id
  LEFT JOIN chain.account AS a ON a.chain_id = r.chain_id AND a.account = r.account
  LEFT JOIN chain.root_author AS t
    ON t.chain_id = r.chain_id AND t.block_number = r.block_number AND t.manager = r.manager AND t.account = r.account
  LEFT JOIN chain.bundle AS k ON k.chain_id = r.chain_id AND k.block_number = r.block_number AND k.transaction_hash = t.transaction_hash
 CROSS JOIN LATERAL (SELECT coalesce(r.previous_block + 1, a.block_number, c.start_block) AS block_number) AS since
  LEFT JOIN LATERAL (
      SELECT x.set_id, x.matched_form FROM sessions.session_set AS x
       WHERE x.chain_id = r.chain_id AND x.manager = r.manager AND x.account = r.account AND x.root = r.root
       ORDER BY x.set_id DESC LIMIT 1) AS s ON true;

CREATE OR REPLACE VIEW watch.session_root_current AS
SELECT k.chain_id, evidence.hex(k.manager) AS manager, evidence.hex(k.account) AS account, r.block_number, r.block_hash, r.block_time, r.root, r.previous_root, r.transaction_hash,
       r.user_op_hash, r.evidence, r.attribution, r.leaf, r.session_key, r.module, r.bundler, r.set_id, r.matched_form,
       r.change_block_exact, r.is_final
  FROM (SELECT DISTINCT o.chain_id, o.manager, o.account FROM evidence.root_observation AS o) AS k
 -- From the end: what holds, the last observation of something else, and the first after it.
 CROSS JOIN LATERAL (
      SELECT l.root FROM chain.canonical_root AS l
       WHERE l.chain_id = k.chain_id AND l.manager = k.manager AND l.account = k.account
       ORDER BY l.block_number DESC LIMIT 1) AS latest
  LEFT JOIN LATERAL (
      SELECT l.block_number FROM chain.canonical_root AS l
       WHERE l.chain_id = k.chain_id AND l.manager = k.manager AND l.account = k.account AND l.root <> latest.root
       ORDER BY l.block_number DESC LIMIT 1) AS other ON true
 CROSS JOIN LATERAL (
      SELECT l.block_number FROM chain.canonical_root AS l
       WHERE l.chain_id = k.chain_id AND l.manager = k.manager AND l.account = k.account
         AND l.block_number > coalesce(other.block_number, -1)
       ORDER BY l.block_number LIMIT 1) AS since
 CROSS JOIN LATERAL (
      SELECT * FROM watch.session_root AS w
       WHERE w.chain_id = k.chain_id AND w.account = evidence.hex(k.account) AND w.manager = evidence.hex(k.manager)
         AND w.block_number = since.block_number OFFSET 0) AS r;

CREATE OR REPLACE VIEW watch.session AS
SELECT s.chain_id, evidence.hex(s.manager) AS manager, evidence.hex(s.account) AS account, s.set_id, x.leaf_index,
       evidence.hex(x.leaf) AS leaf, x.valid_until, x.valid_after, evidence.hex(x.session_validation_module) AS session_validation_module,
       evidence.hex(x.session_key) AS session_key,
       CASE WHEN (SELECT o.root FROM chain.canonical_root AS o
                   WHERE o.chain_id = s.chain_id AND o.manager = s.manager AND o.account = s.account
                   ORDER BY o.block_number DESC LIMIT 1) IS DISTINCT FROM s.root THEN 'not_on_chain'
            WHEN x.valid_until <> 0 AND x.valid_until < c.indexed_time THEN 'expired'
            WHEN x.valid_after > c.indexed_time THEN 'not_yet_valid' ELSE 'active' END AS state,
       used.use_count, used.first_block AS first_used_block, used.last_block AS last_used_block, evidence.moment(b.block_time) AS last_used_time,
       x.client_status
  FROM sessions.session_set AS s
  JOIN sessions.session AS x ON x.set_id = s.set_id
  LEFT JOIN chain.chain AS c ON c.chain_id = s.chain_id
  LEFT JOIN LATERAL (
      SELECT count(DISTINCT u.user_op_hash) AS use_count, min(u.block_number)::bigint AS first_block, max(u.block_number)::bigint AS last_block
        FROM chain.session_use AS u
       WHERE u.chain_id = s.chain_id AND u.account = s.account AND u.leaf = x.leaf AND u.manager = s.manager
         AND u.manager = ANY (c.managers)) AS used ON true
  LEFT JOIN chain.block AS b ON b.chain_id = s.chain_id AND b.block_number = used.last_block;

CREATE OR REPLACE VIEW watch.session_use AS
SELECT u.chain_id, evidence.hex(u.manager) AS manager, evidence.hex(u.account) AS account, evidence.hex(u.user_op_hash) AS user_op_hash,
       evidence.hex(u.leaf) AS leaf, s.set_id, u.block_number::bigint AS block_number, evidence.moment(b.block_time) AS block_time,
       s.set_id IS NOT NULL AS known, evidence.hex(u.session_key) AS session_key,
       evidence.hex(u.session_validation_module) AS session_validation_module, u.valid_until, u.valid_after, p.success,
       evidence.hex(u.implied_root) AS implied_root,
       CASE WHEN u.implied_root = (
                SELECT o.root FROM chain.canonical_root AS o
                 WHERE o.chain_id = u.chain_id AND o.manager = u.manager AND o.account = u.account AND o.block_number < u.block_number
                 ORDER BY o.block_number DESC LIMIT 1) THEN 'held'
            WHEN EXISTS (
                SELECT FROM chain.canonical_root AS o
                 WHERE o.chain_id = u.chain_id AND o.manager = u.manager AND o.account = u.account AND o.block_number = u.block_number
                   AND o.root = u.implied_root) THEN 'held'
            WHEN EXISTS (
                SELECT FROM chain.root_hint AS h
                 WHERE h.chain_id = u.chain_id AND h.manager = u.manager AND h.account = u.account AND h.block_number = u.block_number
                   AND h.root = u.implied_root AND h.evidence <> 'signature') THEN 'inside_block'
            ELSE 'not_seen' END AS root_state,
       evidence.hex(u.called) AS called, evidence.hex(u.granted_contract) AS granted_contract,
       evidence.hex(u.granted_recipient) AS granted_recipient, u.granted_token_id::numeric AS granted_token_id,
       evidence.hex(p.transaction_hash) AS transaction_hash, u.log_index, u.use_index,
       coalesce(u.block_number <= c.finalized_number, false) AS is_final
  FROM chain.session_use AS u
  JOIN chain.chain AS c ON c.chain_id = u.chain_id
  LEFT JOIN chain.user_operation AS p ON p.chain_id = u.chain_id AND p.block_number = u.block_number AND p.log_index = u.log_index
  LEFT JOIN chain.block AS b ON b.chain_id = u.chain_id AND b.block_number = u.block_number
 CROSS JOIN LATERAL (
      -- The set whose root was proven, else the newest that holds the leaf. An inner node that a proof carries is in none.
      SELECT coalesce(
          (SELECT x.set_id FROM sessions.session_set AS x
            WHERE x.chain_id = u.chain_id AND x.manager = u.manager AND x.account = u.account AND x.root = u.implied_root
              AND EXISTS (SELECT FROM sessions.session AS l WHERE l.leaf = u.leaf AND l.set_id = x.set_id)
            ORDER BY x.set_id DESC LIMIT 1),
          (SELECT l.set_id FROM sessions.session AS l JOIN sessions.session_set AS x ON x.set_id = l.set_id
            WHERE l.leaf = u.leaf AND x.chain_id = u.chain_id AND x.manager = u.manager AND x.account = u.account
            ORDER BY l.set_id DESC LIMIT 1)) AS set_id) AS s
 -- Other modules may take a signature of the same shape, and ask nobody.
 WHERE u.manager = ANY (c.managers);

CREATE OR REPLACE VIEW watch.session_mint AS
SELECT t.chain_id, evidence.hex(u.account) AS account, evidence.hex(u.manager) AS manager, evidence.hex(u.user_op_hash) AS user_op_hash,
       evidence.hex(u.leaf) AS leaf, evidence.hex(u.session_key) AS session_key, evidence.hex(t.contract) AS contract,
       t.token_id::numeric AS token_id, t.amount::numeric AS amount, evidence.hex(t.from_address) AS from_address,
       evidence.hex(t.to_address) AS to_address,
       CASE WHEN coalesce(u.granted_contract, u.granted_recipient) IS NOT NULL OR u.granted_token_id IS NOT NULL
            THEN coalesce(u.granted_contract = t.contract, true) AND coalesce(u.granted_recipient = t.to_address, true)
                 AND coalesce(u.granted_token_id = t.token_id, true) END AS fits,
       u.granted_contract = t.contract AS fits_contract, u.granted_recipient = t.to_address AS fits_recipient,
       u.granted_token_id = t.token_id AS fits_token_id, evidence.hex(u.granted_contract) AS granted_contract,
       evidence.hex(u.granted_recipient) AS granted_recipient, u.granted_token_id::numeric AS granted_token_id,
       t.block_number::bigint AS block_number, t.log_index, t.batch_index, evidence.hex(t.transaction_hash) AS transaction_hash,
       evidence.moment(b.block_time) AS block_time
  FROM chain.session_use AS u
  JOIN chain.chain AS c ON c.chain_id = u.chain_id AND u.manager = ANY (c.managers)
  JOIN chain.erc1155_transfer AS t
    ON t.chain_id = u.chain_id AND t.block_number = u.block_number AND coalesce(t.user_op_hash = u.user_op_hash, false)
  LEFT JOIN chain.block AS b ON b.chain_id = t.chain_id AND b.block_number = t.block_number
 WHERE coalesce(u.use_index = (
      SELECT o.use_index FROM chain.session_use AS o
       WHERE o.chain_id = u.chain_id AND o.block_number = u.block_number AND o.log_index = u.log_index
       ORDER BY coalesce(o.called = t.contract, false) DESC,
                (coalesce(o.granted_contract = t.contract, true) AND coalesce(o.granted_recipient = t.to_address, true)
                 AND coalesce(o.granted_token_id = t.token_id, true)) DESC, o.use_index
       LIMIT 1), false);

CREATE OR REPLACE VIEW watch.verdict AS
SELECT v.chain_id, evidence.hex(v.manager) AS manager, evidence.hex(v.account) AS account, v.verdict, v.cause,
       v.warnings || CASE WHEN f.is_final THEN '{}'::text[] ELSE '{not_final}'::text[] END AS warnings, v.severity,
       v.since_block::bigint AS since_block, v.since_time, v.explanation, f.is_final,
       evidence.hex(v.on_chain_root) AS on_chain_root, evidence.hex(v.expected_root) AS expected_root, v.on_chain_set_id, v.expected_set_id,
       v.observed_block::bigint AS observed_block, v.block_number::bigint AS decided_block, v.verdict_id
  FROM chain.verdict AS v
  JOIN chain.chain AS c ON c.chain_id = v.chain_id
  LEFT JOIN chain.account AS a ON a.chain_id = v.chain_id AND a.account = v.account
 CROSS JOIN LATERAL (
      -- Coverage in a query of its own: who does not ask for is_final does not wait for it.
      SELECT CASE WHEN v.observed_block <= c.finalized_number
                  THEN coalesce(coalesce(a.block_number, c.start_block) > c.finalized_number
                           OR int8range(least(coalesce(a.block_number, c.start_block), c.finalized_number), c.finalized_number + 1) <@ (
                               SELECT d.blocks FROM chain.covered AS d
                                WHERE d.chain_id = v.chain_id AND d.pass = 'roots/' || evidence.hex(v.manager)
                                  AND d.filter = 'accounts' AND d.cohort = coalesce(a.cohort_id, 0)), false)
                  ELSE false END AS is_final) AS f
 WHERE v.closed_block IS NULL;

CREATE OR REPLACE VIEW chain.unfolded AS
SELECT t.chain_id, t.contract, moved.owner, t.token_id, sum(moved.delta) AS delta
  FROM chain.tail AS h
  JOIN chain.chain AS c ON c.chain_id = h.chain_id AND h.block_number > c.finalized_number
  JOIN chain.erc1155_transfer AS t ON t.chain_id = h.chain_id AND t.block_number = h.block_number
 CROSS JOIN LATERAL (VALUES (t.to_address, t.amount::numeric), (t.from_address, -t.amount::numeric)) AS moved (owner, delta)
 GROUP BY t.chain_id, t.contract, moved.owner, t.token_id;

CREATE OR REPLACE VIEW watch.erc1155_balance AS
SELECT g.chain_id, evidence.hex(g.contract) AS contract, evidence.hex(g.owner) AS owner, g.token_id::numeric AS token_id, g.balance,
       debt.complete
  FROM (SELECT f.chain_id, f.contract, f.owner, f.token_id, f.balance, false AS is_unfolded FROM chain.erc1155_balance AS f
        UNION ALL
        SELECT u.chain_id, u.contract, u.owner, u.token_id, coalesce(f.balance, 0) + u.delta, true
          FROM chain.unfolded AS u
          LEFT JOIN chain.erc1155_balance AS f
            ON f.chain_id = u.chain_id AND f.contract = u.contract AND f.owner = u.owner AND f.token_id = u.token_id) AS g
 CROSS JOIN LATERAL (
      SELECT coalesce(bool_or(CASE WHEN c.start_block <= c.finalized_number
                 THEN int8range(c.start_block, c.finalized_number + 1) <@ d.blocks END), false) AS complete
        FROM chain.chain AS c
       CROSS JOIN LATERAL (
            SELECT range_agg(k.blocks) AS blocks FROM (
                SELECT v.blocks FROM chain.coverage AS v
                 WHERE v.chain_id = c.chain_id AND v.pass = 'logs' AND v.cohort = 0
                   AND v.filter IN ('erc1155/all', 'erc1155/' || evidence.hex(g.contract))
                UNION ALL
                -- Of a watched owner every transfer is looked for, whatever the contract.
                SELECT w.blocks FROM chain.account AS a
                  JOIN chain.covered AS w ON w.chain_id = a.chain_id AND w.pass = 'logs' AND w.filter = 'erc1155/touching'
                                         AND w.cohort = a.token_cohort_id
                 WHERE a.chain_id = c.chain_id AND a.account = g.owner) AS k) AS d
       WHERE c.chain_id = g.chain_id) AS debt
 WHERE g.balance <> 0 AND g.owner <> '\x0000000000000000000000000000000000000000'::bytea
   AND (g.is_unfolded OR (g.chain_id, g.contract, g.owner, g.token_id) NOT IN (
           SELECT u.chain_id, u.contract, u.owner, u.token_id FROM chain.unfolded AS u));

CREATE OR REPLACE VIEW watch.unobserved AS
SELECT u.chain_id, evidence.hex(u.manager) AS manager, lower(u.blocks) AS first_block, upper(u.blocks) - 1 AS last_block, u.reason,
       u.recorded_at, hinted.accounts AS hinted_accounts, hinted.hints
  FROM (SELECT n.chain_id, n.manager, min(n.reason) AS reason, min(n.recorded_at) AS recorded_at,
               unnest(range_agg(int8range(n.first_block, n.last_block + 1))) AS blocks
          FROM evidence.unobserved AS n
         GROUP BY n.chain_id, n.manager) AS u
 -- Both counts of one query: to plan it takes longer than to run it.
 CROSS JOIN LATERAL (
      SELECT count(DISTINCT h.account)::integer AS accounts, count(*)::integer AS hints FROM chain.named_root AS h
       WHERE h.chain_id = u.chain_id AND h.manager = u.manager
         AND h.block_number BETWEEN lower(u.blocks) AND upper(u.blocks) - 1) AS hinted;

CREATE STATISTICS chain.verdict_account_hex ON (evidence.hex(account)) FROM chain.verdict;
COMMENT ON STATISTICS chain.verdict_account_hex IS 'How many verdicts an account has, by its hex text.';

CREATE OR REPLACE VIEW watch.session_root_transient AS
SELECT h.chain_id, evidence.hex(h.manager) AS manager, evidence.hex(h.account) AS account, h.block_number::bigint AS block_number,
       evidence.hex(b.hash) AS block_hash, evidence.moment(b.block_time) AS block_time, h.log_index, h.hint_index,
       evidence.hex(h.root) AS root, evidence.hex(o.root) AS final_root,
       CASE h.hint WHEN 'module' THEN 'event' ELSE h.hint END AS evidence,
       evidence.hex(h.transaction_hash) AS transaction_hash, evidence.hex(h.user_op_hash) AS user_op_hash,
       coalesce(h.block_number <= c.finalized_number, false) AS is_final
  FROM chain.named_root AS h
  JOIN chain.chain AS c ON c.chain_id = h.chain_id
  JOIN chain.block AS b ON b.chain_id = h.chain_id AND b.block_number = h.block_number
  JOIN LATERAL (
      SELECT o.block_number, o.root FROM chain.canonical_root AS o
       WHERE o.chain_id = h.chain_id AND o.manager = h.manager AND o.account = h.account AND o.block_number <= h.block_number
       ORDER BY o.block_number DESC LIMIT 1) AS o ON true
 WHERE h.hint <> 'signature' AND h.root <> o.root
   -- A call of an address without code succeeds, and sets nothing.
   AND EXISTS (SELECT FROM evidence.root_observation AS w WHERE w.chain_id = h.chain_id AND w.manager = h.manager
                  AND w.root <> '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea)
   -- A root that was not read at that block proves nothing about it.
   AND (o.block_number = h.block_number OR EXISTS (
           SELECT FROM chain.root_attribution AS t
            WHERE t.chain_id = h.chain_id AND t.block_number = h.block_number AND t.manager = h.manager AND t.account = h.account));

CREATE OR REPLACE VIEW watch.root_disagreement AS
SELECT t.chain_id, evidence.hex(t.manager) AS manager, evidence.hex(t.account) AS account, t.block_number::bigint AS block_number,
       evidence.moment(o.block_time) AS block_time, evidence.hex(o.root) AS state_root, t.contradicting_evidence AS evidence,
       evidence.hex(t.contradicting_root) AS evidence_root, evidence.hex(t.transaction_hash) AS transaction_hash,
       coalesce(t.block_number <= c.finalized_number, false) AS is_final
  FROM chain.root_attribution AS t
  JOIN chain.chain AS c ON c.chain_id = t.chain_id
  JOIN chain.canonical_root AS o
    ON o.chain_id = t.chain_id AND o.manager = t.manager AND o.account = t.account AND o.block_number = t.block_number
 WHERE t.contradicting_root IS NOT NULL
   -- A call of an address without code succeeds, and sets nothing.
   AND EXISTS (SELECT FROM evidence.root_observation AS w WHERE w.chain_id = t.chain_id AND w.manager = t.manager
                  AND w.root <> '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea)
   -- A tainted account's root may change beside its operations; an event of the manager tells of that, too.
   AND (t.contradicting_evidence = 'event' OR NOT EXISTS (
           SELECT FROM chain.canonical_slots AS s
            WHERE s.chain_id = t.chain_id AND s.account = t.account AND s.block_number <= t.block_number AND s.tainted));

CREATE OR REPLACE VIEW watch.account_event AS
SELECT e.chain_id, evidence.hex(e.account) AS account, e.block_number::bigint AS block_number, e.log_index, e.event, e.args,
       evidence.hex(e.transaction_hash) AS transaction_hash, evidence.hex(e.user_op_hash) AS user_op_hash,
       evidence.moment(b.block_time) AS block_time
  FROM chain.account_event AS e
  LEFT JOIN chain.block AS b ON b.chain_id = e.chain_id AND b.block_number = e.block_number;

CREATE OR REPLACE VIEW watch.user_operation AS
SELECT u.chain_id, evidence.hex(u.user_op_hash) AS user_op_hash, evidence.hex(u.sender) AS sender, u.nonce::numeric AS nonce,
       evidence.hex(u.paymaster) AS paymaster, u.success, u.actual_gas_cost::numeric AS actual_gas_cost,
       u.actual_gas_used::numeric AS actual_gas_used, u.block_number::bigint AS block_number, u.log_index,
       evidence.hex(u.transaction_hash) AS transaction_hash, evidence.hex(u.entry_point) AS entry_point,
       evidence.hex(d.validation_module) AS validation_module, d.calls, evidence.moment(b.block_time) AS block_time,
       evidence.hex(k.bundler) AS bundler, evidence.hex(k.called) AS bundle_called
  FROM chain.user_operation AS u
  LEFT JOIN chain.bundle AS k ON k.chain_id = u.chain_id AND k.block_number = u.block_number AND k.transaction_hash = u.transaction_hash
  LEFT JOIN chain.user_operation_body AS d ON d.chain_id = u.chain_id AND d.block_number = u.block_number AND d.log_index = u.log_index
  LEFT JOIN chain.block AS b ON b.chain_id = u.chain_id AND b.block_number = u.block_number;

CREATE OR REPLACE VIEW watch.erc1155_transfer AS
SELECT t.chain_id, evidence.hex(t.contract) AS contract, t.block_number::bigint AS block_number, t.log_index, t.batch_index,
       evidence.hex(t.operator) AS operator, evidence.hex(t.from_address) AS from_address, evidence.hex(t.to_address) AS to_address,
       t.token_id::numeric AS token_id, t.amount::numeric AS amount, evidence.hex(t.transaction_hash) AS transaction_hash,
       evidence.hex(t.user_op_hash) AS user_op_hash, evidence.moment(b.block_time) AS block_time
  FROM chain.erc1155_transfer AS t
  LEFT JOIN chain.block AS b ON b.chain_id = t.chain_id AND b.block_number = t.block_number;

CREATE OR REPLACE VIEW watch.erc1155_approval AS
SELECT p.chain_id, evidence.hex(p.contract) AS contract, p.block_number::bigint AS block_number, p.log_index,
       evidence.hex(p.account) AS account, evidence.hex(p.operator) AS operator, p.approved,
       evidence.hex(p.transaction_hash) AS transaction_hash, evidence.moment(b.block_time) AS block_time
  FROM chain.erc1155_approval AS p
  LEFT JOIN chain.block AS b ON b.chain_id = p.chain_id AND b.block_number = p.block_number;

CREATE OR REPLACE VIEW watch.erc1155_uri AS
SELECT u.chain_id, evidence.hex(u.contract) AS contract, u.block_number::bigint AS block_number, u.log_index,
       u.token_id::numeric AS token_id, u.value, evidence.hex(u.transaction_hash) AS transaction_hash,
       evidence.moment(b.block_time) AS block_time
  FROM chain.erc1155_uri AS u
  LEFT JOIN chain.block AS b ON b.chain_id = u.chain_id AND b.block_number = u.block_number;

GRANT SELECT ON chain.unfolded TO sessionwatch_writer;
COMMENT ON VIEW chain.unfolded IS 'What transfers above the finalized block add to the balances in chain.erc1155_balance.';
COMMENT ON COLUMN chain.unfolded.chain_id IS 'The chain''s id.';
COMMENT ON COLUMN chain.unfolded.contract IS 'The ERC-1155 contract.';
COMMENT ON COLUMN chain.unfolded.owner IS 'Who holds the tokens.';
COMMENT ON COLUMN chain.unfolded.token_id IS 'The token''s id.';
COMMENT ON COLUMN chain.unfolded.delta IS 'Received minus sent.';

-- Indexes on expressions are chosen by what is known of their values.
ANALYZE chain.block, chain.user_operation, chain.session_use, chain.erc1155_transfer, chain.erc1155_balance, chain.reorg, chain.verdict,
    chain.audit_finding, sessions.session_set, sessions.session;
