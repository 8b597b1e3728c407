"""Policies of a wrong form, or while nobody checks them: refused by field; no Canary is made, nothing crashes."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from testbed.addons.operators import GROUP, CanaryPolicy
from testbed.cluster import Refused
from testbed.delivery import FLAGGER, policy, wait_policy
from testbed.guards import FailClosed
from testbed.incident import Incident
from testbed.operator_guards import Schema
from testbed.platform import Platform
from testbed.sla import SlaRecorder

pytestmark = pytest.mark.needs("gatekeeper", "canary-policy")
OPERATOR = "canary-policy"

# Each: what the spec has instead, the words of the refusal, the operator's reason where it is accepted all the same.
REFUSED_BY_SCHEMA: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing": ({"slo": None}, "spec.slo: Required value", "InvalidSpec"),
    "wrong-type": ({"service": {"port": "http"}}, "spec.service.port in body must be of type integer", "InvalidSpec"),
    "over-long": ({"smokeTest": {"path": "/" + "a" * 300}}, "spec.smokeTest.path: Too long", "InvalidSpec"),
    "unicode": ({"analysis": {"window": "\u0661\u0660m"}}, "spec.analysis.window in body should match", "BelowMinimum"),
    "not-an-object": ({"analysis": 3}, "spec.analysis in body must be of type object", "InvalidSpec"),
}


@pytest.mark.scenario(guard=Schema("canarypolicies", GROUP, webhooks=OPERATOR))
def test_the_schema_of_policies_says_what_is_wrong(
    platform: Platform, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given the schema, when fields are missing, over-long, unicode or of a wrong type, then the refusal names them."""
    kube = platform.cluster.client()
    operator = platform.addon(CanaryPolicy)
    before = operator.incarnation()
    accepted: list[str] = []
    for what, (changed, words, _) in REFUSED_BY_SCHEMA.items():
        try:
            kube.create(policy(what, **changed), namespace=namespace)
            accepted.append(what)
        except Refused as refusal:
            assert words in refusal.reason
    for what in accepted:  # the second line of defence: the operator says it, and lives
        found = wait_policy(kube, what, namespace, "False", timeout=10)
        assert found["reason"] == REFUSED_BY_SCHEMA[what][2], found
    assert kube.list("Canary", namespace=namespace, api_version=FLAGGER) == []
    assert operator.incarnation() == before
    for what in accepted:  # before the schema is back, under which they could not be changed any more
        kube.delete("CanaryPolicy", what, namespace=namespace, api_version=GROUP)
    if accepted:
        raise Incident(f"accepted: {', '.join(accepted)}")


@pytest.mark.scenario(guard=FailClosed(OPERATOR))
def test_no_policy_slips_through_while_the_webhook_is_down(
    platform: Platform, guard: str, namespace: str, sla: SlaRecorder
) -> None:
    """Given webhooks that fail closed, when the operator is away, then a weak policy is refused all the same."""
    kube = platform.cluster.client()
    operator = platform.addon(CanaryPolicy)
    name = f"slipped-{uuid.uuid4().hex[:8]}"
    operator.switch_off()
    try:
        try:
            kube.create(policy(name, slo={"successRate": 1, "latencyP99": 400}), namespace=namespace)
        except Refused as refusal:
            assert "failed calling webhook" in refusal.reason
            assert "canarypolicies.platform.testbed.dev" in refusal.reason
        else:
            raise Incident("a policy that promises 1 percent was accepted while the webhook was down")
    finally:
        kube.delete("CanaryPolicy", name, namespace=namespace, api_version=GROUP)
        operator.switch_on()
