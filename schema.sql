-- Sessionwatch: the database, and the interface people query.
--
-- Four schemas:
--   chain     rows of the chain; can be dropped and indexed again
--   evidence  observations of state, keyed by block hash: true for ever, not re-readable from pruned nodes. Back up.
--   sessions  what clients stored; nobody else has it. Back up.
--   watch     views for people: 0x hex text, timestamptz, numeric amounts
--
-- Apply it with `sessionwatch schema apply`, or: psql -1 -v ON_ERROR_STOP=1 -f schema.sql
-- It holds no psql commands and no BEGIN/COMMIT of its own.
--
-- What changes here needs the same in the migration that leads to this version (indexer/store/migrations), new columns
-- last in their table: a migrated database is compared with a fresh one, object by object.

-- Roles belong to the whole cluster: another database may have made them, and another transaction may be making
-- them now. What the caller may not change, because an administrator set the roles up, stays as it is.
DO $$
DECLARE
    role_name text;
    role_text text;
    setting_name text;
    setting_value text;
    lock_function text;
    superuser CONSTANT boolean := (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user);
BEGIN
    FOR role_name, role_text IN VALUES
        ('sessionwatch_owner', 'Owns every object of Sessionwatch. Nobody logs in as it; `sessionwatch schema apply` acts as it.'),
        ('sessionwatch_writer', 'What the daemon acts as: writes chain, evidence and sessions, makes partitions, no other DDL. GRANT it to the daemon''s login role.'),
        ('sessionwatch_reader', 'Grafana and people: SELECT on the views of watch and nothing else. Its settings (read only, time limits, 30'
            ' connections) hold for who logs in as this very role (ALTER ROLE sessionwatch_reader LOGIN PASSWORD …); a login role that is only'
            ' a member needs ALTER ROLE … SET of its own. The rights do not depend on them.')
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        BEGIN
            IF shobj_description(to_regrole(role_name), 'pg_authid') IS DISTINCT FROM role_text THEN
                EXECUTE format('COMMENT ON ROLE %I IS %L', role_name, role_text);
            END IF;
        EXCEPTION WHEN insufficient_privilege OR unique_violation OR internal_error THEN
            NULL; -- internal_error: "tuple concurrently updated"
        END;
    END LOOP;
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
    -- A creator without superuser rights gets ADMIN but not SET on its roles since Postgres 16.
    BEGIN
        IF NOT superuser AND current_user <> 'sessionwatch_owner' THEN
            EXECUTE format('GRANT sessionwatch_owner TO %I', current_user);
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL; -- SET LOCAL ROLE below says whether the caller may act as the owner
    END;
    EXECUTE format('GRANT CREATE, CONNECT, TEMPORARY ON DATABASE %I TO sessionwatch_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO sessionwatch_writer', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO sessionwatch_reader', current_database());
    -- Temporary tables, large objects and the schema public are the places where every role may write.
    BEGIN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
    EXCEPTION WHEN insufficient_privilege OR invalid_schema_name THEN
        NULL;
    END;
    IF superuser THEN
        REVOKE EXECUTE ON FUNCTION pg_catalog.lo_creat(integer), pg_catalog.lo_create(oid),
            pg_catalog.lo_from_bytea(oid, bytea) FROM PUBLIC;
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

DO $$
BEGIN
    IF current_user <> 'sessionwatch_owner' THEN
        RAISE EXCEPTION 'schema.sql has to run in one transaction'
            USING HINT = 'psql -1 -v ON_ERROR_STOP=1 -f schema.sql';
    END IF;
END
$$;

CREATE SCHEMA evidence;
CREATE SCHEMA sessions;
CREATE SCHEMA chain;
CREATE SCHEMA watch;

---------------------------------------------------------------------------------------------------
-- Domains stand in `evidence`, so that dropping `chain` takes nothing else with it.

CREATE DOMAIN evidence.address AS bytea CHECK (octet_length(VALUE) = 20);
CREATE DOMAIN evidence.hash32 AS bytea CHECK (octet_length(VALUE) = 32);
CREATE DOMAIN evidence.uint256 AS numeric(78, 0) CHECK (VALUE >= 0 AND VALUE < 115792089237316195423570985008687907853269984665640564039457584007913129639936);
CREATE DOMAIN evidence.block_number AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN evidence.unix_seconds AS bigint CHECK (VALUE >= 0);

CREATE FUNCTION evidence.hex(bytea) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN '0x' || encode($1, 'hex');

-- Not least(), which makes a time of null and keeps conditions on it above outer joins.
CREATE FUNCTION evidence.moment(bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_timestamp(int8smaller($1, 253402300799));

CREATE TABLE evidence.schema_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    restores_from integer NOT NULL DEFAULT 1    -- back-ups of this version and later ones can be restored into this one
);
INSERT INTO evidence.schema_version (version) VALUES (2);

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

---------------------------------------------------------------------------------------------------
-- chain

-- One row per chain: the marker, the tip, the epoch that fences writers.
CREATE TABLE chain.chain (
    chain_id bigint PRIMARY KEY CHECK (chain_id > 0),
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9_]+$'),
    epoch bigint NOT NULL DEFAULT 0,            -- grows when a process takes over; a writer of an older epoch is refused
    watch_version bigint NOT NULL DEFAULT 0,    -- grows when an account is adopted; a step planned before it is planned again
    start_block evidence.block_number,          -- history debt begins here
    detail_from evidence.block_number,          -- retention has dropped raw rows of blocks below this one; null: of none
    finalized_number evidence.block_number,     -- the marker: final by the node's word, and its hash is ours
    finalized_hash evidence.hash32,
    finalized_time evidence.unix_seconds,
    indexed_number evidence.block_number,       -- the tip of the tail: how far the live lane has committed
    indexed_hash evidence.hash32,
    indexed_time evidence.unix_seconds,
    latest_number evidence.block_number,        -- the node's tip when last asked
    latest_time evidence.unix_seconds,
    confirmed_at timestamptz,                   -- database time just before the head of the last finished step was asked for
    finality_violation text,                    -- not null: node and database disagree at or below finality; says where
    managers bytea[] NOT NULL DEFAULT '{}',     -- as configured when the daemon last started, in order
    next_cohort integer NOT NULL DEFAULT 1,     -- numbers of cohorts are never used again: somebody may remember the old one
    accounts_mode text NOT NULL DEFAULT 'factory' CHECK (accounts_mode IN ('factory', 'stored', 'list')),
    settings jsonb NOT NULL DEFAULT '{}',       -- the configuration the daemon last started with, without node URLs
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((finalized_number IS NULL) = (finalized_hash IS NULL)),
    CHECK ((indexed_number IS NULL) = (indexed_hash IS NULL))
);

-- Headers from the finalized block to the tip, without holes, empty blocks too.
CREATE TABLE chain.tail (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    hash evidence.hash32 NOT NULL,
    parent_hash evidence.hash32 NOT NULL,
    block_time evidence.unix_seconds NOT NULL,
    PRIMARY KEY (chain_id, block_number)
);

-- Canonical blocks that some row or observation refers to.
CREATE TABLE chain.block (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    hash evidence.hash32 NOT NULL,
    block_time evidence.unix_seconds NOT NULL,
    PRIMARY KEY (chain_id, block_number)
);
-- Of every view: what happened in the last hour. Times rise with the rows, so a summary of each 16 pages does, and writing
-- pays next to nothing; of several values, because live blocks stand among those that history brings.
CREATE INDEX block_time ON chain.block USING brin (evidence.moment(block_time) timestamptz_minmax_multi_ops)
    WITH (pages_per_range = 16, autosummarize = on);

-- Groups of accounts that were learnt together otherwise than from the factory; each has a history debt of its own.
-- Cohort 0 is everything else.
CREATE TABLE chain.cohort (
    chain_id bigint NOT NULL,
    cohort_id integer NOT NULL CHECK (cohort_id > 0),
    adopted_block evidence.block_number NOT NULL,  -- the lanes watch its accounts above this block; below it the debt
    source text NOT NULL DEFAULT 'stored' CHECK (source IN ('stored', 'list', 'factory', 'tainted', 'token')),
    PRIMARY KEY (chain_id, cohort_id)
);

-- The watch list.
CREATE TABLE chain.account (
    chain_id bigint NOT NULL,
    account evidence.address NOT NULL,
    cohort_id integer NOT NULL DEFAULT 0,
    token_cohort_id integer NOT NULL DEFAULT 0, -- the same for transfers that touch it: those may come before its creation
    block_number evidence.block_number,         -- where the factory created it; null if it was learnt otherwise
    source text NOT NULL CHECK (source IN ('factory', 'stored', 'list')),
    seq bigint GENERATED ALWAYS AS IDENTITY,    -- order of learning: a daemon loads what is new above the last it has
    PRIMARY KEY (chain_id, account)
);
CREATE INDEX account_block ON chain.account (chain_id, block_number);
CREATE INDEX account_seq ON chain.account (chain_id, seq);
CREATE INDEX account_cohort ON chain.account (chain_id, cohort_id) WHERE cohort_id > 0;
CREATE INDEX account_token_cohort ON chain.account (chain_id, token_cohort_id) WHERE token_cohort_id > 0;
CREATE INDEX account_hex ON chain.account (evidence.hex(account));

CREATE TABLE chain.account_event (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    log_index integer NOT NULL,
    transaction_index integer NOT NULL,
    transaction_hash evidence.hash32 NOT NULL,
    account evidence.address NOT NULL,
    event text NOT NULL,
    args jsonb NOT NULL,
    user_op_hash evidence.hash32,
    PRIMARY KEY (chain_id, block_number, log_index)
) PARTITION BY RANGE (chain_id, block_number);
CREATE INDEX account_event_account ON chain.account_event (chain_id, account, block_number, log_index);
CREATE INDEX account_event_hex ON chain.account_event (evidence.hex(account), block_number);
-- What watch.account counts: few of an account's events.
CREATE INDEX account_event_module ON chain.account_event (chain_id, account, block_number, log_index)
    WHERE event IN ('AccountCreation', 'AccountCreationWithoutIndex', 'EnabledModule', 'DisabledModule');

CREATE TABLE chain.user_operation (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    log_index integer NOT NULL,
    transaction_index integer NOT NULL,
    transaction_hash evidence.hash32 NOT NULL,
    user_op_hash evidence.hash32 NOT NULL,
    entry_point evidence.address NOT NULL,
    sender evidence.address NOT NULL,
    paymaster evidence.address NOT NULL,        -- zero: none
    nonce evidence.uint256 NOT NULL,
    success boolean NOT NULL,
    actual_gas_cost evidence.uint256 NOT NULL,  -- wei
    actual_gas_used evidence.uint256 NOT NULL,
    PRIMARY KEY (chain_id, block_number, log_index)
) PARTITION BY RANGE (chain_id, block_number);
CREATE INDEX user_operation_sender ON chain.user_operation (chain_id, sender, block_number, log_index);
CREATE INDEX user_operation_sender_hex ON chain.user_operation (evidence.hex(sender), block_number);
CREATE INDEX user_operation_hash_hex ON chain.user_operation (evidence.hex(user_op_hash));
-- Hash: a third of a B-tree on 66 characters.
CREATE INDEX user_operation_transaction_hex ON chain.user_operation USING hash (evidence.hex(transaction_hash));

-- What the handleOps input says of a stored user operation. A pass of its own: it needs the transaction.
CREATE TABLE chain.user_operation_body (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    log_index integer NOT NULL,                 -- of the operation's UserOperationEvent
    user_op_hash evidence.hash32 NOT NULL,
    factory evidence.address,                   -- of initCode; null if the account was there
    validation_module evidence.address,
    calls jsonb NOT NULL,                       -- [{to, value, selector, data_bytes}]
    PRIMARY KEY (chain_id, block_number, log_index)
);

-- Who sent the transactions that carried watched user operations, and to which contract.
CREATE TABLE chain.bundle (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    transaction_hash evidence.hash32 NOT NULL,
    bundler evidence.address NOT NULL,
    called evidence.address,                    -- the EntryPoint, or a contract that called it; null: the transaction made a contract
    PRIMARY KEY (chain_id, block_number, transaction_hash)
);

-- The sessions that signed user operations, as the operations' signatures present them.
CREATE TABLE chain.session_use (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    log_index integer NOT NULL,                 -- of the operation's UserOperationEvent
    use_index integer NOT NULL,                 -- the batched router presents several
    user_op_hash evidence.hash32 NOT NULL,
    manager evidence.address NOT NULL,
    account evidence.address NOT NULL,
    leaf evidence.hash32 NOT NULL,
    implied_root evidence.hash32 NOT NULL,      -- the root at validation, as the proof shows it
    called evidence.address,                    -- the call this session stands for; null: it stands for all, or the calls are not known
    valid_until bigint NOT NULL,
    valid_after bigint NOT NULL,
    session_validation_module evidence.address NOT NULL,
    session_key evidence.address,               -- this and what is granted: by the module's layout, else null
    granted_contract evidence.address,
    granted_recipient evidence.address,
    granted_token_id evidence.uint256,
    session_key_data bytea NOT NULL,            -- kept, so that a layout configured later is applied to the past
    PRIMARY KEY (chain_id, block_number, log_index, use_index)
);
CREATE INDEX session_use_leaf ON chain.session_use (chain_id, account, leaf, block_number);
CREATE INDEX session_use_hex ON chain.session_use (evidence.hex(account), block_number);
CREATE INDEX session_use_hash_hex ON chain.session_use (evidence.hex(user_op_hash));
CREATE INDEX session_use_key_hex ON chain.session_use (evidence.hex(session_key), block_number);
CREATE INDEX session_use_module ON chain.session_use (chain_id, session_validation_module);

