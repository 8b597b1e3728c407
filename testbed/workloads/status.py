"""A pod's status from its containers': pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbed.workloads.record import Record

Body = dict[str, Any]


def phase(containers: Sequence[Record], initialized: bool, policy: str, failed: bool) -> str:
    """The phase of a pod.

    Args:
        policy: Its restart policy.
        failed: An init container has failed for good.
    """
    if failed:
        return "Failed"
    if not initialized:
        return "Pending"
    states = [next(iter(container.state)) for container in containers]
    if all(state == "terminated" for state in states):
        codes = [container.state["terminated"]["exitCode"] for container in containers]
        if policy == "Never" or (policy == "OnFailure" and not any(codes)):
            return "Failed" if any(codes) else "Succeeded"
    waiting = [c for c in containers if "waiting" in c.state and not c.last_state]
    return "Pending" if waiting else "Running"


def by_type(status: Body | None) -> dict[str, Body]:
    """A pod status's conditions by their types."""
    return {entry["type"]: entry for entry in (status or {}).get("conditions") or []}


def conditions(
    body: Body, containers: Sequence[Record], initialized: bool, phase: str, last: dict[str, Body], time: str
) -> list[Body]:
    """The conditions that a kubelet owns.

    Args:
        last: Those that were written last: a time is kept where the status is what it was.
        time: Of those that change now.
    """
    before = by_type(body.get("status"))
    done = phase in {"Succeeded", "Failed"}
    unready = [container.name for container in containers if not container.ready]
    wanted: dict[str, tuple[bool, str, str]] = {
        "PodReadyToStartContainers": (not done, "", ""),
        "Initialized": (initialized, "ContainersNotInitialized", "init containers have not completed"),
        "ContainersReady": _containers_ready(phase, unready),
    }
    gates = [gate["conditionType"] for gate in body["spec"].get("readinessGates") or []]
    closed = [gate for gate in gates if before.get(gate, {}).get("status") != "True"]
    ready, reason, message = wanted["ContainersReady"]
    if ready and closed:
        ready, reason = False, "ReadinessGatesNotReady"
        message = f"the status of pod readiness gates is not True: {closed}"
    wanted["Ready"] = (ready, reason, message)
    found = []
    for kind, (good, reason, message) in wanted.items():
        status = "True" if good else "False"
        old = last.get(kind, {})
        entry = {
            "type": kind,
            "status": status,
            "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == status else time,
            "observedGeneration": body["metadata"].get("generation", 1),
            "reason": None if good or not reason else reason,
            "message": None if good or not message else message,
        }
        found.append(entry)
    return found


def _containers_ready(phase: str, unready: list[str]) -> tuple[bool, str, str]:
    if phase == "Succeeded":
        return False, "PodCompleted", ""
    if phase == "Failed":
        return False, "PodFailed", ""
    return not unready, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"


def replaced(addresses: list[str]) -> list[Body]:
    """A list of addresses for a strategic merge patch, which would add to the list that is there."""
    return [{"$patch": "replace"}, *({"ip": address} for address in addresses)]
