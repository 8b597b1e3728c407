"""A hundred workspaces at once: all in time, within the operator's memory, and an unchanged resync writes nothing."""

from __future__ import annotations

import time
import uuid

import pytest

from testbed.addons.operators import TenantWorkspace
from testbed.cluster.client import NOT_YET
from testbed.incident import Incident
from testbed.operator_guards import Leading
from testbed.percentile import percentile
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import Tenancy
from testbed.wait import wait_until

pytestmark = pytest.mark.needs("gatekeeper", "tenant-workspace", "operator-processes")
MEMORY = 120e6
"""Bytes that the operator may take."""
WRITTEN = {
    "tenantworkspaces",
    "tenantworkspaces/status",
    "namespaces",
    "resourcequotas",
    "limitranges",
    "networkpolicies",
    "rolebindings",
    "appprojects",
}


def writes(platform: Platform) -> dict[str, float]:
    """The API server's own count of writes to what tenants consist of, by resource."""
    found = platform.cluster.client().request_counts(verbs=("POST", "PUT", "PATCH", "APPLY", "DELETE"))
    return {resource: count for resource, count in found.items() if resource in WRITTEN}


@pytest.mark.scenario(guard=Leading("tenant-workspace"))
def test_a_hundred_tenants_at_once(platform: Platform, guard: str, sla: SlaRecorder) -> None:
    """Given a team, when a hundred workspaces come at once, then all are whole in time, and a resync writes nothing."""
    tenancy = Tenancy(platform.cluster.client())
    operator = platform.addon(TenantWorkspace)
    tenancy.team("payments")
    names = [f"many-{number:03}-{uuid.uuid4().hex[:6]}" for number in range(100)]
    began = time.monotonic()
    try:
        submitted = {}
        for name in names:
            tenancy.submit(name, "payments")
            submitted[name] = time.monotonic()
        ready = tenancy.watch_ready(
            names, first=sla.limit("hundred-tenants-first"), timeout=sla.limit("hundred-tenants")
        )
        if not ready:
            raise Incident("of a hundred tenants not one was made")
        assert len(ready) == len(names), f"only {len(ready)} are ready"
        sla.record("hundred-tenants", max(ready.values()) - began)
        waited = [ready[name] - submitted[name] for name in names]
        sla.record("tenants-p50", percentile(waited, 50))
        sla.record("tenants-p99", percentile(waited, 99))
        assert [name for name in names if tenancy.missing(name)] == []
        memory = platform.supervisor.resident_bytes(platform.cluster.component(operator.role()))
        assert max(memory.values()) <= MEMORY

        # A restart compares everything from scratch: the hardest resync there is.
        tenancy.settle()  # of earlier scenarios
        before = writes(platform)
        platform.cluster.kill(operator.role())

        def compared() -> tuple[bool, object]:
            done = operator.metric("platform_operator_reconcile_total", result="success")
            return done >= len(names), f"{done} of {len(names)} compared"

        wait_until("the restarted operator has compared every tenant", compared, timeout=30, retry_on=NOT_YET)
        assert writes(platform) == before
        own = operator.metric("platform_operator_api_requests_total", method="PATCH")
        assert own == 0
    finally:
        tenancy.discard(names)