CREATE TABLE chain.erc1155_transfer (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    log_index integer NOT NULL,
    batch_index integer NOT NULL,
    transaction_hash evidence.hash32 NOT NULL,
    contract evidence.address NOT NULL,
    operator evidence.address NOT NULL,
    from_address evidence.address NOT NULL,
    to_address evidence.address NOT NULL,
    token_id evidence.uint256 NOT NULL,
    amount evidence.uint256 NOT NULL,
    user_op_hash evidence.hash32,
    PRIMARY KEY (chain_id, block_number, log_index, batch_index)
) PARTITION BY RANGE (chain_id, block_number);
CREATE INDEX erc1155_transfer_contract_hex ON chain.erc1155_transfer (evidence.hex(contract), block_number);
CREATE INDEX erc1155_transfer_from_hex ON chain.erc1155_transfer (evidence.hex(from_address), block_number);
CREATE INDEX erc1155_transfer_to_hex ON chain.erc1155_transfer (evidence.hex(to_address), block_number);
CREATE INDEX erc1155_transfer_transaction_hex ON chain.erc1155_transfer USING hash (evidence.hex(transaction_hash));

-- Balances folded from final transfers only; the views add the tail. May be negative before history is complete.
CREATE TABLE chain.erc1155_balance (
    chain_id bigint NOT NULL,
    contract evidence.address NOT NULL,
    owner evidence.address NOT NULL,
    token_id evidence.uint256 NOT NULL,
    balance numeric NOT NULL,
    PRIMARY KEY (chain_id, contract, owner, token_id)
);
CREATE INDEX erc1155_balance_owner_hex ON chain.erc1155_balance (evidence.hex(owner));
-- Without the balance: each change of it would be a new entry in every index of the table.
CREATE INDEX erc1155_balance_contract_hex ON chain.erc1155_balance (evidence.hex(contract), token_id);

CREATE TABLE chain.erc1155_approval (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    log_index integer NOT NULL,
    transaction_hash evidence.hash32 NOT NULL,
    contract evidence.address NOT NULL,
    account evidence.address NOT NULL,
    operator evidence.address NOT NULL,
    approved boolean NOT NULL,
    PRIMARY KEY (chain_id, block_number, log_index)
);
CREATE INDEX erc1155_approval_contract_hex ON chain.erc1155_approval (evidence.hex(contract), block_number);
CREATE INDEX erc1155_approval_account_hex ON chain.erc1155_approval (evidence.hex(account), block_number);

CREATE TABLE chain.erc1155_uri (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    log_index integer NOT NULL,
    transaction_hash evidence.hash32 NOT NULL,
    contract evidence.address NOT NULL,
    token_id evidence.uint256 NOT NULL,
    value text NOT NULL,                        -- NUL removed, cut to 8192 characters
    PRIMARY KEY (chain_id, block_number, log_index)
);
CREATE INDEX erc1155_uri_contract_hex ON chain.erc1155_uri (evidence.hex(contract), block_number);

-- Roots that something other than state names: calldata of operations that succeeded, events, signatures.
-- They attribute and hint; they never decide.
CREATE TABLE chain.root_hint (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    log_index integer NOT NULL,                 -- of the UserOperationEvent or MerkleRootUpdated log
    hint_index integer NOT NULL,                -- order inside one operation
    manager evidence.address NOT NULL,
    account evidence.address NOT NULL,
    root evidence.hash32 NOT NULL,
    evidence text NOT NULL CHECK (evidence IN ('event', 'calldata', 'signature', 'trace')),
    transaction_hash evidence.hash32 NOT NULL,
    user_op_hash evidence.hash32,
    leaf evidence.hash32,                       -- the session that signed the operation, if it was one
    PRIMARY KEY (chain_id, block_number, log_index, hint_index)
);
CREATE INDEX root_hint_account ON chain.root_hint (chain_id, manager, account, block_number);
CREATE INDEX root_hint_hex ON chain.root_hint (evidence.hex(account), block_number);

-- Who changed a root, as far as the block's logs and inputs say. One row per account read at a trigger.
CREATE TABLE chain.root_attribution (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    manager evidence.address NOT NULL,
    account evidence.address NOT NULL,
    evidence text NOT NULL CHECK (evidence IN ('state', 'event', 'calldata', 'signature', 'trace')),
    attribution text NOT NULL CHECK (attribution IN ('user_operation', 'session_key', 'module', 'transaction', 'ambiguous', 'none')),
    transaction_hash evidence.hash32,
    user_op_hash evidence.hash32,
    leaf evidence.hash32,                       -- the session that signed the operation
    module evidence.address,                    -- which module acted; only a trace says it here
    contradicting_evidence text CHECK (contradicting_evidence IN ('event', 'calldata', 'signature', 'trace')),
    contradicting_root evidence.hash32,         -- what must stand by that evidence, and does not by state
    PRIMARY KEY (chain_id, block_number, manager, account),
    CHECK ((contradicting_evidence IS NULL) = (contradicting_root IS NULL))
);
CREATE INDEX root_attribution_account ON chain.root_attribution (chain_id, manager, account, block_number);
CREATE INDEX root_attribution_contradicted ON chain.root_attribution (evidence.hex(account), block_number) WHERE contradicting_root IS NOT NULL;

-- Changes of roots that logs and inputs did not settle, to be looked for in traces; only filled while traces are configured.
CREATE TABLE chain.trace_queue (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    manager evidence.address NOT NULL,
    account evidence.address NOT NULL,
    attempts integer NOT NULL DEFAULT 0,        -- how often a node had no usable answer
    not_before timestamptz NOT NULL DEFAULT now(), -- it is asked again after a pause that doubles
    PRIMARY KEY (chain_id, block_number, manager, account)
);

CREATE TABLE chain.undecoded_log (
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    log_index integer NOT NULL,
    transaction_hash evidence.hash32 NOT NULL,
    address evidence.address NOT NULL,
    topics bytea[] NOT NULL,
    data bytea NOT NULL,                        -- cut to 131072 bytes
    reason text NOT NULL,
    PRIMARY KEY (chain_id, block_number, log_index)
);
CREATE INDEX undecoded_log_address_hex ON chain.undecoded_log (evidence.hex(address), block_number);

-- Which final blocks each pass has done. The tail is the live lane's own coverage; the views add it.
CREATE TABLE chain.coverage (
    chain_id bigint NOT NULL,
    pass text NOT NULL CHECK (pass = 'logs' OR pass = 'bodies' OR pass LIKE 'roots/0x%'),
    filter text NOT NULL,                       -- 'factory/0x…', 'accounts', 'erc1155/0x…', 'erc1155/touching', 'erc1155/all'
    cohort integer NOT NULL DEFAULT 0,
    blocks int8multirange NOT NULL DEFAULT '{}',
    dropped int8multirange NOT NULL DEFAULT '{}',  -- of the covered blocks, those whose raw rows retention has dropped
    live_from evidence.block_number,            -- the live lane has this filter's rows above this block; null: not followed live
    begun boolean NOT NULL DEFAULT false,       -- some range was claimed: an account that joins now would miss it
    PRIMARY KEY (chain_id, pass, filter, cohort)
);

-- How fast debt was paid lately: sums over the last ranges, older ones counting less.
CREATE TABLE chain.pace (
    chain_id bigint NOT NULL,
    pass text NOT NULL CHECK (pass IN ('logs', 'bodies', 'roots')),
    blocks double precision NOT NULL,
    seconds double precision NOT NULL,
    requests double precision NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, pass)
);

CREATE TABLE chain.reorg (
    reorg_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain_id bigint NOT NULL,
    detected_at timestamptz NOT NULL DEFAULT now(),
    common_ancestor bigint NOT NULL,
    depth integer NOT NULL,
    old_tip_number bigint,
    old_tip_hash bytea,
    new_tip_number bigint,
    new_tip_hash bytea,
    reason text NOT NULL DEFAULT 'reorg' CHECK (reason IN ('reorg', 'operator'))
);
CREATE INDEX reorg_detected ON chain.reorg (detected_at);

-- Rows of blocks that lost, as they stood.
CREATE TABLE chain.orphan (
    reorg_id bigint NOT NULL REFERENCES chain.reorg,
    chain_id bigint NOT NULL,
    table_name text NOT NULL,
    row_data jsonb NOT NULL
);
CREATE INDEX orphan_reorg ON chain.orphan (reorg_id);

-- Decisions: a row per change of verdict; the open one (closed_block null) is what holds now.
-- block_number is the indexed block at which it was decided.
CREATE TABLE chain.verdict (
    verdict_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,
    closed_block evidence.block_number,
    closed_time timestamptz,
    manager evidence.address NOT NULL,
    account evidence.address NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('in_sync', 'pending', 'drifted', 'unmanaged', 'empty', 'unknown')),
    cause text CHECK (cause IN ('tainted_account', 'rotated_by_session_key', 'manager_disabled', 'module_without_code',
        'cleared_on_chain', 'reverted_to_older_set', 'superseded', 'never_landed', 'manager_mismatch', 'order_or_duplicates',
        'lost_sessions', 'revoked_still_provable', 'unknown_root')),
    warnings text[] NOT NULL DEFAULT '{}',
    severity text NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    since_block evidence.block_number,
    since_time timestamptz NOT NULL,
    explanation text NOT NULL,
    observed_block evidence.block_number,       -- of the observation it rests on; null if none
    on_chain_root evidence.hash32,
    on_chain_set_id bigint,
    expected_root evidence.hash32,
    expected_set_id bigint,
    recheck_at timestamptz,                     -- database time after which time alone may change it (grace)
    recheck_block_time evidence.unix_seconds,   -- block time after which time alone may change it (expiry)
    by_time_only boolean NOT NULL DEFAULT false,
    CHECK ((verdict = 'drifted') = (cause IS NOT NULL))
);
CREATE UNIQUE INDEX verdict_open ON chain.verdict (chain_id, manager, account) WHERE closed_block IS NULL;
CREATE INDEX verdict_block ON chain.verdict (chain_id, block_number);
CREATE INDEX verdict_closed ON chain.verdict (chain_id, closed_block);
CREATE INDEX verdict_account ON chain.verdict (chain_id, manager, account, block_number);
CREATE INDEX verdict_state ON chain.verdict (chain_id, verdict, cause) WHERE closed_block IS NULL;
CREATE INDEX verdict_hex ON chain.verdict (evidence.hex(account)) WHERE closed_block IS NULL;
CREATE INDEX verdict_drifted ON chain.verdict (chain_id, since_time, verdict_id) WHERE closed_block IS NULL AND verdict = 'drifted';
-- Of all chains; and drifts that are over, too.
CREATE INDEX verdict_drifted_since ON chain.verdict (since_time) WHERE closed_block IS NULL AND verdict = 'drifted';
CREATE INDEX verdict_ever_drifted_since ON chain.verdict (since_time) WHERE verdict = 'drifted';
CREATE INDEX verdict_drift_ended ON chain.verdict (closed_time) WHERE verdict = 'drifted';
CREATE INDEX verdict_drifted_hex ON chain.verdict (evidence.hex(account), block_number) WHERE verdict = 'drifted';
-- What indexes of some rows know of an expression is not asked for estimates.
CREATE STATISTICS chain.verdict_account_hex ON (evidence.hex(account)) FROM chain.verdict;
COMMENT ON STATISTICS chain.verdict_account_hex IS 'How many verdicts an account has, by its hex text.';
CREATE INDEX verdict_recheck_at ON chain.verdict (chain_id, recheck_at) WHERE closed_block IS NULL AND recheck_at IS NOT NULL;
CREATE INDEX verdict_recheck_time ON chain.verdict (chain_id, recheck_block_time)
    WHERE closed_block IS NULL AND recheck_block_time IS NOT NULL;

-- (manager, account) whose inputs changed and that the chain's daemon has to decide again.
CREATE TABLE chain.verdict_queue (
    chain_id bigint NOT NULL,
    manager evidence.address NOT NULL,
    account evidence.address NOT NULL,
    read_state boolean NOT NULL DEFAULT false,  -- true: read the root again before deciding
    queued_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, manager, account)
);
CREATE INDEX verdict_queue_order ON chain.verdict_queue (chain_id, queued_at, manager, account);

-- What the daemon's own audits have found of each manager: the last final row that says anything of its storage, and
-- those above it.
CREATE TABLE chain.audit (
    chain_id bigint NOT NULL,
    manager evidence.address NOT NULL,
    block_number evidence.block_number NOT NULL,
    audited_at timestamptz NOT NULL DEFAULT now(),
    roots_read bigint NOT NULL CHECK (roots_read >= 0),
    mismatches bigint NOT NULL CHECK (mismatches >= 0),
    storage_proof text NOT NULL CHECK (storage_proof IN ('complete', 'others_exist', 'unavailable')),
    PRIMARY KEY (chain_id, manager, block_number)
);
CREATE INDEX audit_block ON chain.audit (chain_id, block_number);

