"""Two people apply the same component: at once, or the second after the first one's apply was killed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from testbed.aws.accounts import ACCOUNTS
from testbed.aws.cloud import Cloud
from testbed.aws.environment import Credentials
from testbed.aws.guards import Line
from testbed.aws.terragrunt import Terragrunt
from testbed.incident import Incident
from testbed.sla import SlaRecorder

ACCOUNT = "sandbox"
KILLED = Path(__file__).parents[1] / "fixtures" / "incidents" / "killed-apply"
REFUSED = "Error acquiring the state lock"


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
    refused = [result for result in results if REFUSED in result.output]
    clean = not made - known and infra_cloud.changes(ACCOUNT, "vpc", engineers[0]) == []
    if made - known:
        raise Incident(f"{len(made)} VPCs were made, the state knows {len(known)}")
    assert len(refused) == 1, "\n".join(result.output[-800:] for result in results)
    assert sorted(result.code == 0 for result in results) == [False, True]
    assert clean
    infra_cloud.destroy(ACCOUNT, "vpc", engineers[0])
    assert aws.vpcs(ACCOUNT) == set()


def killed(infra: Terragrunt, component: str, who: Credentials, when: str) -> None:
    """An apply that is killed (SIGKILL to all its processes) once it has said `when`."""
    running = infra.start(infra.component(ACCOUNT, component), ["apply", "-auto-approve"], who)
    assert running.stdout is not None
    said = ""
    while when not in said:
        line = running.stdout.readline()
        assert line, f"the apply ended before it said {when!r}:\n{said}"
        said += line
    os.killpg(running.pid, signal.SIGKILL)
    assert infra.finish(running).code == -signal.SIGKILL


@pytest.mark.scenario(guard=Line("use_lockfile"), on="infra_cloud")
def test_after_a_killed_apply_the_next_one_is_refused(
    aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder
) -> None:
    """Given an apply that was killed after it made a VPC, when a colleague applies, then no second VPC is made.

    The lock of the dead apply refuses the colleague, who finds the VPC that no state knows, takes the lock away, and
    imports it.
    """
    infra_cloud.add(KILLED, ACCOUNT, "killed-apply")
    laptop = infra_cloud.another()
    alice, bob = aws.admin(ACCOUNT, who="alice"), aws.admin(ACCOUNT, who="bob")
    others = aws.vpcs(ACCOUNT)
    infra_cloud.variables["TF_VAR_takes"] = "600"
    killed(infra_cloud, "killed-apply", alice, "aws_vpc.this: Creation complete")
    (orphan,) = aws.vpcs(ACCOUNT) - others

    folder = laptop.component(ACCOUNT, "killed-apply")
    with sla.within("killed-apply"):
        result = laptop.run(folder, "apply", "-auto-approve", credentials=bob)
        made = aws.vpcs(ACCOUNT) - others
        if len(made) > 1:
            laptop.destroy(ACCOUNT, "killed-apply", bob)
            aws.bootstrap(ACCOUNTS[ACCOUNT]).client("ec2").delete_vpc(VpcId=orphan)
            raise Incident(f"{len(made)} VPCs were made, the state knew one of them")
        assert result.code != 0
        assert REFUSED in result.output, result.output
        lock = re.search(r"Lock Info:.*? ID:\s+([0-9a-f-]{36})", result.output, re.DOTALL)
        assert lock is not None, result.output
        laptop.must(folder, "force-unlock", "-force", lock[1], credentials=bob)
        laptop.must(folder, "import", "aws_vpc.this", orphan, credentials=bob)
        laptop.apply(ACCOUNT, "killed-apply", bob)
    assert laptop.changes(ACCOUNT, "killed-apply", bob) == []
    assert aws.vpcs(ACCOUNT) - others == {orphan} == {laptop.outputs(ACCOUNT, "killed-apply", bob)["vpc_id"]}
    laptop.destroy(ACCOUNT, "killed-apply", bob)
    assert aws.vpcs(ACCOUNT) == others
