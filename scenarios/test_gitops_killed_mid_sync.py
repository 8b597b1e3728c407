"""Argo CD's controller or repo-server dies while it deploys: nothing is left half done."""

from __future__ import annotations

import pytest
import yaml

from testbed.addons.argo_cd import ArgoCd
from testbed.errors import WaitTimeout
from testbed.gitops.applications import GitOps
from testbed.gitops.components import CONTROLLER, REPO_SERVER
from testbed.guards import Restarted
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper")
WAVES = 4


def waves(value: str) -> dict[str, str]:
    """ConfigMaps in waves: a sync of several seconds."""
    found = {}
    for number in range(WAVES):
        metadata = {"name": f"step-{number}", "annotations": {"argocd.argoproj.io/sync-wave": str(number)}}
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}
        found[f"step-{number}.yaml"] = yaml.safe_dump(manifest)
    return found


def deployed(platform: Platform, namespace: str) -> list[str]:
    """The value of every step that there is."""
    maps = platform.cluster.client().list("ConfigMap", namespace=namespace, api_version="v1")
    return [found["data"]["value"] for found in maps if found["metadata"]["name"].startswith("step-")]


def kill_and_wait(platform: Platform, gitops: GitOps, namespace: str, sla: SlaRecorder, role: str) -> None:
    """Kill a program while a commit is being deployed, and wait until all of the commit is there."""
    repository = gitops.repository("steps", waves("old"))
    steps = gitops.application("steps", repository, namespace=namespace)
    gitops.wait_synced(steps, repository.head, timeout=60)
    new = repository.commit("New", waves("new"))
    gitops.wait_until(
        "the first steps are deployed, the last is not",
        lambda: ("new" in (seen := deployed(platform, namespace)) and "old" in seen, seen),
        timeout=30,
    )
    restarts = platform.supervisor.component(platform.cluster.component(role)).restarts
    platform.cluster.kill(role)
    assert "old" in deployed(platform, namespace), "the sync was over before the kill"
    if role == REPO_SERVER:  # what is being synced was rendered before; the next commit is not
        new = repository.commit("Newest", waves("newest"))
    try:
        with sla.within("sync-after-kill") as limit:
            gitops.wait_synced(steps, new, timeout=limit)
    except WaitTimeout as half:
        if platform.supervisor.component(platform.cluster.component(role)).running:  # slow, not dead
            raise
        raise Incident(f"half deployed: {deployed(platform, namespace)}; {half.why}") from None
    assert len(set(deployed(platform, namespace))) == 1
    assert platform.supervisor.component(platform.cluster.component(role)).restarts > restarts


@pytest.mark.scenario(guard=Restarted(CONTROLLER, of=ArgoCd))
def test_the_controller_is_killed(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given a sync in several waves, when the controller is killed in between, then it is finished."""
    kill_and_wait(platform, gitops, namespace, sla, CONTROLLER)


@pytest.mark.scenario(guard=Restarted(REPO_SERVER, of=ArgoCd))
def test_the_repo_server_is_killed(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given a sync in several waves, when the repo-server is killed in between, then the next commit is deployed."""
    kill_and_wait(platform, gitops, namespace, sla, REPO_SERVER)
