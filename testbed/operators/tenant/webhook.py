"""The validating webhook of TenantWorkspace."""

from __future__ import annotations

import logging
from typing import Any

import kopf

from testbed.operators import metrics, teams
from testbed.operators.api import UNREACHABLE, Api, ApiError
from testbed.operators.config import TenantConfig
from testbed.operators.store import Store
from testbed.operators.teams import TEAM
from testbed.operators.tenant import validation
from testbed.operators.tenant.spec import TENANT, spec_of

log = logging.getLogger(__name__)
ID = "validate-tenantworkspace"


async def _exists(api: Api, store: Store, team: object) -> bool:
    """Whether a team is in the directory. One that the watch has not brought yet is looked up."""
    if not isinstance(team, str) or not team:
        return False
    return store.get(TEAM, team) is not None or await api.get(TEAM, team) is not None


async def review(new: dict[str, Any], old: dict[str, Any] | None, api: Api, store: Store, config: TenantConfig) -> None:
    """Refuse what cannot become a workspace.

    Raises:
        kopf.AdmissionError: Everything that is wrong, each with its field.
    """
    if new["metadata"].get("deletionTimestamp") or (old is not None and old.get("spec") == new.get("spec")):
        return  # what is there already must stay deletable and labelable, whatever the rules are by now
    team, old_team = spec_of(new).get("team"), spec_of(old or {}).get("team")
    try:
        changed = old is not None and team != old_team
        said = validation.problems(new, old, config, changed and await _exists(api, store, old_team))
        if (old is None or changed) and isinstance(team, str) and not await _exists(api, store, team):
            said.append(teams.unknown(team, [body["metadata"]["name"] for body in store.all(TEAM)]))
    except (ApiError, *UNREACHABLE) as error:
        raise kopf.AdmissionError(f"the teams directory could not be read, try again: {error}", code=503) from None
    if said:
        raise kopf.AdmissionError("; ".join(said), code=422)


def register(registry: kopf.OperatorRegistry, api: Api, store: Store, config: TenantConfig) -> None:
    """Serve it at `/validate-tenantworkspace`."""

    @kopf.on.validate(TENANT.group, TENANT.version, TENANT.plural, id=ID, registry=registry)
    async def validate(*, body: kopf.Body, **rest: Any) -> None:
        old = rest["old"]
        if rest["operation"] == "DELETE":
            return
        try:
            await review(dict(body), dict(old) if old is not None else None, api, store, config)
        except kopf.AdmissionError as refusal:
            log.info("refused: %s", refusal, extra={"resource": body["metadata"].get("name")})
            metrics.ADMISSIONS.labels(ID, "false").inc()
            raise
        metrics.ADMISSIONS.labels(ID, "true").inc()
