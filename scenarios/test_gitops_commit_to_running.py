"""A developer merges a new image tag: it runs in dev within seconds, and nobody touched the cluster."""

from __future__ import annotations

import pytest

from testbed.errors import WaitTimeout
from testbed.gitops import workload
from testbed.gitops.applications import GitOps
from testbed.gitops.guards import PushEvents
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper")


@pytest.mark.scenario(guard=PushEvents())
def test_a_merged_tag_runs_in_dev(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given a service deployed from git, when a new tag is merged, then its pods run it within the SLA."""
    repository = gitops.repository("shop", workload.files("shop"))
    shop = gitops.application("shop", repository, namespace=namespace)
    before = repository.head
    gitops.wait_synced(shop, before, timeout=30, healthy=True)
    try:
        with sla.within("commit-to-running") as running:
            with sla.within("commit-to-synced") as limit:
                bump = repository.edit(
                    "deployment.yaml", lambda text: text.replace(workload.TAG, workload.NEXT_TAG), "Shop 6.9.2"
                )
                gitops.wait_synced(shop, bump, timeout=limit)
            gitops.wait_synced(shop, bump, timeout=running, healthy=True)
    except WaitTimeout as still:
        if not gitops.confirm_untold(shop, before, repository.head, timeout=sla.limit("commit-to-running")):
            raise
        raise Incident(f"the merged tag does not run: {still.why}") from None
    deployed = platform.cluster.client().get("Deployment", "shop", namespace=namespace, api_version="apps/v1")
    assert deployed is not None
    assert deployed["spec"]["template"]["spec"]["containers"][0]["image"] == f"{workload.IMAGE}:{workload.NEXT_TAG}"
    assert deployed["status"]["updatedReplicas"] == deployed["status"]["readyReplicas"] == 2