-- What an audit found different from what was stored, and why; repaired in the transaction that wrote the row.
CREATE TABLE chain.audit_finding (
    finding_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain_id bigint NOT NULL,
    block_number evidence.block_number NOT NULL,    -- of the change, or the first at which it could be seen
    manager evidence.address,                       -- null: it is about the account's own slots
    account evidence.address,                       -- null: nobody knows whose root it is
    reason text NOT NULL CHECK (reason IN ('tainted', 'missed_log', 'no_log', 'misread', 'unknown', 'changed_slots', 'unknown_user')),
    stored_root evidence.hash32,
    found_root evidence.hash32,
    previous_block evidence.block_number,           -- of the observation before; of the last complete audit
    logs_owed boolean NOT NULL DEFAULT false,       -- the block's logs are to be read again once it is final
    found_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_finding_block ON chain.audit_finding (chain_id, block_number);
CREATE INDEX audit_finding_hex ON chain.audit_finding (evidence.hex(account), block_number);
CREATE INDEX audit_finding_found ON chain.audit_finding (found_at);
CREATE INDEX audit_finding_owed ON chain.audit_finding (chain_id, block_number) WHERE logs_owed;

---------------------------------------------------------------------------------------------------
-- evidence

CREATE TABLE evidence.root_observation (
    chain_id bigint NOT NULL,
    manager evidence.address NOT NULL,
    account evidence.address NOT NULL,
    block_number evidence.block_number NOT NULL,
    block_hash evidence.hash32 NOT NULL,
    root evidence.hash32 NOT NULL,
    PRIMARY KEY (chain_id, manager, account, block_number, block_hash)
);
CREATE INDEX root_observation_block ON evidence.root_observation (chain_id, block_number);
CREATE INDEX root_observation_hex ON evidence.root_observation (evidence.hex(account), block_number);
-- Who has ever had a root, in order: what an audit walks along. Most accounts never have one.
CREATE INDEX root_observation_ever ON evidence.root_observation (chain_id, account, manager)
    WHERE root <> '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea;

-- Slots of the account itself: read at adoption and where a trigger says they may have changed.
CREATE TABLE evidence.account_observation (
    chain_id bigint NOT NULL,
    account evidence.address NOT NULL,
    block_number evidence.block_number NOT NULL,
    block_hash evidence.hash32 NOT NULL,
    implementation evidence.address NOT NULL,   -- zero: no code, or not a SmartAccount proxy
    fallback_handler evidence.address NOT NULL,
    enabled_managers bytea[] NOT NULL,          -- of the watched managers, those in the account's list of modules
    tainted boolean NOT NULL,                   -- another implementation, or a watched manager as fallback handler
    PRIMARY KEY (chain_id, account, block_number, block_hash)
);
CREATE INDEX account_observation_block ON evidence.account_observation (chain_id, block_number);
CREATE INDEX account_observation_tainted ON evidence.account_observation (chain_id, account) WHERE tainted;

-- Whether a session validation module had code when last looked at.
CREATE TABLE evidence.module_code (
    chain_id bigint NOT NULL,
    module evidence.address NOT NULL,
    has_code boolean NOT NULL,
    block_number evidence.block_number NOT NULL,
    PRIMARY KEY (chain_id, module)
);

-- Stretches of blocks in which a root could not be read because the node no longer has the state.
CREATE TABLE evidence.unobserved (
    chain_id bigint NOT NULL,
    manager evidence.address NOT NULL,
    cohort integer NOT NULL DEFAULT 0,
    first_block evidence.block_number NOT NULL,
    last_block evidence.block_number NOT NULL,
    reason text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, manager, cohort, first_block),
    CHECK (first_block <= last_block)
);

---------------------------------------------------------------------------------------------------
-- sessions

-- An ordered list of sessions. Its identity is (chain_id, manager, account, leaves in order).
CREATE TABLE sessions.session_set (
    set_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain_id bigint NOT NULL,
    manager evidence.address NOT NULL,
    account evidence.address NOT NULL,
    leaves_digest evidence.hash32 NOT NULL,     -- keccak256 of the leaves in order
    root evidence.hash32 NOT NULL,              -- computed here, never taken from a client
    session_count integer NOT NULL CHECK (session_count > 0),
    source text NOT NULL,                       -- which form of document it came from
    call_hash evidence.hash32,                  -- keccak256 of the call that sets it: what ExecutionSuccess logs of calldata
    -- What the set is made of; revoke_form records a tree on chain and is never what a client wants.
    matched_form text NOT NULL DEFAULT 'all_leaves'
        CHECK (matched_form IN ('all_leaves', 'not_revoked', 'active', 'revoke_form', 'prefix', 'suffix')),
    stored_at timestamptz NOT NULL DEFAULT now(),
    stored_block evidence.block_number,         -- the indexed block when it was stored; null if nothing was indexed yet
    UNIQUE (chain_id, manager, account, leaves_digest)
);
CREATE INDEX session_set_root ON sessions.session_set (chain_id, manager, account, root);
CREATE INDEX session_set_account ON sessions.session_set (chain_id, account, evidence.hex(call_hash));
CREATE INDEX session_set_hex ON sessions.session_set (evidence.hex(account), set_id);

CREATE TABLE sessions.session (
    -- Deferred: pg_restore brings the sessions before their sets.
    set_id bigint NOT NULL REFERENCES sessions.session_set DEFERRABLE INITIALLY DEFERRED,
    leaf_index integer NOT NULL CHECK (leaf_index >= 0),
    leaf evidence.hash32 NOT NULL,
    valid_until bigint NOT NULL CHECK (valid_until BETWEEN 0 AND 281474976710655),
    valid_after bigint NOT NULL CHECK (valid_after BETWEEN 0 AND 281474976710655),
    session_validation_module evidence.address NOT NULL,
    session_key evidence.address,               -- by the module's known or configured layout, else null
    session_key_data bytea NOT NULL,            -- who may spend what: not shown by any view
    client_status text CHECK (client_status IN ('pending', 'active', 'inactive', 'expired', 'revoked')),
    PRIMARY KEY (set_id, leaf_index)
);
CREATE INDEX session_leaf ON sessions.session (leaf, set_id);
CREATE INDEX session_key_hex ON sessions.session (evidence.hex(session_key));
CREATE INDEX session_valid_until ON sessions.session (valid_until);

---------------------------------------------------------------------------------------------------
-- Functions.

-- Blocks covered, final ones by chain.coverage, those above the marker by the live lane. A cohort's own row counts up to
-- the block at which it was adopted, the row of cohort 0 above it.
CREATE VIEW chain.covered AS
SELECT v.chain_id, v.pass, v.filter, v.cohort,
       CASE WHEN v.cohort = 0 THEN v.blocks + live.blocks
            ELSE v.blocks * int8multirange(int8range(NULL, h.adopted_block + 1))
                 + (z.blocks + live.blocks) * int8multirange(int8range(h.adopted_block + 1, NULL)) END AS blocks
  FROM chain.coverage AS v
  JOIN chain.chain AS c ON c.chain_id = v.chain_id
  LEFT JOIN chain.cohort AS h ON h.chain_id = v.chain_id AND h.cohort_id = v.cohort
  LEFT JOIN chain.coverage AS z ON z.chain_id = v.chain_id AND z.pass = v.pass AND z.filter = v.filter AND z.cohort = 0
 CROSS JOIN LATERAL (
      SELECT CASE WHEN c.indexed_number > greatest(c.finalized_number, z.live_from) AND c.finalized_number IS NOT NULL AND z.live_from IS NOT NULL
                  THEN int8multirange(int8range(greatest(c.finalized_number, z.live_from) + 1, c.indexed_number + 1))
                  ELSE '{}'::int8multirange END AS blocks) AS live;

CREATE FUNCTION chain.is_covered(p_chain_id bigint, p_pass text, p_filter text, p_cohort integer, p_first_block bigint,
    p_last_block bigint) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN p_first_block IS NULL OR p_last_block IS NULL THEN false
                    WHEN p_first_block > p_last_block THEN true
                    ELSE coalesce((SELECT int8range(p_first_block, p_last_block + 1) <@ v.blocks FROM chain.covered AS v
                                    WHERE v.chain_id = p_chain_id AND v.pass = p_pass AND v.filter = p_filter AND v.cohort = p_cohort), false) END;
    END;

-- Runs as the caller. Tables are found in the catalogue, so that none can be forgotten; evidence is keyed by block hash
-- and stays: views join chain.block on the hash, so what was seen on the branch that lost vanishes, and returns with it.
CREATE FUNCTION chain.rewind(p_chain_id bigint, p_keep_block bigint, p_new_tip_number bigint, p_new_tip_hash bytea,
    p_below_finality boolean DEFAULT false) RETURNS TABLE (account bytea)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET bytea_output = 'hex'
AS $$
#variable_conflict use_column
DECLARE
    followed chain.chain%ROWTYPE;
    kept chain.tail%ROWTYPE;
    new_reorg_id bigint;
    moved_table name;
    reopened bytea[];
    touched bytea[];
