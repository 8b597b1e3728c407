"""CanaryPolicy: defaults, refusals and the Canary, without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.operators.api import Body
from testbed.operators.canary import children, validation
from testbed.operators.canary.spec import parse, seconds
from testbed.operators.config import CanaryConfig

CONFIG = CanaryConfig()
POLICY: Body = {"metadata": {"name": "checkout", "namespace": "shop", "uid": "u-1"}}
GOOD: dict[str, Any] = {
    "targetRef": {"name": "checkout"},
    "service": {"port": 8080},
    "slo": {"successRate": 99.5, "latencyP99": 400},
    "smokeTest": {"path": "/healthz"},
}


def canary(**changed: Any) -> Body:
    spec = parse(validation.with_defaults(GOOD | changed, CONFIG))
    return children.canary(POLICY, spec, CONFIG)["spec"]


def said(**changed: Any) -> str:
    return "; ".join(validation.problems(validation.with_defaults(GOOD | changed, CONFIG), CONFIG))


def test_an_slo_alone_is_enough() -> None:
    assert said() == ""
    filled = validation.with_defaults(GOOD, CONFIG)
    assert filled["analysis"] == {"window": "10m", "stepWeight": 10, "warmUp": "1m"}
    assert filled["gatewayRef"] == {"namespace": "gateway-system", "name": "public"}
    assert validation.with_defaults(filled, CONFIG) == filled


def test_what_the_team_sets_stays() -> None:
    filled = validation.with_defaults(GOOD | {"analysis": {"window": "30m"}}, CONFIG)
    assert filled["analysis"] == {"window": "30m", "stepWeight": 10, "warmUp": "1m"}
    own = {"namespace": "edge", "name": "internal"}
    assert validation.with_defaults(GOOD | {"gatewayRef": own}, CONFIG)["gatewayRef"] == own


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"analysis": {"window": "9m"}}, "spec.analysis.window: 9m is shorter than the platform's minimum of 10m"),
        ({"analysis": {"window": "599s"}}, "spec.analysis.window: 599s is shorter"),
        ({"analysis": {"window": "soon"}}, "spec.analysis.window: 'soon' is not a duration"),
        ({"analysis": {"window": "\u0661\u0660m"}}, "is not a duration"),
        ({"analysis": {"stepWeight": 11}}, "spec.analysis.stepWeight: 11 must be from 1 to the platform's 10"),
        ({"analysis": {"stepWeight": 0}}, "spec.analysis.stepWeight: 0 must be"),
        ({"analysis": {"warmUp": "30s"}}, "spec.analysis.warmUp: 30s is shorter"),
        ({"analysis": {"metrics": []}}, "spec.analysis.metrics: own queries"),
        ({"metrics": None}, "spec.metrics: own queries"),
        ({"smokeTest": None}, "spec.smokeTest.path: is missing"),
        ({"smokeTest": {}}, "spec.smokeTest.path: is missing"),
        ({"smokeTest": "no"}, "spec.smokeTest.path: is missing"),
        ({"slo": {"successRate": 94.9, "latencyP99": 1}}, "spec.slo.successRate: 94.9 must be from the platform's 95"),
        ({"slo": {"successRate": 99, "latencyP99": 60000}}, "spec.slo.latencyP99: 60000 must be"),
    ],
)
def test_what_weakens_the_minimum_is_refused_by_field(changed: dict[str, Any], words: str) -> None:
    assert words in said(**changed)


@pytest.mark.parametrize("spec", [None, "x", 3, [], {"analysis": 3}, {"slo": []}, {"gatewayRef": "x", "targetRef": 1}])
def test_wrong_types_do_not_break_it(spec: object) -> None:
    filled = validation.with_defaults(spec, CONFIG)
    assert validation.problems(filled, CONFIG)


def test_the_smoke_test_and_the_warm_up_come_before_any_traffic() -> None:
    smoke, warm = canary()["analysis"]["webhooks"]
    assert (smoke["type"], warm["type"]) == ("pre-rollout", "pre-rollout")
    assert smoke["metadata"]["cmd"].endswith("http://checkout-canary.shop:8080/healthz")
    assert "-z 60s" in warm["metadata"]["cmd"]
    assert seconds(warm["timeout"]) > 60


@pytest.mark.parametrize("path", ["/a;rm -rf /", "/$(id)", "relative", "/a b", "/`id`", "/ü", ""])
def test_a_path_is_no_command(path: str) -> None:
    with pytest.raises(Exception, match=r"spec\.smokeTest\.path"):
        canary(smokeTest={"path": path})


@pytest.mark.parametrize(
    ("analysis", "interval"),
    [
        ({}, 120),
        ({"window": "1h"}, 720),
        ({"stepWeight": 5}, 120),
        ({"warmUp": "3m"}, 360),
        ({"window": "10m", "stepWeight": 1}, 120),
    ],
)
def test_all_steps_together_take_the_window_at_least(analysis: dict[str, Any], interval: int) -> None:
    found = canary(analysis=analysis)["analysis"]
    assert found["interval"] == f"{interval}s"
    steps = found["maxWeight"] / found["stepWeight"]
    assert steps * seconds(found["interval"]) >= seconds(analysis.get("window", "10m"))
    assert found["stepWeightPromotion"] <= 10


def test_no_check_looks_back_into_the_warm_up() -> None:
    for analysis in ({}, {"warmUp": "2m"}, {"stepWeight": 1}):
        found = canary(analysis=analysis)["analysis"]
        warm_up = seconds(analysis.get("warmUp", "60s"))
        for check in found["metrics"]:
            assert 0 < seconds(check["interval"]) <= seconds(found["interval"]) - warm_up


def test_a_proxy_stands_in_for_cluster_dns() -> None:
    assert "-x" not in str(canary()["analysis"]["webhooks"])
    config = CanaryConfig(proxy="http://127.0.0.1:1234")
    spec = parse(validation.with_defaults(GOOD, config))
    smoke, warm = children.hooks(POLICY, spec, config)
    assert "curl -sf -x http://127.0.0.1:1234 " in smoke["metadata"]["cmd"]
    assert "hey -x http://127.0.0.1:1234 " in warm["metadata"]["cmd"]


def test_the_queries_are_the_platforms() -> None:
    found = canary()["analysis"]["metrics"]
    assert all("query" not in check and check["templateRef"]["namespace"] == "flagger-system" for check in found)
    names = {template["metadata"]["name"] for template in children.templates(CONFIG)}
    assert {check["templateRef"]["name"] for check in found} == names
    assert canary()["skipAnalysis"] is False


def test_the_services_of_a_canary_have_the_policys_cost_tags() -> None:
    tags = {"cost-center": "cc-1042", "team": "shop", "environment": "production"}
    tagged = {"metadata": POLICY["metadata"] | {"labels": tags | {"app.kubernetes.io/name": "checkout"}}}
    spec = parse(validation.with_defaults(GOOD, CONFIG))
    service = children.canary(tagged, spec, CONFIG)["spec"]["service"]
    assert [service[which] for which in ("apex", "primary", "canary")] == [{"labels": tags}] * 3
    assert "apex" not in children.canary(POLICY, spec, CONFIG)["spec"]["service"]
