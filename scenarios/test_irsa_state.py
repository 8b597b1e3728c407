"""Roles of service accounts have a state of their own: changing or destroying the cluster leaves them alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.aws.accounts import ACCOUNTS
from testbed.aws.cloud import Cloud
from testbed.aws.guards import OwnComponent
from testbed.aws.terragrunt import Terragrunt
from testbed.incident import Incident
from testbed.sla import SlaRecorder

ACCOUNT = "dev"
MERGED = Path(__file__).parents[1] / "fixtures" / "incidents" / "irsa-in-cluster"
BEFORE_CLUSTER = ("vpc", "kms", "iam-baseline")


def roles(aws: Cloud) -> set[str]:
    """The roles of service accounts."""
    found = aws.bootstrap(ACCOUNTS[ACCOUNT]).client("iam").list_roles()["Roles"]
    return {role["RoleName"] for role in found if role["RoleName"].startswith(f"{ACCOUNT}-external-")}


@pytest.mark.scenario(guard=OwnComponent(ACCOUNT, "eks", MERGED), on="infra_cloud")
def test_destroying_the_cluster_leaves_the_roles(
    aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder
) -> None:
    """Given a cluster with IRSA roles, when it is changed and destroyed, then no call touches a role."""
    admin = aws.admin(ACCOUNT)
    for component in (*BEFORE_CLUSTER, "eks"):
        infra_cloud.apply(ACCOUNT, component, admin)
    if not roles(aws):  # they are not part of the cluster
        infra_cloud.apply(ACCOUNT, "irsa", admin)
    before = roles(aws)
    assert before
    mark = aws.trail.mark()
    try:
        with sla.within("cluster-destroyed"):
            infra_cloud.destroy(ACCOUNT, "eks", admin)
    except BaseException:
        for component in ("irsa", "eks", *reversed(BEFORE_CLUSTER)):  # the next scenario begins with an empty account
            infra_cloud.destroy(ACCOUNT, component, admin)
        raise
    assert aws.session(ACCOUNT).client("eks").list_clusters()["clusters"] == []
    touched = [
        str(event)
        for event in aws.trail.events(ACCOUNT, after=mark)
        if event.changes_state and event.parameters.get("RoleName") in before
    ]
    gone = before - roles(aws)
    if not gone:
        infra_cloud.destroy(ACCOUNT, "irsa", admin)
    for component in reversed(BEFORE_CLUSTER):
        infra_cloud.destroy(ACCOUNT, component, admin)
    if gone:
        raise Incident(f"the roles {', '.join(sorted(gone))} went with the cluster")
    assert touched == []