BEGIN
    SELECT * INTO followed FROM chain.chain WHERE chain_id = p_chain_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'chain % is not in the database', p_chain_id USING ERRCODE = 'no_data_found';
    END IF;
    IF p_keep_block IS NULL OR p_keep_block < 0 THEN
        RAISE EXCEPTION 'rewind needs a block to keep' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT p_below_finality THEN
        IF p_keep_block < followed.finalized_number THEN
            RAISE EXCEPTION 'chain %: block % is below the finalized block %', p_chain_id, p_keep_block, followed.finalized_number
                USING ERRCODE = 'invalid_parameter_value', HINT = 'stop the daemon, then: sessionwatch rewind --below-finality';
        END IF;
        SELECT * INTO kept FROM chain.tail WHERE chain_id = p_chain_id AND block_number = p_keep_block;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'chain %: block % is not in the tail', p_chain_id, p_keep_block
                USING ERRCODE = 'invalid_parameter_value', DETAIL = format('the tail ends at block %s', followed.indexed_number);
        END IF;
    ELSIF p_keep_block + 1 < followed.detail_from THEN
        -- Balances fold back by their transfers, and those are gone.
        RAISE EXCEPTION 'chain %: raw rows below block % are dropped, so nothing below it can be taken back', p_chain_id, followed.detail_from
            USING ERRCODE = 'invalid_parameter_value', HINT = 'keep at least the block before it';
    END IF;

    INSERT INTO chain.reorg (chain_id, common_ancestor, depth, old_tip_number, old_tip_hash, new_tip_number, new_tip_hash, reason)
    VALUES (p_chain_id, p_keep_block, greatest(coalesce(followed.indexed_number - p_keep_block, 0), 0), followed.indexed_number,
        followed.indexed_hash, p_new_tip_number, p_new_tip_hash, CASE WHEN p_below_finality THEN 'operator' ELSE 'reorg' END)
    RETURNING reorg_id INTO new_reorg_id;

    IF p_below_finality THEN
        -- Final transfers were folded into the balances: take those back that go.
        INSERT INTO chain.erc1155_balance AS b (chain_id, contract, owner, token_id, balance)
        SELECT p_chain_id, contract, owner, token_id, sum(delta)
          FROM (SELECT contract, from_address AS owner, token_id, amount::numeric AS delta FROM chain.erc1155_transfer
                 WHERE chain_id = p_chain_id AND block_number > p_keep_block AND block_number <= followed.finalized_number
                UNION ALL
                SELECT contract, to_address, token_id, -amount FROM chain.erc1155_transfer
                 WHERE chain_id = p_chain_id AND block_number > p_keep_block AND block_number <= followed.finalized_number) AS back
         WHERE owner <> '\x0000000000000000000000000000000000000000'::bytea
         GROUP BY contract, owner, token_id HAVING sum(delta) <> 0
         ORDER BY contract, owner, token_id
        ON CONFLICT (chain_id, contract, owner, token_id) DO UPDATE SET balance = b.balance + EXCLUDED.balance;
    END IF;

    FOR moved_table IN
        SELECT c.relname FROM pg_class AS c
         WHERE c.relnamespace = 'chain'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
           AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'block_number' AND NOT a.attisdropped)
         ORDER BY c.relname
    LOOP
        EXECUTE format('WITH moved AS (DELETE FROM chain.%I WHERE chain_id = $1 AND block_number > $2 RETURNING *)
            INSERT INTO chain.orphan (reorg_id, chain_id, table_name, row_data) SELECT $3, $1, $4, to_jsonb(moved) FROM moved', moved_table)
            USING p_chain_id, p_keep_block, new_reorg_id, moved_table::text;
    END LOOP;

    -- After the loop: an open row that goes makes room for the one it had closed.
    WITH open AS (
        UPDATE chain.verdict SET closed_block = NULL, closed_time = NULL
         WHERE chain_id = p_chain_id AND closed_block > p_keep_block RETURNING account
    ) SELECT array_agg(account) INTO reopened FROM open;

    -- Not everything that is taken back names an account: some findings of audits do not know whose root it is.
    SELECT array_agg(DISTINCT found.account) FILTER (WHERE found.account IS NOT NULL) INTO touched FROM (
        SELECT coalesce(o.row_data ->> 'account', o.row_data ->> 'sender')::bytea AS account FROM chain.orphan AS o
         WHERE o.reorg_id = new_reorg_id AND o.row_data ?| ARRAY['account', 'sender']
        UNION ALL SELECT unnest(reopened)
        UNION ALL SELECT r.account FROM evidence.root_observation AS r WHERE r.chain_id = p_chain_id AND r.block_number > p_keep_block
        UNION ALL SELECT s.account FROM evidence.account_observation AS s WHERE s.chain_id = p_chain_id AND s.block_number > p_keep_block
    ) AS found;

    IF p_below_finality THEN
        UPDATE chain.coverage SET blocks = blocks - int8multirange(int8range(p_keep_block + 1, NULL)) WHERE chain_id = p_chain_id;
        DELETE FROM chain.tail WHERE chain_id = p_chain_id;
        UPDATE chain.chain
           SET finalized_number = NULL, finalized_hash = NULL, finalized_time = NULL, indexed_number = NULL, indexed_hash = NULL,
               indexed_time = NULL, finality_violation = NULL, updated_at = now()
         WHERE chain_id = p_chain_id;
    ELSE
        -- The live lane follows everything configured from the kept block on, also what was added above it.
        UPDATE chain.cohort SET adopted_block = p_keep_block WHERE chain_id = p_chain_id AND adopted_block > p_keep_block;
        UPDATE chain.coverage SET live_from = p_keep_block WHERE chain_id = p_chain_id AND live_from > p_keep_block;
        UPDATE chain.chain
           SET indexed_number = kept.block_number, indexed_hash = kept.hash, indexed_time = kept.block_time, updated_at = now()
         WHERE chain_id = p_chain_id;
    END IF;

    INSERT INTO chain.verdict_queue (chain_id, manager, account, read_state, queued_at)
    SELECT p_chain_id, m.manager, t.account, true, clock_timestamp()
      FROM unnest(touched) AS t (account)
     CROSS JOIN LATERAL (
        SELECT unnest(followed.managers) AS manager
        UNION
        SELECT s.manager FROM sessions.session_set AS s WHERE s.chain_id = p_chain_id AND s.account = t.account
     ) AS m
     WHERE EXISTS (SELECT FROM chain.account AS a WHERE a.chain_id = p_chain_id AND a.account = t.account)
        OR EXISTS (SELECT FROM sessions.session_set AS s WHERE s.chain_id = p_chain_id AND s.account = t.account)
     ORDER BY m.manager, t.account
    ON CONFLICT (chain_id, manager, account) DO UPDATE SET read_state = true, queued_at = EXCLUDED.queued_at;

    RETURN QUERY SELECT unnest(touched);
END
$$;

-- How many blocks one partition holds. Changed only before the first partition is made.
CREATE FUNCTION chain.slice_blocks() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 1000000;

-- CREATE and ATTACH, not PARTITION OF: that one waits behind every open reader.
CREATE FUNCTION chain.ensure_partitions(p_chain_id bigint, p_block bigint) RETURNS void
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

-- The last step of making a slice; only the two functions that make one call it.
CREATE FUNCTION chain.attach_partition(p_parent text, p_part text, p_chain_id bigint, p_slice bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    first_block CONSTANT bigint := p_slice * chain.slice_blocks();
    next_block CONSTANT bigint := first_block + chain.slice_blocks();
BEGIN
    EXECUTE format('COMMENT ON TABLE chain.%I IS %L', p_part, format('Blocks %s to %s of chain.%s, of the chain %s.',
        first_block, next_block - 1, p_parent, p_chain_id));
    EXECUTE format('ALTER TABLE chain.%I ATTACH PARTITION chain.%I FOR VALUES FROM (%s, %s) TO (%s, %s)', p_parent, p_part,
        p_chain_id, first_block, p_chain_id, next_block);
END
$$;

-- Locks in the order of those who write: the chain's row, then tables. While what stays of account_event is copied the
-- live lane writes on: its lock on the row conflicts only with the second of the two taken here.
CREATE FUNCTION chain.drop_partitions(p_chain_id bigint, p_table text, p_first_block bigint, p_before_block bigint)
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
-- watch. What people filter by is an indexed expression of a base table; no window functions, which would keep the
-- filter from reaching it. "Canonical": the observation's block hash is the one chain.block has now.

-- What is observed and canonical: the one place that says so. Written as an equality, the planner would take the hash
-- for independent of the number, expect one row of every account, and sort histories of which only the end is asked.
CREATE VIEW chain.canonical_root AS
SELECT o.chain_id, o.manager, o.account, o.block_number, o.block_hash, b.block_time, o.root
  FROM evidence.root_observation AS o
  JOIN chain.block AS b ON b.chain_id = o.chain_id AND b.block_number = o.block_number AND coalesce(b.hash = o.block_hash, false);

CREATE VIEW chain.canonical_slots AS
SELECT o.chain_id, o.account, o.block_number, o.block_hash, b.block_time, o.implementation, o.fallback_handler, o.enabled_managers, o.tainted
  FROM evidence.account_observation AS o
  JOIN chain.block AS b ON b.chain_id = o.chain_id AND b.block_number = o.block_number AND coalesce(b.hash = o.block_hash, false);

-- Changes of roots with their raw columns: the one place that says what a change is.
CREATE VIEW chain.root_change AS
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

-- Roots that something names, whether state was read there or not: inputs and events of managers, calls in clear that a
-- module logged, and calls of which only the hash was logged, where it is that of a stored set's root.
CREATE VIEW chain.named_root AS
SELECT h.chain_id, h.manager::bytea AS manager, h.account::bytea AS account, h.block_number, h.log_index, h.hint_index, h.root::bytea AS root,
       h.evidence AS hint, h.transaction_hash::bytea AS transaction_hash, h.user_op_hash::bytea AS user_op_hash
  FROM chain.root_hint AS h
UNION ALL
SELECT e.chain_id, m.manager, e.account::bytea, e.block_number, e.log_index, 0, decode(substr(e.args ->> 'data', 11, 64), 'hex'), 'module',
       e.transaction_hash::bytea, e.user_op_hash::bytea
  FROM chain.account_event AS e
  JOIN chain.chain AS c ON c.chain_id = e.chain_id
 CROSS JOIN LATERAL unnest(c.managers) AS m (manager)
 WHERE e.event = 'ModuleTransaction' AND e.args ->> 'to' = evidence.hex(m.manager) AND e.args ->> 'data' ~ '^0x7cb64759[0-9a-f]{64}'
   AND e.args ->> 'operation' = '0'
UNION ALL
SELECT e.chain_id, s.manager::bytea, e.account::bytea, e.block_number, e.log_index, 0, s.root::bytea, 'module', e.transaction_hash::bytea,
       e.user_op_hash::bytea
  FROM chain.account_event AS e
  JOIN sessions.session_set AS s ON s.chain_id = e.chain_id AND s.account = e.account
 WHERE e.event = 'ExecutionSuccess' AND e.args ->> 'to' = evidence.hex(s.manager) AND e.args ->> 'dataHash' = evidence.hex(s.call_hash)
   AND e.args ->> 'operation' = '0'
   -- Of a batch the next log gives the call in clear.
   AND NOT EXISTS (
       SELECT FROM chain.account_event AS n
        WHERE n.chain_id = e.chain_id AND n.block_number = e.block_number AND n.log_index = e.log_index::bigint + 1
          AND n.account = e.account AND n.event = 'ModuleTransaction');

-- Whom logs, inputs and traces name. Of an account that was ever tainted its logs alone say nothing: a stranger may have set
-- the root beside an operation that did something else.
CREATE VIEW chain.root_author AS
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
             ) AS attribution OFFSET 0) AS doubt; -- OFFSET 0: planned and asked once, not for each column

-- What only one column shows is a query of its own: who does not ask for the column pays nothing, not even the planning.
CREATE VIEW watch.session_root AS
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

CREATE VIEW watch.session_root_current AS
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
         AND w.block_number = since.block_number OFFSET 0) AS r; -- OFFSET 0: one row is looked up, not joined with all

CREATE VIEW watch.session_root_transient AS
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

CREATE VIEW watch.root_disagreement AS
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

CREATE VIEW watch.account AS
SELECT a.chain_id, evidence.hex(a.account) AS account, created.factory, coalesce(a.block_number, created.block_number)::bigint AS created_block,
       evidence.hex(o.implementation) AS implementation, evidence.hex(o.fallback_handler) AS fallback_handler, o.tainted,
       coalesce(enabled.modules, '{}') AS modules, o.block_number::bigint AS observed_block, a.source, a.cohort_id AS cohort
  FROM chain.account AS a
  LEFT JOIN LATERAL (
      SELECT e.args ->> 'factory' AS factory, e.block_number FROM chain.account_event AS e
       WHERE e.chain_id = a.chain_id AND e.account = a.account AND e.event IN ('AccountCreation', 'AccountCreationWithoutIndex')
       ORDER BY e.block_number, e.log_index LIMIT 1) AS created ON true
  LEFT JOIN LATERAL (
      SELECT s.* FROM chain.canonical_slots AS s
       WHERE s.chain_id = a.chain_id AND s.account = a.account
       ORDER BY s.block_number DESC LIMIT 1) AS o ON true
  LEFT JOIN LATERAL (
      -- The last word on each module decides; an observation speaks after the logs of its block.
      SELECT array_agg(module ORDER BY module) FILTER (WHERE is_enabled) AS modules
        FROM (SELECT module, (array_agg(is_enabled ORDER BY block_number DESC, log_index DESC))[1] AS is_enabled
                FROM (SELECT coalesce(e.args ->> 'module', e.args ->> 'initial_module') AS module, e.event <> 'DisabledModule' AS is_enabled,
                             e.block_number, e.log_index
                        FROM chain.account_event AS e
                       WHERE e.chain_id = a.chain_id AND e.account = a.account
                         AND e.event IN ('AccountCreation', 'AccountCreationWithoutIndex', 'EnabledModule', 'DisabledModule')
                      UNION ALL
                      SELECT evidence.hex(m), true, o.block_number, 2147483647 FROM unnest(o.enabled_managers) AS m) AS said
               WHERE module IS NOT NULL
               GROUP BY module) AS latest) AS enabled ON true;

CREATE VIEW watch.account_event AS
SELECT e.chain_id, evidence.hex(e.account) AS account, e.block_number::bigint AS block_number, e.log_index, e.event, e.args,
       evidence.hex(e.transaction_hash) AS transaction_hash, evidence.hex(e.user_op_hash) AS user_op_hash,
       evidence.moment(b.block_time) AS block_time
  FROM chain.account_event AS e
  LEFT JOIN chain.block AS b ON b.chain_id = e.chain_id AND b.block_number = e.block_number;

CREATE VIEW watch.user_operation AS
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

CREATE VIEW watch.session_set AS
SELECT s.chain_id, evidence.hex(s.manager) AS manager, evidence.hex(s.account) AS account, s.set_id, evidence.hex(s.root) AS root,
       s.session_count, s.source, s.stored_at,
       CASE WHEN latest.root = s.root THEN 'on_chain' WHEN seen.first_block IS NOT NULL THEN 'was_on_chain'
            WHEN v.expected_set_id = s.set_id THEN 'expected' ELSE 'stored' END AS state,
       seen.first_block::bigint AS first_on_chain_block, seen.last_block::bigint AS last_on_chain_block, s.matched_form,
       s.stored_block::bigint AS stored_block
  FROM sessions.session_set AS s
  LEFT JOIN LATERAL (
      SELECT o.root FROM chain.canonical_root AS o
       WHERE o.chain_id = s.chain_id AND o.manager = s.manager AND o.account = s.account
       ORDER BY o.block_number DESC LIMIT 1) AS latest ON true
  LEFT JOIN LATERAL (
      SELECT min(o.block_number) AS first_block, max(o.block_number) AS last_block FROM chain.canonical_root AS o
       WHERE o.chain_id = s.chain_id AND o.manager = s.manager AND o.account = s.account AND o.root = s.root) AS seen ON true
  LEFT JOIN chain.verdict AS v
    ON v.chain_id = s.chain_id AND v.manager = s.manager AND v.account = s.account AND v.closed_block IS NULL;

CREATE VIEW watch.session AS
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

CREATE VIEW watch.session_use AS
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

-- Tokens that moved in operations which a session key signed, one row each: of several sessions of one operation the one
-- that stands for a call to the contract, and of those one whose grant fits. What is not granted by name says nothing.
-- `coalesce` keeps the planner from expecting next to nothing, as in chain.canonical_root.
CREATE VIEW watch.session_mint AS
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

CREATE VIEW watch.verdict AS
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

CREATE VIEW watch.drift AS
SELECT * FROM watch.verdict WHERE verdict = 'drifted';

CREATE VIEW watch.drift_history AS
SELECT v.chain_id, evidence.hex(v.manager) AS manager, evidence.hex(v.account) AS account, v.verdict, v.cause, v.warnings, v.severity,
       v.since_block::bigint AS since_block, v.since_time, v.explanation, v.block_number::bigint AS opened_block,
       v.closed_block::bigint AS closed_block, v.closed_time, evidence.hex(v.on_chain_root) AS on_chain_root,
       evidence.hex(v.expected_root) AS expected_root, v.on_chain_set_id, v.expected_set_id, v.by_time_only, v.verdict_id
  FROM chain.verdict AS v WHERE v.verdict = 'drifted';

