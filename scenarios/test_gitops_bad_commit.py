"""A commit breaks a service: the way back is another commit, and it is quick."""

from __future__ import annotations

import pytest

from testbed.errors import WaitTimeout
from testbed.gitops import workload
from testbed.gitops.applications import AUTOMATED, GitOps
from testbed.gitops.guards import Setting
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper")
STAYS_AUTOMATED = Setting(on=AUTOMATED, off={"automated": None})


def too_large(text: str) -> str:
    """More memory than any node has."""
    return text.replace("memory: 64Mi", "memory: 64Ti").replace("memory: 128Mi", "memory: 64Ti")


@pytest.mark.scenario(guard=STAYS_AUTOMATED)
def test_a_bad_commit_is_reverted(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given a commit whose pods fit on no node, when it is reverted in git, then the service is whole again."""
    repository = gitops.repository("shop", workload.files("shop"))
    shop = gitops.application("shop", repository, namespace=namespace)
    gitops.wait_synced(shop, repository.head, timeout=30, healthy=True)
    bad = repository.edit("deployment.yaml", too_large, "More memory")
    gitops.wait_synced(shop, bad, timeout=30)
    kube = platform.cluster.client()

    def pending() -> tuple[bool, object]:
        pods = kube.list("Pod", namespace=namespace, api_version="v1")
        phases = [pod["status"]["phase"] for pod in pods]
        return "Pending" in phases, phases

    gitops.wait_until("a pod of the bad commit waits for a node", pending, timeout=20)
    # In the control somebody switches automation off "until this is over", as people do.
    gitops.change(shop, {"spec": {"syncPolicy": STAYS_AUTOMATED.value}})
    try:
        with sla.within("revert-to-running") as limit:
            good = repository.revert(bad)
            gitops.wait_synced(shop, good, timeout=limit, healthy=True)
    except WaitTimeout as still:
        if not gitops.status(shop).left_alone(good):  # Argo CD is at it, or has not heard of it
            raise
        raise Incident(f"the service stays broken although the commit is reverted: {still.why}") from None
    assert "Pending" not in pending()[1]  # type: ignore[operator]
