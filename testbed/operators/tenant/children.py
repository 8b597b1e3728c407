"""From a TenantWorkspace to the objects that it stands for. Pure functions: no API, no clock."""

from __future__ import annotations

from typing import Any

from testbed.operators.api import Body, Resource
from testbed.operators.config import Quota, TenantConfig
from testbed.operators.teams import TeamSpec
from testbed.operators.tenant import NAME
from testbed.operators.tenant.spec import TENANT, TenantSpec

NAMESPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
QUOTA = Resource("v1", "ResourceQuota", "resourcequotas")
LIMITS = Resource("v1", "LimitRange", "limitranges")
NETWORK_POLICY = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
ROLE_BINDING = Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
PROJECT = Resource("argoproj.io/v1alpha1", "AppProject", "appprojects")
CHILDREN = (NAMESPACE, QUOTA, LIMITS, NETWORK_POLICY, PROJECT, ROLE_BINDING)

MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = NAME
TENANT_LABEL = "platform.testbed.dev/tenant"
SELECTOR = f"{MANAGED_BY}={OPERATOR}"
GUARD_RAIL = "tenant-guard-rail"
"""The name of a tenant's quota, limits and network policy."""

GUARDED_KINDS = [
    ("", "ResourceQuota"),
    ("", "LimitRange"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("flagger.app", "Canary"),
    ("flagger.app", "MetricTemplate"),
    ("flagger.app", "AlertProvider"),
]
"""What a tenant's repositories may not bring: it would loosen what the platform has set.

Flagger's kinds, because only a CanaryPolicy keeps an analysis to the platform's minimum."""


def quota_of(spec: TenantSpec, config: TenantConfig) -> Quota:
    """The tenant's quota: what it asks for, else the platform's default."""
    asked = spec.quota.model_dump(exclude_none=True)
    return Quota.model_validate(config.defaultQuota.model_dump() | asked)


def owner_reference(tenant: Body) -> Body:
    """The reference by which the garbage collector knows whose child an object is."""
    return {
        "apiVersion": TENANT.api_version,
        "kind": TENANT.kind,
        "name": tenant["metadata"]["name"],
        "uid": tenant["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _metadata(tenant: Body, name: str, namespace: str | None, labels: dict[str, str]) -> Body:
    own = {MANAGED_BY: OPERATOR, TENANT_LABEL: tenant["metadata"]["name"]}
    metadata: Body = {"name": name, "labels": own | labels, "ownerReferences": [owner_reference(tenant)]}
    return metadata | ({"namespace": namespace} if namespace else {})


def _manifest(resource: Resource, metadata: Body, **rest: Any) -> Body:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **rest}


def namespace(tenant: Body, spec: TenantSpec, team: TeamSpec, config: TenantConfig) -> Body:
    """The namespace, with the cost-allocation tags that the policies demand."""
    labels = {
        "cost-center": team.costCenter,
        "team": spec.team,
        "environment": spec.environment,
        "pod-security.kubernetes.io/enforce": config.podSecurity,
    }
    return _manifest(NAMESPACE, _metadata(tenant, tenant["metadata"]["name"], None, labels))


def guard_rails(tenant: Body, spec: TenantSpec, config: TenantConfig) -> list[tuple[Resource, Body]]:
    """Quota, limits and network policy: what does not depend on the team, and is kept also while the team is stale."""
    name = tenant["metadata"]["name"]
    metadata = _metadata(tenant, GUARD_RAIL, name, {"team": spec.team, "environment": spec.environment})
    quota = quota_of(spec, config)
    hard = {
        "requests.cpu": quota.cpu,
        "limits.cpu": quota.cpu,
        "requests.memory": quota.memory,
        "limits.memory": quota.memory,
        "requests.storage": quota.storage,
        "pods": str(quota.pods),
        "persistentvolumeclaims": str(quota.persistentVolumeClaims),
        "services.loadbalancers": str(quota.loadBalancers),
    }
    limit = {
        "type": "Container",
        "default": config.containerDefault.model_dump(),
        "defaultRequest": config.containerRequest.model_dump(),
        "max": config.containerMaximum.model_dump(),
    }
    # Without a peer of another cluster or the internet: only the tenant itself and the platform's own namespaces.
    sources: list[Body] = [{"podSelector": {}}]
    if config.ingressNamespaces:
        expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": config.ingressNamespaces}
        sources.append({"namespaceSelector": {"matchExpressions": [expression]}})
    policy = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": sources}]}
    return [
        (QUOTA, _manifest(QUOTA, metadata, spec={"hard": hard})),
        (LIMITS, _manifest(LIMITS, metadata, spec={"limits": [limit]})),
        (NETWORK_POLICY, _manifest(NETWORK_POLICY, metadata, spec=policy)),
    ]


def project(tenant: Body, spec: TenantSpec, team: TeamSpec, config: TenantConfig) -> Body:
    """The Argo CD project: only the tenant's repositories, only into its namespace, nothing cluster-wide."""
    name = tenant["metadata"]["name"]
    labels = {"team": spec.team, "environment": spec.environment}
    allow = f"p, proj:{name}:developer, applications, %s, {name}/*, allow"
    content = {
        "description": f"Workspace {name} of team {spec.team}",
        "sourceRepos": list(spec.repositories),
        "destinations": [{"server": config.clusterServer, "namespace": name}],
        "clusterResourceWhitelist": [],
        "namespaceResourceBlacklist": [{"group": group, "kind": kind} for group, kind in GUARDED_KINDS],
        "roles": [
            {
                "name": "developer",
                "description": f"Developers of team {spec.team}",
                "groups": [team.groups.developers],
                "policies": [allow % action for action in ("get", "sync", "action/*")],
            }
        ],
    }
    return _manifest(PROJECT, _metadata(tenant, name, config.projectNamespace, labels), spec=content)


def role_bindings(tenant: Body, spec: TenantSpec, team: TeamSpec) -> list[Body]:
    """What the team's groups may do in the namespace. The roles are in `manifests/operators`."""
    name = tenant["metadata"]["name"]
    groups = {"tenant-developer": team.groups.developers}
    if team.groups.viewers:
        groups["tenant-viewer"] = team.groups.viewers
    labels = {"team": spec.team, "environment": spec.environment}
    return [
        _manifest(
            ROLE_BINDING,
            _metadata(tenant, role, name, labels),
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            subjects=[{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
        )
        for role, group in groups.items()
    ]
