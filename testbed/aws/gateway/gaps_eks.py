"""EKS: add-ons, and nodes that register only with a role that may be a node's."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from localstack.aws.api import CommonServiceException, RequestContext
from localstack.services.moto import call_moto
from moto.eks.exceptions import EKSError
from moto.eks.models import eks_backends
from moto.iam.models import iam_backends

WORKER_POLICY = "AmazonEKSWorkerNodePolicy"
_access: dict[str, dict[str, Any]] = {}
_addons: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = defaultdict(dict)


def _not_found(message: str) -> CommonServiceException:
    return CommonServiceException("ResourceNotFoundException", message, 404, True)


def _cluster_addons(context: RequestContext, name: str) -> dict[str, dict[str, Any]]:
    if name not in eks_backends[context.account_id][context.region].clusters:
        raise _not_found(f"No cluster found for name: {name}.")
    return _addons[(context.account_id, context.region, name)]


def _addon(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    found = _cluster_addons(context, wanted["clusterName"]).get(wanted["addonName"])
    if found is None:
        raise _not_found(f"No addon: {wanted['addonName']} found in cluster: {wanted['clusterName']}")
    return found


def create_addon(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`eks:CreateAddon`: active at once."""
    cluster, name = wanted["clusterName"], wanted["addonName"]
    now = datetime.now(UTC)
    found = {
        "addonName": name,
        "clusterName": cluster,
        "status": "ACTIVE",
        "addonVersion": wanted.get("addonVersion") or "v1.0.0-eksbuild.1",
        "health": {"issues": []},
        "addonArn": f"arn:aws:eks:{context.region}:{context.account_id}:addon/{cluster}/{name}/0",
        "createdAt": now,
        "modifiedAt": now,
        "tags": wanted.get("tags") or {},
    }
    _cluster_addons(context, cluster)[name] = found
    return {"addon": found}


def describe_addon(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`eks:DescribeAddon`."""
    return {"addon": _addon(context, wanted)}


def delete_addon(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`eks:DeleteAddon`: gone at once."""
    found = _addon(context, wanted)
    del _cluster_addons(context, wanted["clusterName"])[wanted["addonName"]]
    return {"addon": found | {"status": "DELETING"}}


def list_addons(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`eks:ListAddons`."""
    return {"addons": sorted(_cluster_addons(context, wanted["clusterName"]))}


def create_nodegroup(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`eks:CreateNodegroup`: its nodes register only if their role may be a node's.

    AWS accepts the call, then the machines fail to join; so the group is made and its status says CREATE_FAILED.
    """
    answer = call_moto(context)
    cluster = eks_backends[context.account_id][context.region].clusters[wanted["clusterName"]]
    group = cluster.nodegroups[wanted["nodegroupName"]]
    if not wanted.get("remoteAccess"):
        group.remote_access = None  # moto makes one up
    name = wanted["nodeRole"].rsplit("/", 1)[-1]
    roles = iam_backends[context.account_id]["aws"].roles.values()
    role = next((entry for entry in roles if entry.name == name), None)
    attached = {arn.rsplit("/", 1)[-1] for arn in role.managed_policies} if role else set()
    if WORKER_POLICY not in attached:
        why = f"role {name} does not exist" if role is None else f"role {name} lacks {WORKER_POLICY}"
        message = f"Instances failed to join the kubernetes cluster: {why}"
        group.status = "CREATE_FAILED"
        group.health = {"issues": [{"code": "NodeCreationFailure", "message": message, "resourceIds": []}]}
    return answer


_plain_error = EKSError.__init__


def _error(self: EKSError, **facts: Any) -> None:
    """moto's errors with their type in the body as well: in moto's headers it gets lost on the way."""
    _plain_error(self, **facts)
    self.description = json.dumps(facts | {"__type": self.TYPE})


EKSError.__init__ = _error


def create_cluster(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`eks:CreateCluster`, with its access configuration."""
    answer = call_moto(context)
    config = wanted.get("accessConfig") or {}
    _access[answer["cluster"]["arn"]] = {
        "authenticationMode": config.get("authenticationMode", "CONFIG_MAP"),
        "bootstrapClusterCreatorAdminPermissions": config.get("bootstrapClusterCreatorAdminPermissions", True),
    }
    return answer


def describe_cluster(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`eks:DescribeCluster`, with its access configuration."""
    answer = call_moto(context)
    if found := _access.get(answer["cluster"]["arn"]):
        answer["cluster"]["accessConfig"] = found
    return answer


OPERATIONS: dict[str, Any] = {
    "CreateCluster": create_cluster,
    "DescribeCluster": describe_cluster,
    "CreateAddon": create_addon,
    "DescribeAddon": describe_addon,
    "DeleteAddon": delete_addon,
    "ListAddons": list_addons,
    "CreateNodegroup": create_nodegroup,
}
