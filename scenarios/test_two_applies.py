"""Two people apply the same component at once."""

from __future__ import annotations

import pytest

from testbed.aws.cloud import Cloud
from testbed.aws.guards import Line
from testbed.aws.terragrunt import Terragrunt
from testbed.incident import Incident
from testbed.sla import SlaRecorder

ACCOUNT = "sandbox"


@pytest.mark.scenario(guard=Line("use_lockfile"), on="infra_cloud")
def test_one_of_two_applies_is_refused_by_the_lock(
    aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder
) -> None:
    """Given two working copies, when both apply at once, then one is refused and everything made is in the state."""
    laptops = [infra_cloud, infra_cloud.another()]
    engineers = [aws.admin(ACCOUNT, who="alice"), aws.admin(ACCOUNT, who="bob")]
    with sla.within("two-applies"):
        running = [
            infra.start(infra.component(ACCOUNT, "vpc"), ["apply", "-auto-approve"], who)
            for infra, who in zip(laptops, engineers, strict=True)
        ]
        results = [infra.finish(process) for infra, process in zip(laptops, running, strict=True)]
    made = aws.vpcs(ACCOUNT)
    known = {infra_cloud.outputs(ACCOUNT, "vpc", engineers[0])["vpc_id"]}
    refused = [result for result in results if "Error acquiring the state lock" in result.output]
    clean = not made - known and infra_cloud.changes(ACCOUNT, "vpc", engineers[0]) == []
    if made - known:
        raise Incident(f"{len(made)} VPCs were made, the state knows {len(known)}")
    assert len(refused) == 1, "\n".join(result.output[-800:] for result in results)
    assert sorted(result.code == 0 for result in results) == [False, True]
    assert clean
    infra_cloud.destroy(ACCOUNT, "vpc", engineers[0])
    assert aws.vpcs(ACCOUNT) == set()
