"""Somebody deletes or loosens what keeps others out of a tenant: it is back at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from filelock import FileLock

from testbed.cluster import Manifest, Refused
from testbed.errors import WaitTimeout
from testbed.incident import Incident
from testbed.operator_guards import Leading
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import Tenancy
from testbed.wait import wait_until

pytestmark = pytest.mark.needs("gatekeeper", "tenant-workspace")
NAME = f"open-{uuid.uuid4().hex[:8]}"
POLICY = "tenant-guard-rail"
NETWORKING = "networking.k8s.io/v1"


@pytest.fixture(scope="module")
def tenancy(platform: Platform) -> Iterator[Tenancy]:
    """A workspace. Made before any guard is taken away, while no other scenario has the platform."""
    found = Tenancy(platform.cluster.client())
    with FileLock(platform.supervisor.folder / "scenario.lock"):
        found.team("payments")
        found.submit(NAME, "payments")
        found.wait_ready(NAME, timeout=30)
    yield found
    found.discard([NAME])


def admits_everybody(tenancy: Tenancy) -> tuple[bool, object]:
    """Whether the tenant has no policy, or one with a rule without a source."""
    found = tenancy.kube.get("NetworkPolicy", POLICY, namespace=NAME, api_version=NETWORKING)
    if found is None:
        return True, "there is no policy"
    rules = found["spec"].get("ingress") or []
    return any(not rule.get("from") for rule in rules), found["spec"]


def healed(tenancy: Tenancy) -> int:
    """How many events tell that the policy was put back."""
    return sum(
        reason == "Healed" and message.startswith(f"NetworkPolicy {POLICY}") for reason, message in tenancy.events(NAME)
    )


@pytest.mark.scenario(guard=Leading("tenant-workspace"))
@pytest.mark.parametrize("how", ["deleted", "loosened", "relabelled"])
def test_the_network_policy_is_back(
    platform: Platform, tenancy: Tenancy, guard: str, sla: SlaRecorder, how: str
) -> None:
    """Given a tenant, when its NetworkPolicy is deleted or loosened, then it is as it was within its SLA."""
    kube = tenancy.kube
    before = healed(tenancy)
    if how == "deleted":
        kube.delete("NetworkPolicy", POLICY, namespace=NAME, api_version=NETWORKING)
    else:
        loose = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}
        metadata: dict[str, object] = {"name": POLICY, "namespace": NAME}
        if how == "relabelled":  # and no longer to be found by its label
            metadata["labels"] = {"app.kubernetes.io/managed-by": "somebody"}
        kube.apply({"apiVersion": NETWORKING, "kind": "NetworkPolicy", "metadata": metadata, "spec": loose})
    try:
        with sla.within("network-policy-back") as limit:
            wait_until(
                "the tenant is closed again",
                lambda: ((seen := admits_everybody(tenancy))[0] is False, seen[1]),
                timeout=limit,
            )
    except WaitTimeout as still:
        raise Incident(f"the tenant stayed open to everybody: {still.why}") from None
    wait_until("an event tells of it", lambda: (healed(tenancy) > before, tenancy.events(NAME)), timeout=5)


def replace(tenancy: Tenancy, manifest: Manifest) -> Manifest:
    """Delete an object of the tenant and make another of its name; returns it as the API server stored it.

    The operator may be faster with its own, which is deleted again: only a create that was accepted is tampering.
    """
    kube, kind, name = tenancy.kube, manifest["kind"], manifest["metadata"]["name"]
    stored: Manifest = {}

    def made() -> tuple[bool, object]:
        kube.delete(kind, name, namespace=NAME, api_version=manifest["apiVersion"])
        try:
            stored.update(kube.create(manifest, namespace=NAME))
        except Refused as refusal:
            return False, refusal.reason
        return True, "made"

    wait_until(f"somebody's own {kind} {name} is in place", made, timeout=10, every=0.01)
    return stored


def loosened(tenancy: Tenancy, made: list[Manifest]) -> list[str]:
    """What of somebody's own objects is there still, and what it allows."""
    kube, found = tenancy.kube, []
    for manifest in made:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        live = kube.get(kind, name, namespace=NAME, api_version=manifest["apiVersion"])
        if live is None or live["metadata"]["uid"] == manifest["metadata"]["uid"]:
            found.append(f"{kind} {name} is {'gone' if live is None else 'the one that somebody made'}")
    if kube.allowed("joe", "payments-viewers", "create", "pods", "", NAME):
        found.append("a viewer may create pods")
    quota = kube.get("ResourceQuota", POLICY, namespace=NAME, api_version="v1")
    if quota is None or quota["spec"].get("scopes"):
        found.append("the quota counts only some pods")
    return found


@pytest.mark.scenario(guard=Leading("tenant-workspace"))
def test_what_cannot_be_updated_is_made_again(
    platform: Platform, tenancy: Tenancy, guard: str, sla: SlaRecorder
) -> None:
    """Given a tenant, when its binding gets another role and its quota a scope, then both are as they were."""
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": "tenant-viewer", "namespace": NAME}
    binding = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": metadata}
    binding["roleRef"] = {"apiGroup": rbac, "kind": "ClusterRole", "name": "tenant-developer"}
    binding["subjects"] = [{"apiGroup": rbac, "kind": "Group", "name": "payments-viewers"}]
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": POLICY, "namespace": NAME}}
    quota["spec"] = {"hard": {"pods": "500"}, "scopes": ["BestEffort"]}
    made = [replace(tenancy, manifest) for manifest in (binding, quota)]  # neither can be updated so
    assert (made[0]["roleRef"]["name"], made[1]["spec"]["scopes"]) == ("tenant-developer", ["BestEffort"])
    try:
        with sla.within("guard-rails-back") as limit:
            wait_until(
                "role and quota are as they were", lambda: (not (f := loosened(tenancy, made)), f), timeout=limit
            )
    except WaitTimeout as still:
        raise Incident(f"the tenant's rules stay loosened: {still.why}") from None
    assert tenancy.missing(NAME) == []
