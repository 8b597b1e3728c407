"""Guards of tenancy and progressive delivery, and how each is taken away for the negative control."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.addons.gatekeeper import WEBHOOK_API
from testbed.addons.operator_pods import NAMESPACE
from testbed.addons.operators import GROUP, CanaryPolicy, OperatorAddOn, TenantWorkspace
from testbed.addons.prometheus import Prometheus
from testbed.cluster import KubeClient, Refused, load_manifests
from testbed.cluster.client import NOT_YET
from testbed.guards import EFFECTIVE_WITHIN
from testbed.paths import manifests
from testbed.platform import Platform
from testbed.tenancy import Tenancy
from testbed.wait import wait_until

RBAC_API = "rbac.authorization.k8s.io/v1"
LEASE_API = "coordination.k8s.io/v1"
OPERATORS: dict[str, type[OperatorAddOn]] = {addon.name: addon for addon in (TenantWorkspace, CanaryPolicy)}


class Leading:
    """An operator that leads; removed, another holds its lease: it runs, answers its webhooks, and reconciles nothing.

    See `Running` and `Restarted` in `testbed.guards` for an operator that is away altogether, or dies.
    """

    def __init__(self, operator: str) -> None:
        self.operator = operator

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Take the lease, and give it back."""
        operator = platform.addon(OPERATORS[self.operator])
        try:
            self._hold(platform, "testbed-control", 3600)
            self._wait(operator, 0)
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
            found = operator.leaders()  # all replicas: one that never led says so before the old leader has noticed
            return found == leads, f"{found} replicas lead"

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
        refused, _ = operator.probe()

        def admitted() -> tuple[bool, object]:
            kube.apply(refused, dry_run=True)
            return True, "admitted"

        try:
            for manifest in saved:
                kube.delete(manifest["kind"], self.operator, api_version=WEBHOOK_API)
            wait_until(
                "the API server calls the webhooks no more", admitted, timeout=EFFECTIVE_WITHIN, retry_on=(Exception,)
            )
            yield
        finally:
            for manifest in saved:
                manifest["metadata"] = {"name": self.operator}
                kube.apply(manifest)
            operator.ready()


class Schema:
    """The schema of a custom resource; removed, any field of any type is accepted. The webhooks go with it.

    Without types a webhook sees nonsense first; what is asked here is what the operator does with it.
    """

    def __init__(self, plural: str, api_version: str, *, webhooks: str) -> None:
        self.crd = f"{plural}.{api_version.partition('/')[0]}"
        self.webhooks = Webhooks(webhooks)

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Replace it by one that says nothing, and put it back."""
        kube = platform.cluster.client()
        (manifest,) = load_manifests(manifests("operators", "crds", f"{self.crd.partition('.')[0]}.yaml"))
        loose = copy.deepcopy(manifest)
        for version in loose["spec"]["versions"]:
            anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            version["schema"]["openAPIV3Schema"] = anything | {"properties": {"status": anything}}
        kind = manifest["spec"]["names"]["kind"]
        with self.webhooks.removed(platform):
            try:
                kube.apply(loose)
                self._wait(kube, kind, accepted=True)
                yield
            finally:
                kube.apply(manifest)
                self._wait(kube, kind, accepted=False)

    def _wait(self, kube: KubeClient, kind: str, *, accepted: bool) -> None:
        probe_object = {"apiVersion": GROUP, "kind": kind, "metadata": {"name": "testbed-schema-probe"}}

        def probe() -> tuple[bool, object]:
            try:
                kube.create(probe_object | {"spec": {"team": 1}}, namespace=NAMESPACE, dry_run=True)
            except Refused as refusal:
                return not accepted, refusal.reason
            return accepted, "accepted"

        wait_until(f"the schema of {self.crd} is off: {accepted}", probe, timeout=EFFECTIVE_WITHIN, retry_on=NOT_YET)


class Finalizers:
    """The finalizer of workspaces with a prefix; removed, these go at once, whatever is left of the tenant."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Take it off those that are there, while the operator does not lead; then that puts it back."""
        kube = platform.cluster.client()

        def bare() -> list[str]:
            metas = [found["metadata"] for found in kube.list("TenantWorkspace", api_version=GROUP)]
            ours = [meta for meta in metas if meta["name"].startswith(self.prefix)]
            return [meta["name"] for meta in ours if not meta.get("finalizers") and not meta.get("deletionTimestamp")]

        try:
            with Leading("tenant-workspace").removed(platform):
                for found in kube.list("TenantWorkspace", api_version=GROUP):
                    if found["metadata"]["name"].startswith(self.prefix):
                        kube.merge(found, {"metadata": {"finalizers": None}})
                yield
        finally:
            wait_until(
                f"workspaces {self.prefix}* have their finalizer",
                lambda: (not (without := bare()), without),
                timeout=EFFECTIVE_WITHIN,
                retry_on=NOT_YET,
            )


