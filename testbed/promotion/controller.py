"""The decision what is promoted next. Every look starts from the repository; nothing is remembered but approvals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from slack_sdk.errors import SlackClientError

from testbed.errors import TestbedError
from testbed.promotion.config import Environment, Settings
from testbed.promotion.gate import GatePort
from testbed.promotion.health import KUBERNETES_ERRORS, HealthPort
from testbed.promotion.ledger import Ledger, Request
from testbed.promotion.releases import Deployed, Release
from testbed.promotion.repository import Repository
from testbed.promotion.slack import NotificationPort

logger = logging.getLogger("promoter")
NOT_NOW = (TestbedError, SlackClientError, *KUBERNETES_ERRORS)
"""What a neighbour that is down or restarting answers with; the next look tries again."""


@dataclass(frozen=True)
class Step:
    """Where a release stands on its way from one environment to the next."""

    service: str
    source: str
    target: str
    release: str
    runs: str
    """The tag in the target."""
    state: str
    """`even`, `held`, `waiting for approval`, `promoted` or `failed`."""
    why: str


class Controller:
    """Looks at every service and promotes what may be promoted.

    Args:
        settings: What there is.
        repository: The GitOps repository.
        health: How the services are.
        gate: Whether they were well for long enough.
        notifications: Where approvals are asked for.
        ledger: Approvals and the audit.
        clock: Unix time.
    """

    def __init__(
        self,
        settings: Settings,
        repository: Repository,
        health: HealthPort,
        gate: GatePort,
        notifications: NotificationPort,
        ledger: Ledger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.repository = repository
        self.ledger = ledger
        self._health = health
        self._gate = gate
        self._notifications = notifications
        self._clock = clock
        self._steps: dict[tuple[str, str], Step] = {}
        self._recorded: set[str] = set()
        self.failure = ""
        """Why the last look could not be done; empty when it was."""

    def look(self, *, pushed: bool = True) -> bool:
        """Look once at everything; returns whether something was promoted.

        Args:
            pushed: Whether somebody may have pushed just now; without it the last fetch may be good enough.
        """
        try:
            self.repository.refresh(within=0 if pushed else self.settings.fetch_seconds)
            self._health.look()
            services = self.repository.services()
        except NOT_NOW as error:
            self.failure = f"{type(error).__name__}: {error}"
            logger.warning("no look: %s", self.failure)
            return False
        self.failure = ""
        moved = False
        for service in services:
            for source, target in pairwise(self.settings.environments):
                try:
                    step = self._step(service, source, target)
                except NOT_NOW as error:
                    step = Step(service, source.name, target.name, "", "", "failed", f"{type(error).__name__}: {error}")
                moved |= step.state == "promoted"
                if self._steps.get((service, target.name)) != step:
                    self._steps[service, target.name] = step
                    logger.info("%s: %s > %s, %s (there: %s): %s %s", *asdict(step).values())
        return moved

    def steps(self) -> list[dict[str, Any]]:
        """What the last look saw."""
        return [asdict(step) for step in self._steps.values()]

    def history(self, service: str) -> list[dict[str, Any]]:
        """Every release of a service in order, with the commit that brought it to each environment.

        A release that has none for an environment and is older than one that has, was superseded.
        """
        later = [environment.name for environment in self.settings.environments[1:]]
        promotions = {name: self.repository.promotions(service, name) for name in later}
        releases = self.repository.releases(service)
        place = {release.commit: number for number, release in enumerate(releases)}
        newest = {
            name: max((place.get(source, -1) for _, source in found), default=-1) for name, found in promotions.items()
        }
        entries = []
        for number, release in enumerate(releases):
            entry: dict[str, Any] = {"tag": release.tag, "commit": release.commit}
            for name in later:
                commits = [commit for commit, source in promotions[name] if source == release.commit]
                entry[name] = commits or ("superseded" if number < newest[name] else "pending")
            entries.append(entry)
        return entries

    def current(self, request: Request) -> bool:
        """Whether a request is for the release that its environment would be given now."""
        names = [environment.name for environment in self.settings.environments]
        source = names[names.index(request.environment) - 1]
        deployed = self.repository.deployed(request.service, source)
        releases = self.repository.releases(request.service)
        return deployed is not None and self._release(deployed, releases) == request.release

    def _release(self, deployed: Deployed, releases: list[Release]) -> Release | None:
        """The release that an environment has: by its promotion's trailer, else the last one of its tag."""
        for release in reversed(releases):
            if release.commit == deployed.release_commit and release.tag == deployed.tag:
                return release
        return next((release for release in reversed(releases) if release.tag == deployed.tag), None)

    def _step(self, service: str, source: Environment, target: Environment) -> Step:
        releases = self.repository.releases(service)
        here, there = (self.repository.deployed(service, one.name) for one in (source, target))

        def step(state: str, why: str, release: object = here.tag if here else "") -> Step:
            return Step(service, source.name, target.name, str(release), there.tag if there else "", state, why)

        if here is None or there is None:
            return step("held", f"there is no tag of {service} in {(source if here is None else target).name}")
        # In the first environment a release is what was pushed last, whatever tag that is: a revert moves forward, too.
        release = releases[-1] if source is self.settings.environments[0] else self._release(here, releases)
        if release is None:
            return step("held", f"{here.tag} in {source.name} never was in {self.settings.environments[0].name}")
        if here.tag == there.tag:
            self._remember(release, there, target)
            return step("even", "", release)
        before = self._release(there, releases)
        if before is not None and releases.index(before) > releases.index(release):
            return step("held", f"{target.name} has {before} already, which is newer", release)
        if any(
            source_commit == release.commit for _, source_commit in self.repository.promotions(service, target.name)
        ):
            # What is there now came after it, by somebody's hand: most likely a `git revert` in an incident.
            return step("held", f"it was in {target.name} and was taken back there; release anew", release)
        now = self._clock()
        health = self._health.of(service, source.name, release.tag)
        if not health.healthy:
            return step("held", health.why, release)
        verdict = self._gate.verdict(service, source.name, health.since, now)
        if not verdict.open:
            return step("held", verdict.why, release)
        trailers = {"Promoted-From": source.name, "Gate": verdict.why}
        if target.approval:
            request = self._asked(release, target.name, f"{source.name}: {verdict.why}")
            if request.state != "approved":
                state = "waiting for approval" if request.state == "waiting" else "held"
                return step(state, f"request {request.id} is {request.state}", release)
            trailers |= self._approval(request)
        commit = self.repository.promote(release, target.name, trailers)
        if commit is not None:
            self.ledger.promoted(release, target.name, commit, self._clock())
            self._tell(release, target, f"{release} is on its way to {target.name} ({commit[:10]})")
        return step("promoted", commit or "it was there", release)

    def _asked(self, release: Release, environment: str, evidence: str) -> Request:
        request = self.ledger.open(release, environment, self._clock())
        if not request.message:
            self.ledger.posted(request, self._notifications.ask(request, evidence))
        return request

    @staticmethod
    def _approval(request: Request) -> dict[str, str]:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(request.decided))
        return {
            "Approved-By": f"{request.decided_name} ({request.decided_by})",
            "Approved-At": when,
            "Approval-Request": request.id,
        }

    def _remember(self, release: Release, there: Deployed, target: Environment) -> None:
        """Bring the ledger up to date with a promotion whose promoter was killed after its push."""
        if there.release_commit != release.commit or f"{release.commit} {target.name}" in self._recorded:
            return
        self._recorded.add(f"{release.commit} {target.name}")
        for commit, source in self.repository.promotions(release.service, target.name):
            if source == release.commit:
                self.ledger.promoted(release, target.name, commit, self._clock())

    def _tell(self, release: Release, target: Environment, text: str) -> None:
        for request in self.ledger.requests():
            if request.release == release and request.environment == target.name and request.message:
                try:
                    self._notifications.tell(request, text)
                except SlackClientError as error:  # the promotion is done; the message is a courtesy
                    logger.warning("Slack was not told: %s", error)
