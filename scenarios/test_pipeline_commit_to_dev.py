"""A developer's commit runs in dev by the pipeline and Argo CD alone; one whose tests fail does not."""

from __future__ import annotations

import json

import pytest

from testbed.errors import WaitTimeout
from testbed.gitops.guards import Setting
from testbed.gitops.infra_apps import InfraApps
from testbed.incident import Incident
from testbed.pipelines.ci import SERVICE, Pipelines
from testbed.platform import Platform
from testbed.report.verdicts import record
from testbed.sla import SlaRecorder

APPLICATION = f"{SERVICE}-dev"
NEEDS_TESTS = "    needs: test\n"
TESTED = Setting(on=NEEDS_TESTS, off="")
"""An image is built only when the tests have passed; off, somebody has taken that out: "it is faster"."""
WITHIN = 60.0
"""Seconds for what has no SLA of its own."""


@pytest.mark.needs("argo-cd", "gatekeeper")
@pytest.mark.scenario(guard=TESTED)
def test_a_commit_runs_in_dev_unless_its_tests_fail(
    platform: Platform,
    infra_apps: InfraApps,
    platform_pipelines: Pipelines,
    images_role: str,
    guard: str,
    sla: SlaRecorder,
    request: pytest.FixtureRequest,
) -> None:
    """Given pipeline and platform, when commits are pushed, then the tested one runs in dev and the other nowhere."""
    ci, gitops = platform_pipelines, infra_apps.gitops
    told = [*platform.fidelity({"argo-cd", "gatekeeper"}), *ci.fidelity(), infra_apps.fidelity()]
    record(request.node, "fidelity", json.dumps([f"{one.part}: {one.simulated}" for one in told if one.simulated]))
    infra_apps.keep_services(SERVICE)
    infra_apps.deploy(components=infra_apps.components("baseline"), environments=["dev"])
    gitops.wait_synced(APPLICATION, infra_apps.repository.head, timeout=WITHIN, healthy=True)
    workflow = ci.workflow().replace(NEEDS_TESTS, TESTED.value)
    assert NEEDS_TESTS in ci.workflow()

    with sla.within("commit-to-dev") as limit:
        good = ci.push(role=images_role, workflow=workflow)
        assert good.jobs == {"test": True, "image": True, "deploy": True}, good.output
        infra_apps.repository.pull()
        try:
            with sla.within("commit-to-running") as running:
                gitops.wait_synced(APPLICATION, infra_apps.repository.head, timeout=min(running, limit), healthy=True)
        except WaitTimeout as still:
            raise Incident(f"the released tag does not run in dev: {still.why}") from None
    tag = good.sha[:12]
    assert_runs(platform, tag)
    assert ci.registry.tags(SERVICE) == [tag]
    assert f"Source-Commit: {good.sha}" in infra_apps.repository.git("log", "-1", "--format=%B")

    right = ci.source("main.go")
    wrong = right.replace("sum += price", "sum -= price")
    assert wrong != right
    bad = ci.push(role=images_role, workflow=workflow, changed={"main.go": wrong})
    assert bad.jobs["test"] is False, "its tests passed, so nothing was wrong with it"
    infra_apps.repository.pull()
    gitops.wait_synced(APPLICATION, infra_apps.repository.head, timeout=WITHIN, healthy=True)
    if bad.sha[:12] in ci.registry.tags(SERVICE):
        assert_runs(platform, bad.sha[:12])
        raise Incident(f"{SERVICE} {bad.sha[:12]} runs in dev although its tests fail: {ci.deployments()[-1]}")
    assert "image" not in bad.jobs
    assert_runs(platform, tag)


def assert_runs(platform: Platform, tag: str) -> None:
    """The Deployment in dev is rolled out with a tag."""
    found = platform.cluster.client().get("Deployment", SERVICE, namespace=SERVICE, api_version="apps/v1")
    assert found is not None
    assert found["spec"]["template"]["spec"]["containers"][0]["image"].endswith(f"/{SERVICE}:{tag}")
    assert found["status"]["updatedReplicas"] == found["status"]["readyReplicas"] == 1
