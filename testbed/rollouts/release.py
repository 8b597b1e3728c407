"""What is released."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from testbed.rollouts.weakened import Weakening
from testbed.workloads.faults import Faults

BEFORE, AFTER, NEWER = "1.0.0", "2.0.0", "3.0.0"
"""The tags of the release that serves, of the new one, and of one that comes in the middle of it."""
FLAG = "new-feature"
Trial = Literal["", "prometheus-down", "flagger-killed", "flagger-dead"]
"""What happens to the platform meanwhile."""


@dataclass(frozen=True)
class Release:
    """A new version of a service.

    With a guard missing its Canary is made by hand, as it would be without the CanaryPolicy operator; else the service
    has a policy and the operator makes the Canary.
    """

    name: str
    """Of the service; each release of a session has its own."""
    faults: Faults = field(default_factory=Faults)
    """Of the new version; those with a flag act once it flips."""
    without: Weakening | None = None
    """The guard that its Canary lacks."""
    smoke_path: str = "/healthz"
    flip_at: int = 0
    """The canary's weight at which the feature flag `FLAG` is turned on; 0 for never."""
    newer: Faults | None = None
    """The faults of a yet newer version, which is released as soon as users met the canary; None for no such one."""
    enough: float = 0
    """Seconds after the flip after which nothing more is awaited; 0 to wait for the end."""
    min_ready: int = 0
    """Seconds for which a pod must be ready to count as available: one that crashes soon then never does."""
    memory: str = ""
    """The memory limit of each pod; empty for none."""
    trial: Trial = ""
    beside: str = ""
    """The name of a release with which it shares a namespace."""
    rate: float = 15
    """Requests per second to the service."""

    def policy(self) -> dict[str, Any]:
        """The fields of its CanaryPolicy that are not the defaults of `testbed.delivery.policy`."""
        return {
            "service": {"port": 9898, "hosts": [self.host]},
            "slo": {"successRate": 99, "latencyP99": 1000},
            "smokeTest": {"path": self.smoke_path},
        }

    @property
    def host(self) -> str:
        """Where its users ask."""
        return f"{self.name}.delivery.testbed"
