"""An unencrypted, an untagged and a public resource stop before they exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.aws.accounts import ACCOUNTS
from testbed.aws.cloud import Cloud
from testbed.aws.guards import Step
from testbed.aws.pipeline import PLAN_CHECK, Pipeline, PolicyRefused
from testbed.aws.terragrunt import Terragrunt
from testbed.incident import Incident
from testbed.sla import SlaRecorder
from testbed.toolchain import Toolchain

ACCOUNT = "sandbox"
NONCOMPLIANT = Path(__file__).parents[1] / "fixtures" / "incidents" / "noncompliant"


def made(aws: Cloud) -> dict[str, int]:
    """How many of the three there are."""
    session = aws.bootstrap(ACCOUNTS[ACCOUNT])
    groups = session.client("ec2").describe_security_groups()["SecurityGroups"]
    return {
        "unencrypted": len(session.client("ec2").describe_volumes()["Volumes"]),
        "untagged": len(session.client("logs").describe_log_groups(logGroupNamePrefix="untagged")["logGroups"]),
        "public": len([group for group in groups if group["GroupName"] == "public"]),
    }


@pytest.mark.scenario(guard=Step(PLAN_CHECK), on="infra_cloud")
def test_noncompliant_resources_are_refused(aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder) -> None:
    """Given a change with three faults, when it goes through the pipeline, then each is named and nothing is made."""
    infra_cloud.add(NONCOMPLIANT, ACCOUNT, "noncompliant")
    admin = aws.admin(ACCOUNT)
    vpc = aws.session(ACCOUNT).client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    infra_cloud.variables["VPC_ID"] = vpc
    pipeline = Pipeline(infra_cloud, Toolchain())
    assert made(aws) == dict.fromkeys(("unencrypted", "untagged", "public"), 0)
    refused: list[str] = []
    with sla.within("plan-check"):
        try:
            pipeline.apply(ACCOUNT, "noncompliant", admin)
        except PolicyRefused as error:
            refused = error.messages
    if refused:
        said = "\n".join(refused)
        for address in ("aws_ebs_volume.unencrypted", "aws_cloudwatch_log_group.untagged", "ingress_rule.public"):
            assert address in said
        assert len(refused) == 3, said
        assert made(aws) == dict.fromkeys(("unencrypted", "untagged", "public"), 0)
        return
    there = made(aws)
    infra_cloud.destroy(ACCOUNT, "noncompliant", admin)
    assert there == dict.fromkeys(("unencrypted", "untagged", "public"), 1)
    raise Incident(f"applied: {there}")
