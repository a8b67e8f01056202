"""A real HTTP proxy before a real node, which can refuse or delay single calls of a batch.

async with NodeProxy(devnet.url) as proxy:
    proxy.refuse("eth_getStorageAt", {"error": {"code": -32000, "message": "missing trie node"}})
    ...                                   # the daemon, which asks proxy.url
    proxy.heal()
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import aiohttp
import msgspec
from aiohttp import web

Json = Any
Hook = Callable[[list[Json]], Awaitable[None]]


class NodeProxy:
    """Forwards everything to the node until told otherwise.

    `refused` counts the calls that were answered instead of the node; `errors` are the error
    objects that came from the node itself, as (method, code).
    """

    def __init__(self, node_url: str) -> None:
        self._node_url = node_url
        self.refused = 0
        self.errors: list[tuple[str, int]] = []
        self.asked: list[list[str]] = []
        self._answers: dict[str, tuple[Mapping[str, Json], Callable[[Json], bool]]] = {}
        self._before: dict[str, Hook] = {}
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None
        self.url = ""

    def refuse(
        self,
        method: str,
        answer: Mapping[str, Json],
        which: Callable[[Json], bool] = lambda params: True,
    ) -> None:
        """Answer calls of a method, those whose params are chosen, with this from now on."""
        self.refused = 0
        self._answers[method] = (answer, which)

    def heal(self) -> None:
        """Forward everything again."""
        self._answers.clear()

    def before_next(self, method: str, hook: Hook) -> None:
        """Do something once, before the next request with a call of this method is forwarded.

        The hook gets the request's calls, and may change them.
        """
        self._before[method] = hook

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession()
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        assert self._client is not None
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read())
        calls = body if isinstance(body, list) else [body]
        self.asked.append([call["method"] for call in calls])
        for method in {call["method"] for call in calls}:
            hook = self._before.pop(method, None)
            if hook is not None:
                await hook(calls)
        answers = {call["id"]: self._instead(call) for call in calls}
        forwarded = [call for call in calls if answers[call["id"]] is None]
        if forwarded:
            for answer in await self._forward(forwarded):
                answers[answer["id"]] = answer
        found = [answers[call["id"]] for call in calls]
        self.errors += [
            (call["method"], answer["error"]["code"])
            for call, answer in zip(calls, found, strict=True)
            if call in forwarded and answer is not None and "error" in answer
        ]
        result = found if isinstance(body, list) else found[0]
        return web.Response(body=msgspec.json.encode(result), content_type="application/json")

    def _instead(self, call: Json) -> Json | None:
        answer, which = self._answers.get(call["method"], (None, None))
        if answer is None or which is None or not which(call["params"]):
            return None
        self.refused += 1
        return {"jsonrpc": "2.0", "id": call["id"]} | dict(answer)

    async def _forward(self, calls: list[Json]) -> list[Json]:
        assert self._client is not None
        headers = {"content-type": "application/json"}
        async with self._client.post(
            self._node_url, data=msgspec.json.encode(calls), headers=headers
        ) as response:
            answers: list[Json] = msgspec.json.decode(await response.read())
        return answers
