"""The control loop: whatever changes, plan all anew, give it to Envoy, and say how it stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from testbed.gateway.plan import Plan, plan
from testbed.gateway.proxy import NotApplied, Proxy
from testbed.gateway.reflector import reflect
from testbed.gateway.resources import WATCHED
from testbed.gateway.status import Status, statuses
from testbed.operators import events
from testbed.operators.api import UNREACHABLE, Api, ApiError, Resource
from testbed.operators.store import Store

NAME = "gateway-controller"
GATHER = 0.005
"""Seconds in which further changes join the first: a rollout changes many objects at once."""
RETRY = 0.2
log = logging.getLogger(__name__)


class Controller:
    """Watches, plans, applies, reports.

    Args:
        api: The API server.
        proxy: The Envoy.
        translate: Turns a pod's address into the one where it listens on this machine.
    """

    def __init__(self, api: Api, proxy: Proxy, translate: Callable[[str], str]) -> None:
        self._api = api
        self._proxy = proxy
        self._translate = translate
        self._store = Store()
        self._listed: set[Resource] = set()
        self._changed = asyncio.Event()
        self._said: dict[tuple[str, str, str], str] = {}

    async def run(self) -> None:
        """For ever. Nothing is given to Envoy before everything was listed: half a picture would lose routes."""
        async with asyncio.TaskGroup() as group:
            for resource in WATCHED:
                group.create_task(reflect(self._api, self._store, resource, self._heard))
            group.create_task(self._loop())

    def _heard(self, resource: Resource) -> None:
        self._listed.add(resource)
        if len(self._listed) == len(WATCHED):
            self._changed.set()

    async def _loop(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER)
            self._changed.clear()
            wanted = plan(self._store, self._translate)
            problem: tuple[str, str] | None = None
            try:
                await self._proxy.apply(wanted.configuration)
            except NotApplied as error:
                log.warning("not applied: %s", error)
                problem = ("Invalid" if error.refused else "Pending", str(error))
            done = await self._report(wanted, problem)
            if problem is not None or not done:
                asyncio.get_running_loop().call_later(RETRY, self._changed.set)

    async def _report(self, wanted: Plan, problem: tuple[str, str] | None) -> bool:
        """Write every status that says something new; False if one could not be written."""
        done = True
        for status in statuses(wanted, problem):
            try:
                await self._write(status)
            except (ApiError, *UNREACHABLE) as error:
                if isinstance(error, ApiError) and error.status == 404:
                    continue  # it was deleted meanwhile
                log.warning("a status could not be written: %s", error)
                done = False
        return done

    async def _write(self, status: Status) -> None:
        metadata = status.body["metadata"]
        if status.news:
            stored = await self._api.merge(
                status.resource,
                metadata["name"],
                {"status": status.status},
                namespace=metadata.get("namespace"),
                subresource="status",
            )
            self._store.put(status.resource, stored)
        await self._tell(status)

    async def _tell(self, status: Status) -> None:
        """Post an event for a condition that is not as its owner wants it, once."""
        metadata = status.body["metadata"]
        key = (status.resource.kind, metadata.get("namespace") or "", metadata["name"])
        parts = [status.status, *status.status.get("parents", []), *status.status.get("listeners", [])]
        bad = {
            condition["reason"]: condition["message"]
            for part in parts
            for condition in part.get("conditions", [])
            if condition["status"] == "False"
        }
        message = "; ".join(dict.fromkeys(bad.values()))
        if self._said.get(key, "") == message:
            return
        self._said[key] = message
        if message:
            head = {"apiVersion": status.resource.api_version, "kind": status.resource.kind}
            reason = next(iter(bad))
            await events.post(self._api, NAME, head | status.body, warning=True, reason=reason, message=message)
