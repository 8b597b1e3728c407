"""Which tests run where no platform comes up for them, or on one that was there before."""

from __future__ import annotations

import pytest

from testbed import needs
from testbed.cluster import ClusterSpec
from testbed.config import PlatformSpec

BROKEN = """
import testbed.fixtures
from testbed.errors import TestbedError
from testbed.platform import Platform

def up(spec, folder, toolchain, say):
    with open("tried", "a") as tried:
        tried.write(folder.name.split("-")[-1] + " ")
    raise TestbedError("etcd is ill", fix="see its log")

Platform.up = up
testbed.fixtures.build_with_progress = lambda toolchain, tools: None
"""
SCENARIOS = """
import pytest

@pytest.mark.needs("gatekeeper")
@pytest.mark.parametrize("number", range(3))
def test_core(platform, number): ...

@pytest.mark.needs("argo-cd")
def test_gitops(platform): ...

def test_neither(): ...
"""
ASKING = """
import pytest

@pytest.mark.needs("prometheus", "control-plane-faults")
def test_one(platform): ...

@pytest.mark.needs("argo-cd", "gatekeeper", clusters=("staging",))
def test_two(platform): ...
"""


def test_lanes_do_not_fail_for_another(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(BROKEN)
    pytester.makepyfile(SCENARIOS)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, errors=4)
    assert sorted((pytester.path / "tried").read_text().split()) == ["core", "gitops"]
    result.stdout.fnmatch_lines(["*there is no platform for the lane core: etcd is ill*"])


@pytest.mark.parametrize(
    ("spec", "one", "two"),
    [
        ({"addons": ["gatekeeper"]}, "no prometheus on dev", "no cluster staging"),
        ({"addons": ["flagger"]}, "", "no cluster staging"),
        (
            {"addons": ["argo-cd"], "clusters": [ClusterSpec(), ClusterSpec(name="staging")]},
            "no prometheus on dev",
            "no gatekeeper on dev, no gatekeeper on staging",
        ),
        (
            {"addons": ["argo-cd", "gatekeeper"], "clusters": [ClusterSpec(), ClusterSpec(name="staging")]},
            "no prometheus on dev",
            "",
        ),
        ({"addons": ["prometheus"], "backend": "existing"}, "lacks what the scenario needs", "no cluster staging"),
    ],
)
def test_what_a_platform_lacks(pytester: pytest.Pytester, spec: dict[str, object], one: str, two: str) -> None:
    first, second = pytester.getitems(ASKING)
    for item, said in ((first, one), (second, two)):
        reason = needs.missing(item, PlatformSpec.model_validate(spec))
        assert said in reason
        assert bool(reason) == bool(said)
