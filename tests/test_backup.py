"""The back-up of README, restored by the commands of README, beside a node without old state."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.devnet.tools import Toolchain
from indexer.store import schema
from indexer.store.chain_row import Connection
from indexer.store.embedded import EmbeddedPostgres, postgres_binaries
from tests.daemon_process import configuration, running_daemon, settled, until
from tests.fixtures_database import connected
from tests.pruned_story import KEPT_BLOCKS, Story
from tests.released_schemas import contents, fill, released
from tests.routes import MANAGERS
from tests.schema_rows import insert
from tests.test_pruned_state import (
    FINALITY,
    decided_without_grace,
    owes_only_what_is_lost,
    store_sets,
    stretches,
)
from tests.twin_nodes import running_twins
from tests.watching import hexed

README = Path(__file__).parent.parent / "README.md"


def documented(first_word: str) -> str:
    """Return the one block of commands under "Roles and back-ups" that begins with this word."""
    section = README.read_text().split("### Roles and back-ups")[1].split("\n### ")[0]
    (block,) = re.findall(rf"```sh\n({first_word}\b.*?)```", section, flags=re.DOTALL)
    return str(block)


async def commands(folder: Path, server_url: str, text: str) -> None:
    """Run commands as an operator's shell does, with this server as the one that is at hand."""
    code, output = await shell(folder, server_url, text)
    assert code == 0, output


