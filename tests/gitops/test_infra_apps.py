"""The repository of applications renders, and what it renders is pinned and tagged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.cluster import Manifest
from testbed.errors import TestbedError
from testbed.gitops.charts import built, rendered
from testbed.operators.config import TenantConfig
from testbed.operators.tenant.children import GUARDED_KINDS
from testbed.toolchain import Toolchain

INFRA_APPS = Path(__file__).parents[2] / "fixtures" / "infra-apps"
SERVICE = INFRA_APPS / "charts" / "service"
ENVIRONMENTS = ("dev", "staging", "production")
TAGS = {"cost-center", "team", "environment"}


@pytest.fixture(scope="module")
def tools() -> Toolchain:
    found = Toolchain()
    found.ensure(["helm", "kustomize"])
    return found


def wave(manifest: dict[str, dict[str, dict[str, str]]]) -> int:
    return int((manifest["metadata"].get("annotations") or {}).get("argocd.argoproj.io/sync-wave", 0))


def test_the_root_chart_renders_every_component_for_every_cluster(tools: Toolchain) -> None:
    found = rendered(tools, INFRA_APPS / "root")
    applications = {m["metadata"]["name"]: m for m in found if m["kind"] == "Application"}
    assert applications.keys() >= {f"flagger-crds-{environment}" for environment in ENVIRONMENTS}
    assert len(applications) % len(ENVIRONMENTS) == 0
    for name, manifest in applications.items():
        assert name.endswith(f"-{manifest['spec']['destination']['name']}")
        assert manifest["spec"]["project"] == "platform"


def test_waves_put_projects_before_definitions_before_their_objects_before_services(tools: Toolchain) -> None:
    found = {(m["kind"], m["metadata"]["name"]): wave(m) for m in rendered(tools, INFRA_APPS / "root")}
    assert found["AppProject", "platform"] < found["Application", "flagger-crds-dev"]
    assert found["Application", "flagger-crds-dev"] < found["Application", "metric-templates-dev"]
    assert found["Application", "namespaces-dev"] < found["Application", "metric-templates-dev"]
    assert found["Application", "operators-dev"] < found["Application", "tenants-dev"]
    assert found["Application", "metric-templates-dev"] < found["ApplicationSet", "services"]
    assert found["Application", "tenants-dev"] < found["ApplicationSet", "services"]


def test_definitions_survive_their_application(tools: Toolchain) -> None:
    for manifest in rendered(tools, INFRA_APPS / "root"):
        if manifest["kind"] == "Application":
            keep = manifest["metadata"]["labels"]["component"] in {
                "namespaces",
                "platform-crds",
                "flagger-crds",
                "operators",
            }
            assert ("finalizers" not in manifest["metadata"]) == keep, manifest["metadata"]["name"]


def test_without_operators_there_are_no_tenants_and_no_canaries(tools: Toolchain) -> None:
    found = rendered(tools, INFRA_APPS / "root", {"tenants": False, "canaries": False})
    assert not [m for m in found if m["metadata"]["name"].startswith("tenants-")]
    (services,) = [m for m in found if m["kind"] == "ApplicationSet"]
    template = services["spec"]["template"]["spec"]
    assert template["source"]["helm"]["valuesObject"]["canary"] == {"enabled": False}
    assert "CreateNamespace=true" in template["syncPolicy"]["syncOptions"]


def test_without_waves_nothing_is_ordered(tools: Toolchain) -> None:
    found = rendered(tools, INFRA_APPS / "root", {"syncWaves": False})
    assert {wave(m) for m in found if m["kind"] != "AppProject"} == {0}


def test_what_comes_from_elsewhere_is_pinned(tools: Toolchain) -> None:
    own = "https://git.example.com/infra-apps.git"
    for manifest in rendered(tools, INFRA_APPS / "root"):
        if manifest["kind"] == "Application" and (source := manifest["spec"]["source"])["repoURL"] != own:
            assert source["targetRevision"].startswith("v"), manifest["metadata"]["name"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_overlays_build(tools: Toolchain, environment: str) -> None:
    found = {m["kind"]: m for m in built(tools, INFRA_APPS / "platform" / "baseline" / "overlays" / environment)}
    assert found["ConfigMap"]["data"]["environment"] == environment
    assert (found["PriorityClass"].get("preemptionPolicy") == "Never") == (environment == "dev")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_namespaces_of_the_platform_cost_their_environment(tools: Toolchain, environment: str) -> None:
    found = built(tools, INFRA_APPS / "platform" / "namespaces" / "overlays" / environment)
    assert {m["metadata"]["name"] for m in found} == {"argocd", "flagger-system", "platform-operators"}
    for manifest in found:
        labels = manifest["metadata"]["labels"]
        assert (labels["cost-center"], labels["team"], labels["environment"]) == ("cc-1042", "platform", environment)


def test_a_namespace_that_argo_cd_makes_costs_its_environment(tools: Toolchain) -> None:
    found = rendered(
        tools, INFRA_APPS / "root", {"components": [{"name": "x", "path": "x", "namespace": "x", "wave": 0}]}
    )
    made = {
        m["metadata"]["labels"]["environment"]: m["spec"]["syncPolicy"]["managedNamespaceMetadata"]["labels"]
        for m in found
        if m["kind"] == "Application"
    }
    assert {environment: labels["environment"] for environment, labels in made.items()} == dict(
        zip(ENVIRONMENTS, ENVIRONMENTS, strict=True)
    )


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_service_has_a_tenant(tools: Toolchain, environment: str) -> None:
    found = built(tools, INFRA_APPS / "tenants" / "overlays" / environment)
    assert {m["metadata"]["name"] for m in found} == {path.parent.parent.name for path in services()}
    assert {m["spec"]["environment"] for m in found} == {environment}


def projects(tools: Toolchain, **values: Any) -> dict[str, Manifest]:
    """The AppProjects of tenants, by tenant."""
    found = [m for m in rendered(tools, INFRA_APPS / "root", values or None) if m["kind"] == "AppProject"]
    return {m["metadata"]["labels"]["tenant"]: m for m in found if m["metadata"]["name"] != "platform"}


def test_every_tenant_has_a_project_that_no_workspace_can_have(tools: Toolchain) -> None:
    tenants = built(tools, INFRA_APPS / "tenants" / "base")
    found = projects(tools)
    assert found.keys() == {m["metadata"]["name"] for m in tenants}
    assert all(m["metadata"]["name"].startswith(tuple(TenantConfig().reservedPrefixes)) for m in found.values())


def test_a_tenants_project_confines_it_to_its_namespace_and_its_kinds(tools: Toolchain) -> None:
    for tenant, manifest in projects(tools).items():
        spec = manifest["spec"]
        assert spec["destinations"] == [{"name": name, "namespace": tenant} for name in ENVIRONMENTS]
        assert spec["sourceRepos"] == ["https://git.example.com/infra-apps.git"]
        assert spec["clusterResourceWhitelist"] == []
        refused = [(entry["group"], entry["kind"]) for entry in spec["namespaceResourceBlacklist"]]
        assert refused == GUARDED_KINDS


def test_where_argo_cd_makes_namespaces_projects_allow_that_and_nothing_else(tools: Toolchain) -> None:
    for manifest in projects(tools, tenants=False, environments=["staging"]).values():
        assert manifest["spec"]["clusterResourceWhitelist"] == [{"group": "", "kind": "Namespace"}]
        assert [entry["name"] for entry in manifest["spec"]["destinations"]] == ["staging"]


def test_every_service_is_deployed_in_the_project_of_its_tenant(tools: Toolchain) -> None:
    (template,) = [
        m["spec"]["template"]["spec"] for m in rendered(tools, INFRA_APPS / "root") if m["kind"] == "ApplicationSet"
    ]
    folder = "{{ index .path.segments 1 }}"
    assert template["destination"]["namespace"] == folder
    found = projects(tools)
    for name in {path.parent.parent.name for path in services()}:
        assert template["project"].replace(folder, name) == found[name]["metadata"]["name"]


def services() -> list[Path]:
    return sorted((INFRA_APPS / "services").glob("*/*/values.yaml"))


@pytest.mark.parametrize("values", services(), ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}")
def test_services_render_with_their_tags(tools: Toolchain, values: Path) -> None:
    environment, name = values.parent.name, values.parent.parent.name
    files = (values.parent.parent / "values.yaml", values)
    found = {m["kind"]: m for m in rendered(tools, SERVICE, {"environment": environment}, files, name)}
    for kind in {"Deployment", "Service"} & found.keys():
        assert found[kind]["metadata"]["labels"].keys() >= TAGS
    assert found["Deployment"]["spec"]["template"]["metadata"]["labels"].keys() >= TAGS | {"service"}
    assert ("CanaryPolicy" in found) == (environment == "production")
    assert ("Service" in found) == (environment != "production")  # Flagger makes it there


def test_a_service_without_a_team_is_refused(tools: Toolchain) -> None:
    with pytest.raises(TestbedError, match="team is required"):
        rendered(tools, SERVICE, {"environment": "dev", "costCenter": "cc-1000"})


@pytest.mark.parametrize("shared", sorted((INFRA_APPS / "services").glob("*/values.yaml")), ids=lambda p: p.parent.name)
def test_a_tag_is_one_environments(shared: Path) -> None:
    """In the shared file, one bump would be in production at once, past gate and approval."""
    assert "tag" not in yaml.safe_load(shared.read_text())["image"]
    for values in (path for path in services() if path.parent.parent == shared.parent):
        assert isinstance(yaml.safe_load(values.read_text())["image"]["tag"], str), values


@pytest.mark.parametrize("tag", ["123456789012", "123456789e12", "012345670123"])
def test_a_tag_of_digits_is_kept_or_refused(tools: Toolchain, tmp_path: Path, tag: str) -> None:
    shared, values = INFRA_APPS / "services" / "orders" / "values.yaml", tmp_path / "values.yaml"
    values.write_text(f'image: {{tag: "{tag}"}}\n')
    (deployment,) = (
        m
        for m in rendered(tools, SERVICE, {"environment": "dev"}, (shared, values), "orders")
        if m["kind"] == "Deployment"
    )
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"].endswith(f".com/orders:{tag}")
    values.write_text(f"image: {{tag: {tag}}}\n")
    with pytest.raises(TestbedError, match=r"image\.tag is a number .*, not a string: quote it"):
        rendered(tools, SERVICE, {"environment": "dev"}, (shared, values), "orders")


def test_a_service_without_a_tag_is_refused(tools: Toolchain) -> None:
    with pytest.raises(TestbedError, match=r"image\.tag is required"):
        rendered(tools, SERVICE, {"environment": "dev"}, (INFRA_APPS / "services" / "orders" / "values.yaml",))
