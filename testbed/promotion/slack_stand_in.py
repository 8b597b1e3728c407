"""Stands in for Slack's Web API on loopback: the methods that the promoter calls, in Slack's own shapes.

`python -m testbed.promotion.slack_stand_in --listen HOST:PORT --token-file FILE`. Nobody presses buttons here: people
and forgers send their requests to the promoter themselves (`testbed.promotion.people`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

from aiohttp import web


class SlackStandIn:
    """Channels with messages, in memory.

    Args:
        token: What a request has to bear.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._channels: dict[str, list[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)

    def application(self) -> web.Application:
        """What aiohttp serves."""
        application = web.Application()
        application.router.add_post("/api/chat.postMessage", self._post)
        application.router.add_post("/api/chat.update", self._update)
        application.router.add_route("*", "/api/conversations.history", self._history)
        application.router.add_get("/-/healthy", self._healthy)
        return application

    async def _arguments(self, request: web.Request) -> dict[str, Any] | None:
        """The arguments of a call, from wherever Slack takes them; None without the right token."""
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            return None
        if request.content_type == "application/json":
            found: dict[str, Any] = await request.json()
            return found
        arguments: dict[str, Any] = {}
        arguments.update(request.query.items())
        arguments.update((await request.post()).items())
        for name in ("blocks", "metadata"):
            if isinstance(arguments.get(name), str):
                arguments[name] = json.loads(arguments[name])
        return arguments

    @staticmethod
    def _error(name: str) -> web.Response:
        return web.json_response({"ok": False, "error": name})

    async def _post(self, request: web.Request) -> web.Response:
        arguments = await self._arguments(request)
        if arguments is None:
            return self._error("invalid_auth")
        stamp = f"{int(time.time())}.{next(self._numbers):06d}"
        message: dict[str, Any] = {"type": "message", "ts": stamp}
        message.update({name: arguments[name] for name in ("text", "blocks", "metadata") if name in arguments})
        self._channels.setdefault(str(arguments["channel"]), []).append(message)
        return web.json_response({"ok": True, "channel": arguments["channel"], "ts": stamp, "message": message})

    async def _update(self, request: web.Request) -> web.Response:
        arguments = await self._arguments(request)
        if arguments is None:
            return self._error("invalid_auth")
        for message in self._channels.get(str(arguments["channel"]), []):
            if message["ts"] == arguments["ts"]:
                message |= {name: arguments[name] for name in ("text", "blocks") if name in arguments}
                return web.json_response({"ok": True, "channel": arguments["channel"], "ts": message["ts"]})
        return self._error("message_not_found")

    async def _history(self, request: web.Request) -> web.Response:
        arguments = await self._arguments(request)
        if arguments is None:
            return self._error("invalid_auth")
        limit = int(arguments.get("limit") or 100)
        newest_first = self._channels.get(str(arguments["channel"]), [])[::-1][:limit]
        return web.json_response({"ok": True, "messages": newest_first, "has_more": False})

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m testbed.promotion.slack_stand_in", description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--token-file", type=Path, required=True)
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    stand_in = SlackStandIn(given.token_file.read_text().strip())
    web.run_app(stand_in.application(), host=host, port=int(port), print=None, access_log=None)


if __name__ == "__main__":
    main()
