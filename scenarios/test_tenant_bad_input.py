"""Bad workspaces: refused in words that say what to change; nothing is half-made, nothing crashes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testbed.addons.operators import GROUP, TenantWorkspace
from testbed.cluster import Refused
from testbed.errors import WaitTimeout
from testbed.guards import FailClosed
from testbed.incident import Incident
from testbed.operator_guards import Leading, Schema, Webhooks
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.tenancy import LABEL, Tenancy

pytestmark = pytest.mark.needs("gatekeeper", "tenant-workspace")
OPERATOR = "tenant-workspace"


@pytest.fixture
def tenancy(platform: Platform, guard: str) -> Tenancy:
    """With the team that bad workspaces name."""
    found = Tenancy(platform.cluster.client())
    found.team("payments")
    return found


@contextmanager
def operator_stays(platform: Platform) -> Iterator[None]:
    """Meanwhile the operator does not die."""
    operator = platform.addon(TenantWorkspace)
    before = operator.incarnation()
    yield
    assert operator.incarnation() == before


# Each: what the spec has instead, a name or "" for one of our own, the words of the refusal, the condition without it.
REFUSED_BY_WEBHOOK: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "unknown-team": ({"team": "paymets"}, "", "no Team 'paymets' is in the directory; did you mean", "TeamNotFound"),
    "too-much-cpu": ({"quota": {"cpu": 96}}, "", "spec.quota.cpu: 96 is more than the platform's", "QuotaExceedsLimit"),
    "name-of-the-platform": ({}, "kube-tenant", "metadata.name: names that begin with 'kube-'", "Reconciled"),
    "name-too-long": ({}, "n" * 60, "metadata.name: 60 characters; use at most 40", "Reconciled"),
}


@pytest.mark.scenario(guard=Webhooks(OPERATOR))
@pytest.mark.parametrize("what", REFUSED_BY_WEBHOOK)
def test_the_webhook_says_what_is_wrong(
    platform: Platform, tenancy: Tenancy, guard: str, sla: SlaRecorder, what: str
) -> None:
    """Given the webhook, when a workspace cannot be, then the refusal names the field; without, a condition does."""
    changed, fixed_name, words, reason = REFUSED_BY_WEBHOOK[what]
    name = fixed_name or f"bad-{uuid.uuid4().hex[:8]}"
    with operator_stays(platform):
        said = None
        with sla.within("admission-refusal"):
            try:
                tenancy.submit(name, **{"team": "payments"} | changed)
            except Refused as refusal:
                said = refusal.reason
        if said is not None:
            assert words in said
            assert tenancy.kube.get("Namespace", name) is None
            return
        try:
            status = "True" if reason == "Reconciled" else "False"
            tenancy.wait_condition(name, status, reason, timeout=10)
            made = tenancy.kube.get("Namespace", name)
            assert (made is not None) == (reason == "Reconciled")
        finally:
            tenancy.discard([name])
        raise Incident(f"a workspace with {what} was accepted")


REFUSED_BY_SCHEMA: dict[str, tuple[dict[str, Any] | str, str]] = {
    "missing": ({"team": "payments", "environment": "dev"}, "spec.repositories: Required value"),
    "unicode": ({"team": "pаyments"}, "spec.team in body should match"),  # noqa: RUF001 (a Cyrillic letter is the point)
    "over-long": ({"team": "t" * 300}, "spec.team in body should match"),
    "wrong-type": ({"quota": {"pods": "many"}}, "spec.quota.pods in body must be of type integer"),
    "not-an-object": ("everything", "spec in body must be of type object"),
}


@pytest.mark.scenario(guard=Schema("tenantworkspaces", GROUP, webhooks=OPERATOR))
def test_the_schema_says_what_is_wrong(platform: Platform, tenancy: Tenancy, guard: str, sla: SlaRecorder) -> None:
    """Given the schema, when fields are missing, over-long, unicode or of a wrong type, then the refusal names them."""
    accepted: list[str] = []
    run = uuid.uuid4().hex[:6]
    with operator_stays(platform):
        for what, (spec, words) in REFUSED_BY_SCHEMA.items():
            name = f"{what}-{run}"
            manifest = tenancy.manifest(name, "payments")
            if what == "missing":
                manifest["spec"] = spec
            else:
                manifest["spec"] = spec if isinstance(spec, str) else manifest["spec"] | spec
            try:
                tenancy.kube.create(manifest)
                accepted.append(name)
            except Refused as refusal:
                assert words in refusal.reason
        try:
            for name in accepted:  # the second line of defence: the operator says it, and lives
                condition = tenancy.wait_not_ready(name, timeout=10)
                assert condition["reason"] in {"InvalidSpec", "TeamNotFound", "QuotaExceedsLimit"}
                assert tenancy.kube.get("Namespace", name) is None
        finally:
            tenancy.discard(accepted)
    if accepted:
        raise Incident(f"accepted: {', '.join(accepted)}")


@pytest.mark.scenario(guard=FailClosed(OPERATOR))
def test_nothing_slips_through_while_the_webhook_is_down(
    platform: Platform, tenancy: Tenancy, guard: str, sla: SlaRecorder
) -> None:
    """Given a webhook that fails closed, when the operator is away, then a bad workspace is refused all the same."""
    operator = platform.addon(TenantWorkspace)
    name = f"slipped-{uuid.uuid4().hex[:8]}"
    operator.switch_off()
    try:
        try:
            tenancy.submit(name, "payments", quota={"cpu": 9999})
        except Refused as refusal:
            assert "failed calling webhook" in refusal.reason
            assert f"{OPERATOR.replace('-', '')}s.platform.testbed.dev" in refusal.reason
        else:
            raise Incident("a workspace of 9999 CPUs was accepted while the webhook was down")
    finally:
        tenancy.discard([name])
        operator.switch_on()


@pytest.mark.scenario(guard=Leading(OPERATOR))
def test_a_taken_name_is_told_and_left_alone(
    platform: Platform, tenancy: Tenancy, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given somebody's namespace, when a workspace of its name comes, then it says why not and touches nothing."""
    before = tenancy.kube.get("Namespace", namespace)
    assert before is not None
    tenancy.submit(namespace, "payments")
    try:
        with operator_stays(platform):
            try:
                found = tenancy.wait_condition(namespace, "False", "NamespaceConflict", timeout=5)
            except WaitTimeout as silence:
                raise Incident(f"nobody told why {namespace} is not made: {silence.why}") from None
        assert "exists already and does not belong to this workspace" in found["message"]
        assert ("NamespaceConflict", found["message"]) in tenancy.events(namespace)
        touched = tenancy.kube.get("Namespace", namespace)
        assert touched is not None
        for field in ("uid", "labels", "ownerReferences", "annotations"):
            assert touched["metadata"].get(field) == before["metadata"].get(field)
        assert tenancy.kube.list("RoleBinding", namespace=namespace, api_version="rbac.authorization.k8s.io/v1") == []
        tenancy.remove([namespace])
        after = tenancy.kube.get("Namespace", namespace)
        assert after is not None  # the workspace is gone, what was never its own is not
        assert LABEL not in after["metadata"]["labels"]
        assert "deletionTimestamp" not in after["metadata"]
    finally:
        tenancy.discard([namespace])
