"""OPA Gatekeeper: the real controller and audit as processes, the platform's policies, a webhook that fails closed."""

from __future__ import annotations

import base64
import http.client
from typing import Any

from testbed.addons.base import AddOn
from testbed.cluster import Fidelity, KubeClient, Manifest, Refused, load_manifests
from testbed.cluster.client import NOT_YET
from testbed.cluster.embedded import LOOPBACK, free_ports
from testbed.paths import manifests
from testbed.supervisor import ProcessSpec, log_tail
from testbed.wait import wait_until

NAMESPACE = "gatekeeper-system"
WEBHOOK = "gatekeeper-validating-webhook-configuration"
CONSTRAINTS = "constraints.gatekeeper.sh/v1beta1"
ADMIT = "validation.gatekeeper.sh"
NOT_INSTALLED = {"Deployment", "Secret", "Service", "PodDisruptionBudget", "MutatingWebhookConfiguration"}
"""Of upstream's manifest: what only serves its pods. Mutation is not used by the platform."""
AUDIT_INTERVAL = 2
"""Seconds between audits; upstream's default is 60."""
READY_TIMEOUT = 90.0
PROBE_NAMESPACE = "testbed-gatekeeper-probe"


class Gatekeeper(AddOn):
    """Gatekeeper v3 with the constraint templates and constraints of `manifests/gatekeeper`."""

    name = "gatekeeper"
    tools = ("gatekeeper",)
    _roles = ("gatekeeper-controller", "gatekeeper-audit")

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self._health: dict[str, int] = {}

    def install(self) -> None:
        """CRDs and RBAC from upstream's manifest, both processes, then the policies, then the webhook."""
        kube = self.cluster.client()
        upstream = load_manifests(self.cluster.toolchain.assets("gatekeeper") / "deploy" / "gatekeeper.yaml")
        wanted = [manifest for manifest in upstream if manifest["kind"] not in NOT_INSTALLED]
        webhook = next(manifest for manifest in wanted if manifest["kind"] == "ValidatingWebhookConfiguration")
        wanted.remove(webhook)
        kube.apply_all(wanted)
        kube.wait_crds(
            [manifest["metadata"]["name"] for manifest in wanted if manifest["kind"] == "CustomResourceDefinition"],
            timeout=READY_TIMEOUT,
        )
        port = self._start_processes(kube)
        self._apply_policies(kube)
        self._wait_processes()
        kube.apply(self._fail_closed(webhook, port))

    def _start_processes(self, kube: KubeClient) -> int:
        """Start controller and audit under Gatekeeper's own service account; returns the webhook's port."""
        kubeconfig = self.cluster.service_account_kubeconfig(NAMESPACE, "gatekeeper-admin")
        certificates = self.cluster.folder / "gatekeeper-certs"
        certificate, key = self.cluster.authority.issue("gatekeeper-webhook", "gatekeeper-webhook", hosts=[LOOPBACK])
        certificates.mkdir(mode=0o700, exist_ok=True)
        # Audit does not make its cache folder; without it every audit fails, in its log only.
        (self.cluster.folder / "gatekeeper-audit").mkdir(mode=0o700, exist_ok=True)
        for name, source in (
            ("tls.crt", certificate),
            ("tls.key", key),
            ("ca.crt", self.cluster.authority.certificate),
        ):
            (certificates / name).write_bytes(source.read_bytes())
            (certificates / name).chmod(0o600)
        webhook, controller_health, audit_health, discard = free_ports(4)
        self._health = {"gatekeeper-controller": controller_health, "gatekeeper-audit": audit_health}
        common = [
            f"--kubeconfig={kubeconfig}",
            "--disable-cert-rotation",
            f"--cert-dir={certificates}",
            f"--host={LOOPBACK}",
            "--disable-opa-builtin={http.send}",
            f"--exempt-namespace={NAMESPACE}",
            # Its Prometheus exporter can only listen on every interface; this one pushes, here to a closed port.
            "--metrics-backend=opentelemetry",
            f"--otlp-endpoint={LOOPBACK}:{discard}",
            "--otlp-metric-interval=1h",
            "--shutdown-delay=0",
        ]
        roles = {
            "gatekeeper-controller": [
                "--operation=webhook",
                f"--port={webhook}",
                f"--health-addr={LOOPBACK}:{controller_health}",
            ],
            "gatekeeper-audit": [
                "--operation=audit",
                "--operation=status",
                "--operation=generate",
                f"--audit-interval={AUDIT_INTERVAL}",
                f"--api-cache-dir={self.cluster.folder / 'gatekeeper-audit'}",
                f"--health-addr={LOOPBACK}:{audit_health}",
            ],
        }
        binary = self.cluster.toolchain.ensure(["gatekeeper"])["gatekeeper"]
        for role, arguments in roles.items():
            kube.apply(_own_pod(role))
            self.cluster.supervisor.start(
                ProcessSpec(
                    name=self.cluster.component(role),
                    argv=[str(binary), *common, *arguments],
                    env={"POD_NAME": role, "POD_NAMESPACE": NAMESPACE, "NAMESPACE": NAMESPACE, "GOMAXPROCS": "2"},
                    tags={"cluster": self.cluster.name, "role": role},
                    restart_limit=100,
                )
            )
        return webhook

    def _apply_policies(self, kube: KubeClient) -> None:
        templates = load_manifests(manifests("gatekeeper", "templates"))
        kube.apply_all(templates)
        kinds = [template["spec"]["crd"]["spec"]["names"]["kind"] for template in templates]
        kube.wait_crds([f"{kind.lower()}.constraints.gatekeeper.sh" for kind in kinds], timeout=READY_TIMEOUT)
        kube.apply_all(load_manifests(manifests("gatekeeper", "constraints")))

    def _fail_closed(self, upstream: Manifest, port: int) -> Manifest:
        """Upstream's webhook configuration, pointed at our process, and refusing when that does not answer."""
        authority = base64.b64encode(self.cluster.authority.pem).decode()
        for webhook in upstream["webhooks"]:
            path = webhook["clientConfig"].pop("service")["path"]
            webhook["clientConfig"] = {"url": f"https://{LOOPBACK}:{port}{path}", "caBundle": authority}
            if webhook["name"] == ADMIT:
                webhook["failurePolicy"] = "Fail"
                # Fail-closed must not lock the cluster's own components out (leases, events, tokens).
                for expression in webhook["namespaceSelector"]["matchExpressions"]:
                    if expression["key"] == "kubernetes.io/metadata.name":
                        expression["values"] = [NAMESPACE, "kube-system", "kube-public", "kube-node-lease"]
                webhook["matchConditions"] = [
                    {
                        "name": "not-node-status-or-tokens",
                        "expression": '!(request.resource.resource in ["nodes", "leases", "events", "tokenreviews", '
                        '"subjectaccessreviews", "endpointslices"])',
                    }
                ]
        return upstream

    def _wait_processes(self) -> None:
        for role, port in self._health.items():
            name = self.cluster.component(role)
            log = self.cluster.supervisor.folder / "logs" / f"{name}.log"

            def probe(name: str = name, port: int = port) -> tuple[bool, object]:
                self.cluster.supervisor.require_running(name)
                connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
                try:
                    connection.request("GET", "/readyz")
                    answer = connection.getresponse()
                    return answer.status == 200, answer.read(200)
                finally:
                    connection.close()

            wait_until(
                f"{name} is ready",
                probe,
                timeout=READY_TIMEOUT,
                retry_on=(OSError, http.client.HTTPException),
                evidence=lambda log=log: log_tail(log),  # type: ignore[misc]
            )

    def ready(self) -> None:
        """Wait until an untagged namespace is refused by policy, and not because the webhook is away."""
        kube = self.cluster.client()
        probe_object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PROBE_NAMESPACE}}

        def probe() -> tuple[bool, object]:
            try:
                kube.apply(probe_object, dry_run=True)
            except Refused as refusal:
                return "cost-allocation-tags" in refusal.reason, refusal.reason
            return False, "an untagged namespace was admitted"

        controller = self.cluster.supervisor.folder / "logs" / f"{self.cluster.component('gatekeeper-controller')}.log"
        wait_until(
            f"Gatekeeper on cluster {self.cluster.name} enforces its constraints",
            probe,
            timeout=READY_TIMEOUT,
            retry_on=NOT_YET,
            evidence=lambda: log_tail(controller),
        )

    def restart(self) -> None:
        """Kill both processes and wait until they enforce again.

        After an outage of the API server Gatekeeper v3.23.1 goes on enforcing what it knew, but was seen to miss
        changes of constraints for more than 90 s: its watches do not recover by themselves in that time.
        """
        for role in self._roles:
            self.cluster.kill(role)
        self.ready()

    def uninstall(self) -> None:
        """Remove the webhook first, so that nothing is refused for want of it, then stop the processes."""
        self.cluster.client().delete(
            "ValidatingWebhookConfiguration", WEBHOOK, api_version="admissionregistration.k8s.io/v1"
        )
        self.cluster.supervisor.stop([self.cluster.component(role) for role in self._roles])

    def set_enforcement(self, kind: str, name: str, action: str) -> None:
        """Set a constraint's enforcementAction: `dryrun` takes the guard away, `deny` puts it back."""
        self.cluster.client().apply(
            {
                "apiVersion": CONSTRAINTS,
                "kind": kind,
                "metadata": {"name": name},
                "spec": {**self.constraint(kind, name)["spec"], "enforcementAction": action},
            }
        )

    def constraint(self, kind: str, name: str) -> Manifest:
        """A constraint with its status."""
        found = self.cluster.client().get(kind, name, api_version=CONSTRAINTS)
        if found is None:
            raise Refused(f"there is no constraint {kind}/{name}", fix="see manifests/gatekeeper/constraints")
        return found

    def violations(self, kind: str, name: str) -> list[dict[str, Any]]:
        """What the last audit found against a constraint."""
        found: list[dict[str, Any]] = self.constraint(kind, name).get("status", {}).get("violations") or []
        return found

    def fidelity(self) -> Fidelity:
        """What is real here."""
        return Fidelity(
            part=f"gatekeeper {self.version}",
            real="controller and audit, CRDs, RBAC, webhook over TLS, fail-closed",
            simulated=f"one replica as a process instead of three pods; audit every {AUDIT_INTERVAL} s",
        )


def _own_pod(name: str) -> Manifest:
    """The Pod object that Gatekeeper looks up as its own; gated, so that nothing ever schedules or runs it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"testbed.dev/runs-as": "host process"}},
        "spec": {
            "schedulingGates": [{"name": "testbed.dev/host-process"}],
            "serviceAccountName": "gatekeeper-admin",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "manager",
                    "image": "openpolicyagent/gatekeeper",
                    # The namespace enforces the "restricted" Pod Security Standard.
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
