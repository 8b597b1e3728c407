"""Prometheus is down in the middle of an analysis: without data nothing is promoted."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import BEFORE, Release
from testbed.rollouts.weakened import NoCheck
from testbed.sla import SlaRecorder

DOWN = "Prometheus is down"
CHECKED = Release("blind", trial="prometheus-down")
UNCHECKED = Release("blind-unchecked", trial="prometheus-down", without=NoCheck())


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(CHECKED, UNCHECKED)
@pytest.mark.scenario(guard=Guarded("every metric check", UNCHECKED, happened=DOWN), on="delivery")
def test_missing_data_promotes_nothing(guard: str, rollout: Outcome, sla: SlaRecorder) -> None:
    """Given the metric checks, when Prometheus goes down in mid-analysis, then the release goes back, not on."""
    down = rollout.facts[DOWN]
    before = [moment.weight for moment in rollout.moments if moment.at <= down]
    during = [moment for moment in rollout.moments if moment.at > down]
    assert before, "the analysis had not begun when Prometheus went down"
    assert before[-1] >= 10, "the analysis had not begun when Prometheus went down"
    if further := [moment.weight for moment in during if moment.weight > before[-1]]:
        raise Incident(f"the canary went on from {before[-1]} to {further[0]} percent without any data")
    assert (rollout.phase, rollout.primary) == ("Failed", BEFORE)
    assert rollout.heard("Metric query failed") is not None
    assert rollout.load.lost == 0
    sla.record("rollback-without-data", rollout.first("Failed") - down)
