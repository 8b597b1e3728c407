"""A cluster is away while commits go on: afterwards it has them."""

from __future__ import annotations

import pytest

from testbed.cluster.node_readiness import wait_nodes_back
from testbed.errors import WaitTimeout
from testbed.gitops import workload
from testbed.gitops.applications import AUTOMATED, GitOps
from testbed.gitops.guards import Setting
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper", "control-plane-faults", clusters=("staging", "production"))
STAYS_AUTOMATED = Setting(on=AUTOMATED, off={"automated": None})
AWAY, HERE = "staging", "production"


@pytest.mark.scenario(guard=STAYS_AUTOMATED)
def test_a_cluster_that_was_away_catches_up(platform: Platform, gitops: GitOps, guard: str, sla: SlaRecorder) -> None:
    """Given a service on two clusters, when one is away during a commit, then it has the commit once it is back."""
    repository = gitops.repository("shop", workload.files("shop"))
    names = gitops.application_set("shop", repository, clusters=[AWAY, HERE], policy=AUTOMATED)
    gitops.wait_synced(names.values(), repository.head, timeout=40, healthy=True)
    away = platform.clusters[AWAY]
    api_server = away.component("kube-apiserver")
    platform.supervisor.stop([api_server])
    try:
        # In the control somebody switches automation off for the cluster that is away.
        gitops.change(names[AWAY], {"spec": {"syncPolicy": STAYS_AUTOMATED.value}})
        bump = repository.edit("deployment.yaml", lambda text: text.replace(workload.TAG, workload.NEXT_TAG), "Bump")
        gitops.wait_synced(names[HERE], bump, timeout=30, healthy=True)
        gitops.refresh(names[AWAY])
        gitops.wait_out_of_sync(names[AWAY], timeout=30)
        assert not platform.supervisor.component(api_server).running
    finally:
        platform.supervisor.revive(api_server)
        away.wait_api_server()
    try:
        with sla.within("cluster-back") as limit:
            gitops.wait_synced(names[AWAY], bump, timeout=limit)
    except WaitTimeout as still:
        if not gitops.status(names[AWAY]).left_alone(bump):
            raise
        # Argo CD reaches the cluster again: it is only that nobody has it deploy there.
        gitops.change(names[AWAY], {"spec": {"syncPolicy": AUTOMATED}})
        gitops.wait_synced(names[AWAY], bump, timeout=sla.limit("cluster-back"))
        raise Incident(f"the cluster stays at what it had: {still.why}") from None
    finally:
        wait_nodes_back(away.client(), timeout=60)  # the next scenario needs them
    gitops.wait_synced(names[AWAY], bump, timeout=60, healthy=True)
