"""A release begins to leak memory until the kernel kills it, again and again: it is rolled back."""

from __future__ import annotations

import pytest

from testbed.incident import Incident
from testbed.load import NOBODY
from testbed.rollouts.fixtures import NEEDS, Guarded
from testbed.rollouts.outcome import PROMOTING, UNDER_WAY, Outcome
from testbed.rollouts.release import BEFORE, FLAG, Release
from testbed.rollouts.rollout import FLIPPED
from testbed.rollouts.weakened import NoDeadline
from testbed.sla import SlaRecorder
from testbed.workloads.faults import Faults

# It is full after two seconds: before a pod counts as available again.
LEAKING = Faults(memory_mb_per_second=60, flag=FLAG)
ROLLED_BACK = Release("leak", faults=LEAKING, flip_at=20, min_ready=5, memory="160Mi")
LEFT = Release("leak-left", faults=LEAKING, flip_at=20, min_ready=5, memory="160Mi", enough=70, without=NoDeadline())


@pytest.mark.needs(*NEEDS)
@pytest.mark.releases(ROLLED_BACK, LEFT)
@pytest.mark.scenario(guard=Guarded("the platform's progress deadline", LEFT), on="delivery")
def test_a_release_that_leaks_memory_is_rolled_back(guard: str, rollout: Outcome, sla: SlaRecorder) -> None:
    """Given the deadline, when a version fills its memory and is OOMKilled in a loop, then all traffic goes back."""
    flipped = rollout.facts[FLIPPED]
    assert rollout.failed_between(rollout.released, flipped) == 0, "requests failed before the flag flipped"
    assert rollout.warned("OOMKilling: Memory limit exceeded"), (
        "the fault did not act: no pod was killed for its memory"
    )
    assert rollout.failed(NOBODY) > 0, "the fault did not act: every request had an answer"
    if rollout.phase in (*UNDER_WAY, *PROMOTING, "Succeeded"):
        still = rollout.failed_between(flipped + LEFT.enough - 20, flipped + LEFT.enough)
        assert still, "no user meets it any more, so nothing is left there"
        raise Incident(f"{still} requests failed in 20 s, a minute after the version began to leak: it is left there")
    assert (rollout.phase, rollout.primary) == ("Failed", BEFORE)
    assert rollout.heard("failed checks threshold reached") is None, "it was the checks that rolled it back"
    assert rollout.heard("updated replicas are available", since=flipped) is not None, "no pod was found unavailable"
    assert rollout.intervals[-1].failed == 0
    sla.record("crashing-rolled-back", rollout.first("Failed") - flipped)
