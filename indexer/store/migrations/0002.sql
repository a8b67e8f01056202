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
