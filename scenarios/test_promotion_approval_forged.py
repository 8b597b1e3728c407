"""Somebody tries to approve a release who must not, or in a way that does not count."""

from __future__ import annotations

import pytest

from testbed.addons.git_server import ON_CALL
from testbed.gitops.guards import Setting
from testbed.incident import Incident
from testbed.promotion import people
from testbed.promotion.config import Protections
from testbed.promotion.fixtures import MakeStage
from testbed.promotion.people import press, signed, unsigned
from testbed.promotion.processes import APPROVER, APPROVER_NAME, STRANGER
from testbed.promotion.stage import FIRST_TAG
from testbed.sla import SlaRecorder

SERVICE, TAG = "checkout", "1.1.0"
SIGNED = Setting(on=Protections(), off=Protections(signatures=False))
WITHIN = 60.0
"""Seconds for what has no SLA of its own."""


@pytest.mark.needs("promotion", "prometheus", "workloads", clusters=("staging", "production"))
@pytest.mark.scenario(guard=SIGNED)
def test_only_a_genuine_approval_counts(make_stage: MakeStage, guard: str, sla: SlaRecorder) -> None:
    """Given signed requests, when others are sent, then each is refused and recorded and production stays as it is."""
    stage = make_stage(SERVICE, time_scale=300)
    stage.deploy()
    stage.start(SIGNED.value)
    stage.release(SERVICE, TAG)
    message = stage.promoter.wait_asked(f"{SERVICE}@{TAG}", timeout=WITHIN)
    approve = press(message, APPROVER, "approve")

    forged = signed(approve, "guessed-secret")
    status, text = stage.promoter.send(forged)
    if status == 200:
        stage.wait_running(SERVICE, "production", TAG, timeout=WITHIN)
        raise Incident(f"a forged approval put {SERVICE} {TAG} into production: {text}")
    assert (status, text) == (401, "forged: a wrong signature")

    other = f"{SERVICE}@9.9.9 production"
    tries = {
        "unsigned": unsigned(approve),
        "late": stage.promoter.signed(approve, age=people.LATE),
        "may not approve": stage.promoter.signed(press(message, STRANGER, "approve")),
        "the button says": stage.promoter.signed(press(message, APPROVER, "approve", release=other)),
        "no release waits": stage.promoter.signed(press(message, APPROVER, "approve", request="0" * 32)),
    }
    for why, sent in tries.items():
        status, text = stage.promoter.send(sent)
        assert status in {401, 403, 409}, (why, status, text)
        assert why in text, (why, text)
    refused = [entry for entry in stage.promoter.ask("/audit") if entry["event"] == "refused"]
    assert len(refused) == len(tries) + 1
    assert stage.tag(SERVICE, "production") == FIRST_TAG

    # The promoter dies before it could act on the approval: it is not lost, and not acted on twice.
    restarts = stage.promoter.restarts
    genuine = stage.promoter.approve(message)
    stage.promoter.kill()
    with sla.within("approval-to-production"):
        stage.wait_running(SERVICE, "production", TAG, timeout=WITHIN)
    stage.promoter.wait_serving()
    assert stage.promoter.restarts == restarts + 1
    status, text = stage.promoter.send(genuine)
    assert (status, "replayed" in text) == (409, True), text
    status, text = stage.promoter.send(stage.promoter.signed(approve, age=1))  # the same button once more
    assert (status, "does not wait" in text) == (409, True), text

    promotions = [one for one in stage.log("production", SERVICE) if one[1].startswith("Promote ")]
    assert len(promotions) == 1
    commit, message = promotions[0]
    assert f"Approved-By: {APPROVER_NAME} ({APPROVER})" in message
    decided = [(entry["event"], entry["who"]) for entry in stage.promoter.ask("/audit") if entry["event"] == "approved"]
    assert decided == [("approved", APPROVER)]

    # Whoever is on call takes it back: the approval is used up, and the promoter leaves it so.
    stage.gitops.git.clone(stage.name, ON_CALL, ON_CALL).revert(commit)

    def held() -> tuple[bool, object]:
        step = stage.promoter.step(SERVICE, "production")
        return step.get("state") == "held" and "taken back there" in step["why"], step

    stage.promoter.wait_until("the promoter leaves what was taken back", held, WITHIN)
    assert stage.tag(SERVICE, "production") == FIRST_TAG
