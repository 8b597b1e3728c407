"""Fifty deploys in a day by five teams that push at the same time: none is lost, none overtakes a newer one."""

from __future__ import annotations

import re
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest

from testbed.errors import TestbedError
from testbed.gitops.guards import Setting
from testbed.gitops.repository import Repository
from testbed.incident import Incident
from testbed.promotion.config import Check, Protections
from testbed.promotion.fixtures import MakeStage
from testbed.promotion.stage import FIRST_TAG, SIMULATED, Stage
from testbed.sla import SlaRecorder

SERVICES = ("cart", "catalog", "checkout", "orders", "search")
ROUNDS = 10
TAGS = [f"1.{number}.0" for number in range(1, ROUNDS + 1)]
PAUSES = 5
"""A team sees every fifth release through to staging, each team others: somebody always pushes."""
OVERTAKEN = re.compile(r"fetch first|non-fast-forward|cannot lock ref|failed to update ref|rejected")
TRIES = 30
TIME_SCALE = 1440
"""A day is a minute, the gate's five minutes are a fifth of a second."""
FAST_FORWARD = Setting(on=Protections(), off=Protections(fast_forward=False))
ANSWERS = Check(name="prometheus-answers", query="vector(1)", minimum=1)
"""Health is another scenario's subject (test_promotion_gate.py)."""
WITHIN = 120.0
"""Seconds for one release's way to production on a busy machine."""


def team(stage: Stage, number: int) -> None:
    """What a team does all day: push release after release, see some through to staging and the last to production.

    Raises:
        Incident: A commit that it had pushed is gone.
    """
    service = SERVICES[number]
    clone = stage.gitops.git.clone(stage.name, service)
    for place, tag in enumerate(TAGS):
        push(stage, service, tag, clone)
        if (place + number) % PAUSES == 0 or tag == TAGS[-1]:
            see_through(stage, service, tag, clone)


def push(stage: Stage, service: str, tag: str, clone: Repository) -> None:
    """Push a release, again and again until nobody else was faster."""
    for _ in range(TRIES):
        try:
            stage.release(service, tag, who=clone)
            return
        except TestbedError as error:
            if not OVERTAKEN.search(error.why):
                raise
    raise AssertionError(f"the push of {service} {tag} was overtaken {TRIES} times")


def see_through(stage: Stage, service: str, tag: str, clone: Repository) -> None:
    """Wait until a release is in staging, or the last one in production; meanwhile no commit of the team may go."""
    target = "production" if tag == TAGS[-1] else "staging"
    approved = False

    def probe() -> tuple[bool, object]:
        nonlocal approved
        clone.pull()
        before = TAGS[: TAGS.index(tag) + 1]
        gone = [one for one in before if one not in pushed(stage, service, clone)]
        if gone:
            raise Incident(f"commits of the team {service} are gone from the repository: {', '.join(gone)}")
        asked = [
            message
            for message in stage.promoter.messages()
            if message["text"] == f"Release {service}@{tag} to production?"
        ]
        if target == "production" and asked and not approved:
            try:
                stage.promoter.approve(asked[-1])
            except AssertionError as refusal:  # accepted before, by a promoter that was killed before it could say so
                if "already" not in str(refusal):
                    raise
            approved = True
        return stage.promoter.promoted(service, target, tag), stage.promoter.step(service, target)

    stage.promoter.wait_until(f"{service} {tag} is in {target}", probe, WITHIN)


def pushed(stage: Stage, service: str, clone: Repository | None = None) -> list[str]:
    """The tags of a team's own commits to dev, in the order of the repository."""
    subjects = [message.splitlines()[0] for _, message in stage.log("dev", service, clone)]
    return [subject.split()[2] for subject in subjects if subject.startswith(f"Deploy {service} ")]


def promoted(stage: Stage, service: str, environment: str) -> list[str]:
    """The tags that were promoted into an environment, in order."""
    subjects = [message.splitlines()[0] for _, message in stage.log(environment, service)]
    return [subject.split()[1].partition("@")[2] for subject in subjects if subject.startswith("Promote ")]


@pytest.mark.needs("argo-cd", "prometheus", "workloads", clusters=("staging", "production"))
@pytest.mark.scenario(guard=FAST_FORWARD)
def test_fifty_deploys_none_lost_or_out_of_order(make_stage: MakeStage, guard: str, sla: SlaRecorder) -> None:
    """Given pushes that only go forward, when five teams and the promoter push all day, then every commit is there."""
    stage = make_stage(*SERVICES, time_scale=TIME_SCALE, image=SIMULATED)
    stage.deploy()
    stage.start(FAST_FORWARD.value, [ANSWERS])
    with sla.within("fifty-deploys"), ThreadPoolExecutor(max_workers=len(SERVICES)) as pool:
        teams = [pool.submit(team, stage, number) for number in range(len(SERVICES))]
        stage.promoter.kill()  # and once more in the middle of the day
        wait(teams, return_when=FIRST_COMPLETED)
        stage.promoter.kill()
        for one in teams:
            one.result()
    assert stage.promoter.restarts == 2
    for service in SERVICES:
        assert pushed(stage, service) == TAGS, f"{service}: out of order in dev"
        for environment in ("staging", "production"):
            way = promoted(stage, service, environment)
            places = [TAGS.index(tag) for tag in way]
            assert places == sorted(set(places)), f"{service}: twice or out of order in {environment}: {way}"
            assert way[-1] == TAGS[-1]
        assert promoted(stage, service, "production") == TAGS[-1:]
        history = stage.promoter.ask(f"/history/{service}")
        assert [entry["tag"] for entry in history] == [FIRST_TAG, *TAGS]
        assert all(entry["production"] != "pending" for entry in history), f"{service}: a release is unaccounted for"
