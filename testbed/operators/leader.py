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
        """Try to get and keep the lease, for ever; `started` and `stopped` hear about the changes."""
        while True:
            try:
                await self._try(api)
            except (ApiError, *UNREACHABLE) as error:
                log.warning("the lease could not be renewed: %s", error)
            leads = self.leading()
            metrics.LEADING.labels(self.name).set(leads)
            if leads != self._was_leading:
                log.info("this replica %s", "leads" if leads else "does not lead any more")
                try:
                    if leads:
                        await started()
                    else:
                        stopped()
                except (ApiError, *UNREACHABLE) as error:
                    log.warning("leading could not begin: %s", error)
                    leads = False
                self._was_leading = leads
            await asyncio.sleep(self._seconds / 5 if self._was_leading else self._seconds / 10)

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
        """Give the lease up, so that another replica need not wait for it to run out."""
        if not self.leading():
            return
        self._until = 0.0
        found = await api.get(LEASE, self.name, self._namespace)
        if found is not None and found["spec"].get("holderIdentity") == self._identity:
            found["spec"]["holderIdentity"] = ""
            await api.request("PUT", LEASE.path(self._namespace, self.name), body=found, election=True)

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
