"""Why an operator leaves things alone: what is somebody else's, and a team that says too little."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from testbed.operators.api import Body, Resource
from testbed.operators.canary.children import CANARY
from testbed.operators.canary.controller import CanaryController
from testbed.operators.canary.spec import POLICY
from testbed.operators.conditions import Problem
from testbed.operators.config import CanaryConfig, TenantConfig
from testbed.operators.store import Store
from testbed.operators.teams import TEAM
from testbed.operators.tenant.children import NAMESPACE, PROJECT, ROLE_BINDING
from testbed.operators.tenant.controller import TenantController
from testbed.operators.tenant.spec import FINALIZER, TENANT


class Somebodys:
    """An API server with objects of others; notes what is written, and gives every object an identity."""

    def __init__(self, *objects: Body) -> None:
        self.objects = {(found["kind"], found["metadata"]["name"]): found for found in objects}
        self.written: list[str] = []

    async def get(self, resource: Resource, name: str, _: str | None = None) -> Body | None:
        return self.objects.get((resource.kind, name))

    async def create(self, resource: Resource, body: Body) -> Body:
        return await self.apply(resource, body)

    async def apply(self, resource: Resource, body: Body) -> Body:
        self.written.append(resource.kind)
        return body | {"metadata": body["metadata"] | {"uid": resource.kind, "resourceVersion": "1"}}


def foreign(resource: Resource, name: str, namespace: str | None = None) -> Body:
    """An object that another made, with a controller of its own."""
    owner = {"kind": "Deployment", "name": "else", "uid": "u-else", "controller": True}
    metadata: Body = {"name": name, "uid": "u-foreign", "resourceVersion": "5", "ownerReferences": [owner]}
    metadata |= {"namespace": namespace} if namespace else {}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def tenant() -> Body:
    """A workspace that has its finalizer."""
    spec = {"team": "payments", "environment": "dev", "repositories": ["https://git.example.com/payments/checkout"]}
    metadata = {"name": "checkout", "uid": "u-1", "generation": 1, "resourceVersion": "7", "finalizers": [FINALIZER]}
    return {"apiVersion": TENANT.api_version, "kind": TENANT.kind, "metadata": metadata, "spec": spec}


def team(**spec: Any) -> Body:
    """A team that the directory has just confirmed."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    whole = {"costCenter": "cc-2001", "groups": {"developers": "payments-developers"}} | spec
    return {"metadata": {"name": "payments", "uid": "t-1"}, "spec": whole, "status": {"syncedAt": now}}


def tenants(api: Any, directory: Body) -> TenantController:
    controller = TenantController(api, Store(), TenantConfig(), workers=1, resync=60)
    controller.store.put(TEAM, directory)
    return controller


async def problem(controller: TenantController | CanaryController, body: Body) -> Problem:
    with pytest.raises(Problem) as caught:
        await controller.reconcile(body)
    return caught.value


@pytest.mark.asyncio
async def test_somebodys_project_is_told_and_nobody_gets_access() -> None:
    config = TenantConfig()
    api = Somebodys(foreign(PROJECT, "checkout", config.projectNamespace))
    found = await problem(tenants(api, team()), tenant())
    assert (found.reason, found.retry) == ("ProjectConflict", True)
    assert "an AppProject 'checkout' exists already and does not belong to this workspace" in found.message
    assert PROJECT.kind not in api.written
    assert ROLE_BINDING.kind not in api.written


@pytest.mark.asyncio
async def test_without_somebodys_project_the_tenant_is_made() -> None:
    api = Somebodys()
    status = await tenants(api, team()).reconcile(tenant())
    assert status == {"namespace": "checkout", "costCenter": "cc-2001"}
    assert {NAMESPACE.kind, PROJECT.kind, ROLE_BINDING.kind} <= set(api.written)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"costCenter": "2001"}, "spec.costCenter"),
        ({"costCenter": None}, "spec.costCenter"),
        ({"groups": {}}, "spec.groups.developers"),
        ({"groups": {"developers": ""}}, "spec.groups.developers"),
        ({"groups": {"developers": "g" * 300}}, "spec.groups.developers"),
        ({"groups": "everybody"}, "spec.groups"),
    ],
)
@pytest.mark.asyncio
async def test_a_team_from_before_the_schema_is_told_by_field(spec: Body, field: str) -> None:
    api = Somebodys()
    found = await problem(tenants(api, team(**spec)), tenant())
    assert (found.reason, found.retry) == ("TeamInvalid", True)
    assert f"Team 'payments': {field}: " in found.message
    assert api.written == []


@pytest.mark.asyncio
async def test_guard_rails_are_kept_while_the_team_is_invalid() -> None:
    api = Somebodys()
    controller = tenants(api, team(costCenter=None))
    own = foreign(NAMESPACE, "checkout")
    own["metadata"]["ownerReferences"] = [{"uid": "u-1"}]
    controller.store.put(NAMESPACE, own)
    assert (await problem(controller, tenant())).reason == "TeamInvalid"
    assert sorted(api.written) == ["LimitRange", "NetworkPolicy", "ResourceQuota"]


@pytest.mark.asyncio
async def test_somebodys_canary_is_told_and_left_alone() -> None:
    api: Any = Somebodys(foreign(CANARY, "checkout", "shop"))
    controller = CanaryController(api, Store(), CanaryConfig(), workers=1, resync=60)
    spec = {
        "targetRef": {"name": "checkout"},
        "service": {"port": 8080},
        "slo": {"successRate": 99.5, "latencyP99": 400},
        "smokeTest": {"path": "/healthz"},
    }
    metadata = {"name": "checkout", "namespace": "shop", "uid": "u-1", "generation": 1}
    policy = {"apiVersion": POLICY.api_version, "kind": POLICY.kind, "metadata": metadata, "spec": spec}
    found = await problem(controller, policy)
    assert (found.reason, found.retry) == ("CanaryConflict", True)
    assert "a Canary 'checkout' exists already that no policy made" in found.message
    assert api.written == []
    api.objects.clear()  # its owner has deleted it
    assert (await controller.reconcile(policy))["canaryPhase"] == "Pending"
    assert CANARY.kind in api.written
