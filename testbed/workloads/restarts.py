"""When a container runs again: restart policies, back-off, and what another agent left."""

from __future__ import annotations

import asyncio
from typing import Any

from testbed.workloads.events import now
from testbed.workloads.record import Record

Body = dict[str, Any]
KILLED = 137


def again(policy: str, code: int) -> bool:
    """Whether a container that ended with `code` runs again under a policy: Always, OnFailure or Never."""
    return policy == "Always" or (policy == "OnFailure" and code != 0)


class Restarts:
    """The restarts of one container.

    Args:
        before: Its status before we came, where another agent ran it.
    """

    def __init__(self, record: Record, before: Body | None) -> None:
        self._record = record
        self._crashes = 0
        self._lost: Body = {}
        if before is not None:
            self._take_over(before)

    def _take_over(self, before: Body) -> None:
        record = self._record
        record.restarts = int(before.get("restartCount", 0))
        state = before.get("state") or {}
        if "running" in state:
            record.last_state = {
                "terminated": {
                    "exitCode": KILLED,
                    "reason": "Error",
                    "message": "the process died with the agent that played the kubelet",
                    "startedAt": state["running"].get("startedAt"),
                    "finishedAt": now(),
                }
            }
            self._lost = record.last_state["terminated"]
            record.restarts += 1
        elif "terminated" in state:
            record.last_state = state
            self._lost = state["terminated"]
            record.restarts += 1
        else:
            record.last_state = before.get("lastState") or {}

    def over(self, policy: str) -> int | None:
        """The exit code of the run before us if it was the last one."""
        if not self._lost or again(policy, int(self._lost["exitCode"])):
            return None
        self._record.restarts -= 1
        self._record.last_state = {}
        self._record.set(terminated=self._lost)
        return int(self._lost["exitCode"])

    def count(self) -> None:
        """A further run begins."""
        self._record.restarts += 1
        self._record.last_state = self._record.state

    async def back_off(self, began: float) -> None:
        """Wait before the next run, longer each time; not before the first.

        Args:
            began: When the run that has ended began, by the loop's clock.
        """
        settings = self._record.pod.settings
        lived = asyncio.get_running_loop().time() - began
        self._crashes = 1 if lived > 2 * settings.longest_back_off else self._crashes + 1
        if self._crashes > 1 and not self._record.ending.is_set():
            await self._wait(min(settings.back_off * 2 ** (self._crashes - 2), settings.longest_back_off))

    async def _wait(self, seconds: float) -> None:
        record = self._record
        terminated = record.state
        metadata = record.pod.body["metadata"]
        name = f"{metadata['name']}_{metadata['namespace']}"
        record.event("Warning", "BackOff", f"Back-off restarting failed container {record.name} in pod {name}")
        record.last_state = terminated
        record.set(
            waiting={
                "reason": "CrashLoopBackOff",
                "message": f"back-off {seconds:g}s restarting failed container={record.name} pod={name}",
            }
        )
        await record.pause(seconds)
        record.state = terminated
