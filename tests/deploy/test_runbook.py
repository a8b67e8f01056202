"""Every statement and every command of the runbook is run, on what a real daemon has found."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import indexer
from indexer.devnet import addresses as at
from indexer.devnet.tools import Toolchain
from tests.deploy.monitoring import prometheus_config, running_prometheus
from tests.deploy.runbook import blocks, command_lines
from tests.deploy.story import told
from tests.environment import environment
from tests.schema_rows import address, hash32, insert
from tests.watching import Watch

# These need systemd as the first process, or a service of it: no container has that.
NOT_RUN_HERE = ("systemctl ", "journalctl ", "systemd-run ")
PLACEHOLDERS = ("CHAIN", "ACCOUNT", "BLOCK", "FOLDER", "HTTP", "PROMETHEUS")
# What the runbook does with the daemon stopped, or what stops it.
WITHOUT_DAEMON = ("sessionwatch schema apply", "sessionwatch rewind")


async def run_line(line: str, config_file: Path, variables: Mapping[str, str]) -> tuple[int, str]:
    """Run a line of the runbook in a shell, saying yes to what it asks; return code and output."""
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-euc", line),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(
            PATH=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            SESSIONWATCH_CONFIG=str(config_file),
            **variables,
        ),
    )
    said, _ = await process.communicate(b"y\n")
    assert process.returncode is not None
    return process.returncode, said.decode()


def runnable_lines() -> list[str]:
    """Return what a machine without systemd can run, but for the placeholders' own lines."""
    return [
        line
        for line in command_lines()
        if not line.startswith(NOT_RUN_HERE) and line.partition("=")[0] not in PLACEHOLDERS
    ]


def test_every_line_is_of_a_kind_that_is_run_or_known_not_to_be() -> None:
    """Only Sessionwatch, curl and what systemd alone can answer; each placeholder has a value."""
    lines = command_lines()
    assert [line.partition("=")[0] for line in lines if re.match(r"[A-Z]+=", line)] == list(
        PLACEHOLDERS
    )
    assert all(line.startswith(("sessionwatch ", "curl ")) for line in runnable_lines())
    used = set(re.findall(r"\$(\w+)", "\n".join(runnable_lines())))
    assert used == set(PLACEHOLDERS)


def test_the_log_has_the_events_that_are_looked_for() -> None:
    """What journalctl is asked to grep for is an event of the log, by its name."""
    source = "\n".join(path.read_text() for path in Path(indexer.__file__).parent.rglob("*.py"))
    patterns = re.findall(r"--grep='([^']+)'", "\n".join(command_lines()))
    events = {word for pattern in patterns for word in pattern.split("|") if "_" in word}
    assert {"step_retried", "wait_began", "finality_violated"} <= events
    for event in events:
        assert f'"{event}"' in source, event


@pytest.mark.timeout(240)
async def test_every_command_works(toolchain: Toolchain, database_url: str, tmp_path: Path) -> None:
    """Beside a running daemon each ends with 0 and says something; the rest once it is stopped."""
    lines = [line for line in runnable_lines() if "$PROMETHEUS" not in line]
    later = [line for line in lines if line.startswith(WITHOUT_DAEMON)]
    assert len(later) == len(WITHOUT_DAEMON)
    async with told(toolchain, database_url, tmp_path) as story:
        for line in lines:
            if line not in later:
                code, said = await run_line(line, story.config_file, story.variables)
                assert code == 0, (line, said)
                assert said.strip(), line
                if "explain" in line:
                    assert "unknown_root" in said
    for line in reversed(later):
        code, said = await run_line(line, story.config_file, story.variables)
        assert code == 0, (line, said)
        assert said.strip(), line


async def add_what_is_rare(watch: Watch, account: str) -> None:
    """Write what the story has none of: lies of nodes, lost state, open debt."""
    connection, raw = watch.connection, bytes.fromhex(account[2:])
    tip = await connection.fetchval("SELECT indexed_block FROM watch.progress")
    given = {"chain_id": 80001, "manager": at.MANAGER, "account": raw}
    await insert(
        connection, "chain.undecoded_log", chain_id=80001, reason="strange", block_number=1
    )
    await insert(connection, "chain.audit_finding", **given, block_number=tip, reason="no_log")
    await insert(connection, "chain.audit", chain_id=80001, manager=at.MANAGER, block_number=tip)
    await insert(
        connection,
        "evidence.unobserved",
        chain_id=80001,
        manager=at.MANAGER,
        cohort=0,
        first_block=0,
        last_block=tip,
        reason="pruned",
    )
    await insert(
        connection,
        "chain.verdict",
        chain_id=80001,
        manager=at.MANAGER,
        account=address(77),
        verdict="unknown",
        block_number=tip,
        since_block=tip,
    )
    await connection.execute(
        "UPDATE chain.root_attribution"
        "   SET contradicting_evidence = 'event', contradicting_root = $1",
        hash32(7),
    )
    await connection.execute("UPDATE chain.coverage SET blocks = '{}' WHERE pass <> 'logs'")


@pytest.mark.timeout(120)
async def test_every_statement_finds_what_it_is_for(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """As the reader, or as the superuser where it says so, each has an answer that is not empty."""
    statements = blocks("sql")
    assert len(statements) > 30
    async with told(toolchain, database_url, tmp_path) as story:
        assert await story.watch.daemon.stop() == 0
        await add_what_is_rare(story.watch, story.variables["ACCOUNT"])
        connection = story.watch.connection
        for statement in statements:
            sql = statement.replace(":'account'", f"'{story.variables['ACCOUNT']}'")
            async with connection.transaction():
                if not statement.startswith("-- as postgres\n"):
                    await connection.execute("SET LOCAL ROLE sessionwatch_reader")
                assert await connection.fetch(sql), statement


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_prometheus_answers_what_it_is_asked(
    toolchain: Toolchain, database_url: str, tmp_path: Path
) -> None:
    """Each question of the runbook to Prometheus, which scrapes the daemon, has an answer."""
    lines = [line for line in runnable_lines() if "$PROMETHEUS" in line]
    assert len(lines) >= 5
    async with told(toolchain, database_url, tmp_path) as story:
        config = prometheus_config(tmp_path, [story.target])
        async with running_prometheus(tmp_path, config) as prometheus:
            variables = story.variables | {"PROMETHEUS": prometheus.url}
            await story.node_refuses_until(
                lambda: prometheus.has("sessionwatch:rpc_refused:ratio10m")
            )
            await prometheus.has('ALERTS{alertname="SessionwatchDriftCritical"}')
            for line in lines:
                code, said = await run_line(line, story.config_file, variables)
                assert code == 0, (line, said)
                assert '"result":[]' not in said, line
                assert '"status":"success"' in said, line
