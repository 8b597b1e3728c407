"""A record of every call, as CloudTrail keeps it: who, with which kind of credential, what, and whether it was refused.

Neither LocalStack nor moto implements `cloudtrail:LookupEvents`. It is answered from this record: per account,
management events only, newest first. `GET /_testbed/trail?account=ID` also gives data events (S3 objects): what a
trail of the organization would deliver to its bucket, at once instead of after minutes. The newest `KEPT` events of
each account are kept, in memory.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import Any

from access import remember_federation
from caller import Caller
from localstack.aws.api import RequestContext
from localstack.http import Response

KEPT = 50_000
READS = (
    "Get", "List", "Describe", "Head", "Lookup", "Search", "Query", "Scan", "BatchGet", "Select", "View", "Simulate",
    "Generate", "Validate", "Estimate", "Decode", "Decrypt", "Encrypt", "Verify", "Assume", "Check",
)  # fmt: skip
"""Prefixes of operations that change no state; `sts:Assume*` is read-only in CloudTrail too."""
OBJECT_CALLS = {
    "GetObject", "PutObject", "DeleteObject", "DeleteObjects", "HeadObject", "CopyObject", "ListObjects",
    "ListObjectsV2", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload",
}  # fmt: skip
SECRETS = {"WebIdentityToken", "SecretString", "SecretBinary", "Plaintext", "Body", "MasterUserPassword", "AuthToken"}


def read_only(operation: str) -> bool:
    """Whether an operation changes no state."""
    return operation.startswith(READS)


class Trail:
    """Records calls and answers look-ups."""

    def __init__(self, accounts: frozenset[str]) -> None:
        self.accounts = accounts
        self._events: dict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._numbers = itertools.count(1)

    def begin(self, chain: Any, context: RequestContext, response: Any) -> None:
        """First in the chain: a call that another handler refuses is recorded as well."""
        context.testbed_recorded = True

    def end(self, chain: Any, context: RequestContext, response: Any) -> None:
        """Record a finished call."""
        if not getattr(context, "testbed_recorded", False) or context.operation is None or context.is_internal_call:
            return
        service, operation = context.service.service_name, context.operation.name
        caller: Caller | None = getattr(context, "testbed_caller", None)
        answer = context.service_response if isinstance(context.service_response, dict) else {}
        if operation == "AssumeRoleWithWebIdentity" and "Credentials" in answer:
            remember_federation(context, answer)
        wanted = context.service_request if isinstance(context.service_request, dict) else {}
        event = {
            "eventVersion": "1.11",
            "eventID": str(uuid.uuid4()),
            "sequence": next(self._numbers),
            "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "eventSource": f"{context.service.endpoint_prefix}.amazonaws.com",
            "eventName": operation,
            "awsRegion": context.region,
            "sourceIPAddress": context.request.remote_addr,
            "userAgent": context.request.headers.get("User-Agent", ""),
            "userIdentity": _identity(caller, context, wanted),
            "readOnly": read_only(operation),
            "managementEvent": not (service == "s3" and operation in OBJECT_CALLS),
            "requestParameters": {name: _plain(value) for name, value in wanted.items() if name not in SECRETS},
            "recipientAccountId": caller.account if caller else context.account_id,
        }
        if context.service_exception is not None:
            event["errorCode"] = context.service_exception.code
            event["errorMessage"] = context.service_exception.message
        elif response.status_code >= 400:
            event["errorCode"] = str(response.status_code)
        recipients = {event["recipientAccountId"]}
        if service == "sts" and ":" in str(wanted.get("RoleArn", "")):
            recipients.add(wanted["RoleArn"].split(":")[4])
        for account in recipients & self.accounts:
            self._events[account].append(event | {"recipientAccountId": account})

    def events(self, account: str) -> list[dict[str, Any]]:
        """The events of an account, oldest first."""
        return list(self._events[account])

    def serve(self, request: Any) -> Response:
        """`GET /_testbed/trail?account=ID&after=SEQUENCE`: the events as a JSON list."""
        after = int(request.args.get("after", 0))
        wanted = [entry for entry in self.events(request.args["account"]) if entry["sequence"] > after]
        return Response(json.dumps(wanted, default=str), 200, mimetype="application/json")

    def lookup_events(self, context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
        """`cloudtrail:LookupEvents`."""
        found = [entry for entry in reversed(self.events(context.account_id)) if entry["managementEvent"]]
        for attribute in wanted.get("LookupAttributes") or []:
            found = [
                entry for entry in found if _attribute(entry, attribute["AttributeKey"]) == attribute["AttributeValue"]
            ]
        for name, keep in (("StartTime", lambda a, b: a >= b), ("EndTime", lambda a, b: a <= b)):
            if wanted.get(name):
                limit = wanted[name].astimezone(UTC) if wanted[name].tzinfo else wanted[name].replace(tzinfo=UTC)
                found = [entry for entry in found if keep(datetime.fromisoformat(entry["eventTime"]), limit)]
        start = int(wanted.get("NextToken") or 0)
        size = int(wanted.get("MaxResults") or 50)
        page = found[start : start + size]
        answer: dict[str, Any] = {"Events": [_summary(entry) for entry in page]}
        if start + size < len(found):
            answer["NextToken"] = str(start + size)
        return answer


def _identity(caller: Caller | None, context: RequestContext, wanted: dict[str, Any]) -> dict[str, Any]:
    if caller is None:
        return {"type": "Unknown", "accountId": context.account_id}
    federated = getattr(context, "testbed_federated", None)
    if context.operation.name == "AssumeRoleWithWebIdentity":
        return {"type": "WebIdentityUser", "userName": (federated or {}).get("subject", ""), **(federated or {})}
    return caller.user_identity()


def _attribute(event: dict[str, Any], key: str) -> str:
    identity = event["userIdentity"]
    match key:
        case "EventId":
            return str(event["eventID"])
        case "ReadOnly":
            return str(event["readOnly"]).lower()
        case "AccessKeyId":
            return str(identity.get("accessKeyId", ""))
        case "Username":
            return str(identity.get("userName") or identity.get("arn", "").rsplit("/", 1)[-1])
        case "EventName" | "EventSource":
            return str(event[key[0].lower() + key[1:]])
        case _:
            return ""


def _summary(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "EventId": event["eventID"],
        "EventName": event["eventName"],
        "ReadOnly": str(event["readOnly"]).lower(),
        "AccessKeyId": event["userIdentity"].get("accessKeyId", ""),
        "EventTime": datetime.fromisoformat(event["eventTime"]),
        "EventSource": event["eventSource"],
        "Username": _attribute(event, "Username"),
        "Resources": [],
        "CloudTrailEvent": json.dumps(event, default=str),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool, type(None))):
        return value if not isinstance(value, str) else value[:500]
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items() if name not in SECRETS}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value[:20]]
    return type(value).__name__
