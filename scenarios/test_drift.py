"""A change made by hand during an incident and never committed."""

from __future__ import annotations

import pytest

from testbed.aws.cloud import Cloud
from testbed.aws.guards import Step
from testbed.aws.terragrunt import REFRESH, Terragrunt
from testbed.incident import Incident
from testbed.sla import SlaRecorder

ACCOUNT = "dev"


@pytest.mark.scenario(guard=Step(REFRESH), on="infra_cloud")
def test_drift_is_found_by_plan(aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder) -> None:
    """Given an applied VPC, when somebody changes it by hand, then the next plan names the change."""
    admin = aws.admin(ACCOUNT)
    infra_cloud.apply(ACCOUNT, "vpc", admin)
    assert infra_cloud.changes(ACCOUNT, "vpc", admin) == []
    vpc = infra_cloud.outputs(ACCOUNT, "vpc", admin)["vpc_id"]
    ec2 = aws.session(ACCOUNT).client("ec2")
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": False})
    assert not ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsHostnames")["EnableDnsHostnames"]["Value"]
    with sla.within("vpc-plan"):
        found = infra_cloud.changes(ACCOUNT, "vpc", admin)
    infra_cloud.destroy(ACCOUNT, "vpc", admin)
    if not found:
        raise Incident("plan sees nothing of the change")
    assert found == ["aws_vpc.this update"]
