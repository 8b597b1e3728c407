"""A workspace changes: what may change arrives at once, what may not is refused with the reason."""

from __future__ import annotations

import uuid

import pytest
from filelock import FileLock

from testbed.cluster import Refused
from testbed.errors import WaitTimeout
from testbed.incident import Incident
from testbed.operator_guards import Leading
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import Tenancy
from testbed.wait import wait_until


@pytest.fixture
def tenant(platform: Platform) -> str:
    """A workspace. Made before the guard is taken away."""
    name = f"updated-{uuid.uuid4().hex[:8]}"
    tenancy = Tenancy(platform.cluster.client())
    with FileLock(platform.supervisor.folder / "scenario.lock"):
        tenancy.team("payments")
        tenancy.team("search")
        tenancy.submit(name, "payments")
        tenancy.wait_ready(name, timeout=30)
    return name


@pytest.mark.needs("gatekeeper", "tenant-workspace")
@pytest.mark.scenario(guard=Leading("tenant-workspace"))
def test_an_update_is_carried_out(platform: Platform, tenant: str, guard: str, sla: SlaRecorder) -> None:
    """Given a tenant, when quota and cost center change, then the namespace has them; team and environment stay."""
    kube = platform.cluster.client()
    tenancy = Tenancy(kube)
    try:
        for changed, words in (
            ({"environment": "production"}, "spec.environment: cannot change"),
            ({"team": "search"}, "spec.team: cannot change from 'payments' to 'search'"),
        ):
            with pytest.raises(Refused) as refusal:
                tenancy.submit(tenant, **{"team": "payments"} | changed)
            assert words in refusal.value.reason
        tenancy.submit(tenant, "payments", quota={"cpu": "1500m"})
        tenancy.team("payments", cost_center="cc-2002")

        def arrived() -> tuple[bool, object]:
            quota = kube.get("ResourceQuota", "tenant-guard-rail", namespace=tenant, api_version="v1") or {}
            namespace = kube.get("Namespace", tenant, api_version="v1") or {}
            seen = (quota["spec"]["hard"]["requests.cpu"], namespace["metadata"]["labels"]["cost-center"])
            return seen == ("1500m", "cc-2002"), seen

        try:
            with sla.within("tenant-updated") as limit:
                wait_until("quota and cost center are the new ones", arrived, timeout=limit)
        except WaitTimeout as old:
            raise Incident(f"the change did not arrive: {old.why}") from None
    finally:
        tenancy.team("payments")
        tenancy.discard([tenant])
