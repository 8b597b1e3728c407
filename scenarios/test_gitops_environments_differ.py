"""During an incident somebody changes production by hand and never commits it: staging and production differ."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from testbed.errors import WaitTimeout
from testbed.gitops import workload
from testbed.gitops.applications import GitOps
from testbed.gitops.guards import Setting
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper", clusters=("staging", "production"))
CONTAINERS = "/spec/template/spec/containers"
COMPARED = Setting(on=[], off=[{"group": "apps", "kind": "Deployment", "jsonPointers": [CONTAINERS]}])
NAMESPACE = "shop"
ENVIRONMENTS = ["staging", "production"]


def overlays() -> dict[str, str]:
    """A service with a Kustomize overlay for each environment."""
    found = {f"base/{path}": text for path, text in workload.files("shop").items()}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": workload.TAGS}}
    found["base/namespace.yaml"] = yaml.safe_dump(namespace)
    found["base/kustomization.yaml"] = yaml.safe_dump({"resources": sorted(path[5:] for path in found)})
    for environment, replicas in zip(ENVIRONMENTS, (1, 3), strict=True):
        overlay = {
            "resources": ["../../base"],
            "namespace": NAMESPACE,
            "replicas": [{"name": "shop", "count": replicas}],
        }
        found[f"overlays/{environment}/kustomization.yaml"] = yaml.safe_dump(overlay)
    return found


@pytest.mark.scenario(guard=COMPARED)
def test_what_was_changed_by_hand_is_found(platform: Platform, gitops: GitOps, guard: str, sla: SlaRecorder) -> None:
    """Given one service on two clusters, when production's image is changed by hand, then that is found and named."""
    repository = gitops.repository("shop", overlays())

    def deploy(ignored: list[dict[str, Any]]) -> dict[str, str]:
        return gitops.application_set(
            "shop",
            repository,
            path="overlays/{{.name}}",
            clusters=ENVIRONMENTS,
            policy={"automated": {"prune": True}},
            ignoreDifferences=ignored,
        )

    names = deploy(COMPARED.value)
    gitops.wait_synced(names.values(), repository.head, timeout=40, healthy=True)
    production = platform.clusters["production"].client()
    deployed = production.get("Deployment", "shop", namespace=NAMESPACE, api_version="apps/v1")
    assert deployed is not None
    hotfix = deployed["spec"]["template"]["spec"]["containers"]
    hotfix[0]["image"] = f"{workload.IMAGE}:hotfix"
    production.merge(deployed, {"spec": {"template": {"spec": {"containers": hotfix}}}})
    try:
        with sla.within("drift-reported") as limit:
            different = gitops.wait_out_of_sync(names["production"], timeout=limit)
    except WaitTimeout as still:
        if not gitops.status(names["production"]).synced(repository.head):
            raise
        deploy([])  # Argo CD has seen the change: it says so once it may compare that field
        gitops.wait_out_of_sync(names["production"], timeout=30)
        raise Incident(f"production runs what nobody reviewed, and nothing says so: {still.why}") from None
    assert different == ["Deployment shop"]
    assert gitops.status(names["staging"]).synced()
    # The way back to one truth: what was done by hand becomes a commit.
    commit = repository.edit(
        "base/deployment.yaml", lambda text: text.replace(f":{workload.TAG}", ":hotfix"), "The hotfix of last night"
    )
    gitops.wait_synced(names.values(), commit, timeout=40, healthy=True)