CREATE VIEW watch.erc1155_transfer AS
SELECT t.chain_id, evidence.hex(t.contract) AS contract, t.block_number::bigint AS block_number, t.log_index, t.batch_index,
       evidence.hex(t.operator) AS operator, evidence.hex(t.from_address) AS from_address, evidence.hex(t.to_address) AS to_address,
       t.token_id::numeric AS token_id, t.amount::numeric AS amount, evidence.hex(t.transaction_hash) AS transaction_hash,
       evidence.hex(t.user_op_hash) AS user_op_hash, evidence.moment(b.block_time) AS block_time
  FROM chain.erc1155_transfer AS t
  LEFT JOIN chain.block AS b ON b.chain_id = t.chain_id AND b.block_number = t.block_number;

-- What transfers above the marker add to balances. By way of the tail, which is known to be short.
CREATE VIEW chain.unfolded AS
SELECT t.chain_id, t.contract, moved.owner, t.token_id, sum(moved.delta) AS delta
  FROM chain.tail AS h
  JOIN chain.chain AS c ON c.chain_id = h.chain_id AND h.block_number > c.finalized_number
  JOIN chain.erc1155_transfer AS t ON t.chain_id = h.chain_id AND t.block_number = h.block_number
 CROSS JOIN LATERAL (VALUES (t.to_address, t.amount::numeric), (t.from_address, -t.amount::numeric)) AS moved (owner, delta)
 GROUP BY t.chain_id, t.contract, moved.owner, t.token_id;

-- Final transfers are folded; those above the marker are added here, so that a rewind undoes no arithmetic. What the tail
-- does not touch comes straight from an index, for which its SELECT must not have a WHERE of its own.
CREATE VIEW watch.erc1155_balance AS
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

CREATE VIEW watch.erc1155_approval AS
SELECT p.chain_id, evidence.hex(p.contract) AS contract, p.block_number::bigint AS block_number, p.log_index,
       evidence.hex(p.account) AS account, evidence.hex(p.operator) AS operator, p.approved,
       evidence.hex(p.transaction_hash) AS transaction_hash, evidence.moment(b.block_time) AS block_time
  FROM chain.erc1155_approval AS p
  LEFT JOIN chain.block AS b ON b.chain_id = p.chain_id AND b.block_number = p.block_number;

CREATE VIEW watch.erc1155_uri AS
SELECT u.chain_id, evidence.hex(u.contract) AS contract, u.block_number::bigint AS block_number, u.log_index,
       u.token_id::numeric AS token_id, u.value, evidence.hex(u.transaction_hash) AS transaction_hash,
       evidence.moment(b.block_time) AS block_time
  FROM chain.erc1155_uri AS u
  LEFT JOIN chain.block AS b ON b.chain_id = u.chain_id AND b.block_number = u.block_number;

CREATE VIEW watch.progress AS
SELECT c.chain_id, c.name AS chain, c.latest_number::bigint AS latest_block, c.indexed_number::bigint AS indexed_block,
       c.finalized_number::bigint AS finalized_block, greatest(c.latest_number - c.indexed_number, 0) AS lag_blocks,
       greatest(c.latest_time - c.indexed_time, 0) AS lag_seconds, c.updated_at, c.start_block::bigint AS start_block, c.confirmed_at,
       c.finality_violation, c.detail_from::bigint AS detail_from,
       coalesce(c.finalized_number >= (c.settings ->> 'end_block')::bigint, false) AS finished
  FROM chain.chain AS c;

CREATE VIEW watch.coverage AS
SELECT v.chain_id, v.pass, v.filter, v.cohort, c.start_block::bigint AS first_block, wanted.last_block,
       CASE WHEN todo.missing IS NOT NULL
            THEN (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM unnest(todo.missing) AS r) END AS missing_blocks,
       todo.missing::text AS missing
  FROM chain.coverage AS v
  JOIN chain.chain AS c ON c.chain_id = v.chain_id
  LEFT JOIN chain.cohort AS h ON h.chain_id = v.chain_id AND h.cohort_id = v.cohort
 CROSS JOIN LATERAL (
      SELECT CASE WHEN c.finalized_number IS NOT NULL THEN least(c.finalized_number, h.adopted_block)::bigint END AS last_block) AS wanted
 CROSS JOIN LATERAL (
      SELECT CASE WHEN c.start_block <= wanted.last_block THEN int8multirange(int8range(c.start_block, wanted.last_block + 1)) - v.blocks
                  WHEN c.start_block > wanted.last_block THEN '{}'::int8multirange END AS missing) AS todo
 -- What the configuration no longer asks for is kept, and owes nothing.
 WHERE NOT c.settings ? 'passes' OR c.settings -> 'passes' @> jsonb_build_array(jsonb_build_array(v.pass, v.filter));

CREATE VIEW watch.pace AS
SELECT p.chain_id, p.pass, p.blocks / nullif(p.seconds, 0) AS blocks_per_second, p.requests / nullif(p.blocks, 0) AS requests_per_block,
       p.updated_at
  FROM chain.pace AS p;

CREATE VIEW watch.reorg AS
SELECT r.chain_id, r.detected_at, r.common_ancestor, r.depth, evidence.hex(r.old_tip_hash) AS old_tip, evidence.hex(r.new_tip_hash) AS new_tip,
       r.old_tip_number, r.new_tip_number, r.reason, r.reorg_id
  FROM chain.reorg AS r;

CREATE VIEW watch.undecoded_log AS
SELECT u.chain_id, evidence.hex(u.address) AS address, u.block_number::bigint AS block_number, u.log_index,
       ARRAY(SELECT evidence.hex(t) FROM unnest(u.topics) WITH ORDINALITY AS x (t, n) ORDER BY n) AS topics, evidence.hex(u.data) AS data,
       u.reason, evidence.hex(u.transaction_hash) AS transaction_hash
  FROM chain.undecoded_log AS u;

CREATE VIEW watch.unobserved AS
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

CREATE VIEW watch.unobserved_hint AS
SELECT DISTINCT h.chain_id, evidence.hex(h.manager) AS manager, evidence.hex(h.account) AS account, h.block_number::bigint AS block_number,
       h.log_index, evidence.hex(h.root) AS root, h.hint, evidence.hex(h.transaction_hash) AS transaction_hash,
       evidence.hex(h.user_op_hash) AS user_op_hash
  FROM evidence.unobserved AS u
  JOIN chain.named_root AS h
    ON h.chain_id = u.chain_id AND h.manager = u.manager AND h.block_number BETWEEN u.first_block AND u.last_block;

CREATE VIEW watch.audit AS
SELECT a.chain_id, evidence.hex(a.manager) AS manager, a.block_number::bigint AS block_number, a.audited_at, a.roots_read, a.mismatches,
       a.storage_proof
  FROM chain.audit AS a
 WHERE NOT EXISTS (SELECT FROM chain.audit AS l
                    WHERE l.chain_id = a.chain_id AND l.manager = a.manager AND l.block_number > a.block_number);

CREATE VIEW watch.audit_finding AS
SELECT f.chain_id, evidence.hex(f.manager) AS manager, evidence.hex(f.account) AS account, f.block_number::bigint AS block_number, f.reason,
       evidence.hex(f.stored_root) AS stored_root, evidence.hex(f.found_root) AS found_root, f.previous_block::bigint AS previous_block,
       f.found_at, coalesce(f.block_number <= c.finalized_number, false) AS is_final,
       CASE f.reason
           WHEN 'tainted' THEN format('The account can change its root without a log, and did at or before block %s.', f.block_number)
           WHEN 'missed_log' THEN format('Block %s has a log of the account that the node did not give when the block was indexed; %s.',
               f.block_number, CASE WHEN f.logs_owed THEN 'its logs are read again once it is final' ELSE 'its logs are read again' END)
           WHEN 'no_log' THEN format('The root changed in block %s, in which the node shows no log of the account: the node omits it still,'
               ' or the account has a way to change its root that is not known.', f.block_number)
           WHEN 'misread' THEN format('A log of the account was stored, but another root was read than the state has: the node answered'
               ' wrongly or too early. The root found holds at block %s.', f.block_number)
           WHEN 'unknown' THEN format('The root changed at or before block %s%s; the state between can not be read any more, so nobody can'
               ' say where and how.', f.block_number, ' and after block ' || f.previous_block)
           WHEN 'changed_slots' THEN format('Implementation, fallback handler or modules of the account are not what was read last; they changed'
               ' without a log at or before block %s.', f.block_number)
           WHEN 'unknown_user' THEN format('At block %s every root of the manager was known, at block %s one is not: somebody who is not watched'
               ' has set a root, or a log of a new account was missed. With accounts = "factory" every account of the factories is watched.',
               f.previous_block, f.block_number)
       END AS explanation, f.finding_id
  FROM chain.audit_finding AS f
  JOIN chain.chain AS c ON c.chain_id = f.chain_id;

---------------------------------------------------------------------------------------------------
-- What everything means. `\d+ watch.verdict` shows it.

COMMENT ON SCHEMA chain IS 'Rows of the chain, and what was decided from them. Can be dropped and indexed again.';
COMMENT ON SCHEMA evidence IS 'Observations of state, keyed by block hash: true for ever, not to be read again from a node that prunes. Back it up.';
COMMENT ON SCHEMA sessions IS 'The session sets that clients stored. Nobody else has them, and without them no root can be explained. Back it up.';
COMMENT ON SCHEMA watch IS 'Views for people and dashboards: lower-case 0x text, timestamptz, numeric amounts. Every row says its chain_id.';

COMMENT ON DOMAIN evidence.address IS 'An address: exactly 20 bytes.';
COMMENT ON DOMAIN evidence.hash32 IS 'A hash, root or leaf: exactly 32 bytes.';
COMMENT ON DOMAIN evidence.uint256 IS 'An unsigned 256-bit number.';
COMMENT ON DOMAIN evidence.block_number IS 'The number of a block, from 0.';
COMMENT ON DOMAIN evidence.unix_seconds IS 'A time of the chain: seconds since 1970-01-01 UTC.';

COMMENT ON FUNCTION evidence.hex(bytea) IS 'Bytes as lower-case 0x text; null stays null. Indexes stand on this expression.';
COMMENT ON FUNCTION evidence.moment(bigint) IS
    'Unix seconds as a time, at most the end of the year 9999, whatever a block claims; null stays null. Indexes stand on this expression.';
COMMENT ON FUNCTION evidence.accept_backup() IS
    'What a restored back-up says of its version is compared with this database''s, whose row stays; refused where its tables would not fit.';
COMMENT ON FUNCTION chain.is_covered(bigint, text, text, integer, bigint, bigint) IS
    'Whether a pass has done every block from the first to the last, both included. True for an empty range, false if a bound is null.';
COMMENT ON FUNCTION chain.rewind(bigint, bigint, bigint, bytea, boolean) IS
    'Moves every row above p_keep_block into chain.orphan, reopens verdicts closed above it, lowers the tip and queues the accounts touched, which it'
    ' returns. Refuses a block below finality unless p_below_finality: then balances are folded back, coverage above the block is taken away and the'
    ' tail is cleared, so that everything above becomes history debt; the caller holds the chain''s row FOR UPDATE. Evidence stays.';
COMMENT ON FUNCTION chain.slice_blocks() IS 'How many blocks of one chain a partition holds.';
COMMENT ON FUNCTION chain.ensure_partitions(bigint, bigint) IS
    'Makes the chain''s partitions for the slice of blocks that holds p_block, and for the next one. Cheap and without a lock where they exist.';
COMMENT ON FUNCTION chain.attach_partition(text, text, bigint, bigint) IS 'Makes a table the partition of one slice of a chain''s blocks.';
COMMENT ON FUNCTION chain.drop_partitions(bigint, text, bigint, bigint) IS
    'Retention: drops the chain''s partitions of account_event, erc1155_transfer or user_operation that lie wholly from p_first_block to below'
    ' p_before_block, raises detail_from and notes in chain.coverage what is gone; returns the blocks and about how many rows. Creations and'
    ' changes of modules stay. Refused unless the chain is final up to there; the caller has made sure that no pass owes these blocks.';

