"""Progressive delivery as scenarios see it: policies and what becomes of them."""

from __future__ import annotations

from typing import Any

from testbed.addons.operators import GROUP
from testbed.cluster import KubeClient, Manifest
from testbed.cluster.client import NOT_YET
from testbed.wait import wait_until

FLAGGER = "flagger.app/v1beta1"
SYSTEM = "flagger-system"
"""The namespace of the metric templates."""


def policy(name: str, **changed: Any) -> Manifest:
    """A CanaryPolicy's manifest; a field of its spec that is given as None is left out."""
    spec: dict[str, Any] = {
        "targetRef": {"name": name},
        "service": {"port": 8080},
        "slo": {"successRate": 99.5, "latencyP99": 400},
        "smokeTest": {"path": "/healthz"},
    } | changed
    whole = {field: value for field, value in spec.items() if value is not None}
    return {"apiVersion": GROUP, "kind": "CanaryPolicy", "metadata": {"name": name}, "spec": whole}


def wait_policy(kube: KubeClient, name: str, namespace: str, status: str, *, timeout: float) -> dict[str, Any]:
    """Wait until a policy's Ready condition has a status; returns the condition. Raises `WaitTimeout`."""
    seen: dict[str, Any] = {}

    def probe() -> tuple[bool, object]:
        found = kube.get("CanaryPolicy", name, namespace=namespace, api_version=GROUP) or {}
        conditions = (found.get("status") or {}).get("conditions") or []
        seen.update(next((entry for entry in conditions if entry["type"] == "Ready"), {}))
        return seen.get("status") == status, seen or "no condition"

    wait_until(f"CanaryPolicy {namespace}/{name} is Ready={status}", probe, timeout=timeout, retry_on=NOT_YET)
    return seen
