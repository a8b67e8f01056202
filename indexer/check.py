"""`sessionwatch check`: do configuration, database, nodes and contracts fit together?

Reads only (but an embedded database is prepared). Waits for nodes and the database, then gives up
and says so with exit code 75; a node of another chain or a database of another version is exit
code 78; anything else is a warning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from indexer.chain.contracts import (
    EndpointReport,
    ManagerReport,
    describe_endpoint,
    describe_manager,
)
from indexer.config import DatabaseSettings, Settings
from indexer.core.config_values import checksum_address
from indexer.core.settings import ChainSettings
from indexer.errors import (
    EXIT_FATAL,
    EXIT_STOPPED,
    EXIT_TRY_AGAIN,
    FatalError,
    NodeUnreachableError,
    RetryableError,
    SessionwatchError,
)
from indexer.log import get_logger
from indexer.store.embedded import embedded_url
from indexer.store.pool import Database
from indexer.store.schema import SCHEMA_VERSION, apply

GIVE_UP_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_KINDS = {
    "v1": "V1, without events: changes are read from state",
    "events": "with events (MerkleRootUpdated)",
    "unknown": "unknown code: not a SessionKeyManager that is known",
    "none": "no code: not deployed on this chain, or the address is wrong",
}
_WARNED_KINDS = frozenset({"none", "unknown"})
_log = get_logger()


@dataclass(frozen=True, slots=True)
class DatabaseCheck:
    """`problem` is empty if the schema can be used."""

    schema_version: int | None
    problem: str
    remedy: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """What one chain's nodes and contracts say. `finality` is "finalized" or a depth."""

    chain: str
    chain_id: int
    retired: str
    finality: str | int
    end_block: int | None
    endpoints: tuple[EndpointReport, ...]
    managers: tuple[ManagerReport, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    exit_code: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All that was found; `exit_code` is the gravest of its parts."""

    database: DatabaseCheck
    chains: tuple[ChainCheck, ...]

    @property
    def exit_code(self) -> int:
        """0, 75 (something did not answer) or 78 (something cannot work)."""
        codes = [self.database.exit_code, *(chain.exit_code for chain in self.chains)]
        return max(codes)

    def as_json(self) -> dict[str, Any]:
        """Return it for --json: addresses as 0x text."""
        chains = []
        for chain in self.chains:
            plain = asdict(chain)
            for manager in plain["managers"]:
                manager["manager"] = "0x" + manager["manager"].hex()
            chains.append(plain)
        return {"exit_code": self.exit_code, "database": asdict(self.database), "chains": chains}


@asynccontextmanager
async def database_url(settings: DatabaseSettings, *, prepare: bool = True) -> AsyncIterator[str]:
    """Give the database's URL; the embedded one is started if it is not running, and prepared."""
    if not settings.embedded:
        yield settings.url
        return
    async with embedded_url(settings.data_dir) as url:
        if prepare:
            await apply(url)  # it is ours alone: nobody else can have done it
        yield url


async def run_check(settings: Settings, *, give_up_seconds: float = GIVE_UP_SECONDS) -> CheckReport:
    """Look at everything at once; takes at most `give_up_seconds` and a little."""
    async with asyncio.TaskGroup() as group:
        database = group.create_task(_check_database(settings.database, give_up_seconds))
        chains = [group.create_task(_check_chain(c, give_up_seconds)) for c in settings.chains]
    return CheckReport(database.result(), tuple(task.result() for task in chains))


async def _check_database(settings: DatabaseSettings, give_up_seconds: float) -> DatabaseCheck:
    last: SessionwatchError = RetryableError("the database did not answer in time")
    told = False
    try:
        async with asyncio.timeout(give_up_seconds):
            while True:
                try:
                    async with (
                        database_url(settings) as url,
                        Database.open(url, max_size=1),
                    ):
                        return DatabaseCheck(SCHEMA_VERSION, "", "", EXIT_STOPPED)
                except RetryableError as error:
                    last = error
                except FatalError as error:
                    return DatabaseCheck(None, str(error), error.remedy, EXIT_FATAL)
                if not told:
                    _log.warning("database_awaited", problem=str(last))
                    told = True
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        return DatabaseCheck(None, str(last), last.remedy, EXIT_TRY_AGAIN)


async def _check_chain(settings: ChainSettings, give_up_seconds: float) -> ChainCheck:
    usable = [
        index for index, url in enumerate(settings.rpc) if urlsplit(url).scheme in {"http", "https"}
    ]
    reports: dict[int, EndpointReport] = {}
    managers: tuple[ManagerReport, ...] = ()
    problem = ""
    told = False
    try:
        async with asyncio.timeout(give_up_seconds):
            while not managers:
                for index in usable:
                    reports[index] = await describe_endpoint(settings, index)
                first = next((i for i in usable if reports[i].error is None), None)
                if any(_is_other(settings, report) for report in reports.values()):
                    break
                problem = _no_answer(settings)
                if first is not None:
                    try:
                        managers = await _managers(settings, first)
                        break
                    except NodeUnreachableError as error:
                        problem = str(error)
                if not told:
                    _log.warning("node_awaited", chain=settings.name, problem=problem)
                    told = True
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        problem = problem or _no_answer(settings)
    return _judged(settings, tuple(reports.values()), managers, "" if managers else problem)


def _no_answer(settings: ChainSettings) -> str:
    return f"no endpoint answers: check that the node runs and chains.{settings.name}.rpc is right"


async def _managers(settings: ChainSettings, index: int) -> tuple[ManagerReport, ...]:
    return tuple([await describe_manager(settings, m, index) for m in settings.managers])


def _is_other(settings: ChainSettings, report: EndpointReport) -> bool:
    return report.chain_id is not None and report.chain_id != settings.chain_id


def _judged(
    settings: ChainSettings,
    endpoints: Sequence[EndpointReport],
    managers: Sequence[ManagerReport],
    unreachable: str,
) -> ChainCheck:
    problems = [
        f"{report.endpoint} serves chain {report.chain_id}, configured is {settings.chain_id}"
        for report in endpoints
        if _is_other(settings, report)
    ]
    exit_code = EXIT_FATAL if problems else EXIT_TRY_AGAIN if unreachable else EXIT_STOPPED
    if unreachable and not problems:
        problems.append(unreachable)
    warnings = [
        f"{report.endpoint} does not answer: {report.error}"
        for report in endpoints
        if report.error is not None
    ]
    warnings += [
        f"{report.endpoint} has no finalized block; "
        f"set chains.{settings.name}.finality to a depth in blocks"
        for report in endpoints
        if settings.finality_depth is None and not report.has_finalized_tag and not report.error
    ]
    warnings += [
        f"{report.endpoint} shows block {report.latest} only, below end_block {settings.end_block}"
        for report in endpoints
        if settings.end_block is not None and (report.latest or 0) < settings.end_block
        if report.error is None
    ]
    warnings += [
        f"manager {checksum_address(report.manager)}: {_KINDS[report.kind]}"
        for report in managers
        if report.kind in _WARNED_KINDS
    ]
    return ChainCheck(
        chain=settings.name,
        chain_id=settings.chain_id,
        retired=settings.retired,
        finality="finalized" if settings.finality_depth is None else settings.finality_depth,
        end_block=settings.end_block,
        endpoints=tuple(endpoints),
        managers=tuple(managers),
        problems=tuple(problems),
        warnings=tuple(warnings),
        exit_code=exit_code,
    )


def render(report: CheckReport) -> Iterator[tuple[str, str]]:
    """Write the report for people: (level, line), level one of title, text, warning, error."""
    database = report.database
    if database.problem:
        yield "error", f"database: {database.problem}"
        if database.remedy:
            yield "text", f"  remedy: {database.remedy}"
    else:
        yield "title", f"database: reachable, schema version {database.schema_version}"
    for chain in report.chains:
        yield "title", f"chain {chain.chain}: chain id {chain.chain_id}"
        if chain.retired:
            yield "warning", f"  {chain.retired}"
        for endpoint in chain.endpoints:
            if endpoint.error is None:
                milliseconds = round((endpoint.latency_seconds or 0) * 1000)
                line = (
                    f"  {endpoint.endpoint}: chain id {endpoint.chain_id}, "
                    f"{endpoint.client_version or 'unknown client'}, latest {endpoint.latest}, "
                    f"finalized {endpoint.finalized if endpoint.has_finalized_tag else 'none'}, "
                    f"{milliseconds} ms"
                )
                yield "text", line
        tag = chain.finality == "finalized"
        depth = "the node's finalized tag" if tag else f"{chain.finality} blocks deep"
        yield "text", f"  finality: {depth}"
        if chain.end_block is not None:
            yield "text", f"  end: block {chain.end_block} is the last, and final once it is shown"
        for manager in chain.managers:
            size = f" ({manager.code_bytes} bytes)" if manager.has_code else ""
            version = f", version {manager.version}" if manager.version else ""
            name = checksum_address(manager.manager)
            level = "warning" if manager.kind in _WARNED_KINDS else "text"
            yield level, f"  manager {name}: {_KINDS[manager.kind]}{version}{size}"
        for warning in chain.warnings:
            if not warning.startswith("manager "):  # said above
                yield "warning", f"  {warning}"
        for problem in chain.problems:
            yield "error", f"  {problem}"
