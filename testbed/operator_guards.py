"""Guards of tenancy and progressive delivery, and how each is taken away for the negative control."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.addons.operators import NAMESPACE, CanaryPolicy, OperatorAddOn, TenantWorkspace
from testbed.addons.prometheus import Prometheus
from testbed.cluster.client import NOT_YET
from testbed.guards import EFFECTIVE_WITHIN, WEBHOOK_API
from testbed.platform import Platform
from testbed.wait import wait_until

LEASE_API = "coordination.k8s.io/v1"
OPERATORS: dict[str, type[OperatorAddOn]] = {addon.name: addon for addon in (TenantWorkspace, CanaryPolicy)}


class Leading:
    """An operator that leads; removed, somebody else holds its lease: it answers its webhooks and reconciles nothing."""

    def __init__(self, operator: str) -> None:
        self.operator = operator

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Take the lease, and give it back."""
        operator = platform.addon(OPERATORS[self.operator])
        self._hold(platform, "testbed-control", 3600)
        self._wait(operator, 0)
        try:
            yield
        finally:
            self._hold(platform, "", 1)
            self._wait(operator, 1)

    def _hold(self, platform: Platform, holder: str, seconds: int) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": now, "acquireTime": now}
        lease = {"apiVersion": LEASE_API, "kind": "Lease", "metadata": {"name": self.operator, "namespace": NAMESPACE}}
        platform.cluster.client().apply(lease | {"spec": spec})

    @staticmethod
    def _wait(operator: OperatorAddOn, leads: int) -> None:
        def probe() -> tuple[bool, object]:
            found = operator.metric("platform_operator_leader")
            return found == leads, f"leader metric {found}"

        wait_until(
            f"{operator.name} knows that it leads: {bool(leads)}", probe, timeout=EFFECTIVE_WITHIN, retry_on=NOT_YET
        )


class Webhooks:
    """An operator's webhooks; removed, the API server knows of none."""

    def __init__(self, operator: str) -> None:
        self.operator = operator

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Delete the configurations, and put them back as they were."""
        kube = platform.cluster.client()
        operator = platform.addon(OPERATORS[self.operator])
        kinds = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
        found = [kube.get(kind, self.operator, api_version=WEBHOOK_API) for kind in kinds]
        saved = [manifest for manifest in found if manifest is not None]
        if not saved:
            raise LookupError(f"{self.operator} has no webhooks")
        for manifest in saved:
            kube.delete(manifest["kind"], self.operator, api_version=WEBHOOK_API)
        refused, _ = operator.probe()

        def admitted() -> tuple[bool, object]:
            kube.apply(refused, dry_run=True)
            return True, "admitted"

        try:
            wait_until(
                "the API server calls the webhooks no more", admitted, timeout=EFFECTIVE_WITHIN, retry_on=(Exception,)
            )
            yield
        finally:
            for manifest in saved:
                manifest["metadata"] = {"name": self.operator}
                kube.apply(manifest)
            operator.ready()


class FailsClosed:
    """The `failurePolicy: Fail` of an operator's validating webhook; removed, it is `Ignore`."""

    def __init__(self, operator: str) -> None:
        self.operator = operator

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Set the policy, and set it back."""
        self._set(platform, "Ignore")
        try:
            yield
        finally:
            self._set(platform, "Fail")

    def _set(self, platform: Platform, policy: str) -> None:
        kube = platform.cluster.client()
        found = kube.get("ValidatingWebhookConfiguration", self.operator, api_version=WEBHOOK_API)
        if found is None:
            raise LookupError(f"{self.operator} has no validating webhook")
        for webhook in found["webhooks"]:
            webhook["failurePolicy"] = policy
        found["metadata"] = {"name": self.operator}
        kube.apply(found)


class KeptAlive:
    """The restart of an operator that dies; removed, it stays dead."""

    def __init__(self, operator: str) -> None:
        self.operator = operator

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Switch restarts off, and on again with the operator working."""
        name = platform.cluster.component(self.operator)
        platform.supervisor.set_restart(name, False)
        try:
            yield
        finally:
            platform.supervisor.set_restart(name, True)
            platform.supervisor.revive(name)
            platform.addon(OPERATORS[self.operator]).ready()


class SecondReplica:
    """A standby beside the operator; removed, there is none. Scenarios take the fixture `standby`."""

    def __init__(self, operator: str) -> None:
        self.operator = operator

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Stop it for good."""
        platform.addon(OPERATORS[self.operator]).stop_replica(1)
        yield


class AlertRule:
    """An alert rule; removed, Prometheus has every other rule."""

    def __init__(self, alert: str) -> None:
        self.alert = alert

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Load the rules without it, and with it."""
        prometheus = platform.addon(Prometheus)
        prometheus.set_rules(without=(self.alert,))
        try:
            yield
        finally:
            prometheus.set_rules()
