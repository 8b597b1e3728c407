"""The platform's two operators, each under its own service account: as processes, or as pods where images run."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import yaml

from testbed.addons import flagger, gateway, prometheus
from testbed.addons.analysis import analysis_scale, scaled_windows
from testbed.addons.base import AddOn
from testbed.addons.operator_pods import NAMESPACE, OperatorPods
from testbed.addons.operator_pods import REPLICAS as PODS
from testbed.addons.prometheus import scrape
from testbed.cluster import Cluster, Fidelity, Manifest, Refused, load_manifests
from testbed.cluster.base import pem_data
from testbed.cluster.client import NOT_YET
from testbed.cluster.pki import write_private
from testbed.pages import NOT_SERVED, page
from testbed.paths import manifests
from testbed.ports import LOOPBACK, free_ports, retry_on_taken_port
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

GROUP = "platform.testbed.dev/v1alpha1"
READY_TIMEOUT = 60.0
LEASE_SECONDS = 5
"""How long a dead leader is waited for; 15 is the operator's own default."""
REPLICAS = 2
"""At most; scenarios start the second one."""
RESYNC_SECONDS = 10
"""Between two comparisons of everything; 60 is the operator's own default."""


class OperatorAddOn(AddOn):
    """One operator: CRDs, RBAC, process, webhooks."""

    command: ClassVar[str]
    """Of `python -m testbed.operators`; also its service account, lease and folder of manifests."""
    crds: ClassVar[tuple[str, ...]]
    kinds: ClassVar[tuple[str, ...]]
    """What teams make of them: taken away before the operator."""
    version_is: ClassVar[str] = "v1alpha1"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        flags = [f"--lease-seconds={LEASE_SECONDS}", f"--resync-seconds={RESYNC_SECONDS}"]
        self.pods = OperatorPods(cluster, self.command, flags) if "images" in cluster.capabilities else None
        """Where the cluster runs containers; a process of this machine where it does not."""

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
        """CRDs and RBAC, the process or the pods, then the webhooks that these serve."""
        kube = self.cluster.client()
        for crd in self.crds:
            kube.apply_all(load_manifests(manifests("operators", "crds", f"{crd}.yaml")))
        kube.wait_crds([f"{crd}.{GROUP.partition('/')[0]}" for crd in self.crds], timeout=READY_TIMEOUT)
        kube.apply_all(self.rights())
        if self.pods is not None:
            self.pods.deploy()
            kube.apply_all(self.pods.webhooks())
            return
        kube.apply_all(self.webhooks(self.start_replica(0)))

    def rights(self) -> list[Manifest]:
        """Its namespaces, then its account and rights."""
        files = ("namespaces.yaml", "rbac.yaml")
        return [m for file in files for m in load_manifests(manifests("operators", self.command, file))]

    def resume(self) -> None:
        """The process, then the webhooks at its new address."""
        self.cluster.client().apply_all(self.webhooks(self.start_replica(0)))

    @retry_on_taken_port
    def start_replica(self, replica: int) -> int:
        """Start one replica; returns the port of its webhooks. Replica 0 is the one that the webhooks call."""
        webhook, metrics = free_ports(2)
        folder = self.cluster.folder
        name = self.role(replica)
        self.cluster.supervisor.stop([self.cluster.component(name)], grace=0)
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
        self.wait_listed(replica)
        return webhook

    def wait_listed(self, replica: int) -> None:
        """Wait until a replica knows what is there; it need not lead."""
        component = self.cluster.component(self.role(replica))
        log = self.cluster.log(self.role(replica))

        def probe() -> tuple[bool, object]:
            self.cluster.supervisor.require_started(component)
            status, text = self.get("/readyz", replica)
            return status == 200, text

        wait_until(
            f"{component} says ok at /readyz",
            probe,
            timeout=READY_TIMEOUT,
            retry_on=NOT_SERVED,
            evidence=lambda: log_tail(log),
        )

    def stop_replica(self, replica: int) -> None:
        """Stop a replica for good."""
        self.cluster.supervisor.stop([self.cluster.component(self.role(replica))])
        scrape(self.cluster, self.command, self.role(replica), None)

    def incarnation(self) -> object:
        """What changes whenever it dies or is restarted; the same while it lives."""
        if self.pods is not None:
            return self.pods.incarnations()
        status = self.cluster.supervisor.component(self.cluster.component(self.role()))
        return status.pid, status.restarts

    def switch_off(self) -> None:
        """Nobody answers its webhooks any more: the process is killed, the Deployment scaled to nothing."""
        if self.pods is not None:
            self.pods.scale(0)
        else:
            self.cluster.supervisor.stop([self.cluster.component(self.role())], grace=0)

    def switch_on(self) -> None:
        """After `switch_off`; returns when it works."""
        if self.pods is not None:
            self.pods.scale(PODS)
        else:
            self.cluster.supervisor.revive(self.cluster.component(self.role()))
        self.ready()

    def webhooks(self, port: int) -> list[Manifest]:
        """The webhook configurations of `manifests/`, by URL instead of by service."""
        found = load_manifests(manifests("operators", self.command, "webhooks.yaml"))
        bundle = pem_data(self.cluster.authority.pem)
        for manifest in found:
            del manifest["metadata"]["annotations"]
            for webhook in manifest["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": f"https://{LOOPBACK}:{port}{path}", "caBundle": bundle}
        return found

    def get(self, path: str, replica: int = 0) -> tuple[int, str]:
        """Status and text of a page of a replica: /metrics, /healthz, /readyz."""
        if self.pods is not None:
            return self.pods.page(path)
        status = self.cluster.supervisor.component(self.cluster.component(self.role(replica)))
        host, _, port = status.tags["metrics"].partition(":")
        return page(host, int(port), path, timeout=5)

    def metric(self, name: str, replica: int = 0, **labels: str) -> float:
        """The sum of a metric's series with these labels; 0 where there is none."""
        return _sum(self.get("/metrics", replica)[1], name, labels)

    def leaders(self) -> int:
        """How many of its replicas say that they lead; of pods that are starting, none can."""
        if self.pods is not None:
            texts = self.pods.pages("/metrics")
        else:
            known = self.cluster.supervisor.components()
            roles = ((replica, self.cluster.component(self.role(replica))) for replica in range(REPLICAS))
            running = [replica for replica, name in roles if name in known and known[name].running]
            texts = [self.get("/metrics", replica)[1] for replica in running]
        return int(sum(_sum(text, "platform_operator_leader", {}) for text in texts))

    def ready(self) -> None:
        """Wait until it leads and its webhook refuses what it must refuse."""
        kube = self.cluster.client()
        refused, word = self.probe()
        component = self.cluster.component(self.role())
        log = self.cluster.log(self.role())

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
            retry_on=(*NOT_YET, *NOT_SERVED),
            evidence=self.pods.describe if self.pods is not None else lambda: log_tail(log),
        )

    def uninstall(self) -> None:
        """Remove what is made by it while it still runs, then itself: nothing is left that only it could end."""
        kube = self.cluster.client()
        for kind in self.kinds:
            self._delete_all(kind)
        if self.pods is not None:
            self.pods.remove()
        else:
            for replica in range(REPLICAS):
                self.stop_replica(replica)
        objects = [
            *load_manifests(manifests("operators", self.command, "webhooks.yaml")),
            *reversed(self.rights()),
            *(load_manifests(manifests("operators", "crds", f"{crd}.yaml"))[0] for crd in self.crds),
        ]
        for found in objects:
            metadata = found["metadata"]
            if found["kind"] == "Namespace" and self._lives(metadata["name"]):
                continue
            kube.delete(
                found["kind"],
                metadata["name"],
                namespace=metadata.get("namespace"),
                api_version=found["apiVersion"],
            )

    def _lives(self, namespace: str) -> bool:
        """Whether somebody else is in a namespace that operators share."""
        accounts = self.cluster.client().list("ServiceAccount", namespace=namespace, api_version="v1")
        return any(account["metadata"]["name"] != "default" for account in accounts)

    def _delete_all(self, kind: str) -> None:
        kube = self.cluster.client()
        for found in kube.list(kind, api_version=GROUP):
            metadata = found["metadata"]
            kube.delete(kind, metadata["name"], namespace=metadata.get("namespace"), api_version=GROUP)

        def gone() -> tuple[bool, object]:
            left = [found["metadata"]["name"] for found in kube.list(kind, api_version=GROUP)]
            return not left, f"left: {left}"

        wait_until(f"every {kind} is gone", gone, timeout=READY_TIMEOUT, retry_on=NOT_YET)

    def fidelity(self) -> Fidelity:
        """What is real here."""
        how = "a certificate of the testbed, not cert-manager's" if self.pods else "a process instead of a pod"
        return Fidelity(
            part=f"operator {self.command}",
            real="the operator that would run in production: CRDs, own service account, lease, webhooks over TLS",
            simulated=f"{how}; lease {LEASE_SECONDS} s, resync every {RESYNC_SECONDS} s",
        )


