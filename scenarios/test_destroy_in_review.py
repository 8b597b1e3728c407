"""A destroy in the right account: the plan review asks for an approval before what holds data or the network goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.aws.accounts import SHARED_SERVICES
from testbed.aws.cloud import Cloud
from testbed.aws.guards import Step
from testbed.aws.pipeline import APPROVALS, PLAN_CHECK, Pipeline, PolicyRefused
from testbed.aws.terragrunt import Terragrunt
from testbed.incident import Incident
from testbed.sla import SlaRecorder
from testbed.toolchain import Toolchain

ACCOUNT, COMPONENT = "sandbox", "vpc-only"
VPC_ONLY = Path(__file__).parents[1] / "fixtures" / "incidents" / "wrong-account" / COMPONENT


@pytest.mark.scenario(guard=Step(PLAN_CHECK), on="infra_cloud")
def test_destroy_needs_an_approval(aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder) -> None:
    """Given sandbox's VPC, when a pull request destroys it, then nothing is touched until its deletion is approved."""
    infra_cloud.add(VPC_ONLY, ACCOUNT, COMPONENT)
    pipeline = Pipeline(infra_cloud, Toolchain())
    atlantis = aws.atlantis()
    others = aws.vpcs(ACCOUNT)
    pipeline.apply(ACCOUNT, COMPONENT, atlantis)
    (vpc,) = aws.vpcs(ACCOUNT) - others

    mark = aws.trail.mark()
    refused: list[str] = []
    with sla.within("destroy-review"):
        try:
            pipeline.destroy(ACCOUNT, COMPONENT, atlantis)
        except PolicyRefused as error:
            refused = error.messages
    if vpc not in aws.vpcs(ACCOUNT):
        raise Incident(f"{vpc} is gone, and nobody approved that")
    assert len(refused) == 1, refused
    assert "aws_vpc.this" in refused[0]
    assert vpc in refused[0]
    assert aws.trail.changes(after=mark) == []
    looked = [event for event in aws.trail.events(ACCOUNT, after=mark) if event.name == "DescribeVpcs"]
    assert looked, "nothing was planned"
    taken = [event for event in aws.trail.events(SHARED_SERVICES, after=mark) if event.name == "AssumeRole"]
    assert all("atlantis" in str(event) for event in taken)

    (infra_cloud.component(ACCOUNT, COMPONENT) / APPROVALS).write_text(f"approved:\n  aws_vpc.this: {vpc}\n")
    pipeline.destroy(ACCOUNT, COMPONENT, atlantis)
    assert aws.vpcs(ACCOUNT) == others
