"""The manifests and the code say the same."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from testbed.addons.prometheus import scaled, seconds
from testbed.cluster import load_manifests
from testbed.operators.canary.spec import PolicySpec
from testbed.operators.config import CanaryConfig, TenantConfig
from testbed.operators.tenant.spec import TenantSpec
from testbed.paths import manifests


def schema(plural: str) -> dict[str, Any]:
    (crd,) = load_manifests(manifests("operators", "crds", f"{plural}.yaml"))
    (version,) = crd["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return found


def test_the_code_reads_what_the_schemas_have() -> None:
    assert set(TenantSpec.model_fields) == set(schema("tenantworkspaces"))
    assert set(PolicySpec.model_fields) == set(schema("canarypolicies")) - {"metrics"}


@pytest.mark.parametrize("operator", ["tenant-workspace", "canary-policy"])
def test_every_webhook_fails_closed(operator: str) -> None:
    for manifest in load_manifests(manifests("operators", operator, "webhooks.yaml")):
        assert all(webhook["failurePolicy"] == "Fail" for webhook in manifest["webhooks"])


@pytest.mark.parametrize("operator", ["tenant-workspace", "canary-policy"])
def test_no_permission_has_a_wildcard_or_reads_secrets(operator: str) -> None:
    for manifest in load_manifests(manifests("operators", operator, "rbac.yaml")):
        if operator in manifest["metadata"]["name"] and manifest["kind"] in {"Role", "ClusterRole"}:
            for rule in manifest["rules"]:
                assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
                assert "secrets" not in rule["resources"]


@pytest.mark.parametrize(("operator", "kind"), [("tenant-workspace", TenantConfig), ("canary-policy", CanaryConfig)])
def test_the_configuration_of_production_is_valid(operator: str, kind: type[TenantConfig | CanaryConfig]) -> None:
    (config,) = [
        found
        for found in load_manifests(manifests("operators", operator, "deployment.yaml"))
        if found["kind"] == "ConfigMap"
    ]
    kind.model_validate(yaml.safe_load(config["data"]["config.yaml"]) or {})


def test_only_the_waiting_time_of_alerts_is_scaled() -> None:
    rules = yaml.safe_load(manifests("operators", "alerts", "operators.yaml").read_text())
    fast = scaled(rules, 60)
    assert fast["groups"][0]["rules"][0]["for"] == "2000ms"
    assert [rule["expr"] for rule in fast["groups"][0]["rules"]] == [
        rule["expr"] for rule in rules["groups"][0]["rules"]
    ]
    assert seconds("1h30m") == 5400
