"""The promoter's HTTP side and its loop.

POST /slack/interactive   what Slack sends when somebody presses a button
POST /webhook             a push to the repository: look at once
GET  /promotions          where every release stands; /history/SERVICE, /requests and /audit: what was
GET  /healthz             ok while looks succeed
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict

from aiohttp import web

from testbed.promotion.approvals import Approvals
from testbed.promotion.controller import Controller

LARGEST_BODY = 256 * 1024


class Server:
    """One promoter."""

    def __init__(self, controller: Controller, approvals: Approvals) -> None:
        self._controller = controller
        self._approvals = approvals
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        """The clone is used by one thread at a time."""
        self._pushed = True
        self.looks = 0

    def application(self) -> web.Application:
        """What aiohttp serves."""
        application = web.Application(client_max_size=LARGEST_BODY)
        application.router.add_post("/slack/interactive", self._interactive)
        application.router.add_post("/webhook", self._webhook)
        application.router.add_get("/promotions", self._promotions)
        application.router.add_get("/history/{service}", self._history)
        application.router.add_get("/requests", self._requests)
        application.router.add_get("/audit", self._audit)
        application.router.add_get("/healthz", self._healthz)
        application.cleanup_ctx.append(self._looking)
        return application

    async def _looking(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(self._loop())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _loop(self) -> None:
        while True:
            self._wake.clear()
            pushed, self._pushed = self._pushed, False
            async with self._one_at_a_time:
                moved = await asyncio.to_thread(self._controller.look, pushed=pushed)
            self.looks += 1
            if not moved:  # what was promoted may be promoted further at once
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._controller.settings.every_seconds)

    async def _interactive(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._one_at_a_time:
            answer = await asyncio.to_thread(self._approvals.handle, body, request.headers)
        self._wake.set()
        return web.Response(status=answer.status, text=answer.text)

    async def _webhook(self, _: web.Request) -> web.Response:
        self._pushed = True  # what was pushed is looked up, not believed
        self._wake.set()
        return web.Response(status=204)

    async def _promotions(self, _: web.Request) -> web.Response:
        return web.json_response({"looks": self.looks, "steps": self._controller.steps()})

    async def _history(self, request: web.Request) -> web.Response:
        async with self._one_at_a_time:
            found = await asyncio.to_thread(self._controller.history, request.match_info["service"])
        return web.json_response(found)

    async def _requests(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(one) for one in self._controller.ledger.requests()])

    async def _audit(self, _: web.Request) -> web.Response:
        return web.json_response(self._controller.ledger.audit())

    async def _healthz(self, _: web.Request) -> web.Response:
        if self._controller.failure or not self.looks:
            return web.Response(status=503, text=self._controller.failure or "no look yet")
        return web.Response(text="ok")
