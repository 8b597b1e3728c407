"""A platform is built anew from its root Application, months after the review: upstream has moved on since then."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from testbed.addons.operators import GROUP
from testbed.cluster import KubeClient, Refused
from testbed.gitops.guards import Setting
from testbed.gitops.infra_apps import MANIFESTS_TAG, InfraApps
from testbed.gitops.repository import PLATFORM
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.report.verdicts import record
from testbed.sla import SlaRecorder
from testbed.tenancy import Tenancy

CLUSTERS = ("staging", "production")
UPSTREAM = "platform-manifests"
RIGHTS = "operators/tenant-workspace/rbac.yaml"
PINNED = Setting(on=MANIFESTS_TAG, off="main")
WITHIN = 60.0
"""Seconds for what has no SLA of its own."""


@pytest.mark.needs("argo-cd", "gatekeeper", "tenant-workspace", clusters=CLUSTERS)
@pytest.mark.needs("canary-policy", "flagger", only=("production",))
@pytest.mark.scenario(guard=PINNED)
def test_a_platform_is_built_as_reviewed(
    platform: Platform,
    infra_apps: InfraApps,
    guard: str,
    sla: SlaRecorder,
    request: pytest.FixtureRequest,
) -> None:
    """Given pinned versions, when the root is applied once, then all of the platform comes from it, as reviewed."""
    gitops, upstream = infra_apps.gitops, infra_apps.upstream[UPSTREAM]
    told = [*platform.fidelity({"argo-cd", "gatekeeper", "tenant-workspace", "canary-policy", "flagger"})]
    told.append(infra_apps.fidelity())
    record(request.node, "fidelity", json.dumps([f"{one.part}: {one.simulated}" for one in told if one.simulated]))
    change = upstream.edit(RIGHTS, secrets_for_viewers, "Viewers want to see secrets", author=PLATFORM)
    if PINNED.value != MANIFESTS_TAG:
        infra_apps.pin(UPSTREAM, PINNED.value)

    def open_to_viewers() -> list[str]:
        return [name for name, cluster in platform.clusters.items() if viewers_read_secrets(cluster.client())]

    assert open_to_viewers() == []
    with sla.within("platform-bootstrapped") as limit:
        infra_apps.deploy(operators=True)
        infra_apps.wait_deployed(timeout=limit, unless=lambda: bool(open_to_viewers()))
    if found := open_to_viewers():
        raise Incident(f"viewers read secrets in {found}, by {change[:8]} of upstream, which nobody reviewed")
    reviewed = upstream.git("rev-parse", f"{MANIFESTS_TAG}^{{commit}}")
    for name in platform.clusters:
        deployed = gitops.get(f"operators-{name}")["status"]["sync"]["revision"]
        assert deployed == reviewed != change
    assert infra_apps.expected() == set(infra_apps.applications())
    for name, cluster in platform.clusters.items():
        kube = cluster.client()
        assert_tenants_ready(kube, infra_apps.tenants(name))
        info = kube.get("ConfigMap", "platform-info", namespace="default", api_version="v1")
        assert info is not None
        assert info["data"]["environment"] == name
        with pytest.raises(Refused, match="cost-center"):
            kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "untagged"}}, dry_run=True)
    assert_canaries_initialized(platform.clusters["production"].client())
    megabytes = round(sum(platform.supervisor.resident_bytes().values()) / 1e6)
    record(request.node, "memory", f"{megabytes} MB")

    # A constraint holds on this way too: what is refused stays out, and the Application says why.
    good = "costCenter: cc-3001"
    untagged = infra_apps.repository.edit(
        "services/catalog/values.yaml",
        lambda text: text.replace(good, "costCenter: marketing"),
        "Catalog is marketing's",
    )
    gitops.wait_said("catalog-dev", "cost-center", timeout=WITHIN)
    corrected = infra_apps.repository.revert(untagged)
    gitops.wait_synced(["catalog-dev", "catalog-staging"], corrected, timeout=WITHIN, healthy=True)

    # What is deployed for one tenant stays out of another's namespace.
    catalog = gitops.get("catalog-staging")["spec"]
    escape = gitops.application(
        "escape", catalog["source"], project=catalog["project"], cluster="staging", namespace="checkout"
    )
    gitops.wait_said(escape, "do not match any of the allowed destinations in project", timeout=WITHIN)
    assert gitops.status(escape).syncs == 0


def assert_tenants_ready(kube: KubeClient, names: list[str]) -> None:
    """Every tenant is ready, and its namespace is there."""
    assert names
    for name in names:
        assert Tenancy(kube).ready_condition(name).get("status") == "True", name
        namespace = kube.get("Namespace", name)
        assert namespace is not None
        assert namespace["metadata"]["labels"]["team"] == name


def assert_canaries_initialized(kube: KubeClient) -> None:
    """Every policy has its Canary, whose primary serves; Flagger's Services have the tags that policy asks for."""
    policies = kube.list("CanaryPolicy", api_version=GROUP)
    assert {policy["metadata"]["name"] for policy in policies} == {"catalog", "checkout"}
    for policy in policies:
        name = policy["metadata"]["name"]
        assert policy["status"]["canaryPhase"] == "Initialized"
        primary = kube.get("Deployment", f"{name}-primary", namespace=name, api_version="apps/v1")
        assert primary is not None
        assert primary["status"]["readyReplicas"] == 3
        for service in (name, f"{name}-primary", f"{name}-canary"):
            found = kube.get("Service", service, namespace=name, api_version="v1")
            assert found is not None
            assert found["metadata"]["labels"]["environment"] == "production"


def secrets_for_viewers(text: str) -> str:
    """The role of viewers with one rule more."""
    found = list(yaml.safe_load_all(text))
    for manifest in found:
        if manifest["metadata"]["name"] == "tenant-viewer":
            manifest["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]})
    return yaml.safe_dump_all(found)


def viewers_read_secrets(kube: KubeClient) -> bool:
    """Whether the role of viewers on a cluster has that rule."""
    role: dict[str, Any] | None = kube.get("ClusterRole", "tenant-viewer", api_version="rbac.authorization.k8s.io/v1")
    assert role is not None
    return any("secrets" in rule.get("resources", []) for rule in role["rules"])
