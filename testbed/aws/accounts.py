"""The organization on paper: seven accounts, their units, and the service control policies."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from testbed.errors import UsageError

REGION = "eu-west-1"
MANAGEMENT = "management"
SHARED_SERVICES = "shared-services"


class Account(BaseModel):
    """One account."""

    model_config = ConfigDict(frozen=True)

    name: str
    id: str = Field(pattern=r"^\d{12}$")
    unit: str
    """The organizational unit; empty for the root."""


ACCOUNTS: dict[str, Account] = {
    account.name: account
    for account in (
        Account(name=MANAGEMENT, id="210000000001", unit=""),
        Account(name="security", id="210000000002", unit="Security"),
        Account(name=SHARED_SERVICES, id="210000000003", unit="Infrastructure"),
        Account(name="dev", id="210000000004", unit="Workloads"),
        Account(name="staging", id="210000000005", unit="Workloads"),
        Account(name="production", id="210000000006", unit="Workloads"),
        Account(name="sandbox", id="210000000007", unit="Sandbox"),
    )
}
UNITS = ("Security", "Infrastructure", "Workloads", "Sandbox")

GLOBAL_SERVICES = ["iam:*", "sts:*", "organizations:*", "route53:*", "cloudfront:*", "s3:*", "support:*"]


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


SERVICE_CONTROL_POLICIES: dict[str, dict[str, Any]] = {
    "protect-organization": _policy(
        {"Effect": "Deny", "Action": "organizations:LeaveOrganization", "Resource": "*"},
        {"Effect": "Deny", "Action": ["cloudtrail:StopLogging", "cloudtrail:DeleteTrail"], "Resource": "*"},
    ),
    "one-region": _policy(
        {
            "Effect": "Deny",
            "NotAction": GLOBAL_SERVICES,
            "Resource": "*",
            "Condition": {"StringNotEquals": {"aws:RequestedRegion": [REGION, "us-east-1"]}},
        }
    ),
    "no-static-keys": _policy({"Effect": "Deny", "Action": ["iam:CreateAccessKey", "iam:CreateUser"], "Resource": "*"}),
}
"""All three hold for every unit."""


def find_account(name: str) -> Account:
    """The account of this name.

    Raises:
        UsageError: There is none; the message suggests the nearest one.
    """
    if name not in ACCOUNTS:
        near = get_close_matches(name, ACCOUNTS, n=1)
        raise UsageError(
            f"unknown account {name!r}",
            why=f"did you mean {near[0]!r}?" if near else "it is not in the organization",
            fix=f"use one of: {', '.join(ACCOUNTS)}",
        )
    return ACCOUNTS[name]
