"""The CanaryPolicy operator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar

from testbed.operators.api import Api, Body, Resource
from testbed.operators.canary import children, validation
from testbed.operators.canary.children import CANARY, SELECTOR, TEMPLATE
from testbed.operators.canary.spec import POLICY, parse
from testbed.operators.conditions import Problem
from testbed.operators.config import CanaryConfig
from testbed.operators.engine import Controller
from testbed.operators.store import Key, Store, key_of


class CanaryController(Controller):
    """Generates Canaries. Deletion needs no finalizer: the Canary has its policy as owner, and Flagger reverts."""

    name: ClassVar[str] = children.OPERATOR
    resource: ClassVar[Resource] = POLICY
    watched: ClassVar[tuple[tuple[Resource, str], ...]] = ((POLICY, ""), (CANARY, SELECTOR), (TEMPLATE, SELECTOR))
    exclusive: ClassVar[tuple[Resource, ...]] = (CANARY,)

    def __init__(self, api: Api, store: Store, config: CanaryConfig, *, workers: int, resync: float) -> None:
        super().__init__(api, store, workers=workers, resync=resync)
        self.config = config

    def concerned(self, resource: Resource, body: Body) -> Iterable[Key]:
        """The policy of a Canary; a metric template concerns all."""
        if resource == TEMPLATE:
            return [key_of(policy) for policy in self.store.all(POLICY)]
        return [key_of(body)]

    async def reconcile(self, body: Body) -> dict[str, Any]:
        """Templates, then the Canary that uses them."""
        if body["metadata"].get("deletionTimestamp"):
            return {}
        raw = validation.with_defaults(body.get("spec"), self.config)
        # Again what the webhook has checked: it may have been away, or its limits may have been lower then.
        if said := validation.problems(raw, self.config):
            raise Problem("BelowMinimum", "; ".join(said), retry=False)
        spec = parse(raw)
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        found = self.store.get(CANARY, name, namespace)
        if found is None:
            found = await self.api.get(CANARY, name, namespace)
        references = (found or {}).get("metadata", {}).get("ownerReferences") or []
        if found is not None and not any(entry["uid"] == body["metadata"]["uid"] for entry in references):
            raise Problem(
                "CanaryConflict",
                f"metadata.name: a Canary {name!r} exists already that no policy made; delete it, or rename the policy",
            )
        if found is not None:
            self.store.put(CANARY, found)  # also when somebody took our label off it
        await asyncio.gather(
            *(self.ensure(TEMPLATE, template, body) for template in children.templates(self.config)),
        )
        await self.ensure(CANARY, children.canary(body, spec, self.config), body)
        canary = self.store.get(CANARY, name, namespace) or {}
        status = canary.get("status") or {}
        return {
            "canaryPhase": str(status.get("phase") or "Pending"),
            "canaryWeight": int(status.get("canaryWeight") or 0),
        }
