"""A run under pytest-xdist: workers share one platform, the last one out stops it, and failures leave evidence."""

from __future__ import annotations

import json

import psutil
import pytest

from testbed.toolchain import Toolchain

SCENARIOS = """
import os
from pathlib import Path

import pytest
from testbed.guards import Constraint
from testbed.incident import Incident

GUARD = Constraint("CostAllocationTags", "cost-allocation-tags")

@pytest.mark.needs("gatekeeper")
@pytest.mark.scenario(guard=GUARD)
@pytest.mark.parametrize("number", range(3))
def test_breaks(platform, guard, namespace, number):
    worker = os.environ["PYTEST_XDIST_WORKER"]
    (Path({here!r}) / f"{{worker}}-{{number}}-{{guard}}").write_text(str(platform.supervisor.folder))
    kube = platform.cluster.client()
    kube.apply({{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "left"}}}}, namespace=namespace)
    raise Incident(f"seen {{number}}")
"""


def test_workers_share_a_platform_and_failures_leave_evidence(
    toolchain: Toolchain, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytester moves the home folder, and with it the cache of the tools would be an empty one.
    monkeypatch.setenv("TESTBED_CACHE", str(toolchain.cache))
    here = pytester.mkdir("seen")
    pytester.makepyfile(SCENARIOS.format(here=str(here)))
    result = pytester.runpytest_subprocess("-n", "2", "--dist=load", "--junit-xml=junit.xml")
    result.assert_outcomes(passed=3, failed=3)
    notes = list(here.iterdir())
    assert len(notes) == 6
    assert {path.name.split("-")[0] for path in notes} == {"gw0", "gw1"}
    (folder,) = {path.read_text() for path in notes}
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if folder in " ".join(process.info["cmdline"] or [])
    ]
    scenarios = json.loads((pytester.path / ".testbed/report.json").read_text())["scenarios"]
    assert {(one["guard"], one["control"]) for one in scenarios.values()} == {("NOT HELD", "incident seen")}
    evidence = pytester.path / ".testbed/evidence/test_breaks_guard-on-0_"
    assert str(evidence.relative_to(pytester.path)) in result.stdout.str()
    assert "EncryptedVolumes" in (evidence / "dev-gatekeeper-controller.log").read_text()
    assert json.loads((evidence / "components.json").read_text())["components"]
    assert isinstance(json.loads((evidence / "dev-events.json").read_text()), list)
    # Of the scenario before, too, if its namespace is of the same second and still being deleted.
    objects = [json.loads(path.read_text()) for path in evidence.glob("dev-scenario-*.json")]
    assert "left" in {found["metadata"]["name"] for one in objects for found in one.get("core/ConfigMap", [])}
    constraints = json.loads((evidence / "dev-custom-resources.json").read_text())
    assert "constraints.gatekeeper.sh/CostAllocationTags" in constraints
    assert next(iter(scenarios.values()))["evidence"]["guard-on"].startswith(".testbed/evidence/test_breaks_guard-on")
    assert "testbed.evidence" in (pytester.path / "junit.xml").read_text()
    assert "testbed.fidelity" in (pytester.path / "junit.xml").read_text()
