"""How scenarios get at releases: what is refused, what is taken away, what a scenario is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.rollouts.fixtures import Delivery, Guarded
from testbed.rollouts.release import Release
from testbed.rollouts.weakened import NoSteps

STEPS = Release("checkout", without=NoSteps())


def delivery(step: int, missing: dict[str, str] | None = None) -> Delivery:
    analysis = {"stepWeight": step}
    found: Any = SimpleNamespace(
        name="checkout",
        spec={"analysis": analysis},
        facts={},
        problem="",
        too_slow=lambda: "",
        timeline=lambda: "1 s",
    )
    platform: Any = None
    return Delivery(platform, {} if missing else {"checkout": found}, missing or {}, 1)


def test_a_control_that_had_its_guard_is_refused_at_the_call() -> None:
    with Guarded("the steps", STEPS).removed(delivery(100)):
        pass
    for refused in (
        lambda: Guarded("the steps", STEPS).removed(delivery(10)),
        lambda: Guarded("the steps", STEPS, happened="Flagger is dead").removed(delivery(100)),
    ):
        with pytest.raises(TestbedError, match="the control checkout was not without the steps"):
            refused()


def test_a_scenario_is_told_why_its_release_has_no_outcome() -> None:
    with pytest.raises(TestbedError, match="nothing is known of the release checkout") as raised:
        delivery(100, {"checkout": "it never began"}).outcome(STEPS)
    assert raised.value.why == "it never began"


SCENARIO = """
from pathlib import Path
from types import SimpleNamespace

import pytest
from testbed.config import PlatformSpec
from testbed.errors import TestbedError
from testbed.rollouts import fixtures
from testbed.rollouts.release import Release

class Campaign:
    def __init__(self, *_): ...

    def run(self):
        raise TestbedError("Flagger did not make these services ready: checkout")

    def remove(self):
        with Path({removed!r}).open("a") as removed:
            removed.write("removed ")

fixtures.Campaign = Campaign

@pytest.fixture(scope="session")
def platform(request):
    return SimpleNamespace(spec=PlatformSpec())

@pytest.mark.parametrize("number", range(2))
@pytest.mark.releases(Release("checkout"), Release("other"))
@pytest.mark.scenario(guard=None, on="delivery")
def test_release(guard, delivery, number): ...
"""


def test_services_go_also_after_a_campaign_that_failed(pytester: pytest.Pytester) -> None:
    removed = pytester.path / "removed"
    pytester.makepyfile(SCENARIO.format(removed=str(removed)))
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*Flagger did not make these services ready: checkout"])
    assert removed.read_text() == "removed "


def test_releases_are_not_spread_over_workers(pytester: pytest.Pytester) -> None:
    removed = pytester.path / "removed"
    pytester.makepyfile(SCENARIO.format(removed=str(removed)))
    result = pytester.runpytest_subprocess("-n", "2", "--dist=loadfile")
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*releases cannot be spread over several workers*"])
    assert not removed.exists(), "nothing was begun"
