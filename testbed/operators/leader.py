"""Which replica works: a Lease, by the rules of client-go's leader election."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Awaitable, Callable

from testbed.operators import metrics
from testbed.operators.api import UNREACHABLE, Api, ApiError, Body, Resource

LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")
log = logging.getLogger(__name__)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Leader:
    """Holds the lease while it can.

    A lease counts as run out when it was not seen to change for its duration by our own clock, so clocks need not
    agree. Somebody who cannot renew stops leading after two thirds of the duration: before others may take over.
    """

    def __init__(self, controller: str, namespace: str, identity: str, seconds: int) -> None:
        self.name = controller
        self._namespace = namespace
        self._identity = identity
        self._seconds = seconds
        self._until = 0.0
        self._seen: tuple[str | None, float] = (None, 0.0)
        self._was_leading = False

    def leading(self) -> bool:
        """True while this replica may write."""
        return time.monotonic() < self._until

    async def run(self, api: Api, started: Callable[[], Awaitable[None]], stopped: Callable[[], None]) -> None:
        """Try to get and keep the lease, for ever; `started` and `stopped` hear about the changes.

        The lease is renewed while `started` still runs: what it lists may take longer than the lease lasts. A try
        that hangs is given up after half the duration, so a dead leader is replaced within 1.6 durations even then,
        and within 1.1 where the API server answers.
        """
        beginning: asyncio.Task[None] | None = None
        try:
            while True:
                renewed = await self._attempt(api)
                leads = self.leading()
                metrics.LEADING.labels(self.name).set(leads)
                if leads != self._was_leading:
                    log.info("this replica %s", "leads" if leads else "does not lead any more")
                    if leads:
                        beginning = asyncio.create_task(self._begin(started))
                    else:
                        if beginning is not None:
                            beginning.cancel()
                            beginning = None
                        stopped()
                    self._was_leading = leads
                if beginning is not None and beginning.done():
                    beginning.result()  # a bug there ends the process, as it should
                    beginning = None
                await asyncio.sleep(self._seconds / 5 if leads and renewed else self._seconds / 10)
        finally:
            if beginning is not None:
                beginning.cancel()

    async def _attempt(self, api: Api) -> bool:
        """One try, not longer than another could still follow; whether the API server answered it."""
        try:
            async with asyncio.timeout(self._seconds / 2):
                await self._try(api)
        except (ApiError, *UNREACHABLE) as error:
            log.warning("the lease could not be renewed: %s", error or type(error).__name__)
            return False
        return True

    async def _begin(self, started: Callable[[], Awaitable[None]]) -> None:
        """Begin to lead, as often as it takes."""
        while True:
            try:
                return await started()
            except (ApiError, *UNREACHABLE) as error:
                log.warning("leading could not begin: %s", error or type(error).__name__)
                await asyncio.sleep(self._seconds / 10)

    async def _try(self, api: Api) -> None:
        began = time.monotonic()
        found = await api.get(LEASE, self.name, self._namespace)
        if found is None:
            await api.request("POST", LEASE.path(self._namespace), body=self._lease({}, taken=True), election=True)
        else:
            spec = found.get("spec") or {}
            ours = spec.get("holderIdentity") == self._identity
            version = found["metadata"]["resourceVersion"]
            if version != self._seen[0]:
                self._seen = (version, began)
            runs_out = self._seen[1] + float(spec.get("leaseDurationSeconds") or self._seconds)
            if not ours and spec.get("holderIdentity") and began < runs_out:
                self._until = 0.0
                return
            # With the resource version, so that of two replicas that see it run out only one gets it.
            body = self._lease(found, taken=not ours)
            path = LEASE.path(self._namespace, self.name)
            try:
                await api.request("PUT", path, body=body, election=True)
            except ApiError as error:
                if error.status == 409:
                    return
                raise
        self._until = began + self._seconds * 2 / 3

    async def release(self, api: Api) -> None:
        """Give the lease up, so that another replica need not wait for it to run out.

        Raises:
            ApiError: The API server refused; the lease runs out by itself.
            TimeoutError: It did not answer within half the lease's duration.
        """
        if not self.leading():
            return
        self._until = 0.0
        async with asyncio.timeout(self._seconds / 2):
            while True:
                found = await api.get(LEASE, self.name, self._namespace)
                if found is None or found["spec"].get("holderIdentity") != self._identity:
                    return
                found["spec"]["holderIdentity"] = ""
                path = LEASE.path(self._namespace, self.name)
                try:
                    await api.request("PUT", path, body=found, election=True)
                    return
                except ApiError as error:
                    if error.status != 409:  # our own last renewal, which was still under way
                        raise

    def _lease(self, found: Body, *, taken: bool) -> Body:
        old = found.get("spec") or {}
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {
                "name": self.name,
                "namespace": self._namespace,
                **{k: found["metadata"][k] for k in ("resourceVersion", "labels") if k in found.get("metadata", {})},
            },
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._seconds,
                "acquireTime": _now() if taken or not old.get("acquireTime") else old["acquireTime"],
                "renewTime": _now(),
                "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if taken and old else 0),
            },
        }