class SecondReplica:
    """Two replicas instead of one; removed, a scenario that deploys the standby gets none."""

    def __init__(self, operator: str) -> None:
        self.operator = operator
        self._wanted = True

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """One replica from now on."""
        self._wanted = False
        try:
            yield
        finally:
            self._wanted = True

    @contextmanager
    def deployed(self, platform: Platform) -> Iterator[None]:
        """The operator as it is deployed: with its standby, while the guard is on."""
        operator = platform.addon(OPERATORS[self.operator])
        try:
            if self._wanted:
                operator.start_replica(1)
            yield
        finally:
            operator.stop_replica(1)


class GivenUp:
    """The end of a replica that is told to stop: it gives its lease up. Removed, it is killed and cannot."""

    def __init__(self) -> None:
        self._told = True

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Kill from now on."""
        self._told = False
        try:
            yield
        finally:
            self._told = True

    def stop(self, platform: Platform, component: str) -> None:
        """End a replica for good."""
        if self._told:
            platform.supervisor.stop([component])
        else:
            platform.supervisor.stop([component], grace=0)


class ScopedToNamespace:
    """A role that a group has only by RoleBindings; removed, it is bound for the whole cluster, as in haste."""

    def __init__(self, role: str, group: str) -> None:
        self.role = role
        self.group = group

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Bind it cluster-wide, and delete that binding."""
        kube = platform.cluster.client()
        name = "testbed-control"
        binding = {
            "apiVersion": RBAC_API,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": self.role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": self.group}],
        }

        def effective() -> tuple[bool, object]:
            return kube.allowed("anybody", self.group, "list", "pods", "", "default"), "not allowed yet"

        try:
            kube.apply(binding)
            wait_until("the cluster-wide binding works", effective, timeout=EFFECTIVE_WITHIN)
            yield
        finally:
            kube.delete("ClusterRoleBinding", name, api_version=RBAC_API)
            wait_until(
                "the cluster-wide binding works no more",
                lambda: (not effective()[0], "it does"),
                timeout=EFFECTIVE_WITHIN,
            )


class GuardRails:
    """Quota and limits of a tenant; removed, they are deleted while the operator does not lead."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Delete them, and have the operator put them back."""
        kube = platform.cluster.client()
        tenancy = Tenancy(kube)
        if tenancy.get(self.tenant) is None:
            raise LookupError(f"there is no workspace {self.tenant}")
        try:
            with Leading("tenant-workspace").removed(platform):
                for kind in ("ResourceQuota", "LimitRange"):
                    for found in kube.list(kind, namespace=self.tenant, api_version="v1"):
                        kube.delete(kind, found["metadata"]["name"], namespace=self.tenant, api_version="v1")
                yield
        finally:
            wait_until(
                f"{self.tenant} has its guard rails",
                lambda: (not (lacking := tenancy.missing(self.tenant)), lacking),
                timeout=EFFECTIVE_WITHIN,
            )


class AlertRule:
    """An alert rule; removed, Prometheus has every other rule."""

    def __init__(self, alert: str) -> None:
        self.alert = alert

    @contextmanager
    def removed(self, platform: Platform) -> Iterator[None]:
        """Load the rules without it, and with it."""
        prometheus = platform.addon(Prometheus)
        names = {rule["name"] for group in prometheus.query_api("rules")["groups"] for rule in group["rules"]}
        if self.alert not in names:
            raise LookupError(f"there is no alert {self.alert}, only {', '.join(sorted(names))}")
        try:
            prometheus.set_rules(without=(self.alert,))
            yield
        finally:
            prometheus.set_rules()
