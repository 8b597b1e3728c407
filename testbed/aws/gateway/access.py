"""Access control at the gateway: LocalStack 4.14 and moto let everybody do everything.

What is decided here, and from what:
- every call: service control policies, identity policies, permission boundary and session policy of the caller;
- `sts:AssumeRole` and `AssumeRoleWithWebIdentity`: the role's trust policy, and the token itself (`web_identity`);
- S3: a bucket of another account only through its bucket policy.
Signatures of requests are not verified: an access key that exists, with the session token that belongs to it, is
taken as proof. A resource is derived for S3, STS, IAM, Secrets Manager and KMS; elsewhere actions alone decide.
"""

from __future__ import annotations

from typing import Any

from caller import FEDERATED, Caller, caller_of
from localstack.aws.api import CommonServiceException, RequestContext
from localstack.services.s3.models import s3_stores
from moto.iam.models import iam_backends
from moto.organizations.models import organizations_backends
from policies import Request, UnknownElement, allows, matching
from web_identity import InvalidToken, WebIdentities

S3_ACTIONS = {
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "CreateMultipartUpload": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CopyObject": "PutObject",
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
}


def denied(caller: Caller, request: Request, because: str) -> CommonServiceException:
    """AWS's answer to a call that is not allowed."""
    what = f" on resource: {request.resources[0]}" if request.resources else ""
    message = f"User: {caller.arn} is not authorized to perform: {request.action}{what} because {because}"
    return CommonServiceException("AccessDenied", message, 403, True)


class AccessControl:
    """A handler of LocalStack's request chain that refuses what AWS would refuse."""

    def __init__(self, identities: WebIdentities) -> None:
        self.identities = identities

    def __call__(self, chain: Any, context: RequestContext, response: Any) -> None:
        """Raise `AccessDenied` (or a token error), or let the request go on."""
        if context.service is None or context.operation is None or context.is_internal_call:
            return
        service, operation = context.service.service_name, context.operation.name
        caller = caller_of(context)
        context.testbed_caller = caller
        try:
            if service == "sts" and operation == "AssumeRoleWithWebIdentity":
                self._web_identity(context)
            elif service == "sts" and operation == "GetCallerIdentity":
                pass
            else:
                self._check(context, caller, service, operation)
        except UnknownElement as error:
            raise CommonServiceException("MalformedPolicyDocument", f"not simulated: {error}", 400, True) from None

    def _check(self, context: RequestContext, caller: Caller, service: str, operation: str) -> None:
        prefix = "s3" if service == "s3" else context.service.signing_name
        action = S3_ACTIONS.get(operation, operation) if service == "s3" else operation
        request = Request(
            action=f"{prefix}:{action}",
            resources=_resources(service, context.service_request or {}, caller),
            principals=frozenset({caller.arn, caller.role_arn, f"arn:aws:iam::{caller.account}:root"} - {""}),
            context={"aws:RequestedRegion": context.region, "aws:PrincipalArn": caller.role_arn or caller.arn}
            | {"aws:PrincipalAccount": caller.account},
        )
        owner, bucket_policy = _bucket(service, context.service_request or {})
        if caller.kind == "Anonymous":
            if owner and bucket_policy and allows([bucket_policy], _anonymous(request)):
                return
            raise denied(caller, request, "the request is not signed")
        _service_control(caller, request)
        if caller.kind != "Root":
            _identity(caller, request)
        if bucket_policy and "Deny" in matching(bucket_policy, request):
            raise denied(caller, request, "of an explicit deny in a resource-based policy")
        if owner and owner != caller.account and not (bucket_policy and allows([bucket_policy], request)):
            raise denied(caller, request, f"account {owner} owns the bucket and no resource-based policy allows it")
        if service == "sts" and operation == "AssumeRole":
            _trust(caller, request, context.service_request)

    def _web_identity(self, context: RequestContext) -> None:
        wanted = context.service_request
        account, trust = _role(wanted["RoleArn"])
        refused = CommonServiceException(
            "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity", 403, True
        )
        if trust is None:
            raise refused
        providers = iam_backends[account]["aws"].open_id_providers
        try:
            provider_arn, issuer, claims = self.identities.verify(wanted["WebIdentityToken"], providers)
        except InvalidToken as error:
            raise CommonServiceException("InvalidIdentityToken", str(error), 400, True) from None
        host = issuer.removeprefix("https://")
        facts = {f"{host}:{name}": str(claims[name]) for name in ("sub", "aud") if name in claims}
        request = Request("sts:AssumeRoleWithWebIdentity", (), frozenset({provider_arn}), facts)
        if not allows([trust], request):
            raise refused
        context.testbed_federated = {"federatedProvider": provider_arn, "subject": str(claims.get("sub", ""))}


