"""A container's part of its pod's status, and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from testbed.workloads.context import PodContext

Body = dict[str, Any]


class Record:
    """How one container stands.

    Args:
        spec: Of the pod's `containers` or `initContainers`.
    """

    def __init__(self, pod: PodContext, spec: Body) -> None:
        self.pod = pod
        self.spec = spec
        self.name = str(spec["name"])
        self.log = pod.logs / f"{self.name}.log"
        """Of its present or last run."""
        self.previous_log = pod.logs / f"{self.name}.previous.log"
        """Of the run before."""
        self.restarts = 0
        self.state: Body = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: Body = {}
        self.ready = self.started = False
        self.running = asyncio.Event()
        """Set while its process exists and its startup probe has succeeded."""
        self.ending = asyncio.Event()
        """Set when it has to end for good."""
        self.run_id = 0
        """The process id of its present run; 0 between two."""
        self.image_id = self.container_id = ""

    def status(self) -> Body:
        """Its entry in the pod's `containerStatuses`."""
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.image_id,
            "containerID": self.container_id,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }

    def set(self, **state: Body) -> None:
        """Change its state."""
        self.state = state
        self.pod.changed()

    def event(self, kind: str, reason: str, message: str) -> None:
        """Post an event about it."""
        self.pod.event(kind, reason, message, self.name)

    async def pause(self, seconds: float) -> None:
        """Wait, but not when it has to end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ending.wait(), seconds)
