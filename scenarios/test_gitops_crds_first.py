"""Custom resources are deployed before their definitions: without sync waves a new cluster's first sync fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.cluster import KubeClient
from testbed.gitops.guards import Setting
from testbed.gitops.infra_apps import ROOT, InfraApps
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.wait import wait_until

pytestmark = pytest.mark.needs("argo-cd", "gatekeeper", clusters=("staging",))
WAVES = Setting(on=True, off=False)
NEW = "staging"
NAMESPACES, DEFINITIONS, NEEDS_THEM = "namespaces", "flagger-crds", "metric-templates"
CRDS = [f"{kind}.flagger.app" for kind in ("alertproviders", "canaries", "metrictemplates")]


@pytest.fixture
def new_cluster(platform: Platform) -> Iterator[KubeClient]:
    """A cluster without Flagger's definitions, also afterwards: they are marked as to be kept when their app goes."""
    kube = platform.clusters[NEW].client()

    def there() -> list[str]:
        return [name for name in CRDS if kube.get("CustomResourceDefinition", name) is not None]

    assert there() == [], f"cluster {NEW} is not new"
    yield kube
    for name in there():
        kube.delete("CustomResourceDefinition", name)
    wait_until(f"the definitions are gone from {NEW}", lambda: (not (left := there()), left), timeout=30)


@pytest.mark.scenario(guard=WAVES)
def test_definitions_come_before_what_needs_them(
    new_cluster: KubeClient, infra_apps: InfraApps, guard: str, sla: SlaRecorder
) -> None:
    """Given a new cluster and a late mirror of the definitions, when the root chart is deployed, then no sync fails."""
    gitops = infra_apps.gitops
    infra_apps.without_services()
    tag = infra_apps.withdraw("flagger")
    components = infra_apps.components(NAMESPACES, DEFINITIONS, NEEDS_THEM)
    infra_apps.deploy(environments=[NEW], components=components, syncWaves=WAVES.value)
    definitions, needs_them = f"{DEFINITIONS}-{NEW}", f"{NEEDS_THEM}-{NEW}"
    waits = f"waiting for healthy state of argoproj.io/Application/{definitions}"

    def met() -> tuple[bool, object]:
        root, child = gitops.status(ROOT), gitops.status(needs_them)
        return (not child.exists and waits in root.said) or child.failed, f"{root}; {child}"

    gitops.wait_said(definitions, f"unable to resolve '{tag}'", timeout=30)
    gitops.wait_until("the root waits for the definitions, or what needs them fails", met, timeout=30)
    failed = gitops.status(needs_them)
    if failed.failed:
        assert '"MetricTemplate" CRD is installed on the destination cluster' in failed.said
        raise Incident(f"the first deployment failed: {failed.said}")
    infra_apps.release("flagger")
    with sla.within("definitions-then-objects") as limit:
        gitops.refresh(definitions)
        gitops.wait_synced([definitions, needs_them, ROOT], timeout=limit, healthy=True)
    assert infra_apps.expected() == set(infra_apps.applications())
    assert not gitops.status(needs_them).failed
    templates = new_cluster.list("MetricTemplate", namespace="flagger-system", api_version="flagger.app/v1beta1")
    assert {found["metadata"]["name"] for found in templates} == {"success-rate", "latency-p99"}