def remember_federation(context: RequestContext, answer: dict[str, Any]) -> None:
    """Keep with a new session from which web identity it came."""
    federated = getattr(context, "testbed_federated", None)
    if federated:
        FEDERATED[answer["Credentials"]["AccessKeyId"]] = federated


def _anonymous(request: Request) -> Request:
    return Request(request.action, request.resources, frozenset({"*"}), request.context)


def _role(arn: str) -> tuple[str, str | None]:
    """The account of a role and its trust policy; None where there is no such role."""
    account = arn.split(":")[4]
    for role in iam_backends[account]["aws"].roles.values():
        if role.arn == arn:
            return account, role.assume_role_policy_document
    return account, None


def _trust(caller: Caller, request: Request, wanted: dict[str, Any]) -> None:
    _, trust = _role(wanted["RoleArn"])
    context = dict(request.context)
    if "ExternalId" in wanted:
        context["sts:ExternalId"] = wanted["ExternalId"]
    asked = Request("sts:AssumeRole", (), request.principals, context)
    if trust is None or not allows([trust], asked):
        raise denied(caller, request, "no trust policy allows the sts:AssumeRole action")


def _identity(caller: Caller, request: Request) -> None:
    backend = iam_backends[caller.account]["aws"]
    if caller.kind == "AssumedRole":
        role = next((role for role in backend.roles.values() if role.arn == caller.role_arn), None)
        if role is None:
            raise denied(caller, request, "the role no longer exists")
        documents = [*role.policies.values(), *map(_document, role.managed_policies.values())]
        boundary = role.permissions_boundary_arn
    else:
        user = backend.get_user(caller.name)
        documents = [*user.policies.values(), *map(_document, user.managed_policies.values())]
        for group in backend.get_groups_for_user(caller.name):
            documents += [*group.policies.values(), *map(_document, group.managed_policies.values())]
        boundary = None
    if "Deny" in {effect for document in documents for effect in matching(document, request)}:
        raise denied(caller, request, "of an explicit deny in an identity-based policy")
    if not allows(documents, request):
        raise denied(caller, request, f"no identity-based policy allows the {request.action} action")
    if boundary and not allows([_document(backend.managed_policies[boundary])], request):
        raise denied(caller, request, "no permissions boundary allows it")
    if caller.session_policy and not allows([caller.session_policy], request):
        raise denied(caller, request, "no session policy allows it")


def _document(policy: Any) -> str:
    return next(entry.document for entry in policy.versions if entry.version_id == policy.default_version_id)


def _service_control(caller: Caller, request: Request) -> None:
    """Every level from the root down to the account must allow, and none deny; the management account is exempt."""
    where = organizations_backends.master_accounts.get(caller.account)
    if where is None or where[0] == caller.account:
        return
    backend = organizations_backends[where[0]][where[1]]
    units = {unit.id: unit for unit in backend.ou}
    level = next((account for account in backend.accounts if account.id == caller.account), None)
    while level is not None:
        documents = [policy.content for policy in level.attached_policies if policy.type == "SERVICE_CONTROL_POLICY"]
        if documents and not allows(documents, request):
            raise denied(caller, request, f"of an explicit deny in a service control policy at {level.id}")
        level = units.get(level.parent_id)


def _bucket(service: str, wanted: dict[str, Any]) -> tuple[str, str]:
    """The account that owns the bucket of an S3 request, and the bucket's policy; empty where there is none."""
    name = wanted.get("Bucket")
    if service != "s3" or not name:
        return "", ""
    store = s3_stores["000000000000"]["us-east-1"]
    owner = store.global_bucket_map.get(name)
    if owner is None:
        return "", ""
    bucket = s3_stores[owner]["us-east-1"].buckets.get(name)
    return owner, (bucket.policy or "") if bucket is not None else ""


def _resources(service: str, wanted: dict[str, Any], caller: Caller) -> tuple[str, ...]:
    """The ARNs that a call acts on, where they follow from its parameters."""
    iam = f"arn:aws:iam::{caller.account}:"
    match service:
        case "s3" if wanted.get("Bucket"):
            key = f"/{wanted['Key']}" if wanted.get("Key") else ""
            return (f"arn:aws:s3:::{wanted['Bucket']}{key}",)
        case "sts" if wanted.get("RoleArn"):
            return (wanted["RoleArn"],)
        case "iam":
            for field, kind in (("RoleName", "role"), ("UserName", "user"), ("GroupName", "group")):
                if wanted.get(field):
                    return (f"{iam}{kind}{wanted.get('Path') or '/'}{wanted[field]}",)
            return (wanted["PolicyArn"],) if wanted.get("PolicyArn") else ()
        case "secretsmanager" | "kms":
            name = wanted.get("SecretId") or wanted.get("KeyId") or ""
            return (name,) if name.startswith("arn:") else ()
        case _:
            return ()