COMMENT ON TABLE evidence.schema_version IS 'One row: the version of this schema. The daemon refuses to start on another.';
COMMENT ON TABLE chain.chain IS 'One row per chain: the finalized marker, the tip, and the epoch that fences writers.';
COMMENT ON TABLE chain.tail IS 'Headers from the finalized block to the tip, without holes, empty blocks too.';
COMMENT ON TABLE chain.block IS 'Canonical blocks that some row or observation refers to.';
COMMENT ON TABLE chain.cohort IS 'Accounts learnt together otherwise than from the factory, with a history debt of their own. Cohort 0, all others, has no row.';
COMMENT ON TABLE chain.account IS 'The watch list.';
COMMENT ON TABLE chain.account_event IS 'Logs of watched accounts, of the factory and of ownership modules about them. Partitioned by a million blocks.';
COMMENT ON TABLE chain.user_operation IS 'UserOperationEvents whose sender is watched. Partitioned by a million blocks.';
COMMENT ON TABLE chain.user_operation_body IS 'What the handleOps input says of a stored user operation. A pass of its own: it needs the transaction.';
COMMENT ON TABLE chain.bundle IS 'Who sent the transactions that carried watched user operations.';
COMMENT ON TABLE chain.session_use IS 'Sessions that signed user operations, as the signatures present them.';
COMMENT ON TABLE chain.erc1155_transfer IS 'ERC-1155 transfers, one row per id of a batch. Partitioned by a million blocks.';
COMMENT ON TABLE chain.erc1155_balance IS 'Balances folded from final transfers only, without the zero address; watch.erc1155_balance adds the tail.';
COMMENT ON TABLE chain.erc1155_approval IS 'ApprovalForAll events of watched token contracts.';
COMMENT ON TABLE chain.erc1155_uri IS 'URI events of watched token contracts.';
COMMENT ON TABLE chain.root_hint IS 'Roots that calldata, events or signatures name. They attribute and hint; state alone decides.';
COMMENT ON TABLE chain.root_attribution IS 'Who changed a root, as far as the logs and inputs of the block say. One row per account read at a trigger.';
COMMENT ON TABLE chain.trace_queue IS 'Changes of roots that logs and inputs did not settle, to be looked for in traces, where those are configured.';
COMMENT ON COLUMN chain.trace_queue.attempts IS 'How often a node had no usable answer.';
COMMENT ON COLUMN chain.trace_queue.not_before IS 'When it is asked next, by the database''s clock.';
COMMENT ON TABLE chain.undecoded_log IS 'Logs that match a watched event but cannot be decoded or stored as it: kept raw, nothing stops.';
COMMENT ON TABLE chain.coverage IS 'Which final blocks each pass has done, per filter and cohort. The live lane covers what is above the marker.';
COMMENT ON TABLE chain.pace IS 'How fast debt was paid lately, by kind of work: what estimates of the remaining time rest on.';
COMMENT ON TABLE chain.reorg IS 'Every rewind: reorgs, and what an operator took back.';
COMMENT ON TABLE chain.orphan IS 'Rows of blocks that lost, as they stood.';
COMMENT ON TABLE chain.verdict IS 'Decisions: a row per change of verdict. The open one (closed_block null) is what holds now.';
COMMENT ON TABLE chain.verdict_queue IS '(manager, account) whose inputs changed and that the chain''s daemon has to decide again.';
COMMENT ON TABLE chain.audit IS
    'The last audits of each manager: the newest final one that could tell of its storage, and those since.';
COMMENT ON TABLE chain.audit_finding IS 'What audits found different from what was stored, why, and since which block. It is repaired when the row is written.';
COMMENT ON TABLE evidence.root_observation IS 'Roots read from the state of a manager at a block hash. Counts while that hash is canonical.';
COMMENT ON TABLE evidence.account_observation IS 'Slots of an account read at a block hash: at adoption, and where a trigger says that they may have changed.';
COMMENT ON TABLE evidence.module_code IS 'Whether a session validation module had code when last looked at.';
COMMENT ON TABLE evidence.unobserved IS 'Stretches of blocks in which roots could not be read, because the node no longer has the state.';
COMMENT ON TABLE sessions.session_set IS 'Ordered lists of sessions; identified by chain, manager, account and the leaves in order.';
COMMENT ON TABLE sessions.session IS 'The sessions of a set, in order, duplicates included.';

COMMENT ON VIEW chain.covered IS 'Blocks that a pass has done for a filter and a cohort: final ones by chain.coverage, those above the marker by the live lane.';
COMMENT ON VIEW chain.canonical_root IS 'Roots read from state at blocks that are on the chain as it is now.';
COMMENT ON VIEW chain.canonical_slots IS 'Slots of accounts read at blocks that are on the chain as it is now.';
COMMENT ON VIEW chain.root_change IS 'Canonical root observations that differ from the one before, with raw columns; watch.session_root shows them to people.';
COMMENT ON VIEW chain.unfolded IS 'What transfers above the finalized block add to the balances in chain.erc1155_balance.';
COMMENT ON COLUMN chain.unfolded.delta IS 'Received minus sent.';
COMMENT ON VIEW chain.named_root IS 'Roots that inputs, events and calls of modules name, also where no state could be read: hints, never proof.';
COMMENT ON VIEW chain.root_author IS 'Who is named for a root, with raw columns; nobody, where an account was ever tainted and only its logs speak.';
COMMENT ON VIEW watch.account IS 'The watched accounts, with the state last read from the canonical chain. A change of state shows once it has been read.';
COMMENT ON VIEW watch.account_event IS 'Logs of and about watched accounts.';
COMMENT ON VIEW watch.user_operation IS 'User operations of watched accounts, failed ones too (success false).';
COMMENT ON VIEW watch.session_root IS 'Every change of a session root: canonical observations that differ from the one before. 32 zero bytes: no root, all sessions off.';
COMMENT ON VIEW watch.session_root_current IS 'The last change per chain, manager and account: the root that holds now. An account that never had a root has no row.';
COMMENT ON VIEW watch.session_root_transient IS
    'Roots that stood only inside a block: an event, a module''s call, the calldata of an operation that succeeded, or a trace names one that state no longer'
    ' shows at the block''s end.';
COMMENT ON VIEW watch.session_set IS 'The stored session sets, and whether the chain has them.';
COMMENT ON VIEW watch.root_disagreement IS
    'Roots that an event, an input or a signature says must stand at the end of a block, where state shows another: the node lies about one of'
    ' them, or the manager is not what it seems. State is what was believed.';
COMMENT ON VIEW watch.session_use IS 'User operations that session keys signed: which session, and which root its proof shows at validation.';
COMMENT ON VIEW watch.session_mint IS
    'ERC-1155 tokens that moved in operations signed by a session key: which session moved what, and whether its own data names that recipient and id.';
COMMENT ON VIEW watch.session IS 'The sessions of the stored sets. What a key may spend (session_key_data) is not shown.';
COMMENT ON VIEW watch.verdict IS 'What is known of each manager and account now.';
COMMENT ON VIEW watch.drift IS 'The verdicts that are drifted: who to look at.';
COMMENT ON VIEW watch.drift_history IS 'Drifts that hold and those that are over (closed_block not null).';
COMMENT ON VIEW watch.erc1155_transfer IS 'ERC-1155 transfers of the watched contracts, one row per id of a batch.';
COMMENT ON VIEW watch.erc1155_balance IS 'ERC-1155 balances up to the tip, other than 0. The zero address is left out.';
COMMENT ON VIEW watch.erc1155_approval IS 'ApprovalForAll events, in force or withdrawn.';
COMMENT ON VIEW watch.erc1155_uri IS 'URI events.';
COMMENT ON VIEW watch.progress IS 'How far each chain has come.';
COMMENT ON VIEW watch.coverage IS 'What each configured pass still owes: blocks from the chain''s start to its finalized block (for a cohort: to where it was adopted).';
COMMENT ON VIEW watch.pace IS 'How fast debt was paid lately, by kind of work: logs, bodies, roots (of all managers). No row: none was paid yet.';
COMMENT ON VIEW watch.reorg IS 'Rewinds: reorgs, and what an operator took back.';
COMMENT ON VIEW watch.audit IS 'The last audit of each manager: how many roots were read again, and whether every root of the manager is known.';
COMMENT ON VIEW watch.audit_finding IS 'What audits found different from what was stored, each with a sentence that says why. A mismatch is repaired when it is found.';
COMMENT ON VIEW watch.undecoded_log IS 'Logs that could not be decoded, raw, with the reason.';
COMMENT ON VIEW watch.unobserved IS 'Stretches of blocks in which roots could not be read: from the first to the last block with something to read. An archive node fills them.';
COMMENT ON VIEW watch.unobserved_hint IS 'What roots in unobserved stretches may have been, by what named them. A hint is no proof: no view of roots or verdicts uses it.';

-- Columns. First what is special to a relation, then the words that mean the same everywhere.
COMMENT ON COLUMN evidence.schema_version.restores_from IS 'Back-ups of the schemas evidence and sessions from this version on can be restored into this database.';
COMMENT ON TRIGGER accept_backup ON evidence.schema_version IS 'Compares the version that a restored back-up brings along.';
COMMENT ON COLUMN evidence.schema_version.only_row IS 'Always true: there is one row.';
COMMENT ON COLUMN evidence.schema_version.version IS 'The version that was applied.';
COMMENT ON COLUMN evidence.schema_version.applied_at IS 'When it was applied.';
COMMENT ON COLUMN chain.chain.name IS 'The chain''s name in the configuration.';
COMMENT ON COLUMN chain.chain.epoch IS 'Grows when a process takes over; a writer of an older epoch is refused.';
COMMENT ON COLUMN chain.chain.watch_version IS 'Grows when an account is adopted; a step planned before it is planned again.';
COMMENT ON COLUMN chain.chain.detail_from IS 'From this block on every raw row is there; below it retention has dropped some. Null: all are there.';
COMMENT ON COLUMN chain.chain.finalized_number IS 'The marker: final by the node''s word, and its hash was ours. Null: nothing followed yet.';
COMMENT ON COLUMN chain.chain.finalized_hash IS 'The marker''s hash.';
COMMENT ON COLUMN chain.chain.finalized_time IS 'The marker''s time, unix seconds.';
COMMENT ON COLUMN chain.chain.indexed_number IS 'The tip of the tail: how far the live lane has committed.';
COMMENT ON COLUMN chain.chain.indexed_hash IS 'The tip''s hash.';
COMMENT ON COLUMN chain.chain.indexed_time IS 'The tip''s time, unix seconds; sessions expire by it.';
COMMENT ON COLUMN chain.chain.latest_number IS 'The node''s tip when last asked.';
COMMENT ON COLUMN chain.chain.latest_time IS 'Its time, unix seconds.';
COMMENT ON COLUMN chain.chain.managers IS 'The managers configured when the daemon last started, in order.';
COMMENT ON COLUMN chain.chain.accounts_mode IS 'Where accounts come from: factory, stored (only those with stored sets), list.';
COMMENT ON COLUMN chain.chain.settings IS 'The configuration the daemon last started with, without node URLs.';
COMMENT ON COLUMN chain.chain.next_cohort IS 'The number of the next cohort; numbers are never used again.';
COMMENT ON COLUMN chain.cohort.cohort_id IS 'The cohort''s number within its chain, from 1.';
COMMENT ON COLUMN chain.cohort.adopted_block IS 'The lanes watch its accounts above this block; below it lies the cohort''s debt.';
COMMENT ON COLUMN chain.cohort.source IS
    'Why: stored, list (somebody asked for them), factory (made by a factory that was added later), tainted (found to change roots silently), token (for transfers before their creation).';
COMMENT ON COLUMN chain.account.cohort_id IS 'The cohort it was learnt with; 0: from the factory.';
COMMENT ON COLUMN chain.account.token_cohort_id IS 'The cohort whose coverage says which transfers that touch it have been found.';
COMMENT ON COLUMN chain.account.block_number IS 'Where the factory created it; null if it was learnt otherwise.';
COMMENT ON COLUMN chain.account.seq IS 'Order of learning: a daemon loads what is new above the last it has.';
COMMENT ON COLUMN chain.user_operation_body.log_index IS 'The position of the operation''s UserOperationEvent.';
COMMENT ON COLUMN chain.user_operation_body.factory IS 'The factory that initCode calls; null if the account was there.';
COMMENT ON COLUMN chain.erc1155_balance.balance IS 'Received minus sent, final transfers only; negative while history is incomplete.';
COMMENT ON COLUMN chain.root_hint.log_index IS 'The position of the UserOperationEvent or MerkleRootUpdated log it belongs to.';
COMMENT ON COLUMN chain.root_hint.evidence IS 'Where the root was found: event, calldata, signature, trace.';
COMMENT ON COLUMN chain.undecoded_log.data IS 'The log''s data, cut to 131072 bytes.';
COMMENT ON COLUMN chain.coverage.blocks IS 'The final blocks that are done.';
COMMENT ON COLUMN chain.coverage.dropped IS
    'Of these, the blocks whose raw rows retention has dropped (kept for the logs of accounts): a pass that is added later has them read again.';
