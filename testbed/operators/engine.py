"""The reconciler: a store, a queue, workers that only work while this replica leads, and status for every end."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from testbed.operators import conditions, events, metrics
from testbed.operators.api import UNREACHABLE, Api, ApiError, Body, NotLeading, Resource
from testbed.operators.conditions import READY, Problem
from testbed.operators.drift import difference
from testbed.operators.store import Key, Store, key_of
from testbed.operators.workqueue import LONGEST_DELAY, WorkQueue

PASSING = {"ApiServerUnreachable", "ApiServerError", "Conflict"}
"""Reasons that end by themselves, and for all at once."""
PASSING_DELAY = 5.0
"""Seconds between two tries while such a reason lasts."""
LAPSE_DELAY = 1.0
"""Seconds until what was cut off by a lapse of the lease is tried again."""
log = logging.getLogger(__name__)


class Controller(ABC):
    """Makes what a kind of custom resource asks for, and keeps it so."""

    name: ClassVar[str]
    """Of the operator: its service account, lease, field manager and metric label."""
    resource: ClassVar[Resource]
    watched: ClassVar[tuple[tuple[Resource, str], ...]]
    """Everything that it reads, with label selectors: the API server sends nothing else."""
    exclusive: ClassVar[tuple[Resource, ...]] = ()
    """Kinds whose objects may be somebody else's: a missing one is only ever created, never taken over."""

    def __init__(self, api: Api, store: Store, *, workers: int, resync: float) -> None:
        self.api = api
        self.store = store
        self.queue = WorkQueue()
        self.synced = False
        self._not_ready = metrics.NotReady(self.name)
        self._workers = workers
        self._resync = resync
        self._leads = asyncio.Event()

    @abstractmethod
    def concerned(self, resource: Resource, body: Body) -> Iterable[Key]:
        """The custom resources that a changed object concerns."""

    @abstractmethod
    async def reconcile(self, body: Body) -> dict[str, Any]:
        """Make the cluster as `body` asks; returns what to add to its status.

        Raises:
            Problem: It cannot be so.
            ApiError: The API server refused.
        """

    def heard(self, resource: Resource, kind: str | None, body: Body) -> None:
        """A watch told of an object (`kind` as in watch events; None while it lists)."""
        old = self.store.get(resource, body["metadata"]["name"], body["metadata"].get("namespace") or "")
        changed = self.store.remove(resource, body) if kind == "DELETED" else self.store.put(resource, body)
        if resource == self.resource and kind != "DELETED" and old is not None and _asks(old) == _asks(body):
            return  # only its status changed, and that was us
        if changed and self._leads.is_set():
            for key in self.concerned(resource, body):
                self.queue.add(key)

    async def sync(self) -> None:
        """List everything. Watches miss what is deleted while they are disconnected; lists do not."""
        answers = await asyncio.gather(*(self.api.list(resource, selector) for resource, selector in self.watched))
        for (resource, _), (bodies, version) in zip(self.watched, answers, strict=True):
            self.store.replace(resource, bodies, version)
        self.synced = True

    def enqueue_all(self) -> None:
        """Compare every custom resource, and those that are gone but still counted as not ready."""
        for body in self.store.all(self.resource):
            self.queue.add(key_of(body))
        for key in self._not_ready:
            self.queue.add(key)

    async def started(self) -> None:
        """This replica leads now. It begins with what is, so that a restart writes nothing that is there."""
        await self.sync()
        self.queue.forget_failures()
        self._leads.set()
        self.enqueue_all()

    def stopped(self) -> None:
        """This replica leads no more."""
        self._leads.clear()
        self._not_ready.clear()

    async def run(self) -> None:
        """Work, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())
            group.create_task(self._resync_forever())

    async def _resync_forever(self) -> None:
        while True:
            await asyncio.sleep(self._resync)
            if not self._leads.is_set() and self.synced:
                continue
            try:
                await self.sync()
            except (ApiError, *UNREACHABLE) as error:
                log.warning("the resync failed: %s", error)
                continue
            if self._leads.is_set():
                self.enqueue_all()
                metrics.RESYNCED.labels(self.name).set_to_current_time()

    async def _work(self) -> None:
        while True:
            await self._leads.wait()
            key = await self.queue.get()
            try:
                if self._leads.is_set():
                    await self._process(key)
            finally:
                self.queue.done(key)
                metrics.QUEUE.labels(self.name).set(len(self.queue))
                metrics.RESOURCES.labels(self.name).set(sum(1 for _ in self.store.all(self.resource)))

    async def _process(self, key: Key) -> None:
        namespace, name = key
        body = self.store.get(self.resource, name, namespace)
        if body is None:
            self._not_ready.set(namespace, name, None)
            self.queue.succeeded(key)
            return
        problem: Problem | None = None
        status: dict[str, Any] = {}
        with metrics.SECONDS.labels(self.name).time():
            try:
                status = await self.reconcile(body)
            except NotLeading:
                self._later(key)
                return
            except Problem as found:
                problem = found
            except ApiError as error:
                problem = problem_of(error)
            except UNREACHABLE as error:
                problem = Problem("ApiServerUnreachable", f"the API server was not reached: {error}")
            except Exception as error:  # a bug must not stop the others' reconciliation
                log.exception("reconciliation failed", extra={"resource": "/".join(filter(None, key))})
                problem = Problem("InternalError", f"{type(error).__name__}: {error}")
        self._count(key, problem)
        await self._report(body, problem, status)

    def _later(self, key: Key) -> None:
        """Leading lapsed in the middle. Should it come back without a new beginning, this must not be forgotten."""
        self.queue.add_later(key, LAPSE_DELAY)

    def _count(self, key: Key, problem: Problem | None) -> None:
        result = "success" if problem is None else "waiting" if problem.waiting else "error"
        metrics.RECONCILES.labels(self.name, result).inc()
        self._not_ready.set(*key, problem.reason if problem else None)
        if problem is None:
            self.queue.succeeded(key)
            return
        if not problem.waiting:
            metrics.ERRORS.labels(self.name, problem.reason).inc()
        longest = PASSING_DELAY if problem.reason in PASSING else LONGEST_DELAY
        delay = self.queue.failed(key, longest) if problem.retry else None
        extra = {"resource": "/".join(filter(None, key)), "reason": problem.reason, "retry_in_seconds": delay}
        log.log(logging.DEBUG if problem.waiting else logging.WARNING, "not ready: %s", problem.message, extra=extra)

    async def _report(self, reconciled: Body, problem: Problem | None, status: dict[str, Any]) -> None:
        """Write the status if it changed, and an event if the Ready condition did.

        Of the object as it is by now, but for the generation that was reconciled: that may be an older one.
        """
        key = namespace, name = key_of(reconciled)
        body = self.store.get(self.resource, name, namespace)
        if body is None or body["metadata"].get("uid") != reconciled["metadata"].get("uid"):
            return
        old = body.get("status") or {}
        before = conditions.ready(body)
        reason, message = (problem.reason, problem.message) if problem else ("Reconciled", "everything is as asked for")
        now = conditions.condition(READY, problem is None, reason, message)
        generation = int(reconciled["metadata"].get("generation") or 0)
        merged = conditions.merge(old.get("conditions") or [], [now], generation)
        new = old | status | {"observedGeneration": generation, "conditions": merged}
        if new == old:
            return
        try:
            stored = await self.api.merge(
                self.resource, name, {"status": new}, namespace=namespace, subresource="status"
            )
        except NotLeading:
            self._later(key)
            return
        except (ApiError, *UNREACHABLE) as error:
            if not (isinstance(error, ApiError) and error.status == 404):
                log.warning("the status could not be written: %s", error, extra={"resource": name})
                self.queue.failed(key)
            return
        self.store.put(self.resource, stored)
        if _asks(stored) != _asks(body):
            # The answer brought somebody's change before the watch did, which will then find nothing new in it.
            self.queue.add(key)
        fields = ("status", "reason") if problem is not None and problem.waiting else ("status", "reason", "message")
        if any(before.get(field) != now[field] for field in fields):
            await events.post(self.api, self.name, stored, warning=problem is not None, reason=reason, message=message)

    async def ensure(self, resource: Resource, wanted: Body, owner: Body) -> bool:
        """Make a child as wanted; True if something had to be written. Costs no request while it is."""
        metadata = wanted["metadata"]
        live = self.store.get(resource, metadata["name"], metadata.get("namespace") or "")
        why = difference(wanted, live) if live is not None else "missing"
        if why is None:
            return False
        if live is None and resource in self.exclusive:
            # Not applied: that would silently take over what somebody made just now.
            stored = await self.api.create(resource, wanted)
        else:
            stored = await self._write(resource, wanted, live)
        self.store.put(resource, stored)
        if conditions.ready(owner).get("status") == "True" and owner["status"].get("observedGeneration") == owner[
            "metadata"
        ].get("generation"):
            metrics.HEALED.labels(resource.kind).inc()
            where = f"{resource.kind} {metadata['name']}"
            what = "was missing" if live is None else f"was changed at {why.lstrip('.')}"
            log.info("healed: %s %s", where, what, extra={"resource": owner["metadata"]["name"]})
            message = f"{where} {what}; put back"
            await events.post(self.api, self.name, owner, warning=True, reason="Healed", message=message)
        return True

    async def _write(self, resource: Resource, wanted: Body, live: Body | None) -> Body:
        """Make an object exactly as wanted, by the mildest means that does it."""
        if live is not None and _immutable(live) != _immutable(wanted):
            return await self._make_again(resource, wanted, live)
        try:
            stored = await self.api.apply(resource, wanted)
        except ApiError as error:
            if error.status != 422:
                raise
            there = await self.api.get(resource, wanted["metadata"]["name"], wanted["metadata"].get("namespace"))
            if there is None or _immutable(there) == _immutable(wanted):
                raise
            return await self._make_again(resource, wanted, there)
        if difference(wanted, stored) is None:
            return stored
        # Server-side apply leaves fields that others have added; an update takes them away.
        if _immutable(stored) != _immutable(wanted):
            return await self._make_again(resource, wanted, stored)
        ours = wanted["metadata"]
        labels = stored["metadata"].get("labels", {}) | ours["labels"]
        metadata = stored["metadata"] | {"labels": labels, "ownerReferences": ours.get("ownerReferences", [])}
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return await self.api.request("PUT", path, body=wanted | {"metadata": metadata})

    async def _make_again(self, resource: Resource, wanted: Body, there: Body) -> Body:
        await self.api.delete(resource, there)
        return await self.api.create(resource, wanted)


def _asks(body: Body) -> tuple[object, ...]:
    """What of a custom resource decides what is to be done."""
    metadata = body["metadata"]
    fields = ("uid", "generation", "deletionTimestamp", "finalizers")
    return tuple(metadata.get(field) for field in fields)


def _immutable(body: Body) -> tuple[object, ...]:
    """What cannot be updated: the role of a RoleBinding, the scopes of a quota."""
    spec = body.get("spec") or {}
    return body.get("roleRef"), spec.get("scopes"), spec.get("scopeSelector")


def problem_of(error: ApiError) -> Problem:
    """The API server's refusal in the developer's words."""
    if error.status == 403 and "admission webhook" in error.message:
        return Problem("AdmissionRefused", error.message)
    if error.status == 403 and "because it is being terminated" in error.message:
        return Problem("NamespaceTerminating", f"its namespace is being deleted: {error.message}", waiting=True)
    if error.status == 403:
        return Problem("Forbidden", f"the operator lacks a permission: {error.message}")
    if error.status == 409:
        return Problem("Conflict", f"somebody changed it at the same time, it will be tried again: {error.message}")
    if error.status in {400, 422}:
        return Problem("Refused", error.message)
    return Problem("ApiServerError", f"the API server answered {error.status}: {error.message}")
