"""A workspace instead of a ticket: ready in seconds, tagged as the policies want it, and a pod runs in it."""

from __future__ import annotations

import uuid

import pytest

from testbed.cluster.client import NOT_YET, Refused
from testbed.errors import WaitTimeout
from testbed.incident import Incident
from testbed.operator_guards import Leading
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import Tenancy, pod
from testbed.wait import wait_until

pytestmark = pytest.mark.needs("gatekeeper", "tenant-workspace")
COST_TAGS = {"cost-center": "cc-2001", "team": "payments", "environment": "dev"}


@pytest.mark.scenario(guard=Leading("tenant-workspace"))
def test_a_tenant_is_ready_in_time(platform: Platform, guard: str, sla: SlaRecorder) -> None:
    """Given a team, when it submits a workspace, then its developers run a pod there within seconds."""
    tenancy = Tenancy(platform.cluster.client())
    name = f"tenant-{uuid.uuid4().hex[:8]}"
    tenancy.team("payments")
    developer = tenancy.developer("payments")
    try:
        with sla.within("tenant-first-pod") as whole:
            try:
                with sla.within("tenant-ready") as limit:
                    tenancy.submit(name, "payments")
                    tenancy.wait_ready(name, timeout=limit)
            except WaitTimeout as nothing:
                raise Incident(f"the tenant was not made: {nothing.why}") from None
            assert tenancy.missing(name) == []

            def admitted() -> tuple[bool, object]:
                developer.create(pod("first"), namespace=name)
                return True, "admitted"

            # The controller manager makes the namespace's default service account a moment later.
            wait_until("a developer's pod is admitted", admitted, timeout=whole, retry_on=(Refused, *NOT_YET))
        namespace = tenancy.kube.get("Namespace", name)
        assert namespace is not None
        assert COST_TAGS.items() <= namespace["metadata"]["labels"].items()
    finally:
        tenancy.discard([name])
