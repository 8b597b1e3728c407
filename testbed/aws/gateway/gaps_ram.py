"""Resource Access Manager: associations, filters and tags, over moto's shares."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from localstack.aws.api import CommonServiceException, RequestContext
from localstack.services.moto import call_moto
from moto.ram.models import ram_backends

_tags: dict[str, dict[str, str]] = {}


def _shares(context: RequestContext) -> list[Any]:
    return ram_backends[context.account_id][context.region].resource_shares


def _share(context: RequestContext, arn: str) -> Any:
    found = next((share for share in _shares(context) if share.arn == arn), None)
    if found is None:
        raise CommonServiceException("UnknownResourceException", f"ResourceShare {arn} could not be found.", 400, True)
    return found


def _association(share: Any, kind: str, entity: str, status: str = "ASSOCIATED") -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "resourceShareArn": share.arn,
        "resourceShareName": share.name,
        "associatedEntity": entity,
        "associationType": kind,
        "status": status,
        "creationTime": now,
        "lastUpdatedTime": now,
        "external": False,
    }


def create_resource_share(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`ram:CreateResourceShare`, with tags."""
    answer = call_moto(context)
    _tags[answer["resourceShare"]["resourceShareArn"]] = {
        entry["key"]: entry["value"] for entry in wanted.get("tags") or []
    }
    return answer


def get_resource_shares(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`ram:GetResourceShares`: of this account, or those that others share with it."""
    if wanted["resourceOwner"] == "SELF":
        found = _shares(context)
    else:
        regions = [account.get(context.region) for account in ram_backends.values()]
        everybody = [share for backend in regions if backend for share in backend.resource_shares]
        found = [share for share in everybody if context.account_id in share.principals]
    if arns := wanted.get("resourceShareArns"):
        found = [share for share in found if share.arn in arns]
    if name := wanted.get("name"):
        found = [share for share in found if share.name == name]
    if status := wanted.get("resourceShareStatus"):
        found = [share for share in found if share.status == status]
    return {"resourceShares": [_described(share) for share in found]}


def _described(share: Any) -> dict[str, Any]:
    tags = [{"key": name, "value": value} for name, value in _tags.get(share.arn, {}).items()]
    return share.describe() | {
        "tags": tags,
        "creationTime": share.creation_time,
        "lastUpdatedTime": share.creation_time,
    }


def associate(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`ram:AssociateResourceShare`: associated at once."""
    share = _share(context, wanted["resourceShareArn"])
    share.add_principals(wanted.get("principals") or [])
    share.add_resources(wanted.get("resourceArns") or [])
    return {"resourceShareAssociations": _wanted(share, wanted)}


def disassociate(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`ram:DisassociateResourceShare`."""
    share = _share(context, wanted["resourceShareArn"])
    share.principals = [entry for entry in share.principals if entry not in (wanted.get("principals") or [])]
    share.resource_arns = [entry for entry in share.resource_arns if entry not in (wanted.get("resourceArns") or [])]
    return {"resourceShareAssociations": _wanted(share, wanted, "DISASSOCIATED")}


def _wanted(share: Any, wanted: dict[str, Any], status: str = "ASSOCIATED") -> list[dict[str, Any]]:
    principals = [_association(share, "PRINCIPAL", entry, status) for entry in wanted.get("principals") or []]
    return principals + [_association(share, "RESOURCE", entry, status) for entry in wanted.get("resourceArns") or []]


def get_associations(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`ram:GetResourceShareAssociations`."""
    kind = wanted["associationType"]
    found = []
    for share in _shares(context):
        if wanted.get("resourceShareArns") and share.arn not in wanted["resourceShareArns"]:
            continue
        for entity in share.principals if kind == "PRINCIPAL" else share.resource_arns:
            if entity in (wanted.get("principal") or entity, wanted.get("resourceArn") or entity):
                found.append(_association(share, kind, entity))
    only = {value for value in (wanted.get("principal"), wanted.get("resourceArn")) if value}
    return {"resourceShareAssociations": [entry for entry in found if not only or entry["associatedEntity"] in only]}


def list_permissions(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`ram:ListResourceSharePermissions`: AWS's default permission is meant, so none is listed."""
    _share(context, wanted["resourceShareArn"])
    return {"permissions": []}


def tag(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`ram:TagResource`."""
    arn = wanted.get("resourceShareArn") or wanted["resourceArn"]
    _tags.setdefault(arn, {}).update({entry["key"]: entry["value"] for entry in wanted["tags"]})
    return {}


def untag(context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    """`ram:UntagResource`."""
    known = _tags.setdefault(wanted.get("resourceShareArn") or wanted["resourceArn"], {})
    for key in wanted["tagKeys"]:
        known.pop(key, None)
    return {}


OPERATIONS: dict[str, Any] = {
    "CreateResourceShare": create_resource_share,
    "GetResourceShares": get_resource_shares,
    "AssociateResourceShare": associate,
    "DisassociateResourceShare": disassociate,
    "GetResourceShareAssociations": get_associations,
    "ListResourceSharePermissions": list_permissions,
    "TagResource": tag,
    "UntagResource": untag,
}
