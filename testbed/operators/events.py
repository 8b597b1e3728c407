"""Kubernetes events, for whoever runs `kubectl describe`."""

from __future__ import annotations

import datetime
import logging
import uuid
from typing import Any

from testbed.operators.api import UNREACHABLE, Api, ApiError, NotLeading, Resource

EVENT = Resource("v1", "Event", "events")
log = logging.getLogger(__name__)


async def post(api: Api, component: str, about: dict[str, Any], *, warning: bool, reason: str, message: str) -> None:
    """Post one event. An event that cannot be posted is logged, and fails nothing."""
    metadata = about["metadata"]
    namespace = metadata.get("namespace") or "default"
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name'][:200]}.{uuid.uuid4().hex[:12]}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            **({"namespace": namespace} if metadata.get("namespace") else {}),
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": message[:1024],
        "source": {"component": component},
        "reportingComponent": component,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        await api.create(EVENT, event)
    except (ApiError, NotLeading, *UNREACHABLE) as error:
        log.warning("an event could not be posted: %s", error, extra={"reason": reason})
