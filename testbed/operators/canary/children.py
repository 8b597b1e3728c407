"""From a CanaryPolicy to Flagger's objects. Pure functions: no API, no clock."""

from __future__ import annotations

import math
from typing import Any

from testbed.operators.api import Body, Resource
from testbed.operators.canary import NAME
from testbed.operators.canary.spec import POLICY, PolicySpec, seconds
from testbed.operators.config import CanaryConfig

CANARY = Resource("flagger.app/v1beta1", "Canary", "canaries")
TEMPLATE = Resource("flagger.app/v1beta1", "MetricTemplate", "metrictemplates")
MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = NAME
SELECTOR = f"{MANAGED_BY}={OPERATOR}"
LATENCY, SUCCESS_RATE = "platform-latency-p99", "platform-success-rate"
MAXIMUM_WEIGHT = 50
"""Percent at which the canary is promoted: half the traffic shows what all of it would."""
TAGS = ("cost-center", "team", "environment")
"""Labels of a policy that Flagger's Services get: whoever pays for the service pays for its canary."""
REQUEST_TIMEOUT = 5
"""Seconds that the smoke test's request may take."""

# The pods of the canary, and not those of the primary, whose names have one part more.
_PODS = 'namespace="{{ namespace }}",pod=~"{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)"'
# Probes and scrapes are no users: counted, they would make a release look good that no request has reached yet.
_USERS = f'{_PODS},path!~"healthz|readyz|livez|metrics"'
_COUNT = f"http_request_duration_seconds_count{{{_USERS}"
QUERIES = {
    LATENCY: (
        "1000 * histogram_quantile(0.99, sum by (le) (\n"
        f"  rate(http_request_duration_seconds_bucket{{{_USERS}}}[{{{{ interval }}}}])\n"
        "))\n"
    ),
    # Without `or vector(0)` a release without any error would have no errors to subtract.
    SUCCESS_RATE: (
        f'100 * (1 - (sum(rate({_COUNT},status=~"5.."}}[{{{{ interval }}}}])) or vector(0))\n'
        f"/ sum(rate({_COUNT}}}[{{{{ interval }}}}])))\n"
    ),
}
"""What is measured, in milliseconds and percent; Flagger fills in namespace, target and interval.

Without requests there is no value, which Flagger takes for a failed check."""


def templates(config: CanaryConfig) -> list[Body]:
    """The metric templates, one set for all services, where no team may change them."""
    return [
        {
            "apiVersion": TEMPLATE.api_version,
            "kind": TEMPLATE.kind,
            "metadata": {"name": name, "namespace": config.systemNamespace, "labels": {MANAGED_BY: OPERATOR}},
            "spec": {"provider": {"type": "prometheus", "address": config.prometheus}, "query": query},
        }
        for name, query in QUERIES.items()
    ]


def interval(spec: PolicySpec, config: CanaryConfig) -> int:
    """Seconds a step, so that all steps together take at least the window, and the warm-up at most half a step.

    Flagger warms up inside the first step: a longer warm-up would leave no time with real requests before the check.
    """
    steps = math.ceil(MAXIMUM_WEIGHT / spec.analysis.stepWeight)
    warm_up = seconds(spec.analysis.warmUp)
    return max(config.minimumInterval, math.ceil(seconds(spec.analysis.window) / steps), 2 * warm_up)


def look_back(spec: PolicySpec, config: CanaryConfig) -> int:
    """Seconds that a check looks back; in the first step not into the warm-up, whose requests are slow by design."""
    return interval(spec, config) - seconds(spec.analysis.warmUp)


def hooks(policy: Body, spec: PolicySpec, config: CanaryConfig) -> list[Body]:
    """What runs before any traffic is shifted: the smoke test, then the warm-up. Flagger calls them in this order."""
    url = f"http://{spec.targetRef.name}-canary.{policy['metadata']['namespace']}:{spec.service.port}{spec.smokeTest.path}"
    warm_up = seconds(spec.analysis.warmUp)
    # Where services have no DNS names, a forward proxy knows them.
    through = f"-x {config.proxy} " if config.proxy else ""
    found = [
        {
            "name": "smoke-test",
            "type": "pre-rollout",
            "url": config.loadTester,
            "timeout": f"{REQUEST_TIMEOUT * 2}s",
            "metadata": {"type": "bash", "cmd": f"curl -sf {through}--max-time {REQUEST_TIMEOUT} {url}"},
        }
    ]
    if warm_up:
        found.append(
            {
                "name": "warm-up",
                "type": "pre-rollout",
                "url": config.loadTester,
                "timeout": f"{warm_up + 30}s",
                "metadata": {"type": "bash", "cmd": f"hey {through}-z {warm_up}s -q 5 -c 2 {url}"},
            }
        )
    return found


def metrics(spec: PolicySpec, config: CanaryConfig) -> list[Body]:
    """The checks: the platform's templates against the team's SLO."""
    ranges: dict[str, dict[str, Any]] = {
        SUCCESS_RATE: {"min": spec.slo.successRate},
        LATENCY: {"max": spec.slo.latencyP99},
    }
    return [
        {
            "name": name,
            "templateRef": {"name": name, "namespace": config.systemNamespace},
            "thresholdRange": limits,
            "interval": f"{look_back(spec, config)}s",
        }
        for name, limits in ranges.items()
    ]


def canary(policy: Body, spec: PolicySpec, config: CanaryConfig) -> Body:
    """The Canary, owned by its policy."""
    metadata = policy["metadata"]
    owner = {
        "apiVersion": POLICY.api_version,
        "kind": POLICY.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    gateway = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": spec.gatewayRef.namespace,
        "name": spec.gatewayRef.name,
    }
    service: Body = {"port": spec.service.port, "gatewayRefs": [gateway]}
    if spec.service.targetPort is not None:
        service["targetPort"] = spec.service.targetPort
    if spec.service.hosts:
        service["hosts"] = list(spec.service.hosts)
    if tags := {key: value for key, value in (metadata.get("labels") or {}).items() if key in TAGS}:
        service |= {which: {"labels": dict(tags)} for which in ("apex", "primary", "canary")}
    return {
        "apiVersion": CANARY.api_version,
        "kind": CANARY.kind,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {MANAGED_BY: OPERATOR},
            "ownerReferences": [owner],
        },
        "spec": {
            "provider": config.provider,
            "targetRef": {"apiVersion": "apps/v1", "kind": spec.targetRef.kind, "name": spec.targetRef.name},
            "progressDeadlineSeconds": config.progressDeadline,
            "service": service,
            "skipAnalysis": False,
            "revertOnDeletion": True,
            "analysis": {
                "interval": f"{interval(spec, config)}s",
                # So many failed checks, and Flagger sends all traffic back to the primary.
                "threshold": config.failedChecks,
                "maxWeight": MAXIMUM_WEIGHT,
                "stepWeight": spec.analysis.stepWeight,
                "stepWeightPromotion": spec.analysis.stepWeight,
                "metrics": metrics(spec, config),
                "webhooks": hooks(policy, spec, config),
            },
        },
    }
