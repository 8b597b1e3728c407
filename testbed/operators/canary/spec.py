"""The CanaryPolicy resource."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbed.operators.api import Resource
from testbed.operators.conditions import Problem

POLICY = Resource("platform.testbed.dev/v1alpha1", "CanaryPolicy", "canarypolicies")
_DURATION = re.compile(r"([0-9]{1,6})(s|m|h)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(value: object) -> int:
    """The seconds of a duration such as 90s, 10m or 1h.

    Raises:
        ValueError: It is none.
    """
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not a duration such as 90s or 10m")
    return int(found[1]) * _SECONDS[found[2]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Target(_Part):
    """The workload."""

    kind: Literal["Deployment", "DaemonSet"] = "Deployment"
    name: str = Field(min_length=1)


class Service(_Part):
    """How it is reached."""

    port: int = Field(ge=1, le=65535)
    targetPort: int | None = Field(default=None, ge=1, le=65535)
    hosts: list[str] = []


class Slo(_Part):
    """What the team promises; the analysis fails below it."""

    successRate: float
    """Percent of requests without a server error."""
    latencyP99: int
    """Milliseconds at the 99th percentile."""


class SmokeTest(_Part):
    """A request to the canary that must succeed before any traffic is shifted."""

    path: str = Field(pattern=r"^/[A-Za-z0-9._~/-]*$", max_length=200)


class Analysis(_Part):
    """How long and how carefully; the platform's defaults fill what is left out."""

    window: str
    stepWeight: int
    warmUp: str


class Gateway(_Part):
    """The Gateway that splits the traffic."""

    namespace: str = Field(min_length=1)
    name: str = Field(min_length=1)


class PolicySpec(_Part):
    """What a team asks for, defaults filled in."""

    targetRef: Target
    service: Service
    slo: Slo
    smokeTest: SmokeTest
    analysis: Analysis
    gatewayRef: Gateway


def parse(spec: Any) -> PolicySpec:
    """The specification.

    Raises:
        Problem: Something is missing or of the wrong type; names the field.
    """
    try:
        return PolicySpec.model_validate(spec)
    except ValidationError as error:
        said = "; ".join(
            f"spec.{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}" for entry in error.errors()[:5]
        )
        raise Problem("InvalidSpec", said, retry=False) from None
