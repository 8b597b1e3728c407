"""A feature flag that is turned on in the middle of a release brings errors: the release is rolled back."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import Outcome
from testbed.rollouts.release import AFTER, BEFORE, FLAG, Release
from testbed.rollouts.weakened import SUCCESS_RATE, NoCheck
from testbed.sla import SlaRecorder
from testbed.workloads.faults import Faults

MISCONFIGURED = Faults(error_rate=0.7, flag=FLAG)
FLIPPED = Release("flag", faults=MISCONFIGURED, flip_at=20)
UNCHECKED = Release("flag-unchecked", faults=MISCONFIGURED, flip_at=20, without=NoCheck(SUCCESS_RATE))


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(FLIPPED, UNCHECKED)
@pytest.mark.scenario(guard=Guarded("the check of the success rate", UNCHECKED), on="delivery")
def test_errors_behind_a_feature_flag_are_rolled_back(guard: str, rollout: Outcome, sla: SlaRecorder) -> None:
    """Given the success rate's check, when a flag brings errors in mid-release, then all traffic goes back."""
    flipped = rollout.facts["the flag flips"]
    before = [one.releases[AFTER] for one in rollout.intervals if one.end < flipped and AFTER in one.releases]
    assert before, "the new version had no traffic before the flag flipped"
    assert sum(one.failed for one in before) == 0, "the new version failed before the flag flipped"
    assert rollout.failed(AFTER) > 0, "the fault did not act: no request failed on the new version"
    assert rollout.failed(BEFORE) == 0
    if rollout.phase == "Succeeded":
        raise Incident(f"the version with the bad flag was promoted: {rollout.failed(AFTER)} requests failed")
    assert (rollout.phase, rollout.primary) == ("Failed", BEFORE)
    assert max(rollout.weights()) <= 30
    assert rollout.heard(f"advancement {SUCCESS_RATE}") is not None
    assert rollout.intervals[-1].failed == 0
    sla.record("mttr-rollback", rollout.first("Failed") - flipped)