def _sum(text: str, name: str, labels: dict[str, str]) -> float:
    """The sum of a metric's series with these labels on a page of metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    samples = (
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
    return sum(sample.value for sample in samples)


class TenantWorkspace(OperatorAddOn):
    """Provisions tenants."""

    name = "tenant-workspace"
    command = "tenant-workspace"
    crds = ("teams", "tenantworkspaces")
    kinds = ("TenantWorkspace", "Team")
    requires = ("argo-cd-crds",)

    def probe(self) -> tuple[Manifest, str]:
        """A workspace of a team that does not exist."""
        spec = {"team": "testbed-probe", "environment": "sandbox", "repositories": ["https://git.invalid/probe"]}
        manifest = {"apiVersion": GROUP, "kind": "TenantWorkspace", "metadata": {"name": "testbed-probe"}}
        return manifest | {"spec": spec}, "is in the directory"

    def fidelity(self) -> Fidelity:
        """What is real here."""
        found = super().fidelity()
        said = "; Team objects come from the tests, no identity provider"
        if self.pods is None:
            said += "; NetworkPolicies are not enforced, no pod network"
        return found.model_copy(update={"simulated": found.simulated + said})


class CanaryPolicy(OperatorAddOn):
    """Generates Canaries."""

    name = "canary-policy"
    command = "canary-policy"
    crds = ("canarypolicies",)
    kinds = ("CanaryPolicy",)
    requires = ("flagger-crds",)
    after = ("prometheus", "gateway", "flagger")

    def configuration(self) -> dict[str, Any]:
        """Where Prometheus, load tester and gateway are, if they are; with Flagger, windows by the time scale."""
        found = self.cluster.supervisor.components()

        def address(role: str) -> str | None:
            status = found.get(self.cluster.component(role))
            return status.tags.get("address") if status else None

        settings: dict[str, Any] = {}
        if (at := address(prometheus.ROLE)) is not None:
            settings["prometheus"] = f"http://{at}"
        if self.cluster.component(gateway.PROXY) in found:
            settings["gateway"] = f"{gateway.NAMESPACE}/{gateway.GATEWAY}"
        if (at := address(flagger.LOAD_TESTER)) is not None:
            settings |= {"loadTester": f"http://{at}/", "proxy": f"http://{address(flagger.NAMES)}"}
            settings |= scaled_windows(self.cluster.spec.time_scale)
        return settings

    def fidelity(self) -> Fidelity:
        """What is real here."""
        found = super().fidelity()
        if "minimumWindow" not in self.configuration():
            return found
        scale = analysis_scale(self.cluster.spec.time_scale)
        said = f"; windows, warm-up and intervals of analyses divided by {scale:g} (time scale)"
        return found.model_copy(update={"simulated": found.simulated + said})

    def probe(self) -> tuple[Manifest, str]:
        """A policy without a smoke test."""
        spec = {"targetRef": {"name": "probe"}, "service": {"port": 80}, "slo": {"successRate": 99, "latencyP99": 500}}
        manifest = {"apiVersion": GROUP, "kind": "CanaryPolicy", "metadata": {"name": "probe", "namespace": NAMESPACE}}
        return manifest | {"spec": spec}, "spec.smokeTest"
