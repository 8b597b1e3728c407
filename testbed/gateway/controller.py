"""The control loop: whatever changes, plan all anew, give it to Envoy, and say how it stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from testbed.gateway.events import Reporter
from testbed.gateway.plan import Plan, plan
from testbed.gateway.proxy import NotApplied, PortRefused, Proxy
from testbed.gateway.resources import WATCHED
from testbed.gateway.status import Status, statuses
from testbed.operators.resource import Body, Resource
from testbed.operators.store import Store
from testbed.workloads.kube import UNREACHABLE, ApiError, Kube

GATHER = 0.005
"""Seconds in which further changes join the first: a rollout changes many objects at once."""
RETRY = 0.2
REFUSED = 5.0
"""Seconds until Envoy is asked again for a port on which it could not listen."""
log = logging.getLogger(__name__)


class Controller:
    """Watches, plans, applies, reports.

    Args:
        kube: The API server.
        proxy: The Envoy.
        translate: Turns a pod's address into the one where it listens on this machine.
    """

    def __init__(self, kube: Kube, proxy: Proxy, translate: Callable[[str], str]) -> None:
        self._kube = kube
        self._proxy = proxy
        self._translate = translate
        self._store = Store()
        self._listed: set[Resource] = set()
        self._changed = asyncio.Event()
        self._refused: dict[int, str] = {}
        self._reporter = Reporter(kube)

    async def run(self) -> None:
        """For ever. Nothing is given to Envoy before everything was listed: half a picture would lose routes."""
        async with asyncio.TaskGroup() as group:
            for resource in WATCHED:
                group.create_task(self._follow(resource))
            group.create_task(self._loop())

    async def _follow(self, resource: Resource) -> None:
        def heard(kind: str, body: Body) -> None:
            if kind == "DELETED":
                self._store.remove(resource, body)
            else:
                self._store.put(resource, body)
            self._wake()

        def listed() -> None:
            self._listed.add(resource)
            self._wake()

        await self._kube.follow(resource.path(), heard, listed)

    def _wake(self) -> None:
        if len(self._listed) == len(WATCHED):
            self._changed.set()

    async def _loop(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER)
            self._changed.clear()
            wanted = plan(self._store, self._translate, self._refused)
            problem: tuple[str, str] | None = None
            try:
                await self._proxy.apply(wanted.configuration)
            except PortRefused as error:
                self._refuse(error)
                continue  # with all but this port
            except NotApplied as error:
                log.warning("not applied: %s", error)
                problem = ("Pending", str(error))
            done = await self._report(wanted, problem)
            if problem is not None or not done:
                asyncio.get_running_loop().call_later(RETRY, self._changed.set)

    def _refuse(self, error: PortRefused) -> None:
        """Leave a port out, so that one Gateway's trouble is not everybody's, and try it again after a while."""
        log.warning("port %s is refused: %s", error.port, error)
        self._refused[error.port] = str(error)
        self._changed.set()

        def again() -> None:
            self._refused.pop(error.port, None)
            self._changed.set()

        asyncio.get_running_loop().call_later(REFUSED, again)

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
            path = status.resource.path(metadata.get("namespace"), metadata["name"], "status")
            body = {"status": status.status}
            self._store.put(status.resource, await self._kube.patch(path, body, "application/merge-patch+json"))
        await self._reporter.tell(status)