COMMENT ON COLUMN chain.covered.blocks IS 'The blocks that are done, up to the tip.';
COMMENT ON COLUMN chain.coverage.live_from IS 'The live lane has this filter''s rows above this block; null: not followed live.';
COMMENT ON COLUMN chain.coverage.cohort IS '0: all accounts but those of a cohort above 0, which has rows of its own.';
COMMENT ON COLUMN chain.coverage.begun IS 'True: some range was claimed, so an account that is learnt now needs a cohort of its own.';
COMMENT ON COLUMN chain.pace.pass IS 'The kind of work: logs, bodies, roots (of all managers together).';
COMMENT ON COLUMN watch.pace.pass IS 'The kind of work: logs, bodies, roots (of all managers together).';
COMMENT ON COLUMN evidence.unobserved.reason IS 'What the node said when it was asked.';
COMMENT ON COLUMN watch.unobserved.reason IS 'What the node said when it was asked.';
COMMENT ON COLUMN chain.pace.blocks IS 'Blocks paid by the last ranges; older ranges count less and less.';
COMMENT ON COLUMN chain.pace.seconds IS 'The time they took, seconds of wall clock.';
COMMENT ON COLUMN chain.pace.requests IS 'The HTTP requests they took.';
COMMENT ON COLUMN chain.named_root.hint IS 'What names it: event, calldata, signature (the root at validation), trace, module (a call that a module made).';
COMMENT ON COLUMN watch.unobserved_hint.hint IS 'What names it: event, calldata, signature (the root at validation), trace, module (a call that a module made).';
COMMENT ON COLUMN watch.unobserved.hinted_accounts IS 'How many accounts have a hint in it.';
COMMENT ON COLUMN watch.unobserved.hints IS 'How many hints there are: the rows of watch.unobserved_hint.';
COMMENT ON COLUMN chain.reorg.old_tip_hash IS 'The tip that lost.';
COMMENT ON COLUMN chain.reorg.new_tip_hash IS 'The node''s tip at that moment; null after an operator''s rewind.';
COMMENT ON COLUMN chain.orphan.reorg_id IS 'The rewind that took the row away.';
COMMENT ON COLUMN chain.orphan.table_name IS 'The table of schema chain it stood in.';
COMMENT ON COLUMN chain.orphan.row_data IS 'The row: bytes as \x text, numbers exact.';
COMMENT ON COLUMN chain.verdict.block_number IS 'The indexed block at which it was decided.';
COMMENT ON COLUMN chain.verdict.closed_block IS 'The indexed block at which another verdict took its place; null while it holds.';
COMMENT ON COLUMN chain.verdict.recheck_at IS 'Database time after which time alone may change it (grace).';
COMMENT ON COLUMN chain.verdict.recheck_block_time IS 'Block time after which time alone may change it (expiry), unix seconds.';
COMMENT ON COLUMN chain.verdict_queue.read_state IS 'True: read the root again before deciding.';
COMMENT ON COLUMN chain.verdict_queue.queued_at IS 'When it was queued; the last time, if it was there already.';
COMMENT ON COLUMN chain.audit.block_number IS 'The last block at which roots were read.';
COMMENT ON COLUMN watch.audit.block_number IS 'The last block at which roots were read.';
COMMENT ON COLUMN chain.audit.audited_at IS 'When the audit ended, by the database''s clock.';
COMMENT ON COLUMN chain.audit.roots_read IS 'How many roots of the manager were read again.';
COMMENT ON COLUMN chain.audit.mismatches IS 'How many of them were not what was stored.';
COMMENT ON COLUMN chain.audit.storage_proof IS
    'complete: by the node''s proof of the manager''s storage every root in it is known. others_exist: it holds roots of accounts that are not known. unavailable: nobody can tell, since the node gives no proof, blocks are still owed, or more than 200,000 roots are known.';
COMMENT ON COLUMN chain.audit_finding.block_number IS 'The block of the change, or the first block at which it was seen.';
COMMENT ON COLUMN chain.audit_finding.manager IS 'The SessionKeyManager contract; null: it is about the account''s own slots.';
COMMENT ON COLUMN chain.audit_finding.account IS 'The smart account; null: nobody knows whose root it is (unknown_user).';
COMMENT ON COLUMN chain.audit_finding.reason IS
    'tainted: the account can change its root silently. missed_log: the node had omitted a log of the account. no_log: no log of the account is in the block of the change. misread: the root was read wrongly. unknown: the state between can not be read. changed_slots: implementation, handler or modules changed unnoticed. unknown_user: an account that is not known has a root in a manager whose roots were all known.';
COMMENT ON COLUMN chain.audit_finding.stored_root IS 'The root that was stored; 32 zero bytes: none. Null: it is not about a known root.';
COMMENT ON COLUMN chain.audit_finding.found_root IS 'The root that state shows; 32 zero bytes: none. Null: it is not about a known root.';
COMMENT ON COLUMN chain.audit_finding.previous_block IS 'The block of the observation before; of unknown_user, of the audit that was complete. Null: none.';
COMMENT ON COLUMN chain.audit_finding.found_at IS 'When it was found, by the database''s clock.';
COMMENT ON COLUMN chain.audit_finding.finding_id IS 'The finding''s number.';
COMMENT ON COLUMN watch.audit.audited_at IS 'When the audit ended, by the database''s clock.';
COMMENT ON COLUMN watch.audit.roots_read IS 'How many roots of the manager were read again.';
COMMENT ON COLUMN watch.audit.mismatches IS 'How many of them were not what was stored.';
COMMENT ON COLUMN watch.audit.storage_proof IS
    'complete: by the node''s proof of the manager''s storage every root in it is known. others_exist: it holds roots of accounts that are not known. unavailable: nobody can tell, since the node gives no proof, blocks are still owed, or more than 200,000 roots are known.';
COMMENT ON COLUMN watch.audit_finding.block_number IS 'The block of the change, or the first block at which it was seen.';
COMMENT ON COLUMN watch.audit_finding.manager IS 'The SessionKeyManager contract; null: it is about the account''s own slots.';
COMMENT ON COLUMN watch.audit_finding.account IS 'The smart account; null: nobody knows whose root it is (unknown_user).';
COMMENT ON COLUMN watch.audit_finding.reason IS
    'tainted: the account can change its root silently. missed_log: the node had omitted a log of the account. no_log: no log of the account is in the block of the change. misread: the root was read wrongly. unknown: the state between can not be read. changed_slots: implementation, handler or modules changed unnoticed. unknown_user: an account that is not known has a root in a manager whose roots were all known.';
COMMENT ON COLUMN watch.audit_finding.stored_root IS 'The root that was stored; 32 zero bytes: none. Null: it is not about a known root.';
COMMENT ON COLUMN watch.audit_finding.found_root IS 'The root that state shows; 32 zero bytes: none. Null: it is not about a known root.';
COMMENT ON COLUMN watch.audit_finding.previous_block IS 'The block of the observation before; of unknown_user, of the audit that was complete. Null: none.';
COMMENT ON COLUMN watch.audit_finding.found_at IS 'When it was found, by the database''s clock.';
COMMENT ON COLUMN watch.audit_finding.finding_id IS 'The finding''s number.';
COMMENT ON COLUMN chain.audit_finding.logs_owed IS 'True: the logs of the block are to be read again as soon as it is final.';
COMMENT ON COLUMN watch.audit_finding.explanation IS 'One sentence that says what it means.';
COMMENT ON COLUMN evidence.root_observation.root IS 'The root at the end of that block; 32 zero bytes: none.';
COMMENT ON COLUMN evidence.account_observation.enabled_managers IS 'Of the watched managers, those in the account''s list of modules.';
COMMENT ON COLUMN evidence.module_code.module IS 'A session validation module.';
COMMENT ON COLUMN evidence.module_code.has_code IS 'False: no session that names it can be used.';
COMMENT ON COLUMN evidence.module_code.block_number IS 'Where it was looked at.';
COMMENT ON COLUMN sessions.session_set.leaves_digest IS 'keccak256 of the leaves in order.';
COMMENT ON COLUMN sessions.session_set.call_hash IS 'keccak256 of the calldata of setMerkleRoot(root); null: stored by a version that did not compute it.';
COMMENT ON COLUMN sessions.session_set.root IS 'The Merkle root, computed here and never taken from a client.';
COMMENT ON COLUMN sessions.session.session_key_data IS 'What the session may do, as the module encodes it. Shown by no view.';
COMMENT ON COLUMN chain.root_change.previous_block IS 'The observation before; null: none.';

COMMENT ON COLUMN watch.account.factory IS 'The factory that created it; null if its creation has not been seen.';
COMMENT ON COLUMN watch.account.created_block IS 'The block of its creation; null if not seen.';
COMMENT ON COLUMN watch.account.modules IS
    'Its enabled modules in the order of their text: the initial one, EnabledModule and DisabledModule as far as indexed, and watched managers by state.';
COMMENT ON COLUMN watch.account.observed_block IS 'The block at which implementation, fallback_handler and tainted were read; null: not yet.';
COMMENT ON COLUMN watch.account.cohort IS '0: learnt from the factory; else the group it was learnt with.';
COMMENT ON COLUMN watch.session_root.change_block_exact IS
    'True: the change happened in this block. False: at or before it, since some block after the previous observation was not looked at.';
COMMENT ON COLUMN watch.session_root_current.change_block_exact IS
    'True: the change happened in this block. False: at or before it, since some block after the previous observation was not looked at.';
COMMENT ON COLUMN watch.session_root_transient.root IS 'The root that stood inside the block.';
COMMENT ON COLUMN watch.session_root_transient.final_root IS 'What state showed at the end of the block.';
COMMENT ON COLUMN watch.session_root_transient.evidence IS 'Where it was found: event (of the manager, or of a module''s call), calldata, trace.';
COMMENT ON COLUMN watch.session_set.state IS
    'on_chain: its root is the one that holds now. was_on_chain: it was there before. expected: never seen there, and the newest that should be. stored: none of these.';
COMMENT ON COLUMN watch.session_set.first_on_chain_block IS 'The first block at which its root was observed; null: never.';
COMMENT ON COLUMN watch.session_set.last_on_chain_block IS 'The last block at which its root was observed, also while it still holds.';
COMMENT ON COLUMN chain.session_use.log_index IS 'The position of the operation''s UserOperationEvent.';
COMMENT ON COLUMN chain.session_use.session_key_data IS 'As the signature presents it; kept so that a layout that is configured later applies to the past.';
COMMENT ON COLUMN watch.session_use.log_index IS 'The position of the operation''s UserOperationEvent.';
COMMENT ON COLUMN watch.session_use.set_id IS 'The stored set whose root the proof shows, else the newest that holds this leaf; null: none does.';
COMMENT ON COLUMN watch.session_use.known IS 'False: no stored set of the account holds this leaf. A proof alone makes no session: an inner node of the tree passes, too.';
COMMENT ON COLUMN watch.session_use.root_state IS
    'Where the proven root stood: held (at the end of the block before or of this one; an operation may still use what one beside it in the bundle replaces),'
    ' inside_block (something of this block names it), not_seen (not observed, or not yet).';
COMMENT ON COLUMN watch.session.use_count IS 'How many user operations were signed by it, failed ones included.';
COMMENT ON COLUMN watch.session.first_used_block IS 'The block of the first of them; null: never used.';
COMMENT ON COLUMN watch.session.last_used_block IS 'The block of the last of them.';
COMMENT ON COLUMN watch.session.last_used_time IS 'The time of the last of them, by the chain''s clock.';
COMMENT ON COLUMN watch.session_mint.fits IS
    'Whether contract, recipient and token are what the session''s data names, as far as it names them; null: it names none, or its layout is not known.';
COMMENT ON COLUMN watch.session_mint.leaf IS 'The session that signed for it.';
COMMENT ON COLUMN watch.session_mint.fits_contract IS 'Whether the contract is the one granted; null: none is granted by name.';
COMMENT ON COLUMN watch.session_mint.fits_recipient IS 'Whether it went to the recipient granted; null: none is granted by name.';
COMMENT ON COLUMN watch.session_mint.fits_token_id IS 'Whether the token is the one granted; null: none is granted by name.';
COMMENT ON COLUMN watch.root_disagreement.evidence IS 'What says otherwise: event, calldata, signature, trace.';
COMMENT ON COLUMN watch.root_disagreement.evidence_root IS 'The root that must stand by that evidence.';
COMMENT ON COLUMN watch.root_disagreement.state_root IS 'The root that state shows.';
COMMENT ON COLUMN chain.root_attribution.contradicting_evidence IS 'What says that another root must stand: event, calldata, signature, trace; null: nothing.';
COMMENT ON COLUMN chain.root_attribution.contradicting_root IS 'The root that must stand by that evidence.';
COMMENT ON COLUMN watch.user_operation.bundle_called IS 'The contract the bundle was sent to: the EntryPoint, or one that called it; null: not read.';
COMMENT ON COLUMN chain.bundle.called IS 'The contract it was sent to: the EntryPoint, or one that called it; null: the transaction made a contract.';
COMMENT ON COLUMN watch.session.state IS
    'By the time of the indexed block: active, expired (valid_until has passed), not_yet_valid (valid_after has not come), not_on_chain (the set''s root is not the current one).';
COMMENT ON COLUMN watch.verdict.is_final IS 'The observation is final and the account''s history is covered up to the finalized block.';
COMMENT ON COLUMN watch.drift.is_final IS 'The observation is final and the account''s history is covered up to the finalized block.';
COMMENT ON COLUMN watch.drift.verdict IS 'Always drifted.';
COMMENT ON COLUMN watch.drift_history.verdict IS 'Always drifted.';
COMMENT ON COLUMN watch.drift_history.opened_block IS 'The indexed block at which it was decided.';
COMMENT ON COLUMN watch.drift_history.closed_block IS 'The indexed block at which it was over; null while it holds.';
COMMENT ON COLUMN watch.erc1155_balance.balance IS 'Received minus sent up to the tip; may be negative while complete is false.';
COMMENT ON COLUMN watch.erc1155_balance.complete IS 'Every transfer of the contract, or with erc1155 = "touching" every transfer of the owner, from the chain''s start block on is counted.';
COMMENT ON COLUMN watch.progress.chain IS 'The chain''s name in the configuration.';
COMMENT ON COLUMN watch.progress.latest_block IS 'The node''s tip when last asked.';
COMMENT ON COLUMN watch.progress.indexed_block IS 'How far the live lane has committed.';
COMMENT ON COLUMN watch.progress.finalized_block IS 'The last block that is final and ours.';
COMMENT ON COLUMN watch.progress.finished IS 'The configured end_block, the chain''s last, is indexed and final: no block is awaited any more.';
COMMENT ON COLUMN watch.progress.lag_blocks IS 'latest_block minus indexed_block.';
COMMENT ON COLUMN watch.progress.lag_seconds IS 'Time of the latest block minus time of the indexed block, seconds of the chain.';
COMMENT ON COLUMN watch.progress.detail_from IS
    'From this block on account_event, user_operation and erc1155_transfer are complete; below it retention has dropped rows. Null: complete.';
