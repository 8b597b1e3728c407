"""Fifty deploys in a day by two teams that push at the same time: none is lost, none overtakes a newer one."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.errors import TestbedError
from testbed.gitops.guards import Setting
from testbed.gitops.repository import Repository
from testbed.incident import Incident
from testbed.promotion.config import Check, Protections
from testbed.promotion.fixtures import MakeStage
from testbed.promotion.stage import FIRST_TAG, SIMULATED, Stage
from testbed.sla import SlaRecorder

SERVICES = ("cart", "orders")
ROUNDS = 25
TAGS = [f"1.{number}.0" for number in range(1, ROUNDS + 1)]
PAUSES = 8
"""A team waits for every eighth release to run in dev; what comes at once after it supersedes it on its further way."""
OVERTAKEN = re.compile(r"fetch first|non-fast-forward|cannot lock ref|failed to update ref|rejected")
TRIES = 30
TIME_SCALE = 1440
"""A day is a minute, the gate's five minutes are a fifth of a second."""
FAST_FORWARD = Setting(on=Protections(), off=Protections(fast_forward=False))
ANSWERS = Check(name="prometheus-answers", query="vector(1)", minimum=1)
"""Health is another scenario's subject (test_promotion_gate.py)."""
FETCH = 3
"""Seconds; what the promoter knows is as old as that, until it pushes."""
WITHIN = 120.0
"""Seconds for one release's way to production on a busy machine."""


class Team:
    """A team that releases one service.

    Args:
        stage: The environments.
        number: Which service.
        over: Set when the day is over for everybody: a commit was lost.
    """

    def __init__(self, stage: Stage, number: int, over: threading.Event) -> None:
        self.stage = stage
        self.number = number
        self.service = SERVICES[number]
        self.over = over
        self.clone = stage.gitops.git.clone(stage.name, self.service)
        self.approved = False

    def day(self) -> None:
        """Push release after release, see some run in dev and the last one in production.

        Raises:
            Incident: A commit that the team had pushed is gone.
        """
        try:
            for place, tag in enumerate(TAGS):
                if self.over.is_set():
                    return
                self.push(tag)
                if tag == TAGS[-1]:
                    self.until("is in production", tag, self.in_production)
                elif (place + self.number) % PAUSES == 0:
                    self.until("runs in dev", tag, self.in_dev)
        except BaseException:
            self.over.set()
            raise

    def push(self, tag: str) -> None:
        """Push a release, again and again until nobody else was faster."""
        for _ in range(TRIES):
            try:
                self.stage.release(self.service, tag, who=self.clone)
                return
            except TestbedError as error:
                if not OVERTAKEN.search(error.why):
                    raise
        raise AssertionError(f"the push of {self.service} {tag} was overtaken {TRIES} times")

    def until(self, what: str, tag: str, done: Callable[[str], tuple[bool, object]]) -> None:
        """Wait for something; meanwhile no commit of the team may go."""

        def probe() -> tuple[bool, object]:
            self.clone.pull()
            there = pushed(self.stage, self.service, self.clone)
            gone = [one for one in TAGS[: TAGS.index(tag) + 1] if one not in there]
            if gone:
                raise Incident(f"commits of the team {self.service} are gone from the repository: {', '.join(gone)}")
            well, seen = done(tag)
            return well or self.over.is_set(), seen

        self.stage.promoter.wait_until(f"{self.service} {tag} {what}", probe, WITHIN)

    def in_dev(self, tag: str) -> tuple[bool, object]:
        """Whether a release runs in dev."""
        running = self.stage.running(self.service, "dev")
        return running == {tag}, running

    def in_production(self, tag: str) -> tuple[bool, object]:
        """Whether a release is in production; it is approved when that is asked for."""
        question = f"Release {self.service}@{tag} to production?"
        asked = [message for message in self.stage.promoter.messages() if message["text"] == question]
        if asked and not self.approved:
            try:
                self.stage.promoter.approve(asked[-1])
            except AssertionError as refusal:  # accepted before, by a promoter that was killed before it could say so
                if "already" not in str(refusal):
                    raise
            self.approved = True
        step = self.stage.promoter.step(self.service, "production")
        return self.stage.promoter.promoted(self.service, "production", tag), step


def pushed(stage: Stage, service: str, clone: Repository | None = None) -> list[str]:
    """The tags of a team's own commits to dev, in the order of the repository."""
    subjects = [message.splitlines()[0] for _, message in stage.log("dev", service, clone)]
    return [subject.split()[2] for subject in subjects if subject.startswith(f"Deploy {service} ")]


def promoted(stage: Stage, service: str, environment: str) -> list[str]:
    """The tags that were promoted into an environment, in order."""
    subjects = [message.splitlines()[0] for _, message in stage.log(environment, service)]
    return [subject.split()[1].partition("@")[2] for subject in subjects if subject.startswith("Promote ")]


@pytest.mark.needs("promotion", "prometheus", "workloads", clusters=("staging", "production"))
@pytest.mark.scenario(guard=FAST_FORWARD)
def test_fifty_deploys_none_lost_or_out_of_order(make_stage: MakeStage, guard: str, sla: SlaRecorder) -> None:
    """Given pushes that only go forward, when two teams and the promoter push all day, then every commit is there."""
    stage = make_stage(*SERVICES, time_scale=TIME_SCALE, image=SIMULATED)
    stage.deploy()
    stage.start(FAST_FORWARD.value, [ANSWERS], fetch_seconds=FETCH)
    over = threading.Event()
    teams = [Team(stage, number, over) for number in range(len(SERVICES))]
    with sla.within("fifty-deploys"), ThreadPoolExecutor(max_workers=len(teams)) as pool:
        days = [pool.submit(team.day) for team in teams]
        stage.promoter.kill()
        stage.promoter.wait_until(
            f"the first release of {SERVICES[0]} is in staging",
            lambda: (over.is_set() or stage.promoter.promoted(SERVICES[0], "staging", TAGS[0]), "not yet"),
            WITHIN,
        )
        stage.promoter.kill()  # in the middle of the day
        errors = [error for day in days if (error := day.exception()) is not None]
        for error in sorted(errors, key=lambda error: not isinstance(error, Incident)):
            raise error
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
