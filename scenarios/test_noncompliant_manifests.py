"""Twelve manifests that the platform's policies blocked in production, and the twin of each that passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.cluster import Manifest, Refused, load_manifests
from testbed.guards import Constraint
from testbed.incident import Incident
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("gatekeeper")

ADMISSION = Path(__file__).parents[1] / "fixtures" / "admission"
CONSTRAINTS = {
    "EncryptedVolumes": Constraint("EncryptedVolumes", "encrypted-volumes"),
    "CostAllocationTags": Constraint("CostAllocationTags", "cost-allocation-tags"),
    "PermissiveClusterRoleBindings": Constraint("PermissiveClusterRoleBindings", "permissive-cluster-role-bindings"),
}


def manifests_that_violate(kind: str) -> list[object]:
    """The non-compliant manifests of one class, as parameters named by their files."""
    loaded = [(path.stem, load_manifests(path)[0]) for path in sorted((ADMISSION / "noncompliant").glob("*.yaml"))]
    chosen = [(name, manifest) for name, manifest in loaded if violates(manifest) == kind]
    return [pytest.param(name, manifest, id=name) for name, manifest in chosen]


def violates(manifest: Manifest) -> str:
    """The kind of the constraint that a fixture violates."""
    return str(manifest["metadata"]["annotations"]["testbed.dev/violates"])


def own_name(manifest: Manifest, name: str) -> Manifest:
    """The same manifest under a name of this run's own: a namespace's old name stays taken while it is deleted."""
    return {**manifest, "metadata": {**manifest["metadata"], "name": name}}


def refused_and_twin_admitted(
    platform: Platform, namespace: str, sla: SlaRecorder, name: str, manifest: Manifest
) -> None:
    """The manifest is refused in words that say what to change, and the twin that has the change is admitted."""
    kube = platform.cluster.client()
    manifest = own_name(manifest, f"{namespace}-refused")
    with sla.within("admission-refusal"):
        try:
            kube.create(manifest, namespace=namespace)
        except Refused as refusal:
            reason = refusal.reason
        else:
            kube.delete(manifest["kind"], manifest["metadata"]["name"], namespace=namespace)
            raise Incident(f"{name} was admitted")
    assert manifest["metadata"]["annotations"]["testbed.dev/fix"] in reason
    (twin,) = load_manifests(ADMISSION / "compliant" / f"{name}.yaml")
    twin = own_name(twin, f"{namespace}-twin")
    stored = kube.create(twin, namespace=namespace)
    kube.delete(twin["kind"], twin["metadata"]["name"], namespace=namespace)
    assert stored["metadata"]["uid"]


@pytest.mark.scenario(guard=CONSTRAINTS["EncryptedVolumes"])
@pytest.mark.parametrize(("name", "manifest"), manifests_that_violate("EncryptedVolumes"))
def test_unencrypted_volume_is_refused(
    platform: Platform, guard: str, namespace: str, sla: SlaRecorder, name: str, manifest: Manifest
) -> None:
    """Given the encryption policy, when a team submits an unencrypted volume, then it learns at once what to set."""
    refused_and_twin_admitted(platform, namespace, sla, name, manifest)


@pytest.mark.scenario(guard=CONSTRAINTS["CostAllocationTags"])
@pytest.mark.parametrize(("name", "manifest"), manifests_that_violate("CostAllocationTags"))
def test_untagged_resource_is_refused(
    platform: Platform, guard: str, namespace: str, sla: SlaRecorder, name: str, manifest: Manifest
) -> None:
    """Given the tagging policy, when a team forgets a cost-allocation tag, then it learns at once which."""
    refused_and_twin_admitted(platform, namespace, sla, name, manifest)


@pytest.mark.scenario(guard=CONSTRAINTS["PermissiveClusterRoleBindings"])
@pytest.mark.parametrize(("name", "manifest"), manifests_that_violate("PermissiveClusterRoleBindings"))
def test_permissive_cluster_role_binding_is_refused(
    platform: Platform, guard: str, namespace: str, sla: SlaRecorder, name: str, manifest: Manifest
) -> None:
    """Given the RBAC policy, when somebody in an incident binds a powerful role, then the binding is refused."""
    refused_and_twin_admitted(platform, namespace, sla, name, manifest)
