"""What `sessionwatch check` asks of nodes and managers, by web3.

web3 is imported inside the functions: the import alone takes most of a second. Its errors and those
of aiohttp hold URLs, so their texts are cleaned before anything else sees them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import aiohttp

from indexer.chain.endpoint import connection_problem
from indexer.chain.scrub import Scrubber
from indexer.chain.state import ManagerKind, manager_kind
from indexer.core.settings import ChainSettings
from indexer.core.types import Address
from indexer.errors import NodeUnreachableError

if TYPE_CHECKING:
    from web3 import AsyncHTTPProvider, AsyncWeb3

T = TypeVar("T")

_VERSION_ABI = [
    {
        "type": "function",
        "name": "VERSION",
        "stateMutability": "view",
        "inputs": [],
        "outputs": [{"type": "string", "name": ""}],
    }
]


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """What one endpoint says of itself. `error` not None: the rest may be missing, and this is why.

    `latency_seconds` is the time of one eth_chainId on a fresh connection.
    """

    endpoint: str
    chain_id: int | None = None
    client_version: str = ""
    latest: int | None = None
    finalized: int | None = None
    has_finalized_tag: bool = False
    latency_seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ManagerReport:
    """What stands at a manager's address. `version` is empty where VERSION() does not exist."""

    manager: Address
    kind: ManagerKind
    has_code: bool
    code_bytes: int
    version: str


async def describe_endpoint(
    settings: ChainSettings, index: int = 0, *, timeout_seconds: float = 10.0
) -> EndpointReport:
    """Ask one endpoint (number `index` of settings.rpc) who it is; never raises for its faults."""
    from web3.exceptions import BlockNotFound, Web3RPCError  # noqa: PLC0415

    name = settings.endpoint_names[index]
    scrubber = Scrubber(settings.rpc)
    loop = asyncio.get_running_loop()

    async def ask(web3: AsyncWeb3[AsyncHTTPProvider]) -> EndpointReport:
        started = loop.time()
        report = EndpointReport(name, chain_id=int(await web3.eth.chain_id))
        report = replace(report, latency_seconds=loop.time() - started)
        report = replace(report, latest=int((await web3.eth.get_block("latest"))["number"]))
        # Neither the tag nor the version is owed by a node.
        with suppress(BlockNotFound, Web3RPCError):
            number = int((await web3.eth.get_block("finalized"))["number"])
            report = replace(report, finalized=number, has_finalized_tag=True)
        with suppress(Web3RPCError):
            version = scrubber.clean(str(await web3.client_version))
            report = replace(report, client_version=version)
        return report

    try:
        return await _asked(settings, index, timeout_seconds, ask)
    except NodeUnreachableError as problem:
        return EndpointReport(name, error=str(problem))


async def describe_manager(
    settings: ChainSettings, manager: Address, index: int = 0, *, timeout_seconds: float = 10.0
) -> ManagerReport:
    """Say what is deployed at a manager's address. Raises NodeUnreachableError."""
    from web3.exceptions import (  # noqa: PLC0415
        BadFunctionCallOutput,
        ContractLogicError,
        Web3RPCError,
    )

    scrubber = Scrubber(settings.rpc)

    async def ask(web3: AsyncWeb3[AsyncHTTPProvider]) -> ManagerReport:
        at = web3.to_checksum_address(manager)
        code = bytes(await web3.eth.get_code(at))
        version = ""
        if code:
            contract = web3.eth.contract(address=at, abi=_VERSION_ABI)
            # V1 has no such function; this is how its absence shows.
            with suppress(BadFunctionCallOutput, ContractLogicError, Web3RPCError):
                version = scrubber.clean(str(await contract.functions.VERSION().call()))
        return ManagerReport(
            manager=manager,
            kind=manager_kind(code),
            has_code=bool(code),
            code_bytes=len(code),
            version=version,
        )

    return await _asked(settings, index, timeout_seconds, ask)


async def _asked(
    settings: ChainSettings,
    index: int,
    timeout_seconds: float,
    ask: Callable[[AsyncWeb3[AsyncHTTPProvider]], Awaitable[T]],
) -> T:
    """Return what `ask` finds over one endpoint; whatever goes wrong is a NodeUnreachableError."""
    from web3 import AsyncHTTPProvider, AsyncWeb3  # noqa: PLC0415
    from web3.exceptions import Web3Exception  # noqa: PLC0415
    from web3.middleware import ExtraDataToPOAMiddleware  # noqa: PLC0415

    name = settings.endpoint_names[index]
    url = settings.rpc[index]
    if urlsplit(url).scheme not in {"http", "https"}:
        raise NodeUnreachableError(
            f"{name} is a WebSocket endpoint, which is not used",
            remedy="name an http:// or https:// endpoint as well",
        )
    provider = AsyncHTTPProvider(
        url,
        request_kwargs={
            "timeout": aiohttp.ClientTimeout(total=timeout_seconds),
            "allow_redirects": False,
        },
        exception_retry_configuration=None,
    )
    web3 = AsyncWeb3(provider)
    # Polygon's headers carry more than the 32 bytes of extraData that web3 accepts.
    web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
    try:
        return await ask(web3)
    except TimeoutError:
        reason = f"no answer within {timeout_seconds:g} s"
    except aiohttp.ClientResponseError as error:
        reason = f"HTTP {error.status}"
    except (aiohttp.ClientError, OSError) as error:
        reason = connection_problem(error)
    except (Web3Exception, ValueError, TypeError, LookupError) as error:
        reason = Scrubber(settings.rpc).clean(f"{type(error).__name__}: {error}")
    finally:
        await provider.disconnect()
    # Outside of the handlers, so that no context with the URL hangs on it.
    raise NodeUnreachableError(
        f"{name} could not be asked: {reason}",
        remedy="check that the node runs and that its URL in the configuration is right",
    )
