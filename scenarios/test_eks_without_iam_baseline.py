"""A dependency that is not declared: the cluster came up with an incomplete IAM configuration on its first apply."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.aws.accounts import ACCOUNTS
from testbed.aws.cloud import Cloud
from testbed.aws.guards import Step
from testbed.aws.pipeline import TREE_CHECK, Pipeline, PolicyRefused
from testbed.aws.terragrunt import RunFailed, Terragrunt
from testbed.incident import Incident
from testbed.sla import SlaRecorder
from testbed.toolchain import Toolchain

ACCOUNT = "dev"
BEFORE_CLUSTER = ("vpc", "kms")
DECLARATION = re.compile(r"^dependencies \{.*?^\}\n", re.MULTILINE | re.DOTALL)


@pytest.mark.scenario(guard=Step(TREE_CHECK), on="infra_cloud")
def test_missing_dependency_is_caught_before_apply(
    aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder
) -> None:
    """Given an EKS component that forgot iam-baseline, when it goes through the pipeline, then it is not applied."""
    admin = aws.admin(ACCOUNT)
    eks = infra_cloud.tree / "live" / "_envcommon" / "eks.hcl"
    forgotten, count = DECLARATION.subn("", eks.read_text())
    assert count == 1
    eks.write_text(forgotten)
    pipeline = Pipeline(infra_cloud, Toolchain())
    refused: list[str] = []
    with ThreadPoolExecutor(max_workers=2) as pool:  # all but iam-baseline stands: nothing says that it comes first
        list(pool.map(lambda name: infra_cloud.apply(ACCOUNT, name, admin), BEFORE_CLUSTER))
    mark = aws.trail.mark()
    try:
        with sla.within("dependency-check"):
            try:
                pipeline.apply(ACCOUNT, "eks", admin)
            except PolicyRefused as error:
                refused = error.messages
        assert any("dev/eu-west-1/eks" in message and "iam-baseline" in message for message in refused), refused
        assert aws.trail.changes(after=mark) == []
    except RunFailed as failed:
        nodes = aws.session(ACCOUNT).client("eks").describe_nodegroup(clusterName=ACCOUNT, nodegroupName="system")
        issue = nodes["nodegroup"]["health"]["issues"][0]
        assert issue["code"] == "NodeCreationFailure"
        assert "NodeCreationFailure" in failed.output
        raise Incident(f"the nodes did not register: {issue['message']}") from None
    finally:
        if not refused:
            infra_cloud.destroy(ACCOUNT, "eks", admin)
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(lambda name: infra_cloud.destroy(ACCOUNT, name, admin), BEFORE_CLUSTER))
        assert aws.bootstrap(ACCOUNTS[ACCOUNT]).client("eks").list_clusters()["clusters"] == []
