"""Canaries without one of the platform's guards.

A `Weakening` takes a guard out of a Canary's manifest, and tells from the Canary in the cluster that it is out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from testbed.cluster import Manifest
from testbed.operators.canary.children import LATENCY, QUERIES, SUCCESS_RATE, TEMPLATE
from testbed.operators.config import CanaryConfig

FLAGGERS_DEADLINE = 600
WARM_UP = "warm-up"
"""The hook of that name."""
OWN = "own-"
"""How the names of metric templates begin that are not the platform's."""


class Weakening(Protocol):
    """A guard's absence."""

    def weaken(self, canary: Manifest, config: CanaryConfig) -> list[Manifest]:
        """Take the guard out of the manifest, in place; returns further objects that the Canary then needs."""

    def is_off(self, spec: dict[str, Any]) -> bool:
        """Whether a Canary's spec lacks the guard."""


@dataclass(frozen=True)
class NoSteps:
    """All traffic at once instead of steps of 10 percent."""

    def weaken(self, canary: Manifest, config: CanaryConfig) -> list[Manifest]:
        """One step of 100."""
        canary["spec"]["analysis"] |= {"stepWeight": 100, "maxWeight": 100}
        return []

    def is_off(self, spec: dict[str, Any]) -> bool:
        """Whether the first step is all."""
        return bool(spec["analysis"]["stepWeight"] == 100)


@dataclass(frozen=True)
class NoCheck:
    """Without one of the metric checks; without any for an empty name."""

    name: str = ""

    def weaken(self, canary: Manifest, config: CanaryConfig) -> list[Manifest]:
        """Leave it out."""
        analysis = canary["spec"]["analysis"]
        analysis["metrics"] = [one for one in analysis["metrics"] if self.name and one["name"] != self.name]
        return []

    def is_off(self, spec: dict[str, Any]) -> bool:
        """Whether it is left out."""
        names = {one["name"] for one in spec["analysis"].get("metrics") or []}
        return self.name not in names if self.name else not names


@dataclass(frozen=True)
class NoHook:
    """Without one of the hooks before the first shift."""

    name: str

    def weaken(self, canary: Manifest, config: CanaryConfig) -> list[Manifest]:
        """Leave it out."""
        analysis = canary["spec"]["analysis"]
        analysis["webhooks"] = [one for one in analysis["webhooks"] if one["name"] != self.name]
        return []

    def is_off(self, spec: dict[str, Any]) -> bool:
        """Whether it is left out."""
        return self.name not in {one["name"] for one in spec["analysis"].get("webhooks") or []}


@dataclass(frozen=True)
class NothingForColdStarts:
    """Without what the platform has against cold starts: the warm-up, and the second check that must fail.

    Checks then look back over the whole step, as the platform has it for a warm-up of no length. With the second check
    alone a cold start costs one failed check, and only whatever fails another rolls the release back.
    """

    def weaken(self, canary: Manifest, config: CanaryConfig) -> list[Manifest]:
        """No warm-up; back at the first failed check."""
        analysis = canary["spec"]["analysis"]
        NoHook(WARM_UP).weaken(canary, config)
        analysis["threshold"] = 1
        for check in analysis["metrics"]:
            check["interval"] = analysis["interval"]
        return []

    def is_off(self, spec: dict[str, Any]) -> bool:
        """Whether all of it is so."""
        analysis = spec["analysis"]
        looks_back = {check["interval"] for check in analysis["metrics"]}
        return NoHook(WARM_UP).is_off(spec) and analysis["threshold"] == 1 and looks_back == {analysis["interval"]}


@dataclass(frozen=True)
class NoDeadline:
    """Flagger's own 600 s as deadline for pods that are not available, at no time scale: hours at the platform's."""

    def weaken(self, canary: Manifest, config: CanaryConfig) -> list[Manifest]:
        """As Flagger has it where a Canary says nothing."""
        canary["spec"]["progressDeadlineSeconds"] = FLAGGERS_DEADLINE
        return []

    def is_off(self, spec: dict[str, Any]) -> bool:
        """Whether it is Flagger's."""
        return bool(spec["progressDeadlineSeconds"] == FLAGGERS_DEADLINE)


@dataclass(frozen=True)
class OwnQueries:
    """The team's own queries instead of the platform's, in templates of its own namespace."""

    kind: str
    """`unscoped`: they look at every pod of the namespace. `broken`: one does not parse."""

    def weaken(self, canary: Manifest, config: CanaryConfig) -> list[Manifest]:
        """Write templates, and refer to them."""
        spec, namespace = canary["spec"], canary["metadata"]["namespace"]
        made = []
        for check in spec["analysis"]["metrics"]:
            name = f"{OWN}{self.kind}-{check['name']}"
            check["templateRef"] = {"name": name, "namespace": namespace}
            provider = {"type": "prometheus", "address": config.prometheus}
            made.append(
                {
                    "apiVersion": TEMPLATE.api_version,
                    "kind": TEMPLATE.kind,
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {"provider": provider, "query": self._query(check["name"])},
                }
            )
        return made

    def _query(self, name: str) -> str:
        query = QUERIES[name]
        if self.kind == "broken":
            return query.rstrip().rstrip(")") if name == SUCCESS_RATE else query
        scope = ',pod=~"{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)"'
        if scope not in query:
            raise LookupError(f"the platform's query {name} is not scoped as expected")
        return query.replace(scope, "")

    def is_off(self, spec: dict[str, Any]) -> bool:
        """Whether every check uses a template of this kind."""
        used = [one["templateRef"]["name"] for one in spec["analysis"]["metrics"]]
        return bool(used) and all(name.startswith(f"{OWN}{self.kind}-") for name in used)


@dataclass(frozen=True)
class NothingLess:
    """No guard of the Canary is missing: the platform lacks one (see the release's trial)."""

    def weaken(self, canary: Manifest, config: CanaryConfig) -> list[Manifest]:
        """Leave it as it is."""
        return []

    def is_off(self, spec: dict[str, Any]) -> bool:
        """Nothing to see in the Canary."""
        return True


__all__ = [
    "LATENCY",
    "SUCCESS_RATE",
    "NoCheck",
    "NoDeadline",
    "NoHook",
    "NoSteps",
    "NothingForColdStarts",
    "NothingLess",
    "OwnQueries",
    "Weakening",
]
