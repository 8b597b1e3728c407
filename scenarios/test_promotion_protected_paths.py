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

    # The way that is open: the promoter's account may, once somebody approved.
    stage.release(SERVICE, TAG, who=dana)
    stage.promoter.approve(stage.promoter.wait_asked(f"{SERVICE}@{TAG}", timeout=WITHIN))
    with sla.within("approval-to-production"):
        stage.wait_running(SERVICE, "production", TAG, timeout=WITHIN)

    # And back again in an incident: whoever is on call may, and the promoter leaves it so.
    promotion, message = stage.log("production", SERVICE)[-1]
    assert "Approved-By: " in message
    with pytest.raises(TestbedError, match="git push failed"):
        dana.revert(promotion)
    stage.gitops.git.clone(stage.name, ON_CALL, ON_CALL).revert(promotion)

    def held() -> tuple[bool, object]:
        step = stage.promoter.step(SERVICE, "production")
        return step.get("state") == "held" and "taken back there" in step["why"], step

    stage.promoter.wait_until("the promoter leaves what was taken back", held, WITHIN)
    assert stage.tag(SERVICE, "production") == FIRST_TAG
