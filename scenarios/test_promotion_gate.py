"""A release is ill in staging: the health gate holds it back from production until it is well."""

from __future__ import annotations

import pytest

from testbed.addons.prometheus import Prometheus
from testbed.gitops.guards import Setting
from testbed.incident import Incident
from testbed.promotion.config import Protections
from testbed.promotion.fixtures import MakeStage
from testbed.promotion.processes import APPROVER, APPROVER_NAME
from testbed.sla import SlaRecorder
from testbed.wait import wait_until
from testbed.workloads.faults import Faults, flip

SERVICE, TAG = "checkout", "1.1.0"
FLAG = "new-pricing"
PROTECTED = Setting(on=Protections(), off=Protections(gate=False))
WITHIN = 60.0
"""Seconds for what has no SLA of its own."""


@pytest.mark.needs("promotion", "prometheus", "workloads", clusters=("staging", "production"))
@pytest.mark.scenario(guard=PROTECTED)
def test_ill_release_does_not_reach_production(make_stage: MakeStage, guard: str, sla: SlaRecorder) -> None:
    """Given the gate, when a release fails users in staging, then nobody is even asked to approve it."""
    stage = make_stage(SERVICE, time_scale=100, env=Faults(error_rate=0.5, flag=FLAG).env())
    stage.deploy()
    stage.start(PROTECTED.value)
    staging = stage.cluster("staging").client()
    flip(staging, stage.namespace(SERVICE), FLAG, True)  # a feature that is broken, and on in staging alone
    prometheus = stage.gitops.platform.addon(Prometheus, "staging")
    query = stage.success_rate().query.replace("{service}", SERVICE).replace("{range}", "4s")
    wait_until(
        "users fail in staging",
        lambda: ((rate := prometheus.value(query)) is not None and rate < 0.9, rate),
        timeout=WITHIN,
    )

    with sla.within("commit-to-staging"):
        stage.release(SERVICE, TAG)
        stage.wait_running(SERVICE, "staging", TAG, timeout=WITHIN)
    if PROTECTED.value.gate:

        def held() -> tuple[bool, object]:
            step = stage.promoter.step(SERVICE, "production")
            return step.get("state") == "held" and step["why"].startswith("success-rate: "), step

        stage.promoter.wait_until("the gate holds the release back", held, WITHIN)
        assert "at least 0.99 is asked for" in stage.promoter.step(SERVICE, "production")["why"]
        assert stage.promoter.messages() == []
        flip(staging, stage.namespace(SERVICE), FLAG, False)  # the feature is switched off: the release itself is good

    message = stage.promoter.wait_asked(f"{SERVICE}@{TAG}", timeout=WITHIN)
    stage.promoter.approve(message)
    with sla.within("approval-to-production"):
        stage.wait_running(SERVICE, "production", TAG, timeout=WITHIN)
    if (rate := prometheus.value(query)) is None or rate < 0.9:
        raise Incident(f"{SERVICE} {TAG} is in production although users fail in staging: success rate {rate}")

    (_, gate), (_, approved) = (stage.log(one, SERVICE)[-1] for one in ("staging", "production"))
    assert "Gate: healthy for 3 s, 2 checks" in gate
    assert f"Approved-By: {APPROVER_NAME} ({APPROVER})" in approved
    assert [entry[1].splitlines()[0] for entry in stage.log("dev", SERVICE)[-1:]] == [f"Deploy {SERVICE} {TAG} to dev"]
