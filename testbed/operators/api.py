"""The part of the Kubernetes API that an operator needs, on aiohttp and kopf's credentials.

The official client's models would take more memory than the rest of the operator together.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import aiohttp
from kopf import ConnectionInfo

from testbed.operators import metrics
from testbed.operators.resource import Body, Resource

__all__ = ["UNREACHABLE", "Api", "ApiError", "Body", "NotLeading", "Resource"]

TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
WATCH_SECONDS = 300
WRITES = {"POST", "PUT", "PATCH", "DELETE"}
UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)
"""What a request raises when the API server was not reached."""


class ApiError(Exception):
    """The API server refused or failed; `message` is what it said."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotLeading(Exception):
    """Another replica leads: this one may not write."""


class Api:
    """One connection to the API server.

    Args:
        login: Gives the credentials; asked again after a 401, as tokens in a pod are renewed on disk.
        manager: The field manager of server-side apply.
        may_write: Asked before every write; says whether this replica leads.
    """

    def __init__(self, login: Callable[[], ConnectionInfo], manager: str, may_write: Callable[[], bool]) -> None:
        self._login = login
        self._manager = manager
        self._may_write = may_write
        self._session: aiohttp.ClientSession | None = None

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            info = self._login()
            connector = aiohttp.TCPConnector(ssl=info.as_ssl_context(), limit=32)
            self._session = aiohttp.ClientSession(
                info.server, connector=connector, headers=info.as_http_headers(), timeout=TIMEOUT
            )
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        params: dict[str, str] | None = None,
        content_type: str = "application/json",
        election: bool = False,
    ) -> Body:
        """One request; returns the answer's body.

        Raises:
            ApiError: The server said no.
            NotLeading: A write without leading; `election` is the write that decides who leads.
            aiohttp.ClientError: The server was not reached.
        """
        if method in WRITES and not election and not self._may_write():
            raise NotLeading
        for attempt in (1, 2):
            async with self._connected().request(
                method,
                path,
                params=params,
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": content_type},
            ) as answer:
                metrics.API_REQUESTS.labels(method, str(answer.status)).inc()
                text = await answer.text()
                if answer.status == 401 and attempt == 1:
                    await self.close()
                    continue
                if answer.status >= 400:
                    raise _error(answer.status, answer.reason or "", text)
                found: Body = json.loads(text)
                return found
        raise AssertionError("not reached")

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Body | None:
        """One object, or None."""
        try:
            return await self.request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, resource: Resource, selector: str = "") -> tuple[list[Body], int]:
        """All objects of a kind with the label selector, and the version of which that is true.

        Every item gets its kind, which lists leave out.
        """
        params = {"labelSelector": selector} if selector else {}
        answer = await self.request("GET", resource.path(), params=params)
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        items = [head | item for item in answer.get("items") or []]
        return items, int(answer["metadata"]["resourceVersion"])

    async def watch(self, resource: Resource, version: int) -> AsyncIterator[tuple[str, Body]]:
        """Changes of all objects of a kind after a version, until the API server ends the watch.

        Raises:
            ApiError: The server said no; 410 when the version is too old, and a new list is needed.
            aiohttp.ClientError: The server was not reached.
        """
        params = {"watch": "true", "resourceVersion": str(version), "timeoutSeconds": str(WATCH_SECONDS)}
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS + 10, sock_connect=5)
        async with self._connected().get(resource.path(), params=params, timeout=timeout) as answer:
            if answer.status >= 400:
                raise _error(answer.status, answer.reason or "", await answer.text())
            part = b""
            async for chunk in answer.content.iter_any():  # a line may be longer than aiohttp's limit for one
                *lines, part = (part + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    found = event["object"]
                    if event["type"] == "ERROR":
                        raise ApiError(int(found.get("code") or 500), found.get("reason", ""), found.get("message", ""))
                    yield event["type"], head | found

    async def apply(self, resource: Resource, manifest: Body) -> Body:
        """Server-side apply: the fields in `manifest` become ours, whoever changed them."""
        metadata = manifest["metadata"]
        return await self.request(
            "PATCH",
            resource.path(metadata.get("namespace"), metadata["name"]),
            body=manifest,
            params={"fieldManager": self._manager, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    async def merge(
        self, resource: Resource, name: str, body: Body, *, namespace: str | None = None, subresource: str = ""
    ) -> Body:
        """Merge-patch an object, or its status."""
        return await self.request(
            "PATCH",
            resource.path(namespace, name, subresource),
            body=body,
            params={"fieldManager": self._manager},
            content_type="application/merge-patch+json",
        )

    async def create(self, resource: Resource, body: Body) -> Body:
        """Create an object that is not there; 409 if it is."""
        path = resource.path(body["metadata"].get("namespace"))
        return await self.request("POST", path, body=body, params={"fieldManager": self._manager})

    async def delete(self, resource: Resource, found: Body) -> None:
        """Delete exactly this object, not a later one of its name; fine if it is gone."""
        metadata = found["metadata"]
        options = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        try:
            await self.request("DELETE", resource.path(metadata.get("namespace"), metadata["name"]), body=options)
        except ApiError as error:
            if error.status != 404:
                raise


def _error(status: int, reason: str, text: str) -> ApiError:
    try:
        answer = json.loads(text)
        return ApiError(status, str(answer.get("reason") or reason), str(answer.get("message") or text))
    except (json.JSONDecodeError, AttributeError):
        return ApiError(status, reason, text[:300])
