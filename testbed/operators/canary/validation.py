"""Defaults of a CanaryPolicy, and what would weaken the platform's minimum. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

from testbed.operators.canary.spec import seconds
from testbed.operators.config import CanaryConfig


def duration(value: int) -> str:
    """Seconds in the shortest form."""
    return f"{value // 60}m" if value and value % 60 == 0 else f"{value}s"


def with_defaults(spec: Any, config: CanaryConfig) -> Any:
    """The specification with the platform's defaults where it says nothing.

    What is of a wrong type stays as it is: the API server checks types after this, in its own words.
    """
    if not isinstance(spec, dict):
        return spec
    gateway_namespace, _, gateway = config.gateway.partition("/")
    defaults: dict[str, dict[str, Any]] = {
        "targetRef": {"kind": "Deployment"},
        "analysis": {
            "window": duration(config.minimumWindow),
            "stepWeight": config.stepWeight,
            "warmUp": duration(config.warmUp),
        },
        "gatewayRef": {"namespace": gateway_namespace, "name": gateway},
    }
    filled = dict(spec)
    for field, values in defaults.items():
        given = spec.get(field)
        if given is None:
            given = {}
        if not isinstance(given, dict):
            continue
        if field == "gatewayRef" and given:
            continue  # a name without its namespace is the team's to complete, not ours to guess
        filled[field] = values | {name: value for name, value in given.items() if value is not None}
    return filled


def _at_least(spec: dict[str, Any], field: str, minimum: int, why: str) -> Iterable[str]:
    value = spec.get(field)
    if value is None:
        return
    try:
        if seconds(value) < minimum:
            yield f"spec.analysis.{field}: {value} is shorter than the platform's minimum of {duration(minimum)}, {why}"
    except ValueError as error:
        yield f"spec.analysis.{field}: {error}"


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _analysis_problems(analysis: dict[str, Any], config: CanaryConfig) -> Iterable[str]:
    yield from _at_least(analysis, "window", config.minimumWindow, "in which slow faults show")
    yield from _at_least(analysis, "warmUp", config.warmUp, "without which a cold start looks like a bad release")
    step = analysis.get("stepWeight")
    if _number(step) and not 1 <= step <= config.stepWeight:
        yield f"spec.analysis.stepWeight: {step} must be from 1 to the platform's {config.stepWeight} percent a step"
    if "metrics" in analysis:
        yield f"spec.analysis.metrics: {OWN_QUERIES}"


def _slo_problems(slo: dict[str, Any], config: CanaryConfig) -> Iterable[str]:
    rate, latency = slo.get("successRate"), slo.get("latencyP99")
    if _number(rate) and not config.minimumSuccessRate <= rate <= 100:
        yield f"spec.slo.successRate: {rate} must be from the platform's {config.minimumSuccessRate:g} to 100 percent"
    if _number(latency) and not 1 <= latency <= config.maximumLatency:
        yield f"spec.slo.latencyP99: {latency} must be from 1 to the platform's {config.maximumLatency} ms"


OWN_QUERIES = (
    "own queries are not allowed, the platform's templates measure every service in the same way; "
    "remove it and set spec.slo"
)


def problems(spec: Any, config: CanaryConfig) -> list[str]:
    """What is below the platform's minimum; every message names the field and what would be enough."""
    if not isinstance(spec, dict):
        return ["spec: must be an object"]
    found: list[str] = []
    if "metrics" in spec:
        found.append(f"spec.metrics: {OWN_QUERIES}")
    smoke_test = spec.get("smokeTest")
    if not isinstance(smoke_test, dict) or not smoke_test.get("path"):
        found.append("spec.smokeTest.path: is missing; name a path that must answer before any traffic is shifted")
    for field, check in (("analysis", _analysis_problems), ("slo", _slo_problems)):
        value = spec.get(field)
        if isinstance(value, dict):
            found += check(value, config)
    return found
