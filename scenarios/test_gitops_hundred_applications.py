"""A hundred Applications at once: all of them are deployed, and none is forgotten."""

from __future__ import annotations

import pytest

from testbed.errors import WaitTimeout
from testbed.gitops import workload
from testbed.gitops.applications import AUTOMATED, GitOps
from testbed.gitops.components import REPO_SERVER
from testbed.gitops.guards import Restarts
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper")
MANY = 100


@pytest.mark.scenario(guard=Restarts(REPO_SERVER))
def test_a_hundred_applications_are_deployed(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given a hundred Applications made at once, when the repo-server dies meanwhile, then all are deployed."""
    files = {f"app-{number:03}/configmap.yaml": workload.config_map(f"app-{number:03}") for number in range(MANY)}
    repository = gitops.repository("many", files)
    names = gitops.application_set_of_folders("many", repository, namespace=namespace, policy=AUTOMATED)
    try:
        with sla.within("hundred-applications") as limit:
            gitops.wait_until(
                "the first is deployed",
                lambda: (any(status.synced() for status in gitops.statuses().values()), "none"),
                limit,
            )
            platform.cluster.kill(REPO_SERVER)
            gitops.wait_synced(names, repository.head, timeout=limit)
    except WaitTimeout as still:
        raise Incident(f"not all are deployed: {still.why}") from None
    maps = platform.cluster.client().list("ConfigMap", namespace=namespace, api_version="v1")
    assert len([found for found in maps if found["metadata"]["name"].startswith("app-")]) == MANY
