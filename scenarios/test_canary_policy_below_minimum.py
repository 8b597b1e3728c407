"""A service wants less care than the platform demands: it is refused, with the field that is to blame."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.cluster import Refused
from testbed.delivery import FLAGGER, policy, wait_policy
from testbed.incident import Incident
from testbed.operator_guards import Webhooks
from testbed.platform import Platform
from testbed.sla import SlaRecorder

WEAK: dict[str, tuple[dict[str, Any], str]] = {
    "short-window": (
        {"analysis": {"window": "2m"}},
        "spec.analysis.window: 2m is shorter than the platform's minimum of 10m",
    ),
    "big-steps": ({"analysis": {"stepWeight": 25}}, "spec.analysis.stepWeight: 25 must be from 1 to the platform's 10"),
    "no-smoke-test": ({"smokeTest": None}, "spec.smokeTest.path: is missing"),
    "own-query": ({"metrics": [{"name": "mine", "query": "vector(0)"}]}, "spec.metrics: own queries are not allowed"),
    "no-warm-up": ({"analysis": {"warmUp": "0s"}}, "spec.analysis.warmUp: 0s is shorter than the platform's minimum"),
    "no-promise": ({"slo": {"successRate": 50, "latencyP99": 500}}, "spec.slo.successRate: 50 must be from"),
}


@pytest.mark.needs("gatekeeper", "canary-policy")
@pytest.mark.scenario(guard=Webhooks("canary-policy"))
@pytest.mark.parametrize("what", WEAK)
def test_a_policy_below_the_minimum_is_refused(
    platform: Platform, guard: str, namespace: str, sla: SlaRecorder, what: str
) -> None:
    """Given the platform's minimum, when a policy goes below it, then the refusal names the field and the minimum."""
    changed, words = WEAK[what]
    kube = platform.cluster.client()
    said = None
    with sla.within("admission-refusal"):
        try:
            kube.create(policy("checkout", **changed), namespace=namespace)
        except Refused as refusal:
            said = refusal.reason
    if said is not None:
        assert words in said
        return
    # Without the webhook the operator is the second line: no Canary, and a condition with the same words.
    found = wait_policy(kube, "checkout", namespace, "False", timeout=10)
    assert (found["reason"], words in found["message"]) == ("BelowMinimum", True)
    assert kube.list("Canary", namespace=namespace, api_version=FLAGGER) == []
    raise Incident(f"a policy with {what} was accepted")
