"""A static access key comes back into a workflow: it is found before the workflow runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.aws.accounts import ACCOUNTS, SHARED_SERVICES
from testbed.aws.cloud import Cloud
from testbed.aws.guards import ServiceControlPolicy
from testbed.incident import Incident
from testbed.pipelines.ci import SERVICE, Pipelines, WorkflowRefused
from testbed.pipelines.guards import WorkflowCheck
from testbed.sla import SlaRecorder

USER = "ci-orders"
BY_ROLE = "role-to-assume: ${{ vars.IMAGES_ROLE }}"
BY_KEY = "aws-access-key-id: ${{ secrets.KEY_ID }}\n          aws-secret-access-key: ${{ secrets.KEY_SECRET }}"


@pytest.fixture
def old_key(aws: Cloud) -> Iterator[dict[str, str]]:
    """A key from before the policy that forbids to make any: somebody still has it in their secrets."""
    iam = aws.bootstrap(ACCOUNTS[SHARED_SERVICES]).client("iam")
    power = "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPowerUser"
    with ServiceControlPolicy("no-static-keys").removed(aws):
        iam.create_user(UserName=USER)
        iam.attach_user_policy(UserName=USER, PolicyArn=power)
        key = iam.create_access_key(UserName=USER)["AccessKey"]
    yield {"KEY_ID": key["AccessKeyId"], "KEY_SECRET": key["SecretAccessKey"]}
    iam.delete_access_key(UserName=USER, AccessKeyId=key["AccessKeyId"])
    iam.detach_user_policy(UserName=USER, PolicyArn=power)
    iam.delete_user(UserName=USER)


@pytest.mark.scenario(guard=WorkflowCheck(), on="pipelines")
def test_workflow_with_a_static_key_does_not_run(
    aws: Cloud, pipelines: Pipelines, old_key: dict[str, str], guard: str, sla: SlaRecorder
) -> None:
    """Given the check of workflows, when a key is planted in one, then it is named and no call is made with it."""
    planted = pipelines.workflow().replace(BY_ROLE, BY_KEY)
    assert planted != pipelines.workflow()
    mark = aws.trail.mark()
    run, refused = None, None
    with sla.within("workflow-check"):
        try:
            run = pipelines.push(workflow=planted, secrets=old_key)
        except WorkflowRefused as error:
            refused = error
    if refused is not None:
        assert "aws-access-key-id is a static credential" in refused.why
        assert "takes AWS credentials without a role" in refused.why
        assert aws.trail.events(SHARED_SERVICES, after=mark) == []
        assert pipelines.registry.tags(SERVICE) == []
        return
    assert run is not None
    assert run.code == 0, run.output
    assert old_key["KEY_SECRET"] not in run.output
    used = [event for event in aws.trail.events(SHARED_SERVICES, after=mark) if event.credential == "static key"]
    assert used, "the planted key was not used: the control proves nothing"
    raise Incident(f"a static key is in use again: {used[0]}, image {pipelines.registry.tags(SERVICE)}")
