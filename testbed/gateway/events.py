"""Kubernetes events for conditions that are not as their owner wants them."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime

from testbed.gateway.status import Status
from testbed.workloads.kube import UNREACHABLE, ApiError, Kube

COMPONENT = "gateway-controller"
log = logging.getLogger(__name__)


class Reporter:
    """Posts a Warning for each new trouble of an object, once."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._said: dict[tuple[str, str, str], str] = {}

    async def tell(self, status: Status) -> None:
        """Post what is wrong by a status, unless that was said. An event that cannot be posted is logged only."""
        metadata = status.body["metadata"]
        namespace = metadata.get("namespace") or "default"
        key = (status.resource.kind, namespace, metadata["name"])
        parts = [status.status, *status.status.get("parents", []), *status.status.get("listeners", [])]
        bad = {
            condition["reason"]: condition["message"]
            for part in parts
            for condition in part.get("conditions", [])
            if condition["status"] == "False"
        }
        message = "; ".join(dict.fromkeys(bad.values()))
        if self._said.get(key, "") == message:
            return
        self._said[key] = message
        if not message:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": status.resource.api_version,
                "kind": status.resource.kind,
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata["uid"],
            },
            "type": "Warning",
            "reason": next(iter(bad)),
            "message": message[:1000],
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._kube.request("POST", f"/api/v1/namespaces/{namespace}/events", event)
        except (ApiError, *UNREACHABLE) as error:
            log.warning("an event could not be posted: %s", error)
