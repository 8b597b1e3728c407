"""Who makes a call, and with which kind of credential."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from localstack.aws.api import CommonServiceException, RequestContext
from localstack.utils.aws.request_context import extract_access_key_id_from_auth_header
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

ANONYMOUS_KEY = "injectedaccesskey"
"""What LocalStack puts in where a request is not signed."""


@dataclass(frozen=True)
class Caller:
    """The identity behind an access key.

    `kind` is CloudTrail's `userIdentity.type`: Root, IAMUser, AssumedRole, or Anonymous.
    """

    kind: str
    account: str
    arn: str
    access_key: str
    name: str = ""
    role_arn: str = ""
    session_policy: str = ""
    federated: dict[str, str] = field(default_factory=dict)

    def user_identity(self) -> dict[str, Any]:
        """As CloudTrail writes it."""
        identity: dict[str, Any] = {
            "type": self.kind,
            "accountId": self.account,
            "arn": self.arn,
            "accessKeyId": self.access_key,
        }
        if self.kind == "IAMUser":
            identity["userName"] = self.name
        if self.kind == "AssumedRole":
            issuer = {"type": "Role", "arn": self.role_arn, "userName": self.role_arn.rsplit("/", 1)[-1]}
            identity["sessionContext"] = {"sessionIssuer": issuer}
            if self.federated:
                identity["sessionContext"]["webIdFederationData"] = self.federated
        return identity


FEDERATED: dict[str, dict[str, str]] = {}
"""By access key: the web identity that its session came from."""


def caller_of(context: RequestContext) -> Caller:
    """The caller of a request.

    Raises:
        CommonServiceException: InvalidClientTokenId, as AWS answers to a key or a session token that does not exist.
    """
    key = extract_access_key_id_from_auth_header(context.request.headers) or _presigned_key(context) or ANONYMOUS_KEY
    if key == ANONYMOUS_KEY:
        return Caller("Anonymous", context.account_id, "anonymous", "")
    if re.fullmatch(r"\d{12}", key):
        return Caller("Root", key, f"arn:aws:iam::{key}:root", key)
    account = context.account_id
    if key.startswith("ASIA"):
        session = sts_backends[account]["aws"].get_assumed_role_from_access_key(key)
        token = context.request.headers.get("X-Amz-Security-Token") or context.request.args.get("X-Amz-Security-Token")
        if session is not None and session.session_token == token:
            return Caller(
                "AssumedRole",
                account,
                session.arn,
                key,
                session.session_name,
                session.role_arn,
                session.policy or "",
                FEDERATED.get(key, {}),
            )
    elif key.startswith("AKIA"):
        user = iam_backends[account]["aws"].get_user_from_access_key_id(key)
        if user is not None:
            return Caller("IAMUser", account, user.arn, key, user.name)
    raise CommonServiceException(
        "InvalidClientTokenId", "The security token included in the request is invalid.", 403, True
    )


def _presigned_key(context: RequestContext) -> str | None:
    credential = context.request.args.get("X-Amz-Credential", "")
    return credential.split("/")[0] or None
