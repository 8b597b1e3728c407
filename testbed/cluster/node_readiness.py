"""Whether nodes are Ready, and alive by their leases: conditions alone may be of before an outage."""

from __future__ import annotations

from datetime import UTC, datetime

from testbed.cluster.client import NOT_YET, KubeClient
from testbed.wait import wait_until

NODE_LEASES, LEASE_API = "kube-node-lease", "coordination.k8s.io/v1"
NEVER = "1970-01-01T00:00:00Z"


def ready_nodes(kube: KubeClient, since: datetime) -> set[str]:
    """Names of the nodes that are Ready, without a taint that says otherwise, and renewed their lease since then."""
    ready = {
        node["metadata"]["name"]
        for node in kube.list("Node")
        if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
        and not any(t["key"] == "node.kubernetes.io/not-ready" for t in node["spec"].get("taints") or [])
    }
    alive = {
        lease["metadata"]["name"]
        for lease in kube.list("Lease", namespace=NODE_LEASES, api_version=LEASE_API)
        if datetime.fromisoformat(str(lease["spec"].get("renewTime") or NEVER)) >= since
    }
    return ready & alive


def wait_nodes_back(kube: KubeClient, *, timeout: float) -> None:
    """After an outage of the API server, wait until every node reports to it again. Raises `WaitTimeout`."""
    since = datetime.now(UTC)

    def probe() -> tuple[bool, object]:
        missing = {node["metadata"]["name"] for node in kube.list("Node")} - ready_nodes(kube, since)
        return not missing, f"not Ready, or silent since then: {sorted(missing)}"

    wait_until("every node reports to the API server again", probe, timeout=timeout, retry_on=NOT_YET)
