"""A merged tag reaches dev, staging and production at once where nothing holds it back."""

from __future__ import annotations

import pytest

from testbed.errors import WaitTimeout
from testbed.gitops import workload
from testbed.gitops.applications import AUTOMATED, GitOps
from testbed.gitops.guards import PushEvents
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper", clusters=("staging", "production"))


@pytest.mark.scenario(guard=PushEvents())
def test_a_merged_tag_reaches_three_clusters(platform: Platform, gitops: GitOps, guard: str, sla: SlaRecorder) -> None:
    """Given a service on three clusters, when a new tag is merged, then all of them have it within the SLA."""
    repository = gitops.repository("shop", workload.files("shop"))
    names = gitops.application_set("shop", repository, clusters=list(platform.clusters), policy=AUTOMATED)
    before = repository.head
    gitops.wait_synced(names.values(), before, timeout=40, healthy=True)
    try:
        with sla.within("commit-to-three-clusters") as limit:
            bump = repository.edit(
                "deployment.yaml", lambda text: text.replace(workload.TAG, workload.NEXT_TAG), "Shop 6.9.2"
            )
            gitops.wait_synced(names.values(), bump, timeout=limit)
    except WaitTimeout as still:
        if not gitops.confirm_untold(names.values(), before, repository.head, timeout=30):
            raise
        raise Incident(f"not every cluster has the merged tag: {still.why}") from None
