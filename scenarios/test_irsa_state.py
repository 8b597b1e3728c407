"""Roles of service accounts have a state of their own: changing or destroying the cluster leaves them alone.

And each is for one service account: a pod's token gets that role's permissions, another pod's gets none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from testbed.aws.accounts import ACCOUNTS
from testbed.aws.cloud import Cloud
from testbed.aws.environment import Credentials
from testbed.aws.guards import OwnComponent
from testbed.aws.issuers import service_account_subject
from testbed.aws.landing_zone import role_arn
from testbed.aws.terragrunt import Terragrunt
from testbed.incident import Incident
from testbed.pipelines.guards import TrustedSubjects
from testbed.sla import SlaRecorder

ACCOUNT = "dev"
MERGED = Path(__file__).parents[1] / "fixtures" / "incidents" / "irsa-in-cluster"
BEFORE_CLUSTER = ("vpc", "kms", "iam-baseline")
DNS = f"{ACCOUNT}-external-dns"


def roles(aws: Cloud) -> set[str]:
    """The roles of service accounts."""
    found = aws.bootstrap(ACCOUNTS[ACCOUNT]).client("iam").list_roles()["Roles"]
    return {role["RoleName"] for role in found if role["RoleName"].startswith(f"{ACCOUNT}-external-")}


def take(aws: Cloud, token: str) -> Credentials:
    """What a pod's SDK does with the token that the kubelet projects."""
    none = Credentials(access_key_id="unused", secret_access_key="unused")  # noqa: S106
    sts = aws.session_with(none).client("sts")
    answer = sts.assume_role_with_web_identity(
        RoleArn=role_arn(ACCOUNTS[ACCOUNT], DNS), RoleSessionName="pod", WebIdentityToken=token
    )["Credentials"]
    return Credentials(
        access_key_id=answer["AccessKeyId"],
        secret_access_key=answer["SecretAccessKey"],
        session_token=answer["SessionToken"],
    )


def refused(call: Callable[[], object]) -> str:
    """The error code of a call that is refused."""
    with pytest.raises(ClientError) as error:
        call()
    return str(error.value.response["Error"]["Code"])


def pods_get_what_is_theirs(aws: Cloud) -> None:
    """external-dns gets its role and what that allows, with no key; no other service account and no other cluster does.

    Raises:
        Incident: Another service account got the role.
    """
    cluster = aws.session(ACCOUNT).client("eks").describe_cluster(name=ACCOUNT)["cluster"]
    issuer = aws.issuer(cluster["identity"]["oidc"]["issuer"])
    mark = aws.trail.mark()
    pod = aws.session_with(take(aws, issuer.token(service_account_subject("external-dns", "external-dns"))))
    pod.client("route53").list_hosted_zones()
    assert refused(pod.client("secretsmanager").list_secrets) == "AccessDenied"
    seen = [(event.name, event.credential, event.error) for event in aws.trail.events(ACCOUNT, after=mark)]
    assert seen == [
        ("AssumeRoleWithWebIdentity", "web identity", ""),
        ("ListHostedZones", "web identity", ""),
        ("ListSecrets", "web identity", "AccessDenied"),
    ]
    elsewhere = aws.issuer("https://oidc.example.com/id/another-cluster")
    subject = service_account_subject("external-dns", "external-dns")
    assert refused(lambda: take(aws, elsewhere.token(subject))) == "InvalidIdentityToken"
    for namespace, name in (("default", "default"), ("external-dns", "default"), ("default", "external-dns")):
        try:
            take(aws, issuer.token(service_account_subject(namespace, name)))
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied"
        else:
            raise Incident(f"the service account {namespace}/{name} got {DNS}")


@pytest.mark.scenario(guard=OwnComponent(ACCOUNT, "eks", MERGED), on="infra_cloud")
def test_destroying_the_cluster_leaves_the_roles(
    aws: Cloud, infra_cloud: Terragrunt, guard: str, sla: SlaRecorder
) -> None:
    """Given a cluster with IRSA roles, when it is destroyed, then no call touches a role.

    Before that its pods take their roles, with the trust policies as they are, and with one that forgot who is meant.
    """
    admin = aws.admin(ACCOUNT)
    for component in (*BEFORE_CLUSTER, "eks"):
        infra_cloud.apply(ACCOUNT, component, admin)
    if not roles(aws):  # they are not part of the cluster
        infra_cloud.apply(ACCOUNT, "irsa", admin)
    before = roles(aws)
    assert before
    try:
        if guard == "guard-on":
            pods_get_what_is_theirs(aws)
            with TrustedSubjects(DNS, ACCOUNT).removed(aws), pytest.raises(Incident, match="default/default got"):
                pods_get_what_is_theirs(aws)
        mark = aws.trail.mark()
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
