"""Sessionwatch: chain → core → store → web. One line per file, in the order of the flow.

The shell
    __main__.py         python -m indexer
    cli.py              the verbs of the command line
    cli_common.py       what all verbs share: options, output, how errors become exit codes
    cli_sessions.py     sessions import, list, show
    cli_audit.py        `audit`: its progress bar and its report
    cli_explain.py      `explain`: one account in words
    cli_status.py       what `status` prints: one bar per lane
    cli_progress.py     the bars of `run --once` on a terminal
    cli_export.py       sessions export
    cli_plan.py         sessions plan: the next set of an account
    cli_plan_text.py    what it prints, against what is on chain
    cli_choice.py       which session of which set is meant
    cli_prove.py        sessions prove
    cli_schema.py       schema apply, print
    cli_validate.py     sessions validate: what it asks and prints
    validate.py         what a node says of one session, after one block
    whole_files.py      files that appear whole or not at all, for their owner only
    check.py            `check`: do configuration, database, nodes and contracts fit together?
    config.py           TOML, credentials, environment → frozen settings; every mistake at once
    config_sources.py   where settings stand: the raw values, each with its source
    daemon.py           the wiring: signals, one TaskGroup, a bounded stop, a true exit code
    lanes.py            one chain: what must be known first, and its lanes
    worker.py           history in a process of its own, while there is much of it
    supervisor.py       what systemd is told: started, a line for people, and that work goes on
    telemetry.py        what the lanes tell metrics, health and the log
    follow.py           THE loop of the live lane: plan, fetch, one transaction
    history.py          the passes over the past: several ranges in flight, until nothing is owed
    sweep.py            what time alone changes, and what others queued
    settling.py         traces that settle who changed a root, where they are configured
    counting.py         sessions counted by state, rarely where that takes long
    retention.py        drops old raw detail, slice by slice
    audit.py            a node asked again for what the database counts as covered
    auditing.py         the daemon's own audit: roots and slots just below the tip, again and again
    audit_search.py     where a root that is not the stored one changed, and why nobody saw it
    gather.py           the live lane's answers of a node
    finality.py         how far a node's word on finality is taken
    history_logs.py     the history lane's: a range of logs
    history_state.py    the history lane's: inputs and roots at stored triggers
    silent.py           changes that left no log, by bisecting
    filters.py          which logs are asked for, and which of them count
    ingest.py           what all share: answers of a node → rows of one transaction
    metrics.py          every metric, declared once
    log.py              events with values as fields, and never a secret
    errors.py           try again, or wake someone; the exit codes

chain/  1 IN: the only code that talks to nodes
    rpc.py              Node: JSON-RPC to the endpoints of one chain, retried and bounded
    endpoint.py         one HTTP exchange: deadline, byte cap, no redirect
    wire.py             the shapes of answers, and strict conversion of their hex
    refusals.py         what a node's error means; none means "empty"
    scrub.py            keeps the URLs of nodes out of every text
    head.py             tip, finalized block, headers
    logs.py             logs, with proof that they belong to the blocks asked for
    state.py            transactions, code, what kind of manager stands somewhere
    bulk.py             storage and code at block hashes, in few requests; an error is never a zero
    traces.py           traces of transactions, in both dialects, without what was reverted
    questions.py        questions of state, put to the endpoints until one has it
    readers.py          byte code that reads many words in one eth_call
    slots.py            where an account keeps what is read of it
    proofs.py           what a node proves of a contract's whole storage
    contracts.py        what `check` asks of nodes and managers

core/   2 PURE: no I/O, no clock, no randomness, no logging; values in, values out
    types.py            blocks, logs, sessions: bytes inside, 0x text only at the edges
    settings.py         the frozen settings of one chain
    presets.py          chains and contracts known by name
    config_values.py    from a configured value to a typed one, or what is wrong with it
    key_text.py         hides what looks like a private key where input is quoted
    passes.py           the passes that a configuration asks for, and the logs each needs
    debt.py             coverage subtracted from what is asked for
    audit_claims.py     which rows an audit compares: those of covered passes
    audit.py            the comparison, row by row, and its findings
    audit_changes.py    what an audit says of a root that is not the stored one
    storage_trie.py     the root of a contract's storage, from all its words
    estimate.py         how far each lane is, and what the rest may take
    lane_text.py        the words for it, in a terminal and on the page
    watchlist.py        which accounts are watched at which block
    reorg.py            what the live lane does next: wait, extend, rewind
    abi.py              bounds-checked slicing of ABI-encoded bytes
    topics.py           the events understood, and which contract emits them
    decoded.py          the rows that logs decode to
    events.py           logs → rows; one hostile log stops nothing
    erc1155.py          ERC-1155 logs → rows; the contracts are strangers
    user_operations.py  handleOps input: operations, calls, what signatures reveal
    linking.py          which operation of a bundle a log belongs to
    balances.py         ERC-1155 balances as sums of transfers
    roots.py            whose root a block may have changed, and which roots are named
    attribution.py      who changed a root, and what contradicts state
    traces.py           what a trace says of roots
    merkle.py           leaves, roots and proofs, bit for bit as the vendor builds them
    session_sets.py     an ordered list of sessions, and its root
    session_import.py   session sets out of the documents of clients and vendors
    session_json.py     strict JSON that may lie beside private keys
    session_fields.py   one field of a document somebody else wrote
    session_reader.py   one session after the other, every mistake with its path
    session_place.py    what a document says of its sets beside their sessions
    store_forms.py      which sets a client's list stands for, and which form of it the chain has
    import_plan.py      what an import stores of one list, given the roots on chain
    session_export.py   session sets as the documents that import reads
    session_particle.py what an answer of particle_aa_createSessions says of account and root
    session_abi.py      sessionKeyDataInAbi → bytes
    leaf_order.py       the order of a changed set that spares most proofs
    session_plan.py     the next set: what stays, goes and joins
    session_proof.py    a session's proof, and the signatures it travels in
    session_check.py    whether a session can be used, condition by condition
    session_layout.py   what a session may do, by its module's layout of its data
    verdict_values.py   what goes into a verdict, and what comes out
    expected_set.py     what the chain has, and what it should have
    wishes.py           what a client wants of it: kept leaves, revoked leaves
    root_search.py      which arrangement of stored sessions gives an unknown root
    root_story.py       that arrangement in words
    other_tree.py       whether that arrangement proves a session
    expiry.py           what the passing of block time does to sessions
    verdicts.py         the one decision
    explain.py          the one sentence
    account_report.py   one account in detail: how each stored set differs from the tree
    account_text.py     who set a root, until when a session is valid, in words
    remedies.py         what to do about a verdict, a cause, a warning

store/  3 OUT: the only code with SQL; one step, one transaction
    schema.py           schema.sql and migrations/: applying them, and the version
    pool.py             the connections, and what their failures mean
    chain_row.py        the row of one chain: taking it over, locking it
    live_view.py        what a live step is planned on, in one snapshot
    live.py             the live lane's transactions: extend, rewind, restart
    history.py          the history lane's: what is owed, and paying one range
    triggers.py         what the tables say of a range whose inputs or roots are to be paid
    watched.py          the watch list: who is watched, adopting more, the lives of cohorts
    rows.py             what one step found, and writing it once
    copying.py          COPY into the tables, in key order
    evidence.py         what was read of state before, where nobody can read it again
    observations.py     what was read from state, and who is named for it
    settling.py         the changes that wait for a trace, and what traces said
    layouts.py          what sessions may do, derived again when a layout has changed
    sessions.py         the stored session sets: import, list, show
    session_export.py   the stored session sets with their data, one after the other
    session_choice.py   an account's newest set, and what is indexed of its root
    sweep.py            the sweep's: what waits to be decided, and deciding it
    verdict_queue.py    (manager, account) whose inputs changed
    verdict_inputs.py   what verdicts are decided on
    searches.py         what unknown roots turned out to be, remembered between decisions
    verdicts.py         verdicts in the database, and telling who listens
    explain.py          what `explain` tells of one account, in one snapshot
    retention.py        dropping partitions that are old and paid for, and what they told
    audit.py            what an audit reads
    auditing.py         what the daemon's own audits read
    audit_findings.py   what they write: repairs, findings, what is owed again
    status.py           what the daemon knows, in one read
    account_page.py     what the page shows of one account, bounded
    drift_list.py       drifted accounts by chain, cause and severity
    reports.py          what the demo tells of the database
    operator.py         what an operator does by hand: rewind, start over
    embedded.py         a Postgres of our own under data_dir
    embedded_process.py running Postgres' own programs

web/    4 SIDE: what the daemon shows over HTTP; nothing here writes
    health.py           what the daemon says of itself
    hosts.py            which Host header a request may carry
    question.py         what the page's query string asks for
    bounded.py          how many pages are read at once, and in a second
    door.py             how many connections are held, and for how long
    server.py           /metrics, /livez, /readyz, /status, and the page
    style.py            how the page looks, and the policy that allows it alone
    markup.py           pieces of HTML, each value escaped
    page.py             the front page: every chain, what is wrong first
    drift_page.py       drifted accounts as a list
    account_page.py     one account: verdict, roots, sets, sessions

devnet/ a local chain with the real contracts, for the demo and the tests; `run` never imports it
    demo.py             `demo`: database, chain, daemon, stories
    stories.py          what happens, and what the daemon has to say about it
    accounts.py         accounts, operations, sessions and mints on the local chain
    operations.py       user operations: calldata, hashes, every form of signature
    tools.py            Anvil, and the contracts built from their packages
    npm.py              packages of npm, installed once in a cache
    child.py            child processes that end with their parent
    anvil.py            starts and stops one node
    deploy.py           every contract at its real address
    addresses.py        where everything stands
    rpc.py              a plain JSON-RPC client
"""
