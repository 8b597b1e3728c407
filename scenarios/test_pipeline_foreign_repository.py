"""A pipeline releases with an OIDC token and no key; the same workflow in somebody else's repository gets nothing."""

from __future__ import annotations

import pytest

from testbed.aws.accounts import SHARED_SERVICES
from testbed.aws.cloud import Cloud
from testbed.incident import Incident
from testbed.pipelines.ci import SERVICE, Pipelines
from testbed.pipelines.guards import TrustedSubjects
from testbed.sla import SlaRecorder

ROLE = "github-images"
FOREIGN = f"intruder/{SERVICE}"


@pytest.mark.scenario(guard=TrustedSubjects(ROLE), on="aws")
def test_foreign_repository_cannot_push_an_image(
    aws: Cloud, images_role: str, guard: str, pipelines: Pipelines, sla: SlaRecorder
) -> None:
    """Given the role's trust in our repositories, when another one runs our workflow, then it gets no credentials."""
    mark = aws.trail.mark()
    with sla.within("pipeline-release"):
        ours = pipelines.push(role=images_role)
    assert ours.code == 0, ours.output
    assert ours.jobs == {"test": True, "image": True, "deploy": True}
    tag = ours.sha[:12]
    assert pipelines.registry.tags(SERVICE) == [tag]
    assert pipelines.registry.config(f"{SERVICE}:{tag}")["config"]["Entrypoint"] == [f"/usr/bin/{SERVICE}"]
    assert pipelines.deployments() == [f"Deploy {SERVICE} {tag} to dev"]
    assert f'tag: "{tag}"\n' in pipelines.values()
    calls = aws.trail.events(SHARED_SERVICES, after=mark)
    assert [(event.name, event.credential) for event in calls] == [
        ("AssumeRoleWithWebIdentity", "web identity"),
        ("GetAuthorizationToken", "web identity"),
    ]

    theirs = pipelines.push(FOREIGN, role=images_role)
    assert theirs.tokens == 1, "its job took no token, so nothing was tried"
    pushed = [tag for tag in pipelines.registry.tags(SERVICE) if tag == theirs.sha[:12]]
    if pushed:
        raise Incident(f"{FOREIGN} pushed {SERVICE}:{pushed[0]}, deployments: {pipelines.deployments()}")
    assert theirs.jobs == {"test": True, "image": False}
    assert "Not authorized to perform sts:AssumeRoleWithWebIdentity" in theirs.output
    assert pipelines.deployments() == [f"Deploy {SERVICE} {tag} to dev"]

    branch = pipelines.push(role=images_role, branch="feature", workflow=_on_every_branch(pipelines.workflow()))
    assert branch.tokens == 1
    assert branch.jobs == {"test": True, "image": False}, "a branch that nobody reviewed got the role"


def _on_every_branch(workflow: str) -> str:
    """What somebody may write who can push a branch, but not to main."""
    changed = workflow.replace("branches: [main]", 'branches: ["**"]')
    assert changed != workflow
    return changed
