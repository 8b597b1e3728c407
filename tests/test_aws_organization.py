"""The organization: accounts apart, roles, policies, web identities, the trail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from testbed.aws.accounts import ACCOUNTS, find_account
from testbed.aws.cloud import Cloud
from testbed.aws.environment import Credentials
from testbed.aws.issuers import GITHUB, Issuer, github_subject, service_account_subject
from testbed.errors import UsageError

Sessions = Callable[[str], boto3.Session]
LIVE = Path(__file__).parents[1] / "fixtures" / "infra-cloud" / "live"


def code(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as refused:
        call()
    return str(refused.value.response["Error"]["Code"])


def test_seven_accounts_in_their_units(aws: Cloud, aws_session: Sessions) -> None:
    organizations = aws_session("management").client("organizations")
    found = {account["Id"] for account in organizations.list_accounts()["Accounts"]}
    assert found == {account.id for account in ACCOUNTS.values()}
    root = organizations.list_roots()["Roots"][0]["Id"]
    units = organizations.list_organizational_units_for_parent(ParentId=root)["OrganizationalUnits"]
    inside = {
        unit["Name"]: {
            child["Id"] for child in organizations.list_children(ParentId=unit["Id"], ChildType="ACCOUNT")["Children"]
        }
        for unit in units
    }
    assert inside["Workloads"] == {ACCOUNTS[name].id for name in ("dev", "staging", "production")}


def test_the_live_tree_names_the_same_accounts() -> None:
    for account in ACCOUNTS.values():
        text = (LIVE / account.name / "account.hcl").read_text()
        assert re.search(r'id\s+= "(\d+)"', text)[1] == account.id  # type: ignore[index]


def test_accounts_are_apart(aws_session: Sessions) -> None:
    vpc = aws_session("dev").client("ec2").create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    assert code(lambda: aws_session("sandbox").client("ec2").describe_vpcs(VpcIds=[vpc])) == "InvalidVpcID.NotFound"
    aws_session("dev").client("ec2").delete_vpc(VpcId=vpc)


def test_both_kinds_of_session_are_the_account(aws: Cloud, aws_session: Sessions, localstack_session: Any) -> None:
    for session in (aws_session("staging"), localstack_session("staging")):
        assert session.client("sts").get_caller_identity()["Account"] == ACCOUNTS["staging"].id


def test_roles_cross_accounts_only_where_they_are_trusted(aws: Cloud) -> None:
    arn = f"arn:aws:iam::{ACCOUNTS['staging'].id}:role/terraform"

    def assume(credentials: Credentials) -> Any:
        sts = aws.session_with(credentials).client("sts")
        return sts.assume_role(RoleArn=arn, RoleSessionName="test")["AssumedRoleUser"]["Arn"]

    assert assume(aws.atlantis()).endswith("assumed-role/terraform/test")
    assert assume(aws.admin("staging")).endswith("assumed-role/terraform/test")
    assert code(lambda: assume(aws.admin("sandbox"))) == "AccessDenied"
    atlantis = aws.session_with(aws.atlantis())
    assert code(lambda: atlantis.client("ec2").describe_vpcs()) == "AccessDenied"


def test_unknown_keys_and_stolen_key_ids_are_refused(aws: Cloud) -> None:
    good = aws.admin("dev")
    without_token = Credentials(access_key_id=good.access_key_id, secret_access_key=good.secret_access_key)
    for bad in (Credentials(access_key_id="AKIAIOSFODNN7EXAMPLE", secret_access_key="x"), without_token):
        assert code(lambda bad=bad: aws.session_with(bad).client("ec2").describe_vpcs()) == "InvalidClientTokenId"


def test_service_control_policies_bind_administrators(aws_session: Sessions) -> None:
    session = aws_session("production")
    assert code(lambda: session.client("iam").create_user(UserName="bot")) == "AccessDenied"
    assert code(lambda: session.client("ec2", region_name="us-west-2").describe_vpcs()) == "AccessDenied"
    aws_session("management").client("iam").create_user(UserName="break-glass")  # the management account is exempt
    aws_session("management").client("iam").delete_user(UserName="break-glass")


def test_a_bucket_of_another_account_needs_its_policy(aws: Cloud, aws_session: Sessions) -> None:
    bucket = f"infra-cloud-tfstate-{ACCOUNTS['dev'].id}"
    owner, other = aws_session("dev").client("s3"), aws_session("sandbox").client("s3")
    owner.put_object(Bucket=bucket, Key="probe", Body=b"1")
    assert code(lambda: other.get_object(Bucket=bucket, Key="probe")) == "AccessDenied"
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNTS['sandbox'].id}:root"},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/probe",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    owner.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={})
    owner.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert other.get_object(Bucket=bucket, Key="probe")["Body"].read() == b"1"
    assert code(lambda: other.put_object(Bucket=bucket, Key="probe", Body=b"2")) == "AccessDenied"
    owner.delete_bucket_policy(Bucket=bucket)


@pytest.fixture
def federated_role(aws: Cloud) -> Any:
    """A role in dev that one repository's main branch may take, and a call that tries to."""
    iam = aws.session("dev").client("iam")
    provider = iam.create_open_id_connect_provider(
        Url=GITHUB, ClientIDList=["sts.amazonaws.com"], ThumbprintList=["0" * 40]
    )["OpenIDConnectProviderArn"]
    host = GITHUB.removeprefix("https://")
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {f"{host}:aud": "sts.amazonaws.com"},
            "StringLike": {f"{host}:sub": "repo:example/infra-cloud:ref:refs/heads/main"},
        },
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    arn = iam.create_role(RoleName="github", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.attach_role_policy(RoleName="github", PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")

    def take(token: str) -> Any:
        sts = aws.session_with(Credentials(access_key_id="unused", secret_access_key="unused")).client("sts")
        return sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="run", WebIdentityToken=token)

    yield take
    iam.detach_role_policy(RoleName="github", PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
    iam.delete_role(RoleName="github")
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=provider)


def test_github_workflow_takes_its_role_without_a_key(aws: Cloud, federated_role: Any) -> None:
    answer = federated_role(aws.issuer(GITHUB).token(github_subject("example/infra-cloud")))["Credentials"]
    session = aws.session_with(
        Credentials(
            access_key_id=answer["AccessKeyId"],
            secret_access_key=answer["SecretAccessKey"],
            session_token=answer["SessionToken"],
        )
    )
    session.client("ec2").describe_vpcs()
    assert code(lambda: session.client("ec2").create_vpc(CidrBlock="10.98.0.0/16")) == "AccessDenied"
    assert {event.credential for event in aws.trail.events("dev")[-2:]} == {"web identity"}


def test_tokens_are_checked(aws: Cloud, federated_role: Any) -> None:
    issuer = aws.issuer(GITHUB)
    good = github_subject("example/infra-cloud")
    federated_role(issuer.token(good))
    forger = Issuer(GITHUB, None)  # says the same issuer and key id, but has another key
    bad = {
        "forged signature": forger.token(good),
        "other audience": issuer.token(good, audience="someone-else"),
        "expired": issuer.token(good, lifetime=-60),
        "other issuer": aws.issuer("https://oidc.example.com").token(good),
        "no token": "not-a-token",
    }
    for why, token in bad.items():
        assert code(lambda token=token: federated_role(token)) == "InvalidIdentityToken", why
    for subject in (github_subject("example/other"), github_subject("example/infra-cloud", "feature")):
        assert code(lambda subject=subject: federated_role(issuer.token(subject))) == "AccessDenied", subject
    assert code(lambda: federated_role(issuer.token(service_account_subject("a", "b")))) == "AccessDenied"


def test_cloudtrail_answers_who_did_what(aws: Cloud, aws_session: Sessions) -> None:
    session = aws.session_with(aws.admin("security", who="alice"))
    session.client("kms").list_keys()
    found = session.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "ListKeys"}]
    )["Events"]
    assert found[0]["Username"] == "alice"
    assert json.loads(found[0]["CloudTrailEvent"])["userIdentity"]["type"] == "AssumedRole"
    mark = aws.trail.mark()
    assert aws.trail.events(after=mark) == []


def test_an_unknown_account_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'staging'"):
        find_account("stagin")
