"""What an organization has before the first component is applied: accounts, units, policies, roles, state buckets.

On real AWS this is Control Tower's or a bootstrap stack's work; here it is done through the same APIs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3

from testbed.aws.accounts import (
    ACCOUNTS,
    MANAGEMENT,
    REGION,
    SERVICE_CONTROL_POLICIES,
    SHARED_SERVICES,
    UNITS,
    Account,
)

ADMIN_ROLE = "admin"
"""What a person becomes through single sign-on."""
TERRAFORM_ROLE = "terraform"
"""What infrastructure code becomes in an account."""
ATLANTIS_ROLE = "atlantis"
"""What applies pull requests, in shared-services."""
ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
SCP = "SERVICE_CONTROL_POLICY"

SessionOf = Callable[[Account], boto3.Session]
"""A session of an account's root user, as `Cloud.bootstrap` gives it."""


def state_bucket(account: Account) -> str:
    """The bucket of an account's states."""
    return f"infra-cloud-tfstate-{account.id}"


def role_arn(account: Account, role: str) -> str:
    """A role's ARN."""
    return f"arn:aws:iam::{account.id}:role/{role}"


def build(session_of: SessionOf) -> None:
    """Make the organization, then every account's roles and state bucket, several accounts at a time."""
    _organization(session_of(ACCOUNTS[MANAGEMENT]).client("organizations"))
    with ThreadPoolExecutor(max_workers=4) as pool:
        for done in [pool.submit(_account, account, session_of(account)) for account in ACCOUNTS.values()]:
            done.result()


def _organization(organizations: Any) -> None:
    organizations.create_organization(FeatureSet="ALL")
    root = organizations.list_roots()["Roots"][0]["Id"]
    organizations.enable_policy_type(RootId=root, PolicyType=SCP)
    units = {
        name: organizations.create_organizational_unit(ParentId=root, Name=name)["OrganizationalUnit"]["Id"]
        for name in UNITS
    }
    for account in ACCOUNTS.values():
        if account.unit:
            organizations.create_account(AccountName=account.name, Email=f"aws+{account.name}@example.com")
            organizations.move_account(
                AccountId=account.id, SourceParentId=root, DestinationParentId=units[account.unit]
            )
    for name, document in SERVICE_CONTROL_POLICIES.items():
        policy = organizations.create_policy(Name=name, Description=name, Type=SCP, Content=json.dumps(document))
        for unit in units.values():
            organizations.attach_policy(PolicyId=policy["Policy"]["PolicySummary"]["Id"], TargetId=unit)


def _trust(*principals: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": list(principals)}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _account(account: Account, session: boto3.Session) -> None:
    iam = session.client("iam")
    people = f"arn:aws:iam::{ACCOUNTS[MANAGEMENT].id}:root"
    roles = {
        ADMIN_ROLE: _trust(people),
        TERRAFORM_ROLE: _trust(role_arn(account, ADMIN_ROLE), role_arn(ACCOUNTS[SHARED_SERVICES], ATLANTIS_ROLE)),
    }
    for name, trust in roles.items():
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        iam.attach_role_policy(RoleName=name, PolicyArn=ADMINISTRATOR)
    if account.name == SHARED_SERVICES:
        iam.create_role(RoleName=ATLANTIS_ROLE, AssumeRolePolicyDocument=_trust(people))
        allowed = [role_arn(target, TERRAFORM_ROLE) for target in ACCOUNTS.values()]
        statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": allowed}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_role_policy(RoleName=ATLANTIS_ROLE, PolicyName="become-terraform", PolicyDocument=document)
    s3, bucket = session.client("s3"), state_bucket(account)
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
