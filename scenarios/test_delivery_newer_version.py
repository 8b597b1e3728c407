"""A newer version comes while the one before it is being released: it is judged anew, from the first step."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import AFTER, BEFORE, NEWER, Release
from testbed.rollouts.rollout import NEWER_RELEASED
from testbed.rollouts.weakened import SUCCESS_RATE, NoSteps
from testbed.sla import SlaRecorder
from testbed.workloads.faults import Faults

# The first one is good; the newer one must not be taken for it.
BAD = Faults(error_rate=0.7)
OVERTAKEN = Release("overtaken", newer=BAD)
AT_ONCE = Release("overtaken-at-once", newer=BAD, without=NoSteps())


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(OVERTAKEN, AT_ONCE)
@pytest.mark.scenario(guard=Guarded("steps of 10 percent", AT_ONCE), on="delivery")
def test_a_newer_version_is_judged_anew(guard: str, rollout: Outcome, sla: SlaRecorder) -> None:
    """Given the steps, when a bad version overtakes a good one, then the analysis restarts and neither is promoted."""
    came = rollout.facts[NEWER_RELEASED]
    assert rollout.answers(AFTER) > 0, "the first version had no traffic before the newer one came"
    assert rollout.failed(NEWER) > 0, "the fault did not act: no request failed on the newer version"
    assert rollout.failed(AFTER) + rollout.failed(BEFORE) == 0
    assert rollout.heard("New revision detected! Restarting analysis") is not None
    assert rollout.heard(f"advancement {SUCCESS_RATE}") is not None, (
        "no check of the success rate failed: the newer version was not judged by its own errors"
    )
    assert (rollout.phase, rollout.primary) == ("Failed", BEFORE)
    back = rollout.first("Failed")
    share = rollout.share(AFTER, rollout.exposed(), back) + rollout.share(NEWER, came, back)
    if rollout.weights()[0] == 100:
        assert share > 0.4
        raise Incident(f"{rollout.failed(NEWER)} requests failed on a version that had all traffic before any check")
    assert set(rollout.weights()) == {10}, "a version went beyond the first step"
    assert share < 0.25, "the two versions together had more than a step's traffic"
    assert rollout.intervals[-1].failed == 0
    restarted = next(one.at for one in rollout.moments if one.at > came and one.weight == 10)
    sla.record("mttr-rollback", back - restarted)
