"""Static access keys are gone: a query over seven accounts shows none in use, and finds one that is planted."""

from __future__ import annotations

from contextlib import suppress

import pytest
from botocore.exceptions import ClientError

from testbed.aws.accounts import ACCOUNTS
from testbed.aws.cloud import Cloud
from testbed.aws.environment import Credentials
from testbed.aws.guards import ServiceControlPolicy
from testbed.incident import Incident
from testbed.sla import SlaRecorder

USER = "ci-bot"


@pytest.mark.scenario(guard=ServiceControlPolicy("no-static-keys"), on="aws")
def test_no_static_key_is_in_use(aws: Cloud, guard: str, sla: SlaRecorder) -> None:
    """Given the policy against keys, when an administrator makes and uses one, then no call with a key is on record."""
    mark = aws.trail.mark()
    session = aws.session("dev")
    iam = session.client("iam")
    with suppress(ClientError):
        iam.create_user(UserName=USER)
        iam.attach_user_policy(UserName=USER, PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        key = iam.create_access_key(UserName=USER)["AccessKey"]
        planted = Credentials(access_key_id=key["AccessKeyId"], secret_access_key=key["SecretAccessKey"])
        aws.session_with(planted).client("ec2").describe_instances()
        iam.delete_access_key(UserName=USER, AccessKeyId=key["AccessKeyId"])
        iam.detach_user_policy(UserName=USER, PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        iam.delete_user(UserName=USER)
    # Every account is asked with a role, so that each has calls on record: none of them may come from a key.
    for account in ACCOUNTS:
        aws.session(account).client("ec2").describe_vpcs()
    with sla.within("static-key-query"):
        events = aws.trail.events(after=mark)
    assert {event.account for event in events} >= {account.id for account in ACCOUNTS.values()}
    keys = [event for event in events if event.credential == "static key"]
    if keys:
        assert keys[0].identity["userName"] == USER
        assert keys[0].account == ACCOUNTS["dev"].id
        raise Incident(f"a static key is in use: {keys[0]}")
    refused = [event for event in events if event.name == "CreateUser" and event.error == "AccessDenied"]
    assert refused, "the attempt to make a user was not refused"
