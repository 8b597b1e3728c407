"""Events as a kubelet posts them: at once, without holding anybody up, counted when they repeat."""

from __future__ import annotations

import asyncio
import logging
import uuid
from datetime import UTC, datetime
from typing import Any

from testbed.workloads.kube import UNREACHABLE, ApiError, Kube

Body = dict[str, Any]
log = logging.getLogger(__name__)
REMEMBERED = 2000
"""Events that may still be counted up."""


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Recorder:
    """Posts events in the order in which they happened."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._queue: asyncio.Queue[Body] = asyncio.Queue(maxsize=1000)
        self._posted: dict[tuple[str, ...], Body] = {}

    def post(self, regarding: Body, namespace: str, host: str, kind: str, reason: str, message: str) -> None:
        """Queue an event; dropped (and logged) when a thousand wait.

        Args:
            regarding: The involvedObject.
            host: The node.
            kind: Normal or Warning.
        """
        event = {
            "involvedObject": regarding,
            "metadata": {"namespace": namespace},
            "type": kind,
            "reason": reason,
            "message": message[:1000],
            "source": {"component": "kubelet", "host": host},
            "reportingComponent": "kubelet",
            "reportingInstance": host,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("an event was dropped: %s %s", reason, message)

    async def run(self) -> None:
        """Post until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._send(event)
            except (ApiError, *UNREACHABLE) as error:  # an event is told once or not at all, as the kubelet's are
                log.info("an event was not posted: %s", error)

    async def _send(self, event: Body) -> None:
        regarding, namespace = event["involvedObject"], event["metadata"]["namespace"]
        key = (regarding["uid"], regarding.get("fieldPath", ""), event["reason"], event["message"])
        path = f"/api/v1/namespaces/{namespace}/events"
        if (before := self._posted.get(key)) is not None:
            before["count"] += 1
            change = {"count": before["count"], "lastTimestamp": event["lastTimestamp"]}
            await self._kube.patch(f"{path}/{before['metadata']['name']}", change)
            return
        event["metadata"]["name"] = f"{regarding['name']}.{uuid.uuid4().hex[:16]}"
        await self._kube.request("POST", path, event | {"apiVersion": "v1", "kind": "Event"})
        self._posted[key] = event
        while len(self._posted) > REMEMBERED:
            self._posted.pop(next(iter(self._posted)))