async def shell(folder: Path, server_url: str, text: str) -> tuple[int, str]:
    """Return the exit code of such commands, and all they said."""
    host = re.search(r"host=([^&]+)", server_url)
    assert host is not None
    process = await asyncio.create_subprocess_exec(
        *("sh", "-e", "-c", text),
        cwd=folder,
        env={
            "PATH": f"{postgres_binaries()}:{Path(sys.executable).parent}:{os.defpath}",
            "PGHOST": host[1],
            "PGUSER": "postgres",
            "SESSIONWATCH_DATABASE__URL": server_url,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@asynccontextmanager
async def machine(folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A cluster of its own, without the database."""
    async with EmbeddedPostgres(folder, fsync=False) as server:
        async with connected(server.url.replace("/sessionwatch?", "/postgres?")) as admin:
            await admin.execute("DROP DATABASE sessionwatch")
        yield server


@pytest.mark.parametrize("tainted", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_a_back_up_is_restored_beside_a_node_without_old_state(
    toolchain: Toolchain, tmp_path: Path, tainted: bool
) -> None:
    """Roots, sets and verdicts are as before, though no node has the state they were read from.

    All that is not is that blocks between two looks at a tainted account are unobserved.
    """
    async with running_twins(toolchain, prune_history=KEPT_BLOCKS) as twins:
        story = Story(twins)
        keys: dict[str, Any] = {
            "managers": [hexed(m) for m in MANAGERS],
            "finality": FINALITY,
            "grace_seconds": 1,
        }
        async with machine(tmp_path / "old") as old:
            await commands(tmp_path, old.url, "createdb sessionwatch; sessionwatch schema apply")
            config = configuration(old.url, twins.devnet.url, **keys)
            async with (
                connected(old.url) as connection,
                running_daemon(tmp_path, config, name="before") as daemon,
            ):
                await daemon.following()
                await story.tell(tainted=tainted)
                tip, horizon = await twins.tip(), await twins.horizon()
                await until(lambda: settled(connection, *tip), "the index", 20)
                await store_sets(old.url, story.stage)
                await until(lambda: decided_without_grace(connection), "the verdicts", 20)
                await until(lambda: settled(connection, *tip), "the cohort's past", 20)
                assert await daemon.stop() == 0
                before = await everything(connection)
                seen = await counted(connection, tip[0] - FINALITY)
                set_ids = await connection.fetchval("SELECT max(set_id) FROM watch.session_set")
            await commands(tmp_path, old.url, documented("pg_dump"))

        async with machine(tmp_path / "new") as new:
            await commands(tmp_path, new.url, documented("createdb"))
            config = configuration(new.url, twins.pruned.url, **keys)
            async with (
                connected(new.url) as connection,
                running_daemon(tmp_path, config, name="after") as daemon,
            ):
                await until(lambda: read_what_can_be(connection, tip), "the index", 20)
                assert await daemon.stop() == 0
                after, lost = await everything(connection), await stretches(connection)
                assert seen <= await counted(connection, tip[0] - FINALITY)
                # The next set gets the next number, not one that is there.
                await insert(connection, "sessions.session_set")
                newest = await connection.fetchval("SELECT max(set_id) FROM watch.session_set")
    changes = [row for row in before["session_root"] if row["block_number"] < horizon]
    assert len(changes) > 8
    assert newest == set_ids + 1
    if tainted:
        assert {"tainted_account"} <= {row["cause"] for row in before["verdict"]}
    else:
        assert not lost
    for rows in (*before.values(), *after.values()) if tainted else ():
        for row in rows:
            row.pop("is_final", None)
            row.pop("change_block_exact", None)
            if "warnings" in row:
                row["warnings"] = sorted({*row["warnings"]} - {"not_final", "unreadable_state"})
    for view, rows in before.items():
        assert after[view] == rows, view


OUR_BACKUP = """
SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('evidence', 'sessions') AND c.relkind = 'r'
   AND c.oid <> 'evidence.schema_version'::regclass ORDER BY 1"""


# The logins that README makes, and what each is for.
LOGINS = {
    "sessionwatch": "SELECT session_key_data FROM sessions.session",
    "sessionwatch_reader": "SELECT * FROM watch.session",
    "anna": "SELECT * FROM watch.session",
}


@pytest.mark.parametrize("version", range(schema.FIRST_VERSION, schema.SCHEMA_VERSION))
async def test_a_back_up_of_an_older_release_is_restored_into_this_one(
    tmp_path: Path, version: int
) -> None:
    """Its rows fit, its version row is taken for what it is, and this database's stays."""
    async with machine(tmp_path / "machine") as server:
        await commands(tmp_path, server.url, "createdb sessionwatch")
        async with connected(server.url) as old:
            async with old.transaction():
                await old.execute(released(version))
            await fill(old)
            before = await contents(old, OUR_BACKUP)
        await commands(tmp_path, server.url, documented("pg_dump") + "dropdb sessionwatch")
        await commands(tmp_path, server.url, documented("createdb"))
        await commands(tmp_path, server.url, documented("psql"))
        for login, query in LOGINS.items():
            url = server.url.replace("user=postgres", f"user={login}")
            async with connected(url) as opened:
                await opened.fetch(query)
        async with connected(server.url) as new:
            after = await contents(new, OUR_BACKUP)
            await schema.check_version(new)
    assert all(before.values())
    for table, rows in before.items():
        assert [{name: row[name] for name in rows[0]} for row in after[table]] == rows, table


@pytest.mark.parametrize(
    ("of_backup", "of_database", "said"),
    [
        ("version = 3", "", "back-up is of schema version 3, the database has version 2"),
        ("version = 1", "restores_from = 2", "here only versions from 2 on can be restored"),
    ],
)
async def test_a_back_up_that_does_not_fit_is_refused_whole(
    tmp_path: Path, of_backup: str, of_database: str, said: str
) -> None:
    """The reason is said, and not a row of it is restored."""
    async with machine(tmp_path / "machine") as server:
        await commands(tmp_path, server.url, "createdb sessionwatch; sessionwatch schema apply")
        async with connected(server.url) as old:
            await fill(old)
            await old.execute(f"UPDATE evidence.schema_version SET {of_backup}")
        await commands(tmp_path, server.url, documented("pg_dump") + "dropdb sessionwatch")
        prepare, restore = documented("createdb").split("pg_restore")
        await commands(tmp_path, server.url, prepare)
        async with connected(server.url) as new:
            if of_database:
                await new.execute(f"UPDATE evidence.schema_version SET {of_database}")
            code, output = await shell(tmp_path, server.url, "pg_restore" + restore)
            assert code != 0
            assert said in output
            assert not any((await contents(new, OUR_BACKUP)).values())


# By view: what does not come back, since it is of the index and not of what was seen.
OF_THE_INDEX = {
    # How the account was learnt: this time from the stored set, before its creation was found.
    "account": {"source", "cohort", "observed_block"},
    "account_event": set(),
    "user_operation": set(),
    "session_root": set(),
    "session_root_current": set(),
    "session_root_transient": set(),
    # How long a root was looked at.
    "session_set": {"last_on_chain_block"},
    "session": set(),
    "session_use": set(),
    "session_mint": set(),
    "root_disagreement": set(),
    "verdict": {"verdict_id", "decided_block", "observed_block"},
    "erc1155_transfer": set(),
    "erc1155_balance": set(),
}


async def everything(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the views, without what does not come back, in an order of their own."""
    found = {}
    for view, lost in OF_THE_INDEX.items():
        rows = [dict(row) for row in await connection.fetch(f"SELECT * FROM watch.{view}")]
        kept = [{name: row[name] for name in row if name not in lost} for row in rows]
        found[view] = sorted(kept, key=repr)
    return found


async def counted(connection: Connection, last_block: int) -> set[tuple[Any, ...]]:
    """Return the observations up to a block that count, wherever they were made."""
    rows = await connection.fetch(
        "SELECT manager, account, block_number, root FROM chain.canonical_root"
        " WHERE block_number <= $1",
        last_block,
    )
    return {tuple(row) for row in rows}


async def read_what_can_be(connection: Connection, tip: tuple[int, bytes]) -> bool:
    """Say whether this tip is decided and nothing is owed but what is lost, if anything is."""
    return await settled(connection, *tip) or await owes_only_what_is_lost(connection, tip)
