"""The part of the Kubernetes API that a kubelet needs, on aiohttp: small, for one process a cluster runs it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

Body = dict[str, Any]
log = logging.getLogger(__name__)
UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)
"""What a request raises when the API server was not reached."""
WATCH_SECONDS = 240
RETRY = 0.3


class ApiError(Exception):
    """The API server refused or failed; `message` is what it said."""

    def __init__(self, status: int, text: str) -> None:
        with contextlib.suppress(ValueError, AttributeError):
            text = str(json.loads(text).get("message") or text)
        super().__init__(f"{status}: {text[:500]}")
        self.status = status
        self.message = text


class Kube:
    """A connection with one kubeconfig's identity (client certificate or token).

    Args:
        kubeconfig: JSON, as the cluster backends write it, certificates inlined.
    """

    def __init__(self, kubeconfig: Path) -> None:
        content = json.loads(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        self._server = str(cluster["server"])
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        if "client-key-data" in user:
            pem = kubeconfig.with_suffix(".pem")  # the ssl module takes a chain from a file only
            pem.touch(mode=0o600)
            pem.write_bytes(b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
            context.load_cert_chain(pem)
            pem.unlink()
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._session = aiohttp.ClientSession(
            self._server,
            connector=aiohttp.TCPConnector(ssl=context, limit=16),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=20, sock_connect=5),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        params: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Body:
        """One request; returns the answer's body. Raises `ApiError`, or what `UNREACHABLE` names."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with self._session.request(method, path, params=params, data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise ApiError(answer.status, text)
            found: Body = json.loads(text)
            return found

    async def patch(self, path: str, body: Body, content_type: str = "application/strategic-merge-patch+json") -> Body:
        """Patch an object."""
        return await self.request("PATCH", path, body, content_type=content_type)

    async def follow(
        self, path: str, heard: Callable[[str, Body], None], listed: Callable[[], None], **params: str
    ) -> None:
        """List and watch for ever: every object and every change is told as (type, object), beginning with what is
        there. After a gap in the watch everything is listed anew, and what has gone meanwhile is told as DELETED.

        Args:
            path: Of the collection.
            heard: Hears of each object; ADDED also for one that it knows.
            listed: Called after each complete list.
            params: Selectors.
        """
        known: dict[str, Body] = {}
        while True:
            try:
                answer = await self.request("GET", path, params=params)
                found = {item["metadata"]["uid"]: item for item in answer.get("items") or []}
                for uid in known.keys() - found.keys():
                    heard("DELETED", known.pop(uid))
                known = found
                for item in found.values():
                    heard("ADDED", item)
                listed()
                version = str(answer["metadata"]["resourceVersion"])
                async for kind, item in self._watch(path, version, params):
                    uid = item["metadata"]["uid"]
                    if kind == "DELETED":
                        known.pop(uid, None)
                    else:
                        known[uid] = item
                    heard(kind, item)
            except (ApiError, *UNREACHABLE, ValueError) as error:
                log.warning("watch of %s: %s: %s", path, type(error).__name__, error)
            await asyncio.sleep(RETRY)

    async def _watch(self, path: str, version: str, params: dict[str, str]) -> AsyncIterator[tuple[str, Body]]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SECONDS + 30)
        while True:
            query = {
                "watch": "1",
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(WATCH_SECONDS),
                "resourceVersion": version,
            }
            async with self._session.get(path, params=params | query, timeout=timeout) as answer:
                if answer.status >= 400:
                    raise ApiError(answer.status, await answer.text())
                async for line in _lines(answer.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(int(event["object"].get("code", 500)), json.dumps(event["object"]))
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a stream, however long (aiohttp's own reader ends at 64 KiB)."""
    rest = b""
    async for part in stream.iter_any():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line
