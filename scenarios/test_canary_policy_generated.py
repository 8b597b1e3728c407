"""A service's SLO becomes a Canary with the platform's parameters, and stays so."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from filelock import FileLock

from testbed.cluster import KubeClient, Manifest
from testbed.delivery import FLAGGER, SYSTEM, policy, wait_policy
from testbed.errors import WaitTimeout
from testbed.incident import Incident
from testbed.operator_guards import Leading
from testbed.platform import Platform
from testbed.sla import SlaRecorder
from testbed.wait import wait_until

pytestmark = pytest.mark.needs("gatekeeper", "canary-policy")
TEMPLATES = ("platform-latency-p99", "platform-success-rate")


@pytest.fixture(scope="module")
def shop(platform: Platform, request: pytest.FixtureRequest) -> Iterator[tuple[KubeClient, str]]:
    """A namespace with a policy and its Canary. Made before any guard is taken away."""
    kube, name = platform.cluster.client(), f"shop-{uuid.uuid4().hex[:8]}"
    tags = {"cost-center": "cc-2001", "team": "payments", "environment": "dev"}
    with FileLock(platform.supervisor.folder / "scenario.lock"):
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": tags}})
        kube.create(policy("checkout"), namespace=name)
        wait_policy(kube, "checkout", name, "True", timeout=30)
    yield kube, name
    kube.delete("Namespace", name)


def canary(kube: KubeClient, namespace: str) -> Manifest:
    """The service's Canary."""
    found = kube.get("Canary", "checkout", namespace=namespace, api_version=FLAGGER)
    assert found is not None
    return found


@pytest.mark.scenario(guard=Leading("canary-policy"))
def test_a_policy_becomes_a_canary(platform: Platform, guard: str, namespace: str, sla: SlaRecorder) -> None:
    """Given an SLO and nothing else, when a team submits it, then Flagger gets all that the platform demands."""
    kube = platform.cluster.client()
    try:
        with sla.within("canary-generated") as limit:
            kube.create(policy("checkout"), namespace=namespace)
            wait_policy(kube, "checkout", namespace, "True", timeout=limit)
    except WaitTimeout as nothing:
        raise Incident(f"no Canary was made: {nothing.why}") from None
    spec = canary(kube, namespace)["spec"]
    analysis = spec["analysis"]
    assert (spec["provider"], spec["skipAnalysis"]) == ("gatewayapi:v1", False)
    (gateway,) = spec["service"]["gatewayRefs"]
    assert (gateway["namespace"], gateway["name"]) == ("gateway-system", "public")
    assert (analysis["stepWeight"], analysis["interval"], analysis["threshold"]) == (10, "120s", 2)
    assert [(hook["name"], hook["type"]) for hook in analysis["webhooks"]] == [
        ("smoke-test", "pre-rollout"),
        ("warm-up", "pre-rollout"),
    ]
    assert {check["templateRef"]["name"]: check["thresholdRange"] for check in analysis["metrics"]} == {
        "platform-success-rate": {"min": 99.5},
        "platform-latency-p99": {"max": 400},
    }
    assert not any("query" in check for check in analysis["metrics"])
    for name in TEMPLATES:
        assert kube.get("MetricTemplate", name, namespace=SYSTEM, api_version=FLAGGER) is not None
    # Who deletes the policy deletes the Canary: its owner says so to the garbage collector, which looks for new kinds
    # of resources every 30 seconds only.
    kube.delete("CanaryPolicy", "checkout", namespace=namespace, api_version="platform.testbed.dev/v1alpha1")
    wait_until(
        "the Canary is gone",
        lambda: (kube.get("Canary", "checkout", namespace=namespace, api_version=FLAGGER) is None, "still there"),
        timeout=75,
    )


@pytest.mark.scenario(guard=Leading("canary-policy"))
@pytest.mark.parametrize("what", ["query", "analysis"])
def test_what_judges_a_release_is_put_back(
    platform: Platform, shop: tuple[KubeClient, str], guard: str, sla: SlaRecorder, what: str
) -> None:
    """Given a Canary, when somebody changes the query or skips the analysis, then it is as it was within its SLA."""
    kube, namespace = shop
    if what == "query":
        template = kube.get("MetricTemplate", TEMPLATES[1], namespace=SYSTEM, api_version=FLAGGER)
        assert template is not None
        before = template["spec"]
        kube.merge(template, {"spec": {"query": "vector(100)"}})
    else:
        found = canary(kube, namespace)
        before = found["spec"]
        # One field of ours, and one that is none: both make the analysis mean nothing.
        kube.merge(found, {"spec": {"skipAnalysis": True, "analysis": {"canaryReadyThreshold": 1}}})

    def as_before() -> tuple[bool, object]:
        if what == "query":
            now = kube.get("MetricTemplate", TEMPLATES[1], namespace=SYSTEM, api_version=FLAGGER)
            return now is not None and now["spec"] == before, now
        spec = canary(kube, namespace)["spec"]
        return spec == before, spec

    try:
        with sla.within("queries-back") as limit:
            wait_until(f"the {what} is as it was", as_before, timeout=limit)
    except WaitTimeout as changed:
        raise Incident(f"the {what} stays changed: {changed.why}") from None
