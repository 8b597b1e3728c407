"""What became of a release. Times are Unix seconds."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from testbed.errors import TestbedError
from testbed.load import Interval, Summary
from testbed.operators.canary.spec import seconds

UNDER_WAY = ("Progressing", "Waiting", "WaitingPromotion")
PROMOTING = ("Promoting", "Finalising")
FINAL = ("Succeeded", "Failed")
NO_DATA = "no values found"


class Moment(BaseModel):
    """The status of the Canary when it changed."""

    at: float
    phase: str
    weight: int
    failed_checks: int


class Said(BaseModel):
    """A message of Flagger about the Canary."""

    at: float
    message: str


class Outcome(BaseModel):
    """One release, from the new version on."""

    name: str
    namespace: str
    released: float
    """When the new version was applied."""
    spec: dict[str, Any]
    """Of its Canary."""
    moments: list[Moment] = Field(default_factory=list)
    said: list[Said] = Field(default_factory=list)
    facts: dict[str, float] = Field(default_factory=dict)
    """What happened to the platform, and when: the flag flipped, Flagger was killed..."""
    primary: str = ""
    """The image tag of the primary in the end."""
    load: Summary
    intervals: list[Interval] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    """Warnings among the events of its namespace, and its nodes' about its pods: reason and message."""
    longest_gap: float = 0.0
    """Seconds for which Prometheus had looked at nothing, the longest, during this release."""
    problem: str = ""
    """Why it did not come to an end."""

    @property
    def phase(self) -> str:
        """The last phase."""
        return self.moments[-1].phase if self.moments else ""

    def weights(self) -> list[int]:
        """The canary's weights during the analysis, each once, in order."""
        found = [moment.weight for moment in self.moments if moment.phase in UNDER_WAY and moment.weight]
        return [weight for number, weight in enumerate(found) if not number or found[number - 1] != weight]

    def failed_checks(self) -> int:
        """The most failed checks that its status ever showed."""
        return max((moment.failed_checks for moment in self.moments), default=0)

    def first(self, phase: str) -> float:
        """When it came to a phase.

        Raises:
            TestbedError: It never did.
        """
        for moment in self.moments:
            if moment.phase == phase:
                return moment.at
        raise TestbedError(f"{self.name} never was {phase}", why=self.timeline(), fix="see what Flagger said")

    def exposed(self) -> float:
        """When the new version first got traffic.

        Raises:
            TestbedError: It never did.
        """
        for moment in self.moments:
            if moment.phase in UNDER_WAY and moment.weight:
                return moment.at
        raise TestbedError(f"{self.name} never got traffic", why=self.timeline(), fix="see what Flagger said")

    def share(self, release: str, since: float, until: float) -> float:
        """The part (0..1) of all requests between two times that a release answered.

        Raises:
            TestbedError: There were none.
        """
        within = [one for one in self.intervals if since <= one.end - 1 and one.end <= until]
        total = sum(group.answers for one in within for group in one.releases.values())
        if not total:
            raise TestbedError(f"{self.name} had no requests between these times", fix="look at longer times")
        return sum(one.releases[release].answers for one in within if release in one.releases) / total

    def answers(self, release: str) -> int:
        """How many requests a release answered."""
        found = self.load.releases.get(release)
        return found.answers if found else 0

    def failed(self, release: str) -> int:
        """How many requests it failed."""
        found = self.load.releases.get(release)
        return found.failed if found else 0

    def heard(self, words: str, since: float = 0) -> str | None:
        """The first message of Flagger with these words, from a time on."""
        return next((one.message for one in self.said if words in one.message and one.at >= since), None)

    def slowest(self, release: str, since: float, until: float) -> float:
        """The longest that a user waited for an answer of a release between two times, in seconds; 0 without one."""
        within = [one for one in self.intervals if since <= one.end - 1 and one.end <= until]
        return max((one.releases[release].latency.max for one in within if release in one.releases), default=0.0)

    def warned(self, words: str) -> bool:
        """Whether a warning about it, its Canary or its pods has these words."""
        return any(words in one for one in self.warnings)

    def failed_between(self, since: float, until: float) -> int:
        """Requests that failed between two times, whoever should have answered."""
        return sum(one.failed for one in self.intervals if since <= one.end - 1 and one.end <= until)

    def too_slow(self) -> str:
        """Why the machine was too slow for its rollback to mean anything; empty if it was not, or was not rolled back.

        That is so where no check had a bad value, one had none, and those who make the values were late: a rate needs
        two looks of Prometheus in the time that a check looks back, so gaps of half of that can leave it without.
        """
        checks = self.spec["analysis"].get("metrics") or []
        judged = any(self.heard(f"advancement {check['name']}") for check in checks)
        if self.phase != "Failed" or judged or self.heard(NO_DATA) is None:
            return ""
        bearable = min(seconds(check["interval"]) for check in checks) / 2
        late = {"Prometheus looked at nothing": self.longest_gap, "requests were late": self.load.lateness.max}
        if not (found := [f"{what} for up to {by:.1f} s" for what, by in late.items() if by > bearable]):
            return ""
        return f"it was rolled back for want of data only, and {' and '.join(found)}, where {bearable:g} s are bearable"

    def users(self) -> str:
        """What the users met, a line for each release that answered."""
        return "\n".join(
            f"users of {name}: {one.answers} answers, {one.failed} failed {one.errors or ''}, "
            f"p50 {one.latency.p50 * 1000:.0f} ms, p99 {one.latency.p99 * 1000:.0f} ms"
            for name, one in self.load.releases.items()
        )

    def timeline(self) -> str:
        """Phases, Flagger's words and what happened to the platform, a line each, in seconds from the release."""
        lines = [(one.at, f"{one.phase} {one.weight}%, {one.failed_checks} failed checks") for one in self.moments]
        lines += [(one.at, f"flagger: {one.message}") for one in self.said]
        lines += [(at, f"platform: {what}") for what, at in self.facts.items()]
        return "\n".join(f"{at - self.released:7.1f} s  {text}" for at, text in sorted(lines))