COMMENT ON COLUMN watch.coverage.first_block IS 'The first block that must be covered: the chain''s start block.';
COMMENT ON COLUMN watch.coverage.last_block IS 'The last block that must be covered: the finalized one, or where the cohort was adopted.';
COMMENT ON COLUMN watch.coverage.missing_blocks IS 'How many of them are not covered yet; 0: complete.';
COMMENT ON COLUMN watch.coverage.missing IS 'Which: half-open ranges, {[5,8)} are the blocks 5, 6 and 7.';
COMMENT ON COLUMN watch.pace.blocks_per_second IS 'Blocks paid per second of wall clock by the last ranges, all that were in flight together.';
COMMENT ON COLUMN watch.pace.requests_per_block IS 'HTTP requests to the node per paid block.';
COMMENT ON COLUMN watch.pace.updated_at IS 'When the last range was paid, by the database''s clock; long ago: the pace says little.';
COMMENT ON COLUMN watch.reorg.old_tip IS 'Hash of the tip that lost.';
COMMENT ON COLUMN watch.reorg.new_tip IS 'Hash of the node''s tip at that moment; null after an operator''s rewind.';
COMMENT ON COLUMN chain.account.source IS 'How it was learnt: factory, stored (it has a stored set), list (the configuration).';
COMMENT ON COLUMN watch.account.source IS 'How it was learnt: factory, stored (it has a stored set), list (the configuration).';
COMMENT ON COLUMN sessions.session_set.source IS 'Which form of document it came from.';
COMMENT ON COLUMN watch.session_set.source IS 'Which form of document it came from.';
COMMENT ON COLUMN chain.tail.block_time IS 'When the block was made, unix seconds.';
COMMENT ON COLUMN chain.block.block_time IS 'When the block was made, unix seconds.';
COMMENT ON COLUMN chain.root_change.block_time IS 'When the block was made, unix seconds.';
COMMENT ON COLUMN chain.canonical_root.block_time IS 'When the block was made, unix seconds.';
COMMENT ON COLUMN chain.canonical_slots.enabled_managers IS 'Of the watched managers, those in the account''s list of modules.';
COMMENT ON COLUMN chain.canonical_slots.block_time IS 'When the block was made, unix seconds.';
COMMENT ON COLUMN chain.reorg.reason IS 'reorg, or operator (sessionwatch rewind).';
COMMENT ON COLUMN watch.reorg.reason IS 'reorg, or operator (sessionwatch rewind).';

DO $$
DECLARE
    target record;
BEGIN
    FOR target IN
        SELECT n.nspname, c.relname, a.attname, word.meaning
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          JOIN (VALUES
            ('account', 'The smart account.'),
            ('actual_gas_cost', 'What the account or its paymaster paid, wei.'),
            ('actual_gas_used', 'Gas, with the overhead of the EntryPoint.'),
            ('amount', 'How many of the token; 0 is legal.'),
            ('approved', 'True: the operator may move every token of the account.'),
            ('args', 'The event''s parameters by the names of the contract; bytes as 0x text.'),
            ('attribution', 'Who made the change: user_operation, session_key (a user operation that a session key signed), module (a module of the account), transaction (which is all that is known: of its sender, bundler, or several operations), ambiguous (several transactions could have), none (nothing names it).'),
            ('batch_index', 'The position inside a TransferBatch; 0 for a TransferSingle.'),
            ('block_hash', 'The hash of the block.'),
            ('block_number', 'The number of the block.'),
            ('block_time', 'When the block was made, by the chain''s clock.'),
            ('by_time_only', 'True: time alone (grace, expiry) opened it, not a block.'),
            ('bundler', 'Who sent the transaction, of those that carried a user operation or whose trace was read; null: not known.'),
            ('called', 'The contract of the call that this session stands for; null: it stands for all calls, or they are not known.'),
            ('calls', 'What it calls: [{to, value, selector, data_bytes}]; null or empty while the input has not been read.'),
            ('client_status', 'What the client''s store says of the session: pending, active, inactive, expired, revoked; null: nothing. The client''s word, never trusted as truth about the chain.'),
            ('cause', 'Why it is drifted, null for other verdicts: tainted_account, rotated_by_session_key, manager_disabled, module_without_code, cleared_on_chain, reverted_to_older_set, superseded, never_landed, manager_mismatch, order_or_duplicates, lost_sessions, revoked_still_provable, unknown_root. The first in this order that holds.'),
            ('chain_id', 'The chain''s id.'),
            ('closed_time', 'When another verdict took its place, wall clock.'),
            ('cohort', '0, or the group of accounts that was learnt together.'),
            ('common_ancestor', 'The last block that was kept.'),
            ('confirmed_at', 'Database time just before the head of the last finished step was asked for.'),
            ('contract', 'The ERC-1155 contract.'),
            ('data', 'The log''s data.'),
            ('decided_block', 'The indexed block at which it was decided.'),
            ('depth', 'How many indexed blocks were taken back.'),
            ('detected_at', 'When, by the database''s clock.'),
            ('entry_point', 'The EntryPoint that executed it.'),
            ('event', 'The event''s name.'),
            ('evidence', 'How the change is known beyond state: state (nothing else), event (the manager''s own, or the logged hash of a module''s call), calldata, signature, trace.'),
            ('expected_root', 'The root the chain should have; null: none is expected.'),
            ('expected_set_id', 'The stored set the chain should have.'),
            ('explanation', 'One sentence that says what is the matter.'),
            ('fallback_handler', 'The contract that answers unknown calls, by state.'),
            ('filter', 'Whose logs: factory/0x…, accounts, erc1155/0x…, erc1155/touching (watched accounts), erc1155/all.'),
            ('finality_violation', 'Not null: node and database disagree at or below finality; says where. Nothing is written meanwhile.'),
            ('first_block', 'The first block of the stretch.'),
            ('from_address', 'Who sent; the zero address: a mint.'),
            ('granted_contract', 'The contract that the session''s data allows to call, by the module''s layout; null: none by name.'),
            ('granted_recipient', 'The recipient that the session''s data names, by the module''s layout; null: none.'),
            ('granted_token_id', 'The token that the session''s data names, by the module''s layout; null: none.'),
            ('hash', 'The hash of the block.'),
            ('hint_index', 'The order inside one operation.'),
            ('implied_root', 'The account''s root at validation, as the proof in the signature shows it.'),
            ('implementation', 'The implementation behind the proxy, by state; zero: no code, or not a SmartAccount proxy.'),
            ('is_current', 'True: no later change, this root holds now.'),
            ('is_final', 'The block is at or below the finalized one.'),
            ('last_block', 'The last block of the stretch.'),
            ('leaf', 'The session''s leaf: keccak256 of its packed fields. Null: no session, or it cannot be told.'),
            ('leaf_index', 'The position in the set, from 0.'),
            ('log_index', 'The position of the log in its block.'),
            ('manager', 'The SessionKeyManager contract.'),
            ('matched_form', 'Which leaves of its document the set is made of: all_leaves, not_revoked (without those the client calls REVOKED), active (those it calls ACTIVE), revoke_form (the old tree and what the SDK''s revokeSessions appended), prefix (an older state: the beginning of the list), suffix (an older state of a list kept newest first). The last four are stored because the chain had that root at the import; no verdict wants a revoke_form.'),
            ('module', 'The module of the account that set it; null: none did, or nothing names it.'),
            ('new_tip_number', 'The node''s tip at that moment; null after an operator''s rewind.'),
            ('nonce', 'Key (upper 192 bits) and sequence of the operation.'),
            ('observed_block', 'The block of the observation it rests on; null: none.'),
            ('old_tip_number', 'The tip that lost.'),
            ('on_chain_root', 'The root it was decided on; 32 zero bytes: none; null: not known.'),
            ('on_chain_set_id', 'The stored set with that root; null: none.'),
            ('operator', 'Who moved, or may move, the tokens.'),
            ('owner', 'Who holds the tokens.'),
            ('parent_hash', 'The hash of the block before.'),
            ('pass', 'The kind of work: logs, bodies (input of handleOps), roots/0x… (state of that manager at triggers).'),
            ('paymaster', 'Who paid; the zero address: the account.'),
            ('previous_root', 'The root before; 32 zero bytes: none.'),
            ('reason', 'Why.'),
            ('recorded_at', 'When it was noted, by the database''s clock.'),
            ('reorg_id', 'The rewind''s number.'),
            ('root', 'The root; 32 zero bytes: none.'),
            ('sender', 'The smart account.'),
            ('session_count', 'How many sessions, duplicates included.'),
            ('session_key', 'The session''s key, by the known or configured layout of its module; null: layout unknown.'),
            ('session_validation_module', 'The contract that checks what the session may do.'),
            ('set_id', 'The stored session set; null: no stored set has this root.'),
            ('severity', 'critical (look now), warning, info.'),
            ('since_block', 'The block since which it is so; null: not tied to a block.'),
            ('since_time', 'The time since which it is so: a computed instant, not the moment a sweep ran.'),
            ('start_block', 'Where history begins; null: not found yet.'),
            ('stored_at', 'When it was stored, by the database''s clock; of what the chain had at a later import: just before the set it is an older state of.'),
            ('stored_block', 'The indexed block when it was stored; null: nothing was indexed yet.'),
            ('success', 'False: the execution failed and its changes were undone.'),
            ('tainted', 'True: another implementation, or a watched manager as fallback handler: its root may change without a log. Null: not read yet.'),
            ('to_address', 'Who received; the zero address: a burn.'),
            ('token_id', 'The token''s id.'),
            ('topics', 'The log''s topics, in order.'),
            ('transaction_hash', 'The hash of the transaction; null: not known.'),
            ('transaction_index', 'The position of the transaction in its block.'),
            ('updated_at', 'When the row was last written, by the database''s clock.'),
            ('use_index', 'The order of the sessions in one signature.'),
            ('user_op_hash', 'The user operation it belongs to; null: none, or not known.'),
            ('valid_after', 'Unix seconds from which the session may be used; 0: at once.'),
            ('valid_until', 'Unix seconds up to which the session may be used; 0: for ever.'),
            ('validation_module', 'The module that validated it, by the signature in the input; null: not read, or not said.'),
            ('value', 'The text, NUL removed, cut to 8192 characters.'),
            ('verdict', 'in_sync, pending (the expected set has not landed and is within its grace), drifted (look at it), unmanaged (a root, but nothing stored), empty (nothing anywhere), unknown (state could not be read).'),
            ('verdict_id', 'The decision''s number.'),
            ('warnings', 'What is worth knowing beside the verdict: all_expired, expiring_soon, expired_in_root, unreadable_state, not_final.'),
            ('address', 'The contract that emitted the log.')
          ) AS word (attname, meaning) ON word.attname = a.attname
         WHERE n.nspname IN ('chain', 'evidence', 'sessions', 'watch') AND c.relkind IN ('r', 'p', 'v')
           AND pg_catalog.col_description(c.oid, a.attnum) IS NULL
    LOOP
        EXECUTE format('COMMENT ON COLUMN %I.%I.%I IS %L', target.nspname, target.relname, target.attname, target.meaning);
    END LOOP;
END
$$;

---------------------------------------------------------------------------------------------------
-- Who may do what. Views reach their tables with the owner's rights, so a reader needs nothing below watch.

GRANT USAGE ON SCHEMA chain, evidence, sessions, watch TO sessionwatch_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA chain TO sessionwatch_writer;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA evidence, sessions TO sessionwatch_writer;
GRANT UPDATE (has_code, block_number) ON evidence.module_code TO sessionwatch_writer;
GRANT UPDATE (tainted, enabled_managers) ON evidence.account_observation TO sessionwatch_writer;
GRANT DELETE ON evidence.unobserved TO sessionwatch_writer;
GRANT UPDATE (session_key, client_status) ON sessions.session TO sessionwatch_writer;
GRANT UPDATE (matched_form) ON sessions.session_set TO sessionwatch_writer;
REVOKE INSERT ON evidence.schema_version FROM sessionwatch_writer;
REVOKE INSERT, UPDATE, DELETE ON chain.canonical_root, chain.canonical_slots, chain.root_change, chain.named_root, chain.root_author, chain.covered, chain.unfolded FROM sessionwatch_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA watch TO sessionwatch_writer;

GRANT USAGE ON SCHEMA watch TO sessionwatch_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA watch TO sessionwatch_reader;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA chain, evidence, sessions, watch FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA chain, evidence TO sessionwatch_writer;
REVOKE EXECUTE ON FUNCTION evidence.accept_backup() FROM sessionwatch_writer;
REVOKE EXECUTE ON FUNCTION chain.attach_partition(text, text, bigint, bigint) FROM sessionwatch_writer;
-- A function inside a view runs with the rights of who asks; without this one no index on hex text would serve either.
GRANT EXECUTE ON FUNCTION evidence.hex(bytea) TO sessionwatch_reader;
GRANT EXECUTE ON FUNCTION evidence.moment(bigint) TO sessionwatch_reader;
