"""A workspace is deleted: all of it goes, in order, and whoever holds it up is named."""

from __future__ import annotations

import uuid

import pytest
from filelock import FileLock

from testbed.cluster import Manifest
from testbed.incident import Incident
from testbed.operator_guards import Finalizers
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import PROJECT_NAMESPACE, Tenancy
from testbed.wait import wait_until

ARGO = "argoproj.io/v1alpha1"
PREFIX = "gone-"
KEEPER = "example.com/keep"


def kept(finalizers: list[str]) -> Manifest:
    """Something in the tenant's namespace that does not go while it has finalizers."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "finalizers": finalizers}}


@pytest.fixture
def tenant(platform: Platform) -> str:
    """A workspace whose content does not go. Made before the guard is taken away."""
    name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    tenancy = Tenancy(platform.cluster.client())
    with FileLock(platform.supervisor.folder / "scenario.lock"):
        tenancy.team("payments")
        tenancy.submit(name, "payments")
        tenancy.wait_ready(name, timeout=30)
        tenancy.kube.apply(kept([KEEPER]), namespace=name)
    return name


@pytest.mark.needs("gatekeeper", "tenant-workspace")
@pytest.mark.scenario(guard=Finalizers(PREFIX))
def test_no_half_tenant_is_left(platform: Platform, tenant: str, guard: str, sla: SlaRecorder) -> None:
    """Given content that does not go, when its workspace is deleted, then that stays and says why, to the very end."""
    kube = platform.cluster.client()
    tenancy = Tenancy(kube)

    def told() -> tuple[bool, object]:
        if tenancy.get(tenant) is None:
            return True, None
        found = tenancy.ready_condition(tenant)
        return KEEPER in found.get("message", ""), found

    tenancy.discard([tenant])
    try:
        found = wait_until(f"the workspace says that {KEEPER} keeps it", told, timeout=sla.limit("tenant-gone"))
        if found is None:
            assert kube.get("Namespace", tenant) is not None
            raise Incident("the workspace is gone, its namespace is not, and nobody says why")
        assert isinstance(found, dict)
        assert found["reason"] == "Deleting"
        # The project goes last: what Argo CD still has there keeps its rules.
        assert kube.get("AppProject", tenant, namespace=PROJECT_NAMESPACE, api_version=ARGO) is not None
    finally:
        kube.apply(kept([]), namespace=tenant)
    with sla.within("tenant-gone") as limit:

        def gone() -> tuple[bool, object]:
            left = {
                "TenantWorkspace": tenancy.get(tenant),
                "Namespace": kube.get("Namespace", tenant),
                "AppProject": kube.get("AppProject", tenant, namespace=PROJECT_NAMESPACE, api_version=ARGO),
            }
            return not any(left.values()), [kind for kind, found in left.items() if found]

        wait_until(f"nothing of {tenant} is left", gone, timeout=limit)
