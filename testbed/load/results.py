"""What the load generator measured. Times are Unix seconds, latencies seconds from when a request was due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

NOBODY = "-"
"""The release of an answer that names none: the gateway's own, or no answer at all."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Percentiles(_Frozen):
    """Latencies in seconds."""

    p50: float
    p90: float
    p99: float
    max: float


class Release(_Frozen):
    """What one release answered."""

    answers: int
    failed: int
    """Without an answer, or with a status that is not 2xx or 3xx."""
    statuses: dict[str, int]
    """Answers by status; "0" is no answer."""
    errors: dict[str, int] = Field(default_factory=dict)
    """Why the failed ones failed."""
    first: float
    """When the first of these requests was sent."""
    last: float
    latency: Percentiles


class Interval(_Frozen):
    """What came back in one interval."""

    end: float
    planned: int
    """Requests that were due since the beginning."""
    received: int
    """Requests that came back since the beginning, with an answer or without."""
    releases: dict[str, Release]
    """Of this interval alone."""
    latency: Percentiles

    @property
    def failed(self) -> int:
        """Requests of this interval that failed."""
        return sum(release.failed for release in self.releases.values())

    def share(self, release: str) -> float:
        """The part (0..1) of this interval's requests that a release answered."""
        total = sum(one.answers for one in self.releases.values())
        return self.releases[release].answers / total if release in self.releases else 0.0


class Summary(_Frozen):
    """A whole run."""

    planned: int
    """Requests that were due."""
    sent: int
    began: float
    ended: float
    """When the last request was due; answers may have come later."""
    latency: Percentiles
    lateness: Percentiles
    """How much later than due requests were sent: of the generator, or for want of free ones in flight."""
    releases: dict[str, Release]

    @property
    def unsent(self) -> int:
        """Requests that were due and never sent."""
        return self.planned - self.sent

    @property
    def failed(self) -> int:
        """Requests that were sent and failed."""
        return sum(release.failed for release in self.releases.values())

    @property
    def lost(self) -> int:
        """Requests that were due and got no good answer."""
        return self.unsent + self.failed

    @property
    def seconds(self) -> float:
        """How long requests were due."""
        return self.ended - self.began

    @property
    def statuses(self) -> dict[str, int]:
        """Answers by status, of all releases."""
        return dict(sum((Counter(release.statuses) for release in self.releases.values()), Counter[str]()))

    @property
    def errors(self) -> dict[str, int]:
        """Why the failed ones failed, of all releases."""
        return dict(sum((Counter(release.errors) for release in self.releases.values()), Counter[str]()))


def answers(intervals: Iterable[Interval]) -> Counter[str]:
    """Answers by release, of several intervals."""
    total = Counter[str]()
    for interval in intervals:
        total.update({name: release.answers for name, release in interval.releases.items()})
    return total
