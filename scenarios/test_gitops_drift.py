"""Somebody changes a cluster by hand: Argo CD puts it back, or says so where it may not."""

from __future__ import annotations

import pytest

from testbed.errors import WaitTimeout
from testbed.gitops import workload
from testbed.gitops.applications import GitOps
from testbed.gitops.guards import Setting
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.wait import wait_until

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper")
APPS = "apps/v1"
HEALS = Setting(
    on={"automated": {"prune": True, "selfHeal": True}}, off={"automated": {"prune": True, "selfHeal": False}}
)
COMPARED = Setting(on=[], off=[{"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"]}])
REPORTS_ONLY = {"automated": {"prune": True, "selfHeal": False}}


@pytest.mark.scenario(guard=HEALS)
@pytest.mark.parametrize("how", ["scaled", "deleted"])
def test_a_change_by_hand_is_put_back(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, sla: SlaRecorder, how: str
) -> None:
    """Given a service in sync, when somebody scales or deletes it by hand, then it is as git says within the SLA."""
    kube = platform.cluster.client()
    repository = gitops.repository("shop", workload.files("shop"))
    shop = gitops.application("shop", repository, namespace=namespace, policy=HEALS.value)
    gitops.wait_synced(shop, repository.head, timeout=30, healthy=True)
    before = kube.get("Deployment", "shop", namespace=namespace, api_version=APPS) or {}
    if how == "scaled":
        kube.merge(before, {"spec": {"replicas": 5}})
    else:
        kube.delete("Deployment", "shop", namespace=namespace, api_version=APPS)

    def as_in_git() -> tuple[bool, object]:
        found = kube.get("Deployment", "shop", namespace=namespace, api_version=APPS) or {"spec": {}, "metadata": {}}
        # Another object, or one that was changed and changed back: it did not just stay as it was.
        changed = any(found["metadata"].get(field) != before["metadata"][field] for field in ("uid", "generation"))
        return changed and found["spec"].get("replicas") == 2, found["spec"].get("replicas", "there is none")

    try:
        with sla.within("drift-healed") as limit:
            wait_until("the Deployment is as git says", as_in_git, timeout=limit)
    except WaitTimeout as still:
        # Argo CD has seen it, and does nothing about it.
        different = gitops.wait_out_of_sync(shop, timeout=sla.limit("drift-reported"))
        if different != ["Deployment shop"] or not gitops.status(shop).left_alone(repository.head):
            raise
        raise Incident(f"what somebody changed by hand stays: {still.why}") from None


@pytest.mark.scenario(guard=COMPARED)
def test_a_change_by_hand_is_reported_where_nothing_heals(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given self-heal off, when somebody scales a service by hand, then that is reported, and left as it is."""
    kube = platform.cluster.client()
    repository = gitops.repository("shop", workload.files("shop"))
    shop = gitops.application(
        "shop", repository, namespace=namespace, policy=REPORTS_ONLY, ignoreDifferences=COMPARED.value
    )
    gitops.wait_synced(shop, repository.head, timeout=30, healthy=True)
    syncs = gitops.status(shop).syncs
    found = kube.get("Deployment", "shop", namespace=namespace, api_version=APPS)
    assert found is not None
    kube.merge(found, {"spec": {"replicas": 5}})
    try:
        with sla.within("drift-reported") as limit:
            different = gitops.wait_out_of_sync(shop, timeout=limit)
    except WaitTimeout as still:
        if not gitops.status(shop).synced(repository.head):
            raise
        # Argo CD has seen the change: it says so once it may compare that field.
        gitops.change(shop, {"spec": {"ignoreDifferences": None}})
        gitops.wait_out_of_sync(shop, timeout=sla.limit("drift-reported"))
        raise Incident(f"nobody hears of the change: {still.why}") from None
    assert different == ["Deployment shop"]
    found = kube.get("Deployment", "shop", namespace=namespace, api_version=APPS)
    assert found is not None
    assert found["spec"]["replicas"] == 5
    assert gitops.status(shop).syncs == syncs
