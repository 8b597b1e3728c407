"""From a workspace to its objects, without a cluster."""

from __future__ import annotations

import pytest

from testbed.operators.api import Body
from testbed.operators.canary.children import CANARY
from testbed.operators.canary.spec import POLICY
from testbed.operators.config import Quota, TenantConfig
from testbed.operators.drift import difference
from testbed.operators.teams import TeamSpec
from testbed.operators.tenant import children
from testbed.operators.tenant.spec import TenantSpec

CONFIG = TenantConfig()
TENANT: Body = {"metadata": {"name": "checkout", "uid": "u-1"}}
SPEC = TenantSpec(team="payments", environment="dev", repositories=["https://git.example.com/payments/checkout"])
TEAM = TeamSpec.model_validate({"costCenter": "cc-2001", "groups": {"developers": "pay-dev", "viewers": "pay-view"}})


def everything() -> list[Body]:
    rails = [manifest for _, manifest in children.guard_rails(TENANT, SPEC, CONFIG)]
    bindings = children.role_bindings(TENANT, SPEC, TEAM)
    return [
        children.namespace(TENANT, SPEC, TEAM, CONFIG),
        *rails,
        children.project(TENANT, SPEC, TEAM, CONFIG),
        *bindings,
    ]


def test_every_child_belongs_to_its_tenant() -> None:
    for manifest in everything():
        assert manifest["metadata"]["ownerReferences"][0]["uid"] == "u-1"
        assert manifest["metadata"]["labels"][children.TENANT_LABEL] == "checkout"
        assert manifest["metadata"]["labels"][children.MANAGED_BY] == "tenant-workspace"


def test_the_namespace_carries_the_cost_tags_of_team_and_spec() -> None:
    labels = children.namespace(TENANT, SPEC, TEAM, CONFIG)["metadata"]["labels"]
    assert (labels["cost-center"], labels["team"], labels["environment"]) == ("cc-2001", "payments", "dev")


def test_only_the_tenant_and_the_platform_reach_it() -> None:
    (policy,) = [found for found in everything() if found["kind"] == "NetworkPolicy"]
    (rule,) = policy["spec"]["ingress"]
    assert policy["spec"]["podSelector"] == {}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    same, platform = rule["from"]
    assert same == {"podSelector": {}}
    assert platform["namespaceSelector"]["matchExpressions"][0]["values"] == CONFIG.ingressNamespaces
    alone = CONFIG.model_copy(update={"ingressNamespaces": []})
    (policy,) = [
        found for resource, found in children.guard_rails(TENANT, SPEC, alone) if resource.kind == "NetworkPolicy"
    ]
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {}}]}]


def test_the_project_has_only_its_repositories_and_its_namespace() -> None:
    spec = children.project(TENANT, SPEC, TEAM, CONFIG)["spec"]
    assert spec["sourceRepos"] == SPEC.repositories
    assert [found["namespace"] for found in spec["destinations"]] == ["checkout"]
    assert spec["clusterResourceWhitelist"] == []
    assert {"group": "", "kind": "ResourceQuota"} in spec["namespaceResourceBlacklist"]
    assert spec["roles"][0]["groups"] == ["pay-dev"]


@pytest.mark.parametrize(
    ("asked", "field", "value"),
    [
        ({}, "requests.cpu", "4"),
        ({"cpu": 2}, "limits.cpu", "2"),
        ({"pods": 7}, "pods", "7"),
        ({"pods": 0}, "pods", "0"),
    ],
)
def test_the_quota_is_what_is_asked_for_else_the_default(asked: dict[str, object], field: str, value: str) -> None:
    spec = SPEC.model_copy(update={"quota": SPEC.quota.model_validate(asked)})
    quota = children.guard_rails(TENANT, spec, CONFIG)[0][1]
    assert quota["spec"]["hard"][field] == value


def test_without_viewers_there_is_one_binding() -> None:
    team = TeamSpec.model_validate({"costCenter": "cc-2001", "groups": {"developers": "pay-dev"}})
    (binding,) = children.role_bindings(TENANT, SPEC, team)
    assert (binding["roleRef"]["name"], binding["subjects"][0]["name"]) == ("tenant-developer", "pay-dev")


def test_what_the_api_server_rewrites_is_no_difference() -> None:
    config = CONFIG.model_copy(update={"defaultQuota": Quota(cpu="2500m", memory="0.5Gi")})
    (_, wanted), *_ = children.guard_rails(TENANT, SPEC, config)
    hard = wanted["spec"]["hard"] | {"requests.cpu": "2.5", "requests.memory": "512Mi", "pods": "50"}
    live = wanted | {"spec": {"hard": hard}, "status": {"used": {}}}
    live["metadata"] = wanted["metadata"] | {"uid": "x", "annotations": {"a": "b"}}
    assert difference(wanted, live) is None


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"hard": {"pods": "99"}}, ".spec.hard"),
        ({"scopes": ["BestEffort"]}, ".spec.scopes"),
    ],
)
def test_what_somebody_changes_or_adds_is_a_difference(change: Body, path: str) -> None:
    (_, wanted), *_ = children.guard_rails(TENANT, SPEC, CONFIG)
    spec = wanted["spec"] | {
        name: wanted["spec"].get(name, {}) | value if isinstance(value, dict) else value
        for name, value in change.items()
    }
    assert str(difference(wanted, wanted | {"spec": spec})).startswith(path)


def test_a_further_rule_of_a_network_policy_is_a_difference() -> None:
    wanted = children.guard_rails(TENANT, SPEC, CONFIG)[2][1]
    spec = wanted["spec"] | {"ingress": [*wanted["spec"]["ingress"], {}]}
    assert difference(wanted, wanted | {"spec": spec}) == ".spec.ingress"


@pytest.mark.parametrize("kind", ["Canary", "MetricTemplate", "AlertProvider"])
def test_no_repository_of_a_tenant_brings_its_own_analysis(kind: str) -> None:
    spec = children.project(TENANT, SPEC, TEAM, CONFIG)["spec"]
    assert {"group": CANARY.group, "kind": kind} in spec["namespaceResourceBlacklist"]
    assert POLICY.kind not in {entry["kind"] for entry in spec["namespaceResourceBlacklist"]}  # by which a team asks
