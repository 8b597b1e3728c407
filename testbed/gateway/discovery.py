"""Endpoint discovery (EDS) over Envoy's REST: every poll is held until there is something new.

Files would do for endpoints, too, but Envoy takes an inotify instance for each file, that is for each Service, and the
kernel gives a user 128 of them by default: a few dozen services, beside everything else, and Envoy aborts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

from aiohttp import web

from testbed.gateway import envoy
from testbed.ports import LOOPBACK

HOLD = 20.0
"""Seconds after which a poll without news is answered; Envoy waits longer (`envoy.POLL_TIMEOUT`)."""


class EndpointDiscovery:
    """Serves the files of `envoy.endpoints_file`, so that a controller that starts anew knows what the last one did.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = asyncio.Event()
        self._closing = False
        self._runner: web.ServerRunner | None = None

    async def start(self, port: int) -> None:
        """Listen on loopback."""
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None))
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, port).start()

    async def close(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            self._closing = True
            self.changed()
            await self._runner.cleanup()

    def changed(self) -> None:
        """Some file is new: whoever waits looks."""
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        """The DiscoveryResponse for one cluster in a version that Envoy does not have; 304 when there is none."""
        asked = json.loads(await request.text())
        names = asked.get("resource_names") or asked.get("resourceNames") or []
        if len(names) != 1:
            return web.Response(status=400, text="ask for one cluster")
        path = envoy.endpoints_file(self._folder, names[0])
        known = asked.get("version_info") or asked.get("versionInfo")
        deadline = asyncio.get_running_loop().time() + HOLD
        while True:
            changed = self._changed
            version = envoy.version_in(path)
            if version not in {None, known}:
                return web.Response(text=path.read_text(), content_type="application/json")
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or self._closing:
                return web.Response(status=304)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left)
