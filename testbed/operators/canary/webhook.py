"""The webhooks of CanaryPolicy: defaults, and the refusal of what weakens the platform's minimum."""

from __future__ import annotations

import logging
from typing import Any

import kopf

from testbed.operators import metrics
from testbed.operators.canary import validation
from testbed.operators.canary.spec import POLICY
from testbed.operators.config import CanaryConfig

log = logging.getLogger(__name__)
DEFAULT_ID = "default-canarypolicy"
VALIDATE_ID = "validate-canarypolicy"


def register(registry: kopf.OperatorRegistry, config: CanaryConfig) -> None:
    """Serve them at `/default-canarypolicy` and `/validate-canarypolicy`."""
    where = (POLICY.group, POLICY.version, POLICY.plural)

    @kopf.on.mutate(*where, id=DEFAULT_ID, registry=registry)
    async def default(*, body: kopf.Body, patch: kopf.Patch, **rest: Any) -> None:
        spec = body.get("spec")
        if rest["operation"] == "DELETE" or not isinstance(spec, dict):
            return
        filled = validation.with_defaults(dict(spec), config)
        changed = {name: value for name, value in filled.items() if spec.get(name) != value}
        if changed:
            patch["spec"] = changed
        metrics.ADMISSIONS.labels(DEFAULT_ID, "true").inc()

    @kopf.on.validate(*where, id=VALIDATE_ID, registry=registry)
    async def validate(*, body: kopf.Body, **rest: Any) -> None:
        old = rest["old"]
        unchanged = old is not None and old.get("spec") == body.get("spec")
        if rest["operation"] == "DELETE" or unchanged or body["metadata"].get("deletionTimestamp"):
            return
        said = validation.problems(body.get("spec"), config)
        metrics.ADMISSIONS.labels(VALIDATE_ID, "false" if said else "true").inc()
        if said:
            log.info("refused: %s", "; ".join(said), extra={"resource": body["metadata"].get("name")})
            raise kopf.AdmissionError("; ".join(said), code=422)
