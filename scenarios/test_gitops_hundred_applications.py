"""A hundred Applications at once, and the last ones hit the namespace's quota: all are deployed, none is forgotten."""

from __future__ import annotations

import pytest

from testbed.gitops import workload
from testbed.gitops.applications import AUTOMATED, GitOps
from testbed.gitops.guards import Setting
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper")
MANY, ROOM = 100, 90
TRIED_AGAIN = Setting(
    on={"retry": {"limit": 20, "backoff": {"duration": "2s", "factor": 1}}}, off={"retry": {"limit": 0}}
)
CONFIG_MAPS = "count/configmaps"


@pytest.mark.scenario(guard=TRIED_AGAIN)
def test_a_hundred_applications_are_deployed(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given a quota for ninety, when a hundred Applications are made and the quota is raised, then all are deployed."""
    kube = platform.cluster.client()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "config-maps", "namespace": namespace},
        "spec": {"hard": {CONFIG_MAPS: str(ROOM)}},
    }
    kube.apply(quota)
    gitops.wait_until(
        "the quota counts",
        lambda: (
            bool((found := kube.get("ResourceQuota", "config-maps", namespace=namespace) or {}).get("status")),
            found,
        ),
        timeout=20,
    )
    files = {f"app-{number:03}/configmap.yaml": workload.config_map(f"app-{number:03}") for number in range(MANY)}
    repository = gitops.repository("many", files)
    with sla.within("hundred-applications") as limit:
        names = gitops.application_set_of_folders(
            "many", repository, namespace=namespace, policy=AUTOMATED | TRIED_AGAIN.value
        )
        assert "exceeded quota" in gitops.wait_failed(names, timeout=limit).said
        kube.apply(quota | {"spec": {"hard": {CONFIG_MAPS: str(2 * MANY)}}})
        given_up = gitops.wait_synced_or_given_up(names, timeout=limit)
    if given_up:
        raise Incident(f"{len(given_up)} of {MANY} are given up although there is room: {given_up[0]}")
    maps = kube.list("ConfigMap", namespace=namespace, api_version="v1")
    assert len([found for found in maps if found["metadata"]["name"].startswith("app-")]) == MANY
