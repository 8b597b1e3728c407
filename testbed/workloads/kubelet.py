"""The part of a kubelet's API that `kubectl logs` asks for, for the nodes of one cluster.

The API server asks a node where the node's status says: `localhost` (its ExternalDNS) and the port of
`daemonEndpoints`, which the agent writes. Only the API server may ask: TLS, with its kubelet client certificate.
The node simulator can serve logs too, but asks nobody who he is, and follows a log beyond its container's end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiohttp import web

from testbed.ports import LOOPBACK

CLIENT = "kube-apiserver-kubelet-client"
ADDRESS_TYPE, ADDRESS = "ExternalDNS", "localhost"
"""The address of a node at which its kubelet is asked; its InternalIP leads nowhere here."""
FOLLOW_EVERY = 0.1
CHUNK = 64 * 1024
UNSUPPORTED = ("timestamps", "sinceSeconds", "sinceTime")
YES = frozenset({"1", "t", "true"})


@dataclass(frozen=True)
class Identity:
    """The files of its certificate and key, and of the authority that its client's certificate is of."""

    certificate: Path
    key: Path
    authority: Path


class Logged(Protocol):
    """What a container has said."""

    log: Path
    previous_log: Path
    run_id: int
    """Another one in each of its runs; 0 between them."""


Find = Callable[[str, str, str], Logged | None]
"""Finds a container by namespace, pod and name."""


class Kubelet:
    """Serves the logs of containers."""

    def __init__(self, identity: Identity, find: Find) -> None:
        self._identity = identity
        self._find = find
        application = web.Application()
        application.add_routes(
            [
                web.get("/containerLogs/{namespace}/{pod}/{container}", self._logs),
                web.route("*", "/{rest:.*}", self._other),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)

    async def start(self) -> int:
        """Listen on loopback; returns the port."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self._identity.authority))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self._identity.certificate, self._identity.key)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0, ssl_context=context)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _other(self, request: web.Request) -> web.Response:
        _authorize(request)
        what = request.path.split("/")[1]
        text = f"the testbed does not serve {what}: its pods are processes, not containers; it serves logs"
        return web.Response(status=501, text=text)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        _authorize(request)
        namespace, pod, name = (request.match_info[part] for part in ("namespace", "pod", "container"))
        found = self._find(namespace, pod, name)
        if found is None:
            text = f"container {name} of pod {namespace}/{pod} does not run as a process here: it has no log"
            return web.Response(status=400, text=text)  # of a 404 the API server would not pass the words on
        query = request.query
        if asked := [option for option in UNSUPPORTED if query.get(option, "false") not in {"false", ""}]:
            text = f"the testbed's logs have no times; leave out {', '.join(asked)}"
            return web.Response(status=400, text=text)
        previous = query.get("previous") in YES
        path = found.previous_log if previous else found.log
        if not path.exists():
            which = "previous terminated " if previous else ""
            return web.Response(status=400, text=f"{which}container {name} in pod {pod} not found")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await _send(response, path, query, found if query.get("follow") in YES and not previous else None)
        return response


def _authorize(request: web.Request) -> None:
    """Let nobody in but the API server."""
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    names = dict(pair for part in (certificate or {}).get("subject", ()) for pair in part)
    if names.get("commonName") != CLIENT:
        raise web.HTTPForbidden(text="only the API server may ask")


async def _send(response: web.StreamResponse, path: Path, query: Mapping[str, str], follow: Logged | None) -> None:
    """Send a log from where it is asked for, with a limit where there is one; as long as it grows if followed."""
    lines, rest = query.get("tailLines"), int(query["limitBytes"]) if "limitBytes" in query else None
    run = 0 if follow is None else follow.run_id
    with path.open("rb") as log:
        if lines is not None:
            log.seek(_last(path, int(lines)))
        while rest is None or rest > 0:
            more = bool(run) and follow is not None and follow.run_id == run  # before the read: it may say a last word
            part = log.read(CHUNK if rest is None else min(CHUNK, rest))
            if part:
                await response.write(part)
                rest = None if rest is None else rest - len(part)
            elif more:
                await asyncio.sleep(FOLLOW_EVERY)
            else:
                break
    await response.write_eof()


def _last(path: Path, lines: int) -> int:
    """Where the last lines of a file begin."""
    content = path.read_bytes()
    if lines <= 0:
        return len(content)
    before, *found = content.removesuffix(b"\n").rsplit(b"\n", lines)
    return len(before) + 1 if len(found) == lines else 0
