"""A developer in a hurry commits a tag to production by hand: no gate, nobody's approval."""

from __future__ import annotations

import pytest

from testbed.addons.git_server import ON_CALL, PROMOTER
from testbed.errors import TestbedError
from testbed.gitops.guards import Setting
from testbed.incident import Incident
from testbed.promotion.config import Check, Protections
from testbed.promotion.fixtures import MakeStage
from testbed.promotion.stage import FIRST_TAG, PROTECTED, SIMULATED, values_path
from testbed.sla import SlaRecorder

SERVICE, TAG = "checkout", "1.1.0"
TIME_SCALE = 1440
PATHS = Setting(on=PROTECTED, off=())
ANSWERS = Check(name="prometheus-answers", query="vector(1)", minimum=1)
"""Health is another scenario's subject (test_promotion_gate.py)."""
WITHIN = 60.0
"""Seconds for what has no SLA of its own."""


@pytest.mark.needs("promotion", "prometheus", "workloads", clusters=("staging", "production"))
@pytest.mark.scenario(guard=PATHS)
def test_nobody_commits_to_production_by_hand(make_stage: MakeStage, guard: str, sla: SlaRecorder) -> None:
    """Given protected paths, when a developer pushes a tag to production, then it is refused and production stays."""
    stage = make_stage(SERVICE, time_scale=TIME_SCALE, image=SIMULATED, protected=PATHS.value)
    stage.deploy()
    stage.start(Protections(), [ANSWERS])
    dana = stage.gitops.git.clone(stage.name, "dana")
    refused = None
    with sla.within("push-refused"):
        try:
            stage.release(SERVICE, TAG, "production", who=dana)
        except TestbedError as error:
            refused = error
    if refused is None:
        stage.wait_running(SERVICE, "production", TAG, timeout=WITHIN)
        approved = [entry for entry in stage.promoter.ask("/audit") if entry["event"] == "approved"]
        assert not approved, f"somebody approved it: {approved}"
        raise Incident(
            f"{SERVICE} {TAG} runs in production, and nobody approved it: {stage.log('production', SERVICE)[-1]}"
        )
    path = values_path(SERVICE, "production")
    assert f"{path} is protected: developers may not change it, only {PROMOTER}, {ON_CALL}" in refused.why
    assert stage.tag(SERVICE, "production") == FIRST_TAG
    assert stage.running(SERVICE, "production") == {FIRST_TAG}

    # The promoter's own way there is test_promotion_approval_forged.py's subject; whoever is on call has one in need.
    stage.release(SERVICE, TAG, "production", who=stage.gitops.git.clone(stage.name, ON_CALL, ON_CALL))
    assert stage.tag(SERVICE, "production") == TAG
