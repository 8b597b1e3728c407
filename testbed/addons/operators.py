"""The platform's two operators as supervised processes, each under its own service account."""

from __future__ import annotations

import base64
import http.client
import sys
from typing import Any, ClassVar

import yaml

from testbed.addons.base import AddOn
from testbed.addons.prometheus import scrape
from testbed.cluster import Fidelity, Manifest, Refused, load_manifests
from testbed.cluster.client import NOT_YET
from testbed.cluster.embedded import LOOPBACK, free_ports
from testbed.cluster.pki import write_private
from testbed.paths import manifests
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

NAMESPACE = "platform-operators"
GROUP = "platform.testbed.dev/v1alpha1"
READY_TIMEOUT = 60.0
LEASE_SECONDS = 5
"""How long a dead leader is waited for; 15 is the operator's own default."""
RESYNC_SECONDS = 10
"""Between two comparisons of everything; 60 is the operator's own default."""


class OperatorAddOn(AddOn):
    """One operator: CRDs, RBAC, process, webhooks."""

    command: ClassVar[str]
    """Of `python -m testbed.operators`; also its service account, lease and folder of manifests."""
    crds: ClassVar[tuple[str, ...]]
    version_is: ClassVar[str] = "v1alpha1"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self._metrics_ports: dict[int, int] = {}

    @property
    def version(self) -> str:
        """The version of its API: it is part of the testbed, not a tool of its own."""
        return self.version_is

    def role(self, replica: int = 0) -> str:
        """The role of a replica's process, as `cluster.component` takes it."""
        return self.command if replica == 0 else f"{self.command}-{replica}"

    def configuration(self) -> dict[str, Any]:
        """What differs here from the operator's defaults."""
        return {}

    def probe(self) -> tuple[Manifest, str]:
        """An object that its webhook refuses, and a word of the refusal."""
        raise NotImplementedError

    def install(self) -> None:
        """CRDs and RBAC, the process, then the webhooks that it serves."""
        kube = self.cluster.client()
        for crd in self.crds:
            kube.apply_all(load_manifests(manifests("operators", "crds", f"{crd}.yaml")))
        kube.wait_crds([f"{crd}.{GROUP.partition('/')[0]}" for crd in self.crds], timeout=READY_TIMEOUT)
        kube.apply_all(load_manifests(manifests("operators", self.command, "rbac.yaml")))
        port = self.start_replica(0)
        for webhook in self.webhooks(port):
            kube.apply(webhook)

    def start_replica(self, replica: int) -> int:
        """Start one replica; returns the port of its webhooks. Replica 0 is the one that the webhooks call."""
        webhook, metrics = free_ports(2)
        self._metrics_ports[replica] = metrics
        folder = self.cluster.folder
        name = self.role(replica)
        certificate, key = self.cluster.authority.issue(f"{name}-webhook", f"{name}-webhook", hosts=[LOOPBACK])
        config = write_private(folder / f"{self.command}.yaml", yaml.safe_dump(self.configuration()).encode())
        kubeconfig = self.cluster.service_account_kubeconfig(NAMESPACE, self.command)
        options = {
            "kubeconfig": kubeconfig,
            "config": config,
            "identity": f"{self.command}-{replica}",
            "namespace": NAMESPACE,
            "lease-seconds": LEASE_SECONDS,
            "resync-seconds": RESYNC_SECONDS,
            "metrics-listen": f"{LOOPBACK}:{metrics}",
            "webhook-listen": f"{LOOPBACK}:{webhook}",
            "webhook-certificate": certificate,
            "webhook-key": key,
        }
        flags = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        self.cluster.supervisor.start(
            ProcessSpec(
                name=self.cluster.component(name),
                argv=[sys.executable, "-m", "testbed.operators", *flags, self.command],
                # Two arenas, not eight a core: freed memory goes back to the system.
                env={"MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"},
                tags={"cluster": self.cluster.name, "role": name, "metrics": f"{LOOPBACK}:{metrics}"},
                restart_limit=100,
            )
        )
        scrape(self.cluster, self.command, name, f"{LOOPBACK}:{metrics}")
        return webhook

    def stop_replica(self, replica: int) -> None:
        """Stop a replica for good."""
        self.cluster.supervisor.stop([self.cluster.component(self.role(replica))])
        scrape(self.cluster, self.command, self.role(replica), None)

    def webhooks(self, port: int) -> list[Manifest]:
        """The webhook configurations of `manifests/`, by URL instead of by service."""
        found = load_manifests(manifests("operators", self.command, "webhooks.yaml"))
        bundle = base64.b64encode(self.cluster.authority.pem).decode()
        for manifest in found:
            del manifest["metadata"]["annotations"]
            for webhook in manifest["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": f"https://{LOOPBACK}:{port}{path}", "caBundle": bundle}
        return found

    def get(self, path: str, replica: int = 0) -> tuple[int, str]:
        """Status and text of a page of a replica: /metrics, /healthz, /readyz."""
        status = self.cluster.supervisor.component(self.cluster.component(self.role(replica)))
        host, _, port = status.tags["metrics"].partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name: str, replica: int = 0, **labels: str) -> float:
        """The sum of a metric's series with these labels; 0 where there is none."""
        from prometheus_client.parser import text_string_to_metric_families

        samples = (
            sample
            for family in text_string_to_metric_families(self.get("/metrics", replica)[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
        return sum(sample.value for sample in samples)

    def ready(self) -> None:
        """Wait until it leads and its webhook refuses what it must refuse."""
        kube = self.cluster.client()
        refused, word = self.probe()
        component = self.cluster.component(self.role())
        log = self.cluster.supervisor.folder / "logs" / f"{component}.log"

        def probe() -> tuple[bool, object]:
            self.cluster.supervisor.require_running(component)
            if not self.metric("platform_operator_leader"):
                return False, "it does not lead yet"
            try:
                kube.apply(refused, dry_run=True)
            except Refused as refusal:
                return word in refusal.reason, refusal.reason
            return False, f"{refused['kind']} was admitted"

        wait_until(
            f"the operator {self.command} of cluster {self.cluster.name} works",
            probe,
            timeout=READY_TIMEOUT,
            retry_on=(*NOT_YET, http.client.HTTPException),
            evidence=lambda: log_tail(log),
        )

    def uninstall(self) -> None:
        """Remove the webhooks first, so that nothing is refused for want of them, then stop the processes."""
        kube = self.cluster.client()
        for webhook in load_manifests(manifests("operators", self.command, "webhooks.yaml")):
            kube.delete(webhook["kind"], webhook["metadata"]["name"], api_version=webhook["apiVersion"])
        for replica in self._metrics_ports or {0: 0}:
            self.stop_replica(replica)

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part=f"operator {self.command}",
            real="the operator that would run in production: CRDs, own service account, lease, webhooks over TLS",
            simulated=f"a process instead of a pod; lease {LEASE_SECONDS} s, resync every {RESYNC_SECONDS} s",
        )


class TenantWorkspace(OperatorAddOn):
    """Provisions tenants."""

    name = "tenant-workspace"
    command = "tenant-workspace"
    crds = ("teams", "tenantworkspaces")
    requires = ("argo-cd-crds",)

    def probe(self) -> tuple[Manifest, str]:
        """A workspace of a team that does not exist."""
        spec = {"team": "testbed-probe", "environment": "sandbox", "repositories": ["https://git.invalid/probe"]}
        manifest = {"apiVersion": GROUP, "kind": "TenantWorkspace", "metadata": {"name": "testbed-probe"}}
        return manifest | {"spec": spec}, "is in the directory"

    def fidelity(self) -> Fidelity:
        """What is real here."""
        found = super().fidelity()
        said = "; Team objects come from the tests, no identity provider; NetworkPolicies are not enforced, no pod network"
        return found.model_copy(update={"simulated": found.simulated + said})


class CanaryPolicy(OperatorAddOn):
    """Generates Canaries."""

    name = "canary-policy"
    command = "canary-policy"
    crds = ("canarypolicies",)
    requires = ("flagger-crds",)

    def probe(self) -> tuple[Manifest, str]:
        """A policy without a smoke test."""
        spec = {"targetRef": {"name": "probe"}, "service": {"port": 80}, "slo": {"successRate": 99, "latencyP99": 500}}
        manifest = {"apiVersion": GROUP, "kind": "CanaryPolicy", "metadata": {"name": "probe", "namespace": NAMESPACE}}
        return manifest | {"spec": spec}, "spec.smokeTest"
