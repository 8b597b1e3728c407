"""What cannot be deployed, or only half: Argo CD says so in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.addons.argo_cd import ArgoCd
from testbed.errors import WaitTimeout
from testbed.gitops import workload
from testbed.gitops.applications import GitOps
from testbed.gitops.components import CONTROLLER
from testbed.guards import Running
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.ports import LOOPBACK, free_ports
from testbed.sla import SlaRecorder

SERVICE = Path("fixtures/infra-apps/charts/service")
pytestmark = pytest.mark.needs("argo-cd", "gatekeeper")


def nobody_looks(platform: Platform, gitops: GitOps, application: str) -> bool:
    """Whether an Application waits because the controller is gone, and not because it is slow or fails."""
    running = platform.supervisor.component(platform.cluster.component(CONTROLLER)).running
    return not running and gitops.status(application).untouched


def broken_yaml(gitops: GitOps) -> dict[str, Any]:
    """A manifest that is no YAML."""
    files = workload.files("shop") | {"service.yaml": "apiVersion: v1\nkind: Service\n  metadata: {name: shop\n"}
    repository = gitops.repository("broken", files)
    return {"repoURL": repository.url, "path": ".", "targetRevision": "main"}


def unknown_version(gitops: GitOps) -> dict[str, Any]:
    """A version of a chart that nobody published."""
    gitops.publish_chart(SERVICE)
    return {"repoURL": gitops.git.charts_url, "chart": "service", "targetRevision": "9.9.9"}


def missing(gitops: GitOps) -> dict[str, Any]:
    """A repository that is not there."""
    return {"repoURL": gitops.git.repository_url("nowhere"), "path": ".", "targetRevision": "main"}


def unreachable(_: GitOps) -> dict[str, Any]:
    """A repository on a server that does not run."""
    (port,) = free_ports(1)
    return {"repoURL": f"http://{LOOPBACK}:{port}/shop.git", "path": ".", "targetRevision": "main"}


@pytest.mark.scenario(guard=Running(CONTROLLER, of=ArgoCd))
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (broken_yaml, "failed to unmarshal"),
        (unknown_version, "9.9.9"),
        (missing, "repository not found"),
        (unreachable, "connection refused"),
    ],
    ids=["broken-yaml", "unknown-chart-version", "missing-repository", "unreachable-repository"],
)
def test_bad_input_is_named(
    platform: Platform,
    gitops: GitOps,
    guard: str,
    namespace: str,
    sla: SlaRecorder,
    source: Callable[[GitOps], dict[str, Any]],
    words: str,
) -> None:
    """Given a source that cannot be deployed, then the Application's condition says what is wrong with it."""
    shop = gitops.application("shop", source(gitops), namespace=namespace)
    try:
        with sla.within("bad-input-named") as limit:
            said = gitops.wait_said(shop, words, timeout=limit)
    except WaitTimeout as silent:
        if not nobody_looks(platform, gitops, shop):
            raise
        raise Incident(f"nobody is told what is wrong: {silent.why}") from None
    assert "ComparisonError" in said
    assert not platform.cluster.client().list("Deployment", namespace=namespace, api_version="apps/v1")


@pytest.mark.scenario(guard=Running(CONTROLLER, of=ArgoCd))
def test_half_a_deployment_is_named(
    platform: Platform, gitops: GitOps, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given a commit of which Gatekeeper refuses one object, then the Application says which, and is not Synced."""
    untagged = workload.deployment("shop")
    del untagged["metadata"]["labels"]
    files = {"config.yaml": workload.config_map("shop"), "deployment.yaml": yaml.safe_dump(untagged)}
    shop = gitops.application("half", gitops.repository("half", files), namespace=namespace)
    try:
        with sla.within("bad-input-named") as limit:
            said = gitops.wait_said(shop, "cost-allocation-tags", timeout=limit)
    except WaitTimeout as silent:
        if not nobody_looks(platform, gitops, shop):
            raise
        raise Incident(f"nobody is told that half is missing: {silent.why}") from None
    assert "one or more objects failed to apply" in said
    gitops.wait_until(
        "what is deployed is told from what is not",
        lambda: ((different := gitops.status(shop).different) == ["Deployment shop"], different),
        10,
    )
    kube = platform.cluster.client()
    assert kube.get("ConfigMap", "shop", namespace=namespace, api_version="v1") is not None
    assert kube.get("Deployment", "shop", namespace=namespace, api_version="apps/v1") is None
