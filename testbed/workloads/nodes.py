"""Killing a node, as when its machine loses its power."""

from __future__ import annotations

from datetime import UTC, datetime

from testbed.cluster import KubeClient
from testbed.errors import UsageError
from testbed.workloads.labels import NODE_ANNOTATION


def kill_node(kube: KubeClient, name: str, *, noticed: bool = True) -> None:
    """Kill a node of the embedded backend: its pods' processes end at once, and it reports nothing any more.

    Args:
        noticed: Its condition Ready is Unknown at once, as the control plane would set it after the 50 s of its grace
            period. What follows is the control plane's own work: the taints, the endpoints that go, the pods that are
            evicted after their tolerations (300 s by default) and stay Terminating, for nobody is there to end them.

    Raises:
        UsageError: There is no such node, or it is no simulated one.
    """
    node = kube.get("Node", name, api_version="v1")
    if node is None or NODE_ANNOTATION not in (node["metadata"].get("annotations") or {}):
        raise UsageError(
            f"{name!r} is no node of the embedded backend",
            fix=f"use one of: {', '.join(one['metadata']['name'] for one in kube.list('Node'))}",
        )
    kube.merge(node, {"metadata": {"annotations": {NODE_ANNOTATION: None}}})
    if noticed:
        time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        unknown = {
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
        }
        conditions = [
            entry | unknown | {"lastTransitionTime": time}
            for entry in node["status"].get("conditions") or []
            if entry["type"] == "Ready"
        ]
        others = [entry for entry in node["status"].get("conditions") or [] if entry["type"] != "Ready"]
        kube.update_status(
            {
                **{key: node[key] for key in ("apiVersion", "kind", "metadata")},
                "status": {"conditions": others + conditions},
            }
        )


def revive_node(kube: KubeClient, name: str) -> None:
    """Turn a killed node on again: it reports, and the pods that are still bound to it start anew."""
    node = kube.get("Node", name, api_version="v1")
    if node is None:
        raise UsageError(f"there is no node {name!r}", fix="a deleted node does not come back; create it")
    kube.merge(node, {"metadata": {"annotations": {NODE_ANNOTATION: "fake"}}})
