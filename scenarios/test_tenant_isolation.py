"""Two tenants: neither reaches into the other, and neither gets more than its quota."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from filelock import FileLock

from testbed.cluster import KubeClient, Refused
from testbed.incident import Incident
from testbed.operator_guards import GuardRails, ScopedToNamespace
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import Tenancy, pod

pytestmark = pytest.mark.needs("gatekeeper", "tenant-workspace")
OURS, THEIRS = "payments", "search"
RUN = uuid.uuid4().hex[:6]
OWN, OTHER = f"pay-{RUN}", f"search-{RUN}"
BINDING = ScopedToNamespace("tenant-developer", f"{OURS}-developers")
GUARD_RAILS = GuardRails(OWN)

MAY = [("create", "apps", "deployments"), ("create", "", "pods"), ("get", "", "secrets"), ("delete", "", "services")]
MAY_NOT_EVEN_AT_HOME = [
    ("update", "", "resourcequotas"),
    ("delete", "", "limitranges"),
    ("delete", "networking.k8s.io", "networkpolicies"),
    ("create", "networking.k8s.io", "networkpolicies"),
    ("create", "rbac.authorization.k8s.io", "rolebindings"),
    ("escalate", "rbac.authorization.k8s.io", "roles"),
    ("patch", "", "namespaces"),
]
OF_THE_PLATFORM = [
    ("", "nodes"),
    ("", "namespaces"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("platform.testbed.dev", "tenantworkspaces"),
    ("platform.testbed.dev", "teams"),
]
"""Cluster-wide kinds by API group. (A question about group `*` is denied to all but those who may do all.)"""


@pytest.fixture(scope="module")
def tenants(platform: Platform) -> Iterator[Tenancy]:
    """A workspace of each of two teams. Made before any guard is taken away, while nobody else has the platform."""
    tenancy = Tenancy(platform.cluster.client())
    with FileLock(platform.supervisor.folder / "scenario.lock"):
        for team in (OURS, THEIRS):
            tenancy.team(team)
        tenancy.submit(OWN, OURS, quota={"cpu": "2", "memory": "4Gi", "pods": 3})
        tenancy.submit(OTHER, THEIRS)
        for name in (OWN, OTHER):
            tenancy.wait_ready(name, timeout=30)
    yield tenancy
    tenancy.discard([OWN, OTHER])


def refused(kube: KubeClient, name: str, namespace: str, **resources: dict[str, str]) -> str:
    """Why a pod is refused.

    Raises:
        Incident: It was admitted.
    """
    try:
        kube.create(pod(name, **resources), namespace=namespace)
    except Refused as refusal:
        return refusal.reason
    raise Incident(f"pod {name} was admitted into {namespace}")


@pytest.mark.scenario(guard=BINDING)
def test_tenants_do_not_reach_into_each_other(
    platform: Platform, tenants: Tenancy, guard: str, sla: SlaRecorder
) -> None:
    """Given two tenants, when a developer of one acts in the other, then the API server refuses it."""
    group = f"{OURS}-developers"
    for verb, api_group, resource in MAY:
        assert tenants.kube.allowed("jane", group, verb, resource, api_group, OWN), f"may not {verb} {resource}"
        if tenants.kube.allowed("jane", group, verb, resource, api_group, OTHER):
            raise Incident(f"a developer of {OURS} may {verb} {resource} in the workspace of {THEIRS}")
    for verb, api_group, resource in MAY_NOT_EVEN_AT_HOME:
        assert not tenants.kube.allowed("jane", group, verb, resource, api_group, OWN), f"may {verb} {resource}"
    for api_group, resource in OF_THE_PLATFORM:
        assert not tenants.kube.allowed("jane", group, "list", resource, api_group, ""), f"may list {resource}"
    assert tenants.kube.allowed("joe", f"{OURS}-viewers", "list", "pods", "", OWN)
    assert not tenants.kube.allowed("joe", f"{OURS}-viewers", "create", "pods", "", OWN)
    assert not tenants.kube.allowed("joe", f"{OURS}-viewers", "get", "secrets", "", OWN)
    # And not only on paper.
    developer = tenants.developer(OURS)
    assert "is forbidden" in refused(developer, "intruder", OTHER)
    developer.create(pod("at-home"), namespace=OWN)
    developer.delete("Pod", "at-home", namespace=OWN)


@pytest.mark.scenario(guard=GUARD_RAILS)
def test_quota_and_limits_refuse(platform: Platform, tenants: Tenancy, guard: str, sla: SlaRecorder) -> None:
    """Given a quota, when a developer asks for more, then the API server refuses it and says of what."""
    developer = tenants.developer(OURS)
    made: list[str] = []
    try:
        greedy = {"cpu": "8", "memory": "1Gi"}
        reason = refused(developer, "greedy", OWN, requests=greedy, limits=greedy)
        assert "maximum cpu usage per Container is 4, but limit is 8" in reason
        big = {"cpu": "1500m", "memory": "1Gi"}
        developer.create(pod("first", requests=big, limits=big), namespace=OWN)
        made.append("first")
        reason = refused(developer, "second", OWN, requests=big, limits=big)
        assert "exceeded quota: tenant-guard-rail" in reason
        assert "requests.cpu=1500m" in reason
        small = {"cpu": "10m", "memory": "16Mi"}
        for name in ("small-1", "small-2"):
            developer.create(pod(name, requests=small, limits=small), namespace=OWN)
            made.append(name)
        assert "pods=1" in refused(developer, "fourth", OWN, requests=small, limits=small)
    finally:
        for name in [*made, "greedy", "second", "fourth"]:
            developer.delete("Pod", name, namespace=OWN)
